"""LSTM against torch.nn.LSTM, with projection too; peepholes against onnx and against the equations by hand."""

import math
import pathlib

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from recurra import use
from recurra.mixers.cell.lstm import LSTM

D = 5
NUMBERS = pathlib.Path(__file__).parents[2] / "oracles" / "cells.safetensors"


@pytest.mark.parametrize("way", ["torch", "loop"])
@pytest.mark.parametrize("hidden", [D, 9])
def test_outputs_states_and_gradients_are_torchs(hidden, way):
    mixer = LSTM(D, hidden=hidden).double()
    project = 0 if hidden == D else D
    oracle = torch.nn.LSTM(D, hidden, proj_size=project, batch_first=True, dtype=torch.float64)
    cell = mixer.cell
    pairs = [
        (cell.input_weight, oracle.weight_ih_l0),
        (cell.weight, oracle.weight_hh_l0),
        (cell.bias, oracle.bias_ih_l0),
    ]
    if project:
        pairs.append((cell.project, oracle.weight_hr_l0))
    with torch.no_grad():
        for ours, theirs in pairs:
            ours.copy_(theirs.view_as(ours))
        cell.bias += oracle.bias_hh_l0
    x = torch.randn(3, 11, D, dtype=torch.float64, requires_grad=True)
    h, c = torch.randn(3, D, dtype=torch.float64), torch.randn(3, hidden, dtype=torch.float64)
    want, (last_h, last_c) = oracle(x, (h[None], c[None]))
    with use(way):
        first, state = mixer(x[:, :4], (h, c))
        # several tokens on from a carried state: where other libraries go wrong
        second, state = mixer(x[:, 4:], state)
    got = torch.cat([first, second], 1)
    assert_close(got, want)
    assert_close(state, (last_h[0], last_c[0]))
    ours = torch.autograd.grad(got.sin().sum() + state[1].sum(), [x, *(a for a, _ in pairs)])
    theirs = torch.autograd.grad(want.sin().sum() + last_c.sum(), [x, *(b for _, b in pairs)])
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a.reshape(b.shape), b)


def _peepholes():
    """Onnx's numbers, and the mixer that has its weights."""
    n = {key[5:]: x for key, x in load_file(NUMBERS).items() if key.startswith("LSTM.")}
    width = n["h"].shape[-1]
    mixer = LSTM(width, peepholes=True).double()
    cell = mixer.cell
    order = [0, 2, 3, 1]  # theirs: input, output, forget, candidate
    with torch.no_grad():
        cell.input_weight.copy_(n["w"].view(4, width, width)[order].flatten(0, 1))
        cell.weight.copy_(n["r"].view(4, 1, width, width)[order])
        cell.bias.copy_(n["b"].view(2, 4, width).sum(0)[order].flatten())
        cell.params.copy_(n["p"].view(3, width)[[0, 2, 1]])
    return n, mixer


def test_peepholes_are_onnxs():
    n, mixer = _peepholes()
    x = n["x"].transpose(0, 1)
    first, state = mixer(x[:, :3], (n["h"][0], n["c"][0]))
    second, state = mixer(x[:, 3:], state)
    assert_close(torch.cat([first, second], 1), n["y"][:, 0].transpose(0, 1))
    assert_close(state[0], n["y_h"][0])


def test_peepholes_by_hand():
    """One step of the equations, unit by unit in plain Python: the output gate sees the new cell."""
    n, mixer = _peepholes()
    width = n["h"].shape[-1]
    w, r, b = (n[k].tolist()[0] for k in "wrb")
    p, x, h, c = n["p"].tolist()[0], n["x"][0, 0].tolist(), n["h"][0, 0].tolist(), n["c"][0, 0].tolist()

    def before(gate, unit):
        row = gate * width + unit
        return (
            sum(a * z for a, z in zip(w[row], x, strict=True))
            + sum(a * z for a, z in zip(r[row], h, strict=True))
            + b[row]
            + b[4 * width + row]
        )

    def sigmoid(z):
        return 1 / (1 + math.exp(-z))

    hidden, cells = [], []
    for unit in range(width):
        i = sigmoid(before(0, unit) + p[unit] * c[unit])
        f = sigmoid(before(2, unit) + p[2 * width + unit] * c[unit])
        cell = f * c[unit] + i * math.tanh(before(3, unit))
        o = sigmoid(before(1, unit) + p[width + unit] * cell)
        cells.append(cell)
        hidden.append(o * math.tanh(cell))
    y, state = mixer(n["x"][:1, :1], (n["h"][0, :1], n["c"][0, :1]))
    assert_close(y[0, 0].tolist(), hidden)
    assert_close([s[0].tolist() for s in state], [hidden, cells])


def test_the_forget_bias_is_added_in_one_place():
    bias = LSTM(D, hidden=9, forget_bias=2.5).cell.bias
    assert_close(bias.view(4, 9).sum(1), torch.tensor([0.0, 22.5, 0.0, 0.0]))


def test_sizes_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="units is 0: it must be at least 1"):
        LSTM(D, hidden=0)
