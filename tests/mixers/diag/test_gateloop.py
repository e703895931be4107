"""GateLoop's recurrence against another's operator (tests/oracles/make_gates.py), and what it is without turns."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.nn import functional as F
from torch.testing import assert_close

from recurra import use
from recurra.mixers.diag.gateloop import GateLoop
from recurra.ops import Outer, Scan

WEIGHTS, STORED = numbers("gates", "gateloop.")


@each_way
def test_equals_gateloop_transformer(way):
    mixer = GateLoop(8, size=8).double()
    mixer.load_state_dict(WEIGHTS)
    with use(way):
        y, _ = mixer(STORED["x"])
    assert_close(y, STORED["y"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 4])
def test_without_turns_it_is_linear_attention_with_gates(size):
    mixer = GateLoop(8, size=size).double()
    with torch.no_grad():
        mixer.project.weight[32:40].zero_()
    x = torch.randn(2, 40, 8, dtype=torch.float64)
    y, state = mixer(x)
    *parts, _, gate = mixer.project(x).chunk(6, -1)
    query, key, value, magnitude = (part.unflatten(-1, (-1, size)) for part in parts)
    record = Outer(query, key, value, F.logsigmoid(magnitude))
    read, memory = Scan()(record, state.real.new_zeros(2, 8 // size, size, size))
    assert_close(y, mixer.out(read.flatten(-2) * F.silu(gate)))
    assert_close(state, memory.to(state.dtype))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="width is 8: it must be a multiple of size, which is 3"):
        GateLoop(8, size=3)
