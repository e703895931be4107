r"""`Delta` and `LowRank` by fla-core's chunk kernel for a diagonal plus a matrix of rank one
(2024, https://github.com/fla-org/flash-linear-attention).

`LowRank` is its recurrence, word for word. `Delta` is one of them, as
:math:`(D S)^\top p = S^\top (e^g p)`: its probe is :math:`-e^g p`, its answer k. (fla-core's kernels for the delta rule
itself take one strength for writing and erasing; a record has a value and an erase vector, which need not agree.)
The kernel multiplies in bfloat16, and overflows where a step keeps less than e^-5. Here is only the translation, which
is tested against fla-core's naive function; the kernel itself needs a GPU, and has not been run by the tests. How
strong the decays are is looked up on the device, at the cost of waiting.
"""

from typing import Any

import torch

from recurra.ops import gpu
from recurra.ops.delta import Delta, LowRank
from recurra.shapes import Float, Tensor

LEAST = -5.0  # of a log-decay: sixteen of them, one chunk, stay within float32


def declines(record: Delta | LowRank, state: Tensor) -> str | None:
    """What has no kernel, no fla-core, or too strong a decay."""
    reason = gpu.fla_declines("medium", *record[:-1], state)
    if reason is None and record.log_decay is not None and not bool((record.log_decay >= LEAST).all()):
        return f"fla-core's kernel overflows where a log-decay is less than {LEAST}"
    return reason


def scan(
    record: Delta | LowRank, state: Float[Tensor, "B H K V"]
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    from fla.ops.generalized_delta_rule import chunk_dplr_delta_rule  # pyright: ignore[reportMissingImports]

    inputs = translate(record)
    half = {name: inputs[name].bfloat16() for name in "qkvab"}
    read, last = gpu.packed(chunk_dplr_delta_rule, record.reset, state, inputs | half)
    return read.to(state.dtype), last


def translate(record: Delta | LowRank) -> dict[str, Any]:
    """The record in fla-core's words: what its function is called with."""
    query, key, value, first, second, *_ = record
    decay = torch.zeros_like(key) if record.log_decay is None else record.log_decay
    decay = decay if decay.ndim == 4 else decay[..., None].expand_as(key)
    if isinstance(record, LowRank):
        probe, answer = first, second
    else:
        probe, answer = -decay.exp() * record.erase, key
    return {"q": query, "k": key, "v": value, "a": probe, "b": answer, "gk": decay, "scale": 1.0}
