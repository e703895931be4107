"""From words to settings: only what was said changes anything."""

import pytest

from recurra.train import CompareConfig, Config, RunError
from recurra.train.given import comparison_settings, mixer_keywords, mixers, names, number, overlay, pairs, run_settings


@pytest.mark.parametrize(("text", "value"), [("600k", 600_000), ("1.5M", 1_500_000), ("10_000", 10_000), (" 7 ", 7)])
def test_numbers(text, value):
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "k", "-1", "6e5", "many", "1.2.3k"])
def test_what_is_no_number(text):
    with pytest.raises(RunError, match="is not a number"):
        number(text)


def test_pairs_are_json_or_text():
    assert pairs(["heads=8", "rate=0.5", "tied=true", "pool=last", "q=[0.1, 0.9]", "a=b=c"]) == {
        "heads": 8, "rate": 0.5, "tied": True, "pool": "last", "q": [0.1, 0.9], "a": "b=c",
    }  # fmt: skip
    for word in ("heads", "=8"):
        with pytest.raises(RunError, match="is not KEY=VALUE"):
            pairs([word])


def test_keywords_find_their_mixer():
    assert mixer_keywords(["gla*2"], {"heads": 8}) == {"gla": {"heads": 8}}
    assert mixer_keywords(["gla,lstm"], {"gla.heads": 8}) == {"gla": {"heads": 8}}
    with pytest.raises(RunError, match=r"write gla\.heads"):
        mixer_keywords(["gla", "lstm"], {"heads": 8})
    with pytest.raises(RunError, match="none of gla"):
        mixer_keywords(["gla"], {"lstm.heads": 8})


def test_overlay_says_nothing_of_what_was_not_given():
    base = {"a": 1, "b": {"c": 2, "d": 3}}
    assert overlay(base, {"a": None, "b": {"c": 5, "d": None}, "e": 0}) == {"a": 1, "b": {"c": 5, "d": 3}, "e": 0}
    assert base == {"a": 1, "b": {"c": 2, "d": 3}}


def test_a_run_takes_defaults_then_what_was_given():
    config = run_settings(
        {"source": "t", "steps": 5, "arguments": {"pattern": "gla", "width": None}}, ["heads=2"], None
    )
    assert config.source == "t" and config.steps == 5 and config.batch == Config(source="").batch
    assert config.arguments == {"pattern": "gla", "width": 192, "depth": 2, "mixers": {"gla": {"heads": 2}}}
    again = run_settings({"source": None, "steps": None, "arguments": {"pattern": None}}, [], config)
    assert again == config
    with pytest.raises(RunError, match="the source is missing"):
        run_settings({"source": None}, [], None)


def test_a_run_takes_a_published_size_then_what_was_given():
    options = {"source": "t", "arguments": {"pattern": None, "width": 384, "depth": None}}
    config = run_settings(options, [], None, "samba_421m")
    # the source says how many tokens there are
    assert config.arguments == {
        "pattern": "mamba,sliding_window", "width": 384, "depth": 12, "hidden": 4096,
        "mixers": {"sliding_window": {"heads": 12, "window": 2048}},
    }  # fmt: skip
    own = run_settings(options, ["sliding_window.window=64"], None, "samba_421m").arguments["mixers"]
    assert own == {"sliding_window": {"heads": 12, "window": 64}}
    assert run_settings(options, [], config, "samba_421m") == config
    with pytest.raises(RunError, match="no preset 'samba_1b', did you mean 'samba_1b3'"):
        run_settings(options, [], None, "samba_1b")


def test_a_comparison_takes_a_preset_then_what_was_given():
    config = comparison_settings({"source": "t", "training": {"steps": 5}}, {}, "demo", None)
    assert config.mixers == ("lstm", "mamba2", "gated_deltanet", "minmax") and config.training["steps"] == 5
    assert config.training["length"] > 0
    assert comparison_settings({"source": None, "mixers": None}, {}, None, config) == config
    words = {"mixers": ["gla.heads=2"]}
    plain = comparison_settings({"source": "t", "mixers": mixers("lstm, gla*2+attention")}, words, None, None)
    assert plain.mixers == ("lstm", "gla*2,attention") and plain.arguments["mixers"] == {"gla": {"heads": 2}}
    with pytest.raises(RunError, match=r"no preset 'demos', did you mean 'demo'\?; there are demo$"):
        comparison_settings({"source": "t"}, {}, "demos", None)
    assert plain.parameters == CompareConfig(source="t", mixers=("lstm",)).parameters


def test_a_comparison_takes_keywords_of_rules_and_masks():
    options = {"source": "t", "mixers": ["elman"], "rules": names("bptt, snap"), "masks": names("none,rigl")}
    words = {"rules": ["order=2"], "masks": ["rigl.density=0.5"]}
    config = comparison_settings(options, words, None, None)
    assert config.rules == ("bptt", "snap") and config.rule_arguments == {"snap": {"order": 2}}
    assert config.masks == ("none", "rigl") and config.mask_arguments == {"rigl": {"density": 0.5}}
    assert comparison_settings({}, {}, None, config) == config
    with pytest.raises(RunError, match=r"write snap\.order"):
        comparison_settings({**options, "rules": ["snap", "uoro"]}, {"rules": ["order=2"]}, None, None)
