"""The definition of `Synapse`: one step at a time."""

import torch

from recurra.ops.steps import by_step, restart
from recurra.ops.synapse import Synapse
from recurra.shapes import Float, Tensor


def declines(record: Synapse, state: Tensor) -> str | None:
    """Never: this is the definition the others are measured against."""
    return None


def scan(record: Synapse, state: Float[Tensor, "B N"]) -> tuple[Float[Tensor, "B T N"], Float[Tensor, "B N"]]:
    steps = record.source.shape[1]
    resets = by_step(record.reset, steps)
    valids = by_step(record.valid, steps)
    gates, flow = torch.stack([record.slope, record.offset]), torch.stack([record.push, record.conductance])
    # what opens synapses, and what flows through them: of the inputs, of the neurons
    (gates_in, gates), (flow_in, flow) = (
        part.split([record.source.shape[2], state.shape[1]], 1) for part in (gates, flow)
    )
    reads = []
    for source, span, begins, happens in zip(
        record.source.unbind(1), record.span[..., None].unbind(1), resets, valids, strict=True
    ):
        v = state if begins is None else restart(begins, state)
        push, conductance = _through(source, gates_in, flow_in).unbind(1)
        push, inertia = push + record.current, record.capacitance * (record.steps / span)
        floor = inertia + (conductance + record.leak)
        for _ in range(record.steps):
            pushed, opened = _through(v, gates, flow).unbind(1)
            v = (torch.addcmul(push, inertia, v) + pushed) / (floor + opened)
        state = v if happens is None else torch.where(happens[:, None], v, state)
        reads.append(v if happens is None else v.masked_fill(~happens[:, None], 0))
    return torch.stack(reads, 1), state


def _through(
    source: Float[Tensor, "B S"], gates: Float[Tensor, "2 S N"], flow: Float[Tensor, "2 S N"]
) -> Float[Tensor, "B 2 N"]:
    """The current that synapses would push into a neuron at zero, and their conductance."""
    slope, offset = gates.unbind(0)
    open_share = torch.sigmoid(slope * source[:, :, None] - offset)
    return (open_share[:, None] * flow).sum(2)
