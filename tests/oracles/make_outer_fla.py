"""Write outer_fla.safetensors: HGRN2, GSA, ABC and MesaNet of flash-linear-attention, in float64.

    pip install flash-linear-attention==0.6.0 fla-core==0.6.0 triton transformers einops
    python tests/oracles/make_outer_fla.py

The layers run as they are, but for their GPU kernels: the recurrences are that library's own naive operations, and the
norms and the short convolution are torch's. MesaNet's is its exact solver, not its conjugate gradients.
"""

import importlib.metadata
import pathlib
import warnings

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

warnings.simplefilter("ignore")
from fla.layers import abc, gsa, hgrn2, mesa_net  # noqa: E402
from fla.modules import RMSNorm, ShortConvolution  # noqa: E402
from fla.ops.gla.naive import naive_recurrent_gla  # noqa: E402
from fla.ops.gsa.naive import naive_recurrent_gsa  # noqa: E402
from fla.ops.mesa_net.naive import naive_mesa_net_exact  # noqa: E402

# the operations cast to float32 inside; numbers to compare at 1e-12 need those casts to be to float64
torch.Tensor.float = torch.Tensor.double
torch.float32 = torch.float = torch.float64
torch.set_default_dtype(torch.float64)

WIDTH, HEADS, STEPS = 8, 2, 40


def unit(x):
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def gated(q, k, v, gk, **_):
    return naive_recurrent_gla(q, k, v, gk, output_final_state=True)


def slots(q, k, v, s, g=None, scale=None, **_):
    return naive_recurrent_gsa(q, k, v, s, g, scale, output_final_state=True)


def mesa(q, k, v, g, beta, lamb, **_):
    o, *state = naive_mesa_net_exact(unit(q), unit(k), v, g, lamb, beta)
    return o, *state


def numbers(name, layer, module, operation, kernel, **given):
    """The layer, with `kernel` of its module replaced by `operation`, over random inputs."""
    last = []

    def remember(**inputs):
        o, *state = operation(**inputs)
        last.extend(state[0] if isinstance(state[0], tuple) else state)
        return o, *state

    setattr(module, kernel, remember)
    x = torch.randn(2, STEPS, WIDTH)
    layer = layer.double().eval()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * torch.randn_like(p))
        y = layer(x, use_cache=True, **given)[0]
    result = {f"weight.{key}": p.detach() for key, p in layer.named_parameters()} | {"x": x, "y": y}
    result |= {f"state.{i}": state for i, state in enumerate(last)}
    return {f"{name}.{key}": value.double().contiguous().clone() for key, value in result.items()}


def normalise_and_project(x, norm_weight, norm_bias, weight, bias, eps=1e-5, **_):
    return F.linear(F.rms_norm(x, x.shape[-1:], norm_weight, eps), weight, bias)


if __name__ == "__main__":
    torch.manual_seed(0)
    RMSNorm.forward = lambda self, x: F.rms_norm(x, x.shape[-1:], self.weight, self.eps)
    ShortConvolution.forward = lambda self, x, **_: (
        F.silu(nn.Conv1d.forward(self, x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)),
        None,
    )
    for module in (hgrn2, gsa):
        module.rms_norm_linear = normalise_and_project
    hgrn2.swish = F.silu
    sizes = {"hidden_size": WIDTH, "num_heads": HEADS}
    written = numbers(
        "hgrn2", hgrn2.HGRN2Attention(hidden_size=WIDTH, expand_ratio=WIDTH // HEADS, layer_idx=1),
        hgrn2, gated, "fused_recurrent_gla", lower_bound=torch.tensor(0.3),
    )  # fmt: skip
    layer = gsa.GatedSlotAttention(**sizes, num_slots=3, layer_idx=0)
    layer.feature_map = nn.SiLU()
    written |= numbers("gsa", layer, gsa, slots, "fused_recurrent_gsa")
    layer = abc.ABCAttention(
        **sizes, expand_k=1.0, num_slots=3, use_rope=False, use_output_gate=False, use_norm=False, layer_idx=0
    )
    written |= numbers("abc", layer, abc, slots, "chunk_abc")
    layer = mesa_net.MesaNet(**sizes, head_dim=WIDTH // HEADS, layer_idx=0)
    written |= numbers("mesanet", layer, mesa_net, mesa, "chunk_mesa_net")
    made_by = {name: importlib.metadata.version(name) for name in ("flash-linear-attention", "fla-core")}
    save_file(written, pathlib.Path(__file__).with_name("outer_fla.safetensors"), made_by)
