"""Text: what is read, how it is divided, what a batch is, and that a score is bits over bytes whatever the tokens."""

import errno
import math
import os
import sys

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given, settings, strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from recurra.tasks import SourceError, make, open_source
from recurra.tasks.codec import Codec
from recurra.tasks.corpus import documents, is_text
from recurra.tasks.text import Text, codec


def a_tokenizer(path, prefix=False):
    """A small byte-level one, with a token of its own for the end of a text."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the state of a document, and a document 123\n"] * 9, trainer)
    tokenizer.save(str(path))
    return str(path)


@pytest.fixture
def folder(tmp_path):
    top = tmp_path / "texts"
    (top / "inner").mkdir(parents=True)
    for i in range(40):
        where = top / "inner" if i % 2 else top
        (where / f"{i}.txt").write_bytes(bytes([65 + i % 26]) + f" document {i}\n".encode() * (3 + i))
    (top / ".hidden").write_text("not for anyone")
    (top / "image.png").write_bytes(bytes(range(256)))
    (top / "empty.txt").touch()
    return top


@pytest.fixture
def one(tmp_path):
    path = tmp_path / "one.txt"
    path.write_bytes(np.random.default_rng(0).integers(97, 123, 5000, dtype=np.uint8).tobytes())
    return path


def all_of(folder):
    """The bytes of every document, and which split it must be in whole."""
    return {d.name: d.data.tobytes() for d in documents(str(folder))}


def test_a_single_file_holds_out_its_tail(one):
    task = Text(str(one))
    assert task.contents("train") + task.contents("test") == one.read_bytes()
    assert len(task.contents("test")) == 500
    assert len(Text(str(one), held_out=0.3).contents("test")) == 1500


def test_a_single_file_stays_on_the_disk(one):
    task = Text(str(one))
    assert isinstance(task.streams["train"].tokens, np.memmap)


def test_a_folder_holds_out_files_and_leaves_out_what_is_no_text(folder):
    task, whole = Text(str(folder)), all_of(folder)
    assert len(whole) == 40 and list(whole) == [d.name for d in documents(str(folder))]
    train, test = task.contents("train"), task.contents("test")
    assert test and len(train) + len(test) == sum(map(len, whole.values()))
    for data in whole.values():
        assert (data in train) != (data in test)


def test_a_file_stays_on_its_side_when_others_come(folder):
    before = Text(str(folder)).contents("test")
    (folder / "another.md").write_text("z" * 100)
    after = Text(str(folder)).contents("test").replace(b"z" * 100, b"")
    assert after == before


def test_two_files_are_one_on_each_side(tmp_path):
    for names in (("a", "b"), ("c.txt", "d.txt"), ("1", "2")):
        top = tmp_path / names[0]
        top.mkdir()
        for name in names:
            (top / name).write_text(name * 50)
        for held_out in (0.001, 0.5, 0.999):
            task = Text(str(top), held_out=held_out)
            assert sorted([task.contents("train"), task.contents("test")]) == [(n * 50).encode() for n in sorted(names)]


def test_the_standard_library_is_the_same_at_every_call():
    task, again = Text("stdlib"), make({"task": "text", "source": "stdlib"})
    assert task.config["source"] == "stdlib"
    for split in ("train", "test"):
        assert task.contents(split) == again.contents(split)
    names = [d.name for d in documents("stdlib")]
    assert names == sorted(names, key=lambda n: _walk_order(n)) and "asyncio/base_events.py" in names
    assert not any(part in ("test", "tests", "site-packages") for n in names for part in n.split("/"))
    assert 2e6 < len(task.contents("train")) < 3e7
    assert 0.03 < len(task.contents("test")) / len(task.contents("train")) < 0.25


def _walk_order(name):
    """Files of a folder before the folders in it."""
    *folders, file = name.split("/")
    return [(1, f) for f in folders] + [(0, file)]


@settings(max_examples=30, deadline=None)
@given(
    index=st.integers(0, 10**6),
    size=st.integers(1, 9),
    length=st.integers(1, 300),
    seed=st.integers(0, 2**40),
    carried=st.booleans(),
    split=st.sampled_from(["train", "test"]),
)
def test_a_batch_is_a_function_of_its_number(tmp_path_factory, index, size, length, seed, carried, split):
    path = tmp_path_factory.getbasetemp() / "pure.txt"
    path.write_bytes(np.random.default_rng(1).integers(97, 123, 5000, dtype=np.uint8).tobytes())
    task = Text(str(path))
    task.batch("train", 9, 2, 10, 1)
    batch, again = (t.batch(split, index, size, length, seed, carried) for t in (task, Text(str(path))))
    for a, b in zip(batch, again, strict=True):
        assert a is b is None or torch.equal(a, b)
    assert batch.inputs.shape == batch.targets.shape == (size, length) and batch.inputs.dtype == torch.int64
    contents = task.contents(split)
    if not carried:
        for row, target in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
            assert bytes([*row, target[-1]]) in contents and row[1:] == target[:-1]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("size", [1, 3])
def test_carried_rows_continue_and_go_round_everything(folder, split, size):
    task = Text(str(folder))
    contents = task.contents(split)
    batches = [task.batch(split, i, size, 37, 5, carried=True) for i in range(2 * len(contents) // (37 * size) + 2)]
    inputs = torch.cat([b.inputs for b in batches], 1)
    targets = torch.cat([b.targets for b in batches], 1)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    steps = inputs.shape[1]
    for row in inputs.tolist():
        assert bytes(row) in contents * (2 + steps // len(contents))
    if size == 1:
        assert steps > len(contents)


def test_carried_rows_begin_anew_where_documents_do(folder):
    task = Text(str(folder))
    starts = {d[:13] for d in all_of(folder).values()}
    none = torch.zeros(2, 37, dtype=torch.bool)
    batches = [task.batch("train", i, 2, 37, 0, carried=True) for i in range(200)]
    inputs = torch.cat([b.inputs for b in batches], 1)
    resets = torch.cat([none if b.reset is None else b.reset for b in batches], 1)
    scored = torch.cat([~none if b.scored is None else b.scored for b in batches], 1)
    assert resets.any() and not all(b.reset is not None for b in batches)
    # the first token of a document is never asked for
    assert torch.equal(scored[:, :-1], ~resets[:, 1:])
    for row, begins in zip(inputs.tolist(), resets.tolist(), strict=True):
        places = [t for t in range(len(row) - 13) if begins[t]]
        assert all(bytes(row[t : t + 13]) in starts for t in places)
        assert sum(bytes(row[t : t + 13]) in starts for t in range(len(row) - 13)) == len(places)


def test_test_windows_do_not_overlap_and_cover_everything(one):
    task = Text(str(one))
    windows = [task.batch("test", i, 4, 31, seed).inputs for seed in (0,) for i in range(4)]
    rows = {bytes(row) for batch in windows for row in batch.tolist()}
    assert len(rows) == 16 == (500 - 1) // 31
    contents = task.contents("test")
    assert rows == {contents[i * 31 : i * 31 + 31] for i in range(16)}
    assert torch.equal(task.batch("test", 2, 4, 31, 7).inputs, windows[2])


def test_chance_and_score_are_bits_per_byte(one):
    task = Text(str(one))
    batch = task.batch("test", 0, 4, 50, 0)
    total, count = task.score(torch.zeros(4, 50, 256), batch)
    assert count == 200
    assert total / count == pytest.approx(8.0, abs=1e-5)
    assert task.chance == 8.0
    # a quarter of the probability on every target: two bits
    outputs = torch.full((4, 50, 256), 0.75 / 255).scatter(2, batch.targets[..., None], 0.25).log()
    total, count = task.score(outputs, batch)
    assert total / count == pytest.approx(2.0, abs=1e-5)
    assert float(task.loss(outputs, batch)) == pytest.approx(math.log(4), abs=1e-5)
    some = batch._replace(scored=torch.arange(50).expand(4, 50) < 10)
    assert task.score(outputs, some)[1] == 40


def test_a_batch_with_nothing_scored_has_a_loss_of_zero(one):
    task = Text(str(one))
    batch = task.batch("train", 0, 1, 1, 0)._replace(scored=torch.zeros(1, 1, dtype=torch.bool))
    outputs = torch.randn(1, 1, 256, requires_grad=True)
    task.loss(outputs, batch).backward()
    assert task.score(outputs, batch) == (0.0, 0.0) and not outputs.grad.any()


def test_outputs_of_half_precision_are_scored_in_single(one):
    task = Text(str(one))
    batch = task.batch("test", 0, 4, 50, 0)
    outputs = torch.randn(4, 50, 256).bfloat16()
    assert task.loss(outputs, batch).dtype == torch.float32
    assert task.score(outputs, batch) == task.score(outputs.float(), batch)


def test_bytes_are_encoded_as_themselves():
    one = Codec()
    assert one.vocabulary == 256 and (one.bytes_of_token == 1).all()
    assert one.encode("aé") == [97, 0xC3, 0xA9] and one.encode(b"\xff") == [255]
    assert one.decode([97, 255]) == b"a\xff" and one.decode(torch.tensor([[97, 98]])) == b"ab"


@given(text=st.text())
@settings(deadline=None)
def test_a_tokenizer_keeps_every_byte(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "tokenizer.json"
    one = Codec(str(path) if path.exists() else a_tokenizer(path))
    data = text.encode("utf-8", "replace")
    ids = one.encode(data)
    assert one.decode(ids) == data
    assert int(one.bytes_of_token[ids].sum()) == len(data)


def test_a_tokenizer_is_measured_in_bytes(folder, tmp_path):
    task = Text(str(folder), tokenizer=a_tokenizer(tmp_path / "t.json"))
    assert task.model_arguments() == {"vocabulary": task.codec.vocabulary} and task.codec.vocabulary > 256
    plain = Text(str(folder))
    for split in ("train", "test"):
        assert task.contents(split) == plain.contents(split)
        assert len(task.streams[split].tokens) < len(plain.contents(split))
    batch = task.batch("test", 0, 2, 16, 0)
    bits, count = task.score(torch.zeros(2, 16, task.codec.vocabulary), batch)
    assert count == len(task.decode(batch.targets))
    assert bits == pytest.approx(32 * math.log2(task.codec.vocabulary), rel=1e-5)
    tokens = len(task.streams["test"].tokens)
    assert task.chance == math.log2(task.codec.vocabulary) * tokens / len(plain.contents("test"))
    assert task.encode("<|end|>a<|end|>") == [0, *task.encode("a"), 0]


def test_the_codec_needs_no_corpus(folder, tmp_path):
    task = Text(str(folder), tokenizer=a_tokenizer(tmp_path / "t.json"))
    config = {**task.config, "source": "/gone"}
    assert codec(config).encode("the state") == task.encode("the state")
    assert codec({"task": "text", "source": "/gone"}).vocabulary == 256


def test_a_tokenizer_that_spells_bytes_and_blanks(tmp_path):
    known = {"<0x0A>": 0, "▁": 1, "a": 2, "▁a": 3, "é": 4, "<0xFF>": 5}
    tokenizer = tokenizers.Tokenizer(models.BPE(known, [("▁", "a")], byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.save(str(tmp_path / "t.json"))
    one = Codec(str(tmp_path / "t.json"))
    assert one.encode("a a\né a") == [2, 3, 0, 4, 3]
    assert one.bytes_of_token.tolist() == [1, 1, 1, 2, 2, 1]
    with pytest.raises(SourceError, match="changes the text"):
        one.encode("ab")


def test_a_tokenizer_that_changes_the_text_is_refused(folder, tmp_path):
    with pytest.raises(SourceError, match=r"changes the text .* adds no blank in front"):
        Text(str(folder), tokenizer=a_tokenizer(tmp_path / "t.json", prefix=True))


def test_wrong_tokenizers_are_refused_in_one_sentence(one, tmp_path, monkeypatch):
    with pytest.raises(SourceError, match=r"tokenizer .*/none\.json does not exist"):
        Text(str(one), tokenizer=str(tmp_path / "none.json"))
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(SourceError, match=r"bad\.json is no tokenizer"):
        Text(str(one), tokenizer=str(tmp_path / "bad.json"))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(SourceError, match=r"pip install 'recurra\[text\]'"):
        Text(str(one), tokenizer=str(tmp_path / "bad.json"))


def test_configurations_are_absolute_and_make_the_task_again(one, tmp_path, monkeypatch):
    monkeypatch.chdir(one.parent)
    task = open_source("one.txt", held_out=0.2)
    assert task.config == {"task": "text", "source": str(one), "tokenizer": None, "held_out": 0.2}
    monkeypatch.chdir("/")
    assert make(task.config).contents("test") == task.contents("test")


def test_open_source_knows_what_a_source_is(one, folder, tmp_path, monkeypatch):
    table = tmp_path / "a.CSV"
    table.write_text("ds,y\n" + "".join(f"{i},{i % 7}\n" for i in range(99)))
    kinds = {"parity": "parity", one: "text", folder: "text", table: "series", str(table): "series"}
    for source, kind in kinds.items():
        assert open_source(source).config["task"] == kind
    assert open_source("copying", items=3).config["items"] == 3
    monkeypatch.chdir(one.parent)
    (one.parent / "parity").write_text("a file of this name" * 9)
    assert open_source("parity").config["task"] == "parity"
    assert open_source("./parity").config["task"] == "text"


@pytest.mark.parametrize(
    ("make_source", "said"),
    [
        (lambda p: p / "missing.txt", r"missing\.txt does not exist: give a text file or folder"),
        (lambda p: "paritty", r"paritty does not exist \(did you mean parity\?\)"),
        (lambda p: _file(p, b""), "is empty: give a file with text in it"),
        (lambda p: _file(p, b"text\0text"), "is not text"),
        (lambda p: _file(p, bytes(range(128, 256)) * 9), "is not text"),
        (lambda p: _file(p, "UTF-16 has zeros".encode("utf-16")), "is not text"),
        (lambda p: _folder(p), "has no text files in it"),
        (lambda p: _folder(p, b""), "has no text files in it"),
        (lambda p: _folder(p, bytes(range(256))), "has no text files in it"),
        (lambda p: _file(p, b"abc"), "is too short: it leaves 0 tokens to test on"),
    ],
)
def test_bad_sources_are_refused_in_one_sentence(tmp_path, make_source, said):
    with pytest.raises(SourceError, match=said) as caught:
        open_source(make_source(tmp_path))
    assert "\n" not in str(caught.value)


def _file(top, data):
    (top / "file.txt").write_bytes(data)
    return top / "file.txt"


def _folder(top, data=None):
    (top / "folder" / "inner").mkdir(parents=True)
    if data is not None:
        (top / "folder" / "inner" / "file").write_bytes(data)
    return top / "folder"


def test_a_text_shorter_than_a_row_is_refused(one):
    task = Text(str(one))
    assert task.batch("test", 0, 2, 499, 0).inputs.shape == (2, 499)
    with pytest.raises(SourceError, match="500 tokens to test on, and 500 steps take 501"):
        task.batch("test", 0, 2, 500, 0)
    with pytest.raises(SourceError, match="held_out is 1"):
        Text(str(one), held_out=1.0)
    with pytest.raises(SourceError, match=r"no keyword 'heldout' \(did you mean held_out\?\)"):
        open_source(one, heldout=0.2)


def test_a_pipe_is_no_source(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="is no file"):
        open_source(tmp_path / "pipe")


def test_latin_text_is_text_and_noise_is_not():
    assert is_text(np.frombuffer("Träume süß".encode("latin-1") * 9, np.uint8))
    assert not is_text(np.random.default_rng(0).integers(1, 256, 4000, dtype=np.uint8))


def test_what_may_not_be_read_is_named_and_not_left_out(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    (tmp_path / "one.txt").write_text("text " * 50)
    walk = os.walk

    def locked(top, onerror):
        yield from walk(top, onerror=onerror)
        onerror(PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "inner")))

    monkeypatch.setattr(os, "walk", locked)
    with pytest.raises(SourceError, match=r"inner cannot be read \(Permission denied\)"):
        make({"task": "text", "source": str(tmp_path)})
