"""How weights start, in one place. Functions that end in `_` write into the tensors they are given."""

import math

import torch
from torch import nn

from recurra.shapes import Float, Tensor


@torch.no_grad()
def small_(weight: Float[Tensor, "M N"]) -> None:
    """Normal with deviation sqrt(2 / (5 N)): Nguyen & Salazar 2019, https://arxiv.org/abs/1910.05895."""
    weight.normal_(0, math.sqrt(2 / (5 * weight.shape[1])))


@torch.no_grad()
def shallow_(weight: Float[Tensor, "M N"], depth: int) -> None:
    """Normal with deviation 2 / (depth sqrt(N)), for what is added to a residual stream by one of `depth` blocks.

    Wang & Komatsuzaki 2021, https://github.com/kingoflolz/mesh-transformer-jax.
    """
    weight.normal_(0, 2 / (depth * math.sqrt(weight.shape[1])))


@torch.no_grad()
def step_bias_(bias: Float[Tensor, " D"], low: float = 1e-3, high: float = 1e-1, floor: float = 1e-4) -> None:
    """So that softplus(bias) is spread evenly over the logarithms of [low, high]: the time steps of Gu & Dao 2023."""
    step = (torch.rand_like(bias) * math.log(high / low) + math.log(low)).exp().clamp(min=floor)
    bias.copy_(step + torch.log(-torch.expm1(-step)))


@torch.no_grad()
def log_step_(log_step: Float[Tensor, " D"], low: float = 1e-3, high: float = 1e-1) -> None:
    """Even over the logarithms of [low, high]: the time steps of Gu et al. 2021, https://arxiv.org/abs/2110.13985."""
    log_step.uniform_(math.log(low), math.log(high))


@torch.no_grad()
def ring_(log_rate: Float[Tensor, " N"], log_phase: Float[Tensor, " N"], low: float, high: float, phase: float) -> None:
    """So that exp(-e^log_rate + i e^log_phase) is even over the ring of radii [low, high] and angles [0, phase].

    Orvieto et al. 2023, https://arxiv.org/abs/2303.06349.
    """
    # neither an angle of 0 nor a radius of 0 or 1 has a finite logarithm: none may be drawn, or rounded to
    area, turn = torch.rand(2, len(log_rate), dtype=torch.float64).clamp(min=torch.finfo(torch.float64).tiny)
    log_rate.copy_((-0.5 * (area * (high**2 - low**2) + low**2).log()).log())
    log_phase.copy_((phase * turn).log())


def glorot(gates: int, units: int, inputs: int) -> Float[Tensor, "GN D"]:
    """W of all gates over each other, each by itself as Glorot & Bengio 2010.

    https://proceedings.mlr.press/v9/glorot10a.html.
    """
    return torch.cat([nn.init.xavier_uniform_(torch.empty(units, inputs)) for _ in range(gates)])


@torch.no_grad()
def gates_(entering: nn.Linear, recurrent: Float[Tensor, "G N N"]) -> None:
    """The weights of gated cells, each gate by itself: W as Glorot & Bengio 2010, R orthogonal, biases zero."""
    for matrix in entering.weight.chunk(len(recurrent)):
        nn.init.xavier_uniform_(matrix)
    for matrix in recurrent:
        nn.init.orthogonal_(matrix)
    nn.init.zeros_(entering.bias)


@torch.no_grad()
def small_field_(weight: Float[Tensor, "2 N N"]) -> None:
    """The two layers of a flow: the second a tenth of the first, so that it begins near standing still."""
    for matrix, gain in zip(weight, (1.0, 0.1), strict=True):
        nn.init.xavier_uniform_(matrix, gain)
