r"""From continuous to discrete time: :math:`\dot h = A h + x` held, one step long.

Each function gives the factor of h and the factor of x in :math:`h_t = \bar a\, h_{t-1} + \bar b\, x_t`, for every pair
of a rate A (real or complex, its real part below zero) and a step's length. They agree to first order in the step.
"""

import torch

from recurra.shapes import Float, Inexact, Tensor

Factors = tuple[Inexact[Tensor, "..."], Inexact[Tensor, "..."]]


def zero_order_hold(rate: Inexact[Tensor, "..."], step: Float[Tensor, "..."]) -> Factors:
    r"""Exact where x is constant during the step: :math:`e^{\Delta A}` and :math:`(e^{\Delta A} - 1) / A`.

    Args:
        rate: A; nowhere zero.
        step: the step's length, of a shape that broadcasts with the rate's.
    """
    change = torch.expm1(rate * step)
    return change + 1, change / rate


def bilinear(rate: Inexact[Tensor, "..."], step: Float[Tensor, "..."]) -> Factors:
    r"""The trapezoid's rule: :math:`(1 + \Delta A / 2) / (1 - \Delta A / 2)` and :math:`\Delta / (1 - \Delta A / 2)`.

    Args:
        rate: A.
        step: the step's length, of a shape that broadcasts with the rate's.
    """
    half = rate * step / 2
    return (1 + half) / (1 - half), step / (1 - half)
