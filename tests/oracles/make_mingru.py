"""Write mingru.safetensors: minimal GRUs of two packages, their weights, inputs and outputs, in float64.

    pip install minGRU-pytorch==0.2.1 mingru-scans==0.2.0; python tests/oracles/make_mingru.py

The first has positive states and goes through logarithms; the second's signed unit with all its signs held at 1
(tanh of 40 is 1) is the paper's first form.
"""

import importlib.metadata
import pathlib

import torch
from mingru import SignedMinGRU
from minGRU_pytorch import minGRU
from safetensors.torch import save_file

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    positive, plain = minGRU(8, expansion_factor=2.0), SignedMinGRU(8, 8, coupled=True)
    x, start = torch.randn(2, 13, 8), torch.rand(2, 1, 16)
    with torch.no_grad():
        plain.linear_s.weight.zero_()
        plain.linear_s.bias.fill_(40)
        numbers = {"positive.y": positive(x), "positive.from": positive(x, start), "plain.y": plain(x)}
        numbers["plain.from"] = plain(x, start[:, :, :8])
    numbers |= {f"positive.weight.{name}": p.detach() for name, p in positive.named_parameters()}
    numbers |= {f"plain.weight.{name}": p.detach() for name, p in plain.named_parameters()}
    packages = {name: importlib.metadata.version(name) for name in ("minGRU-pytorch", "mingru-scans")}
    numbers |= {"x": x, "start": start}
    save_file(numbers, pathlib.Path(__file__).with_name("mingru.safetensors"), packages)
