"""FORCE learning of chaotic networks: keep the error small from the first step on, and it stays small by itself.

A network of rates that is chaotic on its own has a rich supply of motions. Its output is a linear read-out that is fed
back, and recursive least squares moves the read-out so fast that what is fed back is right all the time, chaos or not.
Where learning stops, the network goes on by itself. This is no rule of `RULES`: there is no input, so there are no
batches. The rule `force` is the same read-out learned from batches.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from recurra.mixers.cell.ctrnn import CTRNN
from recurra.shapes import Float, State, Tensor
from recurra.train.rules.least_squares import RecursiveLeastSquares


class Trained(NamedTuple):
    """A read-out `(M, N)`, the network's state where training ended, and the errors before each update `(T, M)`."""

    read: Tensor
    state: State
    errors: Tensor


@torch.no_grad()
def chaotic(units: int, *, gain: float = 1.5, tau: float = 10.0, inputs: int = 1, seed: int = 0) -> Any:
    r"""A continuous-time network whose rates never settle: weights normal, of variance `gain`\ :sup:`2` / units.

    Args:
        units: of the network (N).
        gain: above 1 the network is chaotic where nothing drives it (Sompolinsky, Crisanti and Sommers 1988,
            https://doi.org/10.1103/PhysRevLett.61.259).
        tau: the time constant of all units, in steps.
        inputs: features of the input that are connected, by weights between -1 and 1; the others are not read.
        seed: what the weights are drawn from.
    """
    network: Any = CTRNN(units)
    draw = torch.Generator().manual_seed(seed)
    network.recurrent.copy_(torch.randn(units, units, generator=draw) * gain * units**-0.5)
    network.log_tau.fill_(torch.tensor(tau).log())
    network.input.weight.zero_()
    network.input.weight[:, :inputs] = 2 * torch.rand(units, inputs, generator=draw) - 1
    network.input.bias.zero_()
    return network


@torch.no_grad()
def begin(network: Any, seed: int = 0) -> State:
    """A state in the middle of things: rates drawn between -1/2 and 1/2. From silence nothing would ever start."""
    (rate,) = network.initial_state(1)
    return (rate + torch.rand(rate.shape, generator=torch.Generator().manual_seed(seed)).to(rate) - 0.5,)


@torch.no_grad()
def force(
    network: Any, targets: Float[Tensor, "T M"], state: State, *, penalty: float = 1.0, every: int = 2
) -> Trained:
    r"""Teach a network to say `targets` by its read-out alone, its output fed back to it as its input all the while.

    .. math::
        z_t = W r_t \qquad r_{t+1} = f(r_t, z_t) \qquad e_t = z_t - y_t \qquad W \leftarrow W - c\, e_t\, (P r_t)^\top

    Sussillo and Abbott 2009, https://doi.org/10.1016/j.neuron.2009.07.018. Unlike the paper rates are what the units
    hold and not a function of it: the same network in other coordinates (Miller and Fumarola 2012,
    https://doi.org/10.1162/NECO_a_00221).

    Args:
        network: a `CTRNN` of at least M units, its first M inputs being the feedback (`chaotic`).
        targets: what it should say.
        state: where it begins, one row.
        penalty: of the read-out's squares (the paper's alpha); small is fast.
        every: steps between updates.
    """
    learner = RecursiveLeastSquares(len(network.log_tau), targets.shape[1], penalty=penalty)
    errors, output = [], torch.zeros(1, targets.shape[1])
    for step, target in enumerate(targets.double().split(1)):
        rate, state = _step(network, output, state)
        output = rate.double() @ learner.weight.T
        errors.append(target - output)
        if step % every == 0:
            learner.update(rate, target)
            output = rate.double() @ learner.weight.T
    return Trained(learner.weight, state, torch.cat(errors))


@torch.no_grad()
def run(network: Any, read: Float[Tensor, "M N"], state: State, steps: int) -> Float[Tensor, "T M"]:
    """What a network says when it is left to itself, hearing nothing but its own read-out."""
    outputs = []
    output = state[0].double() @ read.T
    for _ in range(steps):
        rate, state = _step(network, output, state)
        output = rate.double() @ read.T
        outputs.append(output)
    return torch.cat(outputs)


@torch.no_grad()
def absorbed(network: Any, read: Float[Tensor, "M N"]) -> Any:
    """The same dynamics without feedback: what the read-out sends back becomes recurrent weights of its rank.

    To train the read-out with feedback F is to train all recurrent weights by F times its updates, since U r + F z is
    (U + F W) r. That is the paper's network without feedback.
    """
    other = copy.deepcopy(network)
    other.recurrent.add_((network.input.weight[:, : len(read)].double() @ read).to(other.recurrent))
    return other


@torch.no_grad()
def full_force(
    network: Any, targets: Float[Tensor, "T M"], state: State, *, penalty: float = 1.0, every: int = 2
) -> tuple[Any, Trained]:
    r"""Teach every recurrent weight: each unit is to receive what it would if the targets themselves were its input.

    .. math::
        c_t = U^{0} r^{0}_t + F y_t \qquad U \leftarrow U + (c_t - U r_t)\, c\, (P r_t)^\top

    where r0 are the rates of the untrained network with the targets as its input. The read-out is taught along with the
    rows of U, by the same P. DePasquale et al. 2018, https://doi.org/10.1371/journal.pone.0191527.

    Returns the network without feedback, and its read-out. Arguments are those of `force`.
    """
    units, outputs = len(network.log_tau), targets.shape[1]
    start = torch.cat([network.recurrent.detach(), torch.zeros(outputs, units)])
    learner = RecursiveLeastSquares(units, units + outputs, penalty=penalty, start=start)
    learned = copy.deepcopy(network)
    feedback, own, nothing = network.input.weight[:, :outputs].double(), network.recurrent.double(), targets[:1] * 0
    teacher, errors = state, []
    for step, target in enumerate(targets.double().split(1)):
        asked, teacher = _step(network, target, teacher)
        rate, state = _step(learned, nothing, state)
        wanted = torch.cat([asked.double() @ own.T + target @ feedback.T, target], 1)
        errors.append(target - rate.double() @ learner.weight[units:].T)
        if step % every == 0:
            learner.update(rate, wanted)
            learned.recurrent.copy_(learner.weight[:units])
    return learned, Trained(learner.weight[units:], state, torch.cat(errors))


def _step(network: Any, heard: Float[Tensor, "1 M"], state: State) -> tuple[Float[Tensor, "1 N"], State]:
    """One step with `heard` as the first inputs."""
    x = F.pad(heard, (0, len(network.log_tau) - heard.shape[1])).to(network.recurrent)
    rate, state = network(x[:, None], state)
    return rate[:, 0], state
