"""Write retnet.safetensors: the retention layer of torchscale, its weights, inputs and outputs, in float64.

    pip install --no-deps torchscale==0.3.0; python tests/oracles/make_retnet.py

`y` is its parallel form; `stepped` and `memory` are its recurrent form, one step at a time, with the running scale that
it divides its memory by multiplied back. The norm's epsilon is zero, so that the scale cancels exactly. The angles and
decays that it is given are made here, in float64, as its RetNetRelPos makes them in float32.
"""

import importlib.metadata
import pathlib
import types

import torch
from safetensors.torch import save_file
from torchscale.component.multiscale_retention import MultiScaleRetention

torch.Tensor.float = torch.Tensor.double
torch.set_default_dtype(torch.float64)

WIDTH, HEADS, STEPS = 12, 3, 25

if __name__ == "__main__":
    torch.manual_seed(0)
    args = types.SimpleNamespace(multiway=False, layernorm_eps=0.0)
    layer = MultiScaleRetention(args, WIDTH, 2 * WIDTH, HEADS)
    angle = (10000 ** -torch.linspace(0, 1, WIDTH // HEADS // 2)).repeat_interleave(2)
    decay = torch.log(1 - 2 ** (-5 - torch.arange(HEADS, dtype=torch.float64)))
    step = torch.arange(STEPS)
    turn = step[:, None] * angle
    lag = step[:, None] - step
    mask = torch.where(lag >= 0, torch.exp(lag * decay[:, None, None]), 0)
    mask = mask / mask.sum(-1, keepdim=True).sqrt()

    x, memory = torch.randn(2, STEPS, WIDTH), {}
    with torch.no_grad():
        y = layer(x, ((turn.sin(), turn.cos()), mask))
        pieces = [
            layer(x[:, t : t + 1], ((turn[t].sin(), turn[t].cos()), decay.exp()), incremental_state=memory)
            for t in range(STEPS)
        ]
    numbers = {f"weight.{name}": p.detach() for name, p in layer.named_parameters()}
    numbers |= {"x": x, "y": y, "stepped": torch.cat(pieces, 1)}
    numbers["memory"] = memory["prev_key_value"] * memory["scale"].sqrt()[:, None, None]
    made_by = {"package": "torchscale", "version": importlib.metadata.version("torchscale")}
    numbers = {name: value.contiguous().clone() for name, value in numbers.items()}
    save_file(numbers, pathlib.Path(__file__).with_name("retnet.safetensors"), made_by)
