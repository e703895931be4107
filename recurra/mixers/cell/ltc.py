"""Liquid time-constant networks, and the wiring of neural circuit policies."""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Scan, Synapse
from recurra.parts.elapsed import elapsed
from recurra.parts.wiring import circuit, full
from recurra.shapes import Float, Tensor, wide


class LTC(Mixer):
    r"""Neurons with leaks and synapses, whose time constants change with what they see.

    .. math::
        c_j\, \dot v_j = g_j (\bar v_j - v_j) + \sum_i w_{ij}\, \sigma(s_{ij} (p_i - \mu_{ij}))\, (E_{ij} - v_j)

    where p is what the synapses come from: first the inputs :math:`a \odot x_t + \beta`, then the neurons v. A step of
    the clock's `dt`, 1 where it is not given, is K fused steps of :math:`\delta = \Delta_t / K`, each explicit in the
    synapses and implicit in the voltage, so that v stays between the potentials whatever the step's length:

    .. math::
        v_j \leftarrow \frac{c_j v_j / \delta + g_j \bar v_j + \sum_i w_{ij} \sigma_{ij} E_{ij}}
        {c_j / \delta + g_j + \sum_i w_{ij} \sigma_{ij}} \qquad y_t = \gamma \odot v_{1 \ldots D} + \eta

    Hasani et al. 2021, https://doi.org/10.1609/aaai.v35i9.16936 (https://arxiv.org/abs/2006.04439), its synapses those
    of the authors' code. With `sparsity` there are only the synapses of a neural circuit policy, Lechner et al. 2020,
    https://doi.org/10.1038/s42256-020-00237-3, and the read neurons are its motors. The steps are of first order: K is
    part of the model. Unlike their code c, g and w are kept above zero by softplus, not by clipping after an update.
    State: (v,), `(B, N)`, float32.

    Args:
        width: features in and out, and neurons that are read (D).
        units: neurons (N); None: as many as `width`, and in a circuit twice as many.
        steps: fused steps in one step of the clock (K).
        sparsity: the share of its possible synapses that a neuron of a circuit lacks; None: every synapse is there.
        seed: of the wiring.

    Raises:
        ValueError: `units` is less than `width`, or in a circuit than `width` + 3; `steps` is less than 1; `sparsity`
            is outside [0, 1).
    """

    timed = True
    # quantities, none of which is nothing at zero
    undecayed = ("slope", "threshold", "conductance", "reversal")

    def __init__(
        self, width: int, *, units: int | None = None, steps: int = 6, sparsity: float | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        units = (width if sparsity is None else 2 * width) if units is None else units
        if units < width:
            raise ValueError(f"units is {units}: it must be at least width, which is {width}")
        at_least(1, steps=steps)
        generator = torch.Generator().manual_seed(seed)
        if sparsity is None:
            wiring = full(width, units, generator)
        else:
            wiring = circuit(width, units, width, sparsity, generator)
        polarity = torch.cat(wiring)
        self.steps = steps
        self.register_buffer("synapses", polarity.abs())
        self.slope = nn.Parameter(torch.empty(polarity.shape).uniform_(3, 8))
        self.threshold = nn.Parameter(torch.empty(polarity.shape).uniform_(0.3, 0.8))
        self.conductance = nn.Parameter(_raw(torch.empty(polarity.shape).uniform_(0.001, 1)))
        self.reversal = nn.Parameter(polarity.clone())
        self.leak = nn.Parameter(_raw(torch.empty(units).uniform_(0.001, 1)))
        self.rest = nn.Parameter(torch.empty(units).uniform_(-0.2, 0.2))
        self.capacitance = nn.Parameter(_raw(torch.empty(units).uniform_(0.4, 0.6)))
        self.input_scale, self.output_scale = (nn.Parameter(torch.ones(width)) for _ in range(2))
        self.input_bias, self.output_bias = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.scan = Scan()

    def initial_state(self, batch: int) -> tuple[Float[Tensor, "B N"], ...]:
        return (self.zeros(batch, len(self.rest)),)

    def mix(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B N"], ...], clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B N"], ...]]:
        width, kind = x.shape[-1], wide(x)
        seen, span = self.input_scale * x + self.input_bias, elapsed(x, clock)[..., 0]
        slope, threshold, reversal, leak, rest = (
            p.to(kind) for p in (self.slope, self.threshold, self.reversal, self.leak, self.rest)
        )
        conductance = F.softplus(self.conductance.to(kind)) * self.get_buffer("synapses")
        synapses = slope, slope * threshold, conductance * reversal, conductance
        leak, capacitance = F.softplus(leak), F.softplus(self.capacitance.to(kind))
        v, last = self.scan(Synapse(seen, span, *synapses, leak * rest, leak, capacitance, self.steps), state[0], clock)
        return self.output_scale * v[..., :width].to(x.dtype) + self.output_bias, (last,)


def _raw(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """What softplus makes x of."""
    return x.expm1().log()
