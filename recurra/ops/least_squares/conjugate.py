r"""`LeastSquares` by conjugate gradients over all steps at once: no :math:`G_t` is ever made.

What a solver needs of :math:`G_t` is its product with a vector, and that is the read of an `Outer` memory whose values
are its keys. So an iteration is one scan of that engine, and the solution is the query of one more, which reads S. In
exact arithmetic K iterations suffice. Every step's residual is checked against what rounding allows; if one is left
after `MOST` K iterations, the Cholesky loop solves in its stead. So the error is that of a direct solver: in float32,
of 512 steps with unit keys and a ridge of 1/4, at most 1e-6 of the largest read for K from 4 to 64, whether nothing or
all is forgotten (Cholesky: 2e-6), after 4 to 26 iterations.
"""

from types import ModuleType

import torch

from recurra.ops.least_squares import LeastSquares, implicit, loop
from recurra.ops.least_squares.implicit import Map
from recurra.shapes import Float, Tensor

MOST = 8  # iterations, in numbers of channels
SLACK = 0.25  # residuals allowed, in roundings


def scan(
    engine: ModuleType, record: LeastSquares, state: Float[Tensor, "B H K W"]
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K W"]]:
    """`engine` is the implementation of `Outer` that makes the products."""
    whole = state.isfinite().flatten(1).all(1)
    if bool(whole.all()):
        return implicit.scan(engine, _inverse, record, state)
    # a ruined row would spoil the products of all its steps, those after a reset too
    zeroed = state.masked_fill(~whole[:, None, None, None], 0)
    read, last = implicit.scan(engine, _inverse, record, zeroed)
    sound = whole[:, None].expand(read.shape[:2])
    if record.reset is not None:
        sound = sound | (record.reset.cumsum(1) > 0)
    read = torch.where(sound[..., None, None], read, torch.nan)
    return read, torch.where(sound[:, -1, None, None, None], last, torch.nan)


def _inverse(record: LeastSquares, gram: Float[Tensor, "B H K K"], product: Map) -> Map:
    def inverse(right: Tensor) -> Tensor:
        solution = solve(product, right)
        return loop.solve(record, gram, right) if solution is None else solution

    return inverse


def solve(product: Map, right: Float[Tensor, "B T H K"]) -> Float[Tensor, "B T H K"] | None:
    """The inverse of `product`, a positive symmetric matrix at every step, times `right`; None if it is late."""
    solution = torch.zeros_like(right)
    residual = direction = right
    power = start = right.square().sum(-1, keepdim=True)
    size = torch.zeros_like(power)
    bound = SLACK * torch.finfo(right.dtype).eps
    for _ in range(MOST * right.shape[-1]):
        image = product(direction)
        curvature = (direction * image).sum(-1, keepdim=True)
        # a step that is done has no direction any more
        length = torch.where(curvature > 0, power / curvature, 0)
        solution = solution + length * direction
        residual = residual - length * image
        # the largest stretch seen is close below the matrix's own
        squares = direction.square().sum(-1, keepdim=True)
        size = torch.maximum(size, torch.where(squares > 0, curvature / squares, 0))
        before, power = power, residual.square().sum(-1, keepdim=True)
        allowed = bound * (size * solution.norm(dim=-1, keepdim=True) + start.sqrt())
        if bool((power.sqrt() <= allowed).all()):
            return solution
        direction = residual + torch.where(before > 0, power / before, 0) * direction
    return None
