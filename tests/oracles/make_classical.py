"""Write classical.safetensors: weights, inputs and outputs of six classical and diagonal cells, in float64.

pip install torchrecurrent==0.2.5 torch-eunn==0.2.1 typing-inspect; python tests/oracles/make_classical.py ELSTM NEWTON,
of clones of https://github.com/IDSIA/rtrl-elstm at b56cade7dd04a0a69718fd53603994f51a5282d5 and of
https://github.com/xaviergonzalez/ml-pararnn, a copy of the authors', at 369e27c8f03cc95db82889186bf9e59f622473b2.

MGU, the recurrent highway network and IndRNN are torchrecurrent's cells, step after step. Of torch-eunn there is the
matrix alone, its phases at zero and the rotation that joins its ends too. ParaGRU and ParaLSTM are the authors' step;
their kernels are asked for on import, and not needed for it.
"""

import functools
import importlib.metadata
import pathlib
import sys
import types

import torch
from safetensors.torch import save_file
from torch import nn
from torch_eunn import EUNN
from torchrecurrent import IndRNNCell, MGUCell, base

# the highway network of this version names a base that was renamed, for its layer; the cell is whole
base.BaseRecurrentLayer = nn.Module
from torchrecurrent.cells import rhn_cell  # noqa: E402

WIDTH, STEPS, DEPTH, LAYERS = 8, 20, 3, 4


def weights(layer):
    return {f"weight.{name}": p.detach() for name, p in layer.named_parameters()}


def scattered(layer):
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(0.5 * torch.randn_like(p))
    return layer


def run(step, state, x):
    """Every state, and the last."""
    states = []
    with torch.no_grad():
        for now in x.unbind(1):
            state = step(now, state)
            states.append(state)
    return torch.stack(states, 1)


def stepped(cell):
    cell, x, start = scattered(cell), torch.randn(2, STEPS, WIDTH), torch.randn(2, WIDTH)
    return weights(cell) | {"x": x, "start": start, "y": run(cell, start, x)}


def highway():
    # the package's own start of its weights fails: it calls what is not there
    rhn_cell.RHNCellUnit.init_weights = lambda self: None
    return stepped(rhn_cell.RHNCell(WIDTH, WIDTH, depth=DEPTH))


def rotations():
    layer = EUNN(WIDTH, capacity=LAYERS)
    with torch.no_grad():
        layer.angles[::2] = 0
        layer.angles[-1, 1::2] = 0
        columns = torch.stack([torch.eye(WIDTH), torch.zeros(WIDTH, WIDTH)], -1)
        turned = layer(columns)
    return {"angles": layer.angles.detach()[1::2], "matrix": turned[..., 0].T}


def elementwise(path):
    sys.path.insert(0, str(pathlib.Path(path) / "diagnostic"))
    from layers import QuasiLSTMlayer

    layer, gate = scattered(QuasiLSTMlayer(WIDTH, WIDTH)), scattered(nn.Linear(2 * WIDTH, WIDTH))
    x, start = torch.randn(2, STEPS, WIDTH), torch.randn(2, WIDTH)
    with torch.no_grad():
        cell = layer(x.transpose(0, 1), start[None]).transpose(0, 1)
        y = cell * torch.sigmoid(gate(torch.cat([x, cell], -1)))
    gates = {f"weight.gate.{name}": p.detach() for name, p in gate.named_parameters()}
    return weights(layer) | gates | {"x": x, "start": start, "cell": cell, "y": y}


def newton(path):
    sys.path.insert(0, path)
    torch.ops.load_library = lambda _: None
    torch.library.register_fake = lambda _: lambda function: function
    pathlib.Path.glob = lambda self, _: iter(["nothing"])
    sys.modules["parallel_reduce_cuda"] = types.ModuleType("parallel_reduce_cuda")
    from pararnn.parallel_reduction import parallel_reduction

    # newer Pythons refuse a default that can change, which they take from this
    parallel_reduction.NewtonConfig.__hash__ = object.__hash__
    from pararnn.rnn_cell.gru_diag_mh import GRUDiagMHImpl, GRUDiagMHSystemParameters
    from pararnn.rnn_cell.lstm_cifg_diag_mh import LSTMCIFGDiagMHImpl, LSTMCIFGDiagMHSystemParameters

    x, sigmoid, tanh = torch.randn(2, STEPS, WIDTH), torch.sigmoid, torch.tanh
    diagonal, entering, bias = torch.randn(3, WIDTH), torch.randn(1, WIDTH, 3, WIDTH), torch.randn(3, WIDTH)
    start, peepholes = torch.randn(2, 2 * WIDTH), torch.randn(2, WIDTH)
    own = {"A": diagonal, "B": 0.4 * entering, "b": bias}
    gru = GRUDiagMHSystemParameters(**own, **_nonlinear("update", "reset", "state", functions=(sigmoid, sigmoid, tanh)))
    lstm = LSTMCIFGDiagMHSystemParameters(
        **own, C=peepholes, **_nonlinear("f", "o", "c", "state", functions=(sigmoid, sigmoid, tanh, tanh))
    )
    both = {}
    for name, cell, parameters, first in (
        ("para_gru", GRUDiagMHImpl, gru, start[:, :WIDTH]),
        ("para_lstm", LSTMCIFGDiagMHImpl, lstm, start),
    ):
        states = run(functools.partial(cell.recurrence_step, system_parameters=parameters), first, x)
        both[name] = {f"weight.{key}": value for key, value in own.items()} | {"x": x, "start": first, "states": states}
    both["para_lstm"]["weight.C"] = peepholes
    return both


def _nonlinear(*names, functions):
    """The functions by the names that the authors give them; a step asks for no derivatives."""
    given = {f"nonlin_{name}": function for name, function in zip(names, functions, strict=True)}
    return given | {f"derivative_{name}": None for name in given}


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    layers = {
        "mgu": stepped(MGUCell(WIDTH, WIDTH)),
        "indrnn": stepped(IndRNNCell(WIDTH, WIDTH, nonlinearity="relu")),
        "rhn": highway(),
        "rotations": rotations(),
        "elstm": elementwise(sys.argv[1]),
        **newton(sys.argv[2]),
    }
    written = {f"{name}.{key}": v.contiguous().clone() for name, layer in layers.items() for key, v in layer.items()}
    made_by = {name: importlib.metadata.version(name) for name in ("torchrecurrent", "torch-eunn")}
    made_by["rtrl-elstm"] = "b56cade7dd04a0a69718fd53603994f51a5282d5"
    made_by["ml-pararnn"] = "369e27c8f03cc95db82889186bf9e59f622473b2"
    save_file(written, pathlib.Path(__file__).with_name("classical.safetensors"), made_by)
