"""A network beside an external memory: what tells one such machine from another is only what its memory does.

The network hears what was read a step ago, so neither can run before the other: both are in the recurrence, with
their weights.
"""

from typing import NamedTuple

from recurra.ops.machine.linked import Linked as Linked
from recurra.ops.machine.tape import Tape as Tape
from recurra.shapes import Bool, Float, Tensor


class Machine(NamedTuple):
    r"""A long short-term memory, what it hears of a memory beside it, and what it says to that.

    .. math::
        h_t, c_t = \operatorname{LSTM}(W x_t + b + R [h_{t-1}; r_{t-1}], c_{t-1}) \qquad
        r_t, M_t = \operatorname{access}(W_\xi h_t + b_\xi, M_{t-1})

    What is read is [h; r]. State: (h, c, r), `(B, D)`, `(B, D)`, `(B, R)`, then the memory's tensors, each `(B, _)`;
    all zero before the first step.
    """

    memory: Tape | Linked
    x: Float[Tensor, "B T _"]
    input: Float[Tensor, "4D _"]  # W, of gates input, forget, candidate, output
    bias: Float[Tensor, " 4D"]  # b
    recurrent: Float[Tensor, "4D DR"]  # R, of h and what was read
    interface: Float[Tensor, "I D"]
    interface_bias: Float[Tensor, " I"]
    reset: Bool[Tensor, "B T"] | None = None
    valid: Bool[Tensor, "B T"] | None = None

    @property
    def output(self) -> Tensor:
        """The input whose type the read returns in."""
        return self.x

    def hold(self, valid: Bool[Tensor, "B T"]) -> "Machine":
        """The same record, told which steps did not happen: no drive makes a nonlinear step an identity."""
        return self._replace(valid=valid)
