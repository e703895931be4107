"""Write torchcde.safetensors: a controlled differential equation along a rectilinear path, by torchcde, in float64.

    pip install torchcde==0.2.5; python tests/oracles/make_torchcde.py

torchcde's rectilinear path holds the channels while time moves, then time while they jump: two pieces of unit length
an observation. The solution is asked for at the end of each jump, with dopri5 told where the path has its corners.
"""

import importlib.metadata
import pathlib

import torch
import torchcde
from safetensors.torch import save_file

CHANNELS, WIDTH, BATCH, STEPS = 2, 4, 2, 6


class Field(torch.nn.Module):
    """tanh(W_2 tanh(W_1 h + b_1) + b_2), time being the first channel, as torchcde has it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(WIDTH, WIDTH)
        self.outer = torch.nn.Linear(WIDTH, WIDTH * (CHANNELS + 1))

    def forward(self, t: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return self.outer(self.inner(h).tanh()).tanh().unflatten(-1, (CHANNELS + 1, WIDTH)).mT


if __name__ == "__main__":
    torch.manual_seed(0)
    field, start = Field().double(), torch.nn.Linear(CHANNELS, WIDTH).double()
    dt = 0.3 + torch.rand(BATCH, STEPS, dtype=torch.float64)
    x = torch.randn(BATCH, STEPS, CHANNELS, dtype=torch.float64)
    data = torch.cat([dt.cumsum(1)[..., None], x], -1)
    path = torchcde.LinearInterpolation(torchcde.linear_interpolation_coeffs(data, rectilinear=0))
    with torch.no_grad():
        y = torchcde.cdeint(
            path, field, start(x[:, 0]), path.grid_points[::2], adjoint=False, method="dopri5", rtol=1e-11, atol=1e-11,
            options={"jump_t": path.grid_points},
        )  # fmt: skip
    weights = {f"weight.field.{k}": v for k, v in field.state_dict().items()}
    weights |= {f"weight.start.{k}": v for k, v in start.state_dict().items()}
    versions = {name: importlib.metadata.version(name) for name in ("torchcde", "torchdiffeq", "torch")}
    save_file(
        {"x": x, "dt": dt, "y": y.contiguous(), **weights},
        pathlib.Path(__file__).with_name("torchcde.safetensors"),
        versions,
    )
