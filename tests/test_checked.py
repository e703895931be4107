"""The checks under which every test runs are there: what they must refuse is refused."""

import pytest
import torch
from beartype import beartype
from checked import checked

from recurra import state as states
from recurra.ops.shift import shift
from recurra.shapes import Float, Tensor

X, PAST = torch.ones(2, 3, 4), torch.zeros(2, 4)


@pytest.mark.parametrize("wrong", [(X[0], PAST), (X, PAST[:1]), (X, PAST[:, :3]), (X.long(), PAST), (X, None)])
def test_an_argument_of_another_shape_or_type(wrong):
    shift(X, PAST)
    with pytest.raises(TypeError):
        shift(*wrong)


def test_where_no_shape_is_named_the_type_counts():
    with pytest.raises(TypeError):
        states.fork(PAST, 1.5)


def test_a_result_is_of_the_sizes_of_the_arguments():
    @checked(typechecker=beartype)
    def turn(x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        return x.mT

    turn(torch.ones(2, 2))
    with pytest.raises(TypeError):
        turn(torch.ones(2, 3))


def test_a_letter_is_one_size_in_one_call_only():
    shift(X[:1], PAST[:1])
    shift(X, PAST)


def test_checks_can_be_done_without(unchecked):
    shift(X.long(), PAST)
