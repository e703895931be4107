r"""`Descent` by chunks: within one, no weights are made.

All gradients of a chunk are taken at one place, and each is a product of two vectors, x and :math:`\delta`, so that the
weights of its step t are

.. math::  W_t = c_t\, \phi(A) + \tau_t \bigl(a_t X + d_t S - \sum_{s \le t} w_{ts}\, x_s \delta_s^\top\bigr)

and a layer's product with them is that with A, X and S and one more with the chunk's own steps, as in attention, layer
by layer and exact at any depth: the dual form of Sun et al. 2024, https://arxiv.org/abs/2407.04620, with momentum and
decay. With :math:`\alpha` and :math:`\eta` decaying from s to t as matrices, :math:`w = \alpha \eta
\operatorname{diag}(\theta)`. What was not read from before, X, only the first chunk can have. Chunks run in turn; the
cost is that of a few products of all keys with the weights, and of C^2 / 2 pairs of steps a chunk.
"""

from typing import NamedTuple

import torch

from recurra.ops.chunks import spans
from recurra.ops.descent import Descent, DescentState
from recurra.ops.descent.layout import Layout, layout
from recurra.ops.descent.loop import begin, counted, keep
from recurra.ops.steps import restart
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


def declines(record: Descent, state: DescentState) -> str | None:
    """A single step has nothing to cut."""
    return "a single step" if record.key.shape[1] == 1 else None


def scan(record: Descent, state: DescentState) -> tuple[Tensor, DescentState]:
    state = counted(state)
    plan = layout(state[3], record.key.shape[1], record.chunk, record.reset, record.valid)
    vectors = [record.query, record.key, record.value]
    vectors += [] if record.threshold is None else [record.threshold]
    query, key, value, *threshold = (x.unbind(0) for x in _by_chunk(plan, vectors))
    shares = _shares(record, plan)
    reads, weights, whole = [], None, plan.complete.all(0).tolist()
    for n in range(len(query)):
        if plan.begins is not None:
            state, weights = begin(record.initial, plan.begins[:, n], state), None
        ends = None if whole[n] else plan.complete[:, n]
        limit = threshold[0][n] if threshold else None
        read, state, weights = _chunk(
            record, shares.chunk(n), state, weights, ends, query[n], key[n], value[n], limit, first=n == 0
        )
        reads.append(read)
    read = torch.stack(reads, 1).transpose(2, 3)
    return plan.scatter(read), (*state[:3], plan.position, *state[4:])


def _by_chunk(plan: Layout, parts: list[Tensor]) -> list[Tensor]:
    """Each `(B, T, H, F)` as `(N, B, H, C, F)`."""
    together = plan.gather(torch.cat(parts, -1)).permute(1, 0, 3, 2, 4)
    return [x.contiguous() for x in together.split([x.shape[-1] for x in parts], -1)]


def _shares(record: Descent, plan: Layout) -> Shares:
    """Of all chunks at once."""
    logs = [x for x in (record.log_decay, record.log_momentum) if x is not None]
    rate, *logs = _by_chunk(plan, [x[..., None] for x in (record.rate, *logs)])
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


def _chunk(
    record: Descent,
    shares: Shares,
    state: DescentState,
    weights: list[Tensor] | None,
    ends: Tensor | None,
    query: Float[Tensor, "B H C K"],
    key: Float[Tensor, "B H C K"],
    value: Float[Tensor, "B H C V"],
    threshold: Tensor | None,
    first: bool,
) -> tuple[Tensor, DescentState, list[Tensor] | None]:
    """What a chunk reads, the state after it and, if all rows are then at a chunk's start, the weights there.

    `weights`: those that the chunk before gave; None where a row's chunk may have begun earlier, or anew. `ends`: the
    rows whose chunk is whole, None for all of them.
    """
    start, moved, kept, position, *momentum = state
    net, norm, tau = record.net, record.norm, record.scale
    begun = weights is None
    weights = record.weights(start) if weights is None else weights
    entering, backs = net.gradients(weights, key, value, norm, record.power, threshold)
    # what holds weights, and how much of it is in those of every step
    held = [(shares.kept * kept[..., None], weights)]
    if first:
        held.append((shares.kept if tau is None else tau * shares.kept, net.layers(moved)))
    if shares.momentum is not None:
        carried = shares.momentum.moved
        held.append((carried if tau is None else tau * carried, net.layers(momentum[0])))
    pairs = shares.pairs if tau is None else tau[:, None] * shares.pairs
    x = net.fed(query)
    for layer, (enters, back) in enumerate(zip(entering, backs, strict=True)):
        z = -((x @ enters.mT) * pairs) @ back
        for share, several in held:
            z = z + share[..., None] * (x @ several[layer])
        x = net.between(z) if layer < len(backs) - 1 else z
    read = net.answer(query, x, norm)

    written = _written(entering, backs, -shares.pairs[..., -1, :])
    # X is zero where all rows are at a chunk's start
    moved = shares.kept[..., -1:] * moved + written if begun else written
    if shares.momentum is not None:
        own = shares.momentum
        moved = moved + own.moved[..., -1:] * momentum[0]
        momentum = [own.kept[..., None] * momentum[0] + _written(entering, backs, -own.written)]
    kept = shares.kept[..., -1] * kept
    dual = record.settled(kept[..., None] * start + (moved if tau is None else tau[-1] * moved))
    after = record.weights(dual)
    if record.mirror is not None:
        # the chunk's last slot: empty, and read by no one, where the chunk is not whole
        whole = net.forward(after, query[..., -1:, :], norm)
        read = torch.cat([read[..., :-1, :], whole], -2)
    if ends is None:
        return read, (dual, torch.zeros_like(moved), torch.ones_like(kept), position, *momentum), after
    start = keep(ends, dual, start)
    return read, (start, restart(ends, moved), restart(ends, kept, 1.0), position, *momentum), None


def _written(entering: list[Tensor], backs: list[Tensor], share: Float[Tensor, "B H C"]) -> Float[Tensor, "B H P"]:
    """The sum of a chunk's gradients, each by its share."""
    products = ((x * share[..., None]).mT @ back for x, back in zip(entering, backs, strict=True))
    return torch.cat([product.flatten(-2) for product in products], -1)
