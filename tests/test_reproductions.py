"""Recipes that are programs: each of these trains for a step and prints its table, and what it measures is right."""

import importlib.util
import pathlib
import sys

import pytest
import torch

from recurra.ops.ode import solve, solver

RECIPES = pathlib.Path(__file__).parents[1] / "recipes"


def recipe(name):
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "small"),
    [
        (
            "lorenz_96",
            {"LEARNED": 80, "BATCH": 2, "LENGTH": 3, "PATHS": 2, "HEARD": 4, "AHEAD": 3, "SETTLED": 3, "UNITS": 8},
        ),
        ("irregular_spirals", {"BATCH": 2, "LENGTH": 12, "HELD_OUT": 1}),
        ("online_copying", {}),
        ("adding_in_stages", {"BATCH": 2, "HELD_OUT": 1}),
    ],
)
def test_it_trains_and_its_page_has_a_row_for_each_arm(name, small, monkeypatch, capsys, tmp_path):
    module, page = recipe(name), (RECIPES / f"{name}.md").read_text(encoding="utf-8")
    assert f"python recipes/{name}.py" in page
    for key, value in small.items():
        monkeypatch.setattr(module, key, value)
    words = ["--steps", "1", "--seeds", "1", *(["--run", str(tmp_path)] if name == "online_copying" else [])]
    monkeypatch.setattr(sys, "argv", [name, *words])
    module.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert lines[0] in page
    assert [line.split(" | ")[0] for line in lines[-len(module.ARMS) :]] == [f"| {arm}" for arm in module.ARMS]
    for line in lines[2:]:
        # what does not depend on how long it trained
        assert len(line.split(" | ")) == len(lines[0].split(" | "))
        start = " | ".join(line.split(" | ")[: 1 if name == "lorenz_96" else 2]) + " | "
        assert start in page, f"{name}.md has no row that begins {start!r}"


def test_the_ring_carries_without_loss_and_its_samples_do_not_depend_on_the_steps_between():
    module = recipe("lorenz_96")
    x = torch.randn(3, module.PLACES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # what carries neither makes nor loses energy; what is left is fading and the force
    assert torch.allclose((x * module.field(x)).sum(-1), (module.FORCE * x - x.square()).sum(-1))
    k = 2
    slope = (x[:, k + 1] - x[:, k - 2]) * x[:, k - 1] - x[:, k] + module.FORCE
    assert torch.allclose(module.field(x)[:, k], slope)
    finer = solve(solver("rk4", 100, None), module.field, x, torch.full_like(x[:, :1], module.STEP))
    torch.testing.assert_close(module.follow(x, 2)[:, 0], finer, rtol=1e-6, atol=1e-6)


def test_paths_part_at_the_rate_of_chaos_and_without_a_force_they_meet(monkeypatch):
    module = recipe("lorenz_96")
    monkeypatch.setattr(module, "SETTLED", 100)
    assert 1 < module.exponent(100, torch.Generator().manual_seed(0)) < 2.5
    monkeypatch.setattr(module, "FORCE", 0.5)
    assert module.exponent(50, torch.Generator().manual_seed(0)) < -0.3


def test_time_is_valid_until_the_error_first_exceeds_a_half():
    module = recipe("lorenz_96")
    error = torch.tensor([[0.1, 0.4, 0.6, 0.1], [0.1, 0.1, 0.1, 0.1], [0.7, 0.0, 0.0, 0.0]])
    said = error[..., None].expand(-1, -1, module.PLACES)
    assert module.valid(said, torch.zeros_like(said)).tolist() == [2, 4, 0]


def test_errors_are_told_apart_by_whether_a_sighting_is_still_to_come():
    module = recipe("irregular_spirals")
    task = module.make({"task": "spiral_paths"})

    class Late:
        """Wrong by 1 where nothing was seen, and by 2 in the last third, where nothing is to be seen."""

        def say(self, batch):
            wrong = (~(batch.inputs[..., 2] > 0)).float()
            wrong[:, 2 * module.LENGTH // 3 :] = 2
            return batch.targets + wrong[..., None]

    between, after = module.errors(Late(), task)
    # steps between the last sighting and the last third err by 1 and come after
    assert between == pytest.approx(1) and 2 < after < 4


def test_rows_double_when_they_are_learned_and_not_before(monkeypatch):
    module = recipe("adding_in_stages")
    task, met = module.make({"task": "adding"}), []
    model = module.MODELS["forecaster"](inputs=2, width=8, depth=1, pattern="elman", hidden=0)
    model.register_forward_pre_hook(lambda _, given: met.append(given[0].shape[1]))
    for key, value in {"BATCH": 2, "RECENT": 2, "LEARNED": 1e9}.items():
        monkeypatch.setattr(module, key, value)
    assert module.fit(model, task, 8, 100, 1.0, 0) == [2, 4]
    assert met == [25, 25, 50, 50, 100, 100, 100, 100]
    monkeypatch.setattr(module, "LEARNED", 0.0)
    assert module.fit(model, task, 3, 100, 1.0, 0) == []
