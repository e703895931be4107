"""A cut changes nothing: a sequence in pieces, with the state handed across, is the sequence."""

import torch

from recurra import MIXERS

torch.manual_seed(0)
x = torch.randn(2, 300, 64)
for name in ("lstm", "mamba", "retnet", "gated_deltanet", "minmax", "sliding_window"):
    mixer = MIXERS[name](64)
    with torch.no_grad():
        whole, last = mixer(x)
        head, state = mixer(x[:, :123])  # prefill
        middle, state = mixer(x[:, 123:124], state)  # one step
        tail, state = mixer(x[:, 124:], state)  # many tokens from a carried state
    pieces = torch.cat([head, middle, tail], 1)
    print(f"{name:16s} largest difference {float((pieces - whole).abs().max()):.1e}")
