"""The differentiable neural computer against the package dnc (tests/oracles/make_machines.py), and by hand.

Theirs adds nothing to lengths in those numbers; so does ours here.
"""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra.mixers.cell.dnc import DNC
from recurra.ops.machine import content
from recurra.ops.machine.linked import allocation

WEIGHTS, STORED = numbers("machines", "dnc.")


@pytest.mark.parametrize("cut", [0, 4])
def test_equals_the_package(cut, monkeypatch):
    monkeypatch.setattr(content, "REST", 0.0)
    mixer = DNC(8, slots=5, size=4, heads=2).double()
    mixer.load_state_dict(WEIGHTS)
    state = tuple(STORED[f"start.{i}"] for i in range(9))
    first, state = mixer(STORED["x"][:, :cut], state)
    second, state = mixer(STORED["x"][:, cut:], state)
    assert_close(torch.cat([first, second], 1), STORED["y"], rtol=1e-12, atol=1e-12)
    for i, part in enumerate(state):
        assert_close(part, STORED[f"end.{i}"], rtol=1e-12, atol=1e-12)


def test_the_slot_used_least_is_allocated():
    """By hand: usages 0.5, 0.1, 1; the second first, the first with what it leaves, the third not at all."""
    free = allocation(torch.tensor([[0.5, 0.1, 1.0]], dtype=torch.float64))
    assert_close(free, torch.tensor([[0.05, 0.9, 0.0]]).double(), rtol=0, atol=2e-6)


def test_bounds_of_weights_usage_and_links():
    """Graves et al.: weights, and rows and columns of links, sum to at most one, and usage is a fraction."""
    mixer = DNC(8, slots=5, heads=2).double()
    with torch.no_grad():
        for p in mixer.parameters():
            p.mul_(3)
        _, (*_, usage, written, looked, link, last) = mixer(3 * torch.randn(4, 40, 8, dtype=torch.float64))
    link, one = link.view(4, 5, 5), 1 + 1e-9
    assert ((usage >= 0) & (usage <= one)).all()
    assert all((x.sum(-1) <= one).all() for x in (written, last, looked.view(4, 2, 5), link, link.mT))
    assert (link.diagonal(dim1=1, dim2=2) == 0).all()


def test_reads_in_the_order_of_writing():
    """By hand: two slots written in turn are linked; a head on the first that reads along links finds the second.

    After the first slot comes the third: the first writing touched the second by the least that counts.
    """
    mixer, far = DNC(8, slots=4, size=1).double(), 800.0
    with torch.no_grad():
        for p in mixer.parameters():
            p.zero_()
        bias = mixer.controller.interface.bias
        # of writing: key, value, erase, strength, allocate, write; of the head: key, strength, free, modes
        bias.copy_(torch.tensor([0, 7, -far, 0, far, far, 0, 0, -far, -far, far, -far]))
        _, (*state, link, last) = mixer(torch.zeros(1, 2, 8, dtype=torch.float64))
        order = torch.zeros(4, 4, dtype=torch.float64)
        order[2, 0] = 1
        assert_close(link.view(4, 4), order, rtol=0, atol=1e-4)
        bias[5], bias[10], bias[11] = -far, -far, far
        state[6] = torch.tensor([[1.0, 0, 0, 0]]).double()
        _, (*_, looked, _, _) = mixer(torch.zeros(1, 1, 8, dtype=torch.float64), (*state, link, last))
    assert_close(looked, torch.tensor([[0.0, 0, 1, 0]]).double(), rtol=0, atol=1e-4)


def test_without_links_it_reads_by_content():
    mixer = DNC(8, slots=5, links=False).double()
    y, state = mixer(torch.randn(2, 7, 8, dtype=torch.float64))
    assert len(state) == 7 and torch.isfinite(y).all()
    assert_close(state[6].sum(-1), torch.ones(2).double())


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"size": 0}, {"heads": 0}])
def test_bad_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is 0: it must be at least 1"):
        DNC(8, **wrong)
