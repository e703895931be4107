"""A traced graph as one function of C: a whole model's step, with nothing between its passes.

What torch.export saw of one step is a few dozen kinds of calls: views, maps, sums, products. `lower` makes passes of
them, `emit` writes these down, and the one call that is left reads every weight once.
"""

import hashlib
import struct
from collections.abc import Callable, Sequence

import torch

from recurra.ops import native
from recurra.ops.native import direct
from recurra.ops.program import emit
from recurra.ops.program.lower import lower
from recurra.ops.program.stages import Declined as Declined
from recurra.shapes import Tensor

FAILURES = {1: (MemoryError, "no memory for a step's scratch"), 3: (IndexError, "a token is none of the vocabulary")}


def compiled(program: "torch.export.ExportedProgram") -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """The graph as a function of the list of its inputs, all dense as they were traced.

    Raises:
        Declined: something in it has no C, or there is no compiler.
    """
    lowered = lower(program)
    text = emit.source(lowered)
    engine = f"program-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    native.write(engine, text)
    like = [place.like for place in lowered.outputs]
    real = like[0].dtype
    reason = native.missing(engine, native.REALS[real])
    if reason is not None:
        raise Declined(reason)
    function = direct.function(engine, "step", real)
    # never written; one alike is made in half the time that one of a shape and a type takes
    like, held = [torch.empty(x.shape, dtype=real, device="cpu") for x in like], lowered.inputs
    pack = struct.Struct(f"{len(held) + len(like) + 1}q").pack
    empty_like, place, threads = torch.empty_like, Tensor.data_ptr, torch.get_num_threads
    constants = any(x is not None for x in held)

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        if constants:
            given = iter(inputs)
            inputs = [next(given) if x is None else x for x in held]
        outputs = [*map(empty_like, like)]
        code = function(pack(*map(place, inputs), *map(place, outputs), threads()))
        if code:
            kind, reason = FAILURES[code]
            raise kind(reason)
        return outputs

    return run
