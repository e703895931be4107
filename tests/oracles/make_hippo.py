"""Write hippo.safetensors: linear systems that SciPy has discretised and run, in float64.

pip install scipy==1.17.1; python tests/oracles/make_hippo.py
"""

import pathlib

import numpy as np
import scipy
import torch
from safetensors.torch import save_file
from scipy.signal import cont2discrete, dlsim

ORDER, WINDOW, STEP = 6, 7.0, 0.2


def voelker(order):
    """Voelker et al. 2019, equation 2, entry by entry."""
    a, b = np.zeros((order, order)), np.zeros((order, 1))
    for i in range(order):
        b[i, 0] = (2 * i + 1) * (-1) ** i
        for j in range(order):
            a[i, j] = (2 * i + 1) * (-1 if i < j else (-1) ** (i - j + 1))
    return a, b


def legt(order):
    """Gu et al. 2020, equation 1, entry by entry."""
    a, b = np.zeros((order, order)), np.zeros((order, 1))
    for n in range(order):
        b[n, 0] = (2 * n + 1) ** 0.5
        for k in range(order):
            a[n, k] = -(((2 * n + 1) * (2 * k + 1)) ** 0.5) * ((-1) ** (n - k) if n < k else 1)
    return a, b


def legs(order):
    """Gu et al. 2020, equation 3, entry by entry."""
    a, b = np.zeros((order, order)), np.zeros((order, 1))
    for n in range(order):
        b[n, 0] = (2 * n + 1) ** 0.5
        for k in range(n + 1):
            a[n, k] = -(n + 1) if n == k else -(((2 * n + 1) * (2 * k + 1)) ** 0.5)
    return a, b


def run(system, step, method, inputs):
    """The states after every step: SciPy reads before it writes, so a step is added."""
    a, b = system
    identity = np.eye(len(a))
    discrete = cont2discrete((a, b, identity, np.zeros((len(a), 1))), step, method=method)
    _, _, states = dlsim(discrete, np.append(inputs, 0)[:, None])
    return torch.from_numpy(np.ascontiguousarray(states[1:]))


if __name__ == "__main__":
    inputs = np.random.default_rng(0).standard_normal(40)
    numbers = {
        "inputs": torch.from_numpy(inputs),
        "delay": run(voelker(ORDER), 1 / WINDOW, "zoh", inputs),
        "legt": run(legt(ORDER), 1 / WINDOW, "zoh", inputs),
        "legs_bilinear": run(legs(ORDER), STEP, "bilinear", inputs),
        "legs": torch.from_numpy(legs(ORDER)[0]),
    }
    made_by = {"package": "scipy", "version": scipy.__version__}
    save_file(numbers, pathlib.Path(__file__).with_name("hippo.safetensors"), made_by)
