"""A pen that writes a text: a mixture of densities says where it goes next, a soft window which letter it is at."""

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.models.backbone import Backbone
from recurra.models.base import Model
from recurra.models.pairs import between_resets, happened
from recurra.shapes import Bool, Float, Int, State, Tensor, state_zeros

NUMBERS = 6  # of each component: log-weight, two means, two log-deviations, and the correlation before its tanh


class Handwriting(Model):
    r"""Pen strokes for a text: the next move's density, given the moves so far and the letters about the window.

    .. math::
        (\hat\alpha, \hat\beta, \hat\kappa) = W h^1_t \qquad \kappa_t = \kappa_{t-1} + e^{\hat\kappa} \qquad
        \phi(t, u) = \textstyle\sum_k e^{\hat\alpha_k} \exp(-e^{\hat\beta_k} (\kappa_{t,k} - u)^2)
    .. math::
        w_t = \textstyle\sum_u \phi(t, u)\, c_u \qquad h^1_t = \operatorname{mix}([x_t, w_{t-1}]) \qquad
        p(\Delta) = \textstyle\sum_m \pi_m N(\Delta \mid \mu_m, \sigma_m, \rho_m) \qquad p(\text{lift}) = \sigma(e)

    `outputs, state = model(x, state, clock)`: `(B, T, 4)` to `(B, T, 6 M + 1)`. A row is a text and then its pen: a
    step is (c, 0, 0, 0) for a letter c (from 1), or (0, dx, dy, lift). Outputs are the log-weights of the components,
    their means across and up, log-deviations across and up, correlations before their tanh, M each, and the log-odds
    that the pen lifts; at the text's steps, zeros. Graves 2013, https://arxiv.org/abs/1308.0850. Unlike the paper any
    mixer may remember; the first block moves the window, and the residual stream carries what its skip connections
    carry; the messages of gradients are not clipped. :math:`\hat\kappa` begins near -2, so that a window takes about as
    many moves as a letter.

    State: the first block's and the others'; the letters `(B, S)` int64 and how many `(B, 1)` int64; the places of the
    windows `(B, K)`; and what the window saw last `(B, letters)`. The law holds, inside the text too.

    Args:
        inputs: 4, as said.
        letters: how many there are; they are 1 to this.
        text: the longest text (S).
        windows: K.
        components: of the mixture (M).
        width, depth, pattern, mixers, hidden, dropout: of the backbone; at least two blocks.

    Raises:
        ValueError: `inputs` is not 4, or `depth` is less than 2.
    """

    name: ClassVar[str] = "handwriting"

    def __init__(
        self,
        *,
        letters: int,
        text: int,
        width: int,
        depth: int,
        inputs: int = 4,
        windows: int = 5,
        components: int = 10,
        pattern: str = "lstm",
        mixers: dict[str, dict[str, Any]] | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if inputs != 4 or depth < 2:
            raise ValueError(f"inputs is {inputs} and depth is {depth}: a pen has 4, and there must be 2 blocks")
        self.letters, self.text, self.components = letters, text, components
        self.embedding = nn.Linear(3, width)
        self.seen = nn.Linear(letters, width, bias=False)
        self.first = Backbone(width, 1, pattern, mixers, hidden, dropout)
        self.window = nn.Linear(width, 3 * windows)
        self.then = nn.Linear(width + letters, width)
        self.others = Backbone(width, depth - 1, pattern, mixers, hidden, dropout)
        self.out = nn.Linear(width, NUMBERS * components + 1)
        with torch.no_grad():
            self.window.bias.copy_(torch.tensor([0.0, -1.0, -2.0]).repeat_interleave(windows))

    @property
    def grows(self) -> bool:
        """Whether the state grows with the strokes."""
        return self.first.grows or self.others.grows

    def initial_state(self, batch: int) -> State:
        """An empty text, the windows before its first letter, and nothing seen."""
        like = self.window.weight
        places = state_zeros(like, batch, len(like) // 3)
        known = torch.zeros(batch, self.text, dtype=torch.int64, device=like.device)
        saw = places.new_zeros(batch, self.letters)
        return (
            self.first.initial_state(batch), self.others.initial_state(batch), known, known[:, :1].clone(), places, saw,
        )  # fmt: skip

    def forward(
        self, x: Float[Tensor, "B T 4"], state: State | None = None, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T O"], State]:
        """Run over texts and strokes.

        Raises:
            ValueError: a text is longer than there are places.
        """
        initial = self.initial_state(len(x))
        return between_resets(self._piece, x, initial if state is None else state, initial, clock)

    def _piece(self, x: Tensor, state: State, clock: Clock | None) -> tuple[Tensor, State]:
        """Steps without resets: first the letters that are among them, then the strokes."""
        first, others, known, count, places, saw = state
        if x.shape[1] == 0:
            return self.out(self.embedding(x[..., 1:])), state
        live = happened(x, clock)
        letter = live & (x[..., 0] > 0)
        stroke = live & ~letter
        known, count = self._spell(x[..., 0].long(), letter, known, count)
        drive, told, windows = self.embedding(x[..., 1:]), [], []
        columns = zip(drive.unbind(1), stroke.split(1, 1), stroke.any(0).tolist(), strict=True)
        for now, mine, some in columns:
            if some:
                now = now + self.seen(saw.to(now.dtype))
                h, first = self.first(now[:, None], first, Clock(valid=mine))
                now = h[:, 0].to(now.dtype)
                new_places, new_saw = self._look(now, known, count, places)
                places, saw = torch.where(mine, new_places, places), torch.where(mine, new_saw, saw)
            told.append(now)
            windows.append(saw.to(now.dtype))
        stream = self.then(torch.cat([torch.stack(told, 1), torch.stack(windows, 1)], -1))
        features, others = self.others(stream, others, Clock(valid=stroke))
        return self._mixture(features) * stroke[..., None], (first, others, known, count, places, saw)

    def _spell(
        self,
        letters: Int[Tensor, "B T"],
        mine: Bool[Tensor, "B T"],
        known: Int[Tensor, "B S"],
        count: Int[Tensor, "B 1"],
    ) -> tuple[Int[Tensor, "B S"], Int[Tensor, "B 1"]]:
        """The text with some more letters at its end."""
        after = count + mine.sum(1, keepdim=True)
        if int(after.max()) > self.text:
            raise ValueError(f"a text has {int(after.max())} letters: this model has room for {self.text}")
        place = (count + mine.cumsum(1) - 1).masked_fill(~mine, self.text)
        room = F.pad(known, (0, 1))
        return room.scatter(1, place, letters.masked_fill(~mine, 0))[:, :-1], after

    def _look(
        self,
        h: Float[Tensor, "B D"],
        known: Int[Tensor, "B S"],
        count: Int[Tensor, "B 1"],
        places: Float[Tensor, "B K"],
    ) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B letters"]]:
        """Where the windows move to, and what is seen there."""
        height, narrowness, move = self.window(h).to(places.dtype).exp().chunk(3, -1)
        places = places + move
        u = torch.arange(1, self.text + 1, dtype=places.dtype, device=places.device)
        bumps = height[..., None] * torch.exp(-narrowness[..., None] * (places[..., None] - u).square())
        weight = bumps.sum(1) * (u <= count)
        text = F.one_hot(known, self.letters + 1)[..., 1:].to(weight.dtype)
        return places, (weight[:, None] @ text)[:, 0]

    def _mixture(self, features: Float[Tensor, "B T D"]) -> Float[Tensor, "B T O"]:
        """The numbers of the density, its log-weights of sum one."""
        raw = self.out(features)
        return torch.cat([raw[..., : self.components].log_softmax(-1), raw[..., self.components :]], -1)

    @torch.no_grad()
    def write(
        self, text: Int[Tensor, "B S"], steps: int, *, bias: float = 0.0, seed: int = 0
    ) -> Float[Tensor, "B steps 3"]:
        """Moves (dx, dy, lift) for texts, as many as said, or fewer where every pen has passed its text's end.

        A pen has, when its foremost window is one letter beyond the last; from then on its row is zeros.

        Args:
            text: letters from 1; 0 where a shorter text has none.
            steps: the most moves.
            bias: 0 draws as was learned; the greater, the tidier: deviations shrink by :math:`e^{-b}` and log-weights
                grow by 1 + b.
            seed: of the draws.
        """
        random = torch.Generator(text.device).manual_seed(seed)
        rows = F.pad(text[..., None].to(self.out.weight.dtype), (0, 3))
        _, state = self(rows, None, Clock(valid=text > 0))
        now, moves = rows.new_zeros(len(text), 1, 4), []
        live = torch.ones(len(text), 1, dtype=torch.bool, device=text.device)
        for _ in range(steps):
            outputs, state = self(now, state)
            move = draw(outputs[:, 0], bias, random)
            moves.append(move * live)
            now = F.pad(move, (1, 0))[:, None]
            live = live & (state[4].amax(1, keepdim=True) < state[3] + 1)
            if not bool(live.any()):
                break
        return torch.stack(moves, 1) if moves else rows.new_zeros(len(text), 0, 3)


def draw(outputs: Float[Tensor, "B O"], bias: float, random: torch.Generator) -> Float[Tensor, "B 3"]:
    """A move (dx, dy, lift) from the density that the outputs say."""
    weights, across, up, wide_, high, turn = outputs[:, :-1].chunk(NUMBERS, -1)
    chosen = torch.multinomial(((1 + bias) * weights).softmax(-1), 1, generator=random)
    mean = torch.cat([across.gather(1, chosen), up.gather(1, chosen)], 1)
    deviation = (torch.cat([wide_.gather(1, chosen), high.gather(1, chosen)], 1) - bias).exp()
    correlation = turn.gather(1, chosen)[:, 0].tanh()
    one, two = torch.randn(mean.shape, generator=random, device=mean.device, dtype=mean.dtype).unbind(1)
    shape = torch.stack([one, correlation * one + (1 - correlation.square()).sqrt() * two], 1)
    lift = torch.rand(len(mean), 1, generator=random, device=mean.device) < outputs[:, -1:].sigmoid()
    return torch.cat([mean + deviation * shape, lift.to(mean.dtype)], 1)
