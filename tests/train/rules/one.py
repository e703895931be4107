"""One mixer as a model, and an error that is given: what a rule does to gradients, and nothing else."""

from types import SimpleNamespace

import torch
from torch import nn

from recurra import MIXERS, Clock, use
from recurra.tasks import Batch, Task
from recurra.train import Config
from recurra.train.rules.layer import Step


class One(nn.Module):
    """A mixer that is read as it is."""

    name = "one"

    def __init__(self, mixer):
        super().__init__()
        self.grows = mixer.grows
        self.backbone = SimpleNamespace(blocks=[SimpleNamespace(mixer=mixer)])
        self.mixer = mixer

    def initial_state(self, batch):
        return (self.mixer.initial_state(batch),)

    def forward(self, x, state=None, clock=None):
        y, after = self.mixer(x, None if state is None else state[0], clock)
        return y, (after,)


class Weighed(Task):
    """The loss is the outputs times the targets: its slope at each step is what the targets say."""

    head, measure, lower_is_better, chance = "one", "nothing", True, 0.0

    def loss(self, outputs, batch):
        return (outputs * batch.targets).sum()

    def unused(self, *_, **__):
        raise NotImplementedError

    model_arguments = batch = score = solve = unused


def build(name, width=8, **keywords):
    """A mixer in float64, its parameters moved off their initial values."""
    torch.manual_seed(0)
    mixer = MIXERS[name](width, **keywords).double()
    with torch.no_grad():
        for p in mixer.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return mixer


def batch(T=7, rows=2, width=8, clock=True):
    """Inputs, slopes, and a clock with a reset and steps that did not happen."""
    torch.manual_seed(1)
    x, slopes = torch.randn(2, rows, T, width, dtype=torch.float64)
    reset, valid = torch.zeros(rows, T, dtype=torch.bool), torch.ones(rows, T, dtype=torch.bool)
    reset[0, 4], valid[-1, 2] = True, False
    return Batch(x, slopes, None, reset if clock else None, valid if clock else None)


def taught(rule, mixer, some, **keywords):
    """The gradients that a rule finds, by name."""
    mixer.zero_grad()
    made = rule(One(mixer), Weighed(), Config(source="", rule="rule"), **keywords)
    made.learn(some, None, lambda loss: None)
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in mixer.named_parameters()}, made


def whole(mixer, some):
    """Those of backpropagation."""
    mixer.zero_grad()
    with use("loop"):
        y, _ = mixer(some.inputs, None, Clock(some.reset, some.valid, some.dt) or None)
    (y * some.targets).sum().backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in mixer.named_parameters()}


def each_row(rule, mixer, some):
    """The gradients of every row by itself, parameters side by side: the rule's own sums are over rows."""
    made = rule(One(mixer), Weighed(), Config(source="", rule="rule"))
    layer, influence = made.layers[0], made.influences[0]
    found = 0.0
    with made.running():
        state, memory = mixer.initial_state(len(some.inputs)), influence.start(len(some.inputs))
        for x, slope in zip(some.inputs.unbind(1), some.targets.unbind(1), strict=True):
            at = Step(layer.vector(state), layer.whole(state), x, None)
            weights = layer.weights()

            def read(weights, vector, x, slope, whole):
                state = layer.state(vector[None], tuple(part[None] for part in whole))
                y, _ = torch.func.functional_call(mixer, weights, (x[None, None], state))
                return (y[0, 0] * slope).sum()

            slopes = torch.vmap(torch.func.grad(read, (0, 1)), (None, 0, 0, 0, 0))
            direct, error = slopes(weights, at.vector, x, slope, at.whole)
            found = found + layer.flat(direct, 1) + influence.credit(memory, error)
            with torch.no_grad():
                memory, (_, state) = influence.advance(memory, at), mixer(x[:, None], state)
    return found
