"""Softmax attention whose queries see keys that lie in a row: a window, a segment's steps so far, or all of them.

What is seen is said by two numbers a query and not by a mask, so that nothing is as large as queries times keys, and
keys that no query sees cost nothing. It is no recurrence, so it is a function and has no record.
"""

from recurra.ops import scan
from recurra.ops.attention import loop, native
from recurra.shapes import Float, Int, Tensor


def attention(
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B L H K"],
    value: Float[Tensor, "B L H V"],
    first: Int[Tensor, "#B T"],
    last: Int[Tensor, "#B T"],
    added: Float[Tensor, "B T H A"] | None = None,
) -> Float[Tensor, "B T H V"]:
    r"""What every query finds, in every head, in the query's type.

    .. math::
        y_t = \sum_{j = \text{first}_t}^{\text{last}_t} p_{tj} v_j
        \qquad
        p_{t\cdot} = \operatorname{softmax}_j\bigl(q_t^\top k_j / \sqrt{K} + b_{t, A - 1 - \text{last}_t + j}\bigr)

    Args:
        query: q.
        key: k.
        value: v.
        first: the first key that each query sees; it sees one at least.
        last: the last.
        added: b, to the scores of every query's last A keys, of which none that it sees is older; None: nothing.
    """
    run = native.run if compiled(query, key, value, added) else loop.run
    return run(query, key, value, first, last, added)


def compiled(query: Tensor, key: Tensor, value: Tensor, added: Tensor | None = None) -> bool:
    """Whether these are attended to in C, which needs room for no mask and no scores."""
    return scan.compiled(native, query, key, value, added)
