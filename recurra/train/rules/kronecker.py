"""An influence as products of a vector and a matrix, right on average: less noise than one outer product."""

from typing import Any

import torch
from torch.nn import functional as F

from recurra.ops.steps import restart
from recurra.parts.cell import DenseCell
from recurra.shapes import Float, Tensor
from recurra.train.errors import RunError
from recurra.train.rules.influence import Influence
from recurra.train.rules.layer import Layer, Step
from recurra.train.rules.online import OnlineRule
from recurra.train.rules.rank_one import balance

Memory = tuple[Tensor, ...]


class Kronecker(Influence):
    r"""For each product z = W u of a dense cell, a vector for u and a matrix for what z does to the state.

    .. math::  A_t = p_1 c_1^{-1} D A_{t-1} + p_2 c_2^{-1} \frac{\partial s_t}{\partial z_t} \qquad
        v_t = p_1 c_1 v_{t-1} + p_2 c_2 u_t \qquad p \in \{-1, 1\}
    .. math::  c_1 = \sqrt{|D A| / |v|} \qquad c_2 = \sqrt{|\partial s / \partial z| / |u|}
        \qquad \frac{\partial s_t}{\partial W_{ij}} \approx A_{\cdot i}\, v_j

    The products are those of the input, u = [x, 1], and of the recurrence, u = h.

    Raises:
        RunError: the mixer is more than such a cell.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        cell: Any = next(iter(layer.mixer.children()), None)
        alone = isinstance(cell, DenseCell) and len(list(layer.mixer.children())) == 1
        if not alone or cell.rule.operator != "dense" or cell.project is not None or cell.params is not None:
            raise RunError(
                "every parameter must stand in a product W [x, 1] or R h of a dense cell, as those of elman and lstm do"
            )
        self.cell = cell

    def start(self, rows: int) -> Memory:
        cell, size = self.cell, self.layer.size
        entering, recurrent = cell.input_weight, cell.weight.flatten(0, 2)
        shapes = (entering.shape[1] + 1,), (size, len(entering)), (recurrent.shape[1],), (size, len(recurrent))
        return tuple(self.layer.zeros(rows, *shape) for shape in shapes)

    @torch.no_grad()
    def advance(self, memory: Memory, at: Step) -> Memory:
        cell = self.cell
        before = at.vector if at.begins is None else restart(at.begins, at.vector)
        recurrent = cell.weight.detach().flatten(0, 2)
        x = F.pad(at.x, (0, 1), value=1.0)
        hidden = before[:, : recurrent.shape[1]]
        products = F.linear(at.x, cell.input_weight, cell.bias), F.linear(hidden, recurrent)
        jacobian = torch.vmap(torch.func.jacrev(self._after, (0, 1, 2)))
        by_input, by_recurrent, own = jacobian(*products, before)
        step = own.clone()
        step[:, :, : recurrent.shape[1]] += by_recurrent @ recurrent
        after: list[Tensor] = []
        for (vector, matrix), read, slopes in zip(
            (memory[:2], memory[2:]), (x, hidden), (by_input, by_recurrent), strict=True
        ):
            after += _fold(vector, step @ matrix, read, slopes)
        return tuple(after)

    def credit(self, memory: Memory, error: Float[Tensor, "B S"]) -> Float[Tensor, "B P"]:
        entering, bias, recurrent = "cell.input_weight", "cell.bias", "cell.weight"
        x, of_input, hidden, of_recurrent = memory
        by_input, by_hidden = ((error[:, None] @ part)[:, 0, :, None] for part in (of_input, of_recurrent))
        inputs = by_input * x[:, None]
        found = {entering: inputs[..., :-1], bias: inputs[..., -1], recurrent: by_hidden * hidden[:, None]}
        return self.layer.flat(found, 1)

    def _after(self, drive: Tensor, recur: Tensor, vector: Tensor) -> Tensor:
        """One row's state after a step, from its two products."""
        rule = self.cell.rule
        state = vector[None].chunk(rule.state, -1)
        _, new = rule.function(drive[None].chunk(rule.drive, -1), recur[None].chunk(rule.recur, -1), state)
        return torch.cat(new, -1)[0]


class KFRTRL(OnlineRule):
    r"""Real-time recurrent learning by Kronecker factors: credit that is right on average, with less noise than UORO's.

    .. math::  J_t \approx v_t \otimes A_t \qquad E[v_t \otimes A_t] = J_t

    Mujika, Meier & Steger 2018, https://arxiv.org/abs/1805.10842. Keeps N numbers for each of a dense cell's units and
    gates, not for each of its parameters. The paper has one product W [h, x, 1]; here inputs and recurrence have one
    each, because gates may use them apart, and their signs are drawn apart. See `Kronecker` for the equations.
    """

    def remember(self, layer: Layer) -> Influence:
        return Kronecker(layer)


def _fold(
    vector: Float[Tensor, "B U"],
    moved: Float[Tensor, "B S Z"],
    read: Float[Tensor, "B U"],
    slopes: Float[Tensor, "B S Z"],
) -> tuple[Tensor, Tensor]:
    """A sum of two products as one that is it on average."""
    signs = 2 * torch.randint(2, (2, len(vector), 1), device=vector.device).to(vector) - 1
    old, new = balance(moved, vector), balance(slopes, read)
    (p, q) = signs
    return p * old * vector + q * new * read, (p / old)[..., None] * moved + (q / new)[..., None] * slopes
