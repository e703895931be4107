"""What constructors refuse, and in which words."""

import inspect
from collections.abc import Sequence
from typing import Any

import pytest

from recurra.checks import at_least, greater_than, layer_of, of_types, one_of
from recurra.memory import MEMORIES
from recurra.mixers import MIXERS
from recurra.tasks import TASKS
from recurra.train.masks import MASKS, connect
from recurra.train.rules import RULES


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


def something(
    size: int,
    share: float,
    name: str,
    fast: bool,
    sizes: list[int] | tuple[int, ...],
    shares: Sequence[float],
    order: int | None = None,
    more: Any = None,
    deep: dict[str, Any] | None = None,
) -> None:
    """A function of all types that are looked at, and of some that are not."""  # fmt: skip


def test_what_has_the_type_of_the_signature_is_let_through():
    of_types(something, {"size": 3, "share": 0.5, "name": "a", "fast": True, "sizes": [1, 2], "shares": (1, 0.5)})
    of_types(something, {"share": 1, "order": None, "more": object(), "deep": 5, "unknown": 5, "sizes": ()})


@pytest.mark.parametrize(
    ("keyword", "values", "rule"),
    [
        ("size", ["abc", 1.5, True, None, [1], {}], "a whole number"),
        ("share", ["abc", True, None, [1], {}, float("nan"), float("inf")], "a number"),
        ("name", [1, True, None, ["a"]], "text"),
        ("fast", ["True", 1, 0, None], "true or false"),
        ("sizes", [1, "12", [1.5], ["a"], [True], None], "a list, each a whole number"),
        ("shares", [0.5, "0.5", ["a"], [None]], "a list, each a number"),
        ("order", ["abc", 1.5], "a whole number or null"),
    ],
)
def test_another_type_is_named_with_the_right_one(keyword, values, rule):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{keyword} is .*: it must be {rule}"):
            of_types(something, {keyword: value})


def test_what_is_refused_is_shown_in_part():
    with pytest.raises(ValueError, match=r"^size is 'aaa(a+)\.\.\.: it must"):
        of_types(something, {"size": "a" * 10**6})
    for given in ({"size": 10**30}, {"sizes": [10**30]}, {"shares": [0.5, 10**400]}, {"share": 10**400}):
        with pytest.raises(ValueError, match=r"less than 2\*\*63"):
            of_types(something, given)


@pytest.mark.parametrize(
    "table", [MIXERS, MEMORIES, TASKS, RULES, MASKS, {"connect": connect}], ids=lambda t: next(iter(t))
)
def test_what_everything_has_by_default_is_of_its_own_types(table):
    for thing in table.values():
        known = inspect.signature(thing).parameters.values()
        of_types(thing, {x.name: x.default for x in known if x.default is not inspect.Parameter.empty})
