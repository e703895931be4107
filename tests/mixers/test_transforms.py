"""torch.func over mixers: they run, or say in one sentence that they do not and what does."""

import pytest
import torch
from torch.testing import assert_close

import recurra
from recurra import MIXERS
from recurra.ops.cell import rules
from recurra.ops.cell.native import _written


def several(mixer, x):
    return torch.vmap(lambda part: mixer(part)[0])(x)


def test_what_torch_cannot_see_into_says_so_and_its_loop_runs():
    mixer, x = MIXERS["mamba"](16).double(), torch.randn(3, 2, 7, 16, dtype=torch.float64)
    state = mixer(x[0])[1]
    with pytest.raises(RuntimeError, match=r"Mamba cannot run under torch.vmap.*: try it inside .*use\(\"loop\"\)"):
        several(mixer, x)
    with pytest.raises(RuntimeError, match=r"Mamba cannot run under"):
        torch.func.grad(lambda part: mixer(part, state)[0].sum())(x[0])
    with recurra.use("loop"):
        assert_close(several(mixer, x), torch.stack([mixer(part)[0] for part in x]))


def test_where_the_loop_does_not_run_either_no_such_advice_is_given():
    with recurra.use("loop"), pytest.raises(RuntimeError, match=r"HiPPO cannot run .*: call it on plain tensors"):
        several(MIXERS["hippo"](16), torch.randn(3, 2, 7, 16))


def test_what_has_nothing_to_do_with_transforms_is_said_as_it_is():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        several(MIXERS["gru"](16), torch.randn(3, 2, 7, 17))


def test_others_run():
    mixer, x = MIXERS["gru"](16).double(), torch.randn(3, 2, 7, 16, dtype=torch.float64)
    assert_close(several(mixer, x), torch.stack([mixer(part)[0] for part in x]))


def test_a_rule_that_was_first_met_there_is_compiled_all_the_same():
    x = torch.randn(3, 2, 7, 16, dtype=torch.float64)
    _written.cache_clear()
    several(MIXERS["gru"](16).double(), x)
    assert _written.cache_info().currsize == 0
    MIXERS["gru"](16).double()(x[0])
    assert not isinstance(_written(rules.GRU_AFTER), str)
