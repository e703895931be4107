"""Uninitialised memory is NaN under test, every test starts from the same seed, and shapes are checked."""

import importlib.util
import pathlib

import jaxtyping
import pytest
import torch
from checked import checked
from hypothesis import settings

# the same examples each time, or one may fail by chance, on a change that it has nothing to do with; and no deadline,
# which a busy machine misses
settings.register_profile("recurra", deadline=None, derandomize=True)
settings.load_profile("recurra")
torch.set_num_threads(1)
# the import hook asks for it by this name, in every module of recurra, none of which is imported yet
jaxtyping.jaxtyped = checked


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _uninitialised_memory_is_nan():
    # as `use_deterministic_algorithms` does, which would import the compiler too, and take seconds
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.fixture
def unchecked(monkeypatch):
    """For a number at the end of many steps: the same calls with the same shapes are checked in shorter tests."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def program(monkeypatch):
    """A recipe by its name: a program that lies in no package, and may import its neighbours."""
    folder = pathlib.Path(__file__).parents[1] / "recipes"
    monkeypatch.syspath_prepend(str(folder))

    def load(name):
        spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
