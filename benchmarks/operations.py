"""How much arithmetic a layer is: what its definition computes for one step, counted, not timed.

    python -m benchmarks.operations [--only NAME,...] [--output FILE]

A layer that trains slower than torch's LSTM either does more or is slower at it: this tells which. The forward of one
sequence of the benchmark's small size runs step by step (`use("loop")`), and whatever torch computes is counted:
products as two operations for each multiplication, pointwise results and sums as one for each number, and functions
(exp, tanh, a square root) as `FUNCTION` for each, which is about what they take in vector code. Copies count nothing;
attention counts all pairs of the window, seen or not.
It is the same on every machine. Results go to benchmarks/results/operations.json.
"""

import argparse
import json
import math
import pathlib
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from benchmarks.bench import chosen
from benchmarks.sizes import SIZES
from recurra import MIXERS, use
from recurra.files import write_json
from recurra.shapes import Tensor

RESULTS = pathlib.Path(__file__).parent / "results" / "operations.json"
FUNCTION = 10
FUNCTIONS = {
    "exp", "expm1", "exp2", "log", "log1p", "log2", "tanh", "sigmoid", "sin", "cos", "sqrt", "rsqrt", "pow", "erf",
    "gelu", "silu", "softplus", "log_sigmoid_forward", "atan2", "logaddexp", "_softmax", "_log_softmax", "logsumexp",
    "logcumsumexp", "elu", "mish", "polar", "angle", "sinh", "cosh", "_safe_softmax", "glu",
}  # fmt: skip
# they make one number of many: what goes in is what is computed with
REDUCTIONS = {
    "sum", "mean", "amax", "amin", "max", "min", "argmax", "prod", "cumsum", "cumprod", "cummax", "cummin", "topk",
    "sort", "norm", "linalg_vector_norm", "var", "var_mean", "std", "native_layer_norm", "native_group_norm",
    "_softmax", "_log_softmax", "_safe_softmax", "logsumexp", "logcumsumexp", "scatter_add", "index_add", "trace",
}  # fmt: skip
# products that torch's own counter leaves out, by what goes in: of matrices (..., n, n) and (..., n, m)
SOLVES = {
    "linalg_cholesky_ex": lambda a, *_: a.numel() * a.shape[-1] // 3,
    "cholesky_solve": lambda b, a, *_: 2 * b.numel() * a.shape[-1],
    "linalg_solve_triangular": lambda a, b, *_: b.numel() * a.shape[-1],
    "linalg_matrix_exp": lambda a, *_: 20 * a.numel() * a.shape[-1],
    "_scaled_dot_product_flash_attention_for_cpu": lambda q, k, v, *_: sdpa_flop_count(q.shape, k.shape, v.shape),
}
COPIES = {"clone", "_to_copy", "copy", "copy_", "fill", "fill_", "zero_", "where", "real", "imag", "_conj"}


class Count(TorchDispatchMode):
    """Count what runs inside."""

    def __init__(self) -> None:
        super().__init__()
        self.products = self.elements = self.functions = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        name = packet.__name__.rstrip("_")
        made = result[0] if isinstance(result, tuple | list) and result else result
        if not isinstance(made, Tensor):
            return result
        given = next((x for x in args if isinstance(x, Tensor)), made)
        scale = 4 if made.is_complex() else 1
        if packet in flop_registry:
            self.products += scale * flop_registry[packet](*args, **(kwargs or {}), out_val=result)
        elif name in SOLVES:
            self.products += SOLVES[name](*[x for x in args if isinstance(x, Tensor)])
        elif name.startswith("_fft"):
            self.products += int(5 * made.numel() * max(1.0, math.log2(made.shape[-1])))
        elif packet.__name__ in COPIES or name in COPIES:
            pass
        elif name in FUNCTIONS:
            self.functions += max(made.numel(), given.numel()) if name in REDUCTIONS else made.numel()
        elif name in REDUCTIONS:
            self.elements += given.numel()
        elif torch.Tag.pointwise in func.tags:
            self.elements += scale * made.numel()
        return result

    def total(self) -> int:
        """All operations, as the module says."""
        return self.products + self.elements + FUNCTION * self.functions


def count(mixer: nn.Module, width: int, steps: int) -> dict[str, float]:
    """Operations of a step, on average over the first `steps` of one sequence."""
    x = torch.randn(1, steps, width)
    with use("loop"), torch.no_grad(), Count() as counted:
        mixer(x)
    kinds = {"products": counted.products, "elements": counted.elements, "functions": counted.functions}
    return {name: value / steps for name, value in (kinds | {"total": counted.total()}).items()}


def training(mixer: nn.Module, width: int, steps: int) -> float:
    """Operations in the products of a step, forward and backward, by chunks: what no kernel can leave out.

    Over what a machine's products reach they are the least time of a training step, were all else free.
    """
    x = torch.randn(1, steps, width, requires_grad=True)
    wanted = [x, *(p for p in mixer.parameters() if p.requires_grad)]
    with use("chunk"), Count() as counted:
        y, _ = mixer(x)
        torch.autograd.grad(y, wanted, torch.ones_like(y), allow_unused=True)
    return counted.products / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="mixers, with commas; others keep what is stored")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args()
    at = SIZES["small"]
    known = json.loads(options.output.read_text())["mixers"] if options.only and options.output.exists() else {}
    stored: dict[str, Any] = {"mixers": known}
    stored |= {"width": at.width, "steps": at.steps, "function": FUNCTION}
    for name in chosen(options.only):
        torch.manual_seed(0)
        stored["mixers"][name] = row = count(MIXERS[name](at.width), at.width, at.steps)
        print(f"{name:28s} {row['total']:12,.0f} operations a step", flush=True)
        write_json(options.output, stored)
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
