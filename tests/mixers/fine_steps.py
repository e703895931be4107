"""Whether an equation in time is solved to the first order: half of each step leaves half of the error."""

import itertools

import torch

from recurra import Clock, state as states

DT = torch.tensor([[2.0, 1.0, 3.0, 0.5, 1.5]], dtype=torch.float64)


def first_order(mixer, x, parts=(1, 2, 4, 8), within=0.3):
    """The state after five steps of those lengths, its error by the number of parts that each is cut into.

    Errors are of a solution in 512 parts; the largest is `within` this share of it.
    """
    dt = DT.expand(len(x), -1)

    def at(parts):
        clock = Clock(dt=dt.repeat_interleave(parts, 1) / parts)
        _, state = mixer(x.repeat_interleave(parts, 1), None, clock)
        return torch.stack(list(states.leaves(state)))

    finest = at(512)
    errors = [(at(n) - finest).abs().max() for n in parts]
    assert errors[0] < within * finest.abs().max()
    for coarse, fine in itertools.pairwise(errors):
        assert 1.7 < coarse / fine < 2.4
