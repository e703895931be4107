"""The recipes of continual learning are programs: here each trains for a step and prints its table."""

import pathlib
import sys

import pytest
import torch

RECIPES = pathlib.Path(__file__).parents[1] / "recipes"


def printed(module, monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["recipe", *words])
    module.main()
    return capsys.readouterr().out.strip().splitlines()


@pytest.mark.parametrize(
    ("name", "small", "words"),
    [
        ("few_shot_continual", {"SHOTS": 2, "HELD_OUT": 2, "NEW": 1}, ["--tasks", "2", "--steps", "1", "--seeds", "1"]),
        (
            "families_of_systems",
            {"KNOWN": 2, "NEW": 1, "ROWS": 1, "HELD_OUT": 1, "LENGTH": 5, "BATCHES": 1},
            ["--steps", "1", "--seeds", "1"],
        ),
    ],
)
def test_it_trains_and_its_page_has_a_row_for_each_arm(name, small, words, program, monkeypatch, capsys):
    module, page = program(name), (RECIPES / f"{name}.md").read_text(encoding="utf-8")
    for key, value in small.items():
        monkeypatch.setattr(module, key, value)
    lines = printed(module, monkeypatch, capsys, *words)
    assert lines[0] in page and f"python recipes/{name}.py" in page
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {arm}" for arm in module.ARMS]
    for line in lines[2:]:
        # name and size do not depend on how long it trained
        assert len(line.split(" | ")) == len(lines[0].split(" | "))
        assert line.split(" | ")[0] + " | " in page


def test_what_is_forgotten_is_what_was_lost_from_the_best(program):
    module = program("few_shot_continual")

    table = [[0.9], [0.95, 0.8], [0.5, 0.7, 1.0], [0, 0, 0, 0.6]]

    class Scripted:
        def __init__(self):
            self.at = -1

        def learn(self, task, given, steps):
            self.at = task

        def say(self, task, x):
            count = round(table[self.at][task] * len(x))
            y = torch.zeros(len(x)).index_fill(0, torch.arange(count), 1.0)
            return torch.stack([1 - y, y], -1)

    held_out = torch.zeros(100, 1), torch.ones(100, dtype=torch.int64)
    given = [(held_out, held_out)] * (3 + module.NEW)
    found = module.run(Scripted(), given, 1)
    assert found == pytest.approx([0.9, 2.2 / 3, (0.45 + 0.1) / 2, 0.6], abs=1e-6)


def test_paths_are_those_of_their_systems_and_pieces_are_the_whole(program):
    module = program("families_of_systems")
    x, wanted = module.rows([0, 4, 8], 2, torch.Generator().manual_seed(0))
    assert torch.equal(x[:, 1:, 2:], wanted[:, :-1]) and (x[..., 1] == 1).all()
    for kind, (field, row) in enumerate(zip(module.KINDS, (0, 2, 4), strict=True)):
        assert module.systems()[4 * kind][0] == kind
        number = torch.tensor(module.systems()[4 * kind][1])
        z = x[row, 0, 2:]
        for _ in range(2000):
            z = z + module.STEP / 2000 * field(z, number)
        torch.testing.assert_close(z, wanted[row, 0], rtol=2e-3, atol=1e-3)
    model = module.MODELS["mixer_experts"](inputs=4, environments=18, width=8, experts=2)
    marked = x.clone()
    marked[..., 1] = torch.arange(x.shape[1]) % 5 == 0
    pieces, after = module.seen_once(x, wanted, 5)
    torch.testing.assert_close(model(pieces)[0].unflatten(0, (6, 4)).flatten(1, 2), model(marked)[0])
    assert torch.equal(after.unflatten(0, (6, 4)).flatten(1, 2), wanted)
    assert module.purity([1, 1, 2, 2], [0, 0, 1, 1]) == 1 and module.purity([1, 1, 1, 1], [0, 0, 1, 1]) == 0
    assert module.purity([1, 1, 2, 2, 1], [0, 0, 1, 1, 1]) == 0.8
