"""Tabular SARSA(0): the textbook's update, its fixed point, and what a user gets wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_hier
from jaxrl_envs.four_rooms import NUM_CELLS, FourRooms
from jaxrl_envs.tasks import single
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.flat import sarsa
from jaxrl_hier.flat.sarsa import Config
from jaxrl_hier.learning.tables import boltzmann
from tests.close import assert_close
from tests.compiling import optimised_jit


@pytest.fixture(scope="module")
def env():
    return FourRooms("option-critic")


def test_boltzmann_draws_in_proportion():
    values, draws = jnp.array([0.0, 0.3, -0.2, 0.3]), jax.random.uniform(jax.random.key(0), (100_000,))
    chosen = jax.vmap(lambda d: boltzmann(d, values, 0.1))(draws)
    share = np.bincount(chosen, minlength=4) / len(chosen)
    np.testing.assert_allclose(share, jax.nn.softmax(values / 0.1), atol=4 * 0.5 / len(chosen) ** 0.5)
    # neither end of the unit interval, nor a probability of zero, leads astray
    edge = jnp.array([0.0, 1 - 2**-24])
    assert jax.vmap(lambda d: boltzmann(d, jnp.array([0.0, 1.0, 0.0]), 1e-3))(edge).tolist() == [1, 1]


def test_update_is_the_textbooks(env):
    tasks = single(env.default_params.replace(max_steps_in_episode=30))
    algorithm = sarsa.make(Config(temperature=0.1, recorded_episodes=0), env, tasks)

    def step(state, _):
        _, transitions = rollout(env, algorithm.agent, tasks, state.params, state.world, 1)
        return algorithm.step(state)[0], jax.tree.map(lambda x: x[0, 0], transitions)

    state = algorithm.init(jax.random.key(0))
    state, t = jax.device_get(optimised_jit(lambda s: jax.lax.scan(step, s, length=5000))(state))
    assert t.terminated.sum() > 20
    assert t.truncated.sum() > 20
    Q = np.zeros((NUM_CELLS, 4))
    for i in range(len(t.obs)):
        s, a = t.obs[i], t.action[i]
        if t.terminated[i]:
            # the step before was learned from with this action's value
            Q[s, a] += 0.5 * (t.reward[i] - Q[s, a])
        elif i + 1 < len(t.obs) and not t.truncated[i]:
            Q[s, a] += 0.5 * (t.reward[i] + 0.99 * Q[t.obs[i + 1], t.action[i + 1]] - Q[s, a])
    assert_close(state.params, Q)


def test_converges_to_the_values_of_its_own_policy(env):
    """The fixed point: Q = R + γ P Σ π(a'|s') Q(s', a') with π = softmax(Q / T)."""
    gamma, temperature = 0.9, 0.3
    config = Config(step_size=0.03, temperature=temperature, discount=gamma, environments=256, recorded_episodes=0)
    algorithm = sarsa.make(config, env, single(env.default_params))
    learn = optimised_jit(lambda state: jax.lax.fori_loop(0, 1000, lambda i, s: algorithm.step(s)[0], state))
    state = learn(learn(algorithm.init(jax.random.key(0))))
    snapshots = [(state := learn(state)).params for _ in range(8)]
    P, R = env.model(env.default_params)
    backup = lambda q: R + gamma * P @ jnp.sum(jax.nn.softmax(q / temperature) * q, axis=1)
    exact = jax.lax.fori_loop(0, 300, lambda i, q: backup(q), jnp.zeros((NUM_CELLS, 4)))
    error = np.abs(np.mean(snapshots, axis=0) - exact)[np.arange(NUM_CELLS) != int(env.default_params.goal)]
    assert error.mean() < 0.005
    assert error.max() < 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"step_size": 2.0}, r"step_size must lie in \[0, 1\], got 2.0"),
        ({"env": "CartPole-v1"}, "a table needs discrete observations and actions, .* has Box observations"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(UsageError, match=message):
        jaxrl_hier.make("sarsa", **settings)
