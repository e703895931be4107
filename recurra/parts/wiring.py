"""Which neurons of a cell there are synapses between, and whether they excite: fixed once, before any weight.

A wiring is two matrices of -1, 0 and 1, from a row to a column: what the inputs reach, and what the neurons reach. A
cell multiplies its weights by their absolute value, or starts its reversal potentials at their sign.
"""

from typing import NamedTuple

import torch

from recurra.shapes import Float, Tensor


class Wiring(NamedTuple):
    """-1 inhibits, 1 excites, 0: there is no synapse."""

    sensory: Float[Tensor, "D N"]
    recurrent: Float[Tensor, "N N"]


def full(inputs: int, units: int, generator: torch.Generator) -> Wiring:
    """Everything reaches everything, and two thirds of it excite."""
    third = torch.randint(3, (inputs + units, units), generator=generator)
    return Wiring(*torch.where(third == 0, -1.0, 1.0).split([inputs, units]))


def circuit(inputs: int, units: int, outputs: int, sparsity: float, generator: torch.Generator) -> Wiring:
    """A neural circuit policy: inputs reach inter neurons, these command neurons, and those themselves and the motors.

    Lechner et al. 2020, https://doi.org/10.1038/s42256-020-00237-3; sizes as the authors' package makes them from a
    sparsity. Motor neurons come first, then command neurons, then inter neurons. Signs are even odds.

    Args:
        inputs: D.
        units: neurons (N).
        outputs: motor neurons.
        sparsity: the share of possible synapses that a neuron lacks, between 0 and 1.
        generator: where the draws come from.

    Raises:
        ValueError: fewer than three neurons are left beside the motors, or `sparsity` is outside [0, 1).
    """
    if outputs >= units - 2:
        raise ValueError(f"units is {units}: a circuit of {outputs} outputs needs at least {outputs + 3}")
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}: it must be at least 0 and below 1")
    command = max(int(0.4 * (units - outputs)), 1)
    inter = units - outputs - command
    of_inter, of_command = (max(int(size * (1 - sparsity)), 1) for size in (inter, command))
    sensory, recurrent = torch.zeros(inputs, units), torch.zeros(units, units)
    motors, commands, inters = slice(0, outputs), slice(outputs, outputs + command), slice(outputs + command, units)
    sensory[:, inters] = _connect(inputs, inter, of_inter, generator)
    recurrent[inters, commands] = _connect(inter, command, of_command, generator)
    # every motor neuron chooses whom it hears, not the commands whom they reach
    recurrent[commands, motors] = _connect(outputs, command, of_command, generator).T
    loops = max(int(2 * command * (1 - sparsity)), 1)
    ends = outputs + torch.randint(command, (2, loops), generator=generator)
    recurrent[ends[0], ends[1]] = 1.0
    return Wiring(*(x * _signs(x, generator) for x in (sensory, recurrent)))


def _connect(sources: int, targets: int, fanout: int, generator: torch.Generator) -> Float[Tensor, "S T"]:
    """Each source reaches `fanout` targets; a target that none chose hears as many sources as the others on average."""
    chosen = _choose(sources, targets, fanout, generator)
    fanin = min(max(sources * fanout // targets, 1), sources)
    forgotten = chosen.sum(0) == 0
    return torch.where(forgotten, _choose(targets, sources, fanin, generator).T, chosen)


def _choose(rows: int, columns: int, count: int, generator: torch.Generator) -> Float[Tensor, "R C"]:
    """`count` different columns of every row."""
    order = torch.rand(rows, columns, generator=generator).argsort(1)
    return torch.zeros(rows, columns).scatter(1, order[:, :count], 1.0)


def _signs(x: Float[Tensor, "R C"], generator: torch.Generator) -> Float[Tensor, "R C"]:
    return 2.0 * torch.randint(2, x.shape, generator=generator) - 1
