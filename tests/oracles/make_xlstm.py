"""Write xlstm.safetensors: an mLSTM layer and an sLSTM layer of the authors' package, in float64.

    pip install xlstm==2.0.6 mlstm_kernels==2.0.6
    python tests/oracles/make_xlstm.py

The mLSTM is run in its parallel form and step by step; the sLSTM with its plain backend.
"""

import importlib.metadata
import pathlib

import torch
from safetensors.torch import save_file
from xlstm.blocks.mlstm.layer import mLSTMLayer, mLSTMLayerConfig
from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig

WIDTH, HEADS, STEPS = 8, 2, 30


def stirred(layer):
    layer.reset_parameters()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return layer.double().eval()


def mlstm():
    config = mLSTMLayerConfig(embedding_dim=WIDTH, num_heads=HEADS, context_length=STEPS, proj_factor=2.0)
    # widths are rounded up to a multiple of 64 otherwise
    config._inner_embedding_dim = 2 * WIDTH
    layer = stirred(mLSTMLayer(config))
    x = 2 * torch.randn(2, STEPS, WIDTH)
    state, steps = {}, []
    for t in range(STEPS):
        y, state = layer.step(x[:, t : t + 1], **state)
        steps.append(y)
    memory, count, peak = state["mlstm_state"]
    return layer, {
        "x": x, "y": layer(x), "stepped": torch.cat(steps, 1), "memory": memory, "count": count, "peak": peak,
        "past": state["conv_state"][0],
    }  # fmt: skip


def slstm():
    config = sLSTMLayerConfig(embedding_dim=WIDTH, num_heads=HEADS, backend="vanilla", dtype="float64")
    layer = stirred(sLSTMLayer(config))
    x = 2 * torch.randn(2, STEPS, WIDTH)
    y, state = layer(x, return_last_state=True)
    cell = layer.slstm_cell
    return layer, {
        "x": x, "y": y, "cell": state["slstm_state"], "past": state["conv_state"],
        # head, input, gate, output; head, gate, unit
        "recurrent": cell._recurrent_kernel_int2ext(cell._recurrent_kernel_), "bias": cell._bias_int2ext(cell._bias_),
    }  # fmt: skip


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    result = {}
    with torch.no_grad():
        for name, (layer, numbers) in {"mlstm": mlstm(), "slstm": slstm()}.items():
            result |= {f"{name}.weight.{key}": p.detach().clone() for key, p in layer.named_parameters()}
            result |= {f"{name}.{key}": value.double().contiguous().clone() for key, value in numbers.items()}
    made_by = {name: importlib.metadata.version(name) for name in ("xlstm", "mlstm_kernels")}
    save_file(result, pathlib.Path(__file__).with_name("xlstm.safetensors"), made_by)
