"""The words of groups: that they are groups, which ones, and that no step is easier to guess than another.

What every made task promises is tested over the table in `test_made.py`.
"""

import math

import pytest
import torch

from recurra.tasks import SourceError, make

GROUPS = {"S3": 6, "S5": 120, "A5": 60, "A6": 360, "Z3": 3, "Z60": 60}


def tracking(group, swaps=False):
    return make({"task": "state_tracking", "group": group, "swaps": swaps})


@pytest.mark.parametrize(("group", "elements"), GROUPS.items())
def test_products_make_a_group(group, elements):
    product = tracking(group).product
    every = torch.arange(elements)
    assert product.shape == (elements, elements)
    assert torch.equal(product[0], every) and torch.equal(product[:, 0], every)
    # every row and column holds each element once: all can be undone
    assert torch.equal(product.sort(0).values, every[:, None].expand(elements, elements))
    assert torch.equal(product.sort(1).values, every.expand(elements, elements))
    x, y, z = torch.randint(elements, (3, 2000))
    assert torch.equal(product[product[x, y], z], product[x, product[y, z]])


@pytest.mark.parametrize(("group", "commutes"), [("Z60", True), ("S3", False), ("A5", False), ("S5", False)])
def test_only_circles_commute(group, commutes):
    product = tracking(group).product
    assert torch.equal(product, product.T) == commutes


def commutators(product, of):
    """The elements of the subgroup that all x y x^-1 y^-1 of a subgroup make."""
    inverse = (product == 0).int().argmax(1)
    x, y = torch.meshgrid(of, of, indexing="ij")
    found = product[product[x, y], product[inverse[x], inverse[y]]].unique()
    while len(more := product[found[:, None], found].unique()) > len(found):
        found = more
    return found


def test_the_alternating_group_of_five_is_its_own_commutators():
    """So no chain of commutative groups builds A5, nor S5 which holds it; S3 and Z60 are built so."""
    for group, chain in {"A5": [60, 60], "S5": [60, 60], "S3": [3, 1], "Z60": [1]}.items():
        product = tracking(group).product
        subgroup = torch.arange(len(product))
        for size in chain:
            subgroup = commutators(product, subgroup)
            assert len(subgroup) == size


def test_a_circle_is_counting():
    inputs = tracking("Z60").batch("train", 0, 8, 50, 0)
    assert torch.equal(inputs.targets, inputs.inputs.cumsum(1) % 60)


def test_swaps_are_of_neighbours_after_the_first():
    task = tracking("S5", swaps=True)
    inputs = task.batch("train", 0, 2000, 12, 0).inputs
    moved = {task.elements[token] for token in inputs[:, 1:].unique()}
    assert moved == {(1, 0, 2, 3, 4), (0, 2, 1, 3, 4), (0, 1, 3, 2, 4), (0, 1, 2, 4, 3)}
    assert len(inputs[:, 0].unique()) == 120


def test_turns_are_of_three_neighbours_either_way_after_the_first():
    task = make({"task": "state_tracking", "group": "A4", "turns": True})
    inputs = task.batch("train", 0, 2000, 12, 0).inputs
    moved = {task.elements[token] for token in inputs[:, 1:].unique()}
    assert moved == {(1, 2, 0, 3), (2, 0, 1, 3), (0, 2, 3, 1), (0, 3, 1, 2)}
    assert len(inputs[:, 0].unique()) == 12


def test_a_circle_turns_by_one_place_either_way_after_the_first():
    task = make({"task": "state_tracking", "group": "Z60", "turns": True})
    inputs, targets = task.batch("train", 0, 2000, 12, 0)[:2]
    assert inputs[:, 1:].unique().tolist() == [1, 59]
    assert len(inputs[:, 0].unique()) == 60
    assert torch.equal(targets, inputs.cumsum(1) % 60)


@pytest.mark.parametrize("group", ["S3", "S5", "A3", "A5", "A6", "Z3", "Z60"])
def test_swaps_and_turns_make_the_whole_group(group):
    task = make({"task": "state_tracking", "group": group, "swaps": group[0] == "S", "turns": group[0] != "S"})
    moves, found, before = torch.tensor(task.moves), torch.zeros(1, dtype=torch.long), 0
    while len(found) > before:
        before = len(found)
        found = torch.cat([found, task.product[moves][:, found].flatten()]).unique()
    assert len(found) == len(task.elements)


@pytest.mark.parametrize("swaps", [False, True])
def test_answers_are_uniform_at_every_step(swaps):
    targets = tracking("S3", swaps).batch("train", 0, 12000, 30, 0).targets
    shares = torch.nn.functional.one_hot(targets, 6).double().mean(0)
    assert (shares - 1 / 6).abs().max() < 5 * math.sqrt(5 / 36 / 12000)


def test_with_swaps_the_solver_is_perfect_too():
    task = tracking("S5", swaps=True)
    batch = task.batch("test", 0, 16, 100, 0)
    assert task.score(task.solve(batch), batch) == (1600, 1600)


@pytest.mark.parametrize("group", ["", "S", "S2", "S6", "A2", "Z1", "Z361", "D5", "s5", "S5.0", "S-5"])
def test_a_group_that_is_none_is_refused(group):
    with pytest.raises(SourceError, match=f"no group '{group}': give S3 to S5"):
        tracking(group)


@pytest.mark.parametrize(("group", "moves"), [("A5", "swaps"), ("Z60", "swaps"), ("S5", "turns")])
def test_swaps_and_turns_do_not_make_other_groups(group, moves):
    with pytest.raises(SourceError, match=f"{group} is not made of {moves}"):
        make({"task": "state_tracking", "group": group, moves: True})
