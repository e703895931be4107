"""Weights move between torch.nn.LSTM and recurra.nn.LSTM in both directions; the outputs are the same."""

import torch

import recurra.nn

torch.manual_seed(0)
theirs = torch.nn.LSTM(10, 20, num_layers=2, bidirectional=True, batch_first=True)
ours = recurra.nn.LSTM(10, 20, num_layers=2, bidirectional=True, batch_first=True)
ours.load_state_dict(theirs.state_dict())
x = torch.randn(3, 50, 10)
print(f"LSTM: largest difference {float((ours(x)[0] - theirs(x)[0]).detach().abs().max()):.1e}")

# any architecture in the same calling shape
layer = recurra.nn.Recurrent("gated_deltanet", 10, 24, num_layers=2, batch_first=True)
out, state = layer(x)
more, state = layer(x, state)
print(f"gated_deltanet: {tuple(out.shape)}, then {tuple(more.shape)} from the state it left")
