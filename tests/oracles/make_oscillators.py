"""Write oscillators.safetensors: the cell of the authors' coRNN, brainmass's HORN and discretax's LinOSS, in float64.

    pip install brainmass==0.1.1 equinox==0.13.8
    python tests/oracles/make_oscillators.py CORNN DISCRETAX

CORNN is sMNIST/network.py of https://github.com/tk-rusch/coRNN at afd81744d108a2d623761b635b4ba56770d9e05d, DISCRETAX
the folder src of https://github.com/camail-official/discretax at d74281286a3d785c37288fea478eb7d3ea5201f6, whose
package asks for another Python. brainmass's step is given the sum of its inputs, with the 1 / sqrt(D) of the paper.
"""

import importlib.metadata
import importlib.util
import pathlib
import sys

import jax
import numpy as np
import torch
from safetensors.torch import save_file

WIDTH, UNITS, STEPS = 8, 5, 11


def cornn(path: str, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Positions and velocities of its cell, step by step."""
    spec = importlib.util.spec_from_file_location("cornn", path)
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    cell = theirs.coRNNCell(WIDTH, WIDTH, 0.1, 2.5, 0.7)
    y, z, both = torch.zeros(2, WIDTH), torch.zeros(2, WIDTH), []
    for now in x.unbind(1):
        y, z = cell(now, y, z)
        both.append(torch.stack([y, z]))
    return {"weight.map": cell.i2h.weight, "weight.bias": cell.i2h.bias, "states": torch.stack(both, 2)}


def horn(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Positions and velocities of one row."""
    import brainmass
    import brainstate
    import saiunit

    brainstate.environ.set(precision=64)
    weights = {"input": torch.randn(WIDTH, WIDTH), "bias": torch.randn(WIDTH), "recurrent": torch.randn(WIDTH, WIDTH)}
    frequency, damping = 0.2 + 0.5 * torch.rand(WIDTH), 0.05 * torch.rand(WIDTH)
    step = brainmass.HORNStep(WIDTH, alpha=0.3, omega=frequency.numpy(), gamma=damping.numpy())
    step.init_state()
    force, both = x[0] @ weights["input"].T + weights["bias"], []
    with brainstate.environ.context(dt=0.5 * saiunit.ms):
        for now in force.numpy():
            step.update(now + weights["recurrent"].numpy() @ np.asarray(step.y.value) / np.sqrt(WIDTH))
            both.append(np.stack([step.x.value, step.y.value]))
    weights |= {"frequency": frequency, "damping": damping}
    return {f"weight.{name}": w for name, w in weights.items()} | {"states": torch.tensor(np.stack(both, 1))}


def linoss(path: str, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Reads of every form, with what was drawn for it: before what the package's blocks bring."""
    sys.path.insert(0, path)
    from discretax.sequence_mixers.linoss import LinOSSSequenceMixer

    written = {}
    for number, form in enumerate(("IM", "IMEX", "damped")):
        key = jax.random.PRNGKey(number)
        kind = {"discretization": "IMEX" if form == "damped" else form, "damping": form == "damped"}
        layer = LinOSSSequenceMixer(WIDTH, key, state_dim=UNITS, **kind)
        names = {"stiffness": "A_diag", "damping": "G_diag", "write": "B", "read": "C", "skip": "D", "pace": "steps"}
        form = form.lower()
        for name, theirs in names.items():
            if getattr(layer, theirs) is not None:
                written[f"{form}.weight.{name}"] = torch.tensor(np.asarray(getattr(layer, theirs)))
        written[f"{form}.y"] = torch.tensor(np.stack([np.asarray(layer(row, key)) for row in x.numpy()]))
    return written


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    x = torch.randn(2, STEPS, WIDTH)
    written = {"x": x}
    with torch.no_grad():
        for name, numbers in (
            ("cornn", cornn(sys.argv[1], x)),
            ("horn", horn(x)),
            ("linoss", linoss(sys.argv[2], x)),
        ):
            written |= {f"{name}.{key}": value.detach().contiguous().clone() for key, value in numbers.items()}
    made_by = {name: importlib.metadata.version(name) for name in ("brainmass", "jax", "equinox")}
    made_by |= {"tk-rusch/coRNN": "afd81744d108a2d623761b635b4ba56770d9e05d"}
    made_by |= {"camail-official/discretax": "d74281286a3d785c37288fea478eb7d3ea5201f6"}
    save_file(written, pathlib.Path(__file__).with_name("oscillators.safetensors"), made_by)
