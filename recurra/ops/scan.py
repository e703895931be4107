"""Choose an implementation for a record and run it. The only place that knows which implementations there are."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import is_grad_enabled, nn
from torch.compiler import is_compiling
from torch.nn.modules import module as hooks

from recurra.clock import Clock
from recurra.ops import (
    address,
    block,
    cell,
    conv,
    delta,
    descent,
    diag,
    dplr,
    graph,
    grid,
    least_squares,
    linear_system,
    liquid,
    machine,
    outer,
    projection,
    selective,
    settle,
    state_space,
    synapse,
)
from recurra.ops.address import chunk as address_chunk, loop as address_loop, native as address_native
from recurra.ops.block import chunk as block_chunk, loop as block_loop
from recurra.ops.cell import (
    gpu as cell_gpu,
    loop as cell_loop,
    native as cell_native,
    newton as cell_newton,
    torch as cell_torch,
)
from recurra.ops.conv import chunk as conv_chunk, fft as conv_fft, loop as conv_loop, native as conv_native
from recurra.ops.delta import chunk as delta_chunk, gpu as delta_gpu, loop as delta_loop, native as delta_native
from recurra.ops.descent import chunk as descent_chunk, loop as descent_loop, native as descent_native
from recurra.ops.diag import (
    chunk as diag_chunk,
    fft as diag_fft,
    gpu as diag_gpu,
    loop as diag_loop,
    native as diag_native,
)
from recurra.ops.dplr import chunk as dplr_chunk, loop as dplr_loop
from recurra.ops.graph import loop as graph_loop, wavefront as graph_wavefront
from recurra.ops.grid import loop as grid_loop, wavefront as grid_wavefront
from recurra.ops.least_squares import (
    chunk as least_squares_chunk,
    loop as least_squares_loop,
    native as least_squares_native,
)
from recurra.ops.linear_system import (
    chunk as linear_system_chunk,
    loop as linear_system_loop,
    native as linear_system_native,
)
from recurra.ops.liquid import chunk as liquid_chunk, loop as liquid_loop, native as liquid_native
from recurra.ops.machine import loop as machine_loop, native as machine_native
from recurra.ops.outer import chunk as outer_chunk, gpu as outer_gpu, loop as outer_loop, native as outer_native
from recurra.ops.projection import adjoint as projection_adjoint, loop as projection_loop, native as projection_native
from recurra.ops.selective import chunk as selective_chunk, loop as selective_loop, native as selective_native
from recurra.ops.settle import loop as settle_loop, native as settle_native
from recurra.ops.state_space import (
    chunk as state_space_chunk,
    loop as state_space_loop,
    native as state_space_native,
)
from recurra.ops.synapse import loop as synapse_loop, native as synapse_native
from recurra.shapes import State, Tensor, wide, widen
from recurra.state import each, leaves

# Fastest first; the definition is last and never declines.
IMPLEMENTATIONS: dict[type, tuple[ModuleType, ...]] = {
    diag.Diag: (diag_native, diag_gpu, diag_chunk, diag_fft, diag_loop),
    outer.Outer: (outer_native, outer_gpu, outer_chunk, outer_loop),
    delta.Delta: (delta_native, delta_gpu, delta_chunk, delta_loop),
    delta.LowRank: (delta_native, delta_gpu, delta_chunk, delta_loop),
    cell.Cell: (cell_native, cell_torch, cell_gpu, cell_newton, cell_loop),
    conv.ShortConv: (conv_native, conv_fft, conv_chunk, conv_loop),
    least_squares.LeastSquares: (least_squares_native, least_squares_chunk, least_squares_loop),
    address.Address: (address_native, address_chunk, address_loop),
    selective.Selective: (selective_native, selective_chunk, selective_loop),
    liquid.Liquid: (liquid_native, liquid_chunk, liquid_loop),
    state_space.StateSpace: (state_space_native, state_space_chunk, state_space_loop),
    settle.Settle: (settle_native, settle_loop),
    synapse.Synapse: (synapse_native, synapse_loop),
    block.Block: (block_chunk, block_loop),
    linear_system.LinearSystem: (linear_system_native, linear_system_chunk, linear_system_loop),
    dplr.DiagonalPlusLowRank: (dplr_chunk, dplr_loop),
    projection.Projection: (projection_native, projection_adjoint, projection_loop),
    grid.Grid: (grid_wavefront, grid_loop),
    graph.Graph: (graph_wavefront, graph_loop),
    machine.Machine: (machine_native, machine_loop),
    descent.Descent: (descent_native, descent_chunk, descent_loop),
}

# Whose kernels widen numbers as they read them.
NARROW = {diag.Diag: diag_native, outer.Outer: outer_native, delta.Delta: delta_native, delta.LowRank: delta_native}

# Where all is of one of these there is nothing to widen.
WHOLE = {torch.bool, torch.uint8, torch.int32, torch.int64}
SINGLE, DOUBLE = WHOLE | {torch.float32, torch.complex64}, WHOLE | {torch.float64, torch.complex128}

_only: contextvars.ContextVar[str | None] = contextvars.ContextVar("recurra_only", default=None)
# what is asked for anywhere, in any thread: torch.compile sees this, and not the variable above
_asked: list[str] = []


def name_of(implementation: ModuleType) -> str:
    """ "loop", "chunk", "native", ..."""
    return implementation.__name__.rpartition(".")[2]


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Inside `with recurra.use("loop"):` every scan runs that implementation, or raises saying why it cannot."""
    known = sorted({name_of(x) for several in IMPLEMENTATIONS.values() for x in several})
    if name not in known:
        raise ValueError(f"there is no implementation {name!r}; there are {', '.join(known)}")
    token = _only.set(name)
    _asked.append(name)
    try:
        yield
    finally:
        _asked.remove(name)
        _only.reset(token)


def asked() -> str | None:
    """The implementation that is asked for here, if one is."""
    return _only.get() if _asked else None


def compiled(native: ModuleType, *given: Any) -> bool:
    """Whether what has no record but a loop and kernels is left to its kernels."""
    return asked() in (None, "native") and native.declines(*given) is None


def prepare(record: Any, state: State, clock: Clock | None = None) -> tuple[Any, State]:
    """The record and state as implementations get them: resets inside, unreal steps stilled, one wide type.

    A record of narrow numbers is left as it is where kernels take it so.
    """
    if clock is not None:
        reset, valid = clock.reset, clock.valid
        record = record._replace(reset=reset if reset is None or valid is None else reset & valid)
        if valid is not None:
            record = record.hold(valid)
    kinds = {x.dtype for x in (*record, *leaves(state)) if isinstance(x, Tensor)}
    if kinds <= SINGLE or kinds <= DOUBLE:
        return record, state
    tensors = [x for x in record if isinstance(x, Tensor)]
    real = wide(*tensors, *leaves(state))
    state = each(lambda x: widen(x, real), state)
    narrow = NARROW.get(type(record)) if asked() in (None, "native") else None
    if narrow is not None and narrow.declines(record, state) is None:
        return record, state
    record = type(record)(*(widen(x, real) if isinstance(x, Tensor) else x for x in record))
    return record, state


def choose(record: Any, state: State) -> ModuleType:
    """The first implementation that does not decline, nor yields to another (an optional word of a module's).

    Raises:
        ValueError: all decline (possible only under `use`); every reason is given.
    """
    reasons, only = [], asked()
    for implementation in IMPLEMENTATIONS[type(record)]:
        if only is not None and only != name_of(implementation):
            reason = f"only {only} is asked for"
        else:
            reason = implementation.declines(record, state)
        if reason is None and only is None and hasattr(implementation, "yields"):
            reason = implementation.yields(record, state)
        if reason is None:
            return implementation
        reasons.append(f"{name_of(implementation)}: {reason}")
    raise ValueError(f"no implementation of {type(record).__name__} will run: {'; '.join(reasons)}")


def _quiet() -> bool:
    """Whether nothing but numbers is wanted: no gradients, no graph, no implementation by its name."""
    return not is_grad_enabled() and (not _asked or _only.get() is None) and not is_compiling()


def unseen(*modules: nn.Module) -> bool:
    """Whether nothing is wanted of these modules but numbers, and no hook would see them called."""
    if not _quiet() or hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
        return False
    # asked at every step, where `any` of a generator takes longer than the rest
    for module in modules:  # noqa: SIM110
        if module._forward_hooks or module._forward_pre_hooks:
            return False
    return True


class Scan(nn.Module):
    """Run a recurrence: `scan(record, state, clock) -> (read, state)`. A module, so that hooks see every record.

    It keeps a plan of the last step without gradients, where the implementation that took it makes one (`plan`, an
    optional word of a module's): shapes that were thought through once, never a tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.plan: Callable[[Any, State], tuple[Tensor, State] | None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the plan: a copy makes its own."""
        return {**self.__dict__, "plan": None}

    def __call__(self, record: Any, state: State, clock: Clock | None = None) -> tuple[Tensor, State]:
        # a planned step is done here: torch's own way from a call to its forward takes as long as the step's arithmetic
        plan = self.plan
        if plan is not None and clock is None and unseen(self):
            done = plan(record, state)
            if done is not None:
                return done
        return super().__call__(record, state, clock)

    def forward(self, record: Any, state: State, clock: Clock | None = None) -> tuple[Tensor, State]:
        kind = record.output.dtype
        plans = clock is None and _quiet()
        record, state = prepare(record, state, clock)
        implementation, device = choose(record, state), record.output.device.type
        if plans and hasattr(implementation, "plan"):
            self.plan = implementation.plan(record, state) or self.plan
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            # it would send sums, solves and states that are kept wide through bfloat16
            with torch.autocast(device, enabled=False):
                read, state = implementation.scan(record, state)
        else:
            read, state = implementation.scan(record, state)
        return read if read.dtype == kind else read.to(kind), state
