"""Every figure and every measurement of speed runs at its smallest size, and is drawn."""

import json

import pytest

from benchmarks import catalogue, speed
from benchmarks import figure as figures
from benchmarks.results import ROOT
from benchmarks.throughput._timing import Setup

NEEDS_MORE = {"her_fetch": "gymnasium_robotics"}  # figures, and packages that the tests do not install
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


@pytest.mark.parametrize("path", sorted(ROOT.glob("papers/*.json")), ids=lambda path: path.stem)
def test_every_published_result_has_its_figure(path):
    assert path.stem in catalogue.all_figures()


@pytest.mark.parametrize("path", sorted(ROOT.glob("throughput/*.json")), ids=lambda path: path.stem)
def test_every_published_speed_has_its_measurement(path):
    assert path.stem.rpartition("-")[0] in speed.measurements()
