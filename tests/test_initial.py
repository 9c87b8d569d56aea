"""Runs that begin with what others have learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_hier
from jaxrl_envs.tasks import single
from jaxrl_hier import registry
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.chunk import begun_with
from tests.close import assert_close
from tests.compiling import quick_jit
from tests.sizes import SIZES

KEY = jax.random.key(3)
SMALL = {
    "environments": 4,
    "rollout_length": 8,
    "eval_episodes": 2,
    "quiet": True,
    "plots": False,
    "tensorboard": False,
}
ONE = SMALL | {"iterations": 1, "log_every": 1, "checkpoint_every": 1, "evaluate_every": 0}


@pytest.mark.parametrize("name", sorted(registry.ALGORITHMS))
def test_every_algorithm_begins_with_the_parameters_that_it_is_given(name):
    """And so does what is derived from them, such as target networks: as if they had been drawn."""
    algorithm = jaxrl_hier.make(name, **SIZES.get(name, {}))
    drawn = quick_jit(algorithm.init)(KEY)
    given = jax.tree.map(lambda x: x + 1 if jnp.issubdtype(x.dtype, jnp.floating) else x, drawn.params)
    init = quick_jit(algorithm.init)
    same, other = init(jax.random.key(4), drawn.params), init(KEY, given)
    jax.tree.map(np.testing.assert_array_equal, same.params, drawn.params)
    jax.tree.map(np.testing.assert_array_equal, same.learner, drawn.learner)
    jax.tree.map(np.testing.assert_array_equal, other.params, given)
    assert jax.tree.structure(other) == jax.tree.structure(drawn)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    return jaxrl_hier.train("a2c", "CartPole-v1", seeds=2, out=tmp_path_factory.mktemp("initial") / "run", **ONE)


def test_a_run_goes_on_from_what_another_has_learned(learned, tmp_path):
    """Each seed from its own, with new optimiser, worlds and keys; on resume the origin is asked for."""
    settings = ONE | {"learning_rate": 0.02, "seeds": 2, "seed": 7}
    run = jaxrl_hier.train("a2c", "CartPole-v1", initial=learned, out=tmp_path / "run", **settings)
    algorithm = jaxrl_hier.make("a2c", "CartPole-v1", environments=4, rollout_length=8, learning_rate=0.02)

    @quick_jit
    def by_hand(key, params):
        return algorithm.step(algorithm.init(key, params))[0].params

    keys = jnp.stack([jax.random.key(7), jax.random.key(8)])
    assert_close(run.state.params, jax.vmap(by_hand)(keys, learned.state.params), 1e-4)
    again = tmp_path / "run", settings | {"iterations": 2}
    with pytest.raises(UsageError, match=r"initial.iteration was 1 and is now None"):
        jaxrl_hier.train("a2c", "CartPole-v1", out=again[0], resume=True, **again[1])
    resumed = jaxrl_hier.train("a2c", "CartPole-v1", initial=learned.directory, out=again[0], resume=True, **again[1])
    straight = jaxrl_hier.train("a2c", "CartPole-v1", initial=learned.directory, **again[1])
    jax.tree.map(np.testing.assert_array_equal, resumed.state.params, straight.state.params)


def test_an_algorithm_whose_init_takes_only_a_key_says_so(learned):
    algorithm = jaxrl_hier.make("a2c", "CartPole-v1")
    alone = algorithm._replace(init=lambda key: algorithm.init(key))
    with pytest.raises(UsageError, match=r"whose init takes parameters after the key: init\(key, params=None\)"):
        begun_with(alone, learned.settings, learned.state.params)


def test_environments_named_by_an_import_path_are_those_of_the_new_run(tmp_path):
    """Whose code is named again with it."""
    mine = "examples.my_env:make"
    jaxrl_hier.train("a2c", mine, out=tmp_path / "first", **ONE)
    jaxrl_hier.train("a2c", mine, initial=tmp_path / "first", **ONE)
    with pytest.raises(UsageError, match="names its environment by an import path"):
        jaxrl_hier.train("a2c", "CartPole-v1", initial=tmp_path / "first", **ONE)


def test_a_folder_that_was_moved_is_the_same_beginning(tmp_path):
    jaxrl_hier.train("a2c", "CartPole-v1", out=tmp_path / "first", **ONE)
    jaxrl_hier.train("a2c", "CartPole-v1", initial=tmp_path / "first", out=tmp_path / "run", **ONE)
    (tmp_path / "first").rename(tmp_path / "moved")
    longer = {"out": tmp_path / "run", "resume": True} | ONE | {"iterations": 2}
    assert jaxrl_hier.train("a2c", "CartPole-v1", initial=tmp_path / "moved", **longer).iteration == 2
    other = jaxrl_hier.train("a2c", "CartPole-v1", seed=5, **ONE)
    with pytest.raises(UsageError, match=r"initial.norm was [\d.]+ and is now [\d.]+"):
        jaxrl_hier.train("a2c", "CartPole-v1", initial=other, **longer | {"iterations": 3})


@pytest.mark.parametrize(("name", "own"), [("a2c", {"seeds": 2}), ("dqn", {"warmup_steps": 2000, "capacity": 4000})])
def test_on_an_environment_of_gymnasium(name, own, tmp_path):
    """In one program that calls the host, and on the host alone, where a rate of 0 leaves what was learned."""
    one = ONE | own
    first = jaxrl_hier.train(name, "CartPole-v1", **one)
    folder = {"out": tmp_path / "run"}
    run = jaxrl_hier.train(name, "gymnasium:CartPole-v1", initial=first, learning_rate=1e-30, **folder, **one)
    assert_close(run.state.params, first.state.params, 1e-6)
    more = one | {"iterations": 2, "resume": True}
    assert (
        jaxrl_hier.train(name, "gymnasium:CartPole-v1", initial=first, learning_rate=1e-30, **folder, **more).iteration
        == 2
    )


def test_one_seed_is_the_beginning_of_all(learned):
    """And the tasks may be others: here poles of twice the length of episodes."""
    one = jaxrl_hier.train("a2c", "CartPole-v1", **ONE)
    longer = single(one.env.default_params.replace(max_steps_in_episode=1000))
    jaxrl_hier.train("a2c", "CartPole-v1", longer, initial=one, seeds=3, **ONE)
    with pytest.raises(UsageError, match="initial must be a run of one seed or of 3, got one of 2"):
        jaxrl_hier.train("a2c", "CartPole-v1", initial=learned, seeds=3, **ONE)
    with pytest.raises(UsageError, match=r"does not fit CartPole-v1: .* the settings of the networks must be the same"):
        jaxrl_hier.train("a2c", "CartPole-v1", initial=learned, seeds=2, hidden=(3,), **ONE)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("shared", ["seeds", "environments"])
def test_the_devices_of_both_runs_may_differ(before, after, shared):
    """What was learned is not bound to where it was learned."""
    sizes = {"seeds": 2} if shared == "seeds" else {"environments": 2}
    settings = ONE | {"rollout_length": 8, "environments": 4} | sizes
    first = jaxrl_hier.train("a2c", "CartPole-v1", devices=before, **settings)
    run = jaxrl_hier.train("a2c", "CartPole-v1", initial=first, devices=after, learning_rate=1e-9, **settings)
    assert_close(jax.device_get(run.state.params), jax.device_get(first.state.params), 1e-6)
