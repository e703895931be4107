"""Chaos foretold: networks learn one step of Lorenz's ring, then go on by themselves. How long do they keep to it?

python recipes/lorenz_96.py [--steps 500] [--seeds 3]
"""

import argparse

import torch
from torch import Tensor
from torch.nn import functional as F

from recurra.mixers import MIXERS
from recurra.models import MODELS, count, solve_width
from recurra.ops.ode import solve, solver

# places on the ring, and the force; time between two samples; samples of the one path to learn from
PLACES, FORCE, STEP, LEARNED = 8, 8.0, 0.05, 10_000
# samples until a path has come to the attractor
SETTLED = 400
# rows of a batch, and their samples
BATCH, LENGTH = 32, 64
# paths to be foretold, samples that are heard first, and samples that are foretold
PATHS, HEARD, AHEAD = 64, 64, 200
PARAMETERS, UNITS = 33_500, 600
ARMS = ("gru", "rhn", "echo_state")


def field(x: Tensor) -> Tensor:
    """The slope at each place: it carries, it fades, it is pushed (Lorenz 1996)."""
    return (x.roll(-1, -1) - x.roll(2, -1)) * x.roll(1, -1) - x + FORCE


def follow(x: Tensor, samples: int) -> Tensor:
    """Samples of the path after x, `(B, T, K)`, by five steps of Runge-Kutta's fourth order each, in float64."""
    fine, path = solver("rk4", 5, None), []
    for _ in range(samples):
        x = solve(fine, field, x, torch.full_like(x[:, :1], STEP))
        path.append(x)
    return torch.stack(path, 1)


def settled(rows: int, generator: torch.Generator) -> Tensor:
    """Places on the attractor, from anywhere near rest."""
    x = FORCE + torch.randn(rows, PLACES, generator=generator, dtype=torch.float64)
    return follow(x, SETTLED)[:, -1]


def exponent(samples: int, generator: torch.Generator) -> float:
    """The largest Lyapunov exponent: the mean rate at which two paths part that are kept next to each other."""
    x, rate = settled(16, generator), []
    apart = 1e-7 * F.normalize(torch.randn(x.shape, generator=generator, dtype=x.dtype), dim=-1)
    for _ in range(samples):
        both = follow(torch.cat([x, x + apart]), 1)[:, 0]
        x, apart = both[:16], both[16:] - both[:16]
        length = apart.norm(dim=-1, keepdim=True)
        rate.append((length / 1e-7).log())
        apart = apart * (1e-7 / length)
    return float(torch.stack(rate[samples // 10 :]).mean() / STEP)


class Descended:
    """A network that learned one step of windows of the path by Adam; it says by how much every place will move."""

    def __init__(self, name: str, path: Tensor, steps: int) -> None:
        made = {"inputs": PLACES, "horizon": PLACES, "depth": 1, "pattern": name, "hidden": 0}
        self.model = MODELS["forecaster"](**solve_width("forecaster", made, PARAMETERS))
        self.size = count(self.model)
        # moves are small beside places
        self.scale = path.diff(dim=0).std()
        optimiser = torch.optim.Adam(self.model.parameters(), 5e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, 1e-5)
        for _ in range(steps):
            start = torch.randint(len(path) - LENGTH - 1, (BATCH, 1))
            window = path[start + torch.arange(LENGTH + 1)]
            said, _ = self.model(window[:, :-1])
            loss = (said[..., 0] - window.diff(dim=1) / self.scale).square().mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimiser.step()
            schedule.step()

    def say(self, x: Tensor, state: object) -> tuple[Tensor, object]:
        said, state = self.model(x, state)
        return x + self.scale * said[..., 0], state


class Echoes:
    """A reservoir that is left as drawn; its read-out is found at once, by least squares over the whole path."""

    def __init__(self, name: str, path: Tensor, steps: int) -> None:
        seed = int(torch.randint(2**31, ()))
        self.mixer = MIXERS[name](PLACES, units=UNITS, radius=0.6, leak=1.0, scale=0.2, density=0.1, seed=seed)
        self.size = count(self.mixer)
        self.mixer.fit(path[None, :-1], path.diff(dim=0)[None], penalty=1e-4, washout=HEARD)

    def say(self, x: Tensor, state: object) -> tuple[Tensor, object]:
        move, state = self.mixer(x, state)
        return x + move, state


@torch.no_grad()
def foretold(learner: "Descended | Echoes", path: Tensor) -> Tensor:
    """What it says after having heard the beginning, each step from its own last word: `(B, AHEAD, K)`."""
    said, state = learner.say(path[:, :HEARD], None)
    x, ahead = said[:, -1:], []
    for _ in range(AHEAD):
        ahead.append(x)
        x, state = learner.say(x, state)
    return torch.cat(ahead, 1)


def valid(said: Tensor, true: Tensor) -> Tensor:
    """Samples until the error, over the standard deviation of a place, exceeds a half, of each path."""
    # both are in standard deviations
    error = (said - true).square().mean(-1).sqrt()
    return ((error > 0.5).cumsum(1) == 0).sum(1).double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("steps", 500), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    rate = exponent(LEARNED // 5, generator)
    path = follow(settled(1, generator), LEARNED)[0]
    middle, size = path.mean(), path.std()
    path, tested = (((x - middle) / size).float() for x in (path, follow(settled(PATHS, generator), HEARD + AHEAD)))
    true = tested[:, HEARD:]
    print(f"the largest exponent is {rate:.2f}; foretold are {AHEAD * STEP * rate:.1f} Lyapunov times")
    print("| | numbers trained | valid time | by seed |\n" + "| --- " * 4 + "|")
    still = valid(tested[:, HEARD - 1 : HEARD].expand_as(true), true).mean() * STEP * rate
    print(f"| as now | 0 | {still:.2f} | |")
    for name in ARMS:
        times = []
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            learner = (Echoes if name == "echo_state" else Descended)(name, path, options.steps)
            times.append(float(valid(foretold(learner, tested), true).mean()) * STEP * rate)
        found = torch.tensor(times)
        deviation = found.std(correction=min(1, options.seeds - 1))
        seeds = ", ".join(f"{x:.2f}" for x in times)
        print(f"| {name} | {learner.size:,} | {found.mean():.2f} ± {deviation:.2f} | {seeds} |", flush=True)


if __name__ == "__main__":
    main()
