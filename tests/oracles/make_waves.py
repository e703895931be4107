"""Write waves.safetensors: the cells of the authors' wRNN and flow-equivariant network, in float64.

    python tests/oracles/make_waves.py WAVES FLOWS

WAVES is copy/conv_rnn_model.py of https://github.com/akandykeller/Wave_RNNs at
2630b88ce772a1945b69b6b369ce428202586400, FLOWS moving_mnist_fp/moving_mnist_models.py of
https://github.com/akandykeller/FERNN at 7def7bc754f7ad6a582044b456159d205c736ba1. Flows are on a plane there: one row
high, with kernels that are zero but in their middle row, it is a ring, and only velocities along it are stored.
"""

import importlib.util
import pathlib
import sys

import torch
from safetensors.torch import save_file

WIDTH, CHANNELS, FASTEST, STEPS = 12, 2, 2, 9


def load(path: str):
    """A module from a file."""
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def waves(theirs, x: torch.Tensor, act: str) -> dict[str, torch.Tensor]:
    """All states of their cell, and where its kernel starts."""
    cell = theirs.RNN_Cell(WIDTH, WIDTH // CHANNELS, CHANNELS, act=act, init="fwd")
    numbers = {"start": cell.Wy.weight.clone()}
    for p in cell.parameters():
        p.add_(0.2 * torch.randn_like(p))
    h, states = torch.zeros(2, WIDTH), []
    for now in x.unbind(1):
        h = cell(now, h)
        states.append(h)
    numbers |= {f"weight.{name}": p for name, p in cell.named_parameters()}
    return numbers | {"y": torch.stack(states, 1)}


def flows(theirs, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """All states of their cell, velocity by velocity."""
    cell = theirs.FERNN_Cell(CHANNELS, CHANNELS, v_range=FASTEST)
    for conv in (cell.conv_u, cell.conv_h):
        conv.weight[:, :, ::2] = 0
    ring = [i for i, (_, down) in enumerate(cell.v_list) if down == 0]
    frames = x.unflatten(-1, (CHANNELS, 1, -1))
    h, states = torch.zeros(2, cell.num_v, CHANNELS, 1, WIDTH // CHANNELS), []
    for now in frames.unbind(1):
        h = cell(now, h)
        states.append(h[:, ring].flatten(2))
    weights = {"input": cell.conv_u.weight[:, :, 1], "recurrent": cell.conv_h.weight[:, :, 1]}
    return {f"weight.{name}": p for name, p in weights.items()} | {"states": torch.stack(states, 1)}


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    x = torch.randn(2, STEPS, WIDTH)
    wave, written = load(sys.argv[1]), {"x": x}
    with torch.no_grad():
        for name, numbers in (
            ("tanh", waves(wave, x, "tanh")),
            ("relu", waves(wave, x, "relu")),
            ("flows", flows(load(sys.argv[2]), x)),
        ):
            written |= {f"{name}.{key}": value.contiguous().clone() for key, value in numbers.items()}
    made_by = {"akandykeller/Wave_RNNs": "2630b88ce772a1945b69b6b369ce428202586400"}
    made_by |= {"akandykeller/FERNN": "7def7bc754f7ad6a582044b456159d205c736ba1", "torch": torch.__version__}
    save_file(written, pathlib.Path(__file__).with_name("waves.safetensors"), made_by)
