"""Rotary positions: only distances show, and counting obeys the clock."""

import math

import torch
from torch.testing import assert_close

from recurra import Clock
from recurra.parts.rotary import count, rotate, turns


def test_a_product_of_two_rotated_vectors_depends_on_their_distance_alone():
    query, key = torch.randn(2, 1, 1, 1, 6, dtype=torch.float64)
    products = [
        (rotate(query, *turns(torch.tensor([[start + 5]]), 6)) * rotate(key, *turns(torch.tensor([[start]]), 6))).sum()
        for start in (0, 17, 10**6)
    ]
    assert_close(torch.stack(products), products[0].expand(3))


def test_rotation_is_of_neighbours_the_first_pair_by_one_radian_a_step():
    x = torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(1, 1, 1, 4)
    turned = rotate(x, *turns(torch.tensor([[1]]), 4)).flatten()
    angle = torch.tensor([1.0, 1e-4])
    assert_close(turned, torch.stack([angle.cos(), angle.sin()], 1).flatten())


def test_counting_equals_counting_by_hand():
    start = torch.tensor([0, 7, 10**12])
    reset = torch.rand(3, 30) < 0.2
    lengths = [30, 13, 0]
    clock = Clock(reset & Clock.lengths(lengths, 30).valid, Clock.lengths(lengths, 30).valid)
    positions, after = count(start, 30, clock)
    for row, length in enumerate(lengths):
        position = int(start[row])
        for t in range(length):
            position = 0 if reset[row, t] else position
            assert int(positions[row, t]) == position
            position += 1
        assert int(after[row]) == position


def test_a_position_beyond_float32_is_exact():
    cosine, sine = turns(torch.tensor([[10**7]]), 2)
    assert_close(cosine.item(), math.cos(10**7), rtol=0, atol=1e-14)
    assert_close(sine.item(), math.sin(10**7), rtol=0, atol=1e-14)
