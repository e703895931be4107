"""The kernels as torch knows them: functions with gradients where they run, operators where torch.compile traces.

One pair of operators serves all kernels: the compiler asks nothing of them but what their results look like, and the
gradient. Called elsewhere it would cost more than what a step computes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd import Function

from recurra.ops import native
from recurra.ops.native import KERNELS
from recurra.ops.once import once_differentiable
from recurra.shapes import Tensor

Given = Sequence[Any]  # tensors, and None where there is none


class Kernel(NamedTuple):
    """A scan in C. `kind` is a whole number that says what the tensors do not.

    Args:
        fresh: of `keep`, `kind` and the inputs: room for the results and, to `keep`, for what backward needs of them.
        forward: of `kind`, the inputs and that room, which it fills.
        backward: of `kind`, which inputs want a gradient, what was saved and the gradients of the results: those of the
            inputs, shaped like what was saved of them.
        results: how many there are.
        saves: of `kind`, the inputs with what was kept, and the first result: what backward needs, where that is less.
    """

    fresh: Callable[[bool, int, Given], tuple[Tensor, ...]]
    forward: Callable[[int, Given, Sequence[Tensor]], None]
    backward: Callable[[int, Sequence[bool], Given, Given], Given]
    results: int = 2
    saves: Callable[[int, Given, Tensor], Given] | None = None

    def run(self, keep: bool, kind: int, inputs: Given) -> tuple[Tensor, ...]:
        """The results and, to `keep`, what was kept."""
        outputs = self.fresh(keep, kind, inputs)
        self.forward(kind, inputs, outputs)
        return outputs

    def saved(self, kind: int, inputs: Given, outputs: Sequence[Tensor]) -> Given:
        """What backward needs."""
        everything = (*inputs, *outputs[self.results :])
        return everything if self.saves is None else self.saves(kind, everything, outputs[0])


def run(name: str, kind: int, *inputs: Tensor | None) -> tuple[Tensor, ...]:
    """The results of a kernel, with a gradient where one is wanted."""
    kernel, keep = KERNELS[name], native.tracked(*inputs)
    if torch.compiler.is_compiling():
        holes = sum(1 << place for place, x in enumerate(inputs) if x is None)
        return tuple(_scan(name, kind, keep, [x for x in inputs if x is not None], holes)[: kernel.results])
    return _Eager.apply(kernel, kind, *inputs) if keep else kernel.run(False, kind, inputs)


class _Eager(Function):
    @staticmethod
    def forward(ctx: Any, kernel: Kernel, kind: int, *inputs: Any) -> Any:
        outputs = kernel.run(True, kind, inputs)
        ctx.save_for_backward(*kernel.saved(kind, inputs, outputs))
        ctx.kernel, ctx.kind = kernel, kind
        ctx.set_materialize_grads(False)
        return outputs[: kernel.results]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        grads = ctx.kernel.backward(ctx.kind, ctx.needs_input_grad[2:], ctx.saved_tensors, grad_outputs)
        return None, None, *grads


# An operator's gradients go to the tensors of a list only where it has no holes: those are bits of a number.


@torch.library.custom_op("recurra::scan", mutates_args=())
def _scan(name: str, kind: int, keep: bool, inputs: list[Tensor], holes: int) -> list[Tensor]:
    return list(KERNELS[name].run(keep, kind, _filled(inputs, holes)))


@_scan.register_fake
def _(name: str, kind: int, keep: bool, inputs: list[Tensor], holes: int) -> list[Tensor]:
    return list(KERNELS[name].fresh(keep, kind, _filled(inputs, holes)))


@torch.library.custom_op("recurra::scan_backward", mutates_args=())
def _scan_backward(
    name: str, kind: int, wanted: list[bool], saved: list[Tensor | None], grads: list[Tensor | None]
) -> list[Tensor]:
    found = KERNELS[name].backward(kind, wanted, saved, grads)
    return [native.dense(x) for x, want in zip(found, wanted, strict=True) if want and x is not None]


@_scan_backward.register_fake
def _(name: str, kind: int, wanted: list[bool], saved: list[Tensor | None], grads: list[Tensor | None]) -> list[Tensor]:
    likes = zip(saved, wanted, strict=False)
    return [native.fresh(x) for x, want in likes if want and x is not None]


def _keep(ctx: Any, inputs: tuple, output: list[Tensor]) -> None:
    name, kind, _, tensors, holes = inputs
    kernel = KERNELS[name]
    ctx.save_for_backward(*kernel.saved(kind, _filled(tensors, holes), output))
    ctx.name, ctx.kind, ctx.holes, ctx.results = name, kind, holes, kernel.results
    ctx.set_materialize_grads(False)


def _back(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    needed = ctx.needs_input_grad[3]
    found = iter(
        _scan_backward(
            ctx.name, ctx.kind, _filled(needed, ctx.holes, False), list(ctx.saved_tensors), grads[: ctx.results]
        )
    )
    return None, None, None, [next(found) if need else None for need in needed], None


_scan.register_autograd(_back, setup_context=_keep)


def _filled(tensors: Sequence[Any], holes: int, by: Any = None) -> list[Any]:
    """A list with its holes again."""
    rest = iter(tensors)
    return [by if holes >> place & 1 else next(rest) for place in range(len(tensors) + holes.bit_count())]
