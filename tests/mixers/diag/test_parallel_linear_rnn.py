"""The parallel linear networks against their equations, one step at a time, and a neighbour: there is no package."""

import pytest
import torch
from torch.testing import assert_close

from recurra import Clock
from recurra.mixers.diag.parallel_linear_rnn import ParallelLinearRNN
from recurra.mixers.diag.qrnn import QRNN


def stepped(mixer, x):
    """Both layers' equations, in order: the GILR's h, the cell c, and what is read of each."""
    h = c = torch.zeros_like(x[:, 0])
    plain, read = [], []
    for now in x.unbind(1):
        f, i, o, z = mixer.gates(torch.cat([h, now], -1)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * z.tanh()
        g = mixer.gate(now).sigmoid()
        h = g * h + (1 - g) * mixer.impulse(now).tanh()
        plain.append(h)
        read.append(o.sigmoid() * c)
    return torch.stack(plain, 1), torch.stack(read, 1), (h, c)


def test_both_forms_equal_their_equations():
    mixer, plain = ParallelLinearRNN(8, lstm=True).double(), ParallelLinearRNN(8).double()
    plain.load_state_dict({name: p for name, p in mixer.state_dict().items() if not name.startswith("gates")})
    x = torch.randn(2, 40, 8, dtype=torch.float64)
    gilr, read, last = stepped(mixer, x)
    y, state = mixer(x)
    assert_close(y, read)
    assert_close(state, last)
    y, state = plain(x)
    assert_close(y, gilr)
    assert_close(state, last[:1])


def test_the_cell_obeys_the_clock():
    mixer = ParallelLinearRNN(8, lstm=True).double()
    x = torch.randn(2, 20, 8, dtype=torch.float64)
    reset, valid = torch.rand(2, 20) < 0.2, torch.rand(2, 20) < 0.7
    whole, last = mixer(x, None, Clock(reset, valid))
    pieces, state = [], None
    for at in range(20):
        y, state = mixer(x[:, at : at + 1], state, Clock(reset, valid).cut(at, at + 1))
        pieces.append(y)
    assert_close(torch.cat(pieces, 1), whole)
    assert_close(state, last)
    assert_close(mixer(x[:1], None, Clock.packed([0, 7, 20]))[0][:, 7:], mixer(x[:1, 7:])[0])


@pytest.mark.parametrize("T", [1, 30])
def test_the_plain_form_is_a_qrnn_that_sees_one_input(T):
    mixer, neighbour = ParallelLinearRNN(8).double(), QRNN(8, pooling="f", size=1).double()
    parts = [mixer.impulse, mixer.gate]
    neighbour.window.load_state_dict(
        {kind: torch.cat([getattr(part, kind) for part in parts]) for kind in ("weight", "bias")}
    )
    x = torch.randn(2, T, 8, dtype=torch.float64)
    assert_close(mixer(x)[0], neighbour(x)[0])
