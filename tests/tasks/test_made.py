"""What every made task promises: batches by number, test apart from train, a solver that is perfect, a chance level."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from tasks.test_signals import LENGTHS, same

from recurra.tasks import TASKS, SourceError, make
from recurra.tasks.draws import in_test, rows, spread

MADE = [name for name in TASKS if name not in ("text", "series", *LENGTHS)]
made = pytest.mark.parametrize("name", MADE)
# of the tokens only so many are ever the answer
ANSWERS = {
    "latching": 4,
    "induction": 16,
    "ordered_events": 4,
    "nested_logic": 2,
    "graph_reachability": 2,
    "relational_text": 2,
}


def whole(inputs):
    """Every sequence as one thing that can stand in a set."""
    return {row.numpy().tobytes() for row in inputs}


@made
@settings(max_examples=20, deadline=None)
@given(
    split=st.sampled_from(["train", "test"]),
    index=st.integers(0, 10**6),
    size=st.integers(1, 9),
    length=st.integers(40, 80),
    seed=st.integers(0, 2**40),
)
def test_a_batch_is_a_function_of_its_number(name, split, index, size, length, seed):
    batch = make({"task": name}).batch(split, index, size, length, seed)
    make({"task": name}).batch("train", 3, 4, 50, 1)
    assert same(batch, make({"task": name}).batch(split, index, size, length, seed))
    assert batch.inputs.shape[:2] == batch.targets.shape[:2] == (size, length)
    assert batch.inputs.dtype in (torch.int64, torch.float32)


@made
def test_other_numbers_are_other_batches(name):
    task = make({"task": name})
    several = [task.batch("train", i, 8, 64, seed).inputs for i in range(20) for seed in (0, 1)]
    several += [task.batch("test", i, 8, 64, 0).inputs for i in range(20)]
    assert len(set().union(*map(whole, several))) == 8 * 60


@made
def test_the_solver_is_perfect_at_any_length(name):
    task = make({"task": name})
    for split in ("train", "test"):
        for length in (40, 41, 64, 333):
            batch = task.batch(split, 0, 16, length, 0)
            total, count = task.score(task.solve(batch), batch)
            assert count > 0
            if task.lower_is_better:
                assert total / count < 1e-12
            else:
                assert total == count
            assert task.loss(task.solve(batch), batch) < 1e-6


@made
def test_the_solver_sees_the_inputs_only(name):
    task = make({"task": name})
    batch = task.batch("test", 0, 4, 48, 0)
    blind = batch._replace(targets=torch.full_like(batch.targets, -1), scored=None)
    assert torch.equal(task.solve(blind), task.solve(batch))


@made
def test_train_and_test_are_divided_by_hash(name):
    task = make({"task": name})
    for split in ("train", "test"):
        inputs = task.batch(split, 0, 64, 48, 0).inputs.double()
        scale = torch.tensor([2.0**24, 1.0]) if name == "adding" else 1
        content = (inputs * scale).long().numpy()
        content = content[:, :10] if name == "copying" else content
        assert (in_test(content) == (split == "test")).all()


def test_short_sequences_of_which_all_are_drawn_are_disjoint():
    task = make({"task": "parity"})
    train, test = (whole(task.batch(split, 0, 4000, 8, 0).inputs) for split in ("train", "test"))
    assert not train & test
    assert len(train | test) == 2**8
    assert 0.3 < len(test) / 2**8 < 0.7


def test_the_hash_sees_every_place_and_value():
    content = np.random.default_rng(0).integers(0, 3, (4000, 50))
    sides = in_test(content)
    assert 0.45 < sides.mean() < 0.55
    for place in range(50):
        changed = content.copy()
        changed[:, place] = (changed[:, place] + 1) % 3
        assert 0.4 < (in_test(changed) != sides).mean() < 0.6


def test_too_few_sequences_to_divide_are_refused():
    with pytest.raises(ValueError, match="too few sequences of length 3"):
        rows(lambda random, size, length: np.ones((size, length), np.int64), "train", 0, 2, 3, 0)
        rows(lambda random, size, length: np.ones((size, length), np.int64), "test", 0, 2, 3, 0)


@made
def test_chance_is_what_guessing_gets(name):
    task = make({"task": name})
    total = count = 0.0
    for index in range(20):
        batch = task.batch("test", index, 64, 64, 0)
        arguments = task.model_arguments()
        if name == "adding":
            guess = torch.ones(64, 64, 1, 1)
        elif name == "recordings":
            guess = torch.zeros(64, 64, 2, 1)
        elif name == "flip_flop":
            guess = torch.rand(64, 64, 3, 1) - 0.5
        elif name == "associative_recall":
            # one of the row's values, at random
            values = batch.inputs[:, 1:16:2]
            pick = values.gather(1, torch.randint(values.shape[1], (64, 64)))
            guess = torch.nn.functional.one_hot(pick, arguments["vocabulary"]).float()
        else:
            guess = torch.rand(64, 64, arguments["vocabulary"])
            # the blank and the marker are never the answer
            if "copying" in name:
                guess[..., 0] = guess[..., -1] = -1
            # silence and keys neither
            if name == "rewrites":
                guess[..., :5] = -1
            if name in ANSWERS:
                guess[..., ANSWERS[name] :] = -1
        one, some = task.score(guess, batch)
        total, count = total + one, count + some
    deviation = (task.chance * (1 - task.chance) / count) ** 0.5
    assert abs(total / count - task.chance) < 4 * deviation


@made
def test_carried_rows_begin_anew(name):
    task = make({"task": name})
    batch = task.batch("train", 5, 3, 48, 0, carried=True)
    assert batch.reset[:, 0].all() and not batch.reset[:, 1:].any()
    assert same(batch._replace(reset=None), task.batch("train", 5, 3, 48, 0))


@made
def test_the_configuration_makes_the_task_again(name):
    task = make({"task": name})
    again = make(task.config)
    assert again.config == task.config and again.model_arguments() == task.model_arguments()
    assert same(again.batch("test", 1, 2, 48, 3), task.batch("test", 1, 2, 48, 3))


@made
def test_a_split_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="no split 'dev'"):
        make({"task": name}).batch("dev", 0, 1, 48, 0)
    with pytest.raises(ValueError, match="must not be negative"):
        make({"task": name}).batch("train", -1, 1, 48, 0)


@made
def test_gradients_come_from_the_scored_steps_only(name):
    task = make({"task": name})
    batch = task.batch("train", 0, 4, 48, 0)
    outputs = torch.zeros_like(task.solve(batch)).requires_grad_()
    (grad,) = torch.autograd.grad(task.loss(outputs, batch), outputs)
    scored = torch.ones(4, 48, dtype=torch.bool) if batch.scored is None else batch.scored
    touched = grad.flatten(2).abs().sum(-1) > 0
    assert torch.equal(touched, scored)


def test_recall_asks_each_key_once_after_the_pairs():
    task = make({"task": "associative_recall", "pairs": 5, "vocabulary": 32})
    batch = task.batch("train", 0, 200, 40, 0)
    for row, scored, targets in zip(batch.inputs.tolist(), batch.scored.tolist(), batch.targets.tolist(), strict=True):
        keys, values = row[:10:2], row[1:10:2]
        assert len(set(keys)) == len(set(values)) == 5
        assert all(1 <= k < 16 for k in keys) and all(16 <= v < 32 for v in values)
        asked = [(row[t], targets[t]) for t in range(40) if scored[t]]
        assert sorted(asked) == sorted(zip(keys, values, strict=True))
        assert not any(row[t] for t in range(10, 40) if not scored[t])


def test_recall_asks_soon_more_often_than_late():
    task = make({"task": "associative_recall", "pairs": 1, "vocabulary": 32})
    scored = task.batch("train", 0, 20000, 22, 0).scored.double().mean(0)
    gaps = torch.arange(1, 11).double() ** (0.01 - 1)
    assert torch.allclose(scored[2::2], gaps / gaps.sum(), atol=0.015)
    assert (scored[3::2] == 0).all()


def test_what_is_rewritten_has_its_newest_value_and_what_never_was_is_not_asked():
    task = make({"task": "rewrites", "keys": 3, "values": 4, "segments": 2, "writes": 1, "fillers": 2})
    batch, unknown = task.batch("train", 0, 200, 23, 0), 0
    for row, scored, targets in zip(batch.inputs.tolist(), batch.scored.tolist(), batch.targets.tolist(), strict=True):
        places = [t for t in range(20) if 2 <= row[t] < 5]
        assert [t // 10 for t in places] == [0, 1] and all(row[t + 1] >= 5 for t in places)
        assert sorted(row[20:]) == [2, 3, 4] and not any(scored[:20]) and not any(targets[:20])
        newest = {row[t]: row[t + 1] for t in places}
        unknown += 3 - len(newest)
        assert targets[20:] == [newest.get(key, 0) for key in row[20:]]
        assert scored[20:] == [key in newest for key in row[20:]]
    assert 200 < unknown < 400


def test_selected_symbols_may_lie_anywhere_before_the_marker():
    task = make({"task": "selective_copying", "symbols": 4, "items": 8})
    inputs = task.batch("train", 0, 20000, 25, 0).inputs
    assert ((inputs[:, :16] > 0).double().mean(0) - 0.5).abs().max() < 0.015
    assert (inputs[:, 16] == 5).all() and (inputs[:, 17:] == 0).all()


def test_adding_marks_one_number_in_each_half():
    inputs = make({"task": "adding"}).batch("train", 0, 100, 31, 0).inputs
    assert (inputs[:, :15, 1].sum(1) == 1).all() and (inputs[:, 15:, 1].sum(1) == 1).all()
    assert inputs[..., 0].min() >= 0 and inputs[..., 0].max() < 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"task": "paritee"}, r"no task 'paritee' \(did you mean parity\?\)"),
        ({}, "no task None"),
        ({"task": "copying", "item": 3}, r"no keyword 'item' \(did you mean items\?\); it has symbols, items"),
        ({"task": "parity", "modulus": 3}, "the task parity has no keyword 'modulus'; it has none"),
        ({"task": "text"}, "the task text needs a source"),
        ({"task": "copying", "items": 0}, "at least 2 and 1"),
        ({"task": "selective_copying", "symbols": 1}, "at least 2 and 1"),
        ({"task": "modular_counting", "modulus": 1}, "modulus is 1"),
        ({"task": "associative_recall", "pairs": 16, "vocabulary": 32}, "more than 32, not 32"),
        ({"task": "rewrites", "segments": 0}, "segments is 0"),
        ({"task": "rewrites", "keys": 2}, "cannot write 4 of 2 keys"),
    ],
)
def test_wrong_configurations_are_refused_in_one_sentence(config, said):
    with pytest.raises(SourceError, match=said):
        make(config)


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("copying", 20),
        ("selective_copying", 32),
        ("associative_recall", 31),
        ("adding", 1),
        ("induction", 2),
        ("rewrites", 19),
    ],
)
def test_a_length_that_cannot_hold_the_task_is_refused(name, length):
    with pytest.raises(SourceError, match=f"takes at least {length + 1} steps, not {length}"):
        make({"task": name}).batch("train", 0, 1, length, 0)
    assert make({"task": name}).batch("train", 0, 1, length + 1, 0)


@given(count=st.integers(1, 500), size=st.integers(1, 7))
@settings(deadline=None)
def test_spread_visits_every_window_before_any_again(count, size):
    seen = np.concatenate([spread(i, size, count) for i in range(-(-count // size))])[:count]
    assert sorted(seen) == list(range(count))
