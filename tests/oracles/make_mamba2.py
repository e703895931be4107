"""Write mamba2.safetensors: Mamba-2 layers of transformers, their weights, inputs, outputs and states, in float64.

    pip install transformers==5.23.0; python tests/oracles/make_mamba2.py

One with one group of heads, one with two. The fused kernels that transformers takes when they are installed, even on
a CPU, are kept out.
"""

import importlib.metadata
import pathlib
import sys

import torch
from safetensors.torch import save_file

for package in ("mamba_ssm", "causal_conv1d", "kernels", "fla"):
    sys.modules[package] = None

from transformers import DynamicCache, Mamba2Config  # noqa: E402
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer  # noqa: E402

# the layer casts to float32 inside; numbers to compare at 1e-12 need those casts to be to float64
torch.Tensor.float = torch.Tensor.double
torch.float32 = torch.float64
torch.set_default_dtype(torch.float64)

WIDTH, STEPS = 8, 21


def numbers(groups):
    config = Mamba2Config(
        hidden_size=WIDTH, state_size=3, expand=2, conv_kernel=4, num_heads=4, head_dim=4, n_groups=groups,
        num_hidden_layers=1, chunk_size=8,
    )  # fmt: skip
    layer = Mamba2Mixer(config, 0).eval()
    x, cache = torch.randn(2, STEPS, WIDTH), DynamicCache(config=config)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * torch.randn_like(p))
        y = layer(x, cache)
    result = {f"weight.{name}": p.detach() for name, p in layer.named_parameters()} | {"x": x, "y": y}
    result["memory"] = cache.get_recurrent_state(0, state_idx=0)
    result["past"] = cache.get_conv_state(0, state_idx=0)
    return {f"{groups}.{name}": value.double().contiguous().clone() for name, value in result.items()}


if __name__ == "__main__":
    torch.manual_seed(0)
    made_by = {"package": "transformers", "version": importlib.metadata.version("transformers")}
    save_file(numbers(1) | numbers(2), pathlib.Path(__file__).with_name("mamba2.safetensors"), made_by)
