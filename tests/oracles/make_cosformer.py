"""Write cosformer.safetensors: the authors' cosFormer attention, causal, in float64.

    git clone https://github.com/OpenNLPLab/cosFormer (commit 8e12da1)
    python tests/oracles/make_cosformer.py cosFormer/cosformer.py

Theirs takes the length of what it is given as the M of the cosine.
"""

import importlib.util
import pathlib
import sys

import torch
from safetensors.torch import save_file

WIDTH, HEADS, STEPS = 8, 2, 40

if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    spec = importlib.util.spec_from_file_location("cosformer", sys.argv[1])
    assert spec is not None and spec.loader is not None
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    layer = theirs.CosformerAttention(WIDTH, HEADS, causal=True)
    x = torch.randn(2, STEPS, WIDTH)
    with torch.no_grad():
        # theirs is time first
        y = layer(x.transpose(0, 1)).transpose(0, 1)
    written = {f"weight.{key}": p.detach() for key, p in layer.named_parameters()} | {"x": x, "y": y}
    written = {key: value.contiguous().clone() for key, value in written.items()}
    save_file(written, pathlib.Path(__file__).with_name("cosformer.safetensors"), {"OpenNLPLab/cosFormer": "8e12da1"})
