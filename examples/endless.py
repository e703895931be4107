"""A language model that talks for ever: memory after ten thousand tokens is what it was after one thousand."""

import pathlib

import torch

from recurra.models import LanguageModel
from recurra.state import nbytes


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096


torch.manual_seed(0)
torch.set_num_threads(1)
model = LanguageModel(vocabulary=256, width=32, depth=2, pattern="mamba2,gated_deltanet").eval()
print(f"the state of one stream: {nbytes(model.initial_state(1)):,} bytes")
stream = model.stream(torch.tensor([[0]]), do_sample=True, seed=0)  # an iterator without an end
for _ in range(1_000):
    next(stream)
before = resident()
for _ in range(4_000):
    token = next(stream)
print(f"token 5,000 is {int(token)}; memory rose by {(resident() - before) / 2**20:.2f} MiB since token 1,000")
