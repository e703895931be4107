"""Write minmax.safetensors: a layer of minmaxrnc, its weights, inputs, outputs and states, in float64.

    pip install minmaxrnc==0.3.0; python tests/oracles/make_minmax.py

The package is under the PolyForm Noncommercial licence: it makes these numbers and is needed nowhere else.
"""

import importlib.metadata
import pathlib

import torch
from minmaxrnc import MinMaxRNCConfig
from minmaxrnc.minmax_layer import MinMaxLayer
from safetensors.torch import save_file

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    layer = MinMaxLayer(MinMaxRNCConfig(d_model=8, n_layers=3, d_state=6).layer_cfg, first=True).eval()
    x = torch.randn(2, 13, 8)
    with torch.no_grad():
        for p in layer.parameters():
            # not the states before the first step, which are parameters there
            if p.requires_grad:
                p.add_(0.3 * torch.randn_like(p))
        y, state = layer(x, layer.initial_state)
    numbers = {f"weight.{name}": p.detach() for name, p in layer.named_parameters() if p.requires_grad}
    numbers |= {"x": x, "y": y, "h": state["neuron"], "past": state["conv"]}
    numbers = {name: value.contiguous().clone() for name, value in numbers.items()}
    made_by = {"package": "minmaxrnc", "version": importlib.metadata.version("minmaxrnc")}
    save_file(numbers, pathlib.Path(__file__).with_name("minmax.safetensors"), made_by)
