"""Comparisons that have a name: settings that belong together, so that one word makes them again."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # four ways to remember, at one size; minutes on two cores
    "demo": {
        "mixers": ["lstm", "mamba2", "gated_deltanet", "minmax"],
        "parameters": 600_000,
        "training": {
            "steps": 1700,
            "batch": 8,
            "length": 128,
            "tbptt": True,
            "learning_rate": 6e-3,
            "evaluate_every": 340,
            "checkpoint_every": 850,
        },
    },
}
