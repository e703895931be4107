"""`Diag` in Triton: a program takes one row and a block of features, and goes through time with h in registers.

That is one pass over memory. Where rows and features are too few to fill the device, time is cut into chunks that run
side by side, as in `chunk`: a first pass finds what each chunk makes of any h, the same kernel carries h from chunk to
chunk, and a second pass reads. Going backward is a linear recurrence over every ring, so there too one kernel does it.
"""

import functools
from typing import Any, NamedTuple

import torch
from torch.autograd import Function

from recurra.ops import gpu
from recurra.ops.diag import Diag
from recurra.ops.diag.native import COMPLEX, RINGS, unknown
from recurra.ops.gpu import constexpr
from recurra.ops.once import once_differentiable
from recurra.ops.rings import SUM, Ring
from recurra.shapes import Inexact, Tensor

tl: Any  # Triton's language, bound when a kernel is first wanted

BLOCK = 128  # features of a program, one a thread
SHORT = 32  # steps that are not cut further
LANES = 1 << 18  # features side by side that keep a large device busy


def declines(record: Diag, state: Tensor) -> str | None:
    """What no kernel takes, or what no compiled form knows."""
    return gpu.declines(record.decay, record.drive, state) or unknown(record, state)


def scan(record: Diag, state: Inexact[Tensor, "B *F"]) -> tuple[Inexact[Tensor, "B T *F"], Inexact[Tensor, "B *F"]]:
    decay, drive, ring, reset = record
    kind = COMPLEX if drive.is_complex() else RINGS[ring]
    return _Diag.apply(decay, drive, state, None if reset is None else reset.contiguous().view(torch.uint8), ring, kind)


# ---- the kernels: a number is (x, y), where y is the imaginary part or nothing ----


def _load(x, at, seen, KIND: constexpr):
    if KIND == 1:
        return tl.load(x + 2 * at, seen, 0.0), tl.load(x + 2 * at + 1, seen, 0.0)
    one = tl.load(x + at, seen, 0.0)
    return one, one


def _store(x, at, one, other, seen, KIND: constexpr):
    if KIND == 1:
        tl.store(x + 2 * at, one, seen)
        tl.store(x + 2 * at + 1, other, seen)
    else:
        tl.store(x + at, one, seen)


def _mul(a, ai, h, hi, KIND: constexpr):
    """The ring's product."""
    if KIND == 0:
        return a * h, ai
    if KIND == 1:
        return a * h - ai * hi, a * hi + ai * h
    if KIND == 2:
        return gpu.smaller(a, h), ai
    return a + h, ai


def _add(x, xi, b, bi, KIND: constexpr):
    """The ring's sum."""
    if KIND == 0:
        return x + b, bi
    if KIND == 1:
        return x + b, xi + bi
    if KIND == 4:
        return gpu.logaddexp(x, b), bi
    return gpu.larger(x, b), bi


def _share(x, y):
    """How much of the gradient of max(x, y) is x's: half of it in a tie, and all where one is NaN, as in torch."""
    return tl.where(x == y, 0.5, tl.where(x < y, 0.0, 1.0)).to(x.dtype)


def _slopes(a, b, h, KIND: constexpr):
    """The derivatives of the new h by the old one, by a and by b, over rings that have an order."""
    if KIND == 2:
        m = gpu.smaller(a, h)
        kept = _share(m, b)
        return kept * _share(a, h), kept * _share(h, a), _share(b, m)
    x = a + h
    if KIND == 3:
        return _share(x, b), _share(x, b), _share(b, x)
    # nothing is divided between -inf and -inf
    same = x == b
    gap = tl.where(same, 0.0, x) - tl.where(same, 0.0, b)
    nothing = same & (x == float("-inf"))
    mine, other = tl.where(nothing, 0.0, gpu.sigmoid(gap)), tl.where(nothing, 0.0, gpu.sigmoid(-gap))
    return mine, mine, other


def _place(steps, features, chunks, length, BLOCK: constexpr):
    """Of this program: its chunk, its row, the chunk's first step and end, and its features."""
    blocks = tl.cdiv(features, BLOCK)
    chunk = (tl.program_id(0) // blocks).to(tl.int64)
    start = (chunk % chunks) * length
    d = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    return chunk, chunk // chunks, start, tl.minimum(start + length, steps), d


def _forward(
    decay, drive, first, reset, read, last, kept, began, steps, features, chunks, length,
    KIND: constexpr, START: constexpr, ZERO: constexpr, ONE: constexpr, CONSTANT: constexpr, RESETS: constexpr,
    SUMMARY: constexpr, BLOCK: constexpr,
):  # fmt: skip
    """Every h of a chunk. With SUMMARY only what the chunk is: its h from nothing, its decays' product, any reset."""
    chunk, row, start, stop, d = _place(steps, features, chunks, length, BLOCK)
    seen = d < features
    h, hi = _load(first, (row if SUMMARY else chunk) * features + d, seen, KIND)
    product, product_i = h, hi
    fresh = 0
    if SUMMARY:
        h, hi = tl.full(h.shape, ZERO, h.dtype), tl.full(h.shape, 0.0, h.dtype)
        product, product_i = tl.full(h.shape, ONE, h.dtype), tl.full(h.shape, 0.0, h.dtype)
    a, ai = _load(decay, d, seen, KIND)
    for t in tl.range(start, stop, num_stages=4):
        at = (row * steps + t) * features + d
        if not CONSTANT:
            a, ai = _load(decay, at, seen, KIND)
        b, bi = _load(drive, at, seen, KIND)
        if RESETS:
            begins = tl.load(reset + row * steps + t) != 0
            h, hi = tl.where(begins, START, h), tl.where(begins, 0.0, hi)
            fresh = fresh | begins.to(tl.int32)
        h, hi = _mul(a, ai, h, hi, KIND)
        h, hi = _add(h, hi, b, bi, KIND)
        if SUMMARY:
            product, product_i = _mul(a, ai, product, product_i, KIND)
        else:
            _store(read, at, h, hi, seen, KIND)
    _store(last, chunk * features + d, h, hi, seen, KIND)
    if SUMMARY:
        _store(kept, chunk * features + d, product, product_i, seen, KIND)
        tl.store(began + chunk, fresh)


def _backward(
    decay, drive, first, reset, read, read_grad, given, decay_grad, drive_grad, state_grad, kept, began,
    steps, features, chunks, length, KIND: constexpr, START: constexpr, CONSTANT: constexpr, RESETS: constexpr,
    SUMMARY: constexpr, BLOCK: constexpr,
):  # fmt: skip
    """From the gradient by the h after a chunk to that by the h before it, and by all that went in."""
    chunk, row, start, stop, d = _place(steps, features, chunks, length, BLOCK)
    seen = d < features
    g, gi = _load(given, chunk * features + d, seen, KIND)
    product, product_i = tl.full(g.shape, 1.0, g.dtype), tl.full(g.shape, 0.0, g.dtype)
    total, total_i = tl.full(g.shape, 0.0, g.dtype), tl.full(g.shape, 0.0, g.dtype)
    fresh = 0
    if SUMMARY:
        g, gi = tl.full(g.shape, 0.0, g.dtype), tl.full(g.shape, 0.0, g.dtype)
    a, ai = _load(decay, d, seen, KIND)
    for back in tl.range(start, stop, num_stages=4):
        t = start + stop - 1 - back
        at = (row * steps + t) * features + d
        grad, grad_i = _load(read_grad, at, seen, KIND)
        g, gi = g + grad, gi + grad_i
        if not CONSTANT:
            a, ai = _load(decay, at, seen, KIND)
        # the h before this step is the one read a step earlier, and before the first step the given one
        h, hi = _load(read, at - features, seen & (t > 0), KIND)
        if t == 0:
            h, hi = _load(first, row * features + d, seen, KIND)
        begins = False
        if RESETS:
            begins = tl.load(reset + row * steps + t) != 0
            h, hi = tl.where(begins, START, h), tl.where(begins, 0.0, hi)
            fresh = fresh | begins.to(tl.int32)
        if KIND <= 1:
            by_h, by_h_i = a, -ai
            by_a, by_a_i = _mul(h, -hi, g, gi, KIND)
            by_b = g
        else:
            b, _ = _load(drive, at, seen, KIND)
            by_h, by_a, by_b = _slopes(a, b, h, KIND)
            by_a, by_b = by_a * g, by_b * g
            by_h_i, by_a_i = gi, gi
        if SUMMARY:
            product, product_i = _mul(by_h, by_h_i, product, product_i, KIND if KIND <= 1 else 0)
        else:
            _store(drive_grad, at, by_b, gi, seen, KIND)
            if CONSTANT:
                total, total_i = total + by_a, total_i + by_a_i
            else:
                _store(decay_grad, at, by_a, by_a_i, seen, KIND)
        g, gi = _mul(by_h, by_h_i, g, gi, KIND if KIND <= 1 else 0)
        if RESETS:
            g, gi = tl.where(begins, 0.0, g), tl.where(begins, 0.0, gi)
    _store(state_grad, chunk * features + d, g, gi, seen, KIND)
    if SUMMARY:
        _store(kept, chunk * features + d, product, product_i, seen, KIND)
        tl.store(began + chunk, fresh)
    elif CONSTANT:
        _store(decay_grad, chunk * features + d, total, total_i, seen, KIND)


@functools.cache
def _kernels() -> tuple[Any, ...]:
    return gpu.kernels(_forward, _backward, helpers=(_load, _store, _mul, _add, _share, _slopes, _place))


# ---- around them ----


class _Cut(NamedTuple):
    """How the work is divided."""

    rows: int
    steps: int
    features: int
    chunks: int
    length: int

    @property
    def block(self) -> int:
        return min(BLOCK, gpu.power_of_two(self.features))

    @property
    def programs(self) -> int:
        return self.rows * self.chunks * -(-self.features // self.block)


def _cut(drive: Tensor) -> _Cut:
    rows, steps = drive.shape[:2]
    features = drive[0, 0].numel()
    length = max(SHORT, -(-steps * rows * features // LANES))
    return _Cut(rows, steps, features, -(-steps // length), length)


def _read(
    decay: Tensor, drive: Tensor, state: Tensor, reset: Tensor | None, ring: Ring, kind: int
) -> tuple[Tensor, Tensor]:
    """Read and last state."""
    forward, _ = _kernels()
    cut = _cut(drive)
    wide = (cut.rows, cut.chunks, *drive.shape[2:])
    last, kept = drive.new_empty(wide), drive.new_empty(wide if cut.chunks > 1 else 0)
    read, began = (
        torch.empty_like(drive, memory_format=torch.contiguous_format),
        drive.new_empty(wide[:2], dtype=torch.int32),
    )
    a, b, s, r, e, k = (gpu.flat(x) for x in (decay, drive, state, read, last, kept))

    def run(first: Tensor, summary: bool) -> None:
        gpu.launch(
            forward, cut.programs, a, b, first, reset if reset is not None else began, r, e, k, began, *cut[1:],
            KIND=kind, START=ring.start, ZERO=ring.zero, ONE=ring.one,
            CONSTANT=decay.ndim < drive.ndim, RESETS=reset is not None, SUMMARY=summary, BLOCK=cut.block,
        )  # fmt: skip

    if cut.chunks > 1:
        run(s, True)
        # what was before a reset does not reach the end of its chunk, whose own h has begun from the start already
        onward = ring._replace(start=ring.zero)
        ends, _ = _read(kept, last, state, None if reset is None else (began > 0).view(torch.uint8), onward, kind)
        s = gpu.flat(torch.cat([state[:, None], ends[:, :-1]], 1))
    run(s, False)
    return read, last[:, -1]


class _Diag(Function):
    @staticmethod
    def forward(
        ctx: Any, decay: Tensor, drive: Tensor, state: Tensor, reset: Tensor | None, ring: Ring, kind: int
    ) -> Any:
        read, last = _read(decay, drive, state, reset, ring, kind)
        # over sums no gradient needs b: only its shape is asked for
        ctx.save_for_backward(decay, read if ring is SUM else drive, state, reset, read)
        ctx.ring, ctx.kind = ring, kind
        return read, last.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        decay, drive, state, reset, read = ctx.saved_tensors
        read_grad, last_grad = grad_outputs
        cut, constant = _cut(drive), decay.ndim < drive.ndim
        wide = (cut.rows, cut.chunks, *drive.shape[2:])
        drive_grad = torch.empty_like(read)
        decay_grad = drive.new_empty(wide) if constant else torch.empty_like(read)
        state_grad, kept = drive.new_empty(wide), drive.new_empty(wide if cut.chunks > 1 else 0)
        began = drive.new_empty(wide[:2], dtype=torch.int32)
        inputs = [gpu.flat(x) for x in (decay, drive, state)]
        others = [gpu.flat(x) for x in (read, read_grad)]
        outputs = [gpu.flat(x) for x in (decay_grad, drive_grad, state_grad, kept)]

        def run(given: Tensor, summary: bool) -> None:
            gpu.launch(
                _kernels()[1], cut.programs, *inputs, reset if reset is not None else began, *others, gpu.flat(given),
                *outputs, began, *cut[1:], KIND=ctx.kind,
                START=ctx.ring.start, CONSTANT=constant, RESETS=reset is not None, SUMMARY=summary, BLOCK=cut.block,
            )  # fmt: skip

        given = last_grad
        if cut.chunks > 1:
            run(given[:, None].expand(wide), True)
            cuts = None if reset is None else (began.flip(1) > 0).view(torch.uint8)
            back, _ = _read(kept.flip(1), state_grad.flip(1), given, cuts, SUM, COMPLEX if drive.is_complex() else 0)
            given = torch.cat([back.flip(1)[:, 1:], given[:, None]], 1)
        run(given, False)
        decay_grad = decay_grad.sum((0, 1)) if constant else decay_grad
        return decay_grad, drive_grad, state_grad[:, 0], None, None, None
