"""Product keys against all keys looked at one by one, which is what they must equal exactly, and their tables.

No package is compared with: the brute force is the definition.
"""

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch.nn import functional as F
from torch.testing import assert_close

from recurra.memory.mapped import MappedValues, create
from recurra.memory.product_key_memory import ProductKeyMemory, best
from recurra.memory.sharded import ShardedValues
from recurra.memory.values import Values


def by_force(layer, x):
    """Every key as a whole, every score, every value."""
    heads, keys, half = layer.keys.shape[1:]
    query = layer.query(x).unflatten(-1, (heads, 2, half))
    query = (query / (query.square().mean(-1, keepdim=True) + 1e-6).sqrt()).flatten(-2) * layer.query_scale
    whole = torch.cat([layer.keys[0].repeat_interleave(keys, 1), layer.keys[1].repeat(1, keys, 1)], -1)
    score, index = torch.einsum("...hs,hns->...hn", query, whole).topk(layer.top, -1)
    found = torch.einsum("...hk,...hkv->...v", score.softmax(-1), layer.values.weight[index])
    return layer.out(found * F.silu(layer.gate(x)))


@pytest.mark.parametrize("keys, top", [(32, 8), (5, 5), (7, 1)])
def test_equals_brute_force(keys, top):
    layer = ProductKeyMemory(16, keys=keys, heads=3, key_size=8, top=top).double()
    x = torch.randn(2, 9, 16, dtype=torch.float64, requires_grad=True)
    assert_close(layer(x), by_force(layer, x), rtol=1e-12, atol=1e-12)
    wanted, weight = [x, *layer.parameters()], torch.randn(2, 9, 16, dtype=torch.float64)
    ours = torch.autograd.grad((layer(x) * weight).sum(), wanted, allow_unused=True)
    theirs = torch.autograd.grad((by_force(layer, x) * weight).sum(), wanted, allow_unused=True)
    for (name, _), one, other in zip([("x", x), *layer.named_parameters()], ours, theirs, strict=True):
        # with one row a softmax is 1 whatever the score
        if top > 1 or name in ("x", "values.weight", "gate.weight", "out.weight"):
            assert one is not None and (one != 0).any(), name
        assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_best_pairs_are_the_best_of_all():
    query, keys = torch.randn(50, 2, 6), torch.randn(2, 2, 11, 3)
    score, index = best(query, keys, 4)
    first = torch.einsum("bhs,hns->bhn", query[..., :3], keys[0])
    second = torch.einsum("bhs,hns->bhn", query[..., 3:], keys[1])
    all_of_them = (first[..., None] + second[..., None, :]).flatten(-2)
    assert_close(score, all_of_them.topk(4, -1).values)
    assert_close(all_of_them.gather(-1, index), score)


def test_a_row_by_itself_and_in_a_narrow_type():
    layer = ProductKeyMemory(16)
    x = torch.randn(3, 5, 16)
    assert_close(layer(x)[1, 2], layer(x[1:2, 2:3])[0, 0])
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_sparse_gradients_are_of_the_rows_asked_for():
    dense = ProductKeyMemory(8, keys=6, heads=2, key_size=4, top=2)
    sparse = ProductKeyMemory(8, keys=6, heads=2, key_size=4, top=2, values=Values(36, 8, sparse=True))
    sparse.load_state_dict(dense.state_dict())
    x = torch.randn(3, 8)
    for layer in (dense, sparse):
        layer(x).square().sum().backward()
    gradient = sparse.values.weight.grad
    assert gradient.is_sparse and set(gradient.coalesce().indices()[0].tolist()) == set(
        dense.look_up(x)[1].flatten().tolist()
    )
    assert_close(gradient.to_dense(), dense.values.weight.grad)
    before = sparse.values.weight.detach().clone()
    torch.optim.SparseAdam([sparse.values.weight], lr=0.1).step()
    moved = (sparse.values.weight != before).any(-1)
    assert set(moved.nonzero().flatten().tolist()) == set(gradient.coalesce().indices()[0].tolist())


@pytest.fixture
def table(tmp_path):
    rows = np.random.default_rng(0).standard_normal((36, 8), dtype=np.float32)
    create(tmp_path / "table.safetensors", 36, 8, (rows[i : i + 10] for i in range(0, 36, 10)))
    return tmp_path / "table.safetensors", torch.from_numpy(rows)


def test_a_table_in_a_file_is_a_table(table):
    path, rows = table
    stored = safetensors.torch.load_file(path)
    assert torch.equal(stored["values"], rows) and torch.equal(stored["squares"], torch.zeros(36))
    mapped, whole = MappedValues(path, resident=1), Values(36, 8)
    whole.load_state_dict({"weight": rows})
    index, weight = torch.randint(36, (4, 3, 5)), torch.randn(4, 3, 5)
    assert_close(mapped(index, weight), whole(index, weight))
    assert mapped.shape == whole.shape


def test_training_moves_the_rows_that_were_asked_for_in_the_file(table):
    """Against Adagrad by hand; a row asked for twice, also in two calls, has the sum of its gradients."""
    path, rows = table
    mapped, weight = MappedValues(path), torch.ones(2, 2)
    squares = torch.zeros(36)
    for _ in range(2):
        total = (
            mapped(torch.tensor([[3, 3], [5, 9]]), weight).sum() + 2 * mapped(torch.tensor([[9]]), weight[:1, :1]).sum()
        )
        total.backward()
        assert mapped.update(0.1) == 3
        gradient = torch.zeros(36)
        gradient[[3, 5, 9]] = torch.tensor([2.0, 1.0, 3.0])
        squares += gradient.square()
        rows = rows - (0.1 * gradient / (squares.sqrt() + 1e-8))[:, None]
    mapped.flush()
    stored = safetensors.torch.load_file(path)
    assert_close(stored["values"], rows)
    assert_close(stored["squares"], squares)
    assert mapped.update(0.1) == 0
    mapped.eval()(torch.tensor([[3]]), weight[:1, :1])
    assert not mapped._waiting


def test_a_layer_learns_through_a_table_in_a_file(table):
    layer = ProductKeyMemory(8, keys=6, heads=2, key_size=4, top=2, values=MappedValues(table[0]))
    x, y = torch.randn(16, 8), torch.randn(16, 8)
    optimiser, losses = torch.optim.Adam(layer.parameters(), 0.02), []
    for _ in range(60):
        optimiser.zero_grad()
        loss = F.mse_loss(layer(x), y)
        loss.backward()
        optimiser.step()
        layer.values.update(0.1)
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_what_is_no_table_is_refused(tmp_path, table):
    with pytest.raises(ValueError, match="11 rows together: 12 were announced"):
        create(tmp_path / "t", 12, 4, [np.zeros((11, 4), np.float32)])
    with pytest.raises(ValueError, match=r"must be \(rows, 4\)"):
        create(tmp_path / "t", 12, 4, [np.zeros((12, 5), np.float32)])
    assert not (tmp_path / "t").exists()
    (tmp_path / "t").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="is no table of values"):
        MappedValues(tmp_path / "t")
    (tmp_path / "t").write_bytes(table[0].read_bytes()[:-4])
    with pytest.raises(ValueError, match="is cut short"):
        MappedValues(tmp_path / "t")


def one_of_two(rank, path, weight, index, scale):
    """Its own part of the batch, its own rows; what came out is left in a file."""
    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    table = ShardedValues(*weight.shape)
    with torch.no_grad():
        table.own.weight.copy_(weight[table.first : table.first + len(table.own.weight)])
    own = scale[rank].clone().requires_grad_()
    y = table(index[rank], own)
    y.square().sum().backward()
    found = {"y": y.detach(), "own": own.grad, "weight": table.own.weight.grad}
    safetensors.torch.save_file(found, f"{path}/{rank}")
    dist.destroy_process_group()


def test_two_processes_share_a_table(tmp_path):
    weight, index, scale = torch.randn(11, 4), torch.randint(11, (2, 3, 2, 5)), torch.randn(2, 3, 2, 5)
    processes.start_processes(one_of_two, (tmp_path, weight, index, scale), nprocs=2, start_method="fork")
    whole = Values(11, 4)
    whole.load_state_dict({"weight": weight})
    own = scale.clone().requires_grad_()
    y = whole(index, own)
    y.square().sum().backward()
    parts = [safetensors.torch.load_file(tmp_path / str(rank)) for rank in range(2)]
    assert_close(torch.stack([part["y"] for part in parts]), y.detach())
    assert_close(torch.stack([part["own"] for part in parts]), own.grad)
    assert_close(torch.cat([part["weight"] for part in parts]), whole.weight.grad)


@pytest.mark.parametrize(
    "wrong", [{"keys": 0}, {"heads": 0}, {"top": 0}, {"key_size": 5}, {"top": 33}, {"values": Values(3, 4)}]
)
def test_bad_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=r"is |rows"):
        ProductKeyMemory(16, **wrong)
