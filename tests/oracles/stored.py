"""Read the numbers that the scripts beside this file wrote, and ask them of more than one implementation."""

import pathlib

import pytest
from safetensors.torch import load_file

from recurra.shapes import Tensor

each_way = pytest.mark.parametrize("way", ["loop", "chunk"])


def numbers(file: str, layer: str = "") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights, and everything else, of one layer in a file."""
    stored = load_file(pathlib.Path(__file__).with_name(f"{file}.safetensors"))
    stored = {name.removeprefix(layer): value for name, value in stored.items() if name.startswith(layer)}
    weights = {name.removeprefix("weight."): value for name, value in stored.items() if name.startswith("weight.")}
    return weights, {name: value for name, value in stored.items() if not name.startswith("weight.")}
