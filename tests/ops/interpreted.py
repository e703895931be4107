"""What the Triton kernels give, against the loop, in Triton's interpreter: test_gpu.py runs this file in a process of
its own, because the interpreter must be asked for before Triton is first imported.

The interpreter takes milliseconds for every operation, so sequences are short and chunks are made shorter still.
"""

import pytest
import torch
from ops.records import RECORDS, B
from ops.test_engines import UNWRITTEN, _clock, _float, _run

from recurra.clock import Clock
from recurra.ops import LOG_SUM, MAX_PLUS, MIN_MAX, Cell, Diag, Rule
from recurra.ops.cell import gpu as cell_gpu, loop as cell_loop, rules
from recurra.ops.diag import gpu as diag_gpu, loop as diag_loop
from recurra.ops.scan import prepare
from recurra.shapes import Tensor
from recurra.state import each, leaves

# numpy remarks on infinities, also in lanes beyond the last feature; a GPU makes them in silence
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

CHUNK = 3
GPU = {"diag": (diag_gpu, diag_loop), "cell": (cell_gpu, cell_loop)}
NAMES = [x for x in RECORDS if x.startswith(("diag", "cell")) and x not in UNWRITTEN]


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    monkeypatch.setattr(diag_gpu, "SHORT", CHUNK)


def _both(name):
    return GPU[name.partition("-")[0]]


@pytest.mark.parametrize(("T", "when"), [(1, "plain"), (CHUNK, "reset"), (CHUNK + 1, "plain"), (7, "both")])
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_equal_the_loops_in_float64(name, T, when):
    record, state = RECORDS[name](T, torch.float64)
    clock = _clock(T, when in ("reset", "both"), when == "both")
    got, want = (_run(module, record, state, clock) for module in _both(name))
    assert not isinstance(got, str), got
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["diag", "diag-log-sum", "diag-complex-constant", "cell-dense", "cell-lstm"])
def test_float32_error_is_at_most_twice_the_loops(name):
    record, state = RECORDS[name](7, torch.float32)
    it = iter([x.to(torch.complex128 if x.is_complex() else torch.float64) for x in record if _float(x)])
    exact = type(record)(*(next(it) if _float(x) else x for x in record))
    exact_state = each(lambda x: x.to(torch.complex128 if x.is_complex() else torch.float64), state)
    ours, loop = _both(name)
    want = _run(loop, exact, exact_state, None)
    results = [_run(module, record, state, None) for module in (ours, loop)]
    for mine, theirs, y in zip(*results, want, strict=True):
        room = torch.finfo(torch.float32).eps * max(float(y.abs().max()), 1)
        assert (mine - y).abs().max() <= 2 * (theirs - y).abs().max() + room


@pytest.mark.parametrize("name", ["diag", "diag-min-max", "cell-dense", "cell-diagonal"])
def test_a_reset_forgets_even_nan(name):
    record, state = RECORDS[name](4, torch.float64)
    reset = torch.zeros(B, 4, dtype=torch.bool)
    reset[:, 0] = True
    ready, start = prepare(record, each(lambda x: torch.full_like(x, torch.nan), state), Clock(reset))
    read, last = _both(name)[0].scan(ready, start)
    assert all(torch.isfinite(x).all() for x in (read, *leaves(last)))


@pytest.mark.parametrize("name", ["diag-complex", "cell-heads"])
def test_strided_inputs_give_the_same(name):
    ready, start = prepare(*RECORDS[name](4, torch.float64), None)
    scan = _both(name)[0].scan

    def strided(x):
        return x.transpose(0, -1).contiguous().transpose(0, -1) if isinstance(x, Tensor) else x

    want, want_last = scan(ready, start)
    got, got_last = scan(type(ready)(*map(strided, ready)), each(strided, start))
    for x, y in zip((got, *leaves(got_last)), (want, *leaves(want_last)), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


@pytest.mark.parametrize("ring", [MIN_MAX, MAX_PLUS, LOG_SUM], ids=lambda ring: ring.name)
def test_diag_shares_the_gradient_of_a_tie_as_torch_does(ring):
    decay, drive = torch.randint(-1, 2, (2, 1, 5, 6)).double()
    record, state = Diag(decay, drive, ring), torch.randint(-1, 2, (1, 6)).double()
    got, want = (_run(module, record, state, None) for module in GPU["diag"])
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_diag_has_no_gradient_at_the_log_of_nothing():
    record, state = RECORDS["diag-log-sum"](5, torch.float64)
    record.drive[0, :2], state[0] = -torch.inf, -torch.inf
    inputs = [x.clone().requires_grad_() for x in (record.decay, record.drive, state)]
    results = []
    for module in GPU["diag"]:
        read, _ = module.scan(Diag(inputs[0], inputs[1], LOG_SUM), inputs[2])
        total = read.masked_fill(torch.isinf(read), 0).square().sum()
        results.append([read.detach(), *torch.autograd.grad(total, inputs)])
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 2])
def test_cell_has_more_rows_and_units_than_a_block(heads):
    rows, units = 17, 34 * heads
    record = Cell(
        rules.ELMAN_TANH,
        torch.randn(rows, 2, units, dtype=torch.float64),
        0.2 * torch.randn(1, heads, 34, 34, dtype=torch.float64),
    )
    state = (torch.randn(rows, units, dtype=torch.float64),)
    clock = Clock(torch.rand(rows, 2) < 0.3, torch.rand(rows, 2) < 0.7)
    got, want = (_run(module, record, state, clock) for module in GPU["cell"])
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


def _every_word(drive, recur, state, scale):
    x, y = drive[0] * scale, state[0] + recur[0]
    first = torch.expm1(0.3 * x) + torch.log1p(x.abs()) + torch.sqrt(y.square() + 1) + torch.sin(x) * torch.cos(y)
    second = torch.erf(x) + torch.where((x > y) & (y <= 1) | ~(x >= -1), x, 2.0 * y) + torch.sign(x) * y
    third = torch.maximum(x, y) - torch.minimum(x, 0.5 * y) + torch.relu(x) + x.clamp(-1, 1) + torch.exp(-x * x)
    h = torch.tanh(0.1 * first + 0.1 * second) + 0.1 * torch.sigmoid(third) + torch.log(y.abs() + 1) / 7
    return third, (h,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cell_says_every_word(dtype):
    rule = Rule("words", _every_word, 1, 1, params=1, operator="diagonal")
    drive, weight, state = (torch.randn(shape, dtype=dtype) for shape in ((2, 3, 40), (1, 40), (2, 40)))
    record = Cell(rule, 3 * drive, weight, torch.ones(1, 40, dtype=dtype))
    got, want = (_run(module, record, (state,), None) for module in GPU["cell"])
    close = 1e-10 if dtype == torch.float64 else 2e-5
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=close, atol=close)


def test_cell_has_torchs_ends_of_every_word():
    """Where a function leaves its range, and beyond: infinities and NaN."""
    ends = torch.tensor([0.0, 1e-9, -1e-9, 0.3, -40.0, 40.0, 800.0, -800.0, torch.inf, -torch.inf, torch.nan])

    def rule(drive, recur, state):
        return torch.sigmoid(drive[0]), (torch.tanh(drive[0]), torch.relu(drive[0]), torch.maximum(drive[0], state[1]))

    record = Cell(Rule("ends", rule, 1, 0, state=3, operator="none"), ends.double()[None, None])
    state = tuple(torch.zeros(1, len(ends), dtype=torch.float64) for _ in range(3))
    results = [module.scan(record, state) for module in GPU["cell"]]
    for x, y in zip(leaves(results[0]), leaves(results[1]), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-300, equal_nan=True)


@pytest.mark.parametrize("name", ["diag", "diag-min-max", "cell-lstm", "cell-dense"])
def test_a_second_derivative_is_refused_also_of_one_tensor(name):
    record, state = RECORDS[name](3, torch.float64)
    drive = record.drive.requires_grad_()
    read, _ = _both(name)[0].scan(record, state)
    # of a sum, whose own slope is made of nothing: all that leads back is what the gradient was made of
    (grad,) = torch.autograd.grad(read.sum(), drive, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.grad((grad + drive.square()).sum(), drive)
