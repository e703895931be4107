"""Write lru.safetensors: a linear recurrent unit of LRU-pytorch, its weights, inputs and outputs, in float64.

pip install LRU-pytorch==0.1.3; python tests/oracles/make_lru.py
"""

import importlib.metadata
import pathlib

import torch
from LRU_pytorch import LRU
from safetensors.torch import save_file

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    layer = LRU(8, 8, 5, rmin=0.3, rmax=0.99)
    x = torch.randn(2, 13, 8)
    with torch.no_grad():
        # the package's skip is a full matrix, the paper's a diagonal one
        layer.D.copy_(layer.D.diagonal().diag())
        y = layer(x)
    numbers = {f"weight.{name}": p.detach() for name, p in layer.named_parameters()}
    numbers = {name: torch.view_as_real(p) if p.is_complex() else p for name, p in numbers.items()} | {"x": x, "y": y}
    made_by = {"package": "LRU-pytorch", "version": importlib.metadata.version("LRU-pytorch")}
    save_file(numbers, pathlib.Path(__file__).with_name("lru.safetensors"), made_by)
