"""What a run does where a metric or a parameter is not finite: it stops, leaves the update out, or drops the seed."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_hier
from jaxrl_hier.checks import DivergedError, UsageError
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.chunk import init_seeds
from jaxrl_hier.engine.evaluation import describe, of_seeds_left, score
from jaxrl_hier.engine.folder import load_evaluations
from jaxrl_hier.engine.train import RunConfig, train
from jaxrl_hier.engine.types import NamedArray
from jaxrl_hier.reports.comparison import Group, LoggedRun, last_numbers, learning_curve
from jaxrl_hier.reports.plotting import over_seeds
from jaxrl_hier.reports.records import by_seed
from tests.engine.test_killed_runs import contents, drift
from tests.sizes import SIZES

RUN = RunConfig(iterations=6, log_every=2, checkpoint_every=2, seeds=3, on_nan="skip", tensorboard=False, quiet=True)


def spoilt(what, at, seed=1):
    """`drift` in which the parameters, the learner's state or the metric of one seed are NaN after iteration `at`."""
    sound = drift()
    chosen = jax.random.key(seed)

    def init(key):
        return sound.init(key).replace(learner=jnp.zeros(2))

    def step(state):
        after, metrics = sound.step(state)
        here = (after.iteration == at) & jnp.all(jax.random.key_data(state.key) == jax.random.key_data(chosen))
        nan = lambda name, x: jnp.where(here & (name == what), jnp.nan, x)
        after = after.replace(params=nan("params", after.params), learner=state.learner + 1)
        return after, {"return": nan("return", metrics["return"]), "one": jnp.ones(())}

    return sound._replace(init=init, step=step)


@pytest.mark.parametrize("what", ["params", "return"])
def test_an_update_is_left_out_and_counted(what, tmp_path, capsys):
    algorithm = spoilt(what, at=3)
    result = train(algorithm, RUN, directory=tmp_path / "run")
    expected = []
    for seed in range(3):  # by hand
        state = algorithm.init(jax.random.key(seed))
        for iteration in range(1, 7):
            after, _ = algorithm.step(state)
            left_out = seed == 1 and iteration == 3
            kept = {"params": state.params, "learner": state.learner} if left_out else {}
            state = after.replace(**kept)
        expected.append(state)
    np.testing.assert_allclose(result.state.params, jnp.stack([s.params for s in expected]), rtol=1e-6)
    assert result.state.learner[:, 0].tolist() == [6, 5, 6]
    shares = {(row["seed"], row["iteration"]): row["left_out"] for row in result.rows}
    assert {place for place, share in shares.items() if share} == {(1, 4)}
    assert shares[1, 4] == 0.5
    row = next(row for row in result.rows if (row["seed"], row["iteration"]) == (1, 4))
    assert (row["one"], np.isfinite(row["return"])) == (1, True)
    said = capsys.readouterr().err
    assert "seed 1: an update was left out by iteration 4" in said
    assert "seed 1: 1 updates were left out in all" in said


def test_where_every_update_is_finite_nothing_changes():
    plain, skip = (train(drift(), replace(RUN, on_nan=how)) for how in ("stop", "skip"))
    assert jnp.array_equal(plain.state.params, skip.state.params)


def test_parameters_that_are_not_finite_from_the_start_stop_the_run():
    algorithm = drift()
    broken = algorithm._replace(init=lambda key: algorithm.init(key).replace(params=jnp.full(3, jnp.nan)))
    with pytest.raises(DivergedError, match="params is not finite at iteration 2"):
        train(broken, RUN)


@pytest.mark.parametrize("what", ["params", "return"])
def test_a_seed_that_diverges_does_not_end_the_others(what, tmp_path, capsys):
    run = replace(RUN, on_nan="drop-seed", evaluate_every=2)
    alone = train(spoilt(what, at=99), run, directory=tmp_path / "sound")
    result = train(spoilt(what, at=3), run, directory=tmp_path / "run")
    assert f"{what} is not finite at iteration {3 if what == 'return' else 4} (seed 1): the run goes on" in (
        capsys.readouterr().err
    )
    assert jnp.array_equal(result.state.params[jnp.array([0, 2])], alone.state.params[jnp.array([0, 2])])
    last = (4, 3 if what == "return" else 4)  # logged, diverged
    assert [(row["iteration"], row.get("diverged")) for row in result.rows if row["seed"] == 1] == [(2, None), last]
    assert [row["iteration"] for row in result.rows if row["seed"] == 2] == [2, 4, 6]
    for iteration, sound in load_evaluations(tmp_path / "sound").items():
        values = load_evaluations(tmp_path / "run")[iteration]["return"].values
        np.testing.assert_array_equal(values[[0, 2]], sound["return"].values[[0, 2]])
        assert np.isnan(values[1]).all() == (iteration > 2)
    # a run that is killed and goes on knows which seeds are gone
    train(spoilt(what, at=3), replace(run, iterations=4), directory=tmp_path / "parts")
    train(spoilt(what, at=3), run, directory=tmp_path / "parts", resume=True)
    assert str(contents(tmp_path / "parts")) == str(contents(tmp_path / "run"))


def test_with_every_seed_gone_the_run_stops(tmp_path):
    always = spoilt("return", at=5, seed=0)
    with pytest.raises(DivergedError, match=r"every seed has diverged: return .* \(seed 0\); .* iteration 4 is kept"):
        train(always, replace(RUN, seeds=1, on_nan="drop-seed"), directory=tmp_path / "run")
    state = checkpoint.restore(tmp_path / "run", init_seeds(always, replace(RUN, seeds=1)))
    assert int(state.iteration[0]) == 4


def test_curves_and_measurements_are_of_the_seeds_that_are_left(tmp_path):
    run = replace(RUN, on_nan="drop-seed", evaluate_every=2)
    result = train(spoilt("return", at=3), run, directory=tmp_path / "run")
    iterations, values = by_seed(result.rows, "one")
    assert (iterations.tolist(), values.shape) == ([2, 4, 6], (2, 3))
    assert over_seeds(result.rows) == "2 seeds, mean and 95 %; 1 more diverged and is left out"
    evaluations = {6: {"return": replace(result.evaluation["return"], axes=("seed", "task"))}}
    logged = LoggedRun(tmp_path, "drift", "none", {}, [0, 1, 2], result.rows, evaluations, {})
    group = Group("drift", "drift", "none", {}, (logged,))
    assert last_numbers(group)["return"].shape == (2,)
    assert len(learning_curve(group, "one").values) == 2


def test_a_loaded_run_measures_and_plays_only_the_seeds_that_are_left():
    run = jaxrl_hier.train("q-learning", iterations=2, seeds=2, seed=5, quiet=True, **SIZES["q-learning"])
    whole = run.evaluate()
    run.rows.append({"iteration": 2, "seed": 6, "diverged": 1})
    for name, m in run.evaluate().items():
        assert np.isnan(m.values[1]).all(), name
        np.testing.assert_array_equal(m.values[0], whole[name].values[0])
        assert of_seeds_left(m).values.shape[0] == 1
    run.policy(0)
    with pytest.raises(UsageError, match=r"^seed 1 diverged, and what it had learned is lost"):
        run.policy(1)


def test_the_score_of_a_checkpoint_is_that_of_the_seeds_that_are_left():
    measured = {"return": NamedArray(np.array([[1.0, 2.0], [np.nan, np.nan]]), ("seed", "task"))}
    assert score(measured, "return") == 1.5
    assert describe(measured) == "return 1.50"
    measured["return"].values[0, 0] = np.nan  # a seed that is there, with a number that is none
    assert score(measured, "return") == -np.inf
    assert describe(measured) == "return nan"
