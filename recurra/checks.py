"""What a constructor was given, checked, in one sentence that names the value and the rule: the same words everywhere.

A sentence that can say more than the rule, such as what would go wrong, is written where it is known.
"""

from collections.abc import Collection


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
