"""Write mamba.safetensors: a Mamba layer of transformers, its weights, inputs, outputs and states, in float64.

    pip install transformers==5.23.0; python tests/oracles/make_mamba.py

The fused kernels that transformers takes when they are installed, even on a CPU, are kept out. `continued` is what
transformers itself returns for the second piece of a cut sequence: its scan starts again from zero there.
"""

import importlib.metadata
import pathlib
import sys

import torch
from safetensors.torch import save_file

for package in ("mamba_ssm", "causal_conv1d", "mambapy", "kernels"):
    sys.modules[package] = None
# the layer casts to float32 inside; numbers to compare at 1e-12 need those casts to be to float64
torch.Tensor.float = torch.Tensor.double
torch.set_default_dtype(torch.float64)

from transformers import DynamicCache, MambaConfig  # noqa: E402
from transformers.models.mamba.modeling_mamba import MambaMixer  # noqa: E402

CUT = 5

if __name__ == "__main__":
    torch.manual_seed(0)
    config = MambaConfig(hidden_size=8, state_size=3, expand=2, conv_kernel=4, time_step_rank=2, num_hidden_layers=1)
    layer = MambaMixer(config, 0).eval()
    x = torch.randn(2, 11, 8)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * torch.randn_like(p))
        whole, pieces = DynamicCache(config=config), DynamicCache(config=config)
        y = layer(x, whole)
        layer(x[:, :CUT], pieces)
        continued = layer(x[:, CUT:], pieces)
    numbers = {f"weight.{name}": p.detach() for name, p in layer.named_parameters()}
    numbers |= {"x": x, "y": y, "continued": continued, "h": whole.get_recurrent_state(0, state_idx=0)}
    numbers["past"] = whole.get_conv_state(0, state_idx=0)
    numbers = {name: value.double().contiguous().clone() for name, value in numbers.items()}
    made_by = {"package": "transformers", "version": importlib.metadata.version("transformers")}
    save_file(numbers, pathlib.Path(__file__).with_name("mamba.safetensors"), made_by)
