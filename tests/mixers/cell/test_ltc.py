"""LTC against the authors' package (tests/oracles/make_ncps.py), in both wirings, and against its own equation."""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close
from torchdiffeq import odeint

from recurra import Clock
from recurra.mixers.cell.ltc import LTC

NAMES = {"slope": "sigma", "threshold": "mu", "conductance": "w", "reversal": "erev", "synapses": "sparsity_mask"}
OTHERS = {
    "leak": "gleak", "rest": "vleak", "capacitance": "cm", "input_scale": "input_w", "input_bias": "input_b",
    "output_scale": "output_w", "output_bias": "output_b",
}  # fmt: skip


@pytest.mark.parametrize(("name", "units"), [("full", None), ("circuit", 14)])
def test_equals_ncps(name, units):
    weights, stored = numbers("ncps", f"{name}.")
    mixer = LTC(8, units=units).double()
    given = {ours: weights[theirs] for ours, theirs in OTHERS.items()}
    # our synapses come from inputs and neurons one after the other
    given |= {ours: torch.cat([weights[f"sensory_{theirs}"], weights[theirs]]) for ours, theirs in NAMES.items()}
    mixer.load_state_dict(given)
    y, (last,) = mixer(stored["x"], None, Clock(dt=stored["dt"]))
    assert_close(y, stored["y"], rtol=1e-12, atol=1e-12)
    assert_close(last, stored["last"], rtol=1e-12, atol=1e-12)


def test_many_small_steps_follow_the_equation():
    """At the first order: half the step, half the error."""
    mixer = LTC(8).double()
    x = torch.randn(2, 1, 8, dtype=torch.float64)
    softplus = torch.nn.functional.softplus
    c, g, w = (softplus(p) for p in (mixer.capacitance, mixer.leak, mixer.conductance))

    def slope(_, v):
        source = torch.cat([x[:, 0], v], 1)[..., None]
        open_share = w * torch.sigmoid(mixer.slope * (source - mixer.threshold))
        return (g * (mixer.rest - v) + (open_share * (mixer.reversal - v[:, None])).sum(1)) / c

    with torch.no_grad():
        truth = odeint(slope, torch.zeros(2, 8).double(), torch.tensor([0.0, 1.5]).double(), rtol=1e-9, atol=1e-9)[-1]
        errors = []
        for n in (32, 64, 128):
            clock = Clock(dt=torch.full((2, n), 1.5 / n, dtype=torch.float64))
            errors.append((mixer(x.expand(-1, n, -1), None, clock)[0][:, -1] - truth).abs().max())
    assert errors[2] < 2e-3
    assert 1.8 < errors[0] / errors[1] < 2.2 and 1.8 < errors[1] / errors[2] < 2.2


def test_fused_steps_are_steps_of_the_clock():
    mixer = LTC(8, steps=6).double()
    one = LTC(8, steps=1).double()
    one.load_state_dict(mixer.state_dict())
    x, dt = torch.randn(2, 4, 8, dtype=torch.float64), 0.5 + torch.rand(2, 4, dtype=torch.float64)
    y, _ = mixer(x, None, Clock(dt=dt))
    fine = Clock(dt=dt.repeat_interleave(6, 1) / 6)
    assert_close(one(x.repeat_interleave(6, 1), None, fine)[0][:, 5::6], y)


def test_any_step_is_stable():
    """A step without end reaches a rest that lies between the potentials."""
    mixer = LTC(8).double()
    x = 100 * torch.randn(2, 20, 8, dtype=torch.float64)
    y, _ = mixer(x, None, Clock(dt=torch.full((2, 20), 1e6, dtype=torch.float64)))
    assert y.abs().max() <= 1


def test_synapses_that_are_not_there_have_no_influence():
    mixer = LTC(8, sparsity=0.5)
    absent = mixer.synapses == 0
    assert absent.float().mean() > 0.5
    mixer(torch.randn(2, 6, 8))[0].sum().backward()
    for weight in (mixer.slope, mixer.threshold, mixer.conductance, mixer.reversal):
        assert (weight.grad[absent] == 0).all() and (weight.grad[~absent] != 0).any()


def test_the_wiring_is_the_seeds():
    one, same, other = (LTC(8, sparsity=0.3, seed=seed).synapses for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="units is 7: it must be at least width, which is 8"):
        LTC(8, units=7)
    with pytest.raises(ValueError, match="units is 10: a circuit of 8 outputs needs at least 11"):
        LTC(8, units=10, sparsity=0.5)
    with pytest.raises(ValueError, match="steps is 0: it must be at least 1"):
        LTC(8, steps=0)
