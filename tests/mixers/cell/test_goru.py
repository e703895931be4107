"""GORU by hand with torch-eunn's matrix (tests/oracles/make_classical.py), and as a GRU with another nonlinearity.

The authors' code needs a framework of 2017 and sets a unit to zero; no package has the cell.
"""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra.mixers.cell.goru import GORU

_, STORED = numbers("classical", "rotations.")
D = 8


def scattered(**keywords):
    mixer = GORU(D, **keywords).double()
    with torch.no_grad():
        for name, p in mixer.named_parameters():
            if "angles" not in name:
                p.add_(0.5 * torch.randn_like(p))
    return mixer


def test_equals_steps_with_the_matrix_of_torch_eunn():
    mixer = scattered(rotations=4)
    with torch.no_grad():
        for layer, angles in enumerate(mixer.operator.angles):
            angles.copy_(-STORED["angles"][: len(angles), layer])
    x, h = torch.randn(2, 15, D, dtype=torch.float64), torch.randn(2, D, dtype=torch.float64)
    first, state = mixer(x[:, :4], (h,))
    second, _ = mixer(x[:, 4:], state)
    y = torch.cat([first, second], 1)
    b_r, b_g, b_c = mixer.params
    for t in range(15):
        drive_r, drive_g, drive_c = (x[:, t] @ mixer.input_weight.T).chunk(3, -1)
        r = (drive_r + h @ mixer.weight[0, 0].T + b_r).sigmoid()
        g = (drive_g + h @ mixer.weight[1, 0].T + b_g).sigmoid()
        z = drive_c + r * (h @ STORED["matrix"].T)
        h = torch.lerp(torch.copysign((z.abs() + b_c).clamp(min=0), z), h, g)
        assert_close(y[:, t], h)


def test_closed_gates_and_no_bias_only_turn():
    mixer = GORU(D, rotations=6).double()
    with torch.no_grad():
        mixer.input_weight.zero_()
        mixer.weight.zero_()
        mixer.params.copy_(torch.tensor([800.0, -800.0, 0.0])[:, None].expand(3, D))
    start = torch.randn(2, D, dtype=torch.float64)
    y, (last,) = mixer(torch.zeros(2, 7, D, dtype=torch.float64), (start,))
    assert_close(y[:, 0], start @ mixer.operator().T)
    assert_close(last.norm(dim=1), start.norm(dim=1))


def test_it_starts_as_the_authors_code_does():
    mixer = GORU(D)
    assert mixer.params.unique(dim=1).flatten().tolist() == pytest.approx([2.0, 0.0, 0.01])
    assert (mixer.input_weight.abs() <= 0.01).all() and (mixer.weight.abs() <= 0.01).all()


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="there are 8 units and 0 rotations: there must be at least 2 and 1"):
        GORU(D, rotations=0)
