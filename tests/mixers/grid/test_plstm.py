"""pLSTM on sequences, grids and graphs against the authors' code (tests/oracles/make_plstm.py)."""

import pytest
import torch
from oracles.stored import each_way, numbers
from torch.testing import assert_close

import recurra
from recurra.mixers.grid.graph import GraphPLSTM
from recurra.mixers.grid.plane import PlanePLSTM
from recurra.mixers.grid.plstm import PLSTM
from recurra.ops import Graph, Scan
from recurra.ops.graph import links

HEADS, WIDTH = 2, 8


def _linear(*parts):
    """Weights and biases of several of the authors' parts, as one linear map's."""
    weight = torch.cat([weight.reshape(-1, WIDTH) for weight, _ in parts])
    return weight, torch.cat([bias.flatten() for _, bias in parts])


def _load(module, theirs, gates, transitions, **others):
    def of(name):
        return theirs[f"{name}.weight"], theirs[f"{name}.bias"]

    own = {"norm.weight": theirs["mhnorm.scale"].flatten(), "out.weight": theirs["outprojection.weight"], **others}
    linears = {f"marks.{name}": _linear(of(name + "_" * (name == "value"))) for name in ("query", "key", "value")}
    linears |= {"marks.gate": _linear(*map(of, gates)), "transition": _linear(*transitions)}
    for name, (weight, bias) in linears.items():
        own |= {f"{name}.weight": weight, f"{name}.bias": bias}
    module.load_state_dict(own)


def _eigenvalues(theirs, name):
    return theirs[f"{name}.eigenvalues_weight"], theirs[f"{name}.eigenvalues_bias"]


@each_way
def test_a_sequence_equals_the_authors(way):
    theirs, other = numbers("plstm", "sequence.")
    mixer = PLSTM(WIDTH, heads=HEADS).double()
    others = {
        "conv.weight": theirs["conv._conv.weight"][:, 0],
        "conv.bias": theirs["conv._conv.bias"],
        "passthrough": theirs["passthrough.scale"],
    }
    _load(mixer, theirs, ("source", "mark", "direct"), [_eigenvalues(theirs, "transition")], **others)
    with recurra.use(way):
        assert_close(mixer(other["x"])[0], other["y"], rtol=1e-12, atol=1e-12)
    through = mixer.transition(mixer.conv(other["x"], mixer.conv.initial_state(2), None)[0])
    assert (through < 0).any() and (through > 0).any()


def test_a_directed_grid_equals_the_authors():
    theirs, other = numbers("plstm", "grid_P.")
    module = PlanePLSTM(WIDTH, heads=HEADS, mode="P", directions=1).double()
    # theirs weighs features by half their mean
    orientation = (theirs["orientation_weight"] * 0.5 / WIDTH, theirs["orientation_bias"])
    _load(module, theirs, ("direct", "source", "mark"), [_eigenvalues(theirs, "transition"), orientation])
    assert_close(module(other["x"])[0], other["y"], rtol=1e-12, atol=1e-12)


def test_a_diffusive_grid_equals_the_authors():
    theirs, other = numbers("plstm", "grid_D.")
    module = PlanePLSTM(WIDTH, heads=HEADS, mode="D", directions=1).double()
    transitions = [_eigenvalues(theirs, f"transition_{way}") for way in ("r", "d", "rd")]
    _load(module, theirs, ("direct", "source_r", "source_d", "mark_l", "mark_u"), transitions)
    assert_close(module(other["x"])[0], other["y"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", ["loop", "wavefront"])
def test_a_graph_equals_the_authors(way):
    _, other = numbers("plstm", "graph.")
    # heads first there; no rows
    record = Graph(*(other[name].transpose(0, 1)[None] for name in Graph._fields[:7]), other["edges"], other["links"])
    state = torch.zeros(1, 7, HEADS, 3, 4, dtype=torch.float64)
    with recurra.use(way):
        read, _ = Scan()(record, state)
    assert_close(read[0].transpose(0, 1), other["read"], rtol=1e-12, atol=1e-12)
    assert {tuple(x) for x in links(other["edges"]).tolist()} == {tuple(x) for x in other["links"].tolist()}


def _scattered(module):
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return module.double()


@pytest.mark.parametrize("mode", ["P", "D"])
@pytest.mark.parametrize("axis", [1, 2])
def test_a_plane_in_pieces_is_the_whole(mode, axis):
    module = _scattered(PlanePLSTM(WIDTH, mode=mode, directions=1))
    x = torch.randn(2, 6, 5, WIDTH, dtype=torch.float64)
    whole, (edges,) = module(x)
    one, two = x.split([4, x.shape[axis] - 4], axis)
    first, (between,) = module(one)
    # what leaves the first piece along the axis enters the second; along the other nothing enters either
    ((left, top),) = module.initial_state(*two.shape[:3])
    start = (between[0], top) if axis == 1 else (left, between[1])
    second, (end,) = module(two, (start,))
    assert_close(torch.cat([first, second], axis), whole)
    along, across = axis - 1, 2 - axis
    assert_close(end[along], edges[along])
    assert_close(torch.cat([between[across], end[across]], 1), edges[across])


@pytest.mark.parametrize("mode", ["P", "D"])
def test_low_precision_in_is_low_out_and_wide_between(mode):
    x, edges = torch.randn(1, 3, 3, WIDTH).bfloat16(), torch.tensor([[0, 1], [1, 2], [0, 2]])
    y, ((right, _), *_) = PlanePLSTM(WIDTH, mode=mode).bfloat16()(x)
    z, on_edges = GraphPLSTM(WIDTH, mode=mode).bfloat16()(x[:, 0], edges)
    assert y.dtype == z.dtype == torch.bfloat16 and right.dtype == on_edges.dtype == torch.float32
    assert torch.isfinite(y).all() and torch.isfinite(z).all()


@pytest.mark.parametrize("mode", ["P", "D"])
def test_four_directions_see_everything_and_turn_with_the_plane(mode):
    module = _scattered(PlanePLSTM(WIDTH, mode=mode))
    x = torch.randn(1, 4, 3, WIDTH, dtype=torch.float64, requires_grad=True)
    y, state = module(x)
    (seen,) = torch.autograd.grad(y[0, 2, 1].sum(), x)
    assert (seen.abs().sum(-1) > 0).all()
    assert len(state) == 4
    with pytest.raises(ValueError, match="four directions"):
        module(x, state)
    gradients = torch.autograd.grad(module(x)[0].sin().sum(), list(module.parameters()))
    assert all((g != 0).any() for g in gradients)


@pytest.mark.parametrize("mode", ["P", "D"])
@pytest.mark.parametrize("features", [0, 3])
def test_a_graphs_nodes_hear_of_those_before_them(mode, features):
    module = _scattered(GraphPLSTM(WIDTH, edge_width=features, mode=mode))
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64, requires_grad=True)
    edges = torch.tensor([[3, 0], [0, 1], [1, 4], [2, 1], [0, 4]])
    on_edges = torch.randn(2, 5, features, dtype=torch.float64) if features else None
    y, _ = module(x, edges, on_edges)
    (seen,) = torch.autograd.grad(y[:, 1].sum(), x, retain_graph=True)
    assert [bool((seen[:, n] != 0).any()) for n in range(5)] == [True, True, True, True, False]
    gradients = torch.autograd.grad(y.sin().sum(), list(module.parameters()))
    assert all((g != 0).any() for g in gradients)


def test_what_enters_an_edge_in_mode_p_never_adds_up_to_more_than_one():
    module = _scattered(GraphPLSTM(WIDTH, heads=1))
    records = []
    module.scan.register_forward_pre_hook(lambda _, given: records.append(given[0]))
    edges = torch.tensor([[0, 3], [1, 3], [2, 3], [3, 4], [3, 5]])
    module(10 * torch.randn(1, 6, WIDTH, dtype=torch.float64), edges)
    (record,) = records
    total = torch.zeros(1, 5, 1, dtype=torch.float64).index_add(1, record.links[:, 1], record.transition.abs())
    assert len(record.links) == 6 and (total <= 1).all()


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: PLSTM(16, heads=3), "width is 16: it must be a multiple of heads, which is 3"),
        (lambda: PlanePLSTM(16, mode="X"), "mode is 'X'"),
        (lambda: PlanePLSTM(16, directions=2), "directions is 2"),
        (lambda: GraphPLSTM(16, mode="X"), "mode is 'X'"),
        (lambda: GraphPLSTM(16, edge_width=-1), "edge_width is -1"),
    ],
)
def test_what_cannot_be_is_refused(build, reason):
    with pytest.raises(ValueError, match=reason):
        build()


def test_edges_have_the_features_that_were_promised():
    x, edges = torch.randn(1, 3, WIDTH), torch.tensor([[0, 1], [1, 2]])
    with pytest.raises(ValueError, match="edges have 0 features: they must have 2"):
        GraphPLSTM(WIDTH, edge_width=2)(x, edges)
