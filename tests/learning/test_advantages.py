"""Returns, advantages and the baseline against slow loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_hier.learning.advantages import (
    bootstrapped_advantage,
    discounted_sum,
    generalized_advantage,
    linear_baseline,
    rollout_advantage,
    standardize,
    time_features,
    weighted_mean,
)
from tests.close import assert_close
from tests.decomposed import decomposed
from tests.reference import slow_advantage

T, B = 30, 5


@pytest.fixture(scope="module")
def episodes():
    rng = np.random.default_rng(0)
    ends = rng.random((T, B)) < 0.12
    ends[-1] = True
    return rng.normal(size=(T, B)).astype(np.float32), rng.normal(size=(T, B)).astype(np.float32), ends


@pytest.mark.rounding
def test_discounted_sum_stops_at_ends(episodes):
    reward, _, ends = episodes
    expected = np.zeros((T, B))
    for b in range(B):
        for t in range(T):
            weight = 1.0
            for u in range(t, T):
                expected[t, b] += weight * reward[u, b]
                weight *= 0.9
                if ends[u, b]:
                    break
    assert_close(discounted_sum(jnp.array(reward), 0.9 * (1 - ends)), expected)


@pytest.mark.rounding
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_gae_against_its_definition(episodes, lam):
    reward, value, ends = episodes
    expected = np.zeros((T, B))
    for b in range(B):
        for t in range(T):
            weight = 1.0
            for u in range(t, T):
                following = 0.0 if ends[u, b] else value[u + 1, b]
                expected[t, b] += weight * (reward[u, b] + 0.9 * following - value[u, b])
                weight *= 0.9 * lam
                if ends[u, b]:
                    break
    actual = generalized_advantage(jnp.array(reward), jnp.array(value), 0.9 * (1 - ends), lam)
    assert_close(actual, expected)


def test_gae_with_lambda_one_is_return_minus_value(episodes):
    reward, value, ends = episodes
    discount = 0.99 * (1 - ends)
    advantage = generalized_advantage(jnp.array(reward), jnp.array(value), discount, 1.0)
    assert_close(advantage, discounted_sum(jnp.array(reward), discount) - value)


def test_rollout_advantage_runs_to_the_end_of_an_episode_or_of_what_is_known():
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 12, 3)).astype(np.float32)
    terminated = np.zeros((12, 3), bool)
    terminated[[4, 9], 0] = True  # goes on behind the rollout
    terminated[11, 1] = True  # one whole episode
    terminated[3, 2] = terminated[11, 2] = True
    advantage, weight = rollout_advantage(jnp.asarray(reward), jnp.asarray(value), jnp.asarray(terminated), 0.9, 0.7)
    for b in range(3):
        slow = slow_advantage(reward[:, b], value[:, b], terminated[:, b], 0.9, 0.7)
        assert_close(advantage[:, b], slow)
    np.testing.assert_array_equal(weight[:-1], 1)
    np.testing.assert_array_equal(weight[-1], [0, 1, 1])


def test_bootstrapped_advantage_with_lambda_0_and_1():
    """One step, or the return to the end of the episode or rollout; only a termination is worth nothing."""
    rng = np.random.default_rng(0)
    reward, value, after = rng.normal(size=(3, 12, 3)).astype(np.float32)
    ends = rng.choice(3, (12, 3), p=[0.6, 0.2, 0.2])
    terminated, truncated = ends == 1, ends == 2
    assert terminated.any()
    assert truncated.any()
    after[:-1] = np.where(ends[:-1] > 0, after[:-1], value[1:])  # the true successor's, also before a reset
    advantage = lambda lam: bootstrapped_advantage(reward, value, after, jnp.asarray(terminated), truncated, 0.9, lam)
    one_step, whole = advantage(0.0), advantage(1.0)
    assert_close(one_step, reward + 0.9 * np.where(terminated, 0, after) - value)
    for t, b in np.ndindex(12, 3):
        total, weight = 0.0, 1.0
        for u in range(t, 12):
            total += weight * reward[u, b]
            weight *= 0.9
            if ends[u, b]:
                break
        rest = 0.0 if terminated[u, b] else weight * after[u, b]
        assert float(whole[t, b]) == pytest.approx(total + rest - value[t, b], abs=1e-5)


def test_standardize_ignores_masked_steps(episodes):
    x, junk, ends = episodes
    mask = (~ends).astype(np.float32)
    a = standardize(jnp.array(x), mask)
    assert_close(a, standardize(jnp.array(np.where(ends, junk * 100, x)), mask))
    assert float(a.sum() / mask.sum()) == pytest.approx(0, abs=1e-5)
    assert float((a**2).sum() / mask.sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("constant", [0.1, -1000.1, 0.0])
def test_standardize_makes_nothing_of_equal_numbers(constant):
    """Whose mean is rounded: what is left must not be scaled up to 1."""
    x = jnp.full((7, 3), constant)
    np.testing.assert_array_equal(standardize(x, jnp.ones_like(x)), jnp.zeros_like(x))
    np.testing.assert_array_equal(standardize(x.at[0].set(5.0), jnp.ones_like(x).at[0].set(0.0)), jnp.zeros_like(x))
    near = jnp.asarray([constant, constant + 0.01])
    np.testing.assert_allclose(standardize(near, jnp.ones(2)), [-1, 1], rtol=0.02)


@pytest.mark.rounding
def test_means_over_no_steps_are_zero():
    """A minibatch may hold only steps that bootstrap."""
    x, none = jnp.arange(6.0).reshape(2, 3), jnp.zeros((2, 3))
    assert weighted_mean(x, none) == 0
    assert weighted_mean(x, none.at[1, 1:].set(1.0)) == 4.5
    np.testing.assert_array_equal(standardize(x, none), none)


def test_linear_baseline_is_the_float64_ridge_solution():
    rng = np.random.default_rng(1)
    obs = np.cumsum(rng.normal(size=(100, 20, 2)) * 0.05, axis=0).astype(np.float32)
    time = np.broadcast_to(np.arange(100)[:, None], (100, 20))
    target = (-np.linalg.norm(obs - 0.3, axis=-1) * (100 - time)).astype(np.float32)
    mask = (rng.random((100, 20)) < 0.8).astype(np.float32)
    phi = np.asarray(time_features(jnp.array(obs), time), np.float64)
    assert phi.shape == (100, 20, 8)
    rows = phi[mask > 0]
    weights = np.linalg.solve(rows.T @ rows + 1e-5 * np.eye(8), rows.T @ target[mask > 0].astype(np.float64))
    fitted = linear_baseline(jnp.array(phi, jnp.float32), jnp.array(target), mask)
    assert_close(fitted, phi @ weights, 2e-3)


def test_baselines_of_many_tasks_are_solved_one_after_the_other():
    """Batched Cholesky decompositions of several devices wait for each other for ever on a CPU (jaxlib 0.10.2)."""
    features, target = jnp.ones((3, 5, 2, 4)), jnp.ones((3, 5, 2))
    assert decomposed(jax.vmap(linear_baseline), features, target, target) == {(4, 4)}


@pytest.mark.rounding
def test_linear_baseline_survives_collinear_and_empty_features():
    rng = np.random.default_rng(2)
    x, target = rng.normal(size=(50, 4, 1)), rng.normal(size=(50, 4)).astype(np.float32)
    features = np.concatenate([x, x, 0 * x, np.ones_like(x)], -1).astype(np.float32)
    fitted = linear_baseline(jnp.array(features), jnp.array(target), np.ones((50, 4), np.float32))
    rows = np.concatenate([x, np.ones_like(x)], -1).reshape(-1, 2)
    expected = rows @ np.linalg.lstsq(rows, target.reshape(-1), rcond=None)[0]
    assert_close(fitted.reshape(-1), expected, 1e-3)
