"""TRC2: a router sends each step to a few recurrent columns; an event memory keeps what came before surprises.

All of it runs on recurrences that there are, so that steps are taken at once: a diagonal scan for the columns, slots
that fade as they are written for the event memory, and for the delay a short convolution whose taps only wait.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Diag, Scan, ShortConv
from recurra.ops.pointwise import Map, pointwise
from recurra.ops.shift import shift
from recurra.parts.conv import ShortConvolution
from recurra.parts.norms import RMSNorm, unit
from recurra.parts.slots import SlotState, attend_slots, fade
from recurra.shapes import Float, State, Tensor


def _move(step: Tensor, write: Tensor, moved: Tensor, retention: Tensor) -> tuple[Tensor, Tensor]:
    """What columns keep and take in, where they are moved."""
    kept = torch.sigmoid(step) * torch.sigmoid(retention)
    return torch.where(moved > 0, kept, 1.0), torch.where(moved > 0, (1 - kept) * write, 0.0)


def _square(content: Tensor, top_down: Tensor, share: Tensor, weight: Tensor) -> tuple[Tensor]:
    return ((content * (1 + torch.sigmoid(top_down))).square(),)


def _answer(
    content: Tensor,
    top_down: Tensor,
    share: Tensor,
    weight: Tensor,
    squares: Tensor,
    count: Tensor | int,
    epsilon: float,
) -> Tensor:
    """What a column holds, in the light of the context, normalised, as much as the router sends to it."""
    scale = share * (squares / count + epsilon).rsqrt()
    return content * (1 + torch.sigmoid(top_down)) * weight * scale


MOVE = Map("trc2_move", _move, 2)


class TRC2(Mixer):
    r"""A few of many small recurrent columns take each step, beside a memory of the events that came before surprises.

    .. math::
        \hat x_t = W_p \operatorname{conv}(x)_{t-1} + b_p \qquad
        u_t = x_t - \hat x_t / 2 \qquad
        e_t = \tfrac1D \lVert x_t - \hat x_t \rVert^2

    .. math::
        \ell_{tm} = \kappa_m^\top W_r u_t - \gamma \lVert \tanh(W_\pi u_t + b_\pi) - \pi_m \rVert^2 \qquad
        r_t = \operatorname{softmax}_{m \in \operatorname{top}_k(\ell_t)} \ell_{tm}

    .. math::
        h_{tm} = \alpha_{tm} \odot h_{t-1,m} + (1 - \alpha_{tm}) \odot B_{tm} \qquad
        \alpha_{tm} = \sigma(\Delta_{tm}) \odot \sigma(a_m)
        \\
        z_{tm} = \operatorname{norm}\bigl(W_h (C_{tm} \odot h_{tm}) \odot
        (1 + \sigma(W_g \operatorname{silu}(W_d c_t)))\bigr)

    .. math::
        \rho_{tj} = e^{\eta}\, \tfrac1\delta \textstyle\sum_{i<\delta} e_{t-i}
        \operatorname{softmax}_j(W_a u_{t-\delta}) \qquad
        K_{tj} = e^{-\rho_{tj}} K_{t-1,j} + (1 - e^{-\rho_{tj}})\, \overline{W_k u_{t-\delta}} \qquad
        V_{tj} = e^{-\rho_{tj}} V_{t-1,j} + (1 - e^{-\rho_{tj}})\, u_{t-\delta}

    .. math::
        c_t = \operatorname{norm}\bigl(W_v V_t^\top \operatorname{softmax}(\beta K_t\, \overline{W_q u_t})\bigr) \qquad
        \tilde y_t = \sum_m r_{tm} z_{tm} + c_t \qquad
        y_t = \tilde y_t + W_2 W_1 \operatorname{silu}(W_u u_t + W_y \tilde y_t + b)

    with m a column, moved only where it is among the k chosen and else held, j a slot, :math:`\Delta, B, C` linear in
    u, the bar a vector over its length, norm an RMSNorm, and the columns' places :math:`\pi_m` a grid in the square
    where they are a square number, else a circle. Khadangi 2026, https://arxiv.org/abs/2602.22479, whose design
    changed from version to version.

    Published, with equations, in version 1: the prediction and its blend of one half, the router with its places, the
    columns' coefficients and readout, the read by a unit query, and the low-rank corrective path, whose "fast weights"
    are, by its equation, none that move within a sequence: it is there for a trainer to update online. Published in
    words, in version 5, of which only the abstract was read: events are written late, if what followed was a surprise,
    and replayed.

    Unlike the paper, and unverified, since there is no code to hold it against: a step is routed by itself, not with
    its chunk, of which a mean sees ahead, so there is no convolution along chunks, and c is added as it is; a column
    goes on with :math:`\alpha` as its decay, where version 1 forgets all at each chunk and convolves within it; the
    memory's slots are written, with keys apart from values, where version 1 learns one matrix for both; and all of
    their writing is our choice: that surprise is e over the :math:`\delta` steps after an event, that it scales a rate
    instead of passing a threshold, and that a slot is chosen by content and fades by as much as it takes in. So are
    the sizes and where weights start.

    Not here: modulation by statistics of the whole sequence, which is not causal; version 1's options of
    disinhibition, a skip past each column and a second pass with refined routing; the losses of prediction and of even
    routing, and replay with its controller, which belong to training: for such a trainer V holds means of events, in
    the features they came in.

    State: (past, foreseen, recent, columns, (keys, values)): the convolution's last inputs `(B, J-1, D)`, the
    prediction of the next step `(B, D)`, u and e of the last :math:`\delta` steps `(B, delay, D + 1)`, h `(B, M, N)`,
    and the slots, `(B, 1, S, K)` and `(B, 1, S, D)`; float32 (float64 if the parameters are).

    Args:
        width: features in and out (D).
        columns: to choose from (M).
        top: columns that a step moves (k); where it is 1 their weight is 1, and the router is not taught.
        units: of each column (N).
        slots: of the event memory (S).
        key_size: features of the router's keys and of the memory's (K).
        delay: steps between an event and its writing (:math:`\delta`).
        conv: inputs that a prediction sees (J).
        hidden: units of the corrective path.
        rank: of what leaves it.
        locality: how much a column's distance counts (:math:`\gamma`).
        sharpness: of the softmax over slots (:math:`\beta`).

    Raises:
        ValueError: a size is less than 1, or `top` is more than `columns`.
    """

    undecayed = ("retention",)
    places: Tensor

    def __init__(
        self,
        width: int,
        *,
        columns: int = 8,
        top: int = 2,
        units: int = 16,
        slots: int = 16,
        key_size: int = 16,
        delay: int = 4,
        conv: int = 4,
        hidden: int = 32,
        rank: int = 8,
        locality: float = 1.0,
        sharpness: float = 8.0,
    ) -> None:
        super().__init__()
        at_least(1, columns=columns, top=top, units=units, slots=slots, key_size=key_size)
        at_least(1, delay=delay, conv=conv, hidden=hidden, rank=rank)
        if top > columns:
            raise ValueError(f"top is {top}: it must be at most the {columns} columns")
        self.top, self.delay = top, delay
        self.locality, self.sharpness = locality, sharpness
        self.conv = ShortConvolution(width, size=conv, bias=False, silu=False)
        self.predict = nn.Linear(width, width)
        self.route, self.position = nn.Linear(width, key_size, bias=False), nn.Linear(width, 2)
        self.column_key = nn.Parameter(torch.empty(columns, key_size).normal_(0, key_size**-0.5))
        self.register_buffer("places", layout(columns), persistent=False)
        self.project = nn.Linear(width, 3 * columns * units)
        self.retention = nn.Parameter(torch.linspace(0.9, 0.999, units).logit().repeat(columns, 1))
        self.readout, self.norm = nn.Linear(units, width, bias=False), RMSNorm(width)
        self.descend, self.top_down = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.address = nn.Linear(width, slots, bias=False)
        self.log_plasticity = nn.Parameter(torch.zeros(1))
        self.memory_query, self.memory_key = (nn.Linear(width, key_size, bias=False) for _ in range(2))
        self.memory_value, self.memory_norm = nn.Linear(width, width, bias=False), RMSNorm(width)
        self.mismatch, self.low = nn.Linear(2 * width, hidden), nn.Linear(hidden, rank, bias=False)
        self.high = nn.Linear(rank, width, bias=False)
        self.wait, self.scan, self.keys, self.values = Scan(), Scan(), Scan(), Scan()
        with torch.no_grad():
            # else a column would forget half of what it holds whenever it is moved
            self.project.bias[: columns * units].uniform_(2, 6)

    def initial_state(self, batch: int) -> State:
        """Nothing seen, foreseen or remembered: zeros."""
        width, (slots, key_size) = len(self.norm.weight), (self.address.out_features, self.route.out_features)
        memory = self.zeros(batch, 1, slots, key_size), self.zeros(batch, 1, slots, width)
        foreseen, recent = self.zeros(batch, width), self.zeros(batch, self.delay, width + 1)
        return self.conv.initial_state(batch), foreseen, recent, self.zeros(batch, *self.retention.shape), memory

    def mix(self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None) -> tuple[Float[Tensor, "B T D"], State]:
        """Predict, recall, move the columns that each step is sent to, correct."""
        past, foreseen, recent, columns, memory = state
        convolved, past = self.conv(x, past, clock)
        prediction, foreseen = shift(self.predict(convolved), foreseen, clock)
        u = x - prediction / 2
        surprise = (x - prediction).to(recent.dtype).square().mean(-1, keepdim=True)
        record = ShortConv(torch.cat([u.to(recent.dtype), surprise], -1), self._taps(recent), silu=False)
        late, recent = self.wait(record, recent, clock)
        context, memory = self._recall(u, late[..., :-1], late[..., -1:], memory, clock)
        y, columns = self._think(u, context, columns, clock)
        correction = self.high(self.low(F.silu(self.mismatch(torch.cat([u, y], -1)))))
        return y + correction, (past, foreseen, recent, columns, memory)

    def _taps(self, recent: Float[Tensor, "B delay F"]) -> Float[Tensor, "F J"]:
        """What turns u and e into u as it was `delay` steps ago and the mean of e since then."""
        taps = recent.new_zeros(recent.shape[-1], self.delay + 1)
        taps[:-1, 0], taps[-1, 1:] = 1, 1 / self.delay
        return taps

    def _recall(
        self,
        u: Float[Tensor, "B T D"],
        event: Float[Tensor, "B T D"],
        surprise: Float[Tensor, "B T 1"],
        memory: SlotState,
        clock: Clock | None,
    ) -> tuple[Float[Tensor, "B T D"], SlotState]:
        """Write events as much as what followed them was a surprise, and read."""
        written = event.to(u.dtype)
        slot = F.softmax(self.address(written).to(event.dtype), -1)
        rate = self.log_plasticity.exp() * surprise * slot
        query, key = self.sharpness * unit(self.memory_query(u)), unit(self.memory_key(written))
        # one head
        query, key, value, rate = (part[:, :, None] for part in (query, key, event, rate))
        read, memory = attend_slots(self.keys, self.values, query, key, value, *fade(rate), memory, clock)
        return self.memory_norm(self.memory_value(read[:, :, 0].to(u.dtype))), memory

    def _choose(self, u: Float[Tensor, "B T D"]) -> tuple[Tensor, Tensor]:
        """The columns that each step is sent to, and their weights."""
        distance = (F.tanh(self.position(u))[..., None, :] - self.places).square().sum(-1)
        logits = F.linear(self.route(u), self.column_key) - self.locality * distance
        # of equals the first, wherever a sequence is cut
        ranked, order = torch.sort(logits, dim=-1, descending=True, stable=True)
        return order[..., : self.top], F.softmax(ranked[..., : self.top], -1)

    def _think(
        self, u: Float[Tensor, "B T D"], context: Float[Tensor, "B T D"], columns: Tensor, clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B M N"]]:
        """Move the chosen columns, and read them."""
        chosen, weight = self._choose(u)
        step, write, query = self.project(u).to(columns.dtype).unflatten(-1, (3, *columns.shape[1:])).unbind(2)
        moved = torch.zeros_like(step[..., 0]).scatter(-1, chosen, 1.0)[..., None]
        record = Diag(*pointwise(MOVE, step, write, moved, self.retention.to(columns.dtype)))
        h, columns = self.scan(record, columns, clock)
        read = (query * h).gather(2, chosen[..., None].expand(-1, -1, -1, h.shape[-1])).to(u.dtype)
        content, top_down = self.readout(read), self.top_down(F.silu(self.descend(context)))[:, :, None]
        parts = content, top_down.expand_as(content), weight[..., None], self.norm.weight
        answer = Map("trc2_answer", _answer, 1, _square, constants=(self.norm.epsilon,))
        z = pointwise(answer, *(part.to(columns.dtype) for part in parts))
        return z.sum(2).to(u.dtype) + context, columns


def layout(columns: int) -> Float[Tensor, "M 2"]:
    """Where columns lie: on a grid over the square from -1 to 1 if they are a square number, else on the circle."""
    side = math.isqrt(columns)
    if side**2 == columns:
        return torch.cartesian_prod(*[torch.linspace(-1, 1, side)] * 2)
    angle = 2 * math.pi * torch.arange(columns) / columns
    return torch.stack([angle.cos(), angle.sin()], -1)
