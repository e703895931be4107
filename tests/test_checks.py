"""What constructors refuse, and in which words."""

import pytest

from recurra.checks import at_least, greater_than, layer_of, one_of


def test_what_obeys_is_let_through():
    one_of({"after": 1, "before": 2}, reset="after")
    at_least(1, units=1, project=None)
    greater_than(0, step=1e-30)
    layer_of(2, 1)


def test_the_first_that_does_not_is_named_with_the_rule():
    with pytest.raises(ValueError, match=r"^reset is 'never': it must be one of after, before$"):
        one_of(("after", "before"), reset="never")
    with pytest.raises(ValueError, match=r"^size is 0: it must be at least 1$"):
        at_least(1, slots=1, size=0, heads=0)
    with pytest.raises(ValueError, match=r"^step is 0: it must be greater than 0$"):
        greater_than(0, step=0)


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_lies_in_its_stack(layer):
    with pytest.raises(ValueError, match=f"^layer is {layer}: with a depth of 2 it must be at least 0 and less"):
        layer_of(2, layer)


def test_what_is_no_number_obeys_no_rule():
    for check in (at_least, greater_than):
        with pytest.raises(ValueError, match="step is nan"):
            check(0, step=float("nan"))
