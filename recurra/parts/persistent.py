"""Attention to what was, with learned keys and values in front that are there for every input.

They have no place: a step asks them before it is turned by its position, so that they are the same to it however far
the sequence has come. The usual way, a key that is not turned asked by a query that is, changes with every step.
"""

import torch
from torch import nn
from torch.nn import functional as F

from recurra.checks import at_least
from recurra.clock import Clock
from recurra.parts.heads import divide
from recurra.parts.rotary import count
from recurra.parts.segment import turned
from recurra.parts.window import Near, attend, blocks, slide
from recurra.shapes import Bool, Float, Int, Tensor, state_zeros


def asks(query: Float[Tensor, "B T H K"], positions: Int[Tensor, "N T"], base: float) -> Float[Tensor, "B T H J"]:
    """What asks keys of places and then what asks those of none, J = 2 K: the query turned and as it is."""
    # half of each key's 2 K features are zeros, which scores are not to be scaled for
    return torch.cat([turned(query, positions, base), query], -1) * 2**0.5


def placed(key: Float[Tensor, "B L H K"]) -> Float[Tensor, "B L H J"]:
    """Turned keys, for what `asks` gives."""
    return F.pad(key, (0, key.shape[-1]))


class Persistent(nn.Module):
    """N keys and values a head that are learned and always seen.

    Args:
        tokens: how many there are (N); 0: none.
        heads: that attend each by itself (H).
        size: features of a key and a value (K).

    Raises:
        ValueError: `tokens` is below 0.
    """

    undecayed = ("key", "value")

    def __init__(self, tokens: int, heads: int, size: int) -> None:
        super().__init__()
        at_least(0, tokens=tokens)
        # as large as what a linear map, as it starts, makes of numbers with a deviation of one
        self.key, self.value = (nn.Parameter(torch.empty(tokens, heads, size).normal_(0, 3**-0.5)) for _ in range(2))

    def attend(
        self,
        query: Float[Tensor, "B T H J"],
        key: Float[Tensor, "B L H K"],
        value: Float[Tensor, "B L H K"],
        seen: Bool[Tensor, "B T L"],
    ) -> Float[Tensor, "B T H K"]:
        """Softmax attention to them and to the keys that are seen; `query` is what `asks` gives."""
        return attend(query, *self.beside(key.to(query.dtype), value.to(query.dtype), seen))

    def beside(
        self, key: Float[Tensor, "B L H K"], value: Float[Tensor, "B L H K"], seen: Bool[Tensor, "B T L"]
    ) -> tuple[Float[Tensor, "B M H J"], Float[Tensor, "B M H K"], Bool[Tensor, "B T M"]]:
        """Keys that have a place, behind those that have none; values, and what is seen of all."""
        own, read = (x.to(key.dtype).expand(len(key), *x.shape) for x in (self.key, self.value))
        keys = torch.cat([F.pad(own, (key.shape[-1], 0)), placed(key)], 1)
        return keys, torch.cat([read, value], 1), F.pad(seen, (own.shape[1], 0), value=True)


class PersistentWindow(nn.Module):
    r"""Attention to the last W steps and to N learned keys and values.

    .. math::
        y_t = W_o \sum_j \operatorname{softmax}_j(s_{tj})\, v_j \qquad
        s_{tj} = (R_t q_t)^\top R_j k_j / \sqrt{K} \;\; (t - W < j \le t) \qquad
        s_{tj} = q_t^\top p_j / \sqrt{K} \;\; (j \text{ learned})

    State: the keys and values of the last W - 1 steps `(B, W-1, H, K)`, oldest first and zeros before the sequence's
    own, and how many steps the sequence has had, `(B,)`.

    Args:
        width: features in and out (D).
        window: steps seen, the present one included (W).
        tokens: learned keys and values (N).
        heads: that attend each by itself (H); divides `width` into even parts.
        base: of the rotation: the slowest angle turns about this many times slower than the fastest.

    Raises:
        ValueError: `heads` does not divide `width` into even parts, `window` is less than 1 or `tokens` below 0.
    """

    def __init__(self, width: int, *, window: int, tokens: int, heads: int, base: float) -> None:
        super().__init__()
        at_least(1, window=window)
        self.heads, self.size = heads, 2 * divide(width, 2 * heads, among="twice heads")
        self.window, self.base = window, base
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.persistent = Persistent(tokens, heads, self.size)

    def initial_state(self, batch: int) -> Near:
        """No steps yet: zeros."""
        like = self.key.weight
        empty = state_zeros(like, batch, self.window - 1, self.heads, self.size)
        return empty, empty, torch.zeros(batch, dtype=torch.long, device=like.device)

    def forward(self, x: Float[Tensor, "B T D"], state: Near, clock: Clock | None) -> tuple[Tensor, Near]:
        """Look at the window and at what is learned."""
        batch, steps = x.shape[:2]
        positions, counted = count(state[2], steps, clock)
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)) for project in (self.query, self.key, self.value)
        )
        keys, values, sequence, state = slide(turned(key, positions, self.base), value, state, counted, clock)
        query = asks(query, positions, self.base)
        query, keys, values, seen = blocks(query, keys, values, sequence, self.window)
        read = self.persistent.attend(query, keys, values, seen)
        read = read.unflatten(0, (batch, -1)).flatten(1, 2)[:, :steps]
        return self.out(read.flatten(-2)), state
