"""Tasks one after another, ten examples a class: what is forgotten by fine-tuning, by written and by paired weights.

python recipes/few_shot_continual.py [--tasks 10] [--steps 200] [--seeds 3] [--first 0]
"""

import argparse
import copy
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recurra.models import MODELS, count

# features of an example, numbers behind them, classes of a task, units of the network
FEATURES, CAUSES, CLASSES, UNITS = 64, 12, 5, 16
# examples of a class to learn from, and to test with; tasks that come after all others
SHOTS, HELD_OUT, NEW = 10, 100, 4
BETA, LAMBDA = 0.1, 3000.0

Examples = tuple[Tensor, Tensor]


def tasks(number: int, shots: int, generator: torch.Generator) -> list[tuple[Examples, Examples]]:
    """Tasks, to learn and to test: a class is a place among a few causes, of which one world makes all features."""

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    inner, outer = drawn(CAUSES, 2 * CAUSES) / CAUSES**0.5, drawn(2 * CAUSES, FEATURES) / (2 * CAUSES) ** 0.5
    centres = drawn(number, CLASSES, 1, CAUSES)

    def examples(each: int) -> list[Examples]:
        causes = centres + 0.7 * drawn(number, CLASSES, each, CAUSES)
        x = torch.tanh(3 * torch.tanh(2 * causes @ inner) @ outer) + 0.3 * drawn(number, CLASSES, each, FEATURES)
        y = torch.arange(CLASSES).repeat_interleave(each)
        return [(task.flatten(0, 1), y) for task in x]

    return list(zip(examples(shots), examples(HELD_OUT), strict=True))


class Net(nn.Module):
    """One hidden layer that all tasks share, and a read-out for each."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.body = nn.Linear(FEATURES, UNITS)
        self.heads = nn.ModuleList(nn.Linear(UNITS, CLASSES) for _ in range(number))

    def forward(self, x: Tensor, task: int) -> Tensor:
        return self.heads[task](F.relu(self.body(x)))


class Learner(Protocol):
    """Someone who is given tasks in order, each once, and may be asked about any of them."""

    net: nn.Module

    def learn(self, task: int, given: Examples, steps: int) -> None: ...

    def say(self, task: int, x: Tensor) -> Tensor: ...


def descend(net: nn.Module, loss: Any, steps: int) -> None:
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()


class FineTuning:
    """Each task from where the last one ended."""

    def __init__(self, number: int) -> None:
        self.net = Net(number)

    def learn(self, task: int, given: Examples, steps: int) -> None:
        x, y = given
        descend(self.net, lambda: F.cross_entropy(self.net(x, task), y), steps)

    def say(self, task: int, x: Tensor) -> Tensor:
        return self.net(x, task)


class Apart:
    """A network for each task: nothing can be forgotten, and nothing is shared."""

    def __init__(self, number: int) -> None:
        self.net = nn.ModuleList(Net(1) for _ in range(number))

    def learn(self, task: int, given: Examples, steps: int) -> None:
        x, y = given
        descend(self.net[task], lambda: F.cross_entropy(self.say(task, x), y), steps)

    def say(self, task: int, x: Tensor) -> Tensor:
        return self.net[task](x, 0)


class AllAtOnce:
    """Every task again with every new one: what could be had if nothing had to be remembered."""

    def __init__(self, number: int) -> None:
        self.net, self.known = Net(number), {}

    def learn(self, task: int, given: Examples, steps: int) -> None:
        self.known[task] = given
        pairs = self.known.items()
        descend(self.net, lambda: sum(F.cross_entropy(self.net(x, t), y) for t, (x, y) in pairs) / len(pairs), steps)

    def say(self, task: int, x: Tensor) -> Tensor:
        return self.net(x, task)


class TwoSteps:
    """Fast weights that begin at the slow ones and keep what old tasks need; slow weights that are their mean.

    First the fast weights learn, and are pulled to where they were by how much old tasks' answers depend on each (the
    diagonal of the Fisher information); then the slow weights take their share of them.
    """

    def __init__(self, number: int) -> None:
        self.net, self.learned = Net(number), 0
        self.slow, self.fast = copy.deepcopy(self.net.body), copy.deepcopy(self.net.body)
        self.matter = [torch.zeros_like(p) for p in self.fast.parameters()]

    def learn(self, task: int, given: Examples, steps: int) -> None:
        x, y = given
        body, kept = self.net.body, [p.detach().clone() for p in self.fast.parameters()]
        body.load_state_dict(self.slow.state_dict())

        def loss() -> Tensor:
            away = zip(self.matter, body.parameters(), kept, strict=True)
            pull = sum((m * (p - k).square()).sum() for m, p, k in away)
            return F.cross_entropy(self.net(x, task), y) + 0.5 * LAMBDA * pull

        descend(self.net, loss, steps)
        for one, label in zip(x.split(1), y.split(1), strict=True):
            slopes = torch.autograd.grad(F.cross_entropy(self.net(one, task), label), list(body.parameters()))
            self.matter = [m + g.square() / len(y) for m, g in zip(self.matter, slopes, strict=True)]
        self.learned += 1
        with torch.no_grad():
            for slow, fast in zip(self.slow.parameters(), body.parameters(), strict=True):
                slow.lerp_(fast, 1 / self.learned)
        self.fast = copy.deepcopy(body)

    def say(self, task: int, x: Tensor) -> Tensor:
        return self.net(x, task)


class Written:
    """Weights of each task by a hypernetwork, which is held to what it wrote for those before."""

    def __init__(self, number: int, beta: float) -> None:
        self.beta = beta
        self.net = MODELS["hypernetwork"](
            inputs=1 + FEATURES, outputs=CLASSES, tasks=number, width=32, depth=1, target=[UNITS], hidden=0
        )

    def learn(self, task: int, given: Examples, steps: int) -> None:
        x, y = given
        with torch.no_grad():
            kept = self.net.write(torch.arange(task))

        def loss() -> Tensor:
            held = self.beta * self.net.drift(kept) if task and self.beta else 0.0
            return F.cross_entropy(self.say(task, x), y) + held

        descend(self.net, loss, steps)

    def say(self, task: int, x: Tensor) -> Tensor:
        return self.net(F.pad(x, (1, 0), value=float(task))[None])[0][0]


ARMS = {
    "fine-tuning": FineTuning,
    "hypernetwork, nothing held": lambda number: Written(number, 0.0),
    "hypernetwork": lambda number: Written(number, BETA),
    "two-step consolidation": TwoSteps,
    "all tasks at once": AllAtOnce,
    "each by itself": Apart,
}


@torch.no_grad()
def right(learner: Learner, task: int, held_out: Examples) -> float:
    x, y = held_out
    return float((learner.say(task, x).argmax(-1) == y).float().mean())


def run(learner: Learner, given: list[tuple[Examples, Examples]], steps: int) -> list[float]:
    """Accuracy when learned, at the end, what was lost from the best there was in between, and on each new task."""
    ordered, later = given[:-NEW], given[-NEW:]
    table = []
    for task, (some, _) in enumerate(ordered):
        learner.learn(task, some, steps)
        table.append([right(learner, old, ordered[old][1]) for old in range(task + 1)])
    last, news = table[-1], []
    lost = [max(row[old] for row in table[:-1] if old < len(row)) - last[old] for old in range(len(last) - 1)]
    for some, held_out in later:
        other = copy.deepcopy(learner)
        other.learn(len(ordered), some, steps)
        news.append(right(other, len(ordered), held_out))
    return [sum(x) / len(x) for x in ([row[-1] for row in table], last, lost, news)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("tasks", 10), ("steps", 200), ("seeds", 3), ("first", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| | numbers trained | when learned | at the end | forgotten | a new task |\n" + "| --- " * 6 + "|")
    for name, make in ARMS.items():
        scores = []
        for seed in range(options.first, options.first + options.seeds):
            torch.manual_seed(seed)
            given = tasks(options.tasks + NEW, SHOTS, torch.Generator().manual_seed(seed))
            learner = make(options.tasks + 1)
            scores.append(run(learner, given, options.steps))
        found = torch.tensor(scores)
        deviation = found.std(0, correction=min(1, options.seeds - 1))
        cells = [f"{m:.3f} ± {d:.3f}" for m, d in zip(found.mean(0).tolist(), deviation.tolist(), strict=True)]
        print(f"| {name} | {count(learner.net):,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
