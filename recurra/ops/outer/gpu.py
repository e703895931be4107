"""`Outer` by fla-core's chunk kernels (2024, https://github.com/fla-org/flash-linear-attention).

Which of them depends on the decay: one a head is its simple GLA, one a channel its GLA, and a read before the write its
RWKV-6. Here is only the translation, which is tested against fla-core's naive functions; the kernels themselves need
a GPU, and have not been run by the tests. Whether a decay is zero is looked up on the device, at the cost of waiting.
"""

from typing import Any

import torch

from recurra.ops import gpu
from recurra.ops.outer import Outer
from recurra.shapes import Float, Tensor


def declines(record: Outer, state: Tensor) -> str | None:
    """What has no kernel, no fla-core, or a decay of exactly zero."""
    query, key, value, log_decay, _, bonus, _ = record
    reason = gpu.fla_declines("high", query, key, value, log_decay, bonus, state)
    if reason is None and log_decay is not None and bool((log_decay == -torch.inf).any()):
        return "fla-core's kernels subtract sums of log-decays, which must be finite"
    return reason


def scan(record: Outer, state: Float[Tensor, "B H K V"]) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    from fla.ops.gla import chunk_gla  # pyright: ignore[reportMissingImports]
    from fla.ops.rwkv6 import chunk_rwkv6  # pyright: ignore[reportMissingImports]
    from fla.ops.simple_gla import chunk_simple_gla  # pyright: ignore[reportMissingImports]

    kernels = {"simple_gla": chunk_simple_gla, "gla": chunk_gla, "rwkv6": chunk_rwkv6}
    name, inputs = translate(record)
    return gpu.packed(kernels[name], record.reset, state, inputs)


def translate(record: Outer) -> tuple[str, dict[str, Any]]:
    """The record in fla-core's words: the name of a function, and what it is called with."""
    query, key, value, log_decay, before, bonus, _ = record
    shared: dict[str, Any] = {"k": key, "v": value, "scale": 1.0}
    if before:
        # decays of every channel, and a bonus, are asked for
        wide = torch.zeros_like(key) if log_decay is None else log_decay
        wide = wide if wide.ndim == 4 else wide[..., None].expand_as(key)
        bonus = key.new_zeros(key.shape[2:]) if bonus is None else bonus
        return "rwkv6", {"r": query, "w": wide, "u": bonus, **shared}
    name = "simple_gla" if log_decay is None or log_decay.ndim == 3 else "gla"
    return name, {"q": query, "g": log_decay, **shared}
