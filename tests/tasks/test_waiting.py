"""Recall in grades, and the tasks of long waits: what is drawn, and small rows whose answers are read off by eye.

What every made task promises is tested over the table in `test_made.py`.
"""

import pytest
import torch

from recurra.tasks import SourceError, make


def test_latching_repeats_the_first_token_among_its_likes():
    batch = make({"task": "latching", "symbols": 3, "vocabulary": 7}).batch("train", 0, 4000, 12, 0)
    assert (batch.targets == batch.inputs[:, :1]).all() and batch.scored is None
    assert set(batch.inputs[:, 0].tolist()) == {0, 1, 2}
    shares = torch.nn.functional.one_hot(batch.inputs[:, 1:], 7).double().mean((0, 1))
    assert (shares - 1 / 7).abs().max() < 0.01


def test_induction_asks_for_what_followed_the_marker():
    task = make({"task": "induction", "symbols": 5, "early": 4})
    batch = task.batch("train", 0, 2000, 20, 0)
    assert (batch.inputs[:, -1] == 5).all() and ((batch.inputs == 5).sum(1) == 2).all()
    first = (batch.inputs == 5).int().argmax(1)
    assert (first.bincount(minlength=20).double() / 2000 - torch.tensor([0.25] * 4 + [0.0] * 16)).abs().max() < 0.05
    assert torch.equal(batch.targets[:, -1], batch.inputs[torch.arange(2000), first + 1])
    assert batch.scored.sum() == 2000 and batch.scored[:, -1].all()


def test_a_first_marker_has_a_symbol_after_it_even_in_the_shortest_row():
    inputs = make({"task": "induction"}).batch("train", 0, 20, 3, 0).inputs
    assert (inputs[:, 0] == 16).all() and (inputs[:, 1] < 16).all()


def follow(task, tokens):
    """The answers to a row that is given."""
    inputs = torch.tensor([tokens])
    blank = task.batch("test", 0, 1, 8, 0)
    return task.solve(blank._replace(inputs=inputs)).argmax(-1)[0].tolist()


def test_events_count_in_order_and_are_undone():
    # chain 0 has the links 0 and 1, chain 1 the links 2 and 3; 4 and 5 undo; 6 is noise
    task = make({"task": "ordered_events"})
    assert follow(task, [1, 0, 6, 1, 3, 2, 3, 4, 1, 0, 1]) == [0, 0, 0, 1, 1, 1, 3, 2, 2, 2, 3]
    assert follow(task, [0, 1, 0, 5, 2, 5, 3, 4, 1]) == [0, 1, 1, 1, 1, 1, 1, 0, 0]


def test_a_row_has_as_many_events_whatever_its_length():
    task = make({"task": "ordered_events", "events": 12})
    for length in (30, 300):
        inputs = task.batch("test", 0, 400, length, 0).inputs
        assert abs(float((inputs < 6).sum(1).double().mean()) - 12) < 0.7
        assert abs(float((inputs[inputs < 6] >= 4).double().mean()) - 1 / 6) < 0.03


def test_every_answer_is_common():
    targets = make({"task": "ordered_events"}).batch("train", 0, 500, 64, 0).targets
    shares = targets.flatten().bincount(minlength=4) / targets.numel()
    assert shares.min() > 0.1 and shares.max() < 0.6


@pytest.mark.parametrize(("links", "chains"), [(1, 1), (3, 4)])
def test_other_numbers_of_chains_and_links(links, chains):
    task = make({"task": "ordered_events", "links": links, "chains": chains, "noise": 1})
    batch = task.batch("train", 0, 16, 90, 0)
    assert batch.targets.max() < 2**chains <= task.model_arguments()["vocabulary"]
    assert task.score(task.solve(batch), batch) == (1440, 1440)


def test_graded_recall_has_fewer_pairs_in_training_only():
    task = make({"task": "associative_recall", "pairs": 4, "vocabulary": 32, "graded": True})
    batch = task.batch("train", 0, 4000, 24, 0)
    pairs = (batch.inputs[:, :8:2] > 0).sum(1)
    assert torch.equal(pairs, batch.scored.sum(1)) and torch.equal(pairs, (batch.inputs[:, 1:8:2] > 0).sum(1))
    assert (pairs.bincount(minlength=5).double() / 4000 - torch.tensor([0.0] + [0.25] * 4)).abs().max() < 0.03
    assert (batch.inputs[:, :8].sort(1, descending=False).values[:, 0] == 0)[pairs < 4].all()
    total, count = task.score(task.solve(batch), batch)
    assert total == count == pairs.sum()
    plain = make({"task": "associative_recall", "pairs": 4, "vocabulary": 32})
    assert torch.equal(task.batch("test", 0, 8, 24, 0).inputs, plain.batch("test", 0, 8, 24, 0).inputs)


@pytest.mark.parametrize(
    "config",
    [
        {"task": "latching", "symbols": 1},
        {"task": "latching", "symbols": 30},
        {"task": "induction", "symbols": 1},
        {"task": "induction", "early": 0},
        {"task": "ordered_events", "links": 0},
        {"task": "ordered_events", "events": 0},
    ],
)
def test_wrong_numbers_are_refused(config):
    with pytest.raises(SourceError, match="must be"):
        make(config)
