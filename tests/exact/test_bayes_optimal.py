"""Bayes-optimal play: reference values, closed forms, and its policy played."""

from itertools import product

import jax
import numpy as np
import pytest

from jaxrl_envs.bandits import Bandit, independent_tasks
from jaxrl_hier.checks import UsageError
from jaxrl_hier.classical import bandits as bandit_opponents
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.exact.bandits import (
    dependent_arms,
    drift_matrix,
    finite_horizon_indices,
    gittins_indices,
    independent_regret,
    independent_value,
    two_arms,
    two_arms_entry,
)


@pytest.mark.parametrize(("arms", "value"), [(5, 6.660), (10, 6.714), (50, 6.714)])
def test_ten_pulls_of_any_number_of_arms(arms, value):
    assert independent_value(arms, 10) == pytest.approx(value, abs=5e-4)


def test_small_cases_by_hand():
    assert independent_value(3, 0) == 0
    assert independent_value(3, 1) == pytest.approx(1 / 2)
    # stay after a success, 2/3; change after a failure, 1/2
    assert independent_value(2, 2) == pytest.approx(1 / 2 + (2 / 3 + 1 / 2) / 2)
    assert independent_value(1, 7) == pytest.approx(3.5)
    assert independent_regret(2, 1) == pytest.approx(2 / 3 - 1 / 2)


def test_no_arm_is_worth_less_than_more_of_them():
    values = [independent_value(arms, 6) for arms in (1, 2, 3, 6, 60)]
    assert np.all(np.diff(values[:4]) > 0)
    assert values[3] == values[4]  # six pulls reach six arms


def test_two_arms():
    play, policy = two_arms(100)
    assert play.reward.sum() == pytest.approx(64.918, abs=5e-4)
    assert play.regret.sum() == pytest.approx(1.748, abs=5e-4)
    assert policy.shape == (sum((t + 1) ** 3 for t in range(100)),)
    for pulls in (1, 2, 7):
        assert two_arms(pulls)[0].reward.sum() == pytest.approx(independent_value(2, pulls), abs=1e-12)


def test_the_policy_stays_with_a_winner():
    policy = two_arms(10)[1]
    assert policy[two_arms_entry(1, 1, 1, 0)]  # arm 0 paid
    assert not policy[two_arms_entry(1, 1, 0, 0)]  # it did not
    assert policy[two_arms_entry(1, 0, 0, 0)]  # arm 1 did not
    assert not policy[two_arms_entry(1, 0, 0, 1)]
    for t, n1, s1, s2 in product(range(8), repeat=4):
        if max(s1, n1) <= t and s1 <= n1 and s2 <= t - n1 and t > 0 and n1 * 2 == t and s1 != s2:
            assert policy[two_arms_entry(t, n1, s1, s2)] == (s1 > s2)  # equally known: the better one


@pytest.mark.parametrize(("kind", "regret"), [("uniform", 1.221), ("easy", 0.625), ("medium", 1.0), ("hard", 2.312)])
def test_dependent_arms(kind, regret):
    play = dependent_arms(kind, 100)
    assert play.regret.sum() == pytest.approx(regret, abs=5e-4)
    assert np.all(np.diff(play.regret) <= 1e-12)


def test_dependent_arms_by_hand():
    # uniform prior: the posterior mean after x of t is (x + 1) / (t + 2), every x equally likely
    reward = dependent_arms("uniform", 30).reward
    for t in range(30):
        mean = (np.arange(t + 1) + 1) / (t + 2)
        assert reward[t] == pytest.approx(np.mean(np.maximum(mean, 1 - mean)), abs=1e-12)
    # two values of p₁: the first pull is blind, the second trusts it
    np.testing.assert_allclose(dependent_arms("medium", 2).reward, [0.5, 0.75**2 + 0.25**2])


def test_playing_the_policy_pays_its_value():
    pulls, trials = 20, 20_000
    env, tasks, agent = Bandit(2), independent_tasks(2, pulls), bandit_opponents.bayes_optimal(pulls)
    params = agent.init(jax.random.key(0))
    worlds = begin_worlds(env, agent, tasks, params, jax.random.key(1), trials)
    transitions = rollout(env, agent, tasks, params, worlds, pulls)[1]
    reward, exact = np.asarray(transitions.reward), two_arms(pulls)[0].reward
    np.testing.assert_allclose(reward.mean(axis=1), exact, atol=4.5 * 0.5 / trials**0.5)
    total = reward.sum(axis=0)
    assert total.mean() == pytest.approx(exact.sum(), abs=float(4 * total.std() / trials**0.5))
    assert np.all(transitions.terminated[-1])
    assert not np.any(transitions.terminated[:-1])


def test_gittins_indices():
    """Printed values of the index of Beta(s + 1, f + 1) priors."""
    for discount, known in ((0.9, (0.7029, 0.8001, 0.5001)), (0.99, (0.8699, 0.9102, 0.7005))):
        indices = gittins_indices(40, discount)
        np.testing.assert_allclose([indices[0, 0], indices[1, 0], indices[0, 1]], known, atol=2e-4)
        s, f = np.indices(indices.shape)
        mean = np.where(s + f <= 40, (s + 1) / (s + f + 2), 0)
        assert np.all(indices >= mean - 1e-6)  # never below what the arm pays now
        assert np.all(indices[s + f > 40] == 0)


def test_gittins_without_patience_is_greedy():
    indices = gittins_indices(10, 0.0, lookahead=1)
    s, f = np.indices(indices.shape)
    held = s + f <= 10
    np.testing.assert_allclose(indices[held], ((s + 1) / (s + f + 2))[held], atol=1e-9)


def test_finite_horizon_indices():
    """With one pull left the mean; more pulls make it worth more to find out; never more than the best arm pays."""
    indices = finite_horizon_indices(20)
    left, s, f = np.indices(indices.shape)
    met = (left > 0) & (s + f + left <= 20)
    last = met & (left == 1)
    np.testing.assert_allclose(indices[last], ((s + 1) / (s + f + 2))[last], atol=1e-9)
    longer = met[1:] & met[:-1]
    assert np.all(np.diff(indices, axis=0)[longer] >= -1e-9)
    assert np.all(np.diff(indices, axis=0)[longer & (left[1:] <= 3)] > 1e-4)
    assert np.all(indices[met] < 1)
    assert np.all(indices[~met] == 0)
    # two pulls left of a fresh arm: going on pays ½, then ⅔ after a success and λ after a failure: ½ + ½ (⅔ + λ) = 2 λ
    assert indices[2, 0, 0] == pytest.approx(5 / 9, abs=1e-6)


def test_finite_horizon_index_is_hardly_worse_than_optimal():
    """Two arms, played exactly: the probability of every state goes forward, as in `two_arms`."""
    pulls = 30
    indices = finite_horizon_indices(pulls)
    weight, reward = {(0, 0, 0, 0): 1.0}, 0.0
    for t in range(pulls):
        following = {}
        for (s1, f1, s2, f2), w in weight.items():
            first = indices[pulls - t, s1, f1] >= indices[pulls - t, s2, f2]
            s, f = (s1, f1) if first else (s2, f2)
            paid = (s + 1) / (s + f + 2)
            reward += w * paid
            for success, p in ((1, paid), (0, 1 - paid)):
                new = (s1 + success, f1 + 1 - success, s2, f2) if first else (s1, f1, s2 + success, f2 + 1 - success)
                following[new] = following.get(new, 0.0) + w * p
        weight = following
    best = two_arms(pulls)[0].reward.sum()
    assert 0.9999 * best < reward <= best + 1e-9


def test_gittins_of_ten_pulls_against_brute_force():
    """The index by its definition: the largest ratio of discounted reward to discounted time over stopping times."""
    discount, depth = 0.7, 60  # 0.7⁶⁰ is nothing
    indices = gittins_indices(3, discount, lookahead=depth)
    for s0, f0 in ((0, 0), (2, 1), (0, 3)):
        low, high = 0.0, 1.0
        for _ in range(40):  # bisection: is going on for a reward λ less than the arm's worth it?
            charge = (low + high) / 2
            worth = np.zeros(depth + 1)
            for t in reversed(range(depth)):
                s = np.arange(t + 1)
                m = (s0 + s + 1) / (s0 + f0 + t + 2)
                going_on = m - charge + discount * (m * worth[1 : t + 2] + (1 - m) * worth[: t + 1])
                worth = np.maximum(going_on, 0)
            low, high = (charge, high) if going_on[0] > 0 else (low, charge)
        assert indices[s0, f0] == pytest.approx(low, abs=2e-4)


@pytest.mark.parametrize("volatility", [0.02, 0.1, 0.9])
def test_drift(volatility):
    """Against a million reflected steps; it keeps the uniform distribution."""
    moves = drift_matrix(volatility, 25)
    np.testing.assert_allclose(moves.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(moves.sum(0), 1, atol=0.05)
    rng = np.random.default_rng(0)
    for part in (0, 3, 12, 24):
        moved = (part + 0.5) / 25 + volatility * rng.normal(size=1_000_000)
        moved = np.abs((moved + 1) % 2 - 1)
        seen = np.histogram(moved, np.linspace(0, 1, 26))[0] / len(moved)
        np.testing.assert_allclose(moves[part], seen, atol=4 * 0.5 / len(moved) ** 0.5)


def test_bad_input():
    with pytest.raises(UsageError, match="volatility must be positive"):
        drift_matrix(0.0, 10)
    with pytest.raises(UsageError, match="at most 14 pulls can be solved"):
        independent_value(5, 100)
    with pytest.raises(UsageError, match="arms must be at least 1"):
        independent_value(0, 10)
    with pytest.raises(UsageError, match="pulls must be at least 1"):
        two_arms(0)
    with pytest.raises(UsageError, match="unknown kind of dependent arms 'mediun'; nearest: medium"):
        dependent_arms("mediun")
    with pytest.raises(UsageError, match="discount must lie in"):
        gittins_indices(10, 1.0)
