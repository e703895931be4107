"""Films: the convolutions against torch's own applied frame by frame, and what the recurrent part is for."""

import torch
from torch.nn import functional as F
from torch.testing import assert_close

from recurra.models import MODELS


def test_frames_are_seen_one_by_one():
    torch.manual_seed(0)
    model = MODELS["lrcn"](inputs=[2, 9, 7], classes=3, width=16, depth=1, pattern="gru").double().eval()
    x = torch.randn(2, 5, 2, 9, 7, dtype=torch.float64)
    seen = []
    for frame in x.unbind(1):
        for layer in (model.frames.first, model.frames.second):
            frame = F.relu(F.conv2d(F.pad(frame, (1, 1, 1, 1)), layer.weight, layer.bias, stride=2))
        seen.append(F.linear(frame.flatten(1), model.frames.out.weight, model.frames.out.bias))
    features, _ = model.backbone(torch.stack(seen, 1))
    assert_close(model(x)[0], model.out(features))


def test_the_order_of_frames_matters():
    torch.manual_seed(0)
    model = MODELS["lrcn"](inputs=[1, 8, 8], classes=3, width=16, depth=1).eval()
    x = torch.randn(1, 5, 1, 8, 8)
    assert not torch.allclose(model(x)[0][:, -1], model(x.flip(1))[0][:, -1])
