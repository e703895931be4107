"""How features are shared out among heads, which is the same for all: evenly, or not at all."""


def divide(whole: int, parts: int, *, of: str = "width", among: str = "heads") -> int:
    """An equal part of `whole`.

    Args:
        whole: how many there are.
        parts: how many parts.
        of: what `whole` is called.
        among: what the parts are.

    Raises:
        ValueError: there are no parts, or they do not divide `whole`.
    """
    if parts < 1 or whole % parts:
        raise ValueError(f"{of} is {whole}: it must be a multiple of {among}, which is {parts}")
    return whole // parts
