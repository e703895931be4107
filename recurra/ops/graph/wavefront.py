"""`Graph` by levels: the edges whose longest way from a start is equally long run side by side."""

import itertools

import torch

from recurra.ops.graph import Graph, levels, read, written
from recurra.shapes import Float, Tensor


def declines(record: Graph, state: Tensor) -> str | None:
    """Without a link there is nothing to carry."""
    return None if len(record.links) else "no edge follows another"


def scan(
    record: Graph, state: Float[Tensor, "B E H K V"]
) -> tuple[Float[Tensor, "B N H V"], Float[Tensor, "B E H K V"]]:
    device = state.device
    waves = levels(record)
    order = torch.tensor(list(itertools.chain(*waves)), device=device)
    sizes = [len(wave) for wave in waves]
    # where each edge is in the order of the levels; links by the level of the edge they enter
    place = order.argsort()
    level = torch.arange(len(waves), device=device).repeat_interleave(torch.tensor(sizes, device=device))[place]
    after = level[record.links[:, 1]]
    sorted_links = after.argsort(stable=True)
    counts = after.bincount(minlength=len(waves)).tolist()
    ways = place[record.links[sorted_links]].split(counts)
    transitions = record.transition[:, sorted_links, :, None, None].split(counts, 1)

    carried = None
    for own, way, transition in zip(
        (state + written(record))[:, order].split(sizes, 1), ways, transitions, strict=True
    ):
        if carried is None:
            carried = own
            continue
        first = carried.shape[1]
        heard = transition * carried[:, way[:, 0]]
        carried = torch.cat([carried, torch.index_add(own, 1, way[:, 1] - first, heard)], 1)
    assert carried is not None
    carried = carried[:, place]
    return read(record, carried), carried
