"""Labels from frames: the loss and the two readings against the enumeration of every path."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from recurra import Clock
from recurra.models import MODELS
from recurra.models.labellings import best_path, prefix_beam
from recurra.tasks import Batch, make


def joined(path):
    return tuple(label for label, _ in itertools.groupby(path) if label)


def labellings(logits):
    """The log-probability of every labelling, by all paths."""
    logs, found = logits.log_softmax(-1), {}
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        p = math.exp(sum(float(logs[t, x]) for t, x in enumerate(path)))
        found[joined(path)] = found.get(joined(path), 0.0) + p
    return {labels: math.log(p) for labels, p in found.items()}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_search_wide_enough_is_exact(seed, frames):
    torch.manual_seed(seed)
    logits = 2 * torch.randn(frames, 3, dtype=torch.float64)
    found = labellings(logits)
    best = max(found, key=lambda labels: found[labels])
    labels, score = prefix_beam(logits, width=1000)
    assert tuple(labels) == best
    assert score == pytest.approx(found[best], abs=1e-12)


def test_a_narrow_search_never_promises_more_than_there_is():
    torch.manual_seed(0)
    for _ in range(20):
        logits = torch.randn(5, 3, dtype=torch.float64)
        labels, score = prefix_beam(logits, width=2)
        assert score <= labellings(logits)[tuple(labels)] + 1e-12
    with pytest.raises(ValueError, match="width is 0"):
        prefix_beam(torch.zeros(2, 3), width=0)


def test_paths_may_mislead():
    """The likeliest path says nothing (0.36), and yet a label is likelier (0.64): the search knows."""
    logits = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    assert best_path(logits[None]) == [[]]
    assert prefix_beam(logits, 4)[0] == [1]


def test_neighbours_are_joined_and_blanks_are_nothing():
    path = torch.tensor([[1, 1, 0, 1, 2, 2, 0, 0, 3], [0, 2, 9, 2, 9, 1, 1, 9, 9]])
    logits = torch.nn.functional.one_hot(path, 10).float()
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[1] = path[1] != 9
    assert best_path(logits, valid) == [[1, 1, 2, 3], [2, 1]]


def test_the_loss_is_the_sum_over_paths():
    torch.manual_seed(0)
    task = make({"task": "spoken_digits"})
    outputs = torch.randn(3, 5, 11)
    targets = torch.tensor([[3, 3, 0], [1, 0, 0], [2, 7, 1]])
    valid = torch.arange(5) < torch.tensor([[5], [4], [3]])
    loss = task.loss(outputs, Batch(outputs, targets, None, None, valid))
    total = 0.0
    for row, target, frames in zip(outputs, targets.tolist(), (5, 4, 3), strict=True):
        wanted = [x for x in target if x]
        # only paths over the blank and the labels that are wanted can say them
        own = sorted({0, *wanted})
        logs = row[:frames].double().log_softmax(-1)
        paths = itertools.product(own, repeat=frames)
        ways = [sum(float(logs[t, x]) for t, x in enumerate(p)) for p in paths if joined(p) == tuple(wanted)]
        total -= math.log(sum(map(math.exp, ways)))
    assert_close(loss.double(), torch.tensor(total / 6).double(), rtol=1e-5, atol=1e-5)


def test_it_hears_both_ends_and_cannot_stream():
    model = MODELS["ctc"](inputs=3, labels=4, width=16, depth=1).double().eval()
    x = torch.randn(1, 8, 3, dtype=torch.float64)
    y = model(x)[0]
    for changed in (0, 7):
        z = x.clone()
        z[:, changed] += 1
        assert ((model(z)[0] - y).abs().sum(-1) > 0).all()
    with pytest.raises(ValueError, match="Give it whole sequences"):
        model(x, ())


def test_reading_is_of_the_frames_that_happened():
    torch.manual_seed(0)
    model = MODELS["ctc"](inputs=3, labels=4, width=16, depth=1).eval()
    x = 5 * torch.randn(2, 8, 3)
    clock = Clock.lengths([8, 5])
    for width in (None, 6):
        assert model.read(x, clock, width=width)[1] == model.read(x[1:, :5], width=width)[0]


def test_what_cannot_be_honoured_is_refused():
    with pytest.raises(ValueError, match="keywords are given for 'gru', but the pattern 'lstm' has none"):
        MODELS["ctc"](inputs=3, labels=4, width=16, depth=1, mixers={"gru": {}})
    with pytest.raises(ValueError, match="depth is 0: it must be at least 1"):
        MODELS["ctc"](inputs=3, labels=4, width=16, depth=0)
