"""Graphs in C against the functions that they are of: every kind of call, any layout, and what has no words."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from recurra.ops import native as door
from recurra.ops.program import Declined, compiled
from recurra.ops.program.lower import lower
from recurra.ops.program.schedule import schedule

pytestmark = [
    pytest.mark.skipif(door.available() is not None, reason=str(door.available())),
    # torch's own decompositions use what torch deprecates
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


class _Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(*inputs)


def _program(function, *inputs):
    return compiled(torch.export.export(_Module(function), ([*inputs],), strict=False))


def _views(x, y):
    rolled = torch.cat([y[:, 1:], x[:, :1]], 1)
    a, b = rolled.split([2, 3], 1)
    crossed = a[:, :, None] * b.unsqueeze(1)
    return rolled, crossed.permute(2, 0, 1).reshape(-1), x.mT, crossed.flatten(1)[:, ::2] + 1


def _sums(x, y):
    outer = x[:, :, None] * y[:, None]
    return outer.sum(1), outer.sum((0, 2)), outer.mean(-1, keepdim=True), (x * x).sum(), y.sum(0) / x.exp().sum(0)


def _maps(x, y):
    gate = torch.where(x > y, F.softplus(x), x.clamp(-1, 0.5))
    norm = gate * (gate.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    more = F.gelu(x), F.elu(x), torch.where((x / 0 * 0).isnan(), x, y), torch.sub(x, y, alpha=3)
    return *more, norm, F.silu(norm) - torch.maximum(x, y).tanh(), torch.zeros_like(x), (x != x).to(x.dtype) * 2


def _matrices(x, y):
    dense = x @ (y.mT.contiguous()), torch.addmm(y[0, :3], x, y.mT)
    return *dense, F.linear(x, y), F.linear(x, y, y[:, 0]), x @ y.mT, torch.bmm(x[None], y.mT[None])


def _attention(x, y):
    query, key = x[:, :, None] * y[:, None], x[:, None] + y[:, :, None]
    scores = query @ key.mT
    hidden = torch.where(query > query[:, :1] - 1, scores, -torch.inf)
    attended = scores.softmax(-1) @ (query * key), hidden.softmax(-1) @ key
    columns = (y[:, :, None] * torch.cat([x, y, x, x[:, :1]], 1)[:, None]).softmax(1)
    return *attended, query.mT @ key, x.roll(2, 1), y.roll(-1, 0), (x * 2).erf(), columns, columns[:2].softmax(-2)


def _norms(x, y):
    return F.layer_norm(x, (5,), y[0], y[1]), F.layer_norm(x, (3, 5)), F.pad(x, (1, 2, 0, 1), value=3.0)


def _same_numbers(x, y):
    return x, x, y.clone(), x.mT


def _turned(x, y):
    # sixteen rows and more lie as columns
    grid = (x[:, :, None, None] * y[0, :, None] + torch.cat([y, x, y, x[:1, :1].expand(3, 1)], 1)[0]).transpose(0, 3)
    wide = torch.cat([grid[:, 0], grid[:, 1]], -2).flatten(1)[:, :16]
    return wide.mT.contiguous(), wide.mT.contiguous() + wide, grid.permute(2, 0, 1, 3).contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [_turned, _views, _sums, _maps, _matrices, _attention, _norms, _same_numbers])
def test_a_graph_in_c_is_its_function(function, dtype):
    inputs = torch.randn(3, 5, dtype=dtype), torch.randn(3, 5, dtype=dtype)
    before = [x.clone() for x in inputs]
    got, want = _program(function, *inputs)([*inputs]), function(*inputs)
    for x, y in zip(got, want, strict=True):
        assert_close(x, y)
        assert x.is_contiguous() and x.data_ptr() not in [one.data_ptr() for one in inputs]
    assert len({x.data_ptr() for x in got}) == len(got)
    assert_close([*inputs], before, rtol=0, atol=0)


def _wide(x, w, state):
    state = (x.sigmoid() * state).exp() - state[:, :1]
    rolled = F.pad(torch.cat([state[:, 3:], x[:, :3].tanh()], 1), (0, 4))
    scaled = F.linear(rolled[..., :260] / (rolled.square().mean() + 1), w).sigmoid()
    crossed = (scaled * scaled.sum(-1, keepdim=True)).mT.exp()
    short = (x.view(1, 130, 16) * x[:, 1:2, :16]).sum(-1), x.view(26, 16, 5).mT.mul(2).sum((1, 2))
    sums = *short, (state * x).sum(1), (state * x).sum(-1), crossed.sum((0, 1))
    return F.linear(x[:, 0], w), state, *sums, rolled, scaled


def test_any_number_of_threads_gives_the_same_bits():
    inputs = [torch.randn(1, 8, 260), torch.randn(4011, 260), torch.randn(1, 300, 260)[:, :8]]
    inputs[2] = torch.randn(1, 8, 260)
    run, had = _program(_wide, *inputs), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run(inputs))
    finally:
        torch.set_num_threads(had)
    assert_close(found[0], [*_wide(*inputs)], rtol=1e-4, atol=1e-4)
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(other, found[0], strict=True))


def _turns(function, *inputs):
    return schedule(lower(torch.export.export(_Module(function), ([*inputs],), strict=False)))


def test_threads_meet_only_where_one_needs_what_another_wrote():
    x, w = torch.randn(1, 4096), torch.randn(4096, 4096)
    chain = _turns(lambda x: (y := x.exp(), z := y * y.sigmoid(), (z * y).reshape(64, 64).sum(1)), x)
    assert {(turn.phase, turn.how) for turn in chain} == {(0, "split")} and len({turn.parts for turn in chain}) == 1
    first, second = _turns(lambda x, w: (F.linear(x.exp(), w),), x, w)
    assert (first.phase, second.phase) == (0, 1) and second.parts == 512
    *norm, product = _turns(lambda x, w: (F.linear(x[:, :512] * x[:, :512].square().mean().rsqrt(), w[:, :512]),), x, w)
    assert {turn.how for turn in norm} == {"own"} and (product.phase, product.how) == (0, "split")
    turned = _turns(lambda x: (y := x.exp(), y.view(64, 64).mT.exp()), x)
    assert [turn.phase for turn in turned] == [0, 1]


def test_rows_are_chosen_by_whole_numbers_within_the_table():
    table, tokens = torch.randn(7, 20), torch.tensor([[3], [6]])
    run = _program(F.embedding, tokens, table)
    assert_close(run([tokens, table]), [F.embedding(tokens, table)])
    for wrong in (-1, 7):
        with pytest.raises(IndexError, match="vocabulary"):
            run([torch.tensor([[0], [wrong]]), table])


def test_constants_of_the_graph_are_kept():
    constant = torch.arange(5.0)
    x = torch.randn(2, 5)
    assert_close(_program(lambda x: (x * constant,), x)([x]), [x * constant])


@pytest.mark.parametrize(("function", "inputs", "reason"), [
    (lambda x: (x + x.cumsum(1),), (torch.ones(2, 2),), "no C for 'cumsum'"),
    (lambda x: (torch.view_as_complex(x),), (torch.ones(2, 2),), "no tensor of"),
    (lambda x: (x.sort(1)[0],), (torch.ones(2, 2),), "no tensor of"),
    (lambda x: (x + 1,), (torch.ones(2, 2, dtype=torch.bfloat16),), "bfloat16"),
    (lambda x, y: (x + y.to(x.dtype),), (torch.ones(2), torch.ones(2, dtype=torch.bool)), "bool"),
    (lambda x: (torch.addmm(x, x, x, beta=0.5),), (torch.ones(2, 2),), "'addmm' with beta"),
    (lambda x: (x.bool().to(x.dtype),), (torch.ones(2),), "numbers as truth"),
    (lambda x: (x.softmax(0),), (torch.ones(3, 5),), "softmax over another axis"),
    (lambda x, y: (x[y],), (torch.ones(2), torch.tensor([1])), "no C for 'index'"),
])  # fmt: skip
def test_what_has_no_words_is_declined(function, inputs, reason):
    with pytest.raises(Declined, match=reason):
        _program(function, *inputs)
