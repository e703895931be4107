"""Write flash_gau.safetensors: FLASH of FLASH-pytorch, causal, in float64.

    pip install FLASH-pytorch==0.1.9 rotary-embedding-torch einops
    python tests/oracles/make_flash_gau.py

Its norm and its residual, which a block brings, are taken off. Its bias is a table of distances' logarithms; what it
comes to for each distance is stored.
"""

import importlib.metadata
import pathlib

import torch
from flash_pytorch import FLASH
from safetensors.torch import save_file
from torch import nn

WIDTH, STEPS, GROUP, SIZE = 8, 41, 7, 6

if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    layer = FLASH(dim=WIDTH, group_size=GROUP, query_key_dim=SIZE, causal=True).double().eval()
    layer.norm = nn.Identity()
    x = torch.randn(2, STEPS, WIDTH)
    with torch.no_grad():
        # larger than they start, so that they matter
        layer.qk_offset_scale.gamma.normal_()
        layer.qk_offset_scale.beta.normal_()
        y = layer(x) - x
        near = layer.rel_pos_bias(torch.zeros(GROUP, GROUP))[-1].flip(0)
    written = {f"weight.{key}": p.detach() for key, p in layer.named_parameters()} | {"x": x, "y": y, "near": near}
    written = {key: value.contiguous().clone() for key, value in written.items()}
    made_by = {"FLASH-pytorch": importlib.metadata.version("FLASH-pytorch")}
    save_file(written, pathlib.Path(__file__).with_name("flash_gau.safetensors"), made_by)
