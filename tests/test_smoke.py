"""Every figure and every measurement of speed runs at its smallest size, and is drawn."""

import json

import pytest

from benchmarks import catalogue, gpu, speed
from benchmarks import figure as figures
from benchmarks.results import ROOT
from benchmarks.throughput._timing import Setup

NEEDS_MORE = {
    "her_fetch": "gymnasium_robotics",
    "locomotion": "mujoco",
}  # figures, and packages that the tests do not install
# measurements that need no other package, and are quick at their smallest size
QUICK = ("acting", "algorithms", "environments", "maxq", "options")


@pytest.mark.parametrize("name", catalogue.all_figures())
def test_figures_run(name, tmp_path):
    if name in NEEDS_MORE:
        pytest.importorskip(NEEDS_MORE[name])
    figure = catalogue.all_figures()[name]
    rows, folder = figures.measure(figure, "smoke", None, tmp_path)
    assert rows
    assert len({row.label for row in rows}) == len(rows), "labels are not unique"
    assert (folder / f"{name}.json").stat().st_size
    assert (folder / f"{name}.npz").stat().st_size < 1_000_000
    assert figure.draw is None or list(folder.glob("*.png"))


@pytest.mark.parametrize("name", QUICK)
def test_measurements_of_speed_run(name, tmp_path, capsys):
    speed.measure([name], Setup(rounds=1, smoke=True), tmp_path, published=False)
    (path,) = tmp_path.glob(f"{name}-*.json")
    content = json.loads(path.read_text())
    assert content["processor"]
    for row in content["rows"]:
        assert row["ours"] > 0
        assert {"what", "unit", "peer", "theirs", "ratio", "aggregate", "note"} <= row.keys()
    assert path.with_suffix(".png").stat().st_size
    assert content["rows"][0]["what"] in capsys.readouterr().out


def test_steps_for_a_gpu_run_leave_their_files_and_are_cut_in_time(tmp_path):
    rows = gpu.run(20, True, ("every-algorithm", "limits"), (), tmp_path)
    assert [row["state"] for row in rows] == ["done", "done"]
    assert json.loads((tmp_path / "summary.json").read_text())["steps"][1]["name"] == "limits"
    algorithms = (tmp_path / "every-algorithm" / "algorithms.jsonl").read_text().splitlines()
    assert [json.loads(line)["error"] for line in algorithms] == ["", ""]
    assert list((tmp_path / "limits").glob("limits-*.json"))
    rows = gpu.run(0.05, True, ("every-algorithm", "limits"), (), tmp_path)
    assert [row["state"] for row in rows] == ["cut", "cut"]


def test_a_step_that_fails_stops_no_other(tmp_path, monkeypatch):
    broken = gpu.Step("broken", 1, ("json.nothing",), ("json.nothing",))
    missing = gpu.Step("missing", 1, ("json.tool",), ("json.tool",), needs="no_such_package")
    monkeypatch.setattr(gpu, "STEPS", (broken, missing))
    rows = gpu.run(1, True, (), (), tmp_path)
    assert [row["state"] for row in rows] == ["failed", "left out"]
    assert "No module named json.nothing" in rows[0]["last"]


@pytest.mark.parametrize("path", sorted(ROOT.glob("papers/*.json")), ids=lambda path: path.stem)
def test_every_published_result_has_its_figure(path):
    assert path.stem in catalogue.all_figures()


@pytest.mark.parametrize("path", sorted(ROOT.glob("throughput/*.json")), ids=lambda path: path.stem)
def test_every_published_speed_has_its_measurement(path):
    assert path.stem.rpartition("-")[0] in speed.measurements()
