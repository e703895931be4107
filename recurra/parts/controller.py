"""A network beside an external memory: what tells one such machine from another is only what its memory does.

The long short-term memory, what it hears and what it says are the same in all of them, so they are written once.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.ops import Cell, Rule, Scan
from recurra.shapes import Float, Tensor, state_zeros

# added to squares of lengths, so that an empty slot is like nothing and has a gradient
REST = 1e-6

Memory = tuple[Float[Tensor, "B _"], ...]


def look_up(
    memory: Float[Tensor, "B N W"], key: Float[Tensor, "B H W"], strength: Float[Tensor, "B H 1"]
) -> Float[Tensor, "B H N"]:
    r"""Slots by what they hold, :math:`\operatorname{softmax}_i(\beta \cos(k, M_i))`."""
    # products first: of lengths there is one a slot, of numbers many
    likeness = key @ memory.mT * (strength * _over_length(key)) * _over_length(memory).mT
    return F.softmax(likeness, -1)


def _over_length(x: Float[Tensor, "B N W"]) -> Float[Tensor, "B N 1"]:
    """One over the length of each."""
    return ((x * x).sum(-1, keepdim=True) + REST).rsqrt()


class Controller(nn.Module):
    r"""A long short-term memory that hears what was read a step ago, and says what is done to the memory next.

    .. math::
        h_t, c_t = \operatorname{LSTM}([x_t; r_{t-1}], h_{t-1}, c_{t-1}) \qquad \xi_t = W_\xi h_t + b_\xi
    .. math::
        r_t, M_t = \operatorname{access}(\xi_t, M_{t-1}) \qquad y_t = W_y [h_t; r_t]

    State: (h, c, r), `(B, D)`, `(B, D)`, `(B, R)`, then the memory's tensors, each `(B, _)`; zeros at the start.

    Args:
        name: of the machine.
        access: what is done to the memory: numbers `(B, I)` and its state to what is read, `(B, R)`, and its new state.
        width: features in and out, and units (D).
        interface: numbers that steer the memory in a step (I).
        read: numbers that are read in a step (R).
        memory: numbers in each tensor of the memory's state.
    """

    def __init__(
        self,
        name: str,
        access: Callable[[Tensor, Memory], tuple[Tensor, Memory]],
        width: int,
        *,
        interface: int,
        read: int,
        memory: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.sizes = width, width, read, *memory

        def step(
            drive: Memory, recur: tuple[Tensor, ...], state: Memory, bias: Float[Tensor, " I"]
        ) -> tuple[Tensor, Memory]:
            (h, c, found, *stored), (both,) = state, recur
            hears, says = both.split([4 * width * (width + read), interface * width])
            gates = torch.addmm(drive[0], torch.cat([h, found], -1), hears.view(4 * width, -1).T)
            entry, keep, candidate, out = gates.chunk(4, -1)
            c = torch.addcmul(keep.sigmoid() * c, entry.sigmoid(), candidate.tanh())
            h = out.sigmoid() * c.tanh()
            found, after = access(F.linear(h, says.view(-1, width), bias), tuple(stored))
            return torch.cat([h, found], -1), (h, c, found, *after)

        self.rule = Rule(name, step, 1, 1, state=len(self.sizes), params=1, operator="own")
        self.input = nn.Linear(width, 4 * width)
        self.recurrent = nn.Parameter(torch.empty(4 * width, width + read))
        self.interface = nn.Linear(width, interface)
        self.out = nn.Linear(width + read, width, bias=False)
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
        both = torch.cat([self.recurrent.flatten(), self.interface.weight.flatten()])
        record = Cell(
            self.rule, x, both, self.interface.bias[None],
            input_weight=self.input.weight, bias=self.input.bias,
        )  # fmt: skip
        heard, state = self.scan(record, state, clock)
        return self.out(heard), state
