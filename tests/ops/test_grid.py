"""Memories on grids and graphs: the wavefronts against the loops, the two against each other, and cuts along each axis.

A grid is a graph: nothing is shared between the two but these tests, so each is the other's second derivation.
"""

import pytest
import torch
from torch.testing import assert_close

from recurra.ops import Graph, Grid, Outer, Scan
from recurra.ops.graph import levels, links, loop as graph_loop, wavefront as graph_wavefront
from recurra.ops.grid import loop, wavefront
from recurra.ops.outer import loop as outer_loop
from recurra.state import leaves

B, H, K, V = 2, 2, 3, 4
SIZES = [(2, 2), (2, 5), (5, 2), (4, 4), (3, 7)]


def _grid(columns, rows, absent=(), dtype=torch.float64):
    query, key, value = (torch.randn(B, columns, rows, H, n, dtype=dtype) for n in (K, K, V))
    gates = [torch.rand(B, columns, rows, H, dtype=dtype) * 2 - 1 for _ in range(9)]
    record = Grid(query, key, value, *gates)._replace(**dict.fromkeys(absent))
    return record, tuple(torch.randn(B, n, H, K, V, dtype=dtype) for n in (rows, columns))


def _part(record, columns=slice(None), rows=slice(None)):
    return Grid._make(None if x is None else x[:, columns, rows] for x in record)


def _edges(columns, rows):
    """Of a grid: to the right and down, from nodes that are counted by column; the sides are nodes of their own."""
    right = [(x * rows + y, (x + 1) * rows + y) for x in range(columns - 1) for y in range(rows)]
    down = [(x * rows + y, x * rows + y + 1) for x in range(columns) for y in range(rows - 1)]
    return right, down


def _graph(grid):
    """The graph that a grid is, without what enters it."""
    columns, rows = grid.value.shape[1:3]
    right, down = _edges(columns, rows)
    edges = torch.tensor(right + down)
    pairs = links(edges)
    flat = {name: None if x is None else x.flatten(1, 2) for name, x in grid._asdict().items()}
    is_right = torch.arange(len(edges)) < len(right)
    out, into = edges.unbind(1)

    def choose(one, other, node):
        return torch.where(one[1][:, None], flat[one[0]][:, node], flat[other][:, node])

    source = choose(("source_right", is_right), "source_down", out)
    mark = choose(("mark_left", is_right), "mark_up", into)
    first, second = pairs.unbind(1)
    node = into[first]
    rightward = choose(("right_left", is_right[first]), "right_up", node)
    downward = choose(("down_left", is_right[first]), "down_up", node)
    transition = torch.where(is_right[second][:, None], rightward, downward)
    record = Graph(flat["query"], flat["key"], flat["value"], source, transition, mark, flat["direct"], edges, pairs)
    return record, torch.zeros(B, len(edges), H, K, V, dtype=torch.float64)


def _gradients(module, record, state):
    floats = [isinstance(x, torch.Tensor) and x.is_floating_point() for x in record]
    own = [x.detach().clone().requires_grad_() if f else x for x, f in zip(record, floats, strict=True)]
    start = [x.detach().clone().requires_grad_() for x in leaves(state)]
    read, last = module.scan(type(record)._make(own), tuple(start) if isinstance(state, tuple) else start[0])
    torch.manual_seed(7)
    total = sum((x * torch.randn_like(x)).sum() for x in (read, *leaves(last)))
    wanted = [*(x for x, f in zip(own, floats, strict=True) if f), *start]
    return [read, *leaves(last), *torch.autograd.grad(total, wanted)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("absent", [(), ("right_up",), ("down_left",)])
def test_diagonals_equal_single_nodes(size, absent):
    record, state = _grid(*size, absent)
    assert wavefront.declines(record, state) is None
    assert_close(_gradients(wavefront, record, state), _gradients(loop, record, state), rtol=1e-11, atol=1e-11)


def test_a_single_row_runs_by_the_loop():
    record, state = _grid(1, 6)
    assert "single" in (wavefront.declines(record, state) or "")
    assert_close(Scan()(record, state), loop.scan(record, state))


@pytest.mark.parametrize("module", [loop, wavefront])
@pytest.mark.parametrize("cut", [1, 2, 4])
def test_a_grid_may_be_cut_along_either_axis(module, cut):
    record, (left, top) = _grid(6, 5)
    whole, (right, bottom) = module.scan(record, (left, top))

    one, (middle, below) = loop.scan(_part(record, slice(cut)), (left, top[:, :cut]))
    two, (end, beyond) = loop.scan(_part(record, slice(cut, None)), (middle, top[:, cut:]))
    assert_close(torch.cat([one, two], 1), whole)
    assert_close((end, torch.cat([below, beyond], 1)), (right, bottom))

    one, (side, middle) = loop.scan(_part(record, rows=slice(cut)), (left[:, :cut], top))
    two, (beside, end) = loop.scan(_part(record, rows=slice(cut, None)), (left[:, cut:], middle))
    assert_close(torch.cat([one, two], 2), whole)
    assert_close((torch.cat([side, beside], 1), end), (right, bottom))


@pytest.mark.parametrize("module", [loop, wavefront])
def test_float32_is_as_good_as_the_loop(module):
    record, state = _grid(9, 8, dtype=torch.float32)
    exact = loop.scan(Grid._make(x.double() for x in record), tuple(x.double() for x in state))[0]
    error, loops = ((x.scan(record, state)[0] - exact).abs().max() for x in (module, loop))
    assert error <= 2 * loops + torch.finfo(torch.float32).eps * exact.abs().max()


@pytest.mark.parametrize("module", [loop, wavefront])
def test_one_row_of_a_grid_is_a_gated_outer_product(module):
    record, state = _grid(7, 2)
    # nothing goes from row to row
    none = torch.zeros_like(record.direct)
    record = record._replace(right_up=none, down_left=none, mark_up=none, right_left=record.right_left.abs())
    read, (right, _) = module.scan(record, state)
    one = _part(record, rows=0)
    asked, written = one.mark_left[..., None] * one.query, one.source_right[..., None] * one.key
    outer = Outer(asked, written, one.value, one.right_left.log(), before=True)
    want, last = outer_loop.scan(outer, state[0][:, 0])
    direct = (one.direct * (one.query * one.key).sum(-1))[..., None] * one.value
    assert_close(read[:, :, 0], want + direct)
    assert_close(right[:, 0], last)


def test_the_definitions_pass_gradcheck():
    record, state = _grid(2, 2)
    inputs = [x.requires_grad_() for x in (*record, *state)]
    assert torch.autograd.gradcheck(lambda *x: (lambda o: (o[0], *o[1]))(loop.scan(Grid(*x[:12]), x[12:])), inputs)
    graph, edges = _graph(_grid(3, 2)[0])
    inputs = [x.detach().requires_grad_() for x in (*graph[:7], edges)]
    assert torch.autograd.gradcheck(lambda *x: graph_loop.scan(Graph(*x[:7], *graph[7:]), x[7]), inputs)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("module", [graph_loop, graph_wavefront])
def test_a_grid_is_a_graph(size, module):
    grid, state = _grid(*size)
    want, _ = loop.scan(grid, tuple(torch.zeros_like(x) for x in state))
    record, edges = _graph(grid)
    read, _ = module.scan(record, edges)
    assert_close(read, want.flatten(1, 2), rtol=1e-11, atol=1e-11)


def _random_graph(nodes=9, share=0.4):
    pairs = torch.triu(torch.rand(nodes, nodes) < share, 1).nonzero()
    # neither edges nor nodes come in order
    edges = torch.randperm(nodes)[pairs][torch.randperm(len(pairs))]
    pairs = links(edges)
    sizes = (len(edges), len(pairs), len(edges), nodes)
    gates = (torch.rand(B, n, H, dtype=torch.float64) * 2 - 1 for n in sizes)
    query, key, value = (torch.randn(B, nodes, H, n, dtype=torch.float64) for n in (K, K, V))
    return Graph(query, key, value, *gates, edges, pairs), torch.randn(B, len(edges), H, K, V, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(4))
def test_levels_equal_single_edges(seed):
    torch.manual_seed(seed)
    record, state = _random_graph()
    assert graph_wavefront.declines(record, state) is None
    got, want = _gradients(graph_wavefront, record, state), _gradients(graph_loop, record, state)
    assert_close(got, want, rtol=1e-11, atol=1e-11)


def test_a_graph_may_be_cut_where_it_crosses_levels():
    record, state = _random_graph()
    whole, last = Scan()(record, state)
    early = torch.zeros(len(record.edges), dtype=torch.bool)
    early[levels(record)[0] + levels(record)[1]] = True
    first, second = record.links.unbind(1)
    # the first part runs alone; the second is handed what the first has left on its edges
    inside = early[first] & early[second]
    part = record._replace(links=record.links[inside], transition=record.transition[:, inside])
    _, carried = Scan()(part, state)
    begun = torch.where(early[:, None, None, None], carried, state)
    source = record.source.masked_fill(early[:, None], 0)
    rest = ~early[second]
    part = record._replace(links=record.links[rest], transition=record.transition[:, rest], source=source)
    read, end = Scan()(part, begun)
    assert_close((read, end), (whole, last))


def test_a_cycle_is_refused_and_a_graph_without_links_runs():
    record, state = _random_graph()
    with pytest.raises(ValueError, match="the graph has a cycle"):
        Scan()(
            record._replace(
                links=torch.cat([record.links, record.links.flip(1)]), transition=record.transition.repeat(1, 2, 1)
            ),
            state,
        )
    none = record._replace(links=record.links[:0], transition=record.transition[:, :0])
    assert "follows" in (graph_wavefront.declines(none, state) or "")
    assert torch.isfinite(Scan()(none, state)[0]).all()
