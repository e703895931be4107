"""The least that a layer's channels may keep at a step, which grows with depth: what both HGRNs share."""

from recurra.checks import layer_of


def lower_bound(given: float | None, layer: int, depth: int) -> float:
    """What was given or, without, the layer's share of its stack, layer / depth: 0 for the first.

    The authors learn, for each channel, a share of every layer, and a layer's bound is the sum of those below it;
    the shares start equal, which is this. Qin et al. 2023, https://arxiv.org/abs/2311.04823.

    Raises:
        ValueError: `layer` is not one of `depth`, or the bound is outside [0, 1).
    """
    layer_of(depth, layer)
    bound = layer / depth if given is None else given
    if not 0 <= bound < 1:
        raise ValueError(f"lower_bound is {bound}: it must be at least 0 and below 1")
    return bound
