"""A batch through a model, the same way in training and in evaluation."""

import torch

from recurra.clock import Clock
from recurra.shapes import State, Tensor, wide
from recurra.state import each
from recurra.tasks import Batch
from recurra.train.config import Config


def forward(model: torch.nn.Module, batch: Batch, state: State | None, config: Config) -> tuple[Tensor, State]:
    """Outputs and the state after the batch, in the run's precision; outputs are float32 at least."""
    clock = Clock(batch.reset, batch.valid, batch.dt)
    kind = torch.device(config.device).type
    with torch.autocast(kind, torch.bfloat16, enabled=config.precision == "bfloat16"):
        outputs, state = model(batch.inputs, state, clock or None)
    return outputs.to(wide(outputs)), state


def carried(state: State) -> State:
    """A state for the next batch: without its history, and laid out as a file would give it back.

    The layout matters: products of a transposed and of a plain tensor may round differently, and a resumed run
    has only plain ones.
    """
    return each(lambda x: x.detach().contiguous(), state)


def moved(batch: Batch, device: str) -> Batch:
    """The batch on the model's device."""
    return Batch(*(part if part is None else part.to(device) for part in batch))  # type: ignore[arg-type]


def size(batch: Batch) -> int:
    """Steps of sequences in a batch: those that happened."""
    rows, steps = batch.inputs.shape[:2]
    return rows * steps if batch.valid is None else int(batch.valid.sum())
