"""LM2 in its streamable form against a loop over steps and slots, and at its limits.

There is no code to hold it against: of the published forms one cannot be formed and the other does not run where there
are more steps than slots. So there are two derivations, and the closed forms of gates shut and of a single slot.
"""

import pytest
import torch
from torch.testing import assert_close

from recurra.mixers.segment.lm2 import LM2
from recurra.mixers.window.attention import Attention


def small(**config):
    return LM2(8, **{"segment": 4, "slots": 3, "heads": 1} | config).double()


def local(mixer, x):
    """Attention within segments of four, alone."""
    full = Attention(8, heads=mixer.heads).double()
    full.load_state_dict({name: mixer.state_dict()[name] for name in full.state_dict()})
    return torch.cat([full(part)[0] for part in x.split(4, 1)], 1)


def test_equals_a_loop_over_steps_and_slots():
    mixer, x = small(), torch.randn(1, 14, 8, dtype=torch.float64)
    slots, y = list(torch.eye(3, 8).double()), []
    for segment in x[0].split(4):
        for z in segment:
            score = torch.stack([mixer.read_query(z) @ mixer.read_key(m) for m in slots]) / 8**0.5
            e = sum(p * mixer.read_value(m) for p, m in zip(score.softmax(0), slots, strict=True))
            y.append(mixer.read_gate(e).sigmoid() * e)
        if len(segment) == 4:
            mean = torch.stack([(mixer.scale * z).relu() for z in segment]).mean(0)
            written = []
            for m in slots:
                score = torch.stack([mixer.write_query(m) @ mixer.write_key(z) for z in segment]) / 8**0.5
                u = sum(p * mixer.write_value(z) for p, z in zip(score.softmax(0), segment, strict=True))
                gates = mixer.segment_gate(mean) + mixer.memory_gate(m.tanh())
                written.append(gates[:8].sigmoid() * u.tanh() + gates[8:].sigmoid() * m)
            slots = written
    whole, (memory, _) = mixer(x)
    assert_close(whole[0], local(mixer, x)[0] + torch.stack(y), rtol=1e-10, atol=1e-12)
    assert_close(memory[0], torch.stack(slots), rtol=1e-10, atol=1e-12)


def test_gates_that_keep_all_and_take_nothing_leave_the_slots():
    mixer = small()
    with torch.no_grad():
        mixer.segment_gate.bias.copy_(torch.tensor([-1e3, 1e3]).repeat_interleave(8))
    _, (memory, _) = mixer(torch.randn(2, 14, 8, dtype=torch.float64))
    assert_close(memory, torch.eye(3, 8).double().expand(2, -1, -1))


def test_of_a_single_slot_there_is_nothing_to_choose():
    mixer, x = small(slots=1), torch.randn(2, 14, 8, dtype=torch.float64)
    e = mixer.read_value(torch.eye(1, 8).double())
    assert_close((mixer(x)[0] - local(mixer, x))[:, :4], (mixer.read_gate(e).sigmoid() * e).expand(2, 4, -1))


def test_more_slots_than_features_are_refused():
    with pytest.raises(ValueError, match="slots is 9: it must be at least 1 and at most the width, which is 8"):
        LM2(8, slots=9)
