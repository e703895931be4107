"""Transient states against Euler's method on the equations, written out here; and that they never come to rest.

There is no code of the authors' to run, and the papers' constants could not be verified: the equations are derived
twice, as exact steps by the mixer and as fine Euler steps here.
"""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from recurra import Clock, use
from recurra.mixers.cell.transient_states import ACTIVE, HALF, HEARD, SENT, SHARP, TransientStates

DT = torch.tensor([[2.0, 1.0, 3.0, 0.5, 1.5, 2.0]], dtype=torch.float64)


def _lively(**more):
    """Fast reservoirs, so that they matter within a few steps."""
    mixer = TransientStates(16, **({"step": 0.5, "filling": 0.3, "emptying": 0.5} | more)).double()
    with torch.no_grad():
        mixer.input.weight.mul_(2)
    x, active, used = torch.randn(1, 6, 16), torch.rand(1, 16), torch.rand(1, 16)
    return mixer, x.double(), (active.double(), used.double())


def _strength(full, least):
    low, high, now = (math.tanh((z - HALF) / SHARP) for z in (0.0, 1.0, full))
    return least + (1 - least) * (now - low) / (high - low)


def _euler(mixer, x, state, parts):
    """The equations by hand, unit by unit, `parts` to a unit of time."""
    (step, filling, emptying), weight = mixer.constants, mixer.recurrent.tolist()
    a, full = state[0][0].tolist(), [1 - u for u in state[1][0].tolist()]
    for force, dt in zip(mixer.input(x)[0].tolist(), DT[0].tolist(), strict=True):
        for _ in range(round(dt * parts)):
            sent = [_strength(f, SENT) * z for f, z in zip(full, a, strict=True)]
            grow = []
            for row, f, push in zip(weight, full, force, strict=True):
                excited = sum(max(w, 0) * z for w, z in zip(row, a, strict=True))
                inhibited = sum(max(-w, 0) * z for w, z in zip(row, sent, strict=True))
                grow.append(_strength(f, HEARD) * excited - inhibited + push)
            time = step / parts
            full = [
                f + time * (filling * (1 - f) * (1 - z / ACTIVE) if z <= ACTIVE else -emptying * f)
                for f, z in zip(full, a, strict=True)
            ]
            a = [z + time * (r * (1 - z) if r > 0 else r * z) for z, r in zip(a, grow, strict=True)]
    return torch.tensor([a, [1 - f for f in full]], dtype=torch.float64)


def test_fine_steps_solve_the_equations():
    """Both methods are of first order, and come to the same as steps become fine."""
    mixer, x, state = _lively()

    def at(parts):
        clock = Clock(dt=DT.repeat_interleave((DT[0] * parts).long(), 1) * 0 + 1 / parts)
        fine = x.repeat_interleave((DT[0] * parts).long(), 1)
        return torch.cat(mixer(fine, state, clock)[1])

    for parts in (16, 128):
        assert_close(at(parts), _euler(mixer, x, state, parts), rtol=0, atol=2 / parts)


@pytest.mark.parametrize("way", ["native", "loop"])
def test_one_step_by_hand(way):
    mixer, x, (active, used) = _lively()
    with use(way):
        y, (last, spent) = mixer(x[:, :1], (active, used), Clock(dt=DT[:, :1]))
    force, weight = mixer.input(x[:, 0])[0], mixer.recurrent
    time = 0.5 * 2.0
    for i in range(16):
        heard = _strength(1 - used[0, i].item(), HEARD)
        growth = force[i].item()
        for j in range(16):
            w, a = weight[i, j].item(), active[0, j].item()
            growth += heard * w * a if w > 0 else w * _strength(1 - used[0, j].item(), SENT) * a
        a = active[0, i].item()
        a = 1 - (1 - a) * math.exp(-time * growth) if growth > 0 else a * math.exp(time * growth)
        rate = -0.3 * (1 - a / ACTIVE)
        u = used[0, i].item()
        u = u * math.exp(time * rate) if a <= ACTIVE else 1 - (1 - u) * math.exp(-time * 0.5)
        assert abs(y[0, 0, i].item() - a) < 1e-12 and abs(spent[0, i].item() - u) < 1e-12
    assert_close(last, y[:, 0])


def test_it_is_never_at_rest():
    """One kick, and then nothing: clique after clique wins, every one of them, for ever, and all stay within [0, 1]."""
    mixer = TransientStates(16).double()
    with torch.no_grad():
        mixer.input.bias.zero_()
        x = torch.zeros(1, 3000, 16, dtype=torch.float64)
        x[:, 0] = torch.rand(16)
        y, _ = mixer(x)
    assert y.min() >= 0 and y.max() <= 1
    members = [[(4 * k + j) % 16 for j in range(5)] for k in range(4)]
    wins = torch.stack([y[0, :, units].amin(-1) > 0.9 for units in members], -1)
    winners = [int(step.nonzero()[0]) for step in wins[2000:] if step.any()]
    assert set(winners) == {0, 1, 2, 3}
    assert sum(one != other for one, other in itertools.pairwise(winners)) >= 8


@pytest.mark.parametrize(
    ("name", "value"), [("clique", 1), ("clique", 8), ("step", 0.0), ("filling", 0.0), ("emptying", -1.0)]
)
def test_what_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match="clique" if name == "clique" else f"{name} is"):
        TransientStates(16, **{name: value})
