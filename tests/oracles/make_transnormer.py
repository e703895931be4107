"""Write transnormer.safetensors: lightning attention of transformers' MiniMax, as TransNormerLLM has it, in float64.

    pip install transformers==5.23.0
    python tests/oracles/make_transnormer.py

MiniMax's layer is TransNormerLLM's with three changes, which are taken back where they are made: its values pass the
activation, its norm has a weight (here ones), and its gate a sigmoid.
"""

import importlib.metadata
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import MiniMaxConfig
from transformers.models.minimax import modeling_minimax as minimax

torch.set_default_dtype(torch.float64)
torch.float32 = torch.float64

WIDTH, HEADS, STEPS, LAYERS, LAYER = 12, 3, 40, 5, 1


class Act(nn.Module):
    """Swish of the queries and keys of every head, not of its values."""

    def forward(self, x):
        query, key, value = x.unflatten(-1, (HEADS, 3, -1)).unbind(-2)
        return torch.stack([F.silu(query), F.silu(key), value], -2).flatten(-3)


if __name__ == "__main__":
    torch.manual_seed(0)
    config = MiniMaxConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, head_dim=WIDTH // HEADS, num_hidden_layers=LAYERS, block_size=16,
        layer_types=["linear_attention"] * LAYERS,
    )  # fmt: skip
    layer = minimax.MiniMaxLightningAttention(config, LAYER).double().eval()
    layer.act_fn = Act()
    F.sigmoid = lambda x: x
    x = torch.randn(2, STEPS, WIDTH)
    with torch.no_grad():
        y, state = layer(x, None, None)
    written = {f"weight.{key}": p.detach() for key, p in layer.named_parameters()}
    written |= {"x": x, "y": y, "state": state, "slope": layer.slope_rate}
    written = {key: value.double().contiguous().clone() for key, value in written.items()}
    made_by = {"transformers": importlib.metadata.version("transformers")}
    save_file(written, pathlib.Path(__file__).with_name("transnormer.safetensors"), made_by)
