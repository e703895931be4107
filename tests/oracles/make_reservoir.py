"""Write reservoir.safetensors: an echo state network of reservoirpy, and its ridge regression, in float64.

pip install reservoirpy==0.4.2; python tests/oracles/make_reservoir.py
"""

import importlib.metadata
import pathlib

import numpy as np
from reservoirpy.nodes import Reservoir, Ridge
from safetensors.numpy import save_file

WIDTH, UNITS, STEPS, WASHOUT = 3, 12, 60, 10

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((STEPS, WIDTH)), rng.standard_normal((STEPS, WIDTH))
    given = {
        "recurrent": 0.4 * rng.standard_normal((UNITS, UNITS)),
        "input_weight": rng.standard_normal((UNITS, WIDTH)),
        "bias": rng.standard_normal(UNITS),
    }
    node = Reservoir(UNITS, lr=0.3, W=given["recurrent"], Win=given["input_weight"], bias=given["bias"])
    states = node.run(x)
    features = np.concatenate([states, x], 1)
    # their bias is not penalised either
    read = Ridge(ridge=0.05).fit(features[WASHOUT:], target[WASHOUT:])
    numbers = {f"weight.{name}": value for name, value in given.items()} | {
        "x": x, "target": target, "states": states, "read": np.asarray(read.Wout), "offset": np.asarray(read.bias),
    }  # fmt: skip
    made_by = {"package": "reservoirpy", "version": importlib.metadata.version("reservoirpy")}
    numbers = {name: np.ascontiguousarray(value, dtype=np.float64) for name, value in numbers.items()}
    save_file(numbers, pathlib.Path(__file__).with_name("reservoir.safetensors"), made_by)
