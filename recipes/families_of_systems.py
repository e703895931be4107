"""Three kinds of systems, told apart by nobody: three small experts behind a gate, against one, and one as large.

python recipes/families_of_systems.py [--steps 800] [--seeds 3]
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from recurra.models import MODELS, count
from recurra.ops.ode import solve, solver

# systems of each kind that are trained, and that come after; rows of each in training and in testing; steps of a row
KNOWN, NEW, ROWS, HELD_OUT, LENGTH = 4, 2, 4, 8, 20
# while training a path is seen again after so many steps
SEEN, STEP, BATCHES = 5, 0.5, 20
ARMS = {"three experts": (3, 32), "one expert": (1, 32), "one as large as three": (1, 58)}


def lotka_volterra(z: Tensor, p: Tensor) -> Tensor:
    """Prey and predators; how much prey feeds a predator differs."""
    prey, predators = z.unbind(-1)
    return torch.stack([0.5 * prey - 0.75 * prey * predators, p * prey * predators - 0.5 * predators], -1)


def selkov(z: Tensor, p: Tensor) -> Tensor:
    """Glycolysis; how fast it is fed differs."""
    x, y = z.unbind(-1)
    return torch.stack([-x + 0.1 * y + x.square() * y, p - 0.1 * y - x.square() * y], -1)


def van_der_pol(z: Tensor, p: Tensor) -> Tensor:
    """An oscillator, at half its size; how strongly it is damped differs."""
    x, y = z.unbind(-1)
    return torch.stack([y, p * (1 - 4 * x.square()) * y - x], -1)


KINDS: dict[Callable[[Tensor, Tensor], Tensor], tuple[float, float]] = {
    lotka_volterra: (0.4, 1.0), selkov: (0.3, 0.9), van_der_pol: (0.2, 1.2),
}  # fmt: skip


def systems() -> list[tuple[int, float]]:
    """The kind and the number of each system: all that are trained, then all that are new, in between them."""
    known, new = [], []
    for kind, (low, high) in enumerate(KINDS.values()):
        spread = torch.linspace(low, high, KNOWN + NEW).tolist()
        between = {1 + i * (KNOWN + NEW - 2) // NEW for i in range(NEW)}
        for i, number in enumerate(spread):
            (new if i in between else known).append((kind, number))
    return known + new


def rows(which: list[int], each: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Paths of those systems from drawn places, as a model reads them, all seen, and what comes next at each step."""
    table, fields = systems(), list(KINDS)
    found, fine = [], solver("rk4", 20, None)
    for system in which:
        kind, number = table[system]
        z = 0.5 + 1.5 * torch.rand(each, 2, generator=generator, dtype=torch.float64)
        path, time = [z], torch.full((each, 1), STEP, dtype=torch.float64)
        for _ in range(LENGTH):
            z = solve(fine, lambda h, p: fields[kind](h, p[:, 0]), z, time, torch.full_like(time, number))  # noqa: B023
            path.append(z)
        found.append(torch.stack(path, 1).float())
    path = torch.cat(found)
    head = torch.ones(len(path), LENGTH, 2)
    head[..., 0] = torch.tensor(which).repeat_interleave(each)[:, None]
    return torch.cat([head, path[:, :-1]], -1), path[:, 1:]


def seen_once(x: Tensor, wanted: Tensor, every: int) -> tuple[Tensor, Tensor]:
    """Pieces of so many steps, each of them seen at its first step alone: as whole rows that are seen now and then."""
    x, wanted = (part.unflatten(1, (-1, every)).flatten(0, 1) for part in (x, wanted))
    x = x.clone()
    x[:, 1:, 1:] = 0
    return x, wanted


def fit(model: torch.nn.Module, x: Tensor, wanted: Tensor, steps: int, only: str = "") -> None:
    """Adam on all weights, or those of that name; and the gate between, unless contexts alone are learned."""
    trained = [p for name, p in model.named_parameters() if only in name]
    optimiser = torch.optim.Adam(trained, 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        loss = (model(x)[0] - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if not only and step % BATCHES == BATCHES - 1:
            model.regate(x, wanted)


@torch.no_grad()
def begin(model: torch.nn.Module, x: Tensor, wanted: Tensor, known: list[int]) -> None:
    """Give each new system the context of the known one whose paths are most like its own."""
    errors = []
    for system in known:
        other = torch.cat([torch.full_like(x[..., :1], system), x[..., 1:]], -1)
        errors.append((model(other)[0] - wanted).square().mean((1, 2)))
    for system in x[:, 0, 0].long().unique():
        own = torch.stack(errors)[:, x[:, 0, 0] == system].mean(1)
        model.contexts[system] = model.contexts[known[int(own.argmin())]]


@torch.no_grad()
def error(model: torch.nn.Module, x: Tensor, wanted: Tensor) -> float:
    """The mean squared error of paths seen at their first step alone, over the variance of what was wanted."""
    said, _ = model(seen_once(x, wanted, LENGTH)[0])
    return float((said - wanted).square().mean() / wanted.var())


def purity(chosen: list[int], kinds: list[int]) -> float:
    """The share of systems that have the expert which most of their kind have, where kinds do not share one."""
    most = {kind: max(set(own), key=own.count) for kind in set(kinds) for own in
            [[c for c, k in zip(chosen, kinds, strict=True) if k == kind]]}  # fmt: skip
    alone = [c == most[k] and list(most.values()).count(most[k]) == 1 for c, k in zip(chosen, kinds, strict=True)]
    return sum(alone) / len(alone)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("steps", 800), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = systems()
    known, new = list(range(len(KINDS) * KNOWN)), list(range(len(KINDS) * KNOWN, len(table)))
    print("| | parameters | error, known systems | error, new systems | purity, known | purity, new |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (experts, width) in ARMS.items():
        scores = []
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            drawn = torch.Generator().manual_seed(seed)
            data = [rows(which, each, drawn) for which, each in
                    ((known, ROWS), (known, HELD_OUT), (new, 1), (new, HELD_OUT))]  # fmt: skip
            model = MODELS["mixer_experts"](
                inputs=4, environments=len(table), width=width, depth=2, experts=experts, context=4, method="midpoint"
            )
            fit(model, *seen_once(*data[0], SEEN), options.steps)
            begin(model, *seen_once(*data[2], SEEN), known)
            fit(model, *seen_once(*data[2], SEEN), options.steps // 4, "contexts")
            chosen = model.chosen().tolist()
            pure = [purity([chosen[i] for i in which], [table[i][0] for i in which]) for which in (known, new)]
            scores.append([error(model, *data[1]), error(model, *data[3]), *pure])
        found = torch.tensor(scores)
        deviation = found.std(0, correction=min(1, options.seeds - 1))
        cells = [f"{m:.3f} ± {d:.3f}" for m, d in zip(found.mean(0).tolist(), deviation.tolist(), strict=True)]
        print(f"| {name} | {count(model):,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
