"""Write ncps.safetensors: closed-form networks in their three forms and liquid networks in two wirings, in float64.

    pip install ncps==1.0.1; python tests/oracles/make_ncps.py

Cells are called step by step, with one time span for every row: their sequence layers broadcast spans over features.
The epsilon that guards a division which nothing makes zero is left out.
"""

import importlib.metadata
import pathlib

import torch
from ncps.torch.cfc_cell import CfCCell
from ncps.torch.ltc_cell import LTCCell
from ncps.wirings import AutoNCP, FullyConnected
from safetensors.torch import save_file

WIDTH, UNITS, BATCH, STEPS = 8, 14, 2, 9


def run(cell: torch.nn.Module, units: int, x: torch.Tensor, dt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs, and the state at the end."""
    h, outputs = torch.zeros(BATCH, units, dtype=torch.float64), []
    for t in range(STEPS):
        y, h = cell(x[:, t], h, dt[:, t, None])
        outputs.append(y)
    return torch.stack(outputs, 1), h


if __name__ == "__main__":
    torch.manual_seed(0)
    x = torch.randn(BATCH, STEPS, WIDTH, dtype=torch.float64)
    dt = 0.2 + 2 * torch.rand(BATCH, STEPS, dtype=torch.float64)
    cells: dict[str, tuple[torch.nn.Module, int]] = {
        mode: (CfCCell(WIDTH, WIDTH, mode, backbone_layers=0), WIDTH) for mode in ("default", "no_gate", "pure")
    }
    for name, wiring in (("full", FullyConnected(WIDTH)), ("circuit", AutoNCP(UNITS, WIDTH, 0.4))):
        cell = LTCCell(wiring, WIDTH, epsilon=0.0, implicit_param_constraints=True)
        cells[name] = (cell, wiring.units)
    numbers = {}
    for name, (cell, units) in cells.items():
        cell.double()
        with torch.no_grad():
            for p in cell.parameters():
                # masks are parameters too
                if p.requires_grad:
                    p.add_(0.1 * torch.randn_like(p))
            y, last = run(cell, units, x, dt)
        numbers |= {f"{name}.weight.{k}": v for k, v in cell.state_dict().items()}
        numbers |= {f"{name}.{k}": v for k, v in {"x": x.clone(), "dt": dt.clone(), "y": y, "last": last}.items()}
    versions = {"ncps": importlib.metadata.version("ncps"), "torch": torch.__version__}
    save_file(numbers, pathlib.Path(__file__).with_name("ncps.safetensors"), versions)
