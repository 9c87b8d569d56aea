"""Comparing runs: groups over seeds, labels by what differs, curves at common steps, final differences."""

import matplotlib.image
import numpy as np
import pytest

import jaxrl_hier
from jaxrl_hier.checks import UsageError
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


def test_on_the_command_line(folders, tmp_path, capsys):
    from jaxrl_hier.cli import main

    main(["plot", *map(str, folders), "--out", str(tmp_path / "c.png")])
    printed = capsys.readouterr().out
    assert "lr 0.1 − lr 0.2" in printed
    assert (tmp_path / "c.png").is_file()
