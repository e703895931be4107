"""Write gpu_fla.safetensors: what fla-core's naive functions make of what its kernels would be called with.

    pip install fla-core==0.6.0 triton==3.7.1 einops transformers
    python tests/oracles/make_gpu_fla.py

They take other axes than the kernels (heads before time) and two of them scale the query by themselves; both are
undone here. Their casts to float32 are made casts to float64.
"""

import importlib.metadata
import pathlib
import warnings

import torch
from safetensors.torch import save_file

warnings.simplefilter("ignore")
from fla.ops.generalized_delta_rule.dplr.naive import dplr_recurrence  # noqa: E402
from fla.ops.gla.naive import naive_recurrent_gla  # noqa: E402
from fla.ops.rwkv6.recurrent_naive import naive_recurrent_rwkv6  # noqa: E402
from fla.ops.simple_gla.naive import naive_recurrent_simple_gla  # noqa: E402

torch.Tensor.float = torch.Tensor.double
torch.float32 = torch.float = torch.float64
torch.set_default_dtype(torch.float64)

B, T, H, K, V = 2, 7, 3, 4, 5


def swapped(x):
    return x.transpose(1, 2)


def simple_gla(q, k, v, g, state):
    return naive_recurrent_simple_gla(q, k, v, g, scale=1.0, initial_state=state)


def gla(q, k, v, g, state):
    return naive_recurrent_gla(q * K**0.5, k, v, g, initial_state=state, output_final_state=True)


def rwkv6(r, k, v, w, u, state):
    read, last = naive_recurrent_rwkv6(*map(swapped, (r, k, v, w)), u, 1.0, state, output_final_state=True)
    return swapped(read), last


def dplr(q, k, v, a, b, gk, state):
    read, last = dplr_recurrence(swapped(q) * K**0.5, *map(swapped, (k, v, a, b, gk)), state)
    return swapped(read), last


def main():
    torch.manual_seed(0)
    wide, value = (B, T, H, K), (B, T, H, V)
    shapes = {
        "simple_gla": (simple_gla, {"q": wide, "k": wide, "v": value, "g": wide[:3]}),
        "gla": (gla, {"q": wide, "k": wide, "v": value, "g": wide}),
        "rwkv6": (rwkv6, {"r": wide, "k": wide, "v": value, "w": wide, "u": (H, K)}),
        "dplr": (dplr, {"q": wide, "k": wide, "v": value, "a": wide, "b": wide, "gk": wide}),
    }
    stored = {}
    for name, (function, inputs) in shapes.items():
        given = {key: torch.randn(shape) for key, shape in inputs.items()}
        given |= {key: -given[key].exp() for key in ("g", "w", "gk") if key in given}
        state = torch.randn(B, H, K, V)
        read, last = function(**given, state=state.clone())
        stored |= {f"{name}.{key}": x for key, x in (given | {"first": state, "read": read, "last": last}).items()}
    versions = {name: importlib.metadata.version(name) for name in ("fla-core", "torch")}
    path = pathlib.Path(__file__).with_name("gpu_fla.safetensors")
    save_file({key: x.contiguous() for key, x in stored.items()}, path, versions)


main()
