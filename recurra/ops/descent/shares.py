"""How much of everything is in the weights of every step: numbers, no weights, and so found for all chunks at once."""

from typing import NamedTuple

import torch

from recurra.ops.chunks import spans
from recurra.ops.descent import Descent
from recurra.ops.descent.layout import Layout
from recurra.shapes import Float, Tensor


class Momentum(NamedTuple):
    """How much of the momentum before a chunk, and of its gradients, is where."""

    moved: Float[Tensor, "N B H C"]  # d_t, of S in the weights of step t
    kept: Float[Tensor, "N B H"]  # of S in S
    written: Float[Tensor, "N B H C"]  # of the gradient at s in S, at the chunk's end


class Shares(NamedTuple):
    """How much of what is in the weights of step t, for every chunk."""

    kept: Float[Tensor, "N B H C"]  # c_t and a_t, of the start and of X
    pairs: Float[Tensor, "N B H C C"]  # w_ts, of the gradient at s
    momentum: Momentum | None

    def chunk(self, n: int) -> "Shares":
        """Those of one chunk."""
        momentum = None if self.momentum is None else Momentum(*(x[n] for x in self.momentum))
        return Shares(self.kept[n], self.pairs[n], momentum)


def by_chunk(plan: Layout, parts: list[Tensor]) -> list[Tensor]:
    """Each `(B, T, H, F)` as `(N, B, H, C, F)`."""
    together = plan.gather(torch.cat(parts, -1)).permute(1, 0, 3, 2, 4)
    return [x.contiguous() for x in together.split([x.shape[-1] for x in parts], -1)]


def shares_of(record: Descent, plan: Layout) -> Shares:
    """Of all chunks at once."""
    logs = [x for x in (record.log_decay, record.log_momentum) if x is not None]
    rate, *logs = by_chunk(plan, [x[..., None] for x in (record.rate, *logs)])
    decay = logs[0] if record.log_decay is not None else torch.zeros_like(rate)
    kept, pairs = _left(decay)
    if record.log_momentum is None:
        return Shares(kept, pairs * rate.mT, None)
    # where no step is there is nothing of the momentum to add
    pairs = pairs * plan.taken.transpose(0, 1)[:, :, None, None]
    lasting, turned = _left(logs[-1])
    written = turned * rate.mT
    momentum = Momentum((pairs @ lasting[..., None])[..., 0], lasting[..., -1], written[..., -1, :])
    return Shares(kept, pairs @ written, momentum)


def _left(log: Float[Tensor, "N B H C 1"]) -> tuple[Tensor, Tensor]:
    """What a decay leaves of the chunk's start at every step, and of every step's own at every later one."""
    flat = log.flatten(0, 1)
    later = torch.ones(flat.shape[2], flat.shape[2], dtype=torch.bool, device=log.device).triu(1)
    pairs = spans(flat)[..., 0].masked_fill(later, -torch.inf).exp()
    return log[..., 0].cumsum(-1).exp(), pairs.unflatten(0, log.shape[:2])
