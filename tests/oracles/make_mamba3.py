"""Write mamba3.safetensors: the authors' Mamba-3 module, with one key a step and with three, in float64.

    git clone https://github.com/state-spaces/mamba (commit e9594ce)
    pip install einops
    python tests/oracles/make_mamba3.py mamba

The module runs as it is, but for its GPU kernels: the recurrences are the step references of its own tests, and the
norm is torch's. Their decays are made slower than they start, so that the last state remembers the first steps.
"""

import ast
import math
import pathlib
import sys
import types
from typing import Optional

import torch
from einops import rearrange, repeat
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

torch.float32 = torch.float64
torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double

STEPS = 40


class Norm(nn.Module):
    def __init__(self, width, eps=1e-5, **_):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


def function(path, name):
    """One function of a file, whatever the others need."""
    tree = ast.parse(pathlib.Path(path).read_text())
    body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    scope = {
        "torch": torch, "Tensor": torch.Tensor, "math": math, "F": F, "rearrange": rearrange, "repeat": repeat,
        "Optional": Optional, "Tuple": tuple,
    }  # fmt: skip
    exec(compile(ast.Module(body, []), str(path), "exec"), scope)
    return scope[name]


def module(root, siso, mimo):
    """Their module's file, with kernels replaced."""
    for name, part in {
        "layernorm_gated": {"RMSNorm": Norm},
        "mamba3.mamba3_siso_combined": {"mamba3_siso_combined": siso},
        "mamba3.mamba3_mimo_rotary_step": {"apply_rotary_qk_inference_fwd": None},
    }.items():
        sys.modules[f"mamba_ssm.ops.triton.{name}"] = fake = types.ModuleType(name)
        vars(fake).update(part)
    sys.modules["mamba_ssm.ops.tilelang.mamba3.mamba3_mimo"] = fake = types.ModuleType("mimo")
    fake.mamba3_mimo = mimo
    theirs = types.ModuleType("mamba3")
    exec(compile(pathlib.Path(root, "mamba_ssm/modules/mamba3.py").read_text(), "mamba3.py", "exec"), vars(theirs))
    return theirs


if __name__ == "__main__":
    root = sys.argv[1]
    one = function(f"{root}/tests/ops/triton/test_mamba3_siso.py", "mamba3_siso_step_ref")
    many = function(f"{root}/tests/ops/tilelang/test_mamba3_mimo.py", "mamba3_MIMO_step_ref")
    last = []

    def siso(Q, K, V, ADT, DT, Trap, Q_bias, K_bias, Angles, D, Z, **_):
        out, state = one(Q, K, V, ADT, DT, Trap, Q_bias, K_bias, Angles, D, Z)
        last.append(state)
        return out

    def mimo(Q, K, V, ADT, DT, Trap, Q_bias, K_bias, Angles, MIMO_V, MIMO_Z, MIMO_Out, D, Z, **_):
        out, state = many(Q, K, V, ADT, DT, Trap, Q_bias, K_bias, Angles, MIMO_V, MIMO_Out, D, Z, MIMO_Z)
        last.append(state)
        return out

    theirs = module(root, siso, mimo)
    written = {}
    for rank, groups, fraction in ((1, 2, 0.5), (3, 1, 1.0)):
        torch.manual_seed(rank)
        layer = theirs.Mamba3(
            8, d_state=8, headdim=4, ngroups=groups, rope_fraction=fraction, is_mimo=rank > 1, mimo_rank=rank
        ).double()  # fmt: skip
        x = torch.randn(2, STEPS, 8)
        with torch.no_grad():
            for p in layer.parameters():
                p.add_(0.2 * torch.randn_like(p))
            y = layer(x)
        result = {f"weight.{key}": p.detach() for key, p in layer.named_parameters()} | {"x": x, "y": y}
        result |= dict(zip(("phase", "memory", "key", "value"), last.pop(), strict=True))
        written |= {f"{rank}.{key}": value.double().contiguous().clone() for key, value in result.items()}
    save_file(written, pathlib.Path(__file__).with_name("mamba3.safetensors"), {"state-spaces/mamba": "e9594ce"})
