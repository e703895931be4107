"""When to stop thinking: rules that look at what one loop more has changed. They serve recurrent depth at inference."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from recurra.shapes import Float, Int, State, Tensor


class Look(NamedTuple):
    """What a rule sees of a loop."""

    latent: Float[Tensor, "B D"]
    logits: Float[Tensor, "B V"]


class Exit(NamedTuple):
    """A next token's logits, the state after them, and how many loops each row took."""

    logits: Float[Tensor, "B V"]
    state: State
    loops: Int[Tensor, " B"]


def kl(before: Look, now: Look) -> Float[Tensor, " B"]:
    """How surprised the last loop is at this one: the divergence of its prediction from this one's, in nats."""
    old, new = before.logits.log_softmax(-1), now.logits.log_softmax(-1)
    return (old.exp() * (old - new)).sum(-1)


def latent(before: Look, now: Look) -> Float[Tensor, " B"]:
    """How far the latents moved, over their length."""
    return (now.latent - before.latent).norm(dim=-1) / now.latent.norm(dim=-1)


def cosine(before: Look, now: Look) -> Float[Tensor, " B"]:
    """How far the latents turned: one less the cosine between them."""
    return 1 - torch.cosine_similarity(before.latent, now.latent, -1)


def entropy(before: Look, now: Look) -> Float[Tensor, " B"]:
    """How much the prediction's entropy changed, in nats."""
    old, new = (look.logits.log_softmax(-1) for look in (before, now))
    return ((old.exp() * old).sum(-1) - (new.exp() * new).sum(-1)).abs()


def argmax(before: Look, now: Look) -> Float[Tensor, " B"]:
    """Zero where the likeliest token stayed, else one."""
    return (before.logits.argmax(-1) != now.logits.argmax(-1)).to(now.logits.dtype)


# the rule, the change below which a loop counts as still, and how many still loops in a row end the thought
RULES: dict[str, tuple[Callable[[Look, Look], Tensor], float, int]] = {
    "kl": (kl, 1e-3, 1),
    "latent": (latent, 0.03, 1),
    "cosine": (cosine, 1e-3, 1),
    "entropy": (entropy, 1e-3, 1),
    "argmax": (argmax, 0.5, 5),
}


@torch.no_grad()
def next_token(
    model: Any,
    tokens: Int[Tensor, "B T"],
    state: State | None = None,
    *,
    rule: str = "kl",
    threshold: float | None = None,
    most: int | None = None,
) -> Exit:
    """One token read, and as many loops as it takes until the next one's prediction is still.

    Rules and thresholds are those of Geiping et al. 2025, https://arxiv.org/abs/2502.05171. Each row stops by itself,
    whatever the other rows do. In the slots of loops that a row did not take, its last loop is done again, so that
    later tokens see this one at every loop. So thoughts are shorter, but not the time, unless slots are shared: begin
    with `model.initial_state(batch, slots=1)`.

    Args:
        model: a `RecurrentDepthLM`.
        tokens: the next of each row.
        state: before them; None: the start.
        rule: "kl", "latent", "cosine", "entropy" or "argmax".
        threshold: the change below which a loop is still; None: the rule's own; 0: never.
        most: loops; None: the model's own number.

    Raises:
        ValueError: there is no such rule, or a row has not exactly one token.
    """
    if rule not in RULES:
        raise ValueError(f"there is no rule {rule!r}: it must be one of {', '.join(RULES)}")
    if tokens.shape[1] != 1:
        raise ValueError(f"there are {tokens.shape[1]} tokens in a row: thoughts end token by token, give one")
    change, own, patience = RULES[rule]
    threshold = own if threshold is None else threshold
    most = int(model.loops) if most is None else most
    prelude, core, coda = model.initial_state(len(tokens)) if state is None else state
    given, prelude = model.enter(tokens, prelude)
    h, source, slots = torch.zeros_like(given), torch.zeros_like(given), list(core)
    still = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
    running, loops, before = torch.ones_like(still, dtype=torch.bool), torch.zeros_like(still), None
    for i in range(most):
        live = running[:, None, None]
        # of a row that stopped, the last loop again
        source = torch.where(live, h, source)
        new, slots[i % len(core)] = model.iterate(source, given, core[i % len(core)])
        h, loops = torch.where(live, new, h), loops + running
        features, _ = model.leave(h, coda)
        now = Look(h[:, 0].float(), model.read(features)[:, 0].float())
        if before is not None:
            still = torch.where(change(before, now) < threshold, still + 1, 0)
            running = running & (still < patience)
        before = now
        if not bool(running.any()):
            break
    for slot in range(int(loops.max()), len(core)):
        _, slots[slot] = model.iterate(source, given, core[slot])
    features, coda = model.leave(h, coda)
    return Exit(model.read(features)[:, 0], (prelude, tuple(slots), coda), loops)
