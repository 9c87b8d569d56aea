"""What the pictures of a run show: positions, labels and numbers, not pixels."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL.GifImagePlugin import GifImageFile

import jaxrl_envs
from jaxrl_envs.navigation2d import NavigationParams
from jaxrl_envs.tasks import from_batch
from jaxrl_hier import registry
from jaxrl_hier.engine.types import NamedArray
from jaxrl_hier.meta.maml import Published
from jaxrl_hier.pictures import adaptation as moving
from jaxrl_hier.quantities import Quantity, of_algorithm, quantity
from jaxrl_hier.reports import plotting
from tests.logged import logged_run

mpl.use("Agg")
ADAPTS = ("seed", "task", "adaptation_step")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def rows_of(**values):
    """Rows of two seeds every ten iterations, four steps each; values: [seeds, rows] by name."""
    count = np.shape(next(iter(values.values())))[1]
    return [
        {"iteration": 10 * k + 10, "env_steps": 40 * k + 40, "seed": i}
        | {name: float(x[i][k]) for name, x in values.items()}
        for k in range(count)
        for i in range(2)
    ]


def lines_of(ax):
    return {line.get_label(): line.get_ydata() for line in ax.get_lines()}


def test_a_learning_curve_is_the_mean_of_the_seeds():
    values = [[1.0, 2.0, 4.0], [3.0, 4.0, 4.0]]
    figure = plotting.learning_curve(rows_of(**{"return": values}))
    (ax,) = figure.axes
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), [2, 3, 4])
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), [10, 20, 30])
    assert len(ax.get_lines()) == 3  # the mean, and both seeds
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("iteration", "mean return of an episode")
    (top,) = ax.child_axes
    assert top.get_xlabel() == "environment steps"


def test_adapting_learners_show_the_return_before_too():
    rows = rows_of(return_before=[[0.0, 0.0], [0.0, 1.0]], **{"return": [[1.0, 2.0], [1.0, 2.0]]})
    (ax,) = plotting.learning_curve(rows).axes
    labelled = lines_of(ax)
    np.testing.assert_array_equal(labelled["before adaptation"], [0, 0.5])
    np.testing.assert_array_equal(labelled["after adaptation"], [1, 2])


def test_regression_shows_a_squared_error_on_a_logarithmic_axis():
    own = of_algorithm(registry.module("few-shot-regression"))
    (ax,) = plotting.learning_curve(rows_of(**{"return": [[-4.0, -1.0], [-2.0, -1.0]]}), "return", own).axes
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), [3, 1])
    assert ax.get_ylabel() == "mean squared error"
    assert ax.get_yscale() == "log"
    measured = {"return": NamedArray(-np.array([[[4.0, 1.0, 0.5]] * 3] * 2), ADAPTS)}
    (ax,) = plotting.adaptation_figure(measured, 5, None, own).axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("gradient steps on the new task", "mean squared error")
    np.testing.assert_array_equal(ax.containers[0][0].get_ydata(), [4, 1, 0.5])


def test_trials_and_episodes_are_told_apart():
    own = of_algorithm(registry.module("rl2"))
    assert plotting.logged_quantity("return", own).label == "mean return of a trial"
    assert plotting.logged_quantity("episode_length", own).label == "mean steps of a trial"
    assert quantity("return", own).label == "mean return of an episode"


def test_a_quantity_that_nobody_has_named_is_called_by_its_name():
    assert quantity("td_error") == Quantity("td error")


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_tables_of_quantities(name):
    own = of_algorithm(registry.module(name))
    assert all(isinstance(q, Quantity) and q.label and q.factor for q in own.values())


def adaptation(**experience):
    values = np.array([[[0.0, 2.0, 3.0], [2.0, 4.0, 5.0]], [[1.0, 3.0, 4.0], [3.0, 5.0, 6.0]]])
    told = {f"experience_{unit}": NamedArray(np.broadcast_to(x, (2, 2, 3)), ADAPTS) for unit, x in experience.items()}
    return {"return": NamedArray(values, ADAPTS)} | told


def test_adaptation_against_episodes_and_steps_of_experience():
    figure = plotting.adaptation_figure(adaptation(episodes=[0, 20, 40], steps=[0, 2000, 3000]), 7)
    (ax,) = figure.axes
    line = ax.containers[0][0]
    np.testing.assert_allclose(line.get_xdata(), [0, 20, 40], atol=0.5)
    np.testing.assert_array_equal(line.get_ydata(), [1.5, 3.5, 4.5])
    assert ax.get_xlabel() == "episodes of experience on the new task"
    (top,) = ax.child_axes
    assert top.get_xlabel() == "environment steps on the new task"
    forth, back = top._functions
    np.testing.assert_allclose(forth([0, 10, 20, 40]), [0, 1000, 2000, 3000])
    np.testing.assert_allclose(back(forth(np.array([-3.0, 5.0, 33.0, 50.0]))), [-3, 5, 33, 50])


def test_adaptation_against_steps_where_experience_is_not_told():
    own = {"adaptation_step": Quantity("gradient steps")}
    published = Published("published", (1.0, 2.0, 3.0), (0.5, None, 0.1))
    (ax,) = plotting.adaptation_figure(adaptation(), 7, published, own).axes
    assert ax.get_xlabel() == "gradient steps on the new task"
    theirs, ours = ax.containers
    np.testing.assert_array_equal(theirs[0].get_ydata(), [1, 2, 3])
    np.testing.assert_array_equal(ours[0].get_ydata(), [1.5, 3.5, 4.5])
    assert not ax.child_axes


def test_evaluations_in_the_course_of_training():
    of = lambda *x: {"success": NamedArray(np.array([[x[0]], [x[1]]]), ("seed", "episode"))}
    rows = rows_of(**{"return": [[0.0, 1.0]] * 2})
    figure = plotting.evaluations_figure({10: of(0.0, 0.5), 20: of(1.0, 1.0)}, rows)
    (ax,) = figure.axes
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), [10, 20])
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), [0.25, 1])
    assert ax.get_ylabel() == "share of successful episodes"
    assert plotting.evaluations_figure({10: of(0.0, 0.0), 20: of(0.0, 0.0)}, rows) is None


def test_diagnostics_are_what_moves_and_has_no_picture_of_its_own():
    rows = rows_of(loss=[[1.0, 2.0]] * 2, level=[[1.0, 1.0]] * 2, **{"return": [[0.0, 1.0]] * 2})
    assert plotting.diagnostics(rows) == ["loss"]
    figure = plotting.diagnostics_figure(rows, ["loss"])
    assert figure.axes[0].get_title() == "loss"


def test_paths_are_drawn_on_the_tasks_of_the_run():
    """Not on those of an environment of the same class that has a name."""
    env = jaxrl_envs.make("navigation2d")[0]
    goals = np.array([[0.1, 0.2], [-0.3, 0.4], [0.5, -0.1]], np.float32)
    limits = np.full(3, 100)
    tasks = from_batch(
        NavigationParams(goal=goals, max_steps_in_episode=limits),
        test=NavigationParams(goal=goals, max_steps_in_episode=limits),
    )
    paths = NamedArray(np.random.default_rng(0).normal(size=(1, 3, 2, 5, 2)), (*ADAPTS, "time", "observation"))
    figure = plotting.paths_figure({"path": paths}, env, tasks, 3, {"adaptation_step": Quantity("episodes")})
    assert len(figure.axes) == 6
    for i, ax in enumerate(figure.axes):
        drawn = [np.stack(line.get_data(), axis=-1) for line in ax.get_lines()]
        np.testing.assert_allclose(drawn[0], paths.values[0, i // 2, i % 2])
        assert any(line.shape == (1, 2) and np.allclose(line[0], goals[i // 2]) for line in drawn)
    assert [ax.get_title() for ax in figure.axes[:2]] == ["before", "after 1 episode"]


def test_paths_move_side_by_side(tmp_path, monkeypatch):
    env, tasks = jaxrl_envs.make("navigation2d")
    path = np.zeros((1, 3, 2, 9, 2))  # all stay where they start, but for the first task's after adaptation
    path[0, 0, 1, :, 0] = np.linspace(0, 0.4, 9)
    evaluation = {
        "path": NamedArray(path, (*ADAPTS, "time", "observation")),
        "return": NamedArray(np.array([[[-4.0, -1.0]] * 3]), ADAPTS),
    }
    shown = moving.moments(9)
    assert moving.moments(100)[:5] == [0, 1, 2, 3, 4]
    assert (shown[0], shown[-1]) == (0, 8)
    frames = moving.frames(evaluation, env, tasks)
    assert len(frames) == len(shown)
    height, width, _ = frames[0].shape
    moved = np.any(frames[0] != frames[-1], axis=-1)
    assert moved[: height // 2, width // 2 :].any()
    assert not moved[:, : width // 2].any()
    assert not moved[height // 2 + 20 :].any()
    monkeypatch.setattr(moving, "frames", lambda *_: frames)
    (written,) = moving.draw(evaluation, env, tasks, tmp_path)
    with GifImageFile(written) as gif:
        assert gif.n_frames == len(shown)
    assert moving.draw({"return": evaluation["return"]}, env, tasks, tmp_path) == []


def test_an_environment_without_paths_is_not_asked_to_draw_them():
    assert plotting.draws_paths(jaxrl_envs.make("navigation2d")[0])
    assert not plotting.draws_paths(jaxrl_envs.make("four-rooms")[0])
    assert not plotting.draws_paths(jaxrl_envs.make("CartPole-v1")[0])


def test_the_axis_is_that_of_the_seeds_not_of_the_interval():
    """Two seeds have an interval of 12.7 standard errors."""
    (ax,) = plotting.learning_curve(rows_of(episode_length=[[900.0, 10.0], [100.0, 12.0]]), "episode_length").axes
    assert ax.get_ylim()[0] == 0
    assert ax.get_ylim()[1] <= 900 + 890


def test_every_picture_of_a_run(tmp_path):
    measured = {"return": (np.broadcast_to([0.0, 1.0, 2.0], (2, 2, 3)), ADAPTS)}
    run = logged_run(tmp_path / "run", [[1.0, 2.0], [2.0, 4.0]], algorithm="maml", measured=measured)
    env, tasks = jaxrl_envs.make("navigation2d")
    drawn = plotting.plot_run(run, env, tasks)
    assert [path.name for path in drawn] == ["learning_curve.png", "adaptation_curve.png"]
    assert all(path.stat().st_size > 10_000 for path in drawn)


def test_a_running_mean_keeps_a_straight_line_to_its_ends():
    """A window that is cut on one side alone draws a steep curve inwards: −70 became −44."""
    line = np.arange(20.0) * 3 - 70
    for width in (1, 2, 5, 9, 50):
        np.testing.assert_allclose(plotting.running_mean(line, width), line)
    bump = np.zeros(9)
    bump[4] = 1.0
    np.testing.assert_allclose(plotting.running_mean(bump, 3), [0, 0, 0, 1 / 3, 1 / 3, 1 / 3, 0, 0, 0])


def test_drawing_leaves_a_users_backend_alone():
    """Otherwise a notebook shows no more figures once a run has been drawn."""
    before = mpl.get_backend()
    mpl.use("svg")
    try:
        with plotting.style():
            pass
        assert mpl.get_backend().lower() == "svg"
    finally:
        mpl.use(before)
