"""DQN: targets by hand, and the exact values of four rooms with a linear network on one-hot cells."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import jaxrl_envs
from jaxrl_envs.four_rooms import G1, NONE, FourRooms, cell_index
from jaxrl_envs.tasks import single
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.train import RunConfig, init_seeds
from jaxrl_hier.engine.types import Transition
from jaxrl_hier.exact import tabular
from jaxrl_hier.flat import dqn
from jaxrl_hier.flat.dqn import Config, Networks
from jaxrl_hier.learning.networks import encoder_for
from jaxrl_hier.learning.normalization import Statistics, observed, standardised
from jaxrl_hier.learning.off_policy import bellman_target
from tests.close import assert_close
from tests.compiling import optimised_jit
from tests.rings import of_one_step


@pytest.fixture(scope="module")
def rooms():
    env = FourRooms()
    return env, single(env.default_params.replace(start=np.int32(NONE), max_steps_in_episode=100))


# Targets


def test_value_of_the_next_state_by_hand():
    slow, fast = jnp.array([[1.0, 5.0], [2.0, -1.0], [0.0, 7.0]]), jnp.array([[9.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    assert_close(dqn.next_value(slow), [5, 2, 7])
    assert_close(dqn.next_value(slow, fast), [1, -1, 7])


def test_targets_by_hand():
    reward, terminated, following = jnp.array([1.0, 2.0, 3.0]), jnp.array([False, False, True]), jnp.array([5.0, 2, 7])
    assert_close(bellman_target(Config(discount=0.5), reward, terminated, following), [3.5, 3.0, 3.0])
    clipped = Config(discount=0.9, reward_range=(-1.0, 0.0))
    reward, following = jnp.array([0.0, -1.0, -1.0, 0.0]), jnp.array([4.0, -3.0, -50.0, 0.0])
    target = bellman_target(clipped, reward, jnp.zeros(4, bool), following)
    assert_close(target, [0.0, -3.7, -10.0, 0.0])
    paid = Config(discount=0.9, reward_range=(1.0, 1.0))  # until the end
    target = bellman_target(paid, jnp.ones(3), jnp.array([False, False, True]), jnp.array([4.0, 12.0, 7.0]))
    assert_close(target, [4.6, 10.0, 1.0])


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "double"])
def linear(request, rooms):
    """DQN without hidden layers: its network is a table."""
    config = Config(
        hidden=(), double=request.param, discount=0.9, batch_size=4, target_rate=0.25, capacity=1000, warmup_steps=50
    )
    algorithm = dqn.make(config, *rooms)
    return config, jax.jit(algorithm.init)(jax.random.key(0)), jax.jit(algorithm.learn)


@pytest.mark.parametrize("end", ["none", "terminated", "truncated"])
def test_an_update_by_hand(linear, end):
    """All of memory is one step, so every batch is that step."""
    config, state, learn = linear
    rng = np.random.default_rng(0)
    table, slow = (rng.normal(size=(104, 4)).astype(np.float32) for _ in range(2))
    params = lambda q: {"params": {"Dense_0": {"kernel": jnp.asarray(q), "bias": jnp.zeros(4)}}}
    s, a, r, after = 3, 2, 0.25, 8
    t = Transition(
        obs=jnp.asarray(np.int32(s)),
        action=jnp.asarray(np.int32(a)),
        reward=jnp.asarray(np.float32(r)),
        terminated=jnp.asarray(end == "terminated"),
        truncated=jnp.asarray(end == "truncated"),
        next_obs=jnp.asarray(np.int32(after)),
        first=jnp.asarray(False),
        extras=(),
    )
    state = state.replace(
        params=Networks(params(table), ()),
        learner=state.learner._replace(target=params(slow)),
        memory=of_one_step(state.memory, t),
    )
    state, metrics = learn(state, state.world, jax.tree.map(lambda x: x[None, None], t))

    best = slow[after, table[after].argmax()] if config.double else slow[after].max()
    error = table[s, a] - (r + (0.0 if end == "terminated" else 0.9 * best))
    huber = 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5
    assert float(metrics["loss"]) == pytest.approx(huber, rel=1e-5)
    assert float(metrics["value"]) == pytest.approx(table[s, a], rel=1e-5)
    learned = np.asarray(state.params.q["params"]["Dense_0"]["kernel"])
    moved = np.zeros((104, 4))
    moved[s, a] = -np.sign(error) * config.learning_rate  # Adam's first step
    np.testing.assert_allclose(learned - table, moved, atol=1e-5)
    target = np.asarray(state.learner.target["params"]["Dense_0"]["kernel"])
    assert_close(target, 0.75 * slow + 0.25 * learned)


def test_reaches_the_exact_values_of_four_rooms(rooms):
    """Q* within 0.03 of the exact one on average over seeds, by random walks and falling learning rates."""
    config = Config(
        hidden=(), discount=0.9, epsilon=1.0, environments=16, rollout_length=4, updates=4, target_rate=0.05
    )
    config = replace(config, warmup_steps=32_000, capacity=32_000)
    algorithm = dqn.make(config, *rooms)
    state = init_seeds(algorithm, RunConfig(seeds=4))

    for rate, iterations in ((1e-2, 600), (2e-3, 600), (4e-4, 600)):
        step = dqn.make(replace(config, learning_rate=rate), *rooms).step
        state = optimised_jit(
            lambda s, step=step, n=iterations: jax.lax.fori_loop(0, n, lambda _, s: jax.vmap(step)(s)[0], s)
        )(state)
    layer = state.params.q["params"]["Dense_0"]
    learned = np.asarray(layer["kernel"] + layer["bias"][:, None]).mean(axis=0)
    P, R = rooms[0].model(rooms[0].default_params)
    exact = tabular.action_values(P, R, tabular.value_iteration(P, R, 0.9), 0.9)
    error = np.delete(np.abs(learned - exact), int(cell_index(*G1)), axis=0)
    print(error.max(), error.mean())
    assert error.max() < 0.05
    assert error.mean() < 0.01


# Inputs


def test_statistics_are_those_of_all_inputs():
    rng = np.random.default_rng(0)
    batches = rng.normal(3.0, [0.5, 2.0, 0.0], size=(20, 32, 3)).astype(np.float32)
    statistics = Statistics(jnp.zeros(()), jnp.zeros(3), jnp.ones(3))
    for batch in batches:
        statistics = observed(statistics, jnp.asarray(batch))
    rows = batches.reshape(-1, 3)
    assert_close(statistics.mean, rows.mean(0))
    assert_close(statistics.variance, rows.var(0))
    scaled = standardised(statistics, jnp.asarray(rows))
    np.testing.assert_allclose(scaled.mean(0), 0.0, atol=1e-3)
    np.testing.assert_allclose(scaled.std(0), [1, 1, 0], atol=1e-3)
    assert float(standardised(statistics, jnp.full(3, 1e6)).max()) == 5.0
    assert observed((), rows) == ()


def test_inputs_of_goals_are_observation_and_desired_goal():
    env, _ = jaxrl_envs.make("bit-flipping-5")
    encode = encoder_for(env.observation_space())
    obs = {
        name: jnp.full((7, 5), i, jnp.int8) for i, name in enumerate(("observation", "achieved_goal", "desired_goal"))
    }
    inputs = encode(obs)
    assert inputs.dtype == jnp.float32
    np.testing.assert_array_equal(inputs, np.repeat([[0, 2]], 5, axis=1).repeat(7, axis=0))
    part = spaces.Box(0, 1, (5,), jnp.float32)
    with pytest.raises(UsageError, match=r"need the keys observation, achieved_goal, desired_goal .* got image"):
        encoder_for(spaces.Dict({"image": part}))


# What a user can get wrong


@pytest.mark.parametrize(
    ("env", "settings", "message"),
    [
        ("Pendulum-v1", {}, "DQN needs discrete actions; Pendulum-v1 has Box actions. Use ddpg, td3"),
        ("CartPole-v1", {"her": "future"}, "hindsight needs an environment with goals, such as bit-flipping-15"),
        ("CartPole-v1", {"her": "past"}, "her must be one of none, future, final, episode, random, got 'past'"),
        ("CartPole-v1", {"capacity": 100}, r"capacity must be at least batch_size \(256\), got 100"),
        (
            "CartPole-v1",
            {"capacity": 1000, "environments": 4},
            "capacity leaves 250 steps to each of 4 environments, and an episode has 500; use at least 2000",
        ),
        (
            "bit-flipping-5",
            {"capacity": 300, "warmup_steps": 0, "rollout_length": 400},
            "the length of a rollout has 400; use at least 400",
        ),
        ("bit-flipping-5", {"capacity": 300}, r"warmup_steps must be at most capacity \(300\), got 1000"),
        ("bit-flipping-5", {"environments": 7}, r"capacity must be a multiple of environments \(7\), got 100000"),
        ("bit-flipping-5", {"discount": 1.0, "reward_range": (-1.0, 0.0)}, "reward_range needs a discount below 1"),
        ("bit-flipping-5", {"reward_range": (1.0, -1.0)}, "reward_range must be the lowest and the highest reward"),
        ("bit-flipping-5", {"reward_range": (0.0, float("nan"))}, "reward_range must be finite, in float32 too"),
        ("bit-flipping-5", {"epsilon": 2.0}, r"epsilon must lie in \[0, 1\], got 2.0"),
        ("bit-flipping-5", {"her_goals": -1}, "her_goals must be at least 0, got -1"),
        ("bit-flipping-5", {"batch_size": 0}, "batch_size must be positive, got 0"),
    ],
)
def test_bad_settings(env, settings, message):
    with pytest.raises(UsageError, match=message):
        dqn.make(Config(**settings), *jaxrl_envs.make(env))
