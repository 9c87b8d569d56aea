"""The exact meta-gradient against finite differences, enumeration and closed forms; estimators against it."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_hier.exact.meta_gradient import (
    Process,
    adapted,
    bandit,
    expected_return,
    meta_gradient,
    meta_objective,
    state_values,
)
from jaxrl_hier.learning.distributions import Categorical
from jaxrl_hier.meta.estimators import ESTIMATORS, PolicyBatch, inner_loss
from jaxrl_hier.meta.inner import gradient_step
from jaxrl_hier.meta.outer import exploration_loss
from tests.close import assert_close

T, ALPHA = 3, 0.7


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def process():
    """Two states, two actions, random."""
    rng = np.random.default_rng(0)
    P = rng.dirichlet(np.ones(2), (2, 2))
    return Process(jnp.array(P), jnp.array(rng.normal(size=(2, 2))), jnp.array([0.3, 0.7]))


@pytest.fixture
def theta():
    return jnp.array(np.random.default_rng(1).normal(size=(2, 2)))


def trajectories(process):
    """All of length T: states [n, T], actions [n, T]."""
    states, actions = zip(*product(product(range(2), repeat=T), product(range(2), repeat=T)))
    return jnp.array(states), jnp.array(actions)


def probabilities(theta, process, states, actions):
    """Of each trajectory, [n]."""
    policy = jax.nn.softmax(theta)
    moves = process.P[states[:, :-1], actions[:, :-1], states[:, 1:]]
    return process.start[states[:, 0]] * policy[states, actions].prod(1) * moves.prod(1)


# --- exact values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_expected_return_by_enumeration(process, theta, gamma):
    states, actions = trajectories(process)
    returns = (process.R[states, actions] * gamma ** jnp.arange(T)).sum(1)
    expected = jnp.sum(probabilities(theta, process, states, actions) * returns)
    assert float(expected_return(theta, process, T, gamma)) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2])
def test_meta_gradient_against_finite_differences(process, theta, steps):
    objective = jax.jit(lambda theta: meta_objective(theta, process, ALPHA, T, 0.9, steps))
    gradient, h = meta_gradient(theta, process, ALPHA, T, 0.9, steps), 1e-6
    numeric = np.zeros(theta.shape)
    for i in np.ndindex(theta.shape):
        e = jnp.zeros_like(theta).at[i].set(h)
        numeric[i] = (objective(theta + e) - objective(theta - e)) / (2 * h)
    assert_close(gradient, numeric, 1e-7)


def test_meta_gradient_is_the_hessian_times_the_gradient_at_the_adapted_policy(process, theta):
    J = lambda flat: expected_return(flat.reshape(2, 2), process, T)
    theta_new = adapted(theta, process, ALPHA, T).ravel()
    expected = (jnp.eye(4) + ALPHA * jax.hessian(J)(theta.ravel())) @ jax.grad(J)(theta_new)
    assert_close(meta_gradient(theta, process, ALPHA, T).ravel(), expected, 1e-12)


def test_several_exact_steps_are_single_ones_in_turn(process, theta):
    twice = adapted(adapted(theta, process, ALPHA, T), process, ALPHA, T)
    np.testing.assert_allclose(adapted(theta, process, ALPHA, T, steps=2), twice, rtol=1e-12)
    J = lambda theta: expected_return(theta, process, T)
    np.testing.assert_allclose(meta_objective(theta, process, ALPHA, T, steps=2), J(twice), rtol=1e-12)
    assert float(J(twice)) > float(J(adapted(theta, process, ALPHA, T))) > float(J(theta))


def test_a_bandit_in_closed_form():
    """∇J = π (r − J)."""
    means, theta = jnp.array([0.1, 0.5, 0.9]), jnp.array([[0.2, -0.3, 0.4]])
    policy = jax.nn.softmax(theta[0])
    J = policy @ means
    assert float(expected_return(theta, bandit(means), 1)) == pytest.approx(float(J), rel=1e-12)
    gradient = (adapted(theta, bandit(means), 1.0, 1) - theta)[0]
    assert_close(gradient, policy * (means - J), 1e-12)


# --- estimators, by enumeration: no noise ----------------------------------------------------------------------------


class Table:
    """Softmax tables as a policy network: apply(θ [S, A], states) -> Categorical."""

    @staticmethod
    def apply(theta, states):
        return Categorical(theta[states])


def batch_of(theta, states, actions, reward, baseline):
    """Trajectories as a batch, undiscounted: one [T], or several one after the other that last a step each [1, B]."""
    reward = reward.reshape(-1, 1) if reward.ndim == 1 else reward
    to_go = jnp.cumsum(reward[::-1], axis=0)[::-1].ravel()
    distribution = Table.apply(jax.lax.stop_gradient(theta), states)
    return PolicyBatch(
        obs=states,
        action=actions,
        acted=distribution,
        log_prob=distribution.log_prob(actions),
        advantage=to_go - baseline,
        weight=jnp.ones(len(states)),
        reward=reward,
        discount=jnp.ones(reward.shape).at[-1].set(0.0),
        ended=jnp.zeros(reward.shape).at[-1].set(1.0),
        episode_return=jnp.sum(reward),
        completed_return=jnp.sum(reward),
        complete=jnp.ones(()),
        path=states,
    )


@partial(jax.jit, static_argnames="name")
def expected_derivatives(name, process, theta, with_baseline):
    """Expectation over all trajectories of the estimator's gradient [4] and Hessian [4, 4]."""
    values = state_values(theta, process, T) * with_baseline
    J = lambda flat, batch: -inner_loss(Table, ESTIMATORS[name], flat.reshape(2, 2), batch)

    def derivatives(states, actions):
        batch = batch_of(theta, states, actions, process.R[states, actions], values[jnp.arange(T), states])
        return jax.grad(J)(theta.ravel(), batch), jax.hessian(J)(theta.ravel(), batch)

    states, actions = trajectories(process)
    weights = probabilities(theta, process, states, actions)
    return jax.tree.map(lambda x: jnp.tensordot(weights, x, 1), jax.vmap(derivatives)(states, actions))


@pytest.mark.parametrize("with_baseline", [False, True])
def test_first_derivatives_are_the_policy_gradient_and_hessians_differ_as_theory_says(process, theta, with_baseline):
    J = lambda flat: expected_return(flat.reshape(2, 2), process, T)
    gradient, hessian = jax.grad(J)(theta.ravel()), jax.hessian(J)(theta.ravel())
    error = {}
    for name in ESTIMATORS:
        g, h = expected_derivatives(name, process, theta, with_baseline)
        assert_close(g, gradient, 1e-12)
        error[name] = float(jnp.linalg.norm(h - hessian) / jnp.linalg.norm(hessian))
    assert error["dice"] < 1e-12
    assert error["loaded-dice"] < 1e-12
    assert error["naive"] > 0.1
    assert error["lvc"] > 0.01


def test_low_variance_curvature_is_dice_on_one_step(theta):
    states, actions, reward = jnp.zeros(1, int), jnp.ones(1, int), jnp.array([0.7])
    batch = batch_of(theta, states, actions, reward, 0.2)
    loss = lambda name: partial(inner_loss, Table, ESTIMATORS[name])
    hessian = jax.jit(lambda theta: {name: jax.hessian(loss(name))(theta, batch) for name in ESTIMATORS})(theta)
    assert_close(hessian["lvc"], hessian["dice"], 1e-12)
    assert_close(hessian["lvc"], hessian["loaded-dice"], 1e-12)
    slope = jax.grad(lambda theta: Table.apply(theta, states).log_prob(actions)[0])(theta)
    missing = 0.5 * slope[:, :, None, None] * slope  # A ∇l ∇lᵀ
    assert_close(hessian["naive"] - hessian["lvc"], missing, 1e-12)


def test_exploration_term_completes_the_gradient_of_what_is_trained_with_few_samples():
    """E-MAML: two pulls of three arms, all nine batches: d/dθ E_D J(θ'(D)) = E_D [dJ/dθ + Σ ∇log π_θ(D) J(θ'(D))]."""
    means, theta = jnp.array([0.1, 0.5, 0.9]), jnp.array([[0.2, -0.3, 0.4]])
    process = bandit(means)
    batches = jnp.array(list(product(range(3), repeat=2)))

    def batch(actions):
        return batch_of(theta, jnp.zeros(2, int), actions, means[actions][None], 0.3)

    def after(theta, actions):  # J(θ'(D)), D's probability not differentiated
        loss = lambda theta, batch: inner_loss(Table, ESTIMATORS["naive"], theta, batch) / 2
        return expected_return(gradient_step(loss, theta, batch(actions), ALPHA), process, 1)

    def estimate(theta, actions):
        """Gradients of one batch: of J(θ'(D)), and of the exploration term."""
        data, earned = batch(actions), after(theta, actions)
        term = lambda theta: -exploration_loss(Table.apply(theta, data.obs), data, earned)
        return jax.grad(after)(theta, actions), jax.grad(term)(theta)

    @jax.jit
    def gradients(theta):
        probability = lambda theta: jax.nn.softmax(theta[0])[batches].prod(1)
        trained = lambda theta: probability(theta) @ jax.vmap(after, (None, 0))(theta, batches)
        estimates = jax.vmap(estimate, (None, 0))(theta, batches)
        return jax.grad(trained)(theta), *(jnp.tensordot(probability(theta), x, 1) for x in estimates)

    expected, through, exploring = gradients(theta)
    assert_close(through + exploring, expected, 1e-10)
    assert float(jnp.abs(through - expected).max()) > 0.01


# --- and from samples ------------------------------------------------------------------------------------------------


def test_dice_is_unbiased_and_the_naive_estimator_is_not_on_a_bandit_of_ten():
    """z-scores of Ĥ v from 4000 batches of 20 pulls, along the curvature that the naive estimator misses."""
    theta, pulls = jnp.zeros((1, 10)), 20
    process = bandit(jnp.arange(1, 11) / 11)
    J = lambda theta: expected_return(theta, process, 1)
    v = jax.grad(J)(adapted(theta, process, ALPHA, 1))
    exact = jax.jvp(jax.grad(J), (theta,), (v,))[1].ravel()

    def product(key, name):
        key_action, key_reward = jax.random.split(key)
        actions = jax.random.categorical(key_action, theta[0], shape=(pulls,))
        reward = jax.random.bernoulli(key_reward, process.R[0, actions]).astype(theta.dtype)
        batch = batch_of(theta, jnp.zeros(pulls, int), actions, reward[None], J(theta))
        slope = jax.grad(lambda theta: -inner_loss(Table, ESTIMATORS[name], theta, batch) / pulls)
        return jax.jvp(slope, (theta,), (v,))[1].ravel()

    z = {}
    for name in ESTIMATORS:
        error = jax.jit(jax.vmap(partial(product, name=name)))(jax.random.split(jax.random.key(0), 4000)) - exact
        along = error @ exact  # with the best baseline the naive Hessian is zero on average: it misses all of it
        z[name] = float(along.mean() / (along.std() / np.sqrt(len(along))))
    assert abs(z["naive"]) > 50
    for name in ("lvc", "dice", "loaded-dice"):  # the same on trajectories of one step
        assert abs(z[name]) < 3, z


def test_loaded_dice_knows_where_episodes_end_without_discounts(process, theta):
    """γ is not among its terms: that every reward is discounted to nothing changes no second derivative."""
    states, actions = (x[0] for x in trajectories(process))
    batch = batch_of(theta, states, actions, jnp.arange(1.0, 1.0 + len(states)), 0.2)
    loss = partial(inner_loss, Table, ESTIMATORS["loaded-dice"])
    hessian = jax.jit(lambda theta, discount: jax.hessian(loss)(theta, batch._replace(discount=discount)))
    assert_close(hessian(theta, 0 * batch.discount), hessian(theta, batch.discount), 1e-12)
