"""Normalised observations of learners from rollouts: the statistics are NumPy's, and nothing else changes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnax.environments import spaces

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs.tasks import single
from jaxrl_envs.trial import Trial
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.types import ActInput, Agent, Transition
from jaxrl_hier.learning.normalization import Normalized, Statistics, learned, normalizing
from jaxrl_hier.meta import pearl
from tests.close import assert_close
from tests.compiling import quick_jit
from tests.line import Line, Params, after_step, variant
from tests.sizes import SIZES


@pytest.fixture(scope="module")
def run():
    """Three iterations of an option-critic: its states, and the observations of its rollouts."""
    algorithm = jaxrl_hier.make("option-critic", "CartPole-v1", **SIZES["option-critic"], normalize_observations=True)
    env, tasks = jaxrl_envs.make("CartPole-v1")

    @quick_jit
    def three(key):
        def step(state, _):
            _, t = rollout(
                env, algorithm.agent, tasks, state.params, state.world, SIZES["option-critic"]["rollout_length"]
            )
            return algorithm.step(state)[0], (t.obs, state)

        return jax.lax.scan(step, algorithm.init(key), length=4)[1]

    observations, states = three(jax.random.key(0))
    return algorithm, observations, states


def test_statistics_are_those_of_the_rollouts(run):
    _, observations, states = run
    rows = np.asarray(observations[:3]).reshape(-1, 4)
    statistics = jax.tree.map(lambda x: x[3], states.params.inputs)
    assert float(statistics.steps) == len(rows) == 3 * 8 * 4
    assert_close(statistics.mean, rows.mean(axis=0), 1e-5, scale=np.abs(rows).max())
    assert_close(statistics.variance, rows.var(axis=0))
    first = jax.tree.map(lambda x: x[0], states.params.inputs)
    jax.tree.map(np.testing.assert_array_equal, first, Statistics.none((4,)))


def test_agents_see_normalised_observations(run):
    """An agent with statistics acts as the one without, to which somebody hands what those make of the observation."""
    algorithm, observations, states = run
    plain = jaxrl_hier.make("option-critic", "CartPole-v1", **SIZES["option-critic"]).agent
    params = jax.tree.map(lambda x: x[3], states.params)
    obs = observations[3, 0, 0]
    seen = jnp.clip((obs - params.inputs.mean) / jnp.sqrt(params.inputs.variance), -5, 5)
    inp = ActInput(obs, jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.ones((), bool))
    before, key = jnp.zeros((), jnp.int32), jax.random.key(1)
    mine = algorithm.agent.act(params, before, inp, key, False)
    other = plain.act(learned(params), before, inp._replace(obs=seen), key, False)
    assert_close(mine, other)


def test_statistics_are_kept_with_the_run(run, tmp_path):
    algorithm, _, states = run
    state = jax.tree.map(lambda x: x[3], states)
    checkpoint.save(tmp_path, state, 3)
    restored = checkpoint.restore(tmp_path, jax.eval_shape(algorithm.init, jax.random.key(0)))
    assert isinstance(restored.params, Normalized)
    jax.tree.map(np.testing.assert_array_equal, restored.params, state.params)


def test_a_rollout_is_learned_from_as_it_was_acted_on():
    """By the statistics before it, in which it is afterwards."""
    plain = Agent(init=lambda key: jnp.zeros(()), start=lambda params, key: (), act=lambda *_: (0, (), ()))
    seen = lambda params, learner, before, t, key: (params + 1, learner, {"obs": t.obs, "next_obs": t.next_obs})
    _, update = normalizing(plain, seen, spaces.Box(-9.0, 9.0, (3,)))
    rng = np.random.default_rng(0)
    earlier = rng.normal([0.0, 3.0, 1.0], [1.0, 0.1, 2.0], size=(10, 3)).astype(np.float32)
    obs, following = rng.normal(size=(2, 4, 2, 3)).astype(np.float32)
    mean, variance = earlier.mean(axis=0), earlier.var(axis=0)
    t = Transition(obs, None, None, None, None, following, None, ())
    params = Normalized(jnp.zeros(()), Statistics(jnp.float32(10), jnp.asarray(mean), jnp.asarray(variance)))
    after, _, told = update(params, (), None, t, None)
    for x, name in ((obs, "obs"), (following, "next_obs")):
        assert_close(told[name], np.clip((x - mean) / np.sqrt(variance), -5, 5), 1e-4)
    every = np.concatenate([earlier, obs.reshape(-1, 3)])
    assert_close(after.inputs, Statistics(np.float32(18), every.mean(axis=0), every.var(axis=0)), 1e-4)
    assert float(after.params) == 1


def test_trials_are_normalised_whole():
    """What was done and received is a part of what RL² sees."""
    algorithm = jaxrl_hier.make("rl2", **SIZES["rl2"], normalize_observations=True)
    shapes = jax.eval_shape(lambda key: algorithm.step(algorithm.init(key))[0].params, jax.random.key(0))
    env, _ = jaxrl_envs.make("bandit-n10-k5")
    assert shapes.inputs.mean.shape == Trial(env).observation_space().shape


def test_fun_learns_and_acts_as_on_observations_that_are_standardised():
    """On a line whose observations are moved and stretched, with statistics that say by how much."""
    stretch = lambda x: 2 * x + 3

    def observing(obs, *rest):
        return stretch(obs), *rest

    env = variant(
        reset_env=lambda self, *arguments: observing(*Line.reset_env(self, *arguments)),
        step_env=after_step(observing),
        observation_space=lambda self, params=None: spaces.Box(-1.0, 7.0, (1,)),
    )
    plain, normalised = (
        jaxrl_hier.make("fun", env, single(Params()), **SIZES["fun"], normalize_observations=on)
        for env, on in ((Line(), False), (env, True))
    )

    @quick_jit
    def both(key):
        state = plain.init(key)
        moved = lambda x: (
            x._replace(obs=stretch(x.obs))
            if isinstance(x, ActInput)
            else x._replace(obs=stretch(x.obs), next_obs=stretch(x.next_obs))
            if isinstance(x, Transition)
            else x
        )
        inner = lambda x: isinstance(x, ActInput | Transition)
        other = jax.tree.map(moved, state, is_leaf=inner)
        statistics = Statistics(jnp.float32(1e9), jnp.full(1, 3.0), jnp.full(1, 4.0))
        after, metrics = plain.step(state)
        return (after, metrics), normalised.step(replace(other, params=Normalized(state.params, statistics)))

    (state, metrics), (other, found) = both(jax.random.key(0))
    assert_close(found, metrics, 1e-4)
    assert_close(learned(other.params), state.params, 1e-4)
    assert float(metrics["grad_norm"]) > 0


def test_pearl_standardises_what_its_policy_and_its_critics_see():
    """And adds each batch to the statistics, which no gradient moves; contexts show observations as they are."""
    env, tasks = jaxrl_envs.make("sparse-point-robot")
    config = pearl.Config(**SIZES["pearl"], normalize_observations=True)
    setup = pearl.setup_of(config, env, tasks)
    rng = np.random.default_rng(0)
    obs, following = rng.normal([1.0, -2.0], [0.5, 3.0], size=(2, 4, 8, 2)).astype(np.float32)
    zeros = np.zeros((4, 8), np.float32)

    @quick_jit
    def run(key):
        params = pearl.init_params(setup, key)
        context = jnp.ones((4, 8, pearl.feature_size(setup)))
        batch = pearl.Batch(context, jnp.full(4, 8), obs, jnp.zeros((4, 8, 2)), zeros, zeros > 0, following)
        params, scaled = pearl.scaled(params, batch)
        optimizer = optax.adam(1e-2)
        learner = pearl.Learner(params.value, optimizer.init(params))
        updated = pearl.update(config, setup.model, optimizer, params, learner, scaled, key)[0]
        z, inp = jnp.ones(config.latent_size), ActInput(obs[0, 0], jnp.zeros(2), jnp.zeros(()), jnp.ones((), bool))
        acts = lambda params, inp: pearl.act(setup, params, z, inp, key, False)[0]
        plain = acts(params._replace(actor=learned(params.actor)), inp._replace(obs=scaled.obs[0, 0]))
        return params, scaled, updated, acts(params, inp), plain

    params, batch, after, action, plain = run(jax.random.key(0))
    rows = obs.reshape(-1, 2)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    assert_close(params.actor.inputs, Statistics(np.float32(32), mean, deviation**2), 1e-4)
    assert_close(batch.obs, np.clip((obs - mean) / deviation, -5, 5), 1e-4)
    assert_close(batch.next_obs, np.clip((following - mean) / deviation, -5, 5), 1e-4)
    np.testing.assert_array_equal(batch.context, 1.0)
    jax.tree.map(np.testing.assert_array_equal, after.actor.inputs, params.actor.inputs)
    assert_close(action, plain, 1e-5)


@pytest.mark.parametrize("name", ["option-critic", "rl2"])
def test_who_plays_step_by_step_sees_normalised_observations_too(name):
    algorithm = jaxrl_hier.make(name, "CartPole-v1", **SIZES[name], normalize_observations=True)
    player, key = algorithm.player, jax.random.key(0)

    @quick_jit
    def extras(shift):
        params = algorithm.agent.init(key)
        inputs = params.inputs._replace(mean=params.inputs.mean.at[:4].set(shift))
        memory, carry = player.new_task(params, key)
        inp = ActInput(jnp.ones(4), jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.ones((), bool))
        obs_moved = inp._replace(obs=inp.obs + shift)
        return [
            player.act(Normalized(params.params, mean), memory, carry, x, key, False)[1]
            for mean, x in ((params.inputs, inp), (inputs, obs_moved), (inputs, inp))
        ]

    plain, moved_together, moved_apart = map(jax.tree.leaves, extras(2.0))
    assert_close(moved_together, plain)
    if name == "rl2":  # whose hidden state tells
        assert any(np.abs(x - y).max() > 1e-3 for x, y in zip(plain, moved_apart))


def test_only_boxes_can_be_normalised():
    with pytest.raises(UsageError, match="normalize_observations needs observations in a Box, got Discrete"):
        jaxrl_hier.make("option-critic", "four-rooms-option-critic", normalize_observations=True)
