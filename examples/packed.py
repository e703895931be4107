"""Sequences of any lengths, padded or end to end in one row: the clock says which, the layer gives the same."""

import torch

from recurra import MIXERS, Clock

torch.manual_seed(0)
layer = MIXERS["mamba2"](32)
songs = [torch.randn(n, 32) for n in (5, 17, 9)]

with torch.no_grad():
    alone = [layer(song[None])[0][0] for song in songs]
    packed, _ = layer(torch.cat(songs)[None], None, Clock.packed([0, 5, 22, 31]))
    padded, state = layer(torch.nn.utils.rnn.pad_sequence(songs, batch_first=True), None, Clock.lengths([5, 17, 9]))

print(f"packed end to end: {float((packed[0] - torch.cat(alone)).abs().max()):.1e}")
print(f"padded: {max(float((padded[i, : len(y)] - y).abs().max()) for i, y in enumerate(alone)):.1e}")
