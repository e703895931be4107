"""Neurons whose synapses open with the voltage they come from: a sigmoid for every synapse, several times a step."""

from typing import NamedTuple

from recurra.shapes import Bool, Float, Tensor


class Synapse(NamedTuple):
    r"""N leaky neurons that hear D inputs and each other, in K fused steps.

    .. math::
        \sigma_{ij} = \operatorname{sigmoid}(s_{ij} p_i - o_{ij}) \qquad
        v_j \leftarrow \frac{c_j v_j K / \tau_t + e_j + \sum_i u_{ij} \sigma_{ij}}
        {c_j K / \tau_t + g_j + \sum_i w_{ij} \sigma_{ij}}

    K times a step, where p is the inputs :math:`x_t`, which stay, and then the neurons v. What is read is v.
    State: v, `(B, N)`.
    """

    source: Float[Tensor, "B T D"]  # x
    span: Float[Tensor, "B T"]  # tau > 0
    slope: Float[Tensor, "S N"]  # s, S = D + N
    offset: Float[Tensor, "S N"]  # o
    push: Float[Tensor, "S N"]  # u
    conductance: Float[Tensor, "S N"]  # w
    current: Float[Tensor, " N"]  # e
    leak: Float[Tensor, " N"]  # g
    capacitance: Float[Tensor, " N"]  # c > 0
    steps: int  # K
    reset: Bool[Tensor, "B T"] | None = None
    valid: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.source

    def hold(self, valid: Bool[Tensor, "B T"]) -> "Synapse":
        """The same record, told which steps did not happen: the neurons of a step that did move by themselves."""
        return self._replace(valid=valid)
