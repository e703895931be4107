"""The operations of a layer are counted as a pencil counts them."""

import torch

from benchmarks import operations
from recurra import MIXERS


def test_a_pencil_counts_the_same():
    # tanh(W x + R h + b): two products, one with its bias, a sum, a function
    assert operations.count(MIXERS["elman"](32), 32, 6) == {
        "products": 4 * 32 * 32, "elements": 32, "functions": 32, "total": 4 * 32 * 32 + 32 + 10 * 32,
    }  # fmt: skip


def test_every_kind_of_work():
    a, b = torch.randn(4, 4), torch.randn(4, 3)
    with operations.Count() as counted:
        _ = a @ b
    assert (counted.products, counted.elements, counted.functions) == (2 * 4 * 4 * 3, 0, 0)
    with operations.Count() as counted:
        (a + a).exp().sum()
    assert (counted.products, counted.elements, counted.functions) == (0, 16 + 16, 16)
    with operations.Count() as counted:
        a.clone().T.softmax(-1)
    assert (counted.products, counted.elements, counted.functions) == (0, 0, 16)
    with operations.Count() as counted:
        torch.linalg.solve_triangular(a.tril() + torch.eye(4), b, upper=False)
    assert counted.products == 4 * 4 * 3


def test_a_definition_costs_the_same_whatever_its_batch_of_steps():
    mixer = MIXERS["mingru"](16)
    assert operations.count(mixer, 16, 8) == operations.count(mixer, 16, 32)


def test_products_of_training_are_those_of_chunks_forward_and_backward():
    # W x, its gradient to x, and to W
    class Map(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(8, 8, bias=False)

        def forward(self, x):
            return self.linear(x), ()

    assert operations.training(Map(), 8, 5) == 3 * 2 * 8 * 8
    mixer = MIXERS["ttt_linear"](16)
    assert operations.training(mixer, 16, 32) == operations.training(mixer, 16, 64)
