"""GRU against torch.nn.GRU (reset after the product) and onnx (before)."""

import pathlib

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from recurra import use
from recurra.mixers.cell.gru import GRU

D = 7
NUMBERS = pathlib.Path(__file__).parents[2] / "oracles" / "cells.safetensors"


@pytest.mark.parametrize("way", ["torch", "loop"])
def test_outputs_states_and_gradients_are_torchs(way):
    mixer = GRU(D).double()
    oracle = torch.nn.GRU(D, D, batch_first=True, dtype=torch.float64)
    cell = mixer.cell
    with torch.no_grad():
        cell.input_weight.copy_(oracle.weight_ih_l0)
        cell.weight.copy_(oracle.weight_hh_l0.view(3, 1, D, D))
        cell.bias.copy_(oracle.bias_ih_l0)
        cell.bias[: 2 * D] += oracle.bias_hh_l0[: 2 * D]
        cell.params[0].copy_(oracle.bias_hh_l0[2 * D :])
    x = torch.randn(3, 11, D, dtype=torch.float64, requires_grad=True)
    start = torch.randn(3, D, dtype=torch.float64)
    want, last = oracle(x, start[None])
    with use(way):
        first, state = mixer(x[:, :4], (start,))
        second, state = mixer(x[:, 4:], state)
    got = torch.cat([first, second], 1)
    assert_close(got, want)
    assert_close(state[0], last[0])
    ours = torch.autograd.grad(got.sin().sum(), [x, cell.input_weight, cell.weight, cell.bias, cell.params])
    theirs = torch.autograd.grad(
        want.sin().sum(), [x, oracle.weight_ih_l0, oracle.weight_hh_l0, oracle.bias_ih_l0, oracle.bias_hh_l0]
    )
    for a, b in zip(ours[:-1], theirs[:-1], strict=True):
        assert_close(a.reshape(b.shape), b)
    assert_close(ours[-1][0], theirs[-1][2 * D :])


def test_reset_before_the_product_is_onnxs():
    n = {key[4:]: x for key, x in load_file(NUMBERS).items() if key.startswith("GRU.")}
    width = n["h"].shape[-1]
    mixer = GRU(width, reset="before").double()
    cell = mixer.cell
    order = [1, 0, 2]  # theirs: update, reset, candidate
    with torch.no_grad():
        cell.input_weight.copy_(n["w"].view(3, width, width)[order].flatten(0, 1))
        cell.weight.copy_(n["r"].view(3, 1, width, width)[order])
        cell.bias.copy_(n["b"].view(2, 3, width).sum(0)[order].flatten())
    x = n["x"].transpose(0, 1)
    first, state = mixer(x[:, :3], (n["h"][0],))
    second, state = mixer(x[:, 3:], state)
    assert_close(torch.cat([first, second], 1), n["y"][:, 0].transpose(0, 1))
    assert_close(state[0], n["y_h"][0])


def test_the_two_conventions_differ():
    after, before = GRU(D), GRU(D, reset="before")
    before.load_state_dict(after.state_dict(), strict=False)
    x = torch.randn(1, 5, D)
    assert (after(x)[0] - before(x)[0]).abs().max() > 1e-3


def test_another_reset_is_refused():
    with pytest.raises(ValueError, match="reset is 'never': it must be one of after, before"):
        GRU(D, reset="never")
