"""metrics.jsonl: strict, readable while it grows, and after the power went."""

import pytest

from recurra.train import RunError, metrics


def test_lines_are_there_the_moment_they_are_written_and_strict(tmp_path):
    with metrics.open_to_append(tmp_path) as file:
        metrics.write(file, {"step": 1, "loss": 0.1})
        assert metrics.read(tmp_path) == [{"step": 1, "loss": 0.1}]
        with pytest.raises(ValueError):
            metrics.write(file, {"step": 2, "loss": float("nan")})
    assert len(metrics.read(tmp_path)) == 1


def test_a_torn_last_line_is_left_out_and_damage_is_not(tmp_path):
    path = tmp_path / metrics.NAME
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [line["step"] for line in metrics.read(tmp_path)] == [1, 2]
    metrics.drop_after(tmp_path, 1)
    assert path.read_text() == '{"step": 1}\n'
    path.write_text('{"step": 1}\n{"st\n{"step": 2}\n')
    with pytest.raises(RunError, match="damaged at line 2"):
        metrics.read(tmp_path)


def test_a_run_that_another_process_writes_is_followed(tmp_path):
    follow, path = metrics.Follow(tmp_path), tmp_path / metrics.NAME
    assert follow.new() == []
    path.write_text('{"step": 1}\n{"step"')
    assert follow.new() == [{"step": 1}] and follow.new() == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    assert follow.new() == [{"step": 2}, {"step": 3}]
    metrics.drop_after(tmp_path, 2)
    with metrics.open_to_append(tmp_path) as file:
        for step in (3, 4, 5):
            metrics.write(file, {"step": step})
    assert [line["step"] for line in follow.new()] == [1, 2, 3, 4, 5], "a resumed run writes the file anew"
