"""Noise that a cut does not change: a function of a row's key and of how many steps it has counted, of nothing else.

A generator hands out numbers in the order in which it is asked, so pieces of a sequence, steps and rows would get
others than the whole. Here key and count are state: they travel with their row wherever it goes.
"""

import math

import torch

from recurra.shapes import Float, Int, Tensor


def normal(key: Int[Tensor, " B"], count: Int[Tensor, "B T"], units: int) -> Float[Tensor, "B T N"]:
    """Standard normal numbers, float64: of a row, a step and a unit always the same, of others independent.

    Box & Muller 1958, https://doi.org/10.1214/aoms/1177706645, of two uniform numbers from the mixing function of
    Steele et al. 2014, https://doi.org/10.1145/2660193.2660195, applied to key, count and unit one after the other.
    """
    unit = torch.arange(2 * units, device=key.device)
    mixed = _mix(_mix(_mix(key)[:, None] + count)[..., None] + unit)
    # the upper 53 bits: all that a float64 holds
    radius, angle = (((mixed >> 11) & (2**53 - 1)).double() * 2.0**-53).chunk(2, -1)
    return (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * math.pi * angle)


def _mix(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """A bijection of 64-bit numbers after which neighbours have nothing in common; products wrap round."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _down(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _down(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _down(x, 31)


def _down(x: Int[Tensor, "..."], bits: int) -> Int[Tensor, "..."]:
    """Shifted down with zeros moving in: torch's own shift keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - (1 << 64)
