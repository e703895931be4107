"""Orders of units against brute force: every path, every subset, the whole lattice, on small cases."""

import itertools

import pytest
import torch

from recurra.parts.lattice import first_of_equals, irreducible, one_cover, patterns, reached, upper_covers, whenever

N = 6


def graphs(count=60):
    for seed in range(count):
        draw = torch.Generator().manual_seed(seed)
        yield torch.rand(N, N, generator=draw) < 0.05 + 0.3 * (seed / count)


def tables(count=80):
    for seed in range(count):
        draw = torch.Generator().manual_seed(seed)
        steps = int(torch.randint(1, 8, (), generator=draw))
        yield torch.rand(steps, N, generator=draw) < 0.3 + 0.5 * (seed / count)


def paths(edges):
    """Who reaches whom, by walking."""
    found = torch.zeros(N, N, dtype=torch.bool)
    for start in range(N):
        open_, seen = [start], set()
        while open_:
            at = open_.pop()
            seen.add(at)
            open_ += [to for to in range(N) if edges[at, to] and to not in seen]
        found[start, sorted(seen)] = True
    return found


def irreducible_of(before):
    """By the words: exactly one point is above it with no third between, every class being its first unit."""
    points = [i for i in range(N) if not any(before[i, j] and before[j, i] for j in range(i))]
    above = {i: [j for j in points if j != i and before[i, j]] for i in points}
    covers = {i: [j for j in above[i] if not any(j in above[k] for k in above[i] if k != j)] for i in points}
    return {i for i in points if len(covers[i]) == 1}


def test_reaching_and_meet_irreducible_points_against_brute_force():
    sizes = set()
    for edges in graphs():
        order = reached(edges)
        assert torch.equal(order, paths(edges))
        assert set(one_cover(order).nonzero()[:, 0].tolist()) == irreducible_of(order)
        sizes.add(int(first_of_equals(order).sum()))
    assert {1, N} <= sizes, "from one component to as many as units"


def test_a_chain_a_diamond_and_a_circle():
    chain = reached(torch.ones(4, 4).triu(1).bool())
    assert one_cover(chain).tolist() == [True, True, True, False]
    diamond = torch.zeros(4, 4, dtype=torch.bool)
    diamond[0, 1:3] = diamond[1:3, 3] = True
    assert one_cover(reached(diamond)).tolist() == [False, True, True, False]
    assert upper_covers(reached(diamond)).nonzero().tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]
    circle = reached(torch.eye(4).roll(1, 0).bool())
    assert first_of_equals(circle).tolist() == [True, False, False, False] and not one_cover(circle).any()


def intersections(active):
    """Every set of steps that is an intersection of units' steps: the lattice's elements. None of them: all steps."""
    columns = [frozenset(column.nonzero()[:, 0].tolist()) for column in active.T]
    every = frozenset(range(len(active)))
    return columns, {
        frozenset.intersection(every, *some) for n in range(N + 1) for some in itertools.combinations(columns, n)
    }


def test_irreducible_units_against_every_subset_and_against_the_whole_lattice():
    counts = set()
    for active in tables():
        columns, lattice = intersections(active)
        mine = set(irreducible(active).nonzero()[:, 0].tolist())
        for i, own in enumerate(columns):
            others = [x for x in columns if x != own]
            meets = {
                frozenset.intersection(frozenset(range(len(active))), *some)
                for n in range(len(others) + 1)
                for some in itertools.combinations(others, n)
            }
            assert (i in mine) == (own not in meets and own not in columns[:i])
        # in the lattice itself: the elements with one upper cover
        elements = sorted(lattice, key=sorted)
        order = torch.tensor([[a <= b for b in elements] for a in elements])
        single = {elements[i] for i in one_cover(order).nonzero()[:, 0].tolist()}
        assert single == {columns[i] for i in mine}
        counts.add(len(mine))
    assert {0, N} <= counts


def test_what_is_left_out_changes_no_intersection():
    for active in tables():
        kept = active[:, irreducible(active)]
        _, whole = intersections(active)
        columns = [frozenset(column.nonzero()[:, 0].tolist()) for column in kept.T]
        every = frozenset(range(len(active)))
        part = {
            frozenset.intersection(every, *some)
            for n in range(len(columns) + 1)
            for some in itertools.combinations(columns, n)
        }
        assert part == whole


def test_the_order_of_what_units_do():
    active = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]]).bool()
    assert whenever(active).nonzero().tolist() == [[0, 0], [0, 1], [1, 1], [2, 2]]


def test_patterns_are_counted():
    active = torch.tensor([[1, 0], [1, 0], [0, 1], [1, 1], [1, 0], [0, 1]]).bool()
    assert patterns(active).tolist() == [[False, True], [True, False], [True, True]]
    assert patterns(active, 3).tolist() == [[True, False]]
    with pytest.raises(ValueError, match="no pattern comes 4 times: the most frequent of 3 comes 3"):
        patterns(active, 4)
