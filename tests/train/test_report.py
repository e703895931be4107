"""The page holds what the files say, escaped, and fetches nothing."""

import json
import math
import re
from html.parser import HTMLParser

import pytest

from recurra.train.errors import RunError
from recurra.train.report import report

HOSTILE = "</script><script>alert(1)</script><b>&"


def write_run(folder, pattern, *, seed=0, level=2.0, ended=True, sample="def main():", steps=100):
    """The files that a run leaves."""
    folder.mkdir(parents=True)
    training = {"source": "stdlib", "seed": seed, "steps": steps}
    config = {"model_type": "recurra", "training": training, "task": {"task": "text"}, "model": {"pattern": pattern}}
    (folder / "config.json").write_text(json.dumps(config))
    lines = []
    for step in range(1, steps + 1):
        at = {"step": step, "tokens": 4096 * step, "seconds": 0.1 * step * level}
        loss = level * math.log(2) + 3 * math.exp(-step / 20) + 0.05 * math.sin(7 * step)
        lines.append({**at, "loss": loss, "grad_norm": 1.0, "lr": 1e-3, "tokens_per_second": 4e4 / level})
        if step % 10 == 0:
            lines.append({**at, "held_out": level + 4 * math.exp(-step / 20), "measure": "bits per byte"})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    result = {
        "score": level, "measure": "bits per byte", "lower_is_better": True, "chance": 8.0, "parameters": 600_000,
        "state_bytes": 4096, "grows": False, "steps": steps, "tokens": 4096 * steps, "seconds": 10.0,
        "tokens_per_second": 4e4, "prompt": "import os\n", "sample": sample,
    }  # fmt: skip
    if ended:
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def row(mixer, score, state_bytes, speed, grows=False, scores=None):
    scores = scores or [score]
    return {
        "mixer": mixer, "parameters": 600_000, "score_mean": score, "score_spread": max(scores) - min(scores),
        "scores": scores, "measure": "bits per byte", "lower_is_better": True, "run": f"{mixer}-0",
        "state_bytes": state_bytes, "grows": grows, "prompt": "p",
        "tokens_per_second": speed, "step_microseconds": 350.0, "seconds": 61.5, "sample": "x", "chance": 8.0,
    }  # fmt: skip


def write_comparison(folder):
    """Four mixers, two seeds each, with the corpus' reference lines."""
    levels = {"gated_deltanet": 1.85, "mamba2": 1.9, "minmax": 2.1, "lstm": 2.2}
    folder.mkdir()
    (folder / "compare.json").write_text("{}")
    for mixer, level in levels.items():
        for seed in (0, 1):
            write_run(folder / f"{mixer}-{seed}", mixer, seed=seed, level=level + 0.02 * seed, sample=f"{mixer} writes")
    sizes = {"lstm": 3072, "mamba2": 140_000, "gated_deltanet": 98_304, "minmax": 1536}
    rows = [row(m, x, sizes[m], 60_000 / x, scores=[x, x + 0.02]) for m, x in levels.items()]
    (folder / "table.json").write_text(json.dumps(rows))
    references = {"order 0": 4.73, "order 1": 3.41, "order 2": 2.52, "order 3": 1.94, "xz": 2.05}
    (folder / "reference.json").write_text(json.dumps(references))
    return folder


class Page(HTMLParser):
    """What a browser would see: the tags with their attributes, and the text outside scripts."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words, self.figures, self.script = [], [], [], None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.script = dict(attrs).get("id", "code") if tag == "script" else None

    def handle_endtag(self, tag):
        self.script = None

    def handle_data(self, data):
        if self.script == "figures":
            self.figures = json.loads(data)
        elif self.script is None:
            self.words.append(data)


def test_a_comparison_has_its_table_its_curves_and_its_samples(tmp_path):
    page = Page(report(write_comparison(tmp_path / "c")))
    text = " ".join(page.words)
    for word in ("gated_deltanet", "1.850 ± 0.020", "140,000", "minmax writes", "lower is better"):
        assert word in text
    titles = [x["title"] for x in page.figures]
    assert titles == [
        "Held-out bits per byte against tokens", "Held-out bits per byte against seconds",
        "Training loss against tokens", "Training loss against seconds", "Speed against state size",
    ]  # fmt: skip
    held_out, _, loss, _, speed = page.figures
    assert len(held_out["series"]) == 8 and {x["name"] for x in held_out["lines"]} == {
        f"order {i}" for i in range(4)
    } | {"xz"}
    assert len({(x["name"], x["group"]) for x in held_out["series"]}) == 4
    assert sum(x["first"] for x in held_out["series"]) == 4, "the legend names each mixer once"
    assert speed["log"] and speed["fromZero"] and len(speed["series"]) == 4
    assert loss["y"] == "loss, nats" and not any(x["dashed"] for x in loss["series"])
    colour = {x["name"]: x["group"] for x in held_out["series"]}
    assert all(colour[x["name"]] == x["group"] for x in speed["series"]), "a mixer keeps its colour"
    assert loss["series"][0]["x"][-1] == 409_600


def test_states_of_one_size_are_not_drawn_and_a_forecasters_loss_is_no_surprise(tmp_path):
    folder = write_comparison(tmp_path / "c")
    rows = json.loads((folder / "table.json").read_text())
    (folder / "table.json").write_text(json.dumps([{**row, "state_bytes": 32} for row in rows]))
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        config["model"] = {**config.get("model", {}), "name": "forecaster"}
        path.write_text(json.dumps(config))
    figures = {x["title"]: x for x in Page(report(folder)).figures}
    assert "Speed against state size" not in figures and figures["Training loss against tokens"]["y"] == "loss"


def test_what_a_rule_keeps_is_drawn_against_what_it_reached(tmp_path):
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "compare.json").write_text("{}")
    for seed, kept in enumerate((512, 640)):
        run = write_run(folder / f"lstm-{seed}", "lstm", seed=seed, level=2.0 + seed)
        config = json.loads((run / "config.json").read_text())
        config["training"]["rule"] = "rtrl"
        (run / "config.json").write_text(json.dumps(config))
        said = {"step": 1, "tokens": 4096, "seconds": 0.1, "rule": "rtrl", "memory_bytes": kept}
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(said) + "\n")
    figures = Page(report(folder)).figures
    (figure,) = [x for x in figures if "memory" in x["title"]]
    assert figure["log"] and all(x["dashed"] for y in figures for x in y["series"] if x["mode"] == "lines")
    assert [x["x"] for x in figure["series"]] == [[512], [640]] and figure["x"] == "bytes kept for credit"
    reached = [x["y"][0] for x in figure["series"]]
    assert reached == pytest.approx([2 + 4 * math.exp(-5), 3 + 4 * math.exp(-5)], rel=1e-4)
    assert [x["first"] for x in figure["series"]] == [True, False]
    assert {x["name"] for x in figure["series"]} == {"lstm by rtrl"}


def test_the_best_row_is_first_and_marked(tmp_path):
    text = report(write_comparison(tmp_path / "c")).read_text()
    body = text[text.index("<tbody>") : text.index("</tbody>")]
    assert re.findall(r"<tr[^>]*><td>(\w+)", body) == ["gated_deltanet", "mamba2", "minmax", "lstm"]
    assert body.count("class=best") == 1 and body.index("class=best") < body.index("gated_deltanet")


def test_nothing_is_fetched(tmp_path):
    page = Page(report(write_comparison(tmp_path / "c")))
    assert not [x for x in page.tags if x[1].keys() & {"src", "href"}]
    (policy,) = [x["content"] for t, x in page.tags if t == "meta" and x.get("http-equiv")]
    assert "default-src 'none'" in policy


def test_what_comes_from_files_is_escaped(tmp_path):
    folder = write_run(tmp_path / "run", "lstm", sample=HOSTILE)
    (folder / "reference.json").write_text(json.dumps({HOSTILE: 3.0}))
    clean = Page(report(write_run(tmp_path / "clean", "lstm")))
    page = Page(report(folder))
    assert [t for t, _ in page.tags] == [t for t, _ in clean.tags]
    assert HOSTILE in "".join(page.words)
    assert page.figures[0]["lines"][0]["name"] == "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;b&gt;&amp;"


def test_a_run_that_goes_on_has_a_page_too(tmp_path):
    page = Page(report(write_run(tmp_path / "run", "lstm", ended=False)))
    assert "not ended yet" in " ".join(page.words) and len(page.figures) == 4


def test_a_run_that_has_measured_nothing_has_a_page_too(tmp_path):
    folder = write_run(tmp_path / "run", "lstm", ended=False)
    (folder / "metrics.jsonl").write_text("")
    page = Page(report(folder))
    assert "Nothing was measured yet" in " ".join(page.words) and page.figures == []


def test_long_curves_are_thinned_and_keep_their_end(tmp_path):
    page = Page(report(write_run(tmp_path / "run", "lstm", steps=5000)))
    (series,) = page.figures[2]["series"]
    assert len(series["x"]) <= 402 and series["x"][-1] == 5000 * 4096


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(RunError, match="holds no run and no comparison"):
        report(tmp_path)
    folder = write_run(tmp_path / "run", "lstm")
    (folder / "result.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        report(folder)
