"""States of any shape and type: rows in and out, files that come back the same, and files that are refused."""

import errno
import os
import re

import pytest
import safetensors.torch
import torch
from torch import nn

from recurra import MIXERS, state as states


class _Owner(nn.Module):
    """Whatever has a configuration can own a state."""

    def __init__(self, width=4, **more):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.config = {"width": width, **more}


def _state():
    """Every kind of tensor and tuple that a state may be made of."""
    return (
        torch.randn(3, 2, 5),
        (torch.randn(3, 4, dtype=torch.complex64), torch.randn(3, dtype=torch.complex128)),
        (),
        (torch.tensor([1, -(2**60), 3]), torch.randn(3, 1).bfloat16(), (torch.rand(3, 2) < 0.5,)),
        torch.zeros(3, 0, 7, dtype=torch.float64),
    )


def _equal(one, other):
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert torch.equal(one, other) and not other.is_conj() and not other.is_neg()
        return
    assert type(other) is tuple and len(one) == len(other)
    for x, y in zip(one, other, strict=True):
        _equal(x, y)


def test_a_state_crosses_a_file(tmp_path):
    state, owner = _state(), _Owner()
    states.save(tmp_path / "s", state, owner, 12345678901)
    back, steps = states.load(tmp_path / "s", owner)
    assert steps == 12345678901
    _equal(state, back)
    assert os.listdir(tmp_path) == ["s"]


@pytest.mark.parametrize("state", [(), ((), ((),)), torch.randn(2, 3)], ids=["empty", "empties", "tensor"])
def test_the_smallest_states_cross_a_file(tmp_path, state):
    states.save(tmp_path / "s", state, _Owner(), 0)
    _equal(state, states.load(tmp_path / "s", _Owner())[0])


def test_views_and_promises_are_saved_as_the_numbers_they_stand_for(tmp_path):
    z = torch.randn(2, 6, dtype=torch.complex64)
    state = (z.conj(), z.conj().imag, z.real.T.contiguous().T[:, ::2], z[:1].expand(2, 6), z, z)
    states.save(tmp_path / "s", state, _Owner(), 1)
    back, _ = states.load(tmp_path / "s", _Owner())
    for x, y in zip(state, back, strict=True):
        assert torch.equal(x, y)


def test_a_state_with_a_history_is_saved_without_it(tmp_path):
    state = (torch.randn(2, 3, requires_grad=True) * 2,)
    states.save(tmp_path / "s", state, _Owner(), 1)
    (back,), _ = states.load(tmp_path / "s", _Owner())
    assert not back.requires_grad and torch.equal(back, state[0])


def test_another_owner_is_refused_with_both_names_and_hashes(tmp_path):
    one, other = _Owner(width=4), _Owner(width=8)
    states.save(tmp_path / "s", (torch.zeros(1, 4),), one, 3)
    with pytest.raises(ValueError, match="use the model that wrote it") as refused:
        states.load(tmp_path / "s", other)
    for owner in (one, other):
        assert " ".join(states.owner(owner)) in str(refused.value)
    assert states.owner(one)[1] != states.owner(other)[1]


def test_the_same_model_with_other_weights_is_refused(tmp_path):
    mixer = MIXERS["mingru"](8)
    states.save(tmp_path / "s", mixer.initial_state(1), mixer, 3)
    assert states.load(tmp_path / "s", mixer)[1] == 3
    with torch.no_grad():
        mixer.candidate.weight[3, 3] += 1e-3
    with pytest.raises(ValueError, match="written under other weights: use the run that wrote it"):
        states.load(tmp_path / "s", mixer)


def test_the_order_of_keywords_is_no_difference():
    assert states.fingerprint("x", {"a": 1, "b": 2}) == states.fingerprint("x", {"b": 2, "a": 1})
    assert states.fingerprint("x", {"a": 1}) != states.fingerprint("y", {"a": 1})


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = tmp_path / "s"
    states.save(path, _state(), _Owner(), 3)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=re.escape(f"{path} is not a whole state file")):
        states.load(path, _Owner())


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "s"
    path.write_text("this is a text about nothing in particular, and longer than a header's length")
    with pytest.raises(ValueError, match="is not a whole state file"):
        states.load(path, _Owner())
    safetensors.torch.save_file({"embedding.weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=rf"not a state file of this version \(no format; .*{states.FORMAT}\)"):
        states.load(path, _Owner())
    safetensors.torch.save_file({"0": torch.zeros(3)}, path, {"format": "recurra-state-0"})
    with pytest.raises(ValueError, match=r"not a state file of this version \(recurra-state-0"):
        states.load(path, _Owner())


def test_no_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match=re.escape(f"there is no file {path}")):
            states.load(path, _Owner())


@pytest.mark.parametrize("where", ["writing", "renaming"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, where):
    path, owner = tmp_path / "s", _Owner()
    states.save(path, (torch.ones(2, 3),), owner, 1)

    def half(tensors, file, header):
        with open(file, "wb") as out:
            out.write(b"half of a fi")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((safetensors.torch, "save_file", half) if where == "writing" else (os, "replace", full)))
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            states.save(path, (torch.zeros(2, 3),), owner, 2)
    assert os.listdir(tmp_path) == ["s"]
    (back,), steps = states.load(path, owner)
    assert steps == 1 and torch.equal(back, torch.ones(2, 3))


def test_rows_in_any_order_and_number():
    state = _state()
    for index, wanted in (([2, 0, 2], [2, 0, 2]), (1, [1]), (slice(1, None), [1, 2]), (torch.tensor([0]), [0])):
        got = states.rows(state, index)
        _equal(states.each(lambda x, wanted=wanted: x[wanted], state), got)


def test_split_and_joined_again():
    state = _state()
    _equal(state, states.join([states.rows(state, i) for i in range(3)]))


def test_scatter_replaces_rows_of_a_copy():
    state, new = _state(), states.rows(_state(), [0, 1])
    before = states.each(torch.clone, state)
    got = states.scatter(state, [2, 0], new)
    _equal(before, state)
    _equal(new, states.rows(got, [2, 0]))
    _equal(states.rows(state, 1), states.rows(got, 1))


def test_fork_puts_copies_side_by_side():
    _equal(states.rows(_fixed(), [0, 0, 1, 1, 2, 2]), states.fork(_fixed(), 2))


def _fixed():
    return (torch.arange(3.0), (torch.arange(6).view(3, 2),))


def test_counting():
    assert states.batch(_state()) == 3 and states.batch(()) is None
    assert states.nbytes((torch.zeros(2, 3), (torch.zeros(2, dtype=torch.complex128),))) == 24 + 32
    assert [x.ndim for x in states.leaves(_fixed())] == [1, 2]


def test_detach_and_to_keep_types():
    state = (torch.randn(2, requires_grad=True) * 2, torch.randn(2).bfloat16())
    assert not any(x.requires_grad for x in states.leaves(states.detach(state)))
    moved = states.to(state, "meta")
    assert [(x.device.type, x.dtype) for x in moved] == [("meta", x.dtype) for x in state]


def test_states_of_different_shapes_do_not_mix():
    with pytest.raises(ValueError, match="zip"):
        states.join([(torch.zeros(1),), (torch.zeros(1), torch.zeros(1))])
