"""What the pipe's reader says of a line does not depend on how the bytes came."""

import itertools
import json
import os
import threading

import pytest
import torch
from hypothesis import given, settings, strategies as st

from recurra.models import LanguageModel
from recurra.serve import streaming
from recurra.serve.streaming import BLOCK, Line, Reader, blocks, stream
from recurra.state import load

TEXT = b"first line\n\nthe third one\n\xff\x00 not utf-8\r\n" + b"x" * 40 + b"\nno end"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = LanguageModel(vocabulary=256, width=16, depth=2, pattern="gla,lstm").eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def read(model, *pieces, state=None, steps=0):
    reader = Reader(model, list, state, steps)
    lines = [line for piece in pieces for line in reader.feed(piece)]
    return lines + reader.end(), reader


def close(one, other):
    assert [x[1:] for x in one] == [x[1:] for x in other]
    torch.testing.assert_close([x.bits for x in one], [x.bits for x in other], rtol=1e-4, atol=1e-3)


def test_a_lines_bits_are_the_models_surprise(model):
    lines, reader = read(model, TEXT)
    bits, _, _ = model.surprise(torch.tensor([list(TEXT)]))
    assert [line.text for line in lines] == TEXT.split(b"\n")
    assert sum(line.size for line in lines) == len(TEXT) == reader.position[1]
    start, truth = 0, []
    for line in lines:
        truth.append(float(bits[0, start : start + line.size].sum()))
        start += line.size
    torch.testing.assert_close([line.bits for line in lines], truth, rtol=1e-4, atol=1e-3)
    assert lines[0].bits_per_byte == lines[0].bits / 11


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, len(TEXT)), max_size=6).map(sorted))
def test_a_cut_changes_nothing(model, cuts):
    ends = [0, *cuts, len(TEXT)]
    lines, _ = read(model, *(TEXT[a:b] for a, b in itertools.pairwise(ends)))
    close(lines, read(model, TEXT)[0])


def test_a_line_is_out_as_soon_as_it_is_complete(model):
    reader = Reader(model, list)
    assert reader.feed(b"almost") == []
    (line,) = reader.feed(b"\nnext")
    assert line.text == b"almost"


def test_a_long_line_is_read_in_pieces_and_shown_in_part(model, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK", 50)
    text = bytes(range(32, 127)) * 4
    pieces = [text[i : i + 7] for i in range(0, len(text), 7)]
    lines, _ = read(model, b"before\n", *pieces, b"\nafter\n")
    monkeypatch.undo()
    whole, _ = read(model, b"before\n" + text + b"\nafter\n")
    assert lines[1].text == text[:50] and lines[1].size == len(text) + 1
    torch.testing.assert_close([x.bits for x in lines], [x.bits for x in whole], rtol=1e-4, atol=1e-3)
    assert lines[1].to_text().endswith(b"%s [381 bytes]\n" % text[:50])


def test_what_is_held_of_a_line_without_end_is_bounded(model):
    reader = Reader(model, list)
    for _ in range(3):
        assert reader.feed(b"z" * BLOCK) == []
    assert len(reader._pending) <= BLOCK and len(reader._long.text) <= BLOCK


def test_the_position_is_that_of_the_last_complete_line(model):
    reader = Reader(model, list)
    before = reader.position
    reader.feed(b"unfinished")
    assert reader.position is before
    reader.feed(b" line\nand")
    assert reader.position[1] == 16
    rest, _ = read(model, b"and more\n", state=reader.position[0], steps=16)
    close(rest, read(model, b"unfinished line\nand more\n")[0][1:])


def test_lines_as_json():
    line = json.loads(Line(12.0, 4, b"\xffab").to_json())
    assert line == {"bits": 12.0, "bits_per_byte": 3.0, "bytes": 4, "text": "�ab"}
    assert Line(12.0, 4, b"\xffab").to_text() == b"12.0\t3.00\t\xffab\n"


def test_blocks_says_when_nothing_comes():
    ours, theirs = os.pipe()
    taken = blocks(ours, patience=0.05)
    assert next(taken) is None
    os.write(theirs, b"word")
    assert next(taken) == b"word"
    os.close(theirs)
    assert list(taken) == []
    os.close(ours)


def run_stream(model, text, path):
    """Feed a pipe, and return the lines that came out and the tokens read so far."""
    ours, theirs = os.pipe()

    def fill():
        with open(theirs, "wb") as file:
            file.write(text)

    feeder = threading.Thread(target=fill)
    feeder.start()
    lines = []
    steps = stream(model, list, ours, lines.extend, path)
    feeder.join()
    os.close(ours)
    return lines, steps


def test_restarts_change_nothing(model, tmp_path):
    parts = [b"one line\nand two\n", b"three\n", b"", b"four and\nfive\n"]
    lines, steps = [], 0
    for part in parts:
        some, steps = run_stream(model, part, tmp_path / "state")
        lines += some
    whole, count = run_stream(model, b"".join(parts), None)
    assert steps == count
    close(lines, whole)


def test_the_state_is_kept_however_it_ends(model, tmp_path):
    ours, theirs = os.pipe()
    os.write(theirs, b"one\ntwo\n")

    def refuse(lines):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        stream(model, list, ours, refuse, tmp_path / "state")
    assert load(tmp_path / "state", model)[1] == 8
    os.close(ours)
    os.close(theirs)


def test_the_state_is_saved_while_the_pipe_is_quiet(model, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming.blocks, "__defaults__", (0.05,))
    ours, theirs = os.pipe()
    os.write(theirs, b"one\n")
    saved = threading.Event()

    def wait():
        while not (tmp_path / "state").exists() and not saved.wait(0.01):
            pass
        os.close(theirs)

    closer = threading.Timer(0, wait)
    closer.start()
    stop = threading.Timer(20, saved.set)
    stop.start()
    stream(model, list, ours, lambda lines: None, tmp_path / "state")
    assert not saved.is_set(), "the state was not saved before the pipe ended"
    stop.cancel()
    closer.join()
    os.close(ours)


def test_the_state_of_another_model_is_refused_and_left_alone(model, tmp_path):
    other = LanguageModel(vocabulary=256, width=16, depth=1, pattern="gla").eval()
    run_stream(other, b"x\n", tmp_path / "state")
    before = (tmp_path / "state").read_bytes()
    with pytest.raises(ValueError, match=r"holds the state of .* use the model that wrote it"):
        run_stream(model, b"", tmp_path / "state")
    assert (tmp_path / "state").read_bytes() == before
