"""What comes through a pipe: all of it once, in any pieces, no more of it held than a batch takes, or one sentence."""

import os

import numpy as np
import pytest
import torch

from recurra.tasks import TASKS, Dry, SourceError, open_pipe, open_source
from recurra.tasks.pipe import BLOCK


def opened(*pieces, **keywords):
    """The task of a pipe that these pieces went through."""
    out, into = os.pipe()
    for piece in pieces:
        os.write(into, piece)
    os.close(into)
    return open_pipe(descriptor=out, **keywords)


def batches(task, length):
    """All that a pipe gives."""
    found = []
    while True:
        try:
            found.append(task.batch("train", len(found), 1, length, 0, carried=True))
        except Dry:
            return found


def table(rows=40, start=0, header="ds,one,two"):
    x = np.arange(start, start + rows)
    lines = [f"{i},{3 + i % 5},{-1.5 * i}" for i in x]
    return "\n".join(([header] if header else []) + lines).encode() + b"\n"


def test_each_byte_is_met_once_and_what_is_left_at_the_end_is_a_shorter_batch():
    text = bytes(range(65, 91))
    found = batches(opened(text[:5], text[5:6], text[6:]), 10)
    assert [x.inputs.shape for x in found] == [(1, 10), (1, 10), (1, 5)]
    assert torch.cat([x.inputs for x in found], 1)[0].tolist() == list(text[:-1])
    assert torch.cat([x.targets for x in found], 1)[0].tolist() == list(text[1:])


def test_a_table_is_what_a_file_of_it_would_be(tmp_path):
    found = batches(opened(table(), horizon=3), 16)
    assert [x.inputs.shape for x in found] == [(2, 16, 1), (2, 16, 1), (2, 5, 1)]
    now, change = (torch.cat([getattr(x, name) for x in found], 1).double() for name in ("inputs", "targets"))
    values = torch.tensor([[3 + i % 5, -1.5 * i] for i in range(40)], dtype=torch.float64).T
    scale = values.abs().cumsum(1) / torch.arange(1, 41)
    scale[1, 0] = 1
    torch.testing.assert_close(now[..., 0], (values / scale)[:, :37], atol=1e-6, rtol=1e-6)
    for ahead in range(3):
        wanted = (values[:, 1 + ahead : 38 + ahead] - values[:, :37]) / scale[:, :37]
        torch.testing.assert_close(change[..., ahead], wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("cut", [1, 12, 13, 100, 250])
def test_a_run_that_stopped_holds_what_it_held(cut):
    whole = table(60)
    one = batches(opened(whole, horizon=4), 8)
    out, into = os.pipe()
    os.write(into, whole[:cut])
    os.close(into)
    first, given = open_pipe(format="csv", descriptor=out, horizon=4), []
    # what a run does that is stopped while nothing comes: the pipe is not over
    first.take(first.pipe.read(), last=False)
    while first.held >= 8 + 4:
        given.append(first.give(8))
    # a line that was begun comes again, whole
    second = opened(whole[whole.rfind(b"\n", 0, cut) + 1 :], format="csv", horizon=4)
    second.restore(first.kept())
    given += batches(second, 8)
    assert len(given) == len(one)
    for a, b in zip(given, one, strict=True):
        assert torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)


@pytest.mark.parametrize("header", ["ds,one,two", ""])
def test_the_next_file_may_have_its_header_again_or_none(header):
    first = opened(table(20), horizon=2)
    batches(first, 8)
    second = opened(table(20, start=20, header=header), format="csv", horizon=2)
    second.restore(first.kept())
    assert sum(x.inputs.shape[1] for x in batches(second, 8)) == 20


def test_a_tokenizer_sees_whole_lines(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    text = ("the cat sat on the mat, é\n" * 9).encode()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator([text.decode()], trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    pieces = [text[:11], text[11:50], text[50:] + b"end"]
    task = opened(*pieces, tokenizer=str(tmp_path / "tokenizer.json"))
    found = batches(task, 7)
    ids = [*torch.cat([x.inputs for x in found], 1)[0].tolist(), int(found[-1].targets[0, -1])]
    assert task.decode(ids) == text + b"end" and len(ids) < len(text)
    with pytest.raises(SourceError, match="more than 65536 bytes"):
        task.take(b"x" * (BLOCK + 1), last=False)


def test_what_a_pipe_holds_is_seen():
    assert opened(table()).said == "the pipe holds series"
    for text in (
        b"one line",
        b"a,b\nc,d\n",
        b"dear all,\n1,2\n",
        b"\xff\xfe,1\n2,3\n",
        b"1 2\n3 4\n",
        b"Chapter 1\n1\n",
        b"a;b\n1,5;c\n",
    ):
        assert opened(text).said == "the pipe holds text"
    quoted, missing, blank = b'"t, a, b";x;y\n0;1;2\n', b"t,x,y\n0,,1\n", b"\n\nt,x\n0,1\n"
    for start in (
        quoted,
        missing,
        blank,
        b"t;x\n0;1\n",
        b"\xef\xbb\xbft\tx\n2020-01-01\t1\n",
        b"x,ds\n4,2020-01-01\n",
        b"t|x\n0|1\n",
    ):
        assert opened(start).head == "forecaster"
    assert opened(b"t|x\n0|1\n").head == "forecaster"
    assert opened(table(), format="text").head == "language_model"


def test_what_is_held_does_not_grow():
    out, into = os.pipe()
    os.write(into, b"x\nx\n")
    task = open_pipe(descriptor=out)
    for _ in range(200):
        os.write(into, b"y" * 1000)
        task.batch("train", 0, 1, 1000, 0)
        assert task.held < 1100 and len(task.before) <= 128
    os.close(into)


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([b""], "the pipe is empty: pipe a text or a table in"),
        ([b"1,2\n2,3\n"], "the pipe begins with 1, which names no column: begin with a header"),
        ([b"t,x\n1,2\n2,n/a\n"], "the pipe has no value in column x, row 2"),
        ([b"t,x\n1,2\n", b"2,3\n3,4,5\n"], "2 columns .t, x. but 3 values in row 3"),
        ([b"t,x\n1,2\n", b"2,3\nnow,4\n"], "'now' in column t, row 3"),
        ([b"t,x\n1,2\n2,3\n2,4\n"], "the time 2 in row 3, after 2: rows must come in order"),
        ([b"t,x,x\n1,2,3\n"], "two columns 'x'"),
        ([b"unique_id,ds,y\na,1,2\n"], "the pipe has a column unique_id"),
        ([b"t,x\n1,2\n\xff\xff,3\n"], "no table in UTF-8"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(pieces, said):
    with pytest.raises(SourceError, match=said):
        batches(opened(*pieces, **({} if pieces == [b""] else {"format": "csv"})), 8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"t;x\n1;2,5\n2;3,5\n", "has '2,5' in column x, row 1: that is not a number: write 2.5"),
        (b"t\tx\ty\n2020-01-01\t1\t\n2020-01-02\t-2,5\t1\n", "no value in column y, row 1"),
        (b"t|x\n1|2,5\n", "write 2.5"),
        (b"sine\n0.5\n0.7\n", "one column only.*as in t,x; text .* --task format=text"),
        (b"1\n2\n3\n", "one column only"),
    ],
)
def test_a_table_that_is_not_one_of_ours_is_refused_and_not_learned_from_as_text(text, said):
    with pytest.raises(SourceError, match=said):
        batches(opened(text), 8)
    assert opened(text, format="text").batch("train", 0, 1, 5, 0).inputs.shape == (1, 5)


def test_rows_are_counted_from_where_the_pipe_begins():
    task = opened(table(20) + b"20,x,0\n", horizon=2)
    with pytest.raises(SourceError, match="'x' in column one, row 21"):
        batches(task, 64)


def test_what_cannot_be_read_or_asked_for():
    with pytest.raises(SourceError, match="the pipe is closed"):
        open_pipe(descriptor=99)
    leader, terminal = os.openpty()
    with pytest.raises(SourceError, match="the input is a terminal"):
        open_pipe(descriptor=terminal)
    os.close(leader), os.close(terminal)
    with pytest.raises(SourceError, match="format is 'json': a pipe holds text or csv"):
        opened(b"x", format="json")
    with pytest.raises(SourceError, match="the pipe holds text, which has no keyword horizon"):
        opened(b"x", horizon=3)
    with pytest.raises(SourceError, match="no keyword horizen; it has horizon, quantiles"):
        opened(table(), horizon=3, horizen=3)
    with pytest.raises(SourceError, match="no 2 rows"):
        opened(b"xyz").batch("train", 0, 2, 1, 0)
    with pytest.raises(SourceError, match="learns from text"):
        opened(table()).restore(opened(b"x").kept())
    with pytest.raises(SourceError, match="learns from a table"):
        opened(b"x").restore(opened(table()).kept())
    assert "-" not in TASKS


def test_waiting_ends_when_asked():
    out, into = os.pipe()
    os.write(into, b"a\nb\n")
    task = open_pipe(descriptor=out)
    asked = []
    task.asked = lambda: asked.append(1) or len(asked) == 2
    with pytest.raises(Dry):
        task.batch("train", 0, 1, 8, 0)
    assert len(asked) == 2 and not task.ended and task.held == 4
    os.close(into)
    assert batches(task, 8)[0].inputs.shape == (1, 3)


def test_a_line_whose_writer_was_stopped_too_is_not_whole():
    task = opened(table(20) + b"20,1", horizon=2)
    task.asked = lambda: True
    with pytest.raises(Dry):
        task.batch("train", 0, 1, 64, 0)
    assert task.held == 20 and not task.ended and "20,1" not in str(task.kept())


def test_the_source_is_standard_input(monkeypatch):
    out, into = os.pipe()
    os.write(into, b"some text\n")
    os.close(into)
    with os.fdopen(out) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert len(batches(open_source("-"), 4)) == 3
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(SourceError, match="the pipe is closed"):
        open_source("-")
