"""The LSSL's states against SciPy's of HiPPO-LegS by the trapezoid's rule (tests/oracles/make_hippo.py)."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.nn import functional as F
from torch.testing import assert_close

import recurra
from recurra.mixers.block.lssl import LSSL

_, NUMBERS = numbers("hippo")


@each_way
def test_states_equal_scipys(way):
    mixer = LSSL(2, units=6).double()
    with torch.no_grad():
        mixer.log_step.fill_(0.2).log_()
    x = torch.stack([NUMBERS["inputs"], -NUMBERS["inputs"]], -1)[None]
    with recurra.use(way):
        for steps in (1, 17, 40):
            if steps > 1 or way == "loop":
                _, state = mixer(x[:, :steps])
                want = NUMBERS["legs_bilinear"][steps - 1]
                assert_close(state[0], torch.stack([want, -want]), rtol=1e-11, atol=1e-11)


@each_way
def test_outputs_are_read_from_those_states(way):
    mixer = LSSL(2, units=6, channels=3).double()
    with torch.no_grad():
        mixer.log_step.fill_(0.2).log_()
    x = torch.stack([NUMBERS["inputs"], -NUMBERS["inputs"]], -1)[None]
    states = torch.stack([NUMBERS["legs_bilinear"], -NUMBERS["legs_bilinear"]], 1)
    read = torch.einsum("tdn,dmn->tdm", states, mixer.read) + mixer.skip * x[0, ..., None]
    with recurra.use(way):
        assert_close(mixer(x)[0][0], mixer.out(F.gelu(read).flatten(1)), rtol=1e-11, atol=1e-11)


def test_what_cannot_be_is_refused():
    for name in ("units", "channels"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            LSSL(8, **{name: 0})
