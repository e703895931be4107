"""Write aft.safetensors: labml's AFT-local, made causal by its own mask, in float64.

    pip install --no-deps labml-nn==0.5.1
    python tests/oracles/make_aft.py

Its bias is of two positions; here it is set to be the same along every diagonal, which is a bias of the distance.
"""

import importlib.metadata
import pathlib

import torch
from labml_nn.transformers.aft import AFTLocal
from safetensors.torch import save_file

WIDTH, WINDOW, STEPS = 8, 3, 20

if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    result = {}
    for name, window in (("simple", 0), ("local", WINDOW)):
        layer = AFTLocal(WIDTH, STEPS, max(window, 1), bias=False)
        bias = torch.randn(window)
        distance = torch.arange(STEPS)[:, None] - torch.arange(STEPS)
        with torch.no_grad():
            layer.output.bias.zero_()
            layer.pos_bias.zero_()
            for n in range(window):
                layer.pos_bias[distance == n] = bias[n]
            x = 3 * torch.randn(STEPS, 2, WIDTH)
            y = layer(query=x, key=x, value=x, mask=(distance >= 0)[..., None])
        weights = {key: p for key, p in layer.named_parameters() if key.endswith(".weight")}
        result |= {f"{name}.weight.{key}": p.detach().clone() for key, p in weights.items()}
        result |= {f"{name}.weight.bias": bias} if window else {}
        result |= {f"{name}.x": x.transpose(0, 1).contiguous(), f"{name}.y": y.transpose(0, 1).contiguous()}
    made_by = {"labml-nn": importlib.metadata.version("labml-nn")}
    save_file(result, pathlib.Path(__file__).with_name("aft.safetensors"), made_by)
