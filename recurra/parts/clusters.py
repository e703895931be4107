"""Points into groups, and groups to those who serve them best: choices without a gradient."""

import torch

from recurra.shapes import Float, Int, Tensor


def apart(points: Float[Tensor, "N C"], number: int) -> Float[Tensor, "K C"]:
    """The first point, and then always the point farthest from those before it: where clusters may begin."""
    found = points[:1]
    while len(found) < number:
        found = torch.cat([found, points[torch.cdist(points, found, p=1).amin(1).argmax()][None]])
    return found


def k_means(
    points: Float[Tensor, "N C"], centres: Float[Tensor, "K C"], limit: int = 20, tolerance: float = 1e-4
) -> tuple[Int[Tensor, " N"], Float[Tensor, "K C"]] | None:
    """Which cluster each point is in, and the clusters' centres; `centres` are where they begin.

    A point is in the cluster whose centre is nearest by the sum of absolute differences, and a centre is the mean of
    its points. None where a cluster becomes empty, or centres still move after `limit` rounds.
    """
    for _ in range(limit):
        own = torch.cdist(points, centres, p=1).argmin(1)
        if len(own.unique()) < len(centres):
            return None
        moved = torch.stack([points[own == cluster].mean(0) for cluster in range(len(centres))])
        if torch.allclose(moved, centres, rtol=0, atol=tolerance):
            return own, moved
        centres = moved
    return None


def claim(costs: Float[Tensor, "K M"]) -> Int[Tensor, " K"]:
    """For each row in turn, the cheapest column that no row before it has taken."""
    costs, taken = costs.clone(), []
    for row in costs:
        taken.append(int(row.argmin()))
        costs[:, taken[-1]] = torch.inf
    return torch.tensor(taken, device=costs.device)
