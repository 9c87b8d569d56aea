"""Random tabular processes and the two-step task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.tabular_mdp import TabularMDP, TabularState, TwoStep, TwoStepState, random_mdp_tasks
from jaxrl_hier.exact.tabular import value_sweeps
from tests.close import assert_close

DRAWS = 4000


@pytest.fixture(scope="module")
def processes():
    """2000 random processes."""
    return jax.vmap(random_mdp_tasks().sample)(jax.random.split(jax.random.key(0), 2000))


@pytest.mark.parametrize("name", ["tabular-mdp", "two-step"])
def test_conforms(name):
    check_env(*jaxrl_envs.make(name), episodes=2)


def test_task_distribution(processes):
    P, R = np.asarray(processes.transitions), np.asarray(processes.rewards)
    assert_close(P.sum(3), 1.0)
    assert P.mean() == pytest.approx(0.1, rel=1e-5)
    # Dirichlet(1, …, 1): Beta(1, 9) each, and entries of a row correlate by -1/9
    assert P.var() == pytest.approx(0.9 * 0.1 / 11, rel=0.01)
    pair = np.corrcoef(P[..., 0].ravel(), P[..., 1].ravel())[0, 1]
    assert pair == pytest.approx(-1 / 9, abs=0.02)
    assert R.mean() == pytest.approx(1, abs=4 / R.size**0.5)
    assert R.std() == pytest.approx(1, abs=0.01)


def test_best_and_random_policies_of_known_processes(processes):
    solve = jax.vmap(lambda P, R: value_sweeps(P, R, 1.0, 10)[-1, 0])
    best = np.asarray(solve(processes.transitions, processes.rewards), np.float64)
    assert best.mean() == pytest.approx(21.852, abs=4 * best.std() / len(best) ** 0.5)
    at_random = solve(processes.transitions.mean(2, keepdims=True), processes.rewards.mean(2, keepdims=True))
    at_random = np.asarray(at_random, np.float64)
    assert at_random.mean() == pytest.approx(10, abs=4 * np.std(at_random) / len(best) ** 0.5)


def test_steps_follow_the_tables():
    env, params = TabularMDP(), TabularMDP().default_params
    P, R = env.model(params)
    state = TabularState(state=jnp.int32(3), time=jnp.int32(4))
    step = jax.vmap(lambda key: env.step_env(key, state, 2, params))
    obs, following, reward, terminated, _ = step(jax.random.split(jax.random.key(0), DRAWS))
    frequency = np.bincount(np.asarray(following.state), minlength=10) / DRAWS
    np.testing.assert_allclose(frequency, P[3, 2], atol=4 * 0.5 / DRAWS**0.5)
    assert reward.mean() == pytest.approx(float(R[3, 2]), abs=4 / DRAWS**0.5)
    assert reward.std() == pytest.approx(1, abs=0.05)
    for successor in np.flatnonzero(frequency > 0.02):  # the noise says nothing about it
        paid = np.asarray(reward)[following.state == successor]
        assert paid.mean() == pytest.approx(float(R[3, 2]), abs=4.5 / len(paid) ** 0.5)
    np.testing.assert_array_equal(obs, following.state)
    assert not terminated.any()


def test_a_trial_of_several_episodes():
    env = TabularMDP()
    params = random_mdp_tasks(episodes=3).sample(jax.random.key(0))
    assert params.max_steps_in_episode == 30

    def step(state, key):
        obs, state, _, terminated, _ = env.step_env(key, state, 1, params)
        return state, (obs, terminated)

    obs, state = env.reset_env(jax.random.key(1), params)
    assert int(obs) == 0
    obs, terminated = jax.lax.scan(step, state, jax.random.split(jax.random.key(2), 30))[1]
    assert np.all(np.asarray(obs)[[9, 19, 29]] == 0)  # every episode begins in state 0
    assert np.any(np.asarray(obs) > 0)
    np.testing.assert_array_equal(np.flatnonzero(terminated), [29])
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        TabularMDP(horizon=0)


def test_two_step_probabilities():
    env, params = TwoStep(), TwoStep().default_params
    keys = jax.random.split(jax.random.key(0), DRAWS)
    step = jax.jit(
        lambda key, at, action: env.step_env(
            key, TwoStepState(state=at, better=jnp.int32(2), time=jnp.int32(0)), action, params
        )
    )
    for action in (0, 1):
        obs, _, reward, _, _ = jax.vmap(step, (0, None, None))(keys, jnp.int32(0), action)
        assert np.mean(obs == action + 1) == pytest.approx(0.8, abs=4 * 0.4 / DRAWS**0.5)
        assert set(np.unique(obs)) == {1, 2}
        assert np.all(reward == 0)
    for at, pays in ((1, 0.1), (2, 0.9)):
        obs, state, reward, _, _ = jax.vmap(step, (0, None, None))(keys, jnp.int32(at), 0)
        assert np.all(obs == 0)
        assert reward.mean() == pytest.approx(pays, abs=4 * 0.3 / DRAWS**0.5)
        assert np.mean(state.better == 1) == pytest.approx(0.025, abs=4 * 0.156 / DRAWS**0.5)
        switched = np.asarray(state.better == 1)  # says nothing about the reward
        assert reward[switched].mean() == pytest.approx(pays, abs=4 * 0.3 / switched.sum() ** 0.5)


def test_two_step_starts_with_either_state_better():
    env, params = TwoStep(), TwoStep().default_params
    _, state = jax.vmap(lambda key: env.reset_env(key, params))(jax.random.split(jax.random.key(0), DRAWS))
    assert np.mean(state.better == 1) == pytest.approx(0.5, abs=4 * 0.5 / DRAWS**0.5)
    assert np.all(state.state == 0)
