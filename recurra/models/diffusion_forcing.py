"""Decode before the thought has ended: a wave of tokens, each guessed early and refined while the next are begun."""

from typing import Any, NamedTuple

import torch

from recurra.models.recurrent_depth_lm import DEVIATION
from recurra.shapes import Float, Int, State, Tensor


class Sample(NamedTuple):
    """The tokens, and how many positions went through the core for them, the prompt's left out."""

    tokens: Int[Tensor, "1 N"]
    passes: int


class _Wave(NamedTuple):
    """Positions that are not frozen yet; the first one's token is known, the others' are guesses."""

    tokens: Int[Tensor, "1 A"]
    given: Float[Tensor, "1 E D"]  # what the loops were given at the last round, of positions that had one (E <= A)
    latent: Float[Tensor, "1 A D"]
    counts: Int[Tensor, "1 A"]  # loops so far


@torch.no_grad()
def sample(
    model: Any,
    input_ids: Int[Tensor, "B T"],
    *,
    max_new_tokens: int = 20,
    inner: int = 4,
    wavefront: int = 128,
    noise: float = 0.5,
    memory: float = 0.1,
    threshold: float = 0.03,
    seed: int = 0,
) -> Sample:
    r"""The likeliest tokens after a prompt, several thought about at once.

    Every round gives all positions of the wave `inner` loops, guesses every next token anew, and begins one position
    more. What the loops are given is :math:`(1-m) e + m e_{\text{before}}`, and before each round latents are mixed
    with noise, :math:`s \leftarrow (1 - \nu_c) s + \nu_c n, \nu_c = \nu / (1 + c)` after c loops. From the left, a
    position is frozen once a round moved its latents by less than `threshold` of their length, or once it has had as
    many loops as the model thinks. Geiping et al. 2025, https://arxiv.org/abs/2510.14961.

    Unlike the paper, nothing is frozen that rests on a guess which has changed, the first position waits for no more
    than the model's own number of loops, and one position is begun a round. With `wavefront` 1, `inner` the model's
    loops and no noise, the tokens are exactly those of `model.generate` with one shared slot.

    Args:
        model: a `RecurrentDepthLM`; its loops share one slot here, as later tokens look at what is not finished.
        input_ids: one prompt, read with all loops.
        max_new_tokens: how many tokens.
        inner: loops of a round.
        wavefront: the most positions at once.
        noise: :math:`\nu`; 0: none.
        memory: m.
        threshold: of the latents' movement in a round, over their length.
        seed: of the noise.

    Raises:
        ValueError: there is more than one prompt or an empty one, or a number is out of range.
    """
    if len(input_ids) != 1 or input_ids.shape[1] == 0:
        raise ValueError(f"the prompts are {tuple(input_ids.shape)}: a wave takes one, of at least one token")
    if min(inner, wavefront, max_new_tokens) < 1 or not (0 <= noise <= 1 and 0 <= memory < 1):
        raise ValueError(
            f"inner is {inner}, wavefront {wavefront}, max_new_tokens {max_new_tokens}: at least 1; "
            f"noise is {noise}, memory {memory}: from 0 to 1, memory less"
        )
    generator = torch.Generator(input_ids.device).manual_seed(seed)
    state = model.initial_state(1, slots=1)
    if input_ids.shape[1] > 1:
        _, state = model(input_ids[:, :-1], state)
    width = model.embedding.weight.shape[1]
    nothing = model.embedding.weight.new_zeros(1, 0, width)
    wave = _fresh(_Wave(input_ids[:, :0], nothing, nothing, input_ids[:, :0]), input_ids[:, -1:])
    found, passes = [], 0
    while len(found) < max_new_tokens:
        given, latent, before = _round(model, wave, state, inner, noise, memory, generator)
        passes += inner * wave.tokens.shape[1]
        features, _ = model.leave(latent, state[2])
        guesses = model.read(features).argmax(-1)
        counts = wave.counts + inner
        moved = (latent - wave.latent).norm(dim=-1) / latent.norm(dim=-1)
        frozen = _prefix(wave.tokens, guesses, (moved < threshold) | (counts >= model.loops))
        if frozen:
            state = _commit(model, wave.tokens[:, :frozen], given[:, :frozen], before[:, :frozen], state)
            passes += frozen
            found += guesses[0, :frozen].tolist()
        follow = torch.cat(
            [wave.tokens[:, :1] if frozen == 0 else guesses[:, frozen - 1 : frozen], guesses[:, frozen:]], 1
        )
        wave = _Wave(follow[:, :-1], given[:, frozen:], latent[:, frozen:], counts[:, frozen:])
        wave = _fresh(wave, follow[:, -1:]) if wave.tokens.shape[1] < wavefront else wave
    return Sample(torch.cat([input_ids, input_ids.new_tensor([found[:max_new_tokens]])], 1), passes)


def _fresh(wave: _Wave, token: Int[Tensor, "1 1"]) -> _Wave:
    """The wave with one position more."""
    latent = torch.nn.functional.pad(wave.latent, (0, 0, 0, 1))
    return _Wave(torch.cat([wave.tokens, token], 1), wave.given, latent, torch.nn.functional.pad(wave.counts, (0, 1)))


def _round(
    model: Any, wave: _Wave, state: State, inner: int, noise: float, memory: float, generator: torch.Generator
) -> tuple[Float[Tensor, "1 A D"], Float[Tensor, "1 A D"], Float[Tensor, "1 A D"]]:
    """What the loops were given, the latents after `inner` of them, and those before the last."""
    given, _ = model.enter(wave.tokens, state[0])
    kept = wave.given.shape[1]
    given = torch.cat([(1 - memory) * given[:, :kept] + memory * wave.given, given[:, kept:]], 1)
    latent = wave.latent
    if noise:
        share = (noise / (1 + wave.counts))[..., None].to(latent)
        drawn = torch.randn(latent.shape, generator=generator, dtype=latent.dtype, device=latent.device)
        latent = (1 - share) * latent + share * DEVIATION * drawn
    before = latent
    for _ in range(inner):
        before = latent
        latent, _ = model.iterate(before, given, state[1][0])
    return given, latent, before


def _prefix(tokens: Int[Tensor, "1 A"], guesses: Int[Tensor, "1 A"], ready: Tensor) -> int:
    """How many positions from the left are ready and rest on no guess that changed."""
    sound = torch.ones_like(ready)
    sound[:, 1:] = tokens[:, 1:] == guesses[:, :-1]
    return int((ready & sound).long().cumprod(1).sum())


def _commit(
    model: Any,
    tokens: Int[Tensor, "1 K"],
    given: Float[Tensor, "1 K D"],
    before: Float[Tensor, "1 K D"],
    state: State,
) -> State:
    """The state after positions that are frozen: their last loop leaves what later positions read."""
    prelude, (slot,), coda = state
    _, prelude = model.enter(tokens, prelude)
    latent, slot = model.iterate(before, given, slot)
    _, coda = model.leave(latent, coda)
    return prelude, (slot,), coda
