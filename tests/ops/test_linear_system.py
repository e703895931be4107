"""What linear systems in C owe beyond the engine tests: springs that never fade, threads, and what they decline."""

import torch
from torch.testing import assert_close

from recurra.ops import LinearSystem
from recurra.ops.linear_system import native


def _springs(steps, dtype, features=3, rows=1):
    angle = torch.linspace(1e-3, 3, features, dtype=torch.float64)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)], -2)
    write, read = torch.randn(features, 2, dtype=torch.float64), torch.randn(features, 1, 2, dtype=torch.float64)
    record = LinearSystem(torch.randn(rows, steps, features, dtype=torch.float64), turn, write, read)
    state = torch.randn(rows, features, 2, dtype=torch.float64)
    return LinearSystem(*(x.to(dtype) for x in record[:4])), state.to(dtype)


def test_springs_that_never_fade_keep_six_digits_in_float32():
    record, state = _springs(20_000, torch.float32)
    # the same numbers: a turn rounded to float32 is another turn
    exact = LinearSystem(*(x.double() for x in record[:4]))
    for got, want in zip(native.scan(record, state), native.scan(exact, state.double()), strict=True):
        assert_close(got.double(), want, rtol=0, atol=1e-6 * float(want.abs().max()))


def test_any_number_of_threads_gives_the_same_bits():
    record, state = _springs(300, torch.float32, features=200, rows=5)
    leaves = [x.requires_grad_() for x in (*record[:4], state)]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            read, last = native.scan(record, state)
            results.append([read, last, *torch.autograd.grad(read.square().sum() + last.sum(), leaves)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_systems_of_many_states_are_declined_with_the_reason():
    record, state = _springs(4, torch.float32)
    many = record._replace(matrix=torch.zeros(3, 5, 5), write=torch.zeros(3, 5), read=torch.zeros(3, 1, 5))
    assert "up to 4 states" in (native.declines(many, torch.zeros(1, 3, 5)) or "")
    assert native.declines(record, state) is None
