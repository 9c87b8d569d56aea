"""A run's records as arrays and as tidy tables: every number is there, once, and reads back as it was."""

import csv
import sys
import types

import numpy as np
import pytest

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.folder import load_evaluations
from jaxrl_hier.engine.logging import read_jsonl
from jaxrl_hier.engine.types import NamedArray
from jaxrl_hier.reports import records
from tests.logged import logged_run

THIRD = np.float32(1) / np.float32(3)
MEASURED = {
    "return": (np.array([[1, 2, THIRD], [4, 5, 6]], np.float32), ("seed", "task")),
    "complete": (np.array([[True, False, True]] * 2), ("seed", "task")),
    "steps": (np.array([[[np.inf, 1.0]], [[2.0, 3.0]]], np.float32), ("seed", "environment", "episode")),
}


@pytest.fixture
def run(tmp_path):
    return logged_run(tmp_path / "run", [[0.1, 0.2], [0.3, 0.4]], seed=5, measured=MEASURED)


def test_metrics_by_name(run):
    found = records.metrics(read_jsonl(run / "metrics.jsonl"))
    assert found["seed"].tolist() == [5, 6]
    assert found["iteration"].tolist() == [10, 20]
    np.testing.assert_array_equal(found["return"], [[0.1, 0.2], [0.3, 0.4]])
    np.testing.assert_array_equal(found["env_steps"], [[40, 80], [40, 80]])


def test_what_a_row_lacks_is_nan_and_drawn_by_nobody():
    rows = [{"iteration": i, "seed": s, "loss": 1.0 * i} for i in (1, 2) for s in (0, 1)]
    rows[1]["return"], rows[2]["return"], rows[3]["return"] = 7.0, 8.0, 9.0
    np.testing.assert_array_equal(records.metrics(rows)["return"], [[np.nan, 8], [7, 9]])
    iterations, values = records.by_seed(rows, "return")
    assert iterations.tolist() == [2]
    np.testing.assert_array_equal(values, [[8], [9]])
    assert records.by_seed(rows, "nothing")[1].shape == (2, 0)


def test_numbers_of_an_evaluation():
    evaluation = {
        "return": NamedArray(np.arange(12.0).reshape(2, 2, 3), ("seed", "task", "adaptation_step")),
        "success": NamedArray(np.array([[1.0, 0.0], [1.0, 1.0]]), ("seed", "episode")),
        "value": NamedArray(np.zeros((2, 1, 9)), ("seed", "environment", "state")),
        "best_steps": NamedArray(np.zeros((2, 1)), ("seed", "environment")),
        "complete": NamedArray(np.ones((2, 2)), ("seed", "episode")),
        "length": NamedArray(np.array([[[3.0], [5.0]]] * 2), ("seed", "task", "adaptation_step")),
    }
    found = records.numbers(evaluation)
    assert list(found) == ["return before adaptation", "return after adaptation", "success", "length"]
    np.testing.assert_array_equal(found["return before adaptation"], [1.5, 7.5])
    np.testing.assert_array_equal(found["return after adaptation"], [3.5, 9.5])
    np.testing.assert_array_equal(found["success"], [0.5, 1.0])
    np.testing.assert_array_equal(found["length"], [4.0, 4.0])


def test_csv_holds_every_number_as_it_was(run, tmp_path):
    metrics, evaluations = records.export_csv(run, tmp_path / "tables")
    with metrics.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["iteration", "env_steps", "seed", "measurement", "value"]
    told = {(int(x["iteration"]), int(x["seed"]), x["measurement"]): float(x["value"]) for x in lines}
    assert told == {(10, 5, "return"): 0.1, (20, 5, "return"): 0.2, (10, 6, "return"): 0.3, (20, 6, "return"): 0.4}

    with evaluations.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["iteration", "seed", "measurement", "task", "environment", "episode", "value"]
    assert len(lines) == sum(np.size(values) for values, _ in MEASURED.values())
    for name, measured in load_evaluations(run)[20].items():
        mine = [line for line in lines if line["measurement"] == name]
        assert len(mine) == np.size(measured.values)
        for line in mine:
            index = tuple(int(line[axis]) - 5 * (axis == "seed") for axis in measured.axes)
            assert np.float32(line["value"]) == measured.values[index]
            assert all(line[axis] == "" for axis in ("task", "environment", "episode") if axis not in measured.axes)


def test_export_on_the_command_line(run, capsys, tmp_path):
    from jaxrl_hier.cli import main

    main(["export", str(run), "--csv"])
    assert capsys.readouterr().out.split() == [str(run / "csv" / f"{name}.csv") for name in ("metrics", "evaluations")]
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(tmp_path / "nowhere"), "--csv"])
    assert stopped.value.code == 2
    assert "is no run folder" in capsys.readouterr().err


def test_nothing_to_export(tmp_path):
    with pytest.raises(UsageError, match="neither metrics nor evaluations to export"):
        records.export_csv(logged_run(tmp_path / "empty", [[]]))


def test_frames_are_of_pandas_where_it_is_installed(run, monkeypatch):
    rows, evaluations = read_jsonl(run / "metrics.jsonl"), load_evaluations(run)
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=lambda lines: lines))
    assert records.metrics_frame(rows) == rows
    assert records.evaluations_frame(evaluations, 5)[0]["seed"] == 5
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pandas is not installed: pip install pandas"):
        records.metrics_frame(rows)
