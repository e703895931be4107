"""Comparisons that have a name: settings that belong together, so that one word makes them again."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # four ways to remember, at one size; minutes on two cores
    "demo": {
        "mixers": ["lstm", "mamba2", "gated_deltanet", "minmax"],
        "parameters": 600_000,
        "training": {"steps": 600, "batch": 16, "length": 256, "evaluate_every": 100},
    },
}
