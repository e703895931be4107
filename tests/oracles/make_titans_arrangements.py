"""Write titans_arrangements.safetensors: titans-pytorch's windowed attention and its memory, beside and in series.

    pip install titans-pytorch==0.5.5; python tests/oracles/make_titans_arrangements.py

In float64. The memory is that of make_titans.py. The package has no arrangement but its own, so its two pieces are put
together here as the paper has them. Its attention asks persistent keys with queries that are turned by position, so
these keys are zero and only their values are random; its window is a step longer than its segment.
"""

import importlib.metadata
import pathlib
from functools import partial

import torch
from safetensors.torch import save_file
from titans_pytorch import NeuralMemory
from titans_pytorch.mac_transformer import SegmentedAttention
from torch import nn
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)

WIDTH, HEADS, CHUNK, SEGMENT, TOKENS, STEPS = 8, 2, 5, 4, 3, 17

if __name__ == "__main__":
    torch.manual_seed(0)
    size = WIDTH // HEADS
    memory = NeuralMemory(
        WIDTH, dim_head=size, heads=HEADS, chunk_size=1, batch_size=CHUNK, activation=nn.SiLU(), pre_rmsnorm=False,
        qk_rmsnorm=True, post_rmsnorm=True, mem_model_norm_add_residual=False,
        default_model_kwargs={"depth": 2, "expansion_factor": 3.0},
    )  # fmt: skip
    for norm in (memory.q_norm, memory.k_norm):
        norm.rmsnorm.eps = 1e-6 / size
        norm.gamma.data.fill_(size**-0.5 - 1)
    memory.multihead_rmsnorm.rmsnorm.eps = 1e-5
    attention = SegmentedAttention(WIDTH, SEGMENT, TOKENS, dim_head=size, heads=HEADS, sliding=True)
    attention.norm = nn.Identity()
    # both go through float32
    attention.rotary_emb.freqs = nn.Parameter(10000.0 ** -(torch.arange(0, size, 2) / size), requires_grad=False)
    attention.attend.attn_fn = partial(F.softmax, dim=-1, dtype=torch.float64)
    attended, remembered = (nn.RMSNorm(WIDTH, eps=1e-5) for _ in range(2))
    with torch.no_grad():
        attention.persistent_memory[1].normal_()
        for norm in (attended, remembered):
            norm.weight.normal_(1, 0.3)
        x = torch.randn(2, STEPS, WIDTH)
        said = memory(x)[0]
        gate = attended(attention(x)[0]) * remembered(said).sigmoid()
        layer = attention(said)[0]
    weights = {f"memory.{name}": p for name, p in memory.named_parameters() if not name.startswith("memory_model.")}
    weights |= {f"attention.{name}": p for name, p in attention.named_parameters()}
    weights |= {"attended": attended.weight, "remembered": remembered.weight}
    numbers = {f"weight.{name}": p for name, p in weights.items()} | {"x": x, "gate": gate, "layer": layer}
    numbers = {name: value.detach().contiguous().clone() for name, value in numbers.items()}
    made_by = {"package": "titans-pytorch", "version": importlib.metadata.version("titans-pytorch")}
    save_file(numbers, pathlib.Path(__file__).with_name("titans_arrangements.safetensors"), made_by)
