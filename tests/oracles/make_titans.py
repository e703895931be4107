"""Write titans.safetensors: titans-pytorch's neural memory, its weights, inputs, outputs and last memory.

    pip install titans-pytorch==0.5.5; python tests/oracles/make_titans.py

In float64. Chunks of one step in batches of C are the rule of the paper; its other chunks are something else. The norms
of queries and keys are made the unit norm with 1e-6 inside the root, and its optional norms and residuals left out.
"""

import importlib.metadata
import pathlib

import torch
from safetensors.torch import save_file
from titans_pytorch import NeuralMemory
from torch import nn

torch.set_default_dtype(torch.float64)

WIDTH, HEADS, CHUNK, STEPS = 8, 2, 5, 17

if __name__ == "__main__":
    torch.manual_seed(0)
    size = WIDTH // HEADS
    layer = NeuralMemory(
        WIDTH, dim_head=size, heads=HEADS, chunk_size=1, batch_size=CHUNK, activation=nn.SiLU(), pre_rmsnorm=False,
        qk_rmsnorm=True, post_rmsnorm=True, mem_model_norm_add_residual=False,
        default_model_kwargs={"depth": 2, "expansion_factor": 3.0},
    )  # fmt: skip
    for norm in (layer.q_norm, layer.k_norm):
        norm.rmsnorm.eps = 1e-6 / size
        norm.gamma.data.fill_(size**-0.5 - 1)
    layer.multihead_rmsnorm.rmsnorm.eps = 1e-5
    with torch.no_grad():
        # one scale for all heads
        layer.multihead_rmsnorm.gamma.copy_(0.1 * torch.randn(size).expand_as(layer.multihead_rmsnorm.gamma))
        for linear in (layer.to_adaptive_step[0], layer.to_momentum[0], layer.to_decay_factor[0]):
            linear.bias.normal_()
        x = torch.randn(2, STEPS, WIDTH)
        y, state = layer(x)
    weights = {name: p for name, p in layer.named_parameters() if not name.startswith("memory_model.")}
    numbers = {f"weight.{name}": p for name, p in weights.items()} | {"x": x, "y": y}
    last, momentum = state.states
    for i, name in enumerate(layer.memory_model_parameter_names):
        numbers[f"memory.{i}"] = last[name].unflatten(0, (2, HEADS))
        numbers[f"momentum.{i}"] = momentum[name][0].unflatten(0, (2, HEADS))
    numbers = {name: value.detach().contiguous().clone() for name, value in numbers.items()}
    made_by = {"package": "titans-pytorch", "version": importlib.metadata.version("titans-pytorch")}
    save_file(numbers, pathlib.Path(__file__).with_name("titans.safetensors"), made_by)
