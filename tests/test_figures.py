"""The contract of figures: parts are run once, seeds are added, a killed run goes on, redrawing runs nothing."""

import json

import numpy as np
import pytest

from benchmarks import catalogue, guard
from benchmarks import figure as figures
from benchmarks.__main__ import merged, publish
from benchmarks.figure import Computation, Figure, Training
from benchmarks.results import ROOT, Row, commit
from jaxrl_hier.checks import UsageError

CALLS = []


def numbers(seeds, scale):
    CALLS.append(list(seeds))
    return {"x": scale * np.array(seeds), "grid": np.arange(3)}


def drawing(found):
    from benchmarks.drawing import BLUE, curve, subplots

    figure, ((ax,),) = subplots()
    values = found["numbers"]["x"][:, None] + found["numbers"]["grid"]
    curve(ax, found["numbers"]["grid"], values, "a method", color=BLUE)
    return {"": figure, "again": subplots()[0]}


def make(scale=2.0, **about):
    part = Computation(numbers, {"scale": scale}, shared=("grid",))
    rows = lambda found: [Row.measured("x", found["numbers"]["x"]).judged("above 1")]
    return Figure("tiny", "a paper", "a table", lambda scale: {"numbers": part}, rows, drawing, seeds=3, **about)


def test_parts_are_run_once_and_seeds_are_added(tmp_path):
    CALLS.clear()
    rows, folder = figures.measure(make(), "cpu", None, tmp_path)
    assert rows[0].values == [0.0, 2.0, 4.0]
    assert figures.measure(make(), "cpu", 5, tmp_path)[0][0].values == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert figures.measure(make(), "cpu", 2, tmp_path)[0][0].values == [0.0, 2.0]
    assert CALLS == [[0, 1, 2], [3, 4]]
    assert {path.name for path in folder.glob("tiny*")} == {"tiny.json", "tiny.npz", "tiny.png", "tiny_again.png"}
    content = json.loads((folder / "tiny.json").read_text())
    assert (content["command"], content["seeds"]) == ("python -m benchmarks run tiny", [2])
    assert content["commit"] == commit()
    assert len(content["date"]) == 10
    with np.load(folder / "tiny.npz") as arrays:
        assert arrays["numbers/x"].shape == (2,)
        assert arrays["numbers/grid"].shape == (3,)


def test_redrawing_runs_nothing(tmp_path):
    with pytest.raises(UsageError, match="nothing of tiny has been measured"):
        figures.measure(make(), "cpu", None, tmp_path, redraw=True)
    figures.measure(make(), "cpu", None, tmp_path)
    CALLS.clear()
    assert figures.measure(make(), "cpu", None, tmp_path, redraw=True)[0][0].seeds == 3
    assert CALLS == []


def test_redrawing_draws_what_is_published_where_nothing_is_there(tmp_path):
    figure = catalogue.all_figures()["maml_sweet_spot"]
    rows, folder = figures.measure(figure, "cpu", None, tmp_path, redraw=True)
    assert rows[0].seeds == figure.seeds
    assert (folder / "maml_sweet_spot.png").stat().st_size
    kept = json.loads((ROOT / "papers" / "maml_sweet_spot.json").read_text())
    again = json.loads((folder / "maml_sweet_spot.json").read_text())
    assert {name: again[name] for name in ("commit", "date")} == {name: kept[name] for name in ("commit", "date")}
    for name, part in kept["parts"].items():
        of_all = {"commit": kept["commit"], "date": kept["date"]}  # of files from before parts had their own
        assert again["parts"][name] == of_all | part


@pytest.mark.parametrize("threads", [1, 2])
def test_a_part_may_depend_on_what_others_have_found(tmp_path, threads):
    tuning = Computation(numbers, {"scale": 2.0}, seeds=3, shared=("grid",))

    def tuned(found):
        if "tuning" not in found:
            return None
        return Computation(numbers, {"scale": float(found["tuning"]["x"].max())}, shared=("grid",))

    parts = {"tuned": tuned, "tuning": tuning}
    rows = lambda found: [Row.measured(name, measured["x"]) for name, measured in found.items()]
    figure = Figure("tiny", "a paper", "a table", lambda scale: parts, rows, seeds=2, threads=threads)
    with pytest.raises(UsageError, match="nothing of tiny"):
        figures.measure(figure, "cpu", None, tmp_path, only=["tuned"])
    made, _ = figures.measure(figure, "cpu", None, tmp_path)
    assert {row.label: row.values for row in made} == {"tuned": [0.0, 4.0], "tuning": [0.0, 2.0, 4.0]}
    assert [row.label for row in figures.measure(figure, "cpu", None, tmp_path, redraw=True)[0]] == [*parts]


def test_a_run_in_a_program_of_many_does_not_depend_on_the_others():
    from benchmarks.papers._options import Runs, after
    from jaxrl_envs.four_rooms import FourRooms
    from jaxrl_envs.tasks import single
    from jaxrl_hier.flat import q_learning

    env = FourRooms()

    def make(alpha):
        config = q_learning.Config(step_size=alpha, recorded_episodes=4)
        return q_learning.make(config, env, single(env.default_params))

    def found(seeds):
        runs = Runs(make, [{"alpha": 0.1}, {"alpha": 0.5}], seeds)
        state = runs.until(4, look_every=100)
        return [runs.by_seed(x) for x in (state.memory.lengths[:, 0], state.memory.count[:, 0], state.params)]

    lengths, counts, tables = found([0, 1])
    assert lengths.shape == (2, 2, 4)
    assert (lengths > 0).all()
    assert (counts >= 4).all()
    assert not np.array_equal(lengths[0], lengths[1])
    for both, alone in zip((lengths, counts, tables), found([1])):
        assert np.array_equal(both[1:], alone)
    looks = np.array([[0, 2, 5], [1, 1, 3]])
    assert after(np.array([0, 1, 4]), looks, looks).tolist() == [[0, 2, 5], [1, 1, 3]]


def test_other_settings_are_refused(tmp_path):
    figures.measure(make(), "cpu", None, tmp_path)
    with pytest.raises(UsageError, match="was measured with another scale: choose another --out"):
        figures.measure(make(scale=3.0), "cpu", None, tmp_path)


def test_a_training_goes_on_where_it_was_killed(tmp_path):
    part = Training("q-learning", {}, 20, points=2, curves=("steps",), logged=("return",), log_every=5)
    folder = tmp_path / "0"
    arrays, seconds, _ = part.run(0, 2, tmp_path / "undisturbed")
    assert arrays["steps"].shape == (2, 2)
    assert arrays["logged return"].shape[0] == 2
    assert list(arrays["env_steps"]) == [10 * part_steps(part), 20 * part_steps(part)]
    assert seconds > 0
    Training("q-learning", {}, 10, curves=("steps",), log_every=5).run(0, 2, folder)
    again, *_ = part.run(0, 2, folder)
    assert np.array_equal(again["steps"][:, -1], arrays["steps"][:, -1])


def part_steps(part):
    import jaxrl_hier

    return jaxrl_hier.make(part.algorithm, **part.settings).env_steps


def test_the_untrained_state_is_evaluated_with_no_iterations(tmp_path):
    arrays, seconds, compile_seconds = Training("q-learning", curves=("steps",)).run(0, 2, tmp_path / "0")
    assert arrays["steps"].shape == (2, 1)
    assert (seconds, compile_seconds) == (0.0, 0.0)
    assert not (tmp_path / "0").exists()


def test_a_curve_can_begin_with_the_untrained_state(tmp_path):
    about = {"iterations": 10, "curves": ("steps",), "log_every": 5}
    arrays, *_ = Training("q-learning", from_start=True, **about).run(0, 2, tmp_path / "0")
    untrained, *_ = Training("q-learning", curves=("steps",)).run(0, 2, tmp_path / "1")
    assert arrays["env_steps"][0] == 0
    assert arrays["steps"].shape == (2, 2)
    assert np.array_equal(arrays["steps"][:, :1], untrained["steps"])


def test_a_figure_can_write_animations(tmp_path):
    animated = make(animate=lambda found, folder: (folder / "tiny.gif").write_bytes(b"GIF89a"))
    assert (figures.measure(animated, "cpu", None, tmp_path)[1] / "tiny.gif").exists()


def test_publishing_a_part_keeps_the_other_rows(tmp_path, monkeypatch):
    old = [{"label": "a", "ours": 1.0}, {"label": "b", "ours": 2.0}]
    new = [{"label": "b", "ours": 3.0}, {"label": "c", "ours": 4.0}]
    assert [row["ours"] for row in merged(old, new)] == [1.0, 3.0, 4.0]
    monkeypatch.setattr("benchmarks.catalogue.ROOT", tmp_path / "published")
    _, folder = figures.measure(make(), "cpu", None, tmp_path)
    publish(make(), folder, partly=False)
    assert {path.suffix for path in (tmp_path / "published" / "papers").iterdir()} == {".json", ".png", ".npz"}
    assert catalogue.state_of(make()).state == "short in 1 of 1 rows"


def test_the_list_says_what_has_not_been_run():
    assert catalogue.state_of(make(minutes=3)).state == "not run"


@pytest.mark.parametrize(
    ("rule", "published", "new", "worse"),
    [
        ("higher", (1.0, 2.0), (0.0, 0.9), True),
        ("higher", (1.0, 2.0), (0.0, 1.1), False),
        ("higher", (1.0, 2.0), (3.0, 4.0), False),
        ("at least 0.5", (1.0, 2.0), (0.0, 0.9), True),
        ("below 0", (-2.0, -1.0), (-0.5, -0.1), True),
        ("below 0", (-2.0, -1.0), (-4.0, -3.0), False),
        ("", (1.0, 2.0), (0.0, 0.9), False),
        ("higher", None, (0.0, 0.9), False),
    ],
)
def test_the_guard_tells_worse_rows(rule, published, new, worse):
    rows = [Row("a", 0.0, interval, rule=rule) for interval in (published, new)]
    assert guard.decayed(*rows) == worse


def test_the_guard_runs_its_subset_again_and_finds_what_got_worse(tmp_path, monkeypatch, capsys):
    """The published row says that all values are above 100; the new ones are 0, 2, 4, 6, 8."""
    published = Row.measured("x", [100.0, 101.0, 102.0]).judged("above 1")
    (tmp_path / "tiny.json").write_text(json.dumps({"rows": [published.as_json()]}))
    monkeypatch.setattr(guard, "SUBSET", ("tiny",))
    monkeypatch.setattr(guard, "all_figures", lambda: {"tiny": make()})
    monkeypatch.setattr(guard, "file_of", lambda figure: tmp_path / "tiny.json")
    assert not guard.guard("cpu", tmp_path / "out")
    assert "1 rows compared with the published ones, 1 are worse" in capsys.readouterr().out
    (tmp_path / "tiny.json").write_text(json.dumps({"rows": [Row.measured("x", [1.0, 2.0, 3.0]).as_json()]}))
    with pytest.raises(UsageError, match="is not empty: remove it"):
        guard.guard("cpu", tmp_path / "out")
    assert guard.guard("cpu", tmp_path / "again")
