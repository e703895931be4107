"""The likeliest whole answer, searched for in breadth: a greedy choice can be regretted, several paths less so."""

from typing import Any

import torch

from recurra.shapes import Float, Int, Tensor
from recurra.state import fork, rows


@torch.no_grad()
def beam(
    model: Any, tokens: Int[Tensor, "B T"], *, end: int, width: int = 4, max_new_tokens: int = 40
) -> tuple[Int[Tensor, "B W N"], Float[Tensor, "B W"]]:
    """The answers of most probability that a search of some width finds, the best first, and their log-probabilities.

    Of each row as many beginnings are kept as the search is wide, those of most probability. An answer that has given
    `end` gives `end` from then on, at no cost. Sutskever et al. 2014, https://arxiv.org/abs/1409.3215. A width of 1 is
    greedy; one as wide as there are answers finds the best of all.

    Args:
        model: `logits, state = model(tokens, state)`, any that gives the next token's logits.
        tokens: what comes before the answer, at least one token a row; all rows are whole.
        end: the token that ends an answer.
        width: beginnings kept of each row (W).
        max_new_tokens: the longest answer; N is this or less.

    Raises:
        ValueError: there is no token before the answer, or `width` or `max_new_tokens` is less than 1.
    """
    if tokens.shape[1] == 0 or width < 1 or max_new_tokens < 1:
        raise ValueError(
            f"a search of width {width} for {max_new_tokens} tokens after {tokens.shape[1]}: each must be at least 1"
        )
    batch = len(tokens)
    logits, state = model(tokens)
    state, last = fork(state, width), logits[:, -1].repeat_interleave(width, 0)
    # the copies of one beginning are one: all but the first are out of the race
    scores = torch.full((batch, width), -torch.inf, device=tokens.device, dtype=torch.float64)
    scores[:, 0] = 0
    answers = tokens.new_zeros(batch, width, 0)
    ended = torch.zeros(batch, width, dtype=torch.bool, device=tokens.device)
    first = torch.arange(batch, device=tokens.device)[:, None] * width
    for _ in range(max_new_tokens):
        ways = last.double().log_softmax(-1).unflatten(0, (batch, width))
        only = torch.full_like(ways, -torch.inf)
        only[..., end] = 0
        ways = scores[..., None] + torch.where(ended[..., None], only, ways)
        scores, index = ways.flatten(1).topk(width, -1)
        parent, chosen = index // ways.shape[-1], index % ways.shape[-1]
        answers = torch.cat([answers.gather(1, parent[..., None].expand_as(answers)), chosen[..., None]], -1)
        ended = ended.gather(1, parent) | (chosen == end)
        if bool(ended.all()):
            break
        logits, state = model(chosen.reshape(-1, 1), rows(state, (first + parent).flatten()))
        last = logits[:, -1]
    return answers, scores.to(logits.dtype)
