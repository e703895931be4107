"""S4D against its authors' code (tests/oracles/make_state_spaces.py), and where it starts."""

import math

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

from recurra import use
from recurra.mixers.diag.s4d import S4D
from recurra.parts.hippo import legs

X = numbers("state_spaces")[1]["x"]


@each_way
def test_equals_its_authors_code(way):
    weights, values = numbers("state_spaces", "s4d.")
    mixer = S4D(4, units=6).double()
    mixer.load_state_dict(
        {
            "space.log_rate": weights["kernel.log_A_real"],
            "space.frequency": weights["kernel.A_imag"],
            "space.read": weights["kernel.C"],
            "space.log_step": weights["kernel.log_dt"],
            "space.skip": weights["D"],
            "out.weight": weights["output_linear.0.weight"][..., 0],
            "out.bias": weights["output_linear.0.bias"],
        }
    )
    with use(way):
        assert_close(mixer(X)[0], values["y"], rtol=1e-12, atol=1e-12)


def test_every_start_is_the_papers():
    mixers = {start: S4D(2, units=8, start=start).space for start in ("lin", "inv", "legs", "real")}
    n = torch.arange(4.0)
    assert_close(mixers["lin"].frequency[0], math.pi * n)
    assert_close(mixers["inv"].frequency[0], 8 / math.pi * (8 / (2 * n + 1) - 1))
    # the eigenvalues of a matrix, found without its being normal
    low = (torch.arange(8.0, dtype=torch.float64) + 0.5).sqrt()
    values = torch.linalg.eigvals(legs(8) + torch.outer(low, low))
    assert_close(values.real, torch.full((8,), -0.5, dtype=torch.float64))
    assert_close(mixers["legs"].frequency[0], values.imag.sort().values[4:].float())
    assert_close(mixers["real"].log_rate[0].exp(), torch.arange(1.0, 9))
    assert mixers["real"].frequency is None and mixers["real"].initial_state(3).dtype == torch.float32
    for start in ("lin", "inv", "legs"):
        assert_close(mixers[start].log_rate.exp(), torch.full((2, 4), 0.5))
        assert mixers[start].initial_state(3).dtype == torch.complex64


def test_real_states_equal_their_sum_by_steps():
    mixer = S4D(3, units=5, start="real").double()
    x = torch.randn(2, 80, 3, dtype=torch.float64)
    with use("chunk"):
        got, last = mixer.space(x, mixer.space.initial_state(2), None)
    rate, step = -mixer.space.log_rate.exp(), mixer.space.log_step.exp()[:, None]
    h, want = torch.zeros(2, 3, 5, dtype=torch.float64), []
    for u in x.unbind(1):
        h = (step * rate).exp() * h + torch.expm1(step * rate) / rate * u[..., None]
        want.append((mixer.space.read * h).sum(-1) + mixer.space.skip * u)
    assert_close(got, torch.stack(want, 1))
    assert_close(last * torch.expm1(step * rate) / rate, h)


@pytest.mark.parametrize(("given", "match"), [({"start": "hippo"}, "hippo"), ({"units": 7}, "even")])
def test_what_cannot_be_is_refused(given, match):
    with pytest.raises(ValueError, match=match):
        S4D(8, **given)
