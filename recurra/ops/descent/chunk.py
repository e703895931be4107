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

from recurra.ops.descent import Descent, DescentState
from recurra.ops.descent.layout import layout
from recurra.ops.descent.loop import begin, counted, keep
from recurra.ops.descent.shares import Shares, by_chunk, shares_of
from recurra.ops.steps import restart
from recurra.shapes import Float, Tensor


class Given(NamedTuple):
    """What a chunk is taught and asked."""

    query: Float[Tensor, "B H C K"]
    key: Float[Tensor, "B H C K"]
    value: Float[Tensor, "B H C V"]
    threshold: Float[Tensor, "B H C 1"] | None
    shares: Shares


def declines(record: Descent, state: DescentState) -> str | None:
    """A single step has nothing to cut."""
    return "a single step" if record.key.shape[1] == 1 else None


def scan(record: Descent, state: DescentState) -> tuple[Tensor, DescentState]:
    state = counted(state)
    plan = layout(state[3], record.key.shape[1], record.chunk, record.reset, record.valid)
    vectors = [record.query, record.key, record.value]
    vectors += [] if record.threshold is None else [record.threshold[..., None]]
    query, key, value, *threshold = (x.unbind(0) for x in by_chunk(plan, vectors))
    shares = shares_of(record, plan)
    reads, weights, whole = [], None, plan.complete.all(0).tolist()
    for n in range(len(query)):
        if plan.begins is not None:
            state, weights = begin(record.initial, plan.begins[:, n], state), None
        ends = None if whole[n] else plan.complete[:, n]
        given = Given(query[n], key[n], value[n], threshold[0][n] if threshold else None, shares.chunk(n))
        read, state, weights = _chunk(record, given, state, weights, ends)
        reads.append(read)
    read = torch.stack(reads, 1).transpose(2, 3)
    return plan.scatter(read), (*state[:3], plan.position, *state[4:])


def _chunk(
    record: Descent,
    given: Given,
    state: DescentState,
    weights: list[Tensor] | None,
    ends: Tensor | None,
) -> tuple[Tensor, DescentState, list[Tensor] | None]:
    """What a chunk reads, the state after it and, if all rows are then at a chunk's start, the weights there.

    `weights`: those that the chunk before gave; None where a row's chunk may have begun earlier, or anew. `ends`: the
    rows whose chunk is whole, None for all of them.
    """
    start, moved, kept, position, *momentum = state
    tau, own = record.scale, given.shares
    # X is zero where all rows are at a chunk's start
    before = moved if weights is None else None
    weights = record.weights(start) if weights is None else weights
    read, moved, *momentum = _taught(record, given, weights, kept, before, *momentum)
    kept = own.kept[..., -1] * kept
    dual = record.settled(kept[..., None] * start + (moved if tau is None else tau[-1] * moved))
    after = record.weights(dual)
    if record.mirror is not None:
        # the chunk's last slot: empty, and read by no one, where the chunk is not whole
        whole = record.net.forward(after, given.query[..., -1:, :], record.norm)
        read = torch.cat([read[..., :-1, :], whole], -2)
    if ends is None:
        return read, (dual, torch.zeros_like(moved), torch.ones_like(kept), position, *momentum), after
    start = keep(ends, dual, start)
    return read, (start, restart(ends, moved), restart(ends, kept, 1.0), position, *momentum), None


def _taught(
    record: Descent, given: Given, weights: list[Tensor], kept: Tensor, moved: Tensor | None, *momentum: Tensor
) -> tuple[Tensor, ...]:
    """What a chunk reads where its weights are `weights` and `kept` as much of them is left, X after it, and S."""
    net, norm, tau, shares = record.net, record.norm, record.scale, given.shares
    entering, backs = net.gradients(weights, given.key, given.value, norm, record.power, given.threshold)
    # what holds weights, and how much of it is in those of every step
    held = [(shares.kept * kept[..., None], weights)]
    if moved is not None:
        held.append((shares.kept if tau is None else tau * shares.kept, net.layers(moved)))
    if shares.momentum is not None:
        carried = shares.momentum.moved
        held.append((carried if tau is None else tau * carried, net.layers(momentum[0])))
    pairs = shares.pairs if tau is None else tau[:, None] * shares.pairs
    x = net.fed(given.query)
    for layer, (enters, back) in enumerate(zip(entering, backs, strict=True)):
        z = -((x @ enters.mT) * pairs) @ back
        for share, several in held:
            z = z + share[..., None] * (x @ several[layer])
        x = net.between(z) if layer < len(backs) - 1 else z
    written = _written(entering, backs, -shares.pairs[..., -1, :])
    after = written if moved is None else shares.kept[..., -1:] * moved + written
    read = net.answer(given.query, x, norm)
    if shares.momentum is None:
        return read, after
    own = shares.momentum
    after = after + own.moved[..., -1:] * momentum[0]
    return read, after, own.kept[..., None] * momentum[0] + _written(entering, backs, -own.written)


def _written(entering: list[Tensor], backs: list[Tensor], share: Float[Tensor, "B H C"]) -> Float[Tensor, "B H P"]:
    """The sum of a chunk's gradients, each by its share."""
    products = ((x * share[..., None]).mT @ back for x, back in zip(entering, backs, strict=True))
    return torch.cat([product.flatten(-2) for product in products], -1)
