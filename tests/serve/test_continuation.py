"""What is streamed after a prompt is what the model's own `stream` gives, whatever the prompt's length."""

import pytest
import torch

from recurra.models import LanguageModel
from recurra.serve import continuation
from recurra.serve.continuation import Meter, write_on
from recurra.tasks.text import codec


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = LanguageModel(vocabulary=256, width=16, depth=2, pattern="gla,lstm").eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 30])
def test_a_prompt_in_pieces_is_the_same_prompt(model, monkeypatch, length):
    monkeypatch.setattr(continuation, "PIECE", 8)
    prompt = bytes(range(65, 65 + length))
    pieces = list(write_on(model, codec({}), prompt, max_new_tokens=12))
    whole = [int(x) for x in model.stream(torch.tensor([list(prompt)]), max_new_tokens=12)]
    assert [x.token for x in pieces] == whole
    assert b"".join(x.data for x in pieces) == bytes(whole)


def test_characters_come_whole(model, monkeypatch):
    text = "naïve €"
    tokens = [torch.tensor([byte]) for byte in text.encode()]
    monkeypatch.setattr(LanguageModel, "stream", lambda *_, **__: iter(tokens))
    pieces = list(write_on(model, codec({}), b"x"))
    assert "".join(x.text for x in pieces) == text
    assert [x.text for x in pieces][2:4] == ["", "ï"]


def test_an_empty_prompt_is_refused(model):
    with pytest.raises(ValueError, match="the prompt is empty"):
        next(write_on(model, codec({}), b""))


def test_a_meter_counts_and_starts_its_pace_anew(monkeypatch):
    now = iter([0.0, 1.0, 11.0, 12.0, 13.0, 14.0])
    monkeypatch.setattr(continuation.time, "monotonic", lambda: next(now))
    meter = Meter()
    assert not meter.count() and meter.count()
    assert meter.said().startswith("2 tokens, 0 a second, ")
    assert not meter.count()
    assert meter.said().startswith("3 tokens, 0 a second, ")
    assert continuation.resident() > 2**20
