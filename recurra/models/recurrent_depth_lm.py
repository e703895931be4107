"""A language model whose depth is chosen when it is used: a way in, a core that is looped, a way out."""

import math
from typing import Any, ClassVar

import torch
from torch import nn

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.models.backbone import GatedMLP, build_mixer, hidden_of, layers
from recurra.models.base import Model
from recurra.models.generate import generate as _generate, stream as _stream
from recurra.shapes import Float, Int, State, Tensor

DEVIATION = math.sqrt(2 / 5)  # of the latents that training begins with


class RecurrentDepthLM(Model):
    r"""A language model that thinks for as many loops as it is given, in latents and not in words.

    .. math::
        e = \operatorname{prelude}(\text{tokens}) \qquad s_{i+1} = \operatorname{core}(A [s_i; e]) \qquad
        p = \operatorname{coda}(\operatorname{norm} s_r)

    where prelude, core and coda are blocks :math:`x \leftarrow n_2(x + \operatorname{mix}(n_1 x))`,
    :math:`x \leftarrow n_4(x + \operatorname{MLP}(n_3 x))` with norms n. Geiping et al. 2025,
    https://arxiv.org/abs/2502.05171. While training, a call draws :math:`r = 1 + \operatorname{Poisson}(\lambda)`,
    :math:`\log \lambda \sim N(\log \bar r - 1/8, 1/4)`, begins with latents from a normal cut off at three deviations,
    and has gradients of its last `backward` loops only, so that the answer comes to depend on neither.

    Unlike the paper, mixers are any, without biases; when not training, latents begin at zero, the mean of what they
    were trained with, so that the same text has the same answer, whatever the cuts.

    `logits, state = model(tokens, state, clock)`, and with `loops=` as many as wanted. State: those of the prelude's
    mixers; for every slot those of the core's; those of the coda's. There is a slot for each loop unless
    `initial_state(batch, slots=...)` begins with fewer: then loops i, i + slots, ... share one (the paper's shared
    caches). A token's loops read what earlier tokens left there, and its last leaves what later tokens read, so tokens
    go one by one. A state that was begun with fewer loops than are asked for shares its slots. The law holds for
    `eval()` and equal loops.

    Args:
        vocabulary: how many tokens there are.
        width: features of the stream (D).
        prelude: blocks before the loop.
        core: blocks of the loop.
        coda: blocks after it.
        pattern: mixers in order, repeated through prelude, core and coda each from its beginning.
        mixers: keywords of mixers, by name.
        hidden: of each block's MLP; None: 8/3 of the width.
        loops: when not training, and the mean while training (:math:`\bar r`).
        backward: the loops that have gradients while training.

    Raises:
        ValueError: a number of blocks or loops is less than 1.
    """

    name: ClassVar[str] = "recurrent_depth_lm"

    def __init__(
        self,
        *,
        vocabulary: int,
        width: int,
        prelude: int = 1,
        core: int = 2,
        coda: int = 1,
        pattern: str = "attention",
        mixers: dict[str, dict[str, Any]] | None = None,
        hidden: int | None = None,
        loops: int = 8,
        backward: int = 8,
    ) -> None:
        super().__init__()
        at_least(1, prelude=prelude, core=core, coda=coda, loops=loops, backward=backward)
        self.loops, self.backward = loops, backward
        own, units = mixers or {}, hidden_of(width, hidden)

        def blocks(count: int) -> Any:
            built = (build_mixer(name, width, own.get(name, {})) for name in layers(pattern, count, own))
            return nn.ModuleList(SandwichBlock(mixer, width, units) for mixer in built)

        self.embedding = nn.Embedding(vocabulary, width)
        self.prelude, self.core, self.coda = blocks(prelude), blocks(core), blocks(coda)
        self.adapter = nn.Linear(2 * width, width, bias=False)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.out = nn.Linear(width, vocabulary, bias=False)
        # as in the paper: embeddings as large as the latents, and branches that add less the more of them there are
        nn.init.normal_(self.embedding.weight, std=DEVIATION)
        self._scale_outputs(prelude + coda + core * loops)

    @property
    def grows(self) -> bool:
        """Whether the state grows with the sequence."""
        return any(block.mixer.grows for block in (*self.prelude, *self.core, *self.coda))

    def initial_state(self, batch: int, slots: int | None = None) -> State:
        """The state before the first token, with that many slots for loops; None: one for each loop."""
        slots = self.loops if slots is None else slots
        at_least(1, slots=slots)
        core = tuple(_begin(self.core, batch) for _ in range(slots))
        return _begin(self.prelude, batch), core, _begin(self.coda, batch)

    def enter(
        self, tokens: Int[Tensor, "B T"], state: State, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """What every loop is given of the tokens, and the prelude's state after them."""
        return _through(self.prelude, self.embedding(tokens), state, clock)

    def iterate(
        self, latent: Float[Tensor, "B T D"], given: Float[Tensor, "B T D"], state: State, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """One loop, and its slot's state after it."""
        return _through(self.core, self.adapter(torch.cat([latent, given], -1)), state, clock)

    def leave(
        self, latent: Float[Tensor, "B T D"], state: State, clock: Clock | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """Latents to features, and the coda's state after them."""
        features, state = _through(self.coda, self.norm(latent), state, clock)
        return self.norm(features), state

    def loop(
        self,
        given: Float[Tensor, "B T D"],
        states: State,
        clock: Clock | None,
        loops: int,
        latent: Float[Tensor, "B T D"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """All loops, from `latent` (None: zero), and the slots' states after them."""
        latent = torch.zeros_like(given) if latent is None else latent
        if len(states) < loops and given.shape[1] > 1:
            return self._one_by_one(given, states, clock, loops, latent)
        after = list(states)
        for i in range(loops):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not (self.training and i < loops - self.backward)):
                latent, after[i % len(states)] = self.iterate(latent, given, states[i % len(states)], clock)
        return latent, tuple(after)

    def features(
        self,
        tokens: Int[Tensor, "B T"],
        state: State | None = None,
        clock: Clock | None = None,
        loops: int | None = None,
        latent: Float[Tensor, "B T D"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """The stream after the coda, normalised."""
        loops = self._drawn() if loops is None else loops
        at_least(1, loops=loops)
        prelude, core, coda = self.initial_state(len(tokens), loops) if state is None else state
        if len(core) > loops:
            raise ValueError(f"this state has slots for {len(core)} loops, and {loops} are asked for: ask for as many")
        given, prelude = self.enter(tokens, prelude, clock)
        if latent is None and self.training:
            latent = DEVIATION * nn.init.trunc_normal_(torch.empty_like(given), a=-3.0, b=3.0)
        latent, core = self.loop(given, core, clock, loops, latent)
        features, coda = self.leave(latent, coda, clock)
        return features, (prelude, core, coda)

    def read(self, features: Float[Tensor, "*B D"]) -> Float[Tensor, "*B vocabulary"]:
        """Features to logits."""
        return self.out(features)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        state: State | None = None,
        clock: Clock | None = None,
        loops: int | None = None,
        latent: Float[Tensor, "B T D"] | None = None,
    ) -> tuple[Float[Tensor, "B T vocabulary"], State]:
        """Logits and state; `latent` is where the loop begins, to see that it does not matter."""
        features, state = self.features(tokens, state, clock, loops, latent)
        return self.read(features), state

    def _one_by_one(
        self, given: Float[Tensor, "B T D"], states: State, clock: Clock | None, loops: int, latent: Tensor
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """Token after token: with shared slots, a token's loops wait for the last of the token before it."""
        latents = []
        for t, (now, start) in enumerate(zip(given.split(1, 1), latent.split(1, 1), strict=True)):
            tick = None if clock is None else clock.cut(t, t + 1)
            now, states = self.loop(now, states, tick, loops, start)
            latents.append(now)
        return torch.cat(latents, 1), states

    def _drawn(self) -> int:
        """How many loops this call has."""
        if not self.training:
            return self.loops
        rate = torch.exp(math.log(self.loops) - 1 / 8 + torch.randn(()) / 2)
        return 1 + int(torch.poisson(rate))

    @torch.no_grad()
    def _scale_outputs(self, depth: int) -> None:
        for block in (*self.prelude, *self.core, *self.coda):
            block.mlp.out.weight.mul_((2 * depth) ** -0.5)

    generate = _generate
    stream = _stream


class SandwichBlock(nn.Module):
    """A mixer over time, then a gated MLP; a norm before each and one after the sum, so that loops cannot grow."""

    def __init__(self, mixer: nn.Module, width: int, hidden: int) -> None:
        super().__init__()
        self.mixer_norm, self.mixed_norm, self.mlp_norm, self.sum_norm = (nn.RMSNorm(width, eps=1e-6) for _ in range(4))
        self.mixer: Any = mixer
        self.mlp = GatedMLP(width, hidden)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, clock: Clock | None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        mixed, state = self.mixer(self.mixer_norm(x), state, clock)
        x = self.mixed_norm(x + mixed)
        return self.sum_norm(x + self.mlp(self.mlp_norm(x))), state


def _begin(blocks: Any, batch: int) -> State:
    return tuple(block.mixer.initial_state(batch) for block in blocks)


def _through(
    blocks: Any, x: Float[Tensor, "B T D"], states: State, clock: Clock | None
) -> tuple[Float[Tensor, "B T D"], State]:
    after = []
    for block, before in zip(blocks, states, strict=True):
        x, own = block(x, before, clock)
        after.append(own)
    return x, tuple(after)
