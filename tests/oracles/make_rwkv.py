"""Write rwkv.safetensors: time mixing of RWKV-4, 5 and 6 and channel mixing of 4 and 6 of the rwkv package, in float64.

    pip install rwkv==0.8.32
    python tests/oracles/make_rwkv.py

Their functions normalise x first and add it last: what is stored is x normalised and what was added. They read the
state of one sequence, so there is no batch.
"""

import importlib.metadata
import os
import pathlib

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

# the functions cast to float32 inside, and take no other type
torch.Tensor.float = torch.Tensor.double
torch.float32 = torch.float64
torch.set_default_dtype(torch.float64)
os.environ |= {"RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0"}
from rwkv.model import RWKV  # noqa: E402

WIDTH, HEADS, RANK, STEPS = 8, 2, 3, 30
SIZE = WIDTH // HEADS


def square(names):
    return {name: 0.5 * torch.randn(WIDTH, WIDTH) for name in names}


def shares(names):
    return {name: torch.rand(WIDTH) for name in names}


def run(function, *arguments):
    """Normalised x, what was added, and whatever else came out, of a function with weights."""
    x = torch.randn(STEPS, WIDTH)
    one, zero = torch.ones(WIDTH), torch.zeros(WIDTH)
    state, weights, quantised = arguments
    y, last, *after = function(None, x, zero.clone(), *state, one, zero, *weights, *[None] * (4 * quantised))
    normed = F.layer_norm(x, (WIDTH,))
    return {"x": normed[None], "y": (y - x)[None], "last": last[None]} | {
        f"state.{i}": value[None] for i, value in enumerate(after)
    }


def time_4():
    w = shares("kvr") | square(["key", "value", "receptance", "output"])
    w |= {"decay": torch.randn(WIDTH), "first": torch.randn(WIDTH)}
    state = (torch.zeros(WIDTH), torch.zeros(WIDTH), torch.full((WIDTH,), -1e30))
    order = [w[k] for k in "kvr"] + [-w["decay"].exp(), w["first"]]
    order += [w[k] for k in ("key", "value", "receptance", "output")]
    return w, run(RWKV.att_seq, state, order, 4)


def normed():
    return {"norm": 1 + 0.1 * torch.randn(WIDTH), "norm_bias": 0.1 * torch.randn(WIDTH)}


def time_5():
    names = ["key", "value", "receptance", "gate", "output"]
    w = shares("kvrg") | square(names) | normed()
    w |= {"decay": torch.randn(HEADS, SIZE), "first": torch.randn(HEADS, SIZE)}
    state = (torch.zeros(HEADS, SIZE, SIZE),)
    order = [w["norm"], w["norm_bias"], *(w[k] for k in "kvrg")]
    order += [(-w["decay"].exp()).exp()[..., None], w["first"][..., None], *(w[k] for k in names)]
    return w, run(RWKV.att_seq_v5_2, state, order, 5)


def time_6():
    names = ["key", "value", "receptance", "gate", "output"]
    w = shares("xwkvrg") | square(names) | normed()
    w |= {"choose_in": torch.randn(WIDTH, 5 * RANK), "choose_out": 0.3 * torch.randn(5, RANK, WIDTH)}
    w |= {"decay_in": torch.randn(WIDTH, RANK), "decay_out": 0.3 * torch.randn(RANK, WIDTH)}
    w |= {"decay": torch.randn(HEADS, SIZE), "first": torch.randn(HEADS, SIZE)}
    state = (torch.zeros(HEADS, SIZE, SIZE),)
    order = [w["norm"], w["norm_bias"], *(w[k] for k in "xwkvrg")]
    order += [w[k] for k in ("choose_in", "choose_out", "decay_in", "decay_out")]
    order += [w["decay"][..., None], w["first"][..., None], *(w[k] for k in names)]
    return w, run(RWKV.att_seq_v6_0, state, order, 5)


def channel(function):
    w = shares("kr") | {"key": torch.randn(WIDTH, 5), "value": torch.randn(5, WIDTH)} | square(["receptance"])
    return w, run(function, (), [w[k] for k in ("k", "r", "key", "value", "receptance")], 3)


if __name__ == "__main__":
    torch.manual_seed(0)
    result = {}
    layers = {"time_4": time_4(), "time_5": time_5(), "time_6": time_6()}
    layers |= {"channel_4": channel(RWKV.ffn_seq), "channel_6": channel(RWKV.ffn_seq_v6)}
    for name, (weights, numbers) in layers.items():
        result |= {f"{name}.weight.{key}": value.contiguous() for key, value in weights.items()}
        result |= {f"{name}.{key}": value.contiguous().clone() for key, value in numbers.items()}
    made_by = {"rwkv": importlib.metadata.version("rwkv")}
    save_file(result, pathlib.Path(__file__).with_name("rwkv.safetensors"), made_by)
