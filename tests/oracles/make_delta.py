"""Write delta.safetensors: KDA, Comba, Gated DeltaProduct and RWKV-7, their weights, inputs, outputs and states.

    pip install flash-linear-attention==0.6.0 fla-core==0.6.0 triton transformers rwkv==0.8.32
    FLA_USE_COMPILE=0 python tests/oracles/make_delta.py

The layers are flash-linear-attention's, run as `make_fla.py` does, in float64: their recurrences are that library's own
naive operations. Comba's kernels bring its erase key to length one a second time, by which `decay` has no effect on the
erasure; as in the paper, it has here: the erase key is divided by the length of the key.

RWKV-7 is stored a second time as the rwkv package, its authors' own, computes it, but for the epsilon in the length of
its keys. That package writes exp(-0.5) with six digits, so these numbers agree to 1e-6 and not to 1e-12.
"""

import importlib.metadata
import os
import pathlib
import warnings

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

os.environ |= {"RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0", "RWKV_V7_ON": "1", "FLA_USE_COMPILE": "0"}
warnings.simplefilter("ignore")
from fla.layers import comba, gated_deltaproduct, kda, rwkv7  # noqa: E402
from fla.modules import GroupNorm  # noqa: E402
from fla.modules.token_shift import token_shift_ref  # noqa: E402
from fla.ops.comba.naive import naive_chunk_comba  # noqa: E402
from fla.ops.gated_delta_product.naive import naive_recurrent_gated_delta_product  # noqa: E402
from fla.ops.generalized_delta_rule.dplr.naive import dplr_recurrence  # noqa: E402
from fla.ops.kda.gate import naive_kda_gate  # noqa: E402
from fla.ops.kda.naive import naive_recurrent_kda  # noqa: E402
from fla.ops.rwkv7.fused_addcmul import torch_addcmul_rwkv7  # noqa: E402
from fla.ops.rwkv7.fused_k_update import k_update_ref  # noqa: E402
from fla.ops.rwkv7.gate_output_correction import gate_output_correction_ref  # noqa: E402
from make_fla import HEADS, STEPS, WIDTH, by_torch, numbers, unit  # noqa: E402

# as in `make_fla.py`, for the operations that know the type by its other name
torch.float = torch.float64

SIZE = WIDTH // HEADS
NAMES = ["receptance", "key", "value", "output"]


def kimi(q, k, v, g, beta, A_log, dt_bias, **_):
    g = naive_kda_gate(g, A_log, dt_bias, torch.float64)
    return naive_recurrent_kda(unit(q), unit(k), v, g, beta.sigmoid(), output_final_state=True)


def closed_loop(q, k, v, p, g, beta, **_):
    p = p * torch.rsqrt(k.square().sum(-1, keepdim=True) + 1e-6)
    return naive_chunk_comba(unit(q), unit(k), v, p, g, beta, output_final_state=True)


def product(q, k, v, g, beta, num_householder, **_):
    scaled = unit(q) * q.shape[-1] ** -0.5
    return naive_recurrent_gated_delta_product(
        scaled, unit(k), v, g, beta, 1.0, None, output_final_state=True, num_householder=num_householder
    )


def goose(r, w, k, v, kk, a, **_):
    parts = (r * r.shape[-1] ** 0.5, k, v, -kk, kk * a, w)
    o, state = dplr_recurrence(*(x.transpose(1, 2) for x in parts))
    return o.transpose(1, 2), state


def rwkv7_of_fla():
    """Two layers, of which the second reads the values of the first."""
    rwkv7.token_shift = lambda x, cu_seqlens, cache, **_: (token_shift_ref(x), x[:, -1])
    rwkv7.l2_norm, rwkv7.fused_addcmul_rwkv7, rwkv7.fused_k_rwkv7 = unit, torch_addcmul_rwkv7, k_update_ref
    rwkv7.gate_output_correction = gate_output_correction_ref
    GroupNorm.forward = lambda self, x: F.group_norm(
        x.flatten(0, 1), self.num_groups, self.weight, self.bias, self.eps
    ).view_as(x)
    states = []

    def remember(**inputs):
        o, state = goose(**inputs)
        states.append(state)
        return o, state

    rwkv7.fused_mul_recurrent_rwkv7 = remember
    written, first = {}, None
    for index in range(2):
        layer = rwkv7.RWKV7Attention(
            hidden_size=WIDTH, head_dim=SIZE, norm_eps=64e-5 / SIZE, fuse_norm=True, layer_idx=index,
            num_hidden_layers=2, decay_low_rank_dim=3, gate_low_rank_dim=5, a_low_rank_dim=2, v_low_rank_dim=4,
        ).double().eval()  # fmt: skip
        x = torch.randn(2, STEPS, WIDTH)
        with torch.no_grad():
            for p in layer.parameters():
                p.add_(0.2 * torch.randn_like(p))
            y, _, _, first = layer(x, v_first=first, use_cache=True)
        result = {f"weight.{key}": p for key, p in layer.named_parameters()}
        result |= {"x": x, "y": y, "state": states[-1], "first": first}
        written |= {f"rwkv7.{index}.{key}": value.detach().contiguous().clone() for key, value in result.items()}
    return written


def rwkv7_of_rwkv():
    """The same, of one sequence."""
    # a compiled function would not see that `float` is `double`
    torch.jit.script = lambda function: function
    F.normalize = lambda x, **_: unit(x)
    from rwkv.model import RWKV_x070_TMix_seq

    written, first = {}, None
    for index in range(2):
        w = {f"x_{name}": torch.rand(WIDTH) for name in "rwkvag"}
        for name, rank in {"w": 3, "a": 2, "v": 4}.items():
            w |= {f"{name}0": torch.randn(WIDTH), f"{name}1": torch.randn(WIDTH, rank)}
            w |= {f"{name}2": 0.5 * torch.randn(rank, WIDTH)}
        w |= {"g1": torch.randn(WIDTH, 5), "g2": torch.randn(5, WIDTH)}
        w |= {"k_k": torch.randn(WIDTH), "k_a": torch.randn(WIDTH), "r_k": torch.randn(WIDTH)}
        w |= {name: 0.5 * torch.randn(WIDTH, WIDTH) for name in NAMES}
        w |= {"ln_w": 1 + 0.1 * torch.randn(WIDTH), "ln_b": 0.1 * torch.randn(WIDTH)}
        x, state = torch.randn(STEPS, WIDTH), torch.zeros(HEADS, SIZE, SIZE)
        before = torch.zeros(WIDTH)
        y, _, state, first = RWKV_x070_TMix_seq(index, HEADS, SIZE, x, before, first, state, *w.values())
        result = {f"weight.{key}": value for key, value in w.items()}
        result |= {"x": x[None], "y": y[None], "state": state[None], "first": first[None]}
        written |= {f"rwkv.{index}.{key}": value.contiguous().clone() for key, value in result.items()}
    return written


if __name__ == "__main__":
    torch.manual_seed(0)
    by_torch()
    sizes = {"hidden_size": WIDTH, "num_heads": HEADS, "head_dim": 3}
    written = numbers("kda", kda.KimiDeltaAttention(**sizes, expand_v=2), kda, kimi, "fused_recurrent_kda")
    written |= numbers("comba", comba.Comba(**sizes), comba, closed_loop, "fused_recurrent_comba")
    for name, gated in {"deltaproduct": True, "ungated": False}.items():
        # their other kernel is for up to 64 steps, and is the delta rule's
        layer = gated_deltaproduct.GatedDeltaProduct(**sizes, num_householder=3, use_forget_gate=gated)
        written |= numbers(name, layer, gated_deltaproduct, product, "chunk_gated_delta_product", steps=70)
    written |= rwkv7_of_fla() | rwkv7_of_rwkv()
    made_by = {name: importlib.metadata.version(name) for name in ("flash-linear-attention", "fla-core", "rwkv")}
    save_file(written, pathlib.Path(__file__).with_name("delta.safetensors"), made_by)
