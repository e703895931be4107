"""Write attention.safetensors: a Mistral attention layer of transformers, windowed and not, in float64.

pip install transformers==5.23.0; python tests/oracles/make_attention.py
"""

import importlib.metadata
import pathlib

import torch
from safetensors.torch import save_file
from transformers import MistralConfig, MistralModel

# the layer computes its rotation and its softmax in float32; these numbers are to be compared at 1e-12
FLOAT64 = torch.float64
torch.Tensor.float = torch.Tensor.double
torch.float = torch.float32 = FLOAT64
torch.set_default_dtype(FLOAT64)

SHAPE = {"hidden_size": 16, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}


def run(window: int | None, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The layer's weights, its input inside a model of one block, and its output."""
    torch.manual_seed(0)
    config = MistralConfig(
        **SHAPE, vocab_size=4, num_hidden_layers=1, sliding_window=window, head_dim=8, attn_implementation="eager"
    )
    model = MistralModel(config).double().eval()
    seen = {}
    layer = model.layers[0].self_attn
    layer.register_forward_hook(
        lambda _, args, kwargs, out: seen.update(x=kwargs["hidden_states"], y=out[0]), with_kwargs=True
    )
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(0.4 * torch.randn_like(p))
        model(inputs_embeds=x, use_cache=False)
    return {f"weight.{name}": p.detach() for name, p in layer.named_parameters()} | seen


if __name__ == "__main__":
    torch.manual_seed(1)
    x = torch.randn(2, 19, 16)
    both = {"full": run(None, x), "window": run(4, x)}
    numbers = {f"{form}.{name}": value.contiguous().clone() for form in both for name, value in both[form].items()}
    assert all(value.dtype == FLOAT64 for value in numbers.values())
    made_by = {"package": "transformers", "version": importlib.metadata.version("transformers")}
    save_file(numbers, pathlib.Path(__file__).with_name("attention.safetensors"), made_by)
