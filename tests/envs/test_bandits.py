"""Bandits: the contract, the task distributions, and what each pull pays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.bandits import (
    Bandit,
    BanditParams,
    RestlessBandit,
    RestlessParams,
    dependent_tasks,
    independent_tasks,
    informative_tasks,
    restless_tasks,
)
from tests.close import assert_close

DRAWS = 4000


def sample(tasks, count=DRAWS):
    return jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), count))


def pull(env, params, action, count=DRAWS):
    """Rewards [count] and regrets [count] of first pulls."""
    _, state = env.reset_env(jax.random.key(0), params)
    step = lambda key: env.step_env(key, state, action, params)
    _, _, reward, _, info = jax.vmap(step)(jax.random.split(jax.random.key(1), count))
    return np.asarray(reward), np.asarray(info["regret"])


@pytest.mark.parametrize("name", ["bandit-n10-k5", "bandit-informative", "bandit-restless"])
def test_conforms(name):
    check_env(*jaxrl_envs.make(name), episodes=2)


def test_every_registered_bandit_has_a_task_of_its_arms():
    names = [name for name in jaxrl_envs.names() if name.startswith("bandit")]
    assert len(names) == 16
    for name in names:
        env, tasks = jaxrl_envs.make(name)
        params = tasks.sample(jax.random.key(0))
        assert params.probabilities.shape == params.payouts.shape == (env.num_actions,)
        assert tasks.resample == "episode"
    env, tasks = jaxrl_envs.make("bandit-n100-k50")
    assert (env.num_actions, tasks.sample(jax.random.key(0)).max_steps_in_episode) == (50, 100)


def test_a_pull_pays_with_the_probability_of_its_arm():
    params = BanditParams(probabilities=jnp.array([0.2, 0.7]), payouts=jnp.array([1.0, 3.0]))
    for arm, p, payout, short in ((0, 0.2, 1.0, 1.9), (1, 0.7, 3.0, 0.0)):
        reward, regret = pull(Bandit(2), params, arm)
        assert set(np.unique(reward)) == {0.0, payout}
        assert reward.mean() == pytest.approx(p * payout, abs=4 * payout * 0.5 / DRAWS**0.5)
        assert_close(regret, short, scale=1)  # of the expected reward, whatever the draw


def test_an_episode_ends_for_good_after_its_pulls():
    env, params = Bandit(3), BanditParams(probabilities=jnp.ones(3), payouts=jnp.ones(3), max_steps_in_episode=4)
    obs, state = env.reset_env(jax.random.key(0), params)
    for t in range(1, 5):
        assert int(obs) == 0
        obs, state, _, terminated, _ = env.step_env(jax.random.key(t), state, 0, params)
        assert bool(terminated) is (t == 4)


def test_independent_arms_are_uniform():
    p = np.asarray(sample(independent_tasks(5, 10)).probabilities)
    np.testing.assert_allclose(p.mean(0), 0.5, atol=4 * 0.289 / DRAWS**0.5)
    np.testing.assert_allclose(p.var(0), 1 / 12, atol=0.008)
    assert np.abs(np.corrcoef(p.T) - np.eye(5)).max() < 0.07
    assert p.max(1).mean() == pytest.approx(5 / 6, abs=0.01)


@pytest.mark.parametrize(("kind", "values"), [("easy", (0.1, 0.9)), ("medium", (0.25, 0.75)), ("hard", (0.4, 0.6))])
def test_dependent_arms_add_up(kind, values):
    p = np.asarray(sample(dependent_tasks(kind)).probabilities)
    assert_close(p.sum(1), 1.0)
    assert_close(np.unique(p[:, 0].round(4)), values)
    assert p[:, 0].mean() == pytest.approx(0.5, abs=4 * 0.4 / DRAWS**0.5)


def test_dependent_uniform_arms():
    p = np.asarray(sample(dependent_tasks("uniform")).probabilities)
    assert_close(p.sum(1), 1.0)
    assert p[:, 0].var() == pytest.approx(1 / 12, abs=0.006)
    with pytest.raises(ValueError, match="kind is 'uniform', 'easy'"):
        dependent_tasks("simple")


def test_the_informative_arm_tells():
    params = sample(informative_tasks())
    payouts = np.asarray(params.payouts)
    target = payouts[:, :10].argmax(1)
    assert_close(payouts[:, 10], 0.1 * (target + 1))
    assert np.all(np.sort(payouts[:, :10], axis=1) == [1] * 9 + [5])
    # first pulls: 1.4 for an arm that says little, 0.55 for the one that says everything
    assert payouts[:, :10].mean() == pytest.approx(1.4)
    assert payouts[:, 10].mean() == pytest.approx(0.55, abs=4 * 0.287 / DRAWS**0.5)
    reward, _ = pull(Bandit(11), jax.tree.map(lambda x: x[0], params), int(target[0]), count=5)
    assert np.all(reward == 5)


def drift(volatility, steps=400):
    env = RestlessBandit()
    params = RestlessParams(
        probabilities=jnp.array([0.5, 0.5]), payouts=jnp.ones(2), volatility=volatility, max_steps_in_episode=steps
    )

    def step(state, key):
        _, state, _, _, info = env.step_env(key, state, 0, params)
        return state, (state.probabilities, info["regret"])

    _, state = env.reset_env(jax.random.key(0), params)
    return jax.lax.scan(step, state, jax.random.split(jax.random.key(3), steps))[1]


def test_restless_arms_drift_and_stay_dependent():
    for volatility in (0.02, 0.1):
        p, regret = (np.asarray(x) for x in drift(jnp.float32(volatility)))
        assert_close(p.sum(1), 1.0)
        assert p.min() >= 0
        inside = np.abs(p[:-1, 0] - 0.5) < 0.5 - 4 * volatility  # no wall within reach
        assert np.diff(p[:, 0])[inside].std() == pytest.approx(volatility, rel=0.15)
        before = np.concatenate([[0.5], p[:-1, 0]])  # a pull pays by what was true before the drift
        assert_close(regret, np.maximum(1 - 2 * before, 0))
    assert_close(np.unique(sample(restless_tasks(), 100).volatility), [0.02, 0.1])


def test_what_a_restless_arm_pays_says_nothing_about_its_drift():
    env, params = RestlessBandit(), RestlessParams(volatility=jnp.float32(0.1))
    _, state = env.reset_env(jax.random.key(0), params)
    step = jax.vmap(lambda key: env.step_env(key, state, 0, params)[1:3])
    after, reward = step(jax.random.split(jax.random.key(1), DRAWS))
    moved, paid = np.asarray(after.probabilities)[:, 0] - 0.5, np.asarray(reward) > 0
    assert abs(moved[paid].mean() - moved[~paid].mean()) < 4 * 0.1 * (4 / DRAWS) ** 0.5


def test_restless_tasks_start_anywhere_at_either_speed():
    drawn = sample(restless_tasks())
    p, slow = np.asarray(drawn.probabilities), np.asarray(drawn.volatility) < 0.05
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert slow.mean() == pytest.approx(0.5, abs=4 * 0.5 / DRAWS**0.5)
    for some in (p[slow, 0], p[~slow, 0]):
        assert some.mean() == pytest.approx(0.5, abs=4 * 0.289 / len(some) ** 0.5)
        assert some.var() == pytest.approx(1 / 12, abs=0.01)


def test_a_bandit_without_arms():
    with pytest.raises(ValueError, match="at least one arm"):
        Bandit(0)
