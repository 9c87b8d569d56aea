"""Comparing runs: groups over seeds, labels by what differs, curves at common steps, final differences."""

import matplotlib.image
import numpy as np
import pytest

import jaxrl_hier
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.folder import save_evaluation
from jaxrl_hier.engine.types import NamedArray
from jaxrl_hier.reports import comparison, statistics
from jaxrl_hier.reports.comparison import aligned, labels, telling
from tests.logged import logged_run


def run_of(algorithm, env="maze", **settings):
    return comparison.LoggedRun(None, algorithm, env, settings, [0], [], {})


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([run_of("dqn"), run_of("sac")], ["dqn", "sac"]),
        ([run_of("dqn", lr=0.1), run_of("dqn", lr=0.2)], ["lr 0.1", "lr 0.2"]),
        ([run_of("dqn", lr=0.1), run_of("sac", lr=0.2)], ["dqn", "sac"]),
        (
            [run_of("dqn", double=True), run_of("dqn", double=False), run_of("sac")],
            ["dqn, double on", "dqn, double off", "sac"],
        ),
        # either tells them apart: the shorter name
        ([run_of("dqn", hidden=[8, 8], lr=0.1), run_of("dqn", hidden=[8], lr=0.2)], ["lr 0.1", "lr 0.2"]),
        # neither alone
        (
            [run_of("a", x=1, y=1), run_of("a", x=1, y=2), run_of("a", x=2, y=1)],
            ["x 1, y 1", "x 1, y 2", "x 2, y 1"],
        ),
        ([run_of("a", hidden=[64, 32]), run_of("a", hidden=[])], ["hidden 64×32", "hidden none"]),
        # each environment has its panel, and is no part of a label
        ([run_of("dqn", "maze"), run_of("dqn", "taxi")], ["dqn", "dqn"]),
    ],
)
def test_labels(runs, expected):
    assert labels(runs) == expected


def test_all_that_differs_where_more_than_three_settings_are_needed():
    bits = [{f"b{j}": i >> j & 1 for j in range(4)} for i in range(16)]
    assert telling(bits) == ("b0", "b1", "b2", "b3")
    five = [{f"b{j}": i >> j & 1 for j in range(5)} for i in range(32)]
    assert telling(five) == tuple(f"b{j}" for j in range(5))


def test_curves_at_common_steps():
    early = np.array([10.0, 20.0, 40.0]), np.array([1.0, 2.0, 4.0])
    late = np.array([20.0, 30.0, 50.0]), np.array([0.0, 10.0, 30.0])
    curve = aligned([early, late])
    np.testing.assert_array_equal(curve.steps, [20, 30, 40])
    np.testing.assert_array_equal(curve.values, [[2, 3, 4], [0, 10, 20]])


@pytest.fixture
def folders(tmp_path):
    final = lambda *means: {"return": ([[m - 1.0, m + 1.0] for m in means], ("seed", "task"))}
    return [
        logged_run(tmp_path / "a0", [[1.0, 2.0], [3.0, 6.0]], lr=0.1, measured=final(2.0, 4.0)),
        logged_run(tmp_path / "b", [[0.0, 1.0], [0.0, 1.0], [3.0, 1.0]], lr=0.2, measured=final(0.0, 1.0, 5.0)),
        logged_run(tmp_path / "a1", [[5.0, 4.0]], seed=7, lr=0.1, measured=final(3.0)),
    ]


@pytest.mark.parametrize("name", ["runs", "results.v2", "curves.pdf"])
def test_the_picture_is_where_it_is_said_to_be(folders, tmp_path, name):
    found = jaxrl_hier.compare(folders, out=tmp_path / name).picture
    assert found.exists()
    assert found.name == (name if name.endswith("pdf") else f"{name}.png")


def test_runs_that_differ_in_the_seed_alone_are_one_group(folders, tmp_path):
    found = jaxrl_hier.compare(folders, out=tmp_path / "new" / "comparison.png")
    assert [(g.label, g.seeds) for g in found.groups] == [("lr 0.1", [0, 1, 7]), ("lr 0.2", [0, 1, 2])]
    assert found.quantity == "return"
    curve = found.curves["four-rooms", "lr 0.1"]
    np.testing.assert_array_equal(curve.steps, [40, 80])
    np.testing.assert_array_equal(curve.values, [[1, 2], [3, 6], [5, 4]])
    picture = matplotlib.image.imread(found.picture)
    assert picture.shape[0] > 400
    assert np.std(picture[..., :3]) > 0.05


def test_runs_that_differ_in_their_tasks_alone_are_not_pooled(tmp_path):
    """The label says whose tasks they are; rounding is no difference, nor what a run of an earlier version lacks."""
    goals = {"draws of sample: goal": [1.0, 2.0], "test tasks: goal": [0.5]}
    near = {name: np.array(x) * (1 + 1e-6) for name, x in goals.items()}
    easy = logged_run(tmp_path / "easy", [[1.0]], arrays=goals)
    again = logged_run(tmp_path / "again", [[1.0]], seed=1, arrays=near)
    hard = logged_run(tmp_path / "hard", [[1.0]], arrays=goals | {"test tasks: goal": [9.0]})
    found = jaxrl_hier.compare([easy, again, hard]).groups
    assert [(g.label, g.seeds) for g in found] == [(f"tasks of {easy}", [0, 1]), (f"tasks of {hard}", [0])]
    walls = logged_run(tmp_path / "walls", [[1.0]], arrays=goals | {"environment: walls": [[True]]})
    other = logged_run(tmp_path / "other", [[1.0]], arrays=goals | {"environment: walls": [[False]]})
    assert [g.label for g in jaxrl_hier.compare([walls, other]).groups] == [
        f"environment of {walls}",
        f"environment of {other}",
    ]
    old = logged_run(tmp_path / "old", [[1.0]], seed=2)
    assert [g.seeds for g in jaxrl_hier.compare([old, easy, hard]).groups] == [[2, 0], [0]]


def test_final_evaluations_with_intervals_and_their_difference(folders):
    (compared,) = jaxrl_hier.compare(folders).final
    assert (compared.env, compared.measurement) == ("four-rooms", "return")
    assert compared.means == {"lr 0.1": statistics.mean([2.0, 4.0, 3.0]), "lr 0.2": statistics.mean([0.0, 1.0, 5.0])}
    assert compared.difference == statistics.difference([2.0, 4.0, 3.0], [0.0, 1.0, 5.0])
    assert compared.difference.value == 1.0
    assert compared.interquartile_means == {}
    lines = comparison.table([compared])
    assert [line[1] for line in lines] == ["lr 0.1", "lr 0.2", "lr 0.1 − lr 0.2"]


def test_interquartile_means_from_ten_seeds_on(tmp_path):
    values = np.arange(12.0) ** 2
    run = logged_run(tmp_path / "a", [[x] for x in values], measured={"return": (values[:, None], ("seed", "task"))})
    (compared,) = jaxrl_hier.compare([run]).final
    assert compared.interquartile_means == {"q-learning": statistics.interquartile_mean(values)}
    assert compared.difference is None


def evaluated(folder, value, iterations, seed=0, **settings):
    """A run that was evaluated every ten iterations, with the value `value` + iteration."""
    run = logged_run(folder, [[1.0] * (iterations // 10)], seed=seed, **settings)
    for at in range(10, iterations + 1, 10):
        save_evaluation(run, {"return": NamedArray(np.array([[value + at]]), ("seed", "task"))}, at)
    return run


def test_runs_of_a_group_are_compared_at_the_last_iteration_that_all_reached(tmp_path, capsys):
    runs = [evaluated(tmp_path / "a", 0.0, 30), evaluated(tmp_path / "b", 2.0, 20, seed=1)]
    (compared,) = jaxrl_hier.compare(runs).final
    assert compared.means["q-learning"].value == 21.0
    said = capsys.readouterr().err
    assert f"runs of q-learning differ in their iterations ({runs[0]} 30, {runs[1]} 20)" in said
    assert "the curve ends with the shortest, and the table is of the last iteration" in said
    (compared,) = jaxrl_hier.compare([runs[0], evaluated(tmp_path / "c", 5.0, 20, lr=0.2)]).final
    assert [e.value for e in compared.means.values()] == [30.0, 25.0]
    assert "on four-rooms, groups are compared at different iterations: lr none at 30, lr 0.2 at 20" in (
        capsys.readouterr().err
    )
    jaxrl_hier.compare([runs[0], evaluated(tmp_path / "d", 5.0, 30, lr=0.2)])
    assert capsys.readouterr().err == ""


def test_a_run_without_an_evaluation_is_left_out_of_the_table_alone(tmp_path, capsys):
    runs = [evaluated(tmp_path / "a", 0.0, 20), logged_run(tmp_path / "b", [[1.0, 2.0]], seed=1)]
    other = evaluated(tmp_path / "c", 1.0, 20, lr=0.2)
    found = jaxrl_hier.compare([*runs, other, logged_run(tmp_path / "d", [[1.0]], lr=0.3)])
    assert [(label, e.value) for label, e in found.final[0].means.items()] == [("lr none", 20.0), ("lr 0.2", 21.0)]
    said = capsys.readouterr().err
    assert f"{runs[1]} stopped at iteration 20 and has no evaluation; left out of the table" in said
    assert f"{tmp_path / 'd'} stopped at iteration 10" in said
    assert jaxrl_hier.compare([runs[1]]).final == []  # where there is no table, nothing is missing from it
    assert capsys.readouterr().err == ""
    (runs[0] / "evaluations" / "20.npz").unlink()
    (other / "evaluations" / "10.npz").rename(tmp_path / "a" / "evaluations" / "30.npz")
    apart = evaluated(tmp_path / "e", 1.0, 20, seed=2)
    (apart / "evaluations" / "10.npz").unlink()
    assert list(jaxrl_hier.compare([runs[0], apart, other]).final[0].means) == ["lr 0.2"]
    assert f"{runs[0]} and {apart} were never evaluated at the same iteration" in capsys.readouterr().err


def test_a_strangers_numbers_of_seeds_are_refused_or_left_out(tmp_path, capsys):
    run = evaluated(tmp_path / "a", 0.0, 20)
    save_evaluation(run, {"return": NamedArray(np.zeros((5, 3)), ("seed", "task"))}, 20)
    assert jaxrl_hier.compare([run]).final[0].means["q-learning"].value == 10.0
    assert "20.npz is damaged and left out: it is of 5 seeds, the run of 1" in capsys.readouterr().err
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"seeds": 1', f'"seeds": {2**30}'))
    with pytest.raises(UsageError, match="is a run of 1073741824 seeds, but its files hold only 1"):
        jaxrl_hier.compare([run])


def test_adaptation_is_compared_before_and_after(tmp_path):
    measured = {"return": (np.arange(12.0).reshape(2, 3, 2), ("seed", "task", "adaptation_step"))}
    run = logged_run(tmp_path / "a", [[0.0], [0.0]], algorithm="maml", measured=measured)
    before, after = jaxrl_hier.compare([run]).final
    assert before.measurement == "return before adaptation"
    assert before.means["maml"].value == np.mean([0, 2, 4, 6, 8, 10])
    assert after.measurement == "return after adaptation"
    assert after.means["maml"].value == np.mean([1, 3, 5, 7, 9, 11])


def test_curves_without_a_common_step_are_not_drawn(folders, tmp_path):
    """Episodes may be so long that no two seeds have logged a return at the same time."""
    apart = logged_run(tmp_path / "apart", [[1.0, np.nan], [np.nan, 2.0]], env="taxi")
    assert jaxrl_hier.compare([apart], tmp_path / "x.png").picture is None
    assert jaxrl_hier.compare([apart, *folders], tmp_path / "y.png").picture.exists()


def test_environments_apart(folders, tmp_path):
    other = logged_run(tmp_path / "c", [[1.0, 0.0]], env="taxi", measured={"return": ([[1.0]], ("seed", "task"))})
    found = jaxrl_hier.compare([*folders, other], out=tmp_path / "two.png")
    assert list(found.curves) == [("four-rooms", "lr 0.1"), ("four-rooms", "lr 0.2"), ("taxi", "q-learning")]
    assert [(c.env, list(c.means)) for c in found.final] == [
        ("four-rooms", ["lr 0.1", "lr 0.2"]),
        ("taxi", ["q-learning"]),
    ]


def test_bad_input(folders, tmp_path):
    with pytest.raises(UsageError, match="a0 are the same run of seed 0: give one"):
        jaxrl_hier.compare([folders[0], folders[0]])
    with pytest.raises(UsageError, match="unknown quantity that all runs have logged 'retrun'"):
        jaxrl_hier.compare(folders, quantity="retrun")
    with pytest.raises(UsageError, match="is no run folder"):
        jaxrl_hier.compare([tmp_path / "nowhere"])
    with pytest.raises(UsageError, match="at least one run folder"):
        jaxrl_hier.compare([])
    empty = logged_run(tmp_path / "empty", [[]])
    with pytest.raises(UsageError, match="neither metrics nor evaluations to compare"):
        jaxrl_hier.compare([empty])


def test_one_picture_of_several_runs(folders, tmp_path):
    assert jaxrl_hier.plot(*folders, out=tmp_path / "several") == [tmp_path / "several.png"]


def test_on_the_command_line(folders, tmp_path, capsys):
    from jaxrl_hier.cli import main

    main(["plot", *map(str, folders), "--out", str(tmp_path / "c.png")])
    printed = capsys.readouterr().out
    assert "lr 0.1 − lr 0.2" in printed
    assert (tmp_path / "c.png").is_file()
