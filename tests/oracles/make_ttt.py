"""Write ttt.safetensors: the authors' TTT-Linear and TTT-MLP, weights, inputs, outputs of both of their forms.

    git clone https://github.com/test-time-training/ttt-lm-pytorch  (MIT; commit cd831db)
    pip install transformers==5.23.0; python tests/oracles/make_ttt.py ttt-lm-pytorch

In float64. Their derivative of GELU has rounded constants: the exact one stands in for it. The primal form runs one
step at a time, over the cache that they decode with, and the dual form all at once.
"""

import importlib.metadata
import pathlib
import sys

import torch
from safetensors.torch import save_file

sys.path.insert(0, sys.argv[1])
import ttt

torch.set_default_dtype(torch.float64)
# their rotary angles are made in float32
torch.Tensor.float = torch.Tensor.double
ttt.gelu_bwd = lambda x: torch.ops.aten.gelu_backward(torch.ones_like(x), x, approximate="tanh")

WIDTH, HEADS, CHUNK, STEPS = 8, 2, 5, 17


class Cache:
    """What their layers ask of the cache of a model of one layer."""

    update, ttt_params_to_dict = ttt.TTTCache.update, ttt.TTTCache.ttt_params_to_dict

    def __init__(self, layer, names):
        self.seqlen_offset, self.mini_batch_size, self.ttt_param_names = 0, CHUNK, names
        tiled = {name: getattr(layer, name).detach()[None].repeat(2, 1, 1, 1) for name in names}
        self.ttt_params_dict = {f"{name}_states": {0: value} for name, value in tiled.items()}
        self.ttt_params_dict |= {f"{name}_grad": {0: torch.zeros_like(value)} for name, value in tiled.items()}


if __name__ == "__main__":
    torch.manual_seed(0)
    numbers = {}
    for kind, cls, names in (("linear", ttt.TTTLinear, ["W1", "b1"]), ("mlp", ttt.TTTMLP, ["W1", "b1", "W2", "b2"])):
        config = ttt.TTTConfig(
            hidden_size=WIDTH, num_attention_heads=HEADS, num_hidden_layers=1, mini_batch_size=CHUNK, ttt_base_lr=1.0,
            share_qk=False, use_gate=False, scan_checkpoint_group_size=0,
        )  # fmt: skip
        layer, x, places = cls(config, 0), torch.randn(2, STEPS, WIDTH), torch.arange(STEPS)[None]
        with torch.no_grad():
            for p in layer.parameters():
                p.add_(0.2 * torch.randn_like(p))
            dual = layer(x, position_ids=places)
            cache, primal = Cache(layer, names), []
            for t in range(STEPS):
                primal.append(layer(x[:, t : t + 1], position_ids=places[:, t : t + 1], cache_params=cache))
                cache.seqlen_offset += 1
        named = {f"weight.{name}": p.detach() for name, p in layer.named_parameters()}
        named |= {"x": x, "dual": dual, "primal": torch.cat(primal, 1)}
        numbers |= {f"{kind}.{name}": value.contiguous().clone() for name, value in named.items()}
    made_by = {"package": "ttt-lm-pytorch cd831db, transformers", "version": importlib.metadata.version("transformers")}
    save_file(numbers, pathlib.Path(__file__).with_name("ttt.safetensors"), made_by)
