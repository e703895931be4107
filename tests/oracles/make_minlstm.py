"""Write minlstm.safetensors: the minimal LSTM of a package, its weights, inputs and outputs, in float64.

    pip install minGRU-pytorch==0.2.1; python tests/oracles/make_minlstm.py

The package makes candidates positive, by u + 1/2 where u >= 0. Here every u is: inputs and weights are positive. So its
numbers are those of a plain candidate with a bias of 1/2. Carried on one step at a time: its parallel form squashes the
state that it is given.
"""

import importlib.metadata
import pathlib

import torch
from minGRU_pytorch.minLSTM import minLSTM
from safetensors.torch import save_file

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    layer = minLSTM(8)
    x, hidden = torch.rand(2, 13, 8), None
    with torch.no_grad():
        layer.to_hidden_and_f_i_gate.weight[:8].abs_()
        whole, steps = layer(x), []
        for t in range(13):
            out, hidden = layer(x[:, t : t + 1], hidden, return_next_prev_hidden=True)
            steps.append(out)
    numbers = {"x": x, "whole": whole, "steps": torch.cat(steps, 1)}
    numbers["weight"] = layer.to_hidden_and_f_i_gate.weight.detach()
    version = {"minGRU-pytorch": importlib.metadata.version("minGRU-pytorch")}
    save_file(numbers, pathlib.Path(__file__).with_name("minlstm.safetensors"), version)
