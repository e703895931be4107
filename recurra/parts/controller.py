"""A network beside an external memory: what tells one such machine from another is only what its memory does.

The long short-term memory, what it hears and what it says are the same in all of them, so they are written once.
"""

from typing import Any

import torch
from torch import nn

from recurra.clock import Clock
from recurra.ops import Linked, Machine, Scan, Tape
from recurra.parts.linear import readable
from recurra.shapes import Float, Tensor, state_zeros


class Controller(nn.Module):
    r"""A long short-term memory that hears what was read a step ago, and says what is done to the memory next.

    .. math::
        h_t, c_t = \operatorname{LSTM}([x_t; r_{t-1}], h_{t-1}, c_{t-1}) \qquad \xi_t = W_\xi h_t + b_\xi
    .. math::
        r_t, M_t = \operatorname{access}(\xi_t, M_{t-1}) \qquad y_t = W_y [h_t; r_t]

    State: (h, c, r), `(B, D)`, `(B, D)`, `(B, R)`, then the memory's tensors, each `(B, _)`; zeros at the start.

    Args:
        width: features in and out, and units (D).
        memory: what is beside it.
    """

    def __init__(self, width: int, memory: Tape | Linked) -> None:
        super().__init__()
        self.memory = memory
        self.sizes = width, width, memory.read, *memory.state
        self.input = nn.Linear(width, 4 * width)
        self.recurrent = nn.Parameter(torch.empty(4 * width, width + memory.read))
        self.interface = nn.Linear(width, memory.interface)
        self.out = nn.Linear(width + memory.read, width, bias=False)
        self.scan = Scan()
        for gate in (*self.input.weight.chunk(4), *self.recurrent.chunk(4), self.interface.weight):
            nn.init.xavier_uniform_(gate)
        nn.init.zeros_(self.input.bias)
        # gates are input, forget, candidate, output
        nn.init.ones_(self.input.bias[width : 2 * width])
        nn.init.zeros_(self.interface.bias)

    def initial_state(self, batch: int) -> Any:
        """Nothing heard, nothing held: zeros."""
        return tuple(state_zeros(self.recurrent, batch, size) for size in self.sizes)

    def forward(self, x: Float[Tensor, "B T D"], state: Any, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], Any]:
        entering, says = readable(self, "input", "interface")
        record = Machine(self.memory, x, entering.weight, entering.bias, self.recurrent, says.weight, says.bias)
        heard, state = self.scan(record, state, clock)
        return self.out(heard), state
