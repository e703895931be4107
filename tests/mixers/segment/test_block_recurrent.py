"""The states against block-recurrent-transformer-pytorch (tests/oracles/make_segment.py), the window against ours."""

from functools import partial

import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra.mixers.segment.block_recurrent import BlockRecurrent
from recurra.mixers.window.sliding_window import SlidingWindow
from recurra.parts.linear import Joined
from recurra.parts.window import attend


def test_equals_the_packages_states():
    weights, stored = numbers("segment", "block.")
    key, value = weights["state_to_kv.weight"].chunk(2)
    mixer = BlockRecurrent(8, segment=5, states=3, heads=1).double()
    own = {
        "state_query.weight": weights["q_to_state.weight"],
        "own_query.weight": weights["state_to_q.weight"],
        "token_query.weight": weights["q_from_state.weight"],
        "own_key.weight": key,
        "own_value.weight": value,
        "states": weights["init_state"],
        "identity": weights["state_pos_ids"],
        "norm.weight": weights["state_norm.gamma"],
        "hidden.weight": weights["to_state_out.weight"],
        "candidate.weight": weights["state_out_to_gate.weight"],
        "candidate.bias": weights["state_out_to_gate.bias"],
        # what theirs takes of the new, ours keeps of the old
        "gate": -weights["learned_ema_beta"],
    }
    mixer.load_state_dict(mixer.state_dict() | own)
    four = Joined(mixer.own_query, mixer.token_query, mixer.own_key, mixer.own_value)
    give, (((states, earlier, had), _), reads) = partial(mixer._give, four), (mixer.initial_state(2), [])
    memory = states, give(states, stored["x"].dtype), earlier, had.to(earlier.dtype)
    kept = torch.cat([stored["key"], stored["value"]], -1)
    for x, part in zip(stored["x"].split(5, 1), kept.split(5, 1), strict=True):
        *_, key, value = memory[1].unbind(2)
        reads.append(attend(mixer.state_query(x)[:, :, None], key, value)[:, :, 0])
        memory, _ = mixer._write(give, memory, part)
    assert_close(torch.cat(reads, 1), stored["read"], rtol=1e-12, atol=1e-12)
    assert_close(memory[0], stored["states"], rtol=1e-12, atol=1e-12)


def test_what_is_not_states_is_a_sliding_window():
    mixer, window = BlockRecurrent(8, segment=5).double(), SlidingWindow(8, window=5).double()
    with torch.no_grad():
        mixer.out.weight[:, 8:] = 0
    own = {name: mixer.state_dict()[name] for name in window.state_dict() if name != "out.weight"}
    window.load_state_dict(own | {"out.weight": mixer.out.weight[:, :8]})
    x = torch.randn(2, 23, 8, dtype=torch.float64)
    assert_close(mixer(x)[0], window(x)[0], rtol=1e-12, atol=1e-12)


def test_a_gate_that_keeps_all_never_changes_the_states():
    mixer = BlockRecurrent(8, segment=5)
    with torch.no_grad():
        mixer.gate.fill_(100)
    _, ((states, *_), _) = mixer(torch.randn(2, 23, 8))
    assert_close(states, mixer.states.expand(2, -1, -1))


def test_a_step_hears_of_what_left_the_window_through_the_states():
    mixer = BlockRecurrent(8, segment=4).double()
    x = torch.randn(1, 20, 8, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[0][0, 18].sum(), x)
    assert (grad[0, :19].abs().sum(1) > 0).all()
