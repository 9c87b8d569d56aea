"""Tabular option-critic: the updates against a slow loop, the two theorems against derivatives of the exact objective,
the critic against exact option values, and what a user gets wrong."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxrl_hier
from jaxrl_envs.four_rooms import NUM_CELLS, FourRooms
from jaxrl_envs.tasks import single
from jaxrl_envs.taxi import Taxi
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.train import RunConfig, init_seeds
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.hierarchical import option_critic_tabular
from jaxrl_hier.hierarchical.option_critic_tabular import (
    Config,
    Tables,
    as_options,
    policy_gradient,
    termination_gradient,
)
from jaxrl_hier.pictures import Trained, options
from tests.close import assert_close
from tests.compiling import optimised_jit

S, A, O = 2, 3, 2  # of the small MDP
GAMMA = 0.9


@pytest.fixture(scope="module")
def env():
    return FourRooms("option-critic")


def trace(algorithm, env, tasks, state, steps):
    """The parameters after `steps` steps and the transitions [steps, B, ...] that they learned from."""

    def step(state, _):
        _, transitions = rollout(env, algorithm.agent, tasks, state.params, state.world, 1)
        return algorithm.step(state)[0], jax.tree.map(lambda x: x[0], transitions)

    state, transitions = optimised_jit(lambda s: jax.lax.scan(step, s, length=steps))(state)
    return jax.device_get((state.params, transitions))


def softmax(x):
    x = np.exp(x - x.max())
    return x / x.sum()


sigmoid = lambda x: 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def learned(env):
    """A run with episodes that reach the goal and episodes that the time limit cuts."""
    tasks = single(env.default_params.replace(max_steps_in_episode=30))
    config = Config(num_options=3, temperature=0.2, deliberation_cost=0.1, recorded_episodes=0)
    algorithm = option_critic_tabular.make(config, env, tasks)
    params, t = trace(algorithm, env, tasks, algorithm.init(jax.random.key(0)), 6000)
    assert t.terminated.sum() > 20
    assert t.truncated.sum() > 20
    return config, params, t


def test_updates_are_those_of_a_slow_loop(learned):
    _, params, t = learned
    Q_omega, Q_u = np.zeros((NUM_CELLS, 3)), np.zeros((NUM_CELLS, 3, 4))
    theta, vartheta = np.zeros((NUM_CELLS, 3, 4)), np.zeros((NUM_CELLS, 3))
    for i in range(len(t.obs)):
        s, o, a, s2 = t.obs[i, 0], t.extras.option[i, 0], t.action[i, 0], t.next_obs[i, 0]
        if not t.first[i, 0]:
            advantage = Q_u[s, o, a] - Q_omega[s, o]
            theta[s, o] += 0.25 * advantage * (np.eye(4)[a] - softmax(theta[s, o] / 0.2))
            beta = sigmoid(vartheta[s, o])
            vartheta[s, o] -= 0.25 * beta * (1 - beta) * (Q_omega[s, o] - Q_omega[s].max() + 0.1)
        beta = sigmoid(vartheta[s2, o])
        target = t.reward[i, 0]
        if not t.terminated[i, 0]:
            target += 0.99 * ((1 - beta) * Q_omega[s2, o] + beta * Q_omega[s2].max())
        Q_omega[s, o] += 0.5 * (target - Q_omega[s, o])
        Q_u[s, o, a] += 0.5 * (target - Q_u[s, o, a])
    for ours, slow in zip(params, (Q_omega, Q_u, theta, vartheta)):
        assert_close(ours, slow, 1e-4)


def test_options_run_until_they_end(learned):
    _, _, t = learned
    option, new, first = t.extras.option[:, 0], t.extras.new[:, 0], t.first[:, 0]
    assert new[first].all()
    assert (option[1:] == option[:-1])[~new[1:]].all()
    assert (t.extras.previous[1:, 0] == option[:-1])[~first[1:]].all()
    assert 0.3 < new.mean() < 0.8  # β starts at one half


def test_frequencies_are_those_of_the_tables(env):
    """Frozen tables: how often options end, which follows, and which action is taken."""
    algorithm = option_critic_tabular.make(Config(num_options=O, temperature=0.5), env, single(env.default_params))
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    params = Tables(draw(NUM_CELLS, O), draw(NUM_CELLS, O, 4), draw(NUM_CELLS, O, 4), draw(NUM_CELLS, O))
    inp = init_seeds(algorithm, RunConfig()).world.inp
    inp = jax.tree.map(lambda x: x[0, 0], inp)._replace(first=jnp.array(False), obs=jnp.array(7, jnp.int32))
    keys = jax.random.split(jax.random.key(1), 100_000)
    act = jax.vmap(lambda key: algorithm.agent.act(params, jnp.array(1, jnp.int32), inp, key, False))
    actions, options, _ = jax.jit(act)(keys)
    options_then, over_options = as_options(params, 0.5)
    beta = options_then.termination[1, 7]
    expected = beta * over_options[7] + (1 - beta) * jnp.eye(O)[1]
    close = {"atol": 4 * 0.5 / len(keys) ** 0.5}
    np.testing.assert_allclose(np.bincount(options, minlength=O) / len(keys), expected, **close)
    np.testing.assert_allclose(
        np.bincount(actions, minlength=4) / len(keys), expected @ options_then.policy[:, 7], **close
    )
    greedy = jax.vmap(lambda key: algorithm.agent.act(params, jnp.array(1, jnp.int32), inp, key, True))
    actions, options, did = jax.jit(greedy)(keys[:500])
    assert set(np.asarray(options)[did.new]) == {int(params.Q_omega[7].argmax())}
    assert set(np.asarray(options)[~did.new]) == {1}
    np.testing.assert_array_equal(actions, params.theta[7].argmax(axis=1)[options])


# The theorems


@pytest.fixture(scope="module")
def small():
    """A two-state MDP and tables, in float64 with T = 1; π_Ω is arbitrary, as in the theorems."""
    rng = np.random.default_rng(1)
    P = rng.dirichlet(np.ones(S), (S, A))
    R = rng.normal(size=(S, A))
    tables = [rng.normal(size=shape) for shape in ((S, O), (S, O, A), (S, O, A), (S, O))]
    return P, R, tables


def exact_values(P, R, theta, vartheta, over_options):
    """Q_Ω [S, O], V_Ω [S] and U(s', o) [S, O] of the options that the tables describe."""
    options, _ = as_options(Tables(vartheta, theta, theta, vartheta), 1.0)
    models = smdp.option_models(P, R, options, GAMMA)
    V = smdp.option_policy_evaluation(models, over_options)
    Q = smdp.option_values(models, V)
    beta = jax.nn.sigmoid(vartheta)
    return Q, V, (1 - beta) * Q + beta * V[:, None]


def test_policy_gradient_theorem(small):
    """Σ μ(s, o) Σ_a π_o(a|s) of the update with exact advantages is the derivative of Q_Ω(s₀, o₀)."""
    with jax.enable_x64(True):
        P, R, (q, _, theta, vartheta) = jax.tree.map(jnp.asarray, small)
        over_options = jax.nn.softmax(q)
        objective = lambda theta: exact_values(P, R, theta, vartheta, over_options)[0][0, 0]
        direction = jnp.eye(theta.size).reshape(-1, *theta.shape)
        exact = jax.vmap(lambda d: jax.jvp(objective, (theta,), (d,))[1])(direction).reshape(theta.shape)

        Q, _, U = exact_values(P, R, theta, vartheta, over_options)
        Q_u = R[:, None] + GAMMA * jnp.einsum("sat,to->soa", P, U)
        pi, beta = jax.nn.softmax(theta), jax.nn.sigmoid(vartheta)
        # (s, o) -> (s', o'): act by o, then o goes on or another is drawn
        goes_on = (1 - beta)[:, :, None] * jnp.eye(O) + beta[:, :, None] * over_options[:, None]  # [S', O, O']
        chain = GAMMA * jnp.einsum("soa,sat,top->sotp", pi, P, goes_on).reshape(S * O, S * O)
        occupancy = jnp.linalg.inv(jnp.eye(S * O) - chain)[0].reshape(S, O)
        sample = jax.vmap(policy_gradient, (None, 0, 0, None))
        updates = jax.vmap(jax.vmap(lambda t, adv, p: p @ sample(t, jnp.arange(A), adv, 1.0)))
        ours = occupancy[..., None] * updates(theta, Q_u - Q[..., None], pi)
        assert_close(ours, exact, 1e-10)
        # and the derivative itself against finite differences
        h = 1e-6 * direction[4]
        numeric = (objective(theta + h) - objective(theta - h)) / 2e-6
        np.testing.assert_allclose(exact.ravel()[4], numeric, rtol=1e-6)


def test_termination_gradient_theorem(small):
    """Σ μ(s', o) of the update with exact advantages is the derivative of U(s₁, o₀)."""
    with jax.enable_x64(True):
        P, R, (q, _, theta, vartheta) = jax.tree.map(jnp.asarray, small)
        over_options = jax.nn.softmax(q)
        objective = lambda vartheta: exact_values(P, R, theta, vartheta, over_options)[2][1, 0]
        direction = jnp.eye(vartheta.size).reshape(-1, *vartheta.shape)
        exact = jax.vmap(lambda d: jax.jvp(objective, (vartheta,), (d,))[1])(direction).reshape(vartheta.shape)

        Q, V, _ = exact_values(P, R, theta, vartheta, over_options)
        pi, beta = jax.nn.softmax(theta), jax.nn.sigmoid(vartheta)
        # (s', o) on arrival -> the next arrival: o goes on or another is drawn, and acts
        goes_on = (1 - beta)[:, :, None] * jnp.eye(O) + beta[:, :, None] * over_options[:, None]
        chain = GAMMA * jnp.einsum("sop,spa,sat->sotp", goes_on, pi, P).reshape(S * O, S * O)
        occupancy = jnp.linalg.inv(jnp.eye(S * O) - chain)[1 * O + 0].reshape(S, O)
        ours = occupancy * termination_gradient(vartheta, Q - V[:, None])
        assert_close(ours, exact, 1e-10)
        h = 1e-6 * direction[0]
        numeric = (objective(vartheta + h) - objective(vartheta - h)) / 2e-6
        np.testing.assert_allclose(exact.ravel()[0], numeric, rtol=1e-6)


def test_deliberation_cost_makes_options_last():
    costs = jnp.array([0.0, 0.2])
    assert (termination_gradient(jnp.zeros(2), costs - 0.1) < 0).tolist() == [False, True]


# Convergence


def test_critic_with_frozen_options_converges_to_exact_option_values(env):
    tasks = single(env.default_params)
    frozen = {"policy_step_size": 0.0, "termination_step_size": 0.0, "temperature": 0.3, "discount": GAMMA}
    # small steps: the maximum over noisy values is too large
    config = Config(num_options=O, critic_step_size=0.02, environments=256, recorded_episodes=0, **frozen)
    algorithm = option_critic_tabular.make(config, env, tasks)
    rng = np.random.default_rng(0)
    theta = jnp.asarray(rng.normal(size=(NUM_CELLS, O, 4)) * 0.3, jnp.float32)
    vartheta = jnp.asarray(rng.normal(size=(NUM_CELLS, O)), jnp.float32)
    state = algorithm.init(jax.random.key(0))
    state = replace(state, params=state.params._replace(theta=theta, vartheta=vartheta))
    options, _ = as_options(state.params, config.temperature)
    models = smdp.option_models(*env.model(env.default_params), options, GAMMA)
    exact = smdp.smdp_optimal_values(models, options.initiation)

    learn = optimised_jit(lambda state: jax.lax.fori_loop(0, 1000, lambda i, s: algorithm.step(s)[0], state))
    state = learn(learn(state))
    # averaged: with a constant step size values never settle
    snapshots = [(state := learn(state)).params.Q_omega for _ in range(8)]
    np.testing.assert_array_equal(state.params.theta, theta)
    np.testing.assert_array_equal(state.params.vartheta, vartheta)
    error = np.abs(np.mean(snapshots, axis=0) - exact)[np.arange(NUM_CELLS) != int(env.default_params.goal)]
    assert error.mean() < 0.005
    assert error.max() < 0.05


def test_evaluation_is_exact_for_the_policy_as_it_acts(env):
    """Zero tables: uniformly random actions, whatever the options do."""
    algorithm = jaxrl_hier.make("option-critic-tabular", env, recorded_episodes=0)
    state = algorithm.init(jax.random.key(0))
    measured = jax.jit(algorithm.evaluate)(state, jax.random.key(1))
    P, _ = env.model(env.default_params)
    expected = tabular.expected_steps(P, jnp.full((NUM_CELLS, 4), 0.25))
    assert_close(measured["steps_from"].values[0], expected, 1e-4)
    assert measured["termination"].values.shape == (NUM_CELLS, 4)


def test_pictures_show_the_options_and_nothing_outside_four_rooms(env, tmp_path):
    config = Config(num_options=5, recorded_episodes=0)
    tasks = single(env.default_params)
    algorithm = option_critic_tabular.make(config, env, tasks)
    trained = Trained(config, env, tasks, algorithm, algorithm.init(jax.random.key(0)))
    (path,) = options.draw(trained, tmp_path)
    picture = plt.imread(path)
    assert picture.shape[1] > picture.shape[0]  # two rows of at most four maps
    assert picture[..., :3].std() > 0.1
    assert options.draw(trained._replace(env=Taxi()), tmp_path) == []


# What a user gets wrong


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_options": 0}, "num_options must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"temperature": -1.0}, "temperature must be positive, got -1.0"),
        ({"critic_step_size": 1.5}, r"critic_step_size must lie in \[0, 1\], got 1.5"),
        ({"env": "navigation2d"}, "a table needs discrete observations and actions, .* has Box"),
        ({"env": "Pendulum-v1"}, "a table needs discrete observations and actions, .* has Box"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(UsageError, match=message):
        jaxrl_hier.make("option-critic-tabular", **settings)
