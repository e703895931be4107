"""Write experts.safetensors: transformers' expert layers of Jamba and Granite 4, their weights, inputs and outputs.

    pip install transformers==5.23.0; python tests/oracles/make_experts.py

Weights, inputs and the experts are float64; their routers' softmax is float32 whatever comes in.
"""

import importlib.metadata
import pathlib

import torch
from safetensors.torch import save_file
from transformers import GraniteMoeHybridConfig, JambaConfig
from transformers.models.granitemoehybrid.modeling_granitemoehybrid import GraniteMoeHybridMoE
from transformers.models.jamba.modeling_jamba import JambaSparseMoeBlock, load_balancing_loss_func

EXPERTS = 5

if __name__ == "__main__":
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 12}
    heads = {"mamba_n_heads": 2, "num_local_experts": EXPERTS, "num_experts_per_tok": 3}
    layers = {
        "jamba": JambaSparseMoeBlock(JambaConfig(**sizes, num_experts=EXPERTS, num_experts_per_tok=2)),
        "granite": GraniteMoeHybridMoE(GraniteMoeHybridConfig(**sizes, **heads)),
    }
    stored = {}
    for name, layer in layers.items():
        layer.double()
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter)
        x = torch.randn(2, 9, 8, dtype=torch.float64)
        with torch.no_grad():
            y = layer(x)
        parts = {
            "router.weight": layer.router.weight, "inside.weight": layer.experts.gate_up_proj,
            "out.weight": layer.experts.down_proj,
        }  # fmt: skip
        stored |= {f"{name}.weight.{key}": part.detach() for key, part in parts.items()}
        stored |= {f"{name}.x": x, f"{name}.y": y[0] if isinstance(y, tuple) else y}
    logits = torch.randn(30, EXPERTS, dtype=torch.float64)
    stored |= {"balance.logits": logits, "balance.loss": load_balancing_loss_func((logits,), EXPERTS, 2)}
    save_file(
        {name: part.contiguous().clone() for name, part in stored.items()},
        pathlib.Path(__file__).with_name("experts.safetensors"),
        {"package": "transformers", "version": importlib.metadata.version("transformers")},
    )
