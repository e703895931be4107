"""The benchmark measures what it says, and gives no number for a mixer whose numbers are red."""

import importlib.util
import json
import pathlib
import subprocess
import sys
import time
import types

import pytest
import torch
from torch import nn

from benchmarks import bench
from benchmarks.contender import OURS, Failed, Workbench, red
from benchmarks.peers import BASELINE, PEERS, Peer
from benchmarks.sizes import GROWTH, Size, size
from recurra import MIXERS
from recurra.mixers import Mixer
from recurra.ops import Diag, diag
from recurra.ops.scan import IMPLEMENTATIONS

ROOT = pathlib.Path(__file__).parents[1]
TINY = "2x32x8"


class Here(Workbench):
    """A contender in this process."""

    def ask(self, method, *arguments, limit=0):
        return getattr(self, method)(*arguments)

    def close(self):
        pass


class Forgetful(Mixer):
    """A running sum that starts again with every piece."""

    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def initial_state(self, batch):
        return self.zeros(batch, 1)

    def mix(self, x, state, clock):
        return (self.scale * x).cumsum(1), state


def measured(mixer, sizes, say=lambda line: None, budget=0.05):
    return bench.one(mixer, sizes, list(PEERS.get(mixer, ())), budget, 1, say, Here)


def table():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wrong(monkeypatch):
    """A diagonal scan that is wrong in the third digit, before all others."""
    module = types.ModuleType("somewhere.wrong")

    def scan(record, state):
        read, last = diag.loop.scan(record, state)
        return read * 1.001, last

    module.scan, module.declines = scan, lambda record, state: None
    monkeypatch.setitem(IMPLEMENTATIONS, Diag, (module, diag.loop))


def test_a_red_mixer_gets_no_number(wrong):
    lines = []
    entry = measured("mingru", [TINY, GROWTH], lines.append)
    assert set(entry) == {"red"} and "is off the loop by" in entry["red"]
    assert len(lines) == 1 and "no number is given" in lines[0]
    assert table()._bench_row(entry)[1:] == [""] * 8


def test_a_width_at_which_there_is_no_memory_to_compare_is_refused_and_not_red():
    class Large(Here):
        def ask(self, method, *arguments, limit=0):
            if method == "red" and self.contender.size.width == 16:
                raise Failed("out of memory")
            return super().ask(method, *arguments)

    entry = bench.one("elman", [TINY, "2x32x16", GROWTH], [], 0.05, 1, lambda line: None, Large)
    wide = entry["sizes"]["2x32x16"]
    assert "red" not in entry and set(wide) == {"size", "peak", "refused"}
    assert wide["refused"] == {OURS: "not checked: out of memory"} and "train" in entry["sizes"][TINY]
    entry["sizes"]["small"] = wide
    assert table()._bench_row(entry)[0] == "not checked: out of memory"


def test_a_mixer_that_forgets_between_pieces_is_red():
    assert "cut in two" in red(Forgetful(8), 8)


@pytest.mark.parametrize("name", ["lstm", "gla", "attention"])
def test_a_right_mixer_is_not_red(name):
    assert red(MIXERS[name](16), 16) is None


def test_every_part_has_a_time_and_a_ratio_with_its_spread(monkeypatch):
    monkeypatch.setattr(bench, "LENGTHS", (1024, 2048))
    # time enough for both lengths, however busy the machine
    entry = measured("gru", [TINY, "1x64x8", GROWTH], budget=1)
    for part in bench.PARTS:
        row = entry["sizes"][TINY][part]
        assert set(row["seconds"]) == {OURS, "nn.LSTM", "nn.GRU"} and set(row["ratio"]) == {"nn.LSTM", "nn.GRU"}
        for said in (*row["seconds"].values(), *row["ratio"].values()):
            assert 0 < said["low"] <= said["median"] <= said["high"] and said["samples"] > 0
    assert set(entry["sizes"][TINY]["peak"]) == {OURS, "nn.LSTM", "nn.GRU"}
    # a step knows no length: once for each width
    assert "step" not in entry["sizes"]["1x64x8"] and "train" in entry["sizes"]["1x64x8"]
    assert list(entry["growth"]["ratio"]) == ["1024", "2048"]
    json.dumps(entry, allow_nan=False)


class Slow:
    def __init__(self, seconds, fails=False):
        self.seconds, self.fails, self.asked = seconds, fails, 0

    def ask(self, part, limit):
        self.asked += 1
        time.sleep(self.seconds)
        if self.fails:
            raise Failed("not finished in 1 s")
        return self.seconds


def test_contenders_run_in_turn_until_their_share_is_spent():
    workers = {OURS: Slow(0.001), "slow": Slow(0.05), "fails": Slow(0, fails=True), "known": Slow(9)}
    done = bench.race(workers, "train", 0.2, {"known": 9.0}, 1)
    # a share is one run of the slow one: it is run a few times none the less
    assert workers["slow"].asked == bench.LEAST < workers[OURS].asked and workers["fails"].asked == 1
    # one run took more than all are meant to: it is not run again
    assert workers["known"].asked == 0 and done["times"]["known"] == [9.0]
    assert done["refused"] == {"fails": "not finished in 1 s"} and "fails" not in done["times"]
    assert bench.ratios({OURS: [1.0, 2.0, 2.0], "slow": [3.0, 4.0]})["slow"]["median"] == 2.0


def test_a_peer_that_was_too_slow_is_not_tried_again():
    asked = []

    class Late(Here):
        def __init__(self, contender):
            asked.append((contender.label, str(contender.size)))
            super().__init__(contender)

        def ask(self, method, *arguments, limit=0):
            if self.contender.label == "nn.GRU":
                raise Failed("not finished in 1 s")
            return super().ask(method, *arguments)

    entry = bench.one("gru", [TINY, "2x64x8"], list(PEERS["gru"]), 0.05, 1, lambda line: None, Late)
    assert sum(label == "nn.GRU" for label, _ in asked) == 1
    assert entry["sizes"]["2x64x8"]["refused"] == {"nn.GRU": f"not tried: not finished in 1 s at {TINY}"}
    assert "nn.LSTM" in entry["sizes"]["2x64x8"]["train"]["ratio"]


def test_what_is_not_installed_is_listed_and_ctrl_c_keeps_what_was_measured(monkeypatch, tmp_path, capsys):
    def one(name, *rest):
        if name == "gru":
            raise KeyboardInterrupt
        return {"sizes": {}}

    monkeypatch.setattr(Peer, "version", lambda peer: None)
    monkeypatch.setattr(bench, "one", one)
    path = tmp_path / "bench.json"
    assert bench.main(["--only", "elman,gru", "--threads", "1", "--output", str(path)]) == 130
    stored = json.loads(path.read_text())
    assert set(stored["mixers"]) == {"elman"} and stored["peers"]["mambapy"] is None
    assert "peer mambapy: not installed" in capsys.readouterr().out
    # a later run of one mixer keeps the others
    assert bench.main(["--only", "lstm", "--threads", "1", "--output", str(path)]) == 0
    assert set(json.loads(path.read_text())["mixers"]) == {"elman", "lstm"}


@pytest.mark.parametrize("peer", [BASELINE, *PEERS["elman"], *PEERS["gru"]], ids=lambda peer: peer.name)
def test_a_step_of_a_peer_is_its_sequence(peer):
    layer, x, state = peer.build(8, 5, {}), torch.randn(2, 5, 8), None
    whole = layer.sequence(x)
    for t in range(5):
        y, state = layer.step(x[:, t : t + 1], state)
        torch.testing.assert_close(y, whole[:, t : t + 1])


def test_sizes_are_names_or_written():
    assert size("long") == Size(1, 16384, 128) and size("2x32x8") == Size(2, 32, 8)
    with pytest.raises(ValueError, match="there is no size 'huge': give small"):
        size("huge")
    with pytest.raises(SystemExit, match="there is no mixer 'lstn'"):
        bench.main(["--only", "lstn"])


def test_it_runs_as_a_command(tmp_path):
    """In processes of its own, as `make bench` does; the README's block can be made of what it stores."""
    path = tmp_path / "bench.json"
    command = [sys.executable, "-m", "benchmarks.bench", "--only", "mingru", "--sizes", TINY, "--budget", "0.1"]
    command += ["--threads", "1", "--output", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr
    stored = json.loads(path.read_text())
    assert {"cpu", "threads", "torch", "compiler"} == set(stored["machine"])
    row = stored["mixers"]["mingru"]["sizes"][TINY]
    assert row["train"]["ratio"]["nn.LSTM"]["median"] > 0 and row["peak"][OURS] >= 0
    tables = table()
    stored["mixers"]["mingru"]["sizes"]["small"] = row
    (tmp_path / "bench.json").write_text(json.dumps(stored))
    tables.RESULTS = tmp_path
    shown = tables.bench().splitlines()
    heads = [i for i, x in enumerate(shown) if x.startswith(("| layer", "| mixer"))]
    # among the layers that others have too, where one of them is installed, and among all
    assert len(heads) == 1 + (len(row["train"]["ratio"]) > 1)
    for i in heads:
        assert shown[i + 2].startswith("| `mingru`") and shown[i + 2].count("|") == shown[i].count("|")


def test_sizes_that_were_not_measured_again_stay_and_a_red_mixer_keeps_none():
    before = {"sizes": {"small": 1, "medium": 2}, "growth": 3}
    assert bench.beside(before, {"sizes": {"medium": 4}}) == {"sizes": {"small": 1, "medium": 4}, "growth": 3}
    assert bench.beside(before, {"red": "wrong"}) == {"red": "wrong"}
