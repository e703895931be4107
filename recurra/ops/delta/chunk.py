r"""`Delta` and `LowRank` by chunks: a triangular solve gives all of a chunk's corrections at once.

Within a chunk every correction :math:`u_i` (what is written besides v: for `LowRank` :math:`a_i^\top S_{i-1}`, for
`Delta` the whole value written) is a row of the solution of a unit triangular system whose right side is affine in the
state S before the chunk. Solving for both parts, U = own + reach S, costs K columns more than solving for U, and makes
S appear only in masked products: it may be NaN where a reset has cut it off. The cost is about twice `Outer`'s.
"""

import torch

from recurra.ops.chunks import cut, left, products, recall, spans
from recurra.ops.delta import Delta, LowRank
from recurra.shapes import Bool, Float, Tensor


def declines(record: Delta | LowRank, state: Tensor) -> str | None:
    """A single step has nothing to cut."""
    return "a single step" if record.key.shape[1] == 1 else None


def scan(
    record: Delta | LowRank, state: Float[Tensor, "B H K V"]
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    low_rank = isinstance(record, LowRank)
    own_inputs = (record.probe, record.answer) if low_rank else (record.erase, record.key)
    inputs = (record.query, record.key, record.value, *own_inputs)
    # the keys of more steps than they have channels depend on each other, and the solve would lose digits
    most = min(64, max(16, record.key.shape[-1]))
    reads = []
    for g, begins, q, k, v, probe, answer in cut(most, record.log_decay, record.reset, *inputs):
        span = spans(g)
        after = left(g, span, begins, False)
        ending = after.pairs[:, :, -1]
        if low_rank:
            # the probe reads before the decay: u = a' S
            at = left(g, span, begins, True)
            system, direct = -products(probe, answer, at.pairs), products(probe, k, at.pairs) @ v
            read, write = products(q, k, after.pairs) @ v, (k * ending).mT @ v
            reach = probe * at.start
        else:
            # the erase key reads after it: u = v - (D S)' p
            at = after
            system, direct = products(probe, k, at.pairs), v
            read, write = 0, 0
            reach = -probe * at.start
        own, reach = _solve(system, direct, reach, at.alive)
        # zero above the diagonal already, and now in the gradient too, where a ruined state may make it NaN
        seen = products(q, answer, after.pairs).tril()
        read = read + seen @ own + recall(q * after.start + seen @ reach, state, after.alive)
        reads.append(read.transpose(1, 2))
        if after.alive is not None:
            state = state.masked_fill(~after.alive[:, :, -1:], 0)
        state = after.start[:, :, -1, :, None] * state + write + (answer * ending).mT @ (own + reach @ state)
    return torch.cat(reads, 1), state


def _solve(
    system: Float[Tensor, "B H C C"],
    direct: Float[Tensor, "B H C V"],
    reach: Float[Tensor, "B H C K"],
    alive: Bool[Tensor, "B 1 C 1"] | None,
) -> tuple[Float[Tensor, "B H C V"], Float[Tensor, "B H C K"]]:
    """(1 + system)^-1 of both, whatever `system` has on its diagonal. Nothing reaches a step from a state cut off."""
    reach = reach if alive is None else reach.masked_fill(~alive, 0)
    both = torch.linalg.solve_triangular(system, torch.cat([direct, reach], -1), upper=False, unitriangular=True)
    own, reach = both.split((direct.shape[-1], reach.shape[-1]), -1)
    return own, reach if alive is None else reach.masked_fill(~alive, 0)
