"""TRC2 against a loop over steps, columns and slots, and at the limits where it is something plainer.

There is no code to hold it against. So there are two derivations: the equations one number at a time, in plain Python,
and what they must come to where a part has nothing to do.
"""

import pytest
import torch
from torch.testing import assert_close

from recurra.mixers.segment.trc2 import TRC2, layout
from recurra.ops import Diag, Scan

SMALL = {"columns": 4, "units": 3, "slots": 5, "key_size": 4, "delay": 3, "conv": 2, "hidden": 6, "rank": 2}


def small(**config):
    mixer = TRC2(8, **SMALL | config).double()
    with torch.no_grad():
        for p in mixer.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return mixer


def silent(mixer, *names):
    """The mixer with these weights at zero."""
    with torch.no_grad():
        for name in names:
            mixer.get_parameter(name).zero_()
    return mixer


def foreseeing(mixer):
    """The mixer with the last input as its prediction."""
    silent(mixer, "conv.weight", "predict.weight", "predict.bias")
    with torch.no_grad():
        mixer.conv.weight[:, -1] = 1
        mixer.predict.weight.copy_(torch.eye(8))
    return mixer


@torch.no_grad()
def by_hand(mixer, x):
    """One sequence, step by step, by the equations of the docstring."""
    delay, columns = mixer.delay, [torch.zeros(3).double() for _ in range(4)]
    keys, values = [torch.zeros(4).double() for _ in range(5)], [torch.zeros(8).double() for _ in range(5)]
    inputs, us, errors, y = [torch.zeros(8).double()], [], [], []
    prediction = torch.zeros(8).double()

    def normal(norm, v):
        return norm.weight * v / (v.square().mean() + norm.epsilon).sqrt()

    def unit(v):
        return v / (v.square().sum() + 1e-6).sqrt()

    for now in x:
        u = now - 0.5 * prediction
        inputs, us = [*inputs, now], [*us, u]
        errors.append((now - prediction).square().mean())
        prediction = mixer.predict(sum(w * v for w, v in zip(mixer.conv.weight.T, inputs[-2:], strict=True)))
        # what happened `delay` steps ago goes where it belongs, as much as the steps after it were unforeseen
        if len(us) > delay:
            event, key = us[-1 - delay], unit(mixer.memory_key(us[-1 - delay]))
            share = mixer.address(event).softmax(0)
            for j in range(5):
                left = (-mixer.log_plasticity.exp()[0] * sum(errors[-delay:]) / delay * share[j]).exp()
                keys[j], values[j] = left * keys[j] + (1 - left) * key, left * values[j] + (1 - left) * event
        query = unit(mixer.memory_query(u))
        found = torch.stack([mixer.sharpness * key @ query for key in keys]).softmax(0)
        context = normal(mixer.memory_norm, mixer.memory_value(sum(p * v for p, v in zip(found, values, strict=True))))
        place = mixer.position(u).tanh()
        logits = torch.stack(
            [k @ mixer.route(u) - mixer.locality * ((place - at) ** 2).sum()
             for k, at in zip(mixer.column_key, mixer.places, strict=True)]
        )  # fmt: skip
        chosen = sorted(range(4), key=lambda m: -logits[m].item())[: mixer.top]
        total = sum(logits[m].exp() for m in chosen)
        gain = 1 + mixer.top_down(torch.nn.functional.silu(mixer.descend(context))).sigmoid()
        thought = context
        for m in chosen:
            step, write, read = (part.view(4, 3)[m] for part in mixer.project(u).chunk(3))
            left = step.sigmoid() * mixer.retention[m].sigmoid()
            columns[m] = left * columns[m] + (1 - left) * write
            thought = thought + logits[m].exp() / total * normal(mixer.norm, mixer.readout(read * columns[m]) * gain)
        hidden = torch.nn.functional.silu(mixer.mismatch(torch.cat([u, thought])))
        y.append(thought + mixer.high(mixer.low(hidden)))
    return torch.stack(y), torch.stack(columns), torch.stack(keys), torch.stack(values)


@pytest.mark.parametrize("config", [{}, {"top": 3}, {"delay": 1, "top": 1}])
def test_equals_a_loop_over_steps_columns_and_slots(config):
    mixer, x = small(**config), torch.randn(1, 17, 8, dtype=torch.float64)
    y, (*_, columns, memory) = mixer(x)
    wanted = by_hand(mixer, x[0])
    for found, by_loop in zip((y, columns, memory[0][:, 0], memory[1][:, 0]), wanted, strict=True):
        assert_close(found[0], by_loop, rtol=1e-10, atol=1e-12)


def test_one_column_without_memory_or_correction_is_a_diagonal_scan():
    mixer, x = small(columns=1, top=1), torch.randn(2, 12, 8, dtype=torch.float64)
    silent(mixer, "memory_norm.weight", "high.weight", "predict.weight", "predict.bias")
    step, write, query = mixer.project(x).chunk(3, -1)
    decay = step.sigmoid() * mixer.retention[0].sigmoid()
    h, _ = Scan()(Diag(decay, (1 - decay) * write), torch.zeros(2, 3).double())
    assert_close(mixer(x)[0], mixer.norm(1.5 * mixer.readout(query * h)))


def test_columns_that_are_not_chosen_stay_as_they_are():
    mixer, x = small(), torch.randn(1, 1, 8, dtype=torch.float64)
    _, before = mixer(torch.randn(1, 9, 8, dtype=torch.float64))
    _, after = mixer(x, before)
    moved = (before[3] != after[3]).any(-1)
    assert moved.sum() == 2 and (before[3][~moved] == after[3][~moved]).all()


def test_the_nearest_columns_are_chosen_where_keys_say_nothing():
    mixer = silent(small(columns=9, top=1), "route.weight", "position.weight")
    with torch.no_grad():
        mixer.position.bias.copy_(torch.tensor([0.9, -0.9]).atanh())
    _, (*_, columns, _) = mixer(torch.randn(1, 4, 8, dtype=torch.float64))
    assert columns[0].any(-1).nonzero().flatten().tolist() == [6]
    assert mixer.places[6].tolist() == [1, -1]


def test_columns_lie_on_a_grid_or_on_the_circle():
    assert layout(4).tolist() == [[-1, -1], [-1, 1], [1, -1], [1, 1]]
    assert_close(layout(8).norm(dim=-1), torch.ones(8))
    assert_close(layout(8).sum(0), torch.zeros(2), atol=1e-6, rtol=0)


def test_nothing_is_remembered_of_what_was_foreseen():
    mixer = foreseeing(small())
    _, (*_, memory) = mixer(torch.ones(1, 30, 8, dtype=torch.float64))
    assert all(part.abs().max() < 1e-20 for part in memory)


def test_a_surprise_writes_the_steps_before_it():
    mixer, x = foreseeing(small()), torch.ones(1, 30, 8, dtype=torch.float64)
    x[:, 12:] = -1
    _, state = mixer(x[:, :12])
    # constant, all foreseen: nothing is kept; the first two steps after the change still write what was before it
    assert state[-1][1].abs().max() < 1e-20
    _, (*_, (_, values)) = mixer(x[:, 12:14], state)
    assert (values > 0).all()
    # and once the change is further back than the delay, nothing is
    _, at = mixer(x[:, 12:15], state)
    _, later = mixer(x[:, 15:], at)
    assert_close(later[-1], at[-1], rtol=0, atol=1e-20)


def test_a_silent_stream_is_cut_anywhere():
    """Where nothing tells columns apart the first are taken, by whatever kernel."""
    mixer = silent(small(columns=8), "position.bias")
    x = torch.zeros(1, 40, 8, dtype=torch.float64)
    whole, last = mixer(x)
    state, pieces = None, []
    for part in x.split([1, 7, 1, 31], 1):
        y, state = mixer(part, state)
        pieces.append(y)
    assert_close(torch.cat(pieces, 1), whole)
    assert_close(state, last)


def test_a_router_is_taught_where_it_chooses_several():
    mixer = small()
    mixer(torch.randn(1, 9, 8, dtype=torch.float64))[0].square().sum().backward()
    assert mixer.route.weight.grad.abs().max() > 0 and mixer.position.weight.grad.abs().max() > 0
    alone = small(top=1)
    alone(torch.randn(1, 9, 8, dtype=torch.float64))[0].square().sum().backward()
    assert alone.route.weight.grad.abs().max() == 0


@pytest.mark.parametrize("config", [{"top": 5}, {"top": 0}, {"delay": 0}, {"slots": 0}])
def test_sizes_that_cannot_be_are_refused(config):
    ((name, value),) = config.items()
    with pytest.raises(ValueError, match=f"{name} is {value}: it must be at"):
        TRC2(8, **SMALL | config)
