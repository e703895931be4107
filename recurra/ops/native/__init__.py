"""The one door to compiled kernels: they are built by the machine's own C compiler on first use, kept, and called.

So the wheel stays pure Python. A library is named by the hash of everything that decides its machine code: sources,
flags, the compiler and the CPU. It is written beside its final name and renamed, so two processes that start at once
are safe. The OpenMP runtime is the one torch carries: with two in one process each pool spins on the other's cores.
Where no library can be had, one log line says why and `declines` passes it on; nothing crashes.
"""

import collections
import concurrent.futures
import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import pathlib
import platform
import shlex
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.autograd import forward_ad

from recurra.shapes import Tensor

FLAGS = (
    "-O3", "-march=native", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno", "-Wno-psabi",
    "-fno-tree-loop-distribute-patterns",
)  # fmt: skip
# what the compiler may also assume of kernels that are written, whose loops it must make vectors of by itself
FREER = ("-fno-trapping-math", *(("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()))
# written in vectors, all of them: in double precision these gain little from what takes the compiler twice as long
BY_HAND = {"delta", "low_rank", "descent"}
REALS = {
    torch.float32: "float", torch.complex64: "float", torch.float64: "double", torch.complex128: "double",
}  # fmt: skip
# two bytes in memory, widened as they are read: what common.h calls them
NARROW = {torch.bfloat16: 1, torch.float16: 2}
# steps between two states that the forward of a matrix memory keeps for its backward
WINDOW = 64
# units, features or neurons that a kernel takes together
LANES = 16
# what the sources here include, and what is written does
HEADERS = ("common.h", "chunk.h", "memory.h", "back.h", "rows.h", "slots.h", "machine.h", "descent.h", "mirror.h")
CELL_HEADERS = ("common.h", "elementary.h", "lying.h", "products.h", "cell.h")
HERE = pathlib.Path(__file__).parent
log = logging.getLogger("recurra")

Function = Callable[[bytes, int], int]
FULL = "no memory for the {} kernel's scratch"
TRANSFORMED = "torch.func, torch.vmap and forward-mode derivatives cannot see into the kernels"


# engine -> C that was written from a trace; every other engine's lies here in a file
_written: dict[str, str] = {}
# held while an engine's library is made: what else asks for it waits
_making: collections.defaultdict[tuple[str, str], threading.Lock] = collections.defaultdict(threading.Lock)
os.register_at_fork(after_in_child=_making.clear)  # the thread that held one is not in the child
# those that torch.compile sees, as `operators` makes them
KERNELS: dict[str, Any] = {}


class Missing(Exception):
    """There is no library, and why."""


def compiler() -> list[str]:
    """The command that `CC` names, or cc."""
    return shlex.split(os.environ.get("CC", "")) or ["cc"]


def cache() -> pathlib.Path:
    """Where libraries are kept.

    Raises:
        Missing: nobody says where.
    """
    if own := os.environ.get("RECURRA_CACHE"):
        return pathlib.Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    try:
        return (pathlib.Path(shared) if shared else pathlib.Path.home() / ".cache") / "recurra"
    except RuntimeError as error:  # a user whom the machine does not know, as in a container
        raise Missing("there is no home folder to keep compiled kernels in: set RECURRA_CACHE") from error


@functools.cache
def _version() -> str:
    """What the compiler says of itself.

    Raises:
        Missing: there is none.
    """
    command = compiler()
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Missing(f"no C compiler ({' '.join(command)}): install one, or name one in CC") from error
    return done.stdout


def _cpu() -> str:
    """The CPU's model and abilities: code for this one must not meet another."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return "".join(sorted({x for x in lines if x.startswith(("flags", "model name", "Features", "CPU part"))}))


def _openmp() -> list[str]:
    """Torch's own OpenMP runtime, if it brings one."""
    return [str(x) for x in sorted((pathlib.Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))[:1]]


def write(engine: str, text: str) -> None:
    """Make an engine of C that lies in no file. What follows a dash in its name is not in its functions' names."""
    _written[engine] = text


def _flags(engine: str, real: str) -> tuple[str, ...]:
    """How an engine is compiled."""
    if engine in _written:
        return (*FLAGS, *FREER)
    return (*FLAGS, "-O2") if real == "double" and engine in BY_HAND else FLAGS


def _compile(engine: str, real: str, path: pathlib.Path) -> None:
    source = HERE / f"{engine}.c"
    if engine in _written:
        source = path.with_suffix(".c")
        source.write_text(_written[engine])
    flags = (*_flags(engine, real), f"-I{HERE}", f"-DREAL={real}")
    command = [*compiler(), *flags, str(source), "-o", str(path), *_openmp(), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        first = next((x for x in lines if "error" in x), lines[0])
        raise Missing(f"{command[0]} could not compile the {engine} kernel: {first}")


def _load(engine: str, real: str) -> ctypes.CDLL:
    """The library of an engine, from the cache or compiled into it.

    Raises:
        Missing: it cannot be had.
    """
    sources = (*(HERE / name for name in HEADERS), HERE / f"{engine}.c")
    parts = (*_flags(engine, real), *_openmp(), torch.__version__, real, _version(), _cpu())
    if engine in _written:
        sources, parts = (HERE / name for name in CELL_HEADERS), (*parts, _written[engine])
    key = hashlib.sha256()
    for part in (*(x.read_bytes() for x in sources), *(x.encode() for x in parts)):
        key.update(part + b"\0")
    path = cache() / f"{engine}-{real}-{key.hexdigest()[:20]}.so"
    try:
        if path.exists():
            return ctypes.CDLL(str(path))
        with _workshop() as folder:
            fresh = pathlib.Path(folder, path.name)
            log.debug("compiling the %s kernel (%s)", engine, real)
            _compile(engine, real, fresh)
            if fresh.parent.parent == path.parent:
                os.replace(fresh, path)
                fresh = path
            # loaded before a temporary folder goes: a library in use needs no name
            return ctypes.CDLL(str(fresh))
    except OSError as error:
        raise Missing(f"the {engine} kernel cannot be loaded: {error}") from error


def _workshop() -> tempfile.TemporaryDirectory[str]:
    """A folder to compile in: inside the cache, or, where that cannot be written, one of this process alone."""
    try:
        cache().mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=cache())
    except OSError as error:
        _say(f"compiled kernels cannot be kept ({error}): every process compiles its own; set RECURRA_CACHE")
        return tempfile.TemporaryDirectory(prefix="recurra-")


@functools.cache
def _say(line: str) -> None:
    """Log a line once."""
    log.warning(line)


@functools.cache
def library_of(engine: str, real: str) -> ctypes.CDLL | str:
    """The library, or why there is none."""
    with _making[engine, real]:
        library = _made(engine, real)
    if isinstance(library, str):
        _say(f"{library}; slower implementations are used instead")
    return library


@functools.cache
def _made(engine: str, real: str) -> ctypes.CDLL | str:
    try:
        return _load(engine, real)
    except Missing as reason:
        return str(reason)


@contextlib.contextmanager
def ahead() -> Iterator[None]:
    """Inside, another thread makes the libraries whose C lies here, for who will want most of them."""

    def make(engine: str, real: str) -> None:
        with _making[engine, real]:
            _made(engine, real)

    helper = concurrent.futures.ThreadPoolExecutor(1)
    try:
        # in double precision what a mixer of single precision counts angles by
        for engine, real in (("diag", "double"), *((x.stem, "float") for x in sorted(HERE.glob("*.c")))):
            helper.submit(make, engine, real)
        yield
    finally:
        helper.shutdown(cancel_futures=True)


@functools.cache
def function(engine: str, name: str, real: str) -> Function:
    """A C function of an engine: of the bytes of its struct, and how many fields these are."""
    library = library_of(engine, real)
    if isinstance(library, str):
        raise RuntimeError(library)
    found = getattr(library, f"{engine.partition('-')[0]}_{name}")
    found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_int64), ctypes.c_int64
    return found


def available() -> str | None:
    """None where kernels can be compiled, else why they cannot. Asks for a compiler, compiles nothing."""
    try:
        _version()
    except Missing as reason:
        return str(reason)
    return None


def declines(engine: str, *tensors: Tensor | None, narrow: Sequence[Tensor | None] = ()) -> str | None:
    """Why the kernels of `engine` cannot take these tensors (masks left out); compiles them on first use.

    The tensors in `narrow` may also be bfloat16 or float16 beside others that are float32.
    """
    kinds, more = ({x.dtype for x in several if x is not None} for several in (tensors, narrow))
    reals = {REALS.get(kind) for kind in kinds} | {"float" if kind in NARROW else REALS.get(kind) for kind in more}
    tensors = (*tensors, *narrow)
    if None in reals or len(reals) > 1:
        return f"the kernels take float32 or float64, not {', '.join(sorted(str(kind) for kind in kinds | more))}"
    for x in tensors:
        if x is None:
            continue
        if not x.is_cpu:
            return f"the kernels run on a CPU, not on {x.device}"
        if not x.numel():
            return "there is nothing to compute"
    if not torch.compiler.is_compiling() and transformed():
        return TRANSFORMED
    if torch.compiler.is_exporting():
        return "an exported graph runs where this library is not"
    if torch.compiler.is_compiling() and engine not in KERNELS:
        return "torch.compile cannot see into the kernels"
    return missing(engine, reals.pop())


def transformed() -> bool:
    """Whether tensors stand for many, or carry derivatives: their numbers alone are not all that must come through."""
    return forward_ad._current_level >= 0 or _functorch.maybe_current_level() is not None


def missing(engine: str, real: str | None) -> str | None:
    """Why there is no library, if there is none."""
    assert real is not None
    library = library_of(engine, real)
    return library if isinstance(library, str) else None


# what torch.compiler.assume_constant_result does, which would import the compiler, and take seconds
missing._dynamo_marked_constant = True  # type: ignore[attr-defined]


def tracked(*tensors: Tensor | None) -> bool:
    """Whether autograd must hear of what is computed from these."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def lines(x: Tensor) -> Tensor:
    """`x` with a dense last axis; any other layout stays, and costs no copy."""
    x = x.resolve_conj().resolve_neg()
    return x if x.stride(-1) == 1 else x.contiguous()


def dense(x: Tensor) -> Tensor:
    """`x` without gaps, and no promise of torch's to conjugate or negate it later."""
    if x.is_contiguous() and not x.is_neg() and not x.is_conj():
        return x
    return x.resolve_conj().resolve_neg().contiguous()


def full(x: Tensor, *axes: int, fill: float = 0.0) -> Tensor:
    """As many as fill the kernels' lanes, along axes counted from the last; those that are not there are `fill`."""
    pads = [0] * (2 * -min(axes))
    for axis in axes:
        pads[-2 * axis - 1] = -x.shape[axis] % LANES
    return torch.nn.functional.pad(x, pads, value=fill) if any(pads) else x


def mask(x: Tensor | None) -> Tensor | None:
    """A mask without gaps, if there is one."""
    return None if x is None else x.contiguous()


def fresh(like: Tensor) -> Tensor:
    """Room for a tensor of this shape and type, without gaps."""
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def given(grad: Tensor | None, like: Tensor) -> Tensor:
    """A gradient to read, zero where there is none."""
    return torch.zeros_like(like) if grad is None else dense(grad)


def owned(grad: Tensor | None, like: Tensor) -> Tensor:
    """A gradient to write over, zero where there is none."""
    return torch.zeros_like(like) if grad is None else dense(grad.clone(memory_format=torch.contiguous_format))


def rows(x: Tensor | None) -> tuple[Tensor | None, int, int, int]:
    """A tensor of `lines` as the kernels take it: its address and the strides of batch, time and heads."""
    if x is None:
        return None, 0, 0, 0
    strides = x.stride()
    return x, strides[0], strides[1], strides[2] if x.ndim > 2 else 0


def typed(x: Tensor | None) -> tuple[Tensor | int | None, ...]:
    """As `rows`, of a tensor that may be narrow: with its type."""
    return (*rows(None if x is None else lines(x)), 0 if x is None else NARROW.get(x.dtype, 0))


def memory(
    tensors: Sequence[Tensor | None],
    log_decay: Tensor | None,
    first: Tensor,
    reset: Tensor | None,
    bonus: Tensor | None = None,
    before: int = 0,
) -> tuple[Tensor | int | None, ...]:
    """The struct `Record` of the C source of matrix memories; tensors: query, key, value, and what else there is."""
    query, value = tensors[0], tensors[2]
    assert query is not None and value is not None
    width = 0 if log_decay is None else 1 if log_decay.ndim == 3 else query.shape[-1]
    every = (field for x in (*tensors, log_decay) for field in typed(x))
    return (*every, reset, first, *query.shape, value.shape[-1], width, bonus, before)


@functools.cache
def _struct(fields: int) -> struct.Struct:
    return struct.Struct(f"{fields}q")


def call(engine: str, name: str, *arguments: Tensor | int | None) -> None:
    """Run a C function on the fields of its struct: tensors go as addresses, None as NULL, whole numbers as int64.

    The first argument is a tensor, whose type chooses the library: a narrow one takes the one of float32.

    Raises:
        MemoryError: there was none for the kernel's scratch.
    """
    first = arguments[0]
    assert isinstance(first, Tensor)
    kernel = function(engine, name, REALS.get(first.dtype, "float"))
    fields = [x if isinstance(x, int) else 0 if x is None else x.data_ptr() for x in arguments]
    code = kernel(_struct(len(fields)).pack(*fields), len(fields))
    if code == 1:
        raise MemoryError(FULL.format(engine))
    assert code == 0, f"{engine}_{name} was called with {len(fields)} fields"
