"""Write gated_deltanet.safetensors: a layer of transformers' Qwen3-Next, its weights, inputs, outputs and states.

    pip install transformers==5.23.0; python tests/oracles/make_gated_deltanet.py

In float64. The fused kernels that transformers takes when they are installed, even on a CPU, are kept out.
"""

import importlib.metadata
import pathlib
import sys

import torch
from safetensors.torch import save_file

for package in ("causal_conv1d", "kernels", "fla"):
    sys.modules[package] = None

from transformers import DynamicCache, Qwen3NextConfig  # noqa: E402
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet  # noqa: E402

# the layer casts to float32 inside; numbers to compare at 1e-12 need those casts to be to float64
torch.Tensor.float = torch.Tensor.double
torch.float32 = torch.float64
torch.set_default_dtype(torch.float64)

WIDTH, HEADS, STEPS = 8, 2, 70

if __name__ == "__main__":
    torch.manual_seed(0)
    config = Qwen3NextConfig(
        hidden_size=WIDTH, linear_num_key_heads=HEADS, linear_num_value_heads=HEADS, linear_key_head_dim=3,
        linear_value_head_dim=6, linear_conv_kernel_dim=4, rms_norm_eps=1e-5, num_hidden_layers=1,
        layer_types=["linear_attention"],
    )  # fmt: skip
    layer = Qwen3NextGatedDeltaNet(config, 0).eval()
    x, cache = torch.randn(2, STEPS, WIDTH), DynamicCache(config=config)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * torch.randn_like(p))
        # slower than they start, so that the last state remembers the first steps
        layer.A_log.sub_(3)
        y = layer(x, cache)
    numbers = {f"weight.{name}": p.detach() for name, p in layer.named_parameters()} | {"x": x, "y": y}
    numbers["memory"] = cache.get_recurrent_state(0, state_idx=0)
    numbers["past"] = cache.get_conv_state(0, state_idx=0)
    numbers = {name: value.double().contiguous().clone() for name, value in numbers.items()}
    made_by = {"package": "transformers", "version": importlib.metadata.version("transformers")}
    save_file(numbers, pathlib.Path(__file__).with_name("gated_deltanet.safetensors"), made_by)
