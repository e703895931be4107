"""Feed-forward layers that choose: many small gated MLPs, a few of which each step goes through.

What a step goes through depends on that step alone, so this is as causal as one MLP, and has no state. The loss that
keeps the experts in even use is no output: its gradient is known in closed form, and joins where the router's
probabilities get theirs.
"""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.shapes import Float, Int, Tensor, wide


def load(chosen: Int[Tensor, "N top"], experts: int) -> Float[Tensor, "experts"]:
    """How much of all steps each expert is given: the sum is `top`."""
    return torch.bincount(chosen.flatten(), minlength=experts) / max(1, len(chosen))


def imbalance(probability: Float[Tensor, "N experts"], chosen: Int[Tensor, "N top"]) -> Float[Tensor, ""]:
    r"""How unevenly experts are used; `top` where all are used alike.

    .. math::  L = E \sum_e f_e P_e

    with f the share of the N steps that an expert is given and P its mean probability. Source: Fedus et al. 2022,
    https://arxiv.org/abs/2101.03961, there for one expert a step.
    """
    experts = probability.shape[-1]
    return experts * (load(chosen, experts).to(probability) * probability.mean(0)).sum()


class Maps(nn.Module):
    """As many linear maps as there are experts, without biases: `weight`, `(E, outputs, inputs)`."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs).uniform_(-1, 1) * inputs**-0.5)


class Experts(nn.Module):
    r"""A mixture of experts: each step goes through the few MLPs that a router finds likeliest, and some through all.

    .. math::
        p = \operatorname{softmax}(W_r x) \qquad
        y = \sum_{e \in \operatorname{top}_k(p)} g_e\, m_e(x) + \sum_{e \le s} m'_e(x) \qquad
        m_e(x) = W^o_e \big( \operatorname{silu}(W^g_e x) \odot W^v_e x \big)

    with g the chosen p, divided by their sum where `normalised`. Source: Shazeer et al. 2017,
    https://arxiv.org/abs/1701.06538; the loss `balance` times `imbalance` of Fedus et al. 2022,
    https://arxiv.org/abs/2101.03961. Jamba (Lieber et al. 2024, https://arxiv.org/abs/2403.19887) takes the chosen
    probabilities as they are; Granite 4 normalises them and has shared experts. Unlike both no expert has a capacity,
    so that no step is dropped, and each layer is balanced by itself.

    While training with a `balance`, gradients are of the loss and of that. It is a mean over the steps of one call,
    those that a clock says did not happen included: a cut then changes what is balanced, never what is computed.

    Args:
        width: features in and out (D).
        experts: to choose from (E).
        top: chosen for each step (k).
        hidden: units of each expert; None: 8/3 of the width, to a multiple of 8, divided among the chosen ones.
        shared: experts of that size that every step goes through, besides (s).
        normalised: whether the weights of those chosen sum to one.
        balance: how much the imbalance weighs beside the loss.

    Raises:
        ValueError: a number is less than it can be, or `top` more than `experts`.
    """

    def __init__(
        self,
        width: int,
        *,
        experts: int = 8,
        top: int = 2,
        hidden: int | None = None,
        shared: int = 0,
        normalised: bool = True,
        balance: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = max(1, round(width / 3) * 8 // top) if hidden is None and top > 0 else hidden or 0
        at_least(1, top=top, hidden=hidden)
        at_least(0, shared=shared, balance=balance)
        if top > experts:
            raise ValueError(f"top is {top}: it must be at most the {experts} experts")
        self.experts, self.top, self.shared = experts, top, shared
        self.normalised, self.balance = normalised, balance
        self.router = nn.Linear(width, experts, bias=False)
        # the shared ones come last
        self.inside = Maps(experts + shared, width, 2 * hidden)
        self.out = Maps(experts + shared, hidden, width)

    def route(self, x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N E"], Int[Tensor, "N top"]]:
        """Each expert's probability, in the wide type, and those chosen, the likeliest first."""
        logits = self.router(x)
        probability = F.softmax(logits.to(wide(logits)), -1)
        return probability, probability.topk(self.top, -1).indices

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Every row by itself."""
        rows = x.reshape(-1, x.shape[-1])
        probability, chosen = self.route(rows)
        if self.training and self.balance and probability.requires_grad and len(rows):
            # the imbalance is linear in the probabilities: this is its gradient
            pull = self.balance * self.experts / len(rows) * load(chosen, self.experts).to(probability)
            probability.register_hook(lambda gradient: gradient + pull)
        weight = probability.gather(-1, chosen)
        weight = weight / weight.sum(-1, keepdim=True) if self.normalised else weight
        y = (self._each(rows, chosen) * weight[..., None].to(x.dtype)).sum(1)
        inside, out = self.inside.weight[self.experts :], self.out.weight[self.experts :]
        for pair in zip(inside.unbind(0), out.unbind(0), strict=True):
            y = y + _gated(rows, *pair)
        return y.reshape(x.shape)

    def _each(self, rows: Float[Tensor, "N D"], chosen: Int[Tensor, "N top"]) -> Float[Tensor, "N top D"]:
        """What each chosen expert makes of each row: rows are brought together by expert, and put back."""
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=self.experts).tolist()
        groups = rows[order // self.top].split(counts)
        maps = zip(self.inside.weight.unbind(0), self.out.weight.unbind(0), strict=True)
        made = torch.cat([_gated(group, *pair) for group, pair in zip(groups, maps, strict=False)])
        return (
            made[order.argsort()].unflatten(0, (-1, self.top))
            if len(rows)
            else made.reshape(0, self.top, rows.shape[-1])
        )


def _gated(x: Float[Tensor, "N D"], inside: Float[Tensor, "J D"], out: Float[Tensor, "D M"]) -> Float[Tensor, "N D"]:
    gate, value = F.linear(x, inside).chunk(2, -1)
    return F.linear(F.silu(gate) * value, out)
