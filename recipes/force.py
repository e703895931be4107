"""A chaotic network of rates says four sines, then goes on by itself: by its read-out, or by all recurrent weights.

python recipes/force.py [--units 200] [--periods 16] [--free 10] [--seeds 3]
"""

import argparse
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from recurra.train.rules.rate_network import begin, chaotic, force, full_force, run

PERIOD = 600  # steps; 60 time constants


def sines(steps: int) -> Tensor:
    """Four sines of one period, its half, third and fourth part: the target of Sussillo and Abbott 2009."""
    phase = 2 * math.pi * torch.arange(steps, dtype=torch.float64)[:, None] / PERIOD
    return sum(a / b * torch.sin(n * phase) for n, a, b in ((1, 1.3, 1), (2, 1.3, 2), (3, 1.3, 6), (4, 1.3, 3))) / 1.5


def explained(said: Tensor, wanted: Tensor) -> list[float]:
    """The share of the variance that each period of a free run explains."""
    pairs = zip(said.split(PERIOD), wanted.split(PERIOD), strict=True)
    return [1 - float((one - other).square().mean() / other.var()) for one, other in pairs]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("units", 200), ("periods", 16), ("free", 10), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    learn = options.periods * PERIOD
    wave = sines(learn + options.free * PERIOD)
    for seed in range(options.seeds):
        network = chaotic(options.units, seed=seed)
        taught = force(network, wave[:learn], begin(network, seed))
        freed = run(network, taught.read, taught.state, options.free * PERIOD)
        tell(f"read-out, seed {seed}", taught.errors, explained(freed, wave[learn:]))
        network, taught = full_force(network, wave[:learn], begin(network, seed))
        rates, _ = network(F.pad(wave[learn:] * 0, (0, options.units - 1)).float()[None], taught.state)
        tell(f"all weights, seed {seed}", taught.errors, explained(rates[0].double() @ taught.read.T, wave[learn:]))


def tell(name: str, errors: Tensor, free: list[float]) -> None:
    first, last = (float(x.abs().mean()) for x in (errors[:PERIOD], errors[-PERIOD:]))
    print(f"{name}: |error| {first:.4f} in the first period, {last:.4f} in the last;", end=" ")
    print("free run explains " + " ".join(f"{x:.4f}" for x in free), flush=True)


if __name__ == "__main__":
    main()
