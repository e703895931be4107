"""Sparse training from the command line: a mask and its keywords, and one sentence where they cannot be had."""

import json

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from recurra.cli import app

SMALL = (
    "train", "parity", "--mixer", "elman", "--width", 16, "--depth", 1, "--batch", 64, "--length", 64, "--steps", 9,
)  # fmt: skip


def call(*arguments):
    return CliRunner().invoke(app, [str(x) for x in (*SMALL, *arguments)])


def test_a_sparse_run_and_its_resumption(tmp_path):
    given = ("--mask", "rigl", "--mask-set", "density=0.25", "--mask-set", "every=4", "--run", tmp_path / "run")
    done = call(*given, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert abs(said["density"] - 0.25) < 0.01
    config = json.loads((tmp_path / "run/config.json").read_text())["training"]
    assert config["mask"] == "rigl" and config["mask_arguments"] == {"density": 0.25, "every": 4}
    weight = load_file(tmp_path / "run/model.safetensors")["backbone.blocks.0.mixer.cell.weight"]
    assert (weight == 0).float().mean() > 0.5
    again = CliRunner().invoke(app, ["train", "--resume", "--run", str(tmp_path / "run"), "--json"])
    assert json.loads(again.stdout)["score"] == said["score"]
    other = call(*given, "--mask-set", "density=0.5", "--resume")
    assert other.exit_code == 2 and "mask_arguments.density was 0.25 and is 0.5" in other.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mask", "rig"), "there is no mask 'rig', did you mean 'rigl'?; there are static, set, rigl, hebbian"),
        (("--mask-set", "density=0.2"), "no mask is named, and density would be its keyword"),
        (("--mask", "set", "--mask-set", "densities=0.2"), "set has no keyword 'densities', did you mean 'density'?"),
        (("--mask", "set", "--mask-set", "density"), "'density' is not KEY=VALUE"),
        (("--mask", "set", "--mask-set", "density=dense"), "the mask cannot be made: "),
        (("--mask", "set", "--rule", "fptt"), "fptt pulls weights to a mean of its own"),
        (("--mask", "rigl", "--rule", "rtrl"), "only the mask static stays as it was"),
        (("--mask", "rigl", "--mixer", "para_gru", "--mask-set", "where=nothing"), "no matrix whose name matches"),
    ],
)
def test_what_cannot_be_masked_is_one_sentence_and_exit_code_2(tmp_path, arguments, said):
    done = call(*arguments, "--run", tmp_path / "run")
    assert done.exit_code == 2, done.output
    assert said in done.stderr.replace("\n", "") and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
