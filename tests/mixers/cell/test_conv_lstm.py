"""ConvLSTM against keras (tests/oracles/make_conv_lstm.py), which has no peepholes; those by the LSTM that has them.

With kernels of one pixel a convolution is a product, and every pixel is the LSTM with peepholes that
tests/mixers/cell/test_lstm.py holds against onnx.
"""

import pytest
import torch
from oracles.stored import numbers
from torch.testing import assert_close

from recurra.mixers.cell import conv_lstm
from recurra.mixers.cell.conv_lstm import ConvLSTM
from recurra.mixers.cell.lstm import LSTM


def test_equals_keras():
    weights, stored = numbers("conv_lstm")
    mixer = ConvLSTM(24, channels=2, height=3).double()
    mixer.load_state_dict(
        {
            "input.weight": weights["input"],
            "input.bias": weights["bias"],
            "weight": weights["recurrent"],
            "peepholes": torch.zeros(3, 24),
        }
    )
    y, (h, c) = mixer(stored["x"].flatten(2))
    assert_close(y, stored["y"].flatten(2), rtol=1e-12, atol=1e-12)
    assert_close(h, stored["h"].flatten(1), rtol=1e-12, atol=1e-12)
    assert_close(c, stored["c"].flatten(1), rtol=1e-12, atol=1e-12)


def test_kernels_of_one_pixel_are_an_lstm_with_peepholes_in_each():
    mixer = ConvLSTM(24, channels=4, height=2, size=1).double()
    with torch.no_grad():
        mixer.peepholes.normal_()
    x = torch.randn(2, 7, 24, dtype=torch.float64)
    y = mixer(x)[0].unflatten(-1, (4, 6))
    for pixel in range(6):
        lstm = LSTM(4, peepholes=True).double()
        lstm.load_state_dict(
            {
                "cell.input_weight": mixer.input.weight[..., 0, 0],
                "cell.bias": mixer.input.bias,
                "cell.weight": mixer.weight[..., 0, 0].unflatten(0, (4, 1, 4)),
                "cell.params": mixer.peepholes.unflatten(-1, (4, 6))[..., pixel],
            }
        )
        assert_close(y[..., pixel], lstm(x.unflatten(-1, (4, 6))[..., pixel])[0])


@pytest.mark.parametrize("grid", [{"channels": 2, "height": 3}, {"size": 5}])
def test_a_grid_too_large_to_write_its_convolution_out_gives_the_same(grid, monkeypatch):
    mixer = ConvLSTM(24, **grid).double()
    x, weight = torch.randn(2, 2, 6, 24, dtype=torch.float64)
    wanted = [x.requires_grad_(), *mixer.parameters()]
    written = torch.autograd.grad((mixer(x)[0] * weight).sum(), wanted)
    y = mixer(x)[0]
    monkeypatch.setattr(conv_lstm, "SMALL", 0)
    assert_close(mixer(x)[0], y)
    assert_close(torch.autograd.grad((mixer(x)[0] * weight).sum(), wanted), written)


def test_a_kernel_is_no_larger_than_what_a_pixel_can_see():
    assert ConvLSTM(16, size=5).weight.shape == (16, 4, 1, 5)
    assert ConvLSTM(16, height=2, size=5).weight.shape == (16, 4, 3, 3)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match=r"width is 18: it must be a multiple of channels x height, which is 4 x 1"):
        ConvLSTM(18)
    with pytest.raises(ValueError, match="size is 4: it must be odd"):
        ConvLSTM(16, size=4)
