"""What a constructor was given, checked, in one sentence that names the value and the rule: the same words everywhere.

A sentence that can say more than the rule, such as what would go wrong, is written where it is known.
"""

import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def one_of(known: Collection[str], **given: str) -> None:
    """Each is one of the `known`.

    Raises:
        ValueError: one is another.
    """
    for name, value in given.items():
        if value not in known:
            raise ValueError(f"{name} is {value!r}: it must be one of {', '.join(known)}")


def at_least(least: int | float, **given: int | float | None) -> None:
    """None of them is less, or no number; what is None was not given.

    Raises:
        ValueError: one is.
    """
    for name, value in given.items():
        if value is not None and not value >= least:
            raise ValueError(f"{name} is {value}: it must be at least {least}")


def greater_than(floor: int | float, **given: int | float) -> None:
    """Each is greater.

    Raises:
        ValueError: one is not, or is no number.
    """
    for name, value in given.items():
        if not value > floor:
            raise ValueError(f"{name} is {value}: it must be greater than {floor}")


def layer_of(depth: int, layer: int) -> None:
    """A layer is one of a stack's, counted from 0.

    Raises:
        ValueError: it is not.
    """
    if not 0 <= layer < depth:
        raise ValueError(f"layer is {layer}: with a depth of {depth} it must be at least 0 and less than that")


def of_types(function: Callable[..., Any], keywords: Mapping[str, Any]) -> None:
    """Each keyword is of the type that the function's signature names: what a command line gives may be anything.

    A whole number will do for a number, true and false for neither; a list for any sequence. What is annotated
    otherwise, and what the function does not know, is let through.

    Raises:
        ValueError: one is of another type, or a number that no file of settings can hold.
    """
    known = inspect.signature(function).parameters
    for name, value in keywords.items():
        kinds = _kinds(known[name].annotation) if name in known else ()
        if kinds and not any(_is(kind, value) for kind in kinds):
            raise ValueError(f"{name} is {_shown(value)}: it must be {' or '.join(map(_word, kinds))}")
        numbers = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(x, int) and abs(x) >= 2**63 for x in numbers):
            raise ValueError(f"{name} is {_shown(value)}: it must be less than 2**63")


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation lets through; none where it is not one of those that are looked at."""
    union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    kinds = typing.get_args(annotation) if union else (annotation,)
    return kinds if all(kind in _WORDS or _items(kind) for kind in kinds) else ()


def _items(kind: Any) -> Any:
    """What a kind of sequence holds; None where it is none, or holds what is not looked at."""
    items = typing.get_args(kind)
    sequence = typing.get_origin(kind) in (list, tuple, Sequence)
    return items[0] if sequence and items and items[0] in _WORDS else None


def _is(kind: Any, value: Any) -> bool:
    if item := _items(kind):
        return isinstance(value, list | tuple) and all(_is(item, x) for x in value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    return isinstance(value, kind)


def _shown(value: Any) -> str:
    """A value as text that leaves room for the rule."""
    text = repr(value)
    return text if len(text) < 60 else f"{text[:60]}..."


def _word(kind: Any) -> str:
    return f"a list, each {_WORDS[_items(kind)]}" if _items(kind) else _WORDS[kind]
