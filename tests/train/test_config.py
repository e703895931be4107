"""Settings: strict JSON both ways, wrong keys named with the nearest, differences told one by one."""

import dataclasses
import json

import pytest

from recurra.train import CompareConfig, Config, RunError
from recurra.train.config import differences


def test_settings_round_trip_through_json():
    config = Config(source="text.txt", task={"tokenizer": "t.json"}, arguments={"width": 8}, betas=(0.8, 0.99))
    assert Config.from_json(json.loads(json.dumps(config.to_json(), allow_nan=False))) == config
    both = CompareConfig(source="parity", mixers=("lstm", "mamba2*3, minmax"), training={"steps": 3})
    assert both.mixers[1] == "mamba2*3,minmax"
    assert CompareConfig.from_json(json.loads(json.dumps(both.to_json()))) == both


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config(source="x").steps = 3  # type: ignore[misc]


def test_an_unknown_key_is_refused_with_the_nearest():
    with pytest.raises(RunError, match=r"no setting 'learning_rat', did you mean 'learning_rate'\?"):
        Config.from_json({"source": "x", "learning_rat": 1})
    with pytest.raises(RunError, match=r"no setting 'mixer', did you mean 'mixers'\?"):
        CompareConfig.from_json({"source": "x", "mixer": ["lstm"]})
    with pytest.raises(RunError, match="'source' is missing"):
        Config.from_json({})


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": 0}, {"batch": 0}, {"length": -1}, {"learning_rate": 0.0}, {"learning_rate": float("nan")},
        {"clip": 0.0}, {"weight_decay": -1.0}, {"precision": "float16"}, {"betas": (0.9, 1.0)}, {"warmup": -1},
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused_by_name(changed):
    with pytest.raises(RunError, match=next(iter(changed))):
        Config(source="x", **changed)


def test_a_comparison_needs_mixers_once_each_and_sets_the_seed_itself():
    for wrong in ((), ("lstm", "lstm"), ("lstm", " lstm")):
        with pytest.raises(RunError, match="name at least one"):
            CompareConfig(source="x", mixers=wrong)
    with pytest.raises(RunError, match="training sets seed"):
        CompareConfig(source="x", mixers=("lstm",), training={"seed": 1})


def test_differences_are_listed_field_by_field():
    one = Config(source="x", arguments={"width": 8, "depth": 2}).to_json()
    two = Config(source="x", arguments={"width": 9, "depth": 2}, steps=7).to_json()
    assert differences(one, one) == []
    assert differences(one, two) == ["arguments.width was 8 and is 9", "steps was 1000 and is 7"]
    assert differences({"a": 1}, {}) == ["a was 1 and is 'absent'"]
