"""Invariants of the host loop: seeds, chunks, one trace, no transfers, bounded memory, resume, devices, NaN."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_hier
from jaxrl_hier import api, registry, testing
from jaxrl_hier.checks import DivergedError, UsageError
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.chunk import BLOCK, init_seeds, make_chunk, seed_keys
from jaxrl_hier.engine.folder import load_evaluations
from jaxrl_hier.engine.identity import Identity
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.train import train
from jaxrl_hier.engine.types import Agent, Algorithm, Average, NamedArray, TrainState
from jaxrl_hier.testing import assert_close, assert_equal, assert_split
from tests.sizes import ALIKE, SIZES


def random_walk(nan_at=None, batch=4):
    """The smallest algorithm: parameters drift by one normal draw per environment; `nan_at` spoils one iteration."""

    def init(key):
        key, key_world = jax.random.split(key)
        world = jax.random.split(key_world, batch)
        return TrainState(jnp.zeros(3), (), world, (), key, jnp.zeros((), jnp.int32))

    def step(state):
        keys = jax.vmap(jax.random.split)(state.world)
        drift = jax.vmap(lambda k: jax.random.normal(k, (3,)))(keys[:, 0]).mean(0)
        metric = jnp.where(state.iteration + 1 == (nan_at or -1), jnp.nan, jnp.sum(drift))
        state = TrainState(state.params + drift, (), keys[:, 1], (), state.key, state.iteration + 1)
        return state, {"return": metric, "size": jnp.linalg.norm(state.params)}

    evaluate = lambda state, key: {"return": NamedArray(state.params, ("coordinate",))}
    agent = Agent(init=lambda key: jnp.zeros(3), start=lambda params, key: (), act=None)
    return Algorithm(init, step, evaluate, agent, env_steps=batch)


# --- invariants of every registered algorithm ----------------------------------------------------------------------


@pytest.fixture(scope="module", params=sorted(registry.ALGORITHMS.keys() - ALIKE))
def algorithm(request):
    return jaxrl_hier.make(request.param, **SIZES[request.param])


def test_every_algorithm_has_sizes_here():
    assert SIZES.keys() == registry.ALGORITHMS.keys()


# those that say nothing that their own tests below do not say of each algorithm, or of the parts of one
APART = {testing.a_seed_is_a_run_of_its_own, testing.devices_agree, testing.no_key_is_used_twice}


@pytest.mark.parametrize("check", [c for c in testing.INVARIANTS if c not in APART], ids=testing.name_of)
def test_invariants(algorithm, check):
    check(algorithm)


def test_seed_i_of_a_vmapped_run_equals_the_single_run(algorithm):
    testing.a_seed_is_a_run_of_its_own(algorithm)


def test_eight_devices_agree_with_one(algorithm):
    testing.devices_agree(algorithm, devices=8)


# both groups of goals are played with the same draws
SHARES_KEYS = {("uvfa", "evaluate")}


@pytest.mark.parametrize("part", ["init", "step", "evaluate"])
def test_no_key_is_used_twice(request, algorithm, part):
    pytest.importorskip("jax.experimental.key_reuse._core")
    if (request.node.callspec.params["algorithm"], part) in SHARES_KEYS:
        with pytest.raises(AssertionError, match="evaluate uses a key twice"):
            testing.no_key_is_used_twice(algorithm, [part])
    else:
        testing.no_key_is_used_twice(algorithm, [part])


@pytest.mark.parametrize("name", sorted(ALIKE))
def test_presets_keep_their_types(name):
    testing.the_state_keeps_its_types(jaxrl_hier.make(name, **SIZES[name]))


# --- chunks and memory ---------------------------------------------------------------------------------------------


def test_chunk_length_changes_nothing():
    length = lambda n: RunConfig(iterations=24, log_every=n, checkpoint_every=24, quiet=True)
    final = {n: train(random_walk(), length(n)) for n in (1, 4, 24)}
    assert_equal(final[1].state, final[4].state)
    assert_equal(final[1].state, final[24].state)
    means = np.array([row["return"] for row in final[1].rows]).reshape(6, 4).mean(1)
    assert_close(np.array([row["return"] for row in final[4].rows]), means)


def test_averages_are_taken_over_events_and_left_out_when_there_were_none():
    walk = random_walk()

    def step(state):
        state, metrics = walk.step(state)
        ended = (state.iteration % 3 == 0).astype(jnp.float32)  # an episode of length i ends at i = 3, 6, 9, …
        return state, {**metrics, "episode_length": Average(state.iteration * ended, ended)}

    run = RunConfig(iterations=12, log_every=2, checkpoint_every=12, quiet=True)
    rows = train(walk._replace(step=step), run).rows
    assert [row.get("episode_length") for row in rows] == [None, 3.0, 6.0, None, 9.0, 12.0]


def test_memory_does_not_grow_with_the_budget():
    algorithm = random_walk()
    state = init_seeds(algorithm, RunConfig())
    compiled_for = lambda n: jax.jit(make_chunk(algorithm, n), donate_argnums=0).lower(state).compile()
    compiled = [compiled_for(n) for n in (BLOCK + 1, 100_000)]
    short, long = (c.memory_analysis() for c in compiled)
    assert long.temp_size_in_bytes == short.temp_size_in_bytes
    assert long.output_size_in_bytes == short.output_size_in_bytes
    assert long.alias_size_in_bytes > 0  # the state is donated


def test_devices_share_a_run():
    """From the first iteration to the last; and what one device would have learned."""
    result = {
        n: train(random_walk(), RunConfig(iterations=6, devices=n, log_every=3, checkpoint_every=6, quiet=True))
        for n in (1, 4)
    }
    assert_split(result[4].state, 4)
    assert_close(result[1].state, result[4].state)
    assert result[1].rows[-1]["return"] == pytest.approx(result[4].rows[-1]["return"], rel=1e-5)


# --- a run's files -------------------------------------------------------------------------------------------------


def test_run_folder(tmp_path):
    run = RunConfig(iterations=6, seeds=2, checkpoint_every=2, evaluate_every=3, quiet=True)
    result = train(random_walk(), run, directory=tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows == result.rows
    assert [(r["iteration"], r["seed"]) for r in rows] == [(i, s) for i in range(1, 7) for s in (0, 1)]
    assert rows[-1]["env_steps"] == 24
    assert checkpoint.iterations(tmp_path / "run") == [4, 6]
    evaluations = load_evaluations(tmp_path / "run")
    assert list(evaluations) == [3, 6]
    assert evaluations[6]["return"].axes == ("seed", "coordinate")
    np.testing.assert_array_equal(evaluations[6]["return"].values, result.state.params)
    assert len(list((tmp_path / "run" / "tensorboard").glob("seed*/events*"))) == 2


def test_resume_repeats_the_uninterrupted_run(tmp_path):
    whole = train(random_walk(), RunConfig(iterations=9, checkpoint_every=2, quiet=True), directory=tmp_path / "a")
    train(random_walk(), RunConfig(iterations=5, checkpoint_every=2, quiet=True), directory=tmp_path / "b")
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 6, "seed": 0, "return": 1.0}\n{"iteration": 7, "se')  # logged, then killed
    again = train(
        random_walk(), RunConfig(iterations=9, checkpoint_every=2, quiet=True), directory=tmp_path / "b", resume=True
    )
    assert_equal(whole.state, again.state)
    strip = lambda rows: [{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows]
    assert strip(whole.rows) == strip(again.rows)


def test_resume_with_another_schedule_ends_where_it_says_and_keeps_its_checkpoints(tmp_path):
    """Three iterations are no whole chunk of five: the next one is shorter, and from there on all is as ever."""
    whole = train(random_walk(), RunConfig(iterations=15, checkpoint_every=5, quiet=True), directory=tmp_path / "a")
    train(random_walk(), RunConfig(iterations=3, log_every=3, checkpoint_every=3, quiet=True), directory=tmp_path / "b")
    schedule = RunConfig(iterations=15, log_every=5, checkpoint_every=5, evaluate_every=5, quiet=True)
    again = train(random_walk(), schedule, directory=tmp_path / "b", resume=True)
    assert_equal(whole.state, again.state)
    assert [row["iteration"] for row in again.rows] == [3, 5, 10, 15]
    assert checkpoint.iterations(tmp_path / "b") == [10, 15]
    assert list(load_evaluations(tmp_path / "b")) == [3, 5, 10, 15]


def test_nan_stops_names_metric_and_iteration_and_keeps_the_checkpoint(tmp_path):
    run = RunConfig(iterations=20, log_every=4, checkpoint_every=4, seeds=2, quiet=True)
    with pytest.raises(DivergedError, match=r"return is not finite at iteration 11 \(seed 0\); .* iteration 8 is kept"):
        train(random_walk(nan_at=11), run, directory=tmp_path / "run")
    assert checkpoint.iterations(tmp_path / "run") == [4, 8]
    state = checkpoint.restore(tmp_path / "run", init_seeds(random_walk(), run))
    assert bool(jnp.isfinite(state.params).all())
    with pytest.raises(DivergedError, match="no checkpoint had been written"):
        train(random_walk(nan_at=2), run)


def test_nan_parameters_are_never_saved(tmp_path):
    walk = random_walk()

    def step(state):
        state, metrics = walk.step(state)
        return TrainState(
            jnp.where(state.iteration == 3, jnp.nan, state.params), (), state.world, (), state.key, state.iteration
        ), metrics

    with pytest.raises(DivergedError, match="params is not finite at iteration 3"):
        train(
            walk._replace(step=step), RunConfig(iterations=9, checkpoint_every=1, quiet=True), directory=tmp_path / "r"
        )
    assert checkpoint.iterations(tmp_path / "r") == [1, 2]


# --- what a user can get wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, "iterations must be positive, got 0"),
        ({"seeds": -2}, "seeds must be positive"),
        ({"iterations": 10, "log_every": 4}, r"iterations must be a multiple of log_every \(4\), got 10"),
        ({"iterations": 12, "log_every": 4, "checkpoint_every": 6}, "checkpoint_every must be a multiple of log_every"),
        ({"devices": 99}, "devices must lie between 1 and 8"),
        ({"devices": 8}, "4 parallel environments or tasks do not divide among 8 devices"),
    ],
)
def test_bad_run_settings(settings, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        train(random_walk(), RunConfig(quiet=True, **settings), directory=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_bad_folders(tmp_path):
    run = RunConfig(iterations=2, quiet=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="exists already; go on with it by --resume, or choose another --out"):
        train(random_walk(), run, directory=tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="nothing to resume"):
        train(random_walk(), run, directory=tmp_path / "full", resume=True)
    with pytest.raises(UsageError, match="cannot write to"):
        train(random_walk(), run, directory=tmp_path / "full" / "thesis.tex" / "run")
    with pytest.raises(UsageError, match="nothing to resume"):
        train(random_walk(), run, directory=tmp_path / "missing", resume=True)


def test_bad_checkpoints(tmp_path):
    run, folder = RunConfig(iterations=2, quiet=True), tmp_path / "run"
    train(random_walk(), run, directory=folder, identity=Identity({"algorithm": "walk"}))
    with pytest.raises(UsageError, match="another run: algorithm was 'walk' and is now 'maml'"):
        train(random_walk(), run, directory=folder, identity=Identity({"algorithm": "maml"}), resume=True)
    with pytest.raises(UsageError, match="holds no checkpoint of iteration 7; it holds 2"):
        checkpoint.restore(folder, init_seeds(random_walk(), run), 7)
    with pytest.raises(UsageError, match="damaged or belongs to another run"):
        checkpoint.restore(folder, init_seeds(random_walk(batch=5), run))
    for part in (folder / "checkpoints" / "2").rglob("*"):
        if part.is_file() and part.stat().st_size > 100:
            part.write_bytes(part.read_bytes()[:50])  # half-written
    with pytest.raises(UsageError, match=r"is damaged: .* is not as it was written"):
        train(
            random_walk(),
            RunConfig(iterations=4, quiet=True),
            directory=folder,
            identity=Identity({"algorithm": "walk"}),
            resume=True,
        )
    (folder / "config.json").write_text('{"identity"')
    with pytest.raises(UsageError, match=r"is not the config.json of a run"):
        api.evaluate(folder)
    with pytest.raises(UsageError, match="is no run folder"):
        api.plot(tmp_path / "nowhere")


def test_package_is_importable_from_elsewhere():
    assert Path(jaxrl_hier.__file__).name == "__init__.py"


def test_every_seed_is_a_run_of_its_own():
    data = lambda **seeds: jax.random.key_data(seed_keys(RunConfig(**seeds)))
    for seed in (0, 7, 2**31, 2**32 - 1):
        assert np.array_equal(data(seed=seed)[0], jax.random.key_data(jax.random.key(seed)))
    around = [data(seed=seed, seeds=3) for seed in (0, 2**32 - 1, 2**32, 2**63, 2**64 - 3)]
    assert np.array_equal(around[1][1:], around[2][:2])
    assert len({tuple(key) for keys in around for key in np.asarray(keys).tolist()}) == 13
    for refused in ({"seed": 2**64}, {"seed": 10**30}, {"seed": -1}, {"seed": 2**64 - 1, "seeds": 2}):
        with pytest.raises(UsageError, match="seed"):
            RunConfig(**refused).validate()


def test_a_run_that_is_refused_leaves_no_folder(tmp_path):
    def broken(state):
        raise UsageError("no step")

    folder, run = tmp_path / "run", RunConfig(iterations=2, quiet=True)
    for wrong, error in (
        (random_walk()._replace(step=broken), UsageError),
        (random_walk()._replace(init=broken), UsageError),
    ):
        with pytest.raises(error, match="no step"):
            train(wrong, run, directory=folder)
        assert not folder.exists()
    with pytest.raises(UsageError, match="do not divide among 8 devices"):
        train(random_walk(), RunConfig(iterations=2, devices=8, quiet=True), directory=folder)
    assert not folder.exists()
    train(random_walk(), run, directory=folder)
