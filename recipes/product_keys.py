"""A product-key layer in place of one of two MLPs, against both MLPs: the same products a token, on the demo's text.

python recipes/product_keys.py [FOLDER]
"""

import argparse
import pathlib

import torch

from recurra import train
from recurra.models import LanguageModel, count

WIDTH, HIDDEN, STEPS, SEEDS = 128, 160, 240, 3
MEMORY = {"keys": 64, "heads": 4, "key_size": 32, "top": 8}
ARMS = {"dense": "mlp", "product keys": "mlp,product_key_memory"}


def products(layer: str) -> int:
    """Multiplications a token in one feed-forward layer."""
    if layer == "mlp":
        return 3 * WIDTH * HIDDEN
    keys, heads, size, top = MEMORY.values()
    return WIDTH * heads * size + heads * keys * size + heads * top * WIDTH + 2 * WIDTH**2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default="runs/recipes", help="of the runs")
    folder = parser.parse_args().folder / "product_keys"
    assert products("mlp") == products("product_key_memory")
    for name, feed_forward in ARMS.items():
        arguments = {
            "width": WIDTH, "depth": 2, "pattern": "lstm", "hidden": HIDDEN, "feed_forward": feed_forward,
            "memories": {"product_key_memory": MEMORY} if "product" in feed_forward else {},
        }  # fmt: skip
        scores = []
        for seed in range(SEEDS):
            config = train.Config(
                source="stdlib", arguments=arguments, steps=STEPS, batch=16, length=128, warmup=20, seed=seed,
                threads=1, evaluation_tokens=16384,
            )  # fmt: skip
            run = folder / f"{name.replace(' ', '_')}-{seed}"
            scores.append(train.train(config, run, resume=(run / "config.json").exists()).score)
        mean = torch.tensor(scores)
        size = count(LanguageModel(vocabulary=256, **arguments))
        print(f"| {name} | {size:,} | {products('mlp'):,} | {mean.mean():.4f} ± {mean.std():.4f} |", flush=True)
