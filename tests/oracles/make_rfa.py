"""Write rfa.safetensors: the authors' causal random feature attention, without gate, in float64.

    git clone https://github.com/Noahs-ARK/RFA (commit b075fa8)
    python tests/oracles/make_rfa.py RFA

The layer runs as it is, in its form for decoding, but for three constants: what it adds to a vector's length (theirs
1e-3, ours 1e-6 inside the root), where it holds the denominator (1, at decoding; here no where), and its features are
scaled by 0.1 whatever their number, which cancels. Its CUDA extension is left out.
"""

import pathlib
import sys
import types
from typing import NamedTuple

import torch
from safetensors.torch import save_file

WIDTH, HEADS, STEPS, FEATURES = 8, 2, 40, 6

if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    sys.path.insert(0, sys.argv[1])
    sys.modules["random_feature_attention.rfa"] = kernel = types.ModuleType("rfa")
    kernel.RFA = kernel.upgrade_state_dict_named = None
    # names that their file uses and does not import
    import builtins

    builtins.NamedTuple = NamedTuple
    sys.modules["random_feature_attention"] = package = types.ModuleType("random_feature_attention")
    package.__path__ = [f"{sys.argv[1]}/random_feature_attention"]
    from random_feature_attention import utils

    utils.upgrade_state_dict_named = None
    utils._normalize = lambda x: (x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt(), None)
    from random_feature_attention import causal_attention

    causal_attention.EPS = -torch.inf
    layer = causal_attention.CausalAttention(
        embed_dim=WIDTH, num_heads=HEADS, head_dim=WIDTH // HEADS, proj_dim=FEATURES, cuda_causal_rfa=False
    )
    x, waves = torch.randn(2, STEPS, WIDTH), torch.randn(HEADS, FEATURES, WIDTH // HEADS)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * torch.randn_like(p))
        state = {}
        y = torch.cat([layer(step[None], waves, saved_state=state) for step in x.transpose(0, 1)]).transpose(0, 1)
    written = {f"weight.{key}": p.detach() for key, p in layer.named_parameters()} | {"x": x, "y": y, "waves": waves}
    written = {key: value.contiguous().clone() for key, value in written.items()}
    save_file(written, pathlib.Path(__file__).with_name("rfa.safetensors"), {"Noahs-ARK/RFA": "b075fa8"})
