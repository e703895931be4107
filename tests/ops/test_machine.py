"""What is particular to machines in C: threads, groups of rows, memories that are kept, and what they decline."""

import pytest
import torch

from recurra.clock import Clock
from recurra.ops import Linked, Machine, Tape, native
from recurra.ops.machine import loop as machine_loop, native as machine_native
from recurra.ops.scan import Scan, prepare, use

needs_compiler = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))

MEMORIES = [Tape(20, 6, 1, 1), Tape(5, 3, 2, 3), Linked(17, 6, 1), Linked(5, 3, 2), Linked(4, 2, 2, links=False)]
each_memory = pytest.mark.parametrize("memory", MEMORIES, ids=str)


def record(memory, B, T, D, dtype=torch.float32):
    def normal(*shape, scale=0.4):
        return (scale * torch.randn(*shape, dtype=torch.float64)).to(dtype)

    says, hears = memory.interface, D + memory.read
    weights = normal(4 * D, D), normal(4 * D), normal(4 * D, hears), normal(says, D), normal(says)
    state = tuple(torch.zeros(B, size, dtype=dtype) for size in (D, D, memory.read, *memory.state))
    return Machine(memory, normal(B, T, D, scale=1.0), *weights), state


def run(implementation, ready, state, clock=None):
    """Read, last state, and gradients of a fixed function of them."""
    leaves = [
        x.detach().requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in ready
    ]
    own = [x.detach().requires_grad_() for x in state]
    prepared, start = prepare(Machine(*leaves), tuple(own), clock)
    assert implementation.declines(prepared, start) is None
    read, last = implementation.scan(prepared, start)
    torch.manual_seed(1)
    total = sum((x * torch.randn(x.shape, dtype=torch.float64)).sum() for x in (read, *last))
    wanted = [*leaves[1:7], *own]
    return [read, *last, *torch.autograd.grad(total, wanted)]


@needs_compiler
@each_memory
def test_threads_and_groups_of_rows_change_nothing(memory):
    """Enough work that three threads do run; eleven rows are groups of 8 and 3, of 6 and 5, of 4, 4 and 3."""
    ready, state = record(memory, 11, 90, 32)
    clock = Clock(torch.rand(11, 90) < 0.05, torch.arange(90)[None] < torch.randint(1, 91, (11, 1)))
    want = run(machine_native, ready, state, clock)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        got = run(machine_native, ready, state, clock)
        torch.set_num_threads(1)
        # gradients of weights are torch's own products
        kept = [i for i in range(len(want)) if i < len(state) + 2 or i > len(state) + 6]
        assert all(torch.equal(got[i], want[i]) for i in kept)


@needs_compiler
@each_memory
@pytest.mark.parametrize("steps", [31, 32, 33, 65])
def test_around_the_steps_whose_memories_are_kept(memory, steps):
    ready, state = record(memory, 2, steps, 16, torch.float64)
    clock = Clock(valid=torch.arange(steps)[None] < torch.tensor([[steps], [32]]))
    pairs = zip(*(run(module, ready, state, clock) for module in (machine_native, machine_loop)), strict=True)
    for got, want in pairs:
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@needs_compiler
@each_memory
def test_many_slots_and_numbers(memory):
    ready, state = record(type(memory)(70, 20, *memory[2:]), 3, 12, 24, torch.float64)
    pairs = zip(*(run(module, ready, state) for module in (machine_native, machine_loop)), strict=True)
    for got, want in pairs:
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@needs_compiler
@each_memory
def test_narrow_numbers_are_widened_once(memory):
    ready, state = record(memory, 2, 20, 16)
    narrow = Machine(memory, *(x.bfloat16() for x in ready[1:7]))
    with torch.no_grad():
        read, last = Scan()(narrow, state)
        with use("loop"):
            want, want_last = Scan()(narrow, state)
    assert read.dtype == torch.bfloat16 and all(x.dtype == torch.float32 for x in last)
    torch.testing.assert_close(read, want)
    for x, y in zip(last, want_last, strict=True):
        torch.testing.assert_close(x, y)


@each_memory
def test_steps_that_did_not_happen_between_others_are_declined(memory):
    ready, state = record(memory, 1, 3, 16)
    prepared, start = prepare(ready, state, Clock(valid=torch.tensor([[True, False, True]])))
    assert "align them" in str(machine_native.declines(prepared, start)) or native.available()
