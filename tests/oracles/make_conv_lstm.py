"""Write conv_lstm.safetensors: keras's ConvLSTM2D, which has no peepholes, in float64.

    pip install keras==3.15.1; KERAS_BACKEND=torch python tests/oracles/make_conv_lstm.py

Gates in keras's order, which is ours: input, forget, candidate, output. Pictures are stored with channels first.
"""

import importlib.metadata
import pathlib

import keras
import torch
from safetensors.torch import save_file

CHANNELS, HEIGHT, COLUMNS, BATCH, STEPS = 2, 3, 4, 2, 6

if __name__ == "__main__":
    torch.manual_seed(0)
    keras.backend.set_floatx("float64")
    layer = keras.layers.ConvLSTM2D(
        CHANNELS, 3, padding="same", data_format="channels_last", recurrent_activation="sigmoid",
        return_sequences=True, return_state=True,
    )  # fmt: skip
    x = torch.randn(BATCH, STEPS, CHANNELS, HEIGHT, COLUMNS, dtype=torch.float64)
    pictures = x.movedim(2, -1)
    layer(pictures)
    weights = [0.4 * torch.randn(w.shape, dtype=torch.float64) for w in layer.weights]
    layer.set_weights([w.numpy() for w in weights])
    y, h, c = (part.detach().movedim(-1, -3) for part in layer(pictures))
    # (row, column, from, to) -> (to, from, row, column)
    entering, recurrent = (w.permute(3, 2, 0, 1) for w in weights[:2])
    numbers = {"x": x, "y": y, "h": h, "c": c, "weight.input": entering, "weight.recurrent": recurrent}
    numbers |= {"weight.bias": weights[2]}
    versions = {"keras": importlib.metadata.version("keras"), "torch": torch.__version__}
    save_file(
        {k: v.contiguous() for k, v in numbers.items()},
        pathlib.Path(__file__).with_name("conv_lstm.safetensors"),
        versions,
    )
