"""Tokens one after another, in memory that does not grow. Argument names are Hugging Face's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from recurra.clock import Clock
from recurra.models.step import CompiledStep
from recurra.shapes import Bool, Float, Int, State, Tensor
from recurra.state import fork


def choose(
    logits: Float[Tensor, "B V"],
    *,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " B"]:
    """The next token of each row: the likeliest, or drawn from what temperature, top_k and top_p leave."""
    if not do_sample:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1]), -1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None:
        order = logits.sort(-1, descending=True)
        likely = order.values.softmax(-1)
        # a token stays while what is likelier than it holds less than top_p
        beyond = likely.cumsum(-1) - likely >= top_p
        logits = logits.masked_fill(beyond.scatter(-1, order.indices, beyond), -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def stream(
    model: Any,
    input_ids: Int[Tensor, "B T"],
    *,
    max_new_tokens: int | None = None,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
    attention_mask: Bool[Tensor, "B T"] | None = None,
    num_return_sequences: int = 1,
    state: State | None = None,
    seed: int | None = None,
    step: CompiledStep | None = None,
) -> Iterator[Int[Tensor, " B"]]:
    """The tokens that follow, as they come, one tensor `(B * num_return_sequences,)` a step.

    Args:
        input_ids: the prompt; at least one token a row.
        max_new_tokens: when to stop; None: never.
        do_sample: draw instead of taking the likeliest; `temperature`, `top_k`, `top_p` shape the draw.
        eos_token_id: a row that gave this token gives `pad_token_id` (or it again) from then on; the stream ends
            when all have.
        attention_mask: False (or 0) where a prompt is padded, on either side.
        num_return_sequences: continuations of each prompt, side by side.
        state: what the model has read before the prompt.
        seed: of the draws; None: torch's own generator.
        step: what `model.compile_step(B * num_return_sequences)` gave, for speed: the same tokens.

    Raises:
        ValueError: an empty prompt, or a value out of range.
    """
    if input_ids.shape[1] == 0:
        raise ValueError("the prompt is empty: give at least one token")
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}: it must be greater than 0 (do_sample=False is greedy)")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}: it must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}: it must lie above 0 and be at most 1")
    draw: dict[str, Any] = dict(do_sample=do_sample, temperature=temperature, top_k=top_k, top_p=top_p)
    draw["generator"] = None if seed is None else torch.Generator(input_ids.device).manual_seed(seed)
    pad = eos_token_id if pad_token_id is None else pad_token_id
    with torch.no_grad():
        logits, state = _prompt(model, input_ids, attention_mask, state)
        if num_return_sequences > 1:
            logits, state = logits.repeat_interleave(num_return_sequences, 0), fork(state, num_return_sequences)
    tokens = _tokens(model if step is None else step, logits, state, draw, eos_token_id, pad)
    return tokens if max_new_tokens is None else itertools.islice(tokens, max_new_tokens)


def _tokens(
    step: Any, logits: Float[Tensor, "B V"], state: State, draw: dict[str, Any], eos: int | None, pad: int | None
) -> Iterator[Int[Tensor, " B"]]:
    """One token after another, until every row has ended."""
    ended = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    while True:
        with torch.no_grad():
            token = choose(logits, **draw)
        if eos is not None:
            token = token.masked_fill(ended, eos if pad is None else pad)
            ended = ended | (token == eos)
        yield token
        if eos is not None and bool(ended.all()):
            return
        with torch.no_grad():
            logits, state = step(token[:, None], state)
            logits = logits[:, -1]


def _prompt(
    model: Any, tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"] | None, state: State | None
) -> tuple[Float[Tensor, "B V"], State]:
    """The logits after each row's last real token, and the state there."""
    clock = None if mask is None else Clock(valid=mask.bool())
    features, state = model.features(tokens, state, clock)
    if clock is None or clock.valid is None:
        return model.read(features[:, -1]), state
    if not bool(clock.valid.any(1).all()):
        raise ValueError("a row of attention_mask is all False: give each row at least one token")
    steps = torch.arange(tokens.shape[1], device=tokens.device)
    last = steps.masked_fill(~clock.valid, -1).amax(1)
    return model.read(features[torch.arange(len(tokens), device=tokens.device), last]), state


def generate(
    model: Any, input_ids: Int[Tensor, "B T"], *, max_new_tokens: int = 20, **settings: Any
) -> Int[Tensor, "R N"]:
    """The prompt and what follows it, `(B * num_return_sequences, T + new)`. Settings are those of `stream`."""
    new = list(stream(model, input_ids, max_new_tokens=max_new_tokens, **settings))
    prompt = input_ids.repeat_interleave(settings.get("num_return_sequences", 1), 0)
    return torch.cat([prompt, torch.stack(new, 1)], 1) if new else prompt
