"""The one door to Triton: whether its kernels can run here, and how a plain function becomes one.

Importing this imports no Triton. A kernel is a plain function that speaks of `tl`; the first call that wants it binds
the name and compiles. With TRITON_INTERPRET=1 in the environment before Triton's first import, its interpreter runs the
same functions on a CPU, slowly: so they are tested anywhere.
"""

import functools
import importlib.util
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from recurra.shapes import Bool, Int, Tensor

if TYPE_CHECKING:
    tl: Any  # Triton's language, bound when a kernel is first wanted
    constexpr = Any
else:

    class constexpr:
        """The type of what is known when a kernel is compiled; Triton looks for the name."""


REALS = {torch.float32, torch.float64, torch.complex64, torch.complex128}


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def declines(*tensors: Tensor | None) -> str | None:
    """Why no kernel takes these; None where one does."""
    given = [x for x in tensors if x is not None]
    strange = next((x for x in given if not (x.is_cuda or (x.is_cpu and interpreted()))), None)
    if strange is not None:
        return f"the kernels run on a GPU, not on {strange.device}"
    if not installed("triton"):
        return "triton is not installed: pip install 'recurra[gpu]'"
    kinds = {x.dtype for x in given}
    if len({kind.to_real() for kind in kinds}) > 1 or not kinds <= REALS:
        return f"the kernels take float32 or float64, not {', '.join(sorted(str(kind) for kind in kinds))}"
    if not all(x.numel() for x in given):
        return "there is nothing to compute"
    return "torch.compile cannot see into the kernels" if torch.compiler.is_compiling() else None


@functools.cache
def installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def kernels(*functions: Callable[..., Any], helpers: tuple[Callable[..., Any], ...] = ()) -> tuple[Any, ...]:
    """The Triton kernels of plain functions, which may call `helpers` of their own module and the functions below."""
    for helper in (*WORDS, *helpers):
        inspect.unwrap(helper).__globals__[helper.__name__] = _kernel(helper)
    return tuple(map(_kernel, functions))


@functools.cache
def _kernel(function: Callable[..., Any]) -> Any:
    import triton
    import triton.language as tl

    # beneath what tests wrap around it
    function = inspect.unwrap(function)
    function.__globals__.update(tl=tl, constexpr=tl.constexpr)
    return triton.jit(function)


def launch(function: Any, programs: int, *arguments: Tensor | int, **constants: Any) -> None:
    """Run a kernel in a number of programs, on the device of its first tensor."""
    device = next(x for x in arguments if isinstance(x, Tensor))
    with torch.cuda.device_of(device):
        function[(programs,)](*arguments, **constants)


def flat(x: Tensor) -> Tensor:
    """`x` as the kernels take it: without gaps, complex numbers as pairs."""
    x = x.resolve_conj().resolve_neg().contiguous()
    return torch.view_as_real(x) if x.is_complex() else x


def power_of_two(n: int) -> int:
    """The least one that is not less than n."""
    return 1 << (n - 1).bit_length()


# ---- fla-core, whose chunk kernels serve the matrix memories ----


def fla_declines(precision: str, *tensors: Tensor | None) -> str | None:
    """Why fla-core's kernels do not take these, the first of which is `(B, T, H, K)`.

    They multiply in TF32 or bfloat16, so they run only where torch's own switch allows its products the same.
    """
    reason = declines(*tensors)
    if reason is not None:
        return reason
    if not installed("fla"):
        return "fla-core is not installed: pip install 'recurra[gpu]'"
    first = tensors[0]
    assert first is not None
    if first.dtype == torch.float64:
        return "fla-core's kernels know no float64"
    if interpreted():
        return "fla-core's kernels are compiled, never interpreted"
    if first.shape[1] == 1:
        return "a single step"
    if not 16 <= first.shape[-1] <= 256:
        return f"fla-core's kernels take 16 to 256 channels of a key, not {first.shape[-1]}"
    allowed = {"high": ("high", "medium"), "medium": ("medium",)}[precision]
    if torch.get_float32_matmul_precision() not in allowed:
        kind = {"high": "TF32", "medium": "bfloat16"}[precision]
        return f"fla-core multiplies in {kind}: torch.set_float32_matmul_precision({precision!r}) allows it"
    return None


class Packed(NamedTuple):
    """Rows with resets as fla-core takes them: one row that holds S sequences end to end. R: rows."""

    cu_seqlens: Int[Tensor, " S_and_1"]
    row: Int[Tensor, " S"]  # where each sequence lies
    fresh: Bool[Tensor, " S"]  # begins from zero; others go on from their row's state
    last: Int[Tensor, " R"]  # each row's last sequence

    @classmethod
    def of(cls, reset: Bool[Tensor, "B T"]) -> "Packed":
        """Cut where a row begins and where a sequence does."""
        steps = reset.shape[1]
        begins = reset.clone()
        begins[:, 0] = True
        starts = begins.flatten().nonzero()[:, 0]
        row = starts // steps
        last = row.diff(append=row.new_tensor([len(reset)])).nonzero()[:, 0]
        return cls(torch.cat([starts, starts.new_tensor([reset.numel()])]), row, reset.flatten()[starts], last)

    def first(self, state: Tensor) -> Tensor:
        """What each sequence begins from."""
        return state[self.row].masked_fill(self.fresh.reshape(-1, *(1,) * (state.ndim - 1)), 0)


def packed(run: Callable[..., Any], reset: Tensor | None, state: Tensor, inputs: dict[str, Any]) -> Any:
    """Run one of fla-core's functions on `(B, T, H, _)`; read and last state, `(B, H, K, V)`."""
    if reset is None:
        return run(**inputs, initial_state=state.contiguous(), output_final_state=True)
    cut, (rows, steps) = Packed.of(reset), reset.shape
    flat = {name: x.flatten(0, 1)[None] if isinstance(x, Tensor) and x.ndim > 2 else x for name, x in inputs.items()}
    first = cut.first(state).contiguous()
    read, last = run(**flat, initial_state=first, output_final_state=True, cu_seqlens=cut.cu_seqlens)
    return read[0].unflatten(0, (rows, steps)), last[cut.last]


# ---- functions that kernels call; NaN passes through all of them, as in torch ----


def larger(x, y):
    return tl.where((x > y) | (x != x), x, y)


def smaller(x, y):
    return tl.where((x < y) | (x != x), x, y)


def sigmoid(x):
    # never through e^-x for x < 0, which overflows where the result is still a number
    e = tl.exp(-tl.abs(x))
    return tl.where(x < 0, e, 1.0) / (1.0 + e)


def log1p(x):
    # Kahan: the rounding of 1 + x is divided out
    one_more = 1.0 + x
    near = one_more == 1.0
    return tl.where(near, x, tl.log(one_more) * (x / tl.where(near, 1.0, one_more - 1.0)))


def expm1(x):
    # a Taylor series where e^x - 1 would lose digits; there the first term left out is below a float64's last digit
    small = tl.where(tl.abs(x) < 0.35, x, 0.0)
    term = small
    total = small
    for i in tl.static_range(2, 15):
        term = term * small / i
        total = total + term
    return tl.where(tl.abs(x) < 0.35, total, tl.exp(x) - 1.0)


def tanh(x):
    a = 2.0 * tl.abs(x)
    # beyond 44 the result is 1 in every type, and e^a would go on to overflow; NaN stays
    e = expm1(tl.where(a > 44.0, 44.0, a))
    return tl.where(x < 0, -1.0, 1.0) * (e / (e + 2.0))


def logaddexp(x, y):
    # equal infinities have no difference
    same = x == y
    gap = tl.where(same, 0.0, x) - tl.where(same, 0.0, y)
    return larger(x, y) + log1p(tl.exp(-tl.abs(gap)))


WORDS = (larger, smaller, sigmoid, log1p, expm1, tanh, logaddexp)
