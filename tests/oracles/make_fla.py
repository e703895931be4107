"""Write fla.safetensors: four layers of flash-linear-attention, their weights, inputs, outputs and states, in float64.

    pip install flash-linear-attention==0.6.0 fla-core==0.6.0 triton transformers
    python tests/oracles/make_fla.py

The layers run as they are, but for their GPU kernels: the recurrences are that library's own naive operations, and the
norms and the short convolution are torch's.
"""

import importlib.metadata
import pathlib
import warnings

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

warnings.simplefilter("ignore")
from fla.layers import delta_net, gated_deltanet, gla, linear_attn  # noqa: E402
from fla.modules import FusedRMSNormGated, RMSNorm, ShortConvolution  # noqa: E402
from fla.ops.delta_rule.naive import delta_rule_recurrence  # noqa: E402
from fla.ops.gated_delta_rule.gate import naive_gdn_gate  # noqa: E402
from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule  # noqa: E402
from fla.ops.gla.naive import naive_recurrent_gla  # noqa: E402
from fla.ops.linear_attn.naive import naive_recurrent_linear_attn  # noqa: E402

# the operations cast to float32 inside; numbers to compare at 1e-12 need those casts to be to float64
torch.Tensor.float = torch.Tensor.double
torch.float32 = torch.float64
torch.set_default_dtype(torch.float64)

WIDTH, HEADS, STEPS = 8, 2, 40


def unit(x):
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def linear_attention(q, k, v, normalize, **_):
    return naive_recurrent_linear_attn(q, k, v, normalize=normalize, output_final_state=True)


def gated(q, k, v, gk, **_):
    return naive_recurrent_gla(q, k, v, gk, output_final_state=True)


def delta(q, k, v, beta, **_):
    heads_first = (x.transpose(1, 2) for x in (unit(q), unit(k), v, beta))
    o, state = delta_rule_recurrence(*heads_first)
    return o.transpose(1, 2), state


def gated_delta(q, k, v, g, beta, A_log, dt_bias, allow_neg_eigval, **_):
    beta = beta.sigmoid() * (2 if allow_neg_eigval else 1)
    g = naive_gdn_gate(g, A_log, dt_bias, torch.float64)
    return naive_recurrent_gated_delta_rule(unit(q), unit(k), v, beta, g, output_final_state=True)


def by_torch():
    """Their norms and short convolution, without the kernels that need a GPU."""
    gates = {"swish": F.silu, "sigmoid": F.sigmoid}
    RMSNorm.forward = lambda self, x: F.rms_norm(x, x.shape[-1:], self.weight, self.eps)
    FusedRMSNormGated.forward = lambda self, x, g: RMSNorm.forward(self, x) * gates[self.activation](g)
    ShortConvolution.forward = lambda self, x, **_: (
        F.silu(nn.Conv1d.forward(self, x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)),
        None,
    )


def numbers(name, layer, module, operation, kernel, steps=STEPS):
    """The layer, with `kernel` of its module replaced by `operation`, over random inputs."""
    last = []

    def remember(**inputs):
        o, state = operation(**inputs)
        last.append(state)
        return o, state

    setattr(module, kernel, remember)
    x = torch.randn(2, steps, WIDTH)
    layer = layer.double().eval()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * torch.randn_like(p))
        if hasattr(layer, "A_log"):
            # slower than they start, so that the last state remembers the first steps
            layer.A_log.sub_(3)
        y = layer(x, use_cache=True)[0]
    result = {f"weight.{key}": p.detach() for key, p in layer.named_parameters()} | {"x": x, "y": y}
    states = last[0] if isinstance(last[0], tuple) else (last[0],)
    result |= {f"state.{i}": state for i, state in enumerate(states)}
    return {f"{name}.{key}": value.double().contiguous().clone() for key, value in result.items()}


if __name__ == "__main__":
    torch.manual_seed(0)
    by_torch()
    sizes = {"hidden_size": WIDTH, "num_heads": HEADS}
    written = numbers(
        "linear_attention",
        linear_attn.LinearAttention(**sizes, feature_map="elu", output_norm="identity", do_feature_map_norm=True),
        linear_attn, linear_attention, "fused_recurrent_linear_attn",
    )  # fmt: skip
    written |= numbers("gla", gla.GatedLinearAttention(**sizes, gate_low_rank_dim=3), gla, gated, "fused_recurrent_gla")
    written |= numbers("deltanet", delta_net.DeltaNet(**sizes), delta_net, delta, "fused_recurrent_delta_rule")
    written |= numbers(
        "gated_deltanet", gated_deltanet.GatedDeltaNet(**sizes, head_dim=3, allow_neg_eigval=True),
        gated_deltanet, gated_delta, "fused_recurrent_gated_delta_rule",
    )  # fmt: skip
    made_by = {name: importlib.metadata.version(name) for name in ("flash-linear-attention", "fla-core")}
    save_file(written, pathlib.Path(__file__).with_name("fla.safetensors"), made_by)
