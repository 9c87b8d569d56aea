"""MAML's meta-gradient against closed forms, finite differences and explicit Hessians."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import jaxrl_hier
from jaxrl_hier.engine.loops import MetaBatch
from jaxrl_hier.engine.rollout import play_episodes
from jaxrl_hier.engine.types import Transition
from jaxrl_hier.learning.distributions import DiagonalGaussian
from jaxrl_hier.learning.networks import CategoricalPolicy, GaussianPolicy, WithContext
from jaxrl_hier.learning.trust_region import trust_region_step
from jaxrl_hier.meta.estimators import PolicyBatch, first_environments, inner_loss, naive, policy_batch
from jaxrl_hier.meta.inner import adapt, adaptation_path, context_rates, gradient_step, head_rates
from jaxrl_hier.meta.maml import Config, Setup, make, predict, predict_part, published
from jaxrl_hier.meta.outer import (
    Predicted,
    credits,
    epochs_update,
    fisher_part,
    mean_kl,
    meta_gradient,
    surrogate_loss,
    trust_region_divergence,
    trust_region_loss,
    trust_region_settings,
    trust_region_update,
)
from tests.close import assert_close
from tests.compiling import quick_jit

TASKS, STEPS, N = 3, 2, 12


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


# --- closed forms ------------------------------------------------------------------------------------------------


def test_meta_gradient_on_a_quadratic(float64):
    """L(θ; c) = ½ (θ − c)ᵀ H (θ − c): after K steps dL(θ')/dθ = (I − αH)^K ∇L(θ')."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4, 4))
    hessian, alpha = jnp.array(a @ a.T / 4), 0.1
    inner, outer, theta = (
        jnp.array(rng.normal(size=(3, 4))),
        jnp.array(rng.normal(size=4)),
        jnp.array(rng.normal(size=4)),
    )
    loss = lambda theta, c: 0.5 * (theta - c) @ hessian @ (theta - c)
    meta = lambda theta, **kw: loss(adapt(loss, theta, inner, alpha, **kw), outer)

    adapted = theta
    for c in inner:
        adapted = adapted - alpha * hessian @ (adapted - c)
    assert_close(adapt(loss, theta, inner, alpha), adapted, 1e-12)
    outer_gradient = hessian @ (adapted - outer)
    contraction = np.linalg.matrix_power(np.eye(4) - alpha * np.asarray(hessian), 3)
    assert_close(jax.grad(meta)(theta), contraction @ outer_gradient, 1e-10)
    assert_close(jax.grad(partial(meta, first_order=True))(theta), outer_gradient, 1e-10)
    assert_close(jax.grad(partial(meta, remat=True))(theta), contraction @ outer_gradient, 1e-10)


def test_first_order_is_exact_where_the_hessian_is_zero(float64):
    loss = lambda theta, c: jnp.sum(c * theta)  # linear
    inner, theta = jnp.arange(6.0).reshape(2, 3), jnp.ones(3)
    outer = lambda theta, **kw: jnp.sum(adapt(loss, theta, inner, 0.3, **kw) ** 2)
    assert_close(jax.grad(outer)(theta), jax.grad(partial(outer, first_order=True))(theta), 1e-12)


def test_rates_are_a_number_a_tree_or_none(float64):
    loss = lambda p, c: 0.5 * c * jnp.sum(p["body"] ** 2) + 0.5 * jnp.sum(p["head"]["w"] ** 2) * jnp.sum(p["body"])
    params = {"body": jnp.array([1.0, 2.0]), "head": {"w": jnp.array([3.0])}}
    gradient = jax.grad(loss)(params, 2.0)
    step = lambda lr: gradient_step(loss, params, 2.0, lr)

    def assert_equal(tree, body, head):
        assert_close(tree["body"], params["body"] - body * gradient["body"], 1e-12)
        assert_close(tree["head"]["w"], params["head"]["w"] - head * gradient["head"]["w"], 1e-12)

    assert_equal(step(0.1), 0.1, 0.1)
    assert_equal(step({"body": 0.1, "head": 0.2}), 0.1, 0.2)
    assert_equal(step({"body": jnp.array([0.1, 0.3]), "head": {"w": 0.2}}), jnp.array([0.1, 0.3]), 0.2)
    frozen = step({"body": None, "head": 0.2})
    assert_equal(frozen, 0.0, 0.2)
    # parameters that do not adapt still learn: their meta-gradient passes through the head's step
    meta = lambda body: jnp.sum(step({"body": None, "head": 0.2})["head"]["w"] * body)
    rates = lambda params: gradient_step(loss, params, 2.0, {"body": None, "head": 0.2})["head"]["w"][0]
    assert float(jnp.abs(jax.grad(rates)(params)["body"]).min()) > 0.1
    assert jax.grad(meta)(params["body"]).shape == (2,)


def test_the_path_is_where_each_step_began(float64):
    loss = lambda theta, c: 0.5 * jnp.sum((theta - c) ** 2)
    theta, path = adaptation_path(loss, jnp.zeros(1), jnp.array([[1.0], [1.0]]), 0.5)
    assert_close(path, [[0.0], [0.5]])
    assert_close(theta, [0.75])


def test_the_head_is_the_last_layer_and_the_standard_deviation():
    params = GaussianPolicy(2, (5, 5), "tanh").init(jax.random.key(0), jnp.zeros(2))
    rates = jax.tree_util.tree_leaves_with_path(head_rates(params, 0.3, 2))
    names = {"/".join(key.key for key in path) for path, _ in rates}
    assert names == {"params/MLP_0/Dense_2/kernel", "params/MLP_0/Dense_2/bias", "params/log_std"}


# --- the policy's losses -----------------------------------------------------------------------------------------


def random_batch(rng, *leading, discrete):
    weight = (rng.random((*leading, N)) < 0.8) + 1e-9
    action = rng.integers(0, 3, (*leading, N)) if discrete else rng.normal(size=(*leading, N, 2))
    times = jnp.zeros((*leading, 4, N // 4))
    return PolicyBatch(
        acted=(),
        log_prob=jnp.zeros((*leading, N)),
        reward=times,
        discount=times,
        ended=times,
        obs=jnp.array(rng.normal(size=(*leading, N, 2))),
        action=jnp.array(action),
        advantage=jnp.array(rng.normal(size=(*leading, N))),
        weight=jnp.array(weight / weight.sum(-1, keepdims=True)),
        episode_return=jnp.zeros(leading),
        completed_return=jnp.zeros(leading),
        complete=jnp.ones(leading),
        path=jnp.zeros((*leading, 1)),
    )


def rl_problem(discrete, context=False):
    """A small policy with smooth activations, and stored batches of 3 tasks; with a context that alone adapts."""
    rng = np.random.default_rng(3)
    policy = CategoricalPolicy(3, (5,), "tanh") if discrete else GaussianPolicy(2, (5,), "tanh")
    policy = WithContext(policy, 2) if context else policy
    inner = random_batch(rng, TASKS, STEPS, discrete=discrete)
    outer = random_batch(rng, TASKS, discrete=discrete)
    params = policy.init(jax.random.key(0), jnp.zeros(2, jnp.float64))
    theta, unravel = ravel_pytree(jax.tree.map(lambda x: x.astype(jnp.float64), params))
    loss, rates = partial(inner_loss, policy, naive), context_rates(params, 0.4) if context else 0.4

    def predict(theta, **kw):
        one = lambda i, o: policy.apply(adapt(loss, unravel(theta), i, rates, **kw), o.obs)
        return jax.vmap(one)(inner, outer)

    def meta_loss(theta, old, **kw):
        return jnp.mean(jax.vmap(surrogate_loss)(old, predict(theta, **kw), outer))

    return theta, predict, meta_loss, outer


@pytest.mark.parametrize(("discrete", "context"), [(False, False), (True, False), (False, True)])
def test_meta_gradient_against_finite_differences(float64, discrete, context):
    theta, predict, meta_loss, _ = rl_problem(discrete, context)
    old = predict(theta)
    gradient = jax.jit(jax.grad(meta_loss))(theta, old)
    value, h = jax.jit(meta_loss), 1e-6
    numeric = [(value(theta + e, old) - value(theta - e, old)) / (2 * h) for e in h * jnp.eye(len(theta))]
    assert_close(gradient, numeric, 1e-7)
    first_order = jax.grad(partial(meta_loss, first_order=True))(theta, old)
    assert float(jnp.abs(first_order - gradient).max()) > 1e-3  # the Hessian is not zero here
    assert_close(jax.grad(partial(meta_loss, remat=True))(theta, old), gradient, 1e-12)


def test_fisher_product_is_the_hessian_of_the_kl_through_the_adaptation(float64):
    theta, predict, meta_loss, outer = rl_problem(discrete=False)
    old = predict(theta)
    kl = lambda old, new: jnp.mean(jax.vmap(mean_kl)(old, new, outer))
    loss = lambda old, new: jnp.mean(jax.vmap(surrogate_loss)(old, new, outer))
    damping, delta = 1e-3, 1e-6
    fisher = jax.hessian(lambda t: kl(old, predict(t)))(theta) + damping * jnp.eye(len(theta))
    gradient = jax.grad(meta_loss)(theta, old)
    direction = jnp.linalg.solve(fisher, gradient)
    expected = theta - jnp.sqrt(2 * delta / (gradient @ direction)) * direction
    # a bound so small that the quadratic model is exact, and enough iterations for an exact solve
    new, info = trust_region_step(
        theta, predict, loss, kl, max_divergence=delta, cg_iterations=4 * len(theta), damping=damping
    )
    assert bool(info.accepted)
    # backtracking may shorten the step, but not turn it
    taken, wanted = new - theta, (expected - theta) * 0.8 ** float(info.backtracks)
    assert_close(taken, wanted, 1e-3)


def test_fisher_matrix_of_a_part_against_finite_differences(float64):
    """The Jacobian is that of the adapted policy on part of D', adapted by ψ_{k+1} = θ_{k+1} + s(ψ_k) − s(θ_k), where
    θ_k are constants and s is a step on part of D. On all of the data it is the Jacobian of `predict`."""
    policy, params, _, data = outer_problem()
    theta, unravel = ravel_pytree(params)
    setup, loss = Setup(Config(inner_learning_rate=0.3), None, 0, None, policy), partial(inner_loss, policy, naive)
    inner, last = row(data.inner, 0), row(data.outer, 0)
    step = lambda psi, batch: psi - 0.3 * ravel_pytree(jax.grad(loss)(unravel(psi), batch))[0]
    path = [theta]
    for k in range(STEPS):
        path.append(step(path[-1], row(inner, k)))
    adapted = jax.vmap(unravel)(jnp.stack(path[1:]))

    def explicit(psi, part):
        for k in range(STEPS):
            psi = path[k + 1] + step(psi, row(part.inner, k)) - step(path[k], row(part.inner, k))
        after = policy.apply(unravel(psi), part.outer.obs)
        return jnp.concatenate([after.mean.ravel(), after.log_std.ravel()])

    def ours(psi, part):
        after = predict_part(setup, unravel(psi), part).after
        return jnp.concatenate([after.mean.ravel(), after.log_std.ravel()])

    first = partial(first_environments, count=1)
    part = MetaBatch(jax.vmap(first)(inner), first(last), adapted)
    jacobian, h, moved = jax.jit(jax.jacfwd(ours))(theta, part), 1e-6, jax.jit(explicit)
    assert_close(jax.jit(ours)(theta, part), moved(theta, part), 1e-12)
    numeric = [(moved(theta + e, part) - moved(theta - e, part)) / (2 * h) for e in h * jnp.eye(len(theta))]
    assert_close(jacobian.T, numeric, 1e-7)
    whole = MetaBatch(inner, last, adapted)
    everything = lambda psi: ravel_pytree(predict(setup, unravel(psi), whole).after)[0]
    all_of_it = lambda psi: ravel_pytree(predict_part(setup, unravel(psi), whole).after)[0]
    assert_close(jax.jit(jax.jacfwd(all_of_it))(theta), jax.jit(jax.jacfwd(everything))(theta), 1e-10)


def test_the_first_environments_of_a_batch_by_hand():
    batch = random_batch(np.random.default_rng(1), discrete=False)
    grid = jnp.arange(N, dtype=jnp.float32).reshape(4, 3)  # 4 steps of 3 environments
    rows = {"reward": grid, "discount": grid + 1, "ended": grid + 2}
    taken = first_environments(batch._replace(log_prob=grid.ravel(), **rows), 2)
    np.testing.assert_array_equal(taken.log_prob, [0, 1, 3, 4, 6, 7, 9, 10])
    np.testing.assert_array_equal(taken.reward, [[0, 1], [3, 4], [6, 7], [9, 10]])
    np.testing.assert_array_equal(taken.discount, taken.reward + 1)
    np.testing.assert_array_equal(taken.ended, taken.reward + 2)
    kept = taken.log_prob.astype(int)
    for name in ("obs", "action", "advantage"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(batch, name)[kept])
    assert_close(taken.weight, batch.weight[kept] / batch.weight[kept].sum())


def test_the_fisher_matrix_is_that_of_so_many_episodes_of_every_task(float64):
    _, params, predict, data = outer_problem()
    assert fisher_part(Config(), predict, 1, data) is None
    assert fisher_part(Config(fisher_episodes=3), predict, 1, data) is None  # there are no more
    curvature = fisher_part(Config(fisher_episodes=2), predict, 1, data)
    first = jax.vmap(partial(first_environments, count=2))
    part = MetaBatch(jax.vmap(first)(data.inner), first(data.outer))
    old = jax.vmap(partial(predict, params))(part)
    assert_close(curvature.predict(params), old, 1e-5)
    new = old._replace(after=old.after._replace(mean=old.after.mean + 0.1))
    assert_close(curvature.divergence(old, new), trust_region_divergence(part, old, new), 1e-6)


@pytest.mark.parametrize("steps", [3, 5])
def test_nothing_is_learned_from_returns_that_the_baseline_fits(steps):
    """What is left of them is rounding, in units of which rewards would be huge."""
    rng, shape = np.random.default_rng(0), (steps, 20)
    last = np.arange(steps)[:, None] == np.full(shape, steps - 1)
    obs, mean = jnp.zeros((*shape, 2)), jnp.zeros((*shape, 2))
    t = Transition(
        obs=obs,
        action=jnp.asarray(rng.normal(size=(*shape, 2)), jnp.float32),
        reward=jnp.asarray(last, jnp.float32),
        terminated=jnp.asarray(last),
        truncated=jnp.zeros(shape, bool),
        next_obs=obs,
        first=jnp.asarray(np.arange(steps)[:, None] == np.zeros(shape)),
        extras=DiagonalGaussian(mean, mean),
    )
    batch = quick_jit(lambda t: policy_batch(t, lambda x: x, 1.0, 1.0))(t)
    assert not np.asarray(batch.advantage).any()
    assert not np.asarray(batch.reward).any()
    np.testing.assert_array_equal(batch.ended, last)
    other = t._replace(reward=t.reward + jnp.asarray(rng.normal(size=shape), jnp.float32))
    batch = quick_jit(lambda t: policy_batch(t, lambda x: x, 1.0, 1.0))(other)
    assert np.asarray(batch.advantage).std() == pytest.approx(1, abs=1e-4)


# --- batches, outer losses and optimisers ------------------------------------------------------------------------


def test_batches_by_hand(float64):
    """Weights, returns, advantages and reported returns, for episodes that end in both ways or are cut."""
    rng, (T, B) = np.random.default_rng(5), (9, 3)
    end = np.zeros((T, B), int)  # 1: the task's own, 2: the time limit
    end[3, 0], end[6, 0] = 1, 2  # two whole episodes, and two steps that do not count
    end[4, 1], end[8, 1] = 2, 1  # two whole ones
    first = np.concatenate([np.ones((1, B), bool), end[:-1] > 0])  # the third column: a first episode that is cut
    obs, reward = rng.normal(size=(T, B, 2)), rng.normal(size=(T, B))
    acted = DiagonalGaussian(jnp.asarray(rng.normal(size=(T, B, 2))), jnp.asarray(rng.normal(size=(T, B, 2)) * 0.3))
    action, next_obs = rng.normal(size=(T, B, 2)), rng.normal(size=(T, B, 2))
    t = jax.tree.map(jnp.asarray, Transition(obs, action, reward, end == 1, end == 2, next_obs, first, acted))
    batch = quick_jit(lambda t: policy_batch(t, lambda x: x, 0.9, 0.8))(t)

    counts = np.ones((T, B))
    counts[7:, 0] = 0
    time, returns, discount = np.zeros((T, B)), np.zeros((T, B)), np.where(end > 0, 0.0, 0.9)
    for step in range(1, T):
        time[step] = np.where(first[step], 0, time[step - 1] + 1)
    following = np.zeros(B)
    for step in reversed(range(T)):
        following = returns[step] = reward[step] + discount[step] * following
    tau = time[..., None] / 100
    features = np.concatenate([obs, obs**2, tau, tau**2, tau**3, np.ones_like(tau)], axis=-1)
    rows = features[counts > 0]
    fit = np.linalg.solve(rows.T @ rows + 1e-5 * np.eye(rows.shape[1]), rows.T @ returns[counts > 0])
    value, advantage, following = features @ fit, np.zeros((T, B)), np.zeros(B)
    for step in reversed(range(T)):
        after = value[step + 1] if step + 1 < T else 0.0
        following = reward[step] + discount[step] * after - value[step] + 0.8 * discount[step] * following
        advantage[step] = following
    kept = advantage[counts > 0]
    standard = np.where(counts > 0, (advantage - kept.mean()) / kept.std(), 0.0)
    assert_close(batch.advantage, standard.ravel(), 2e-3)
    assert_close(batch.weight, counts.ravel() / 25)
    assert_close(batch.discount, discount)
    assert_close(batch.reward, reward / kept.std(), 2e-3)
    z = (action - acted.mean) * np.exp(-acted.log_std)
    log_prob = np.sum(-0.5 * z**2 - acted.log_std - 0.5 * np.log(2 * np.pi), axis=-1)
    assert_close(batch.log_prob, log_prob.ravel())
    of_firsts = [reward[:4, 0].sum(), reward[:5, 1].sum(), reward[:, 2].sum()]
    np.testing.assert_allclose(batch.episode_return, np.mean(of_firsts))
    whole = [reward[:4, 0].sum(), reward[4:7, 0].sum(), reward[:5, 1].sum(), reward[5:, 1].sum()]
    np.testing.assert_allclose([batch.completed_return, batch.complete], [np.mean(whole), 2 / 3], rtol=1e-6)
    path = np.concatenate([obs[:1, 0], next_obs[:4, 0], np.tile(next_obs[3, 0], (5, 1))])
    assert_close(batch.path, path)
    # the inner loss is a mean over the steps that count
    policy = GaussianPolicy(2, (3,), "tanh")
    params = policy.init(jax.random.key(0), jnp.zeros(2))
    log_prob = policy.apply(params, batch.obs).log_prob(batch.action)
    expected = -np.sum(np.asarray(log_prob * batch.advantage)[counts.ravel() > 0]) / 25
    np.testing.assert_allclose(inner_loss(policy, naive, params, batch), expected, rtol=1e-6)


def outer_problem():
    """Like `rl_problem`, with returns of the tasks, and with other policies that acted than the present one."""
    rng = np.random.default_rng(4)
    policy = GaussianPolicy(2, (4,), "tanh")
    params = policy.init(jax.random.key(0), jnp.zeros(2, jnp.float64))
    params = jax.tree.map(lambda x: x.astype(jnp.float64) + 0.2 * rng.normal(size=x.shape), params)

    def batch(*leading):
        plain = random_batch(rng, *leading, discrete=False)
        now = policy.apply(params, plain.obs)
        acted = DiagonalGaussian(now.mean + 0.2 * rng.normal(size=now.mean.shape), 0.1 + 0 * now.mean)
        returns = jnp.asarray(rng.normal(size=leading))
        return plain._replace(acted=acted, log_prob=acted.log_prob(plain.action), episode_return=returns)

    data = MetaBatch(batch(TASKS, STEPS), batch(TASKS))

    def predict(params, batch):
        adapted, path = adaptation_path(partial(inner_loss, policy, naive), params, batch.inner, 0.1)
        return Predicted(policy.apply(adapted, batch.outer.obs), jax.vmap(policy.apply)(path, batch.inner.obs))

    return policy, params, predict, data


def density_ratio(new, old, action):
    """π_new(a|s) / π_old(a|s) of Gaussians, written out."""
    log = lambda p: jnp.sum(-0.5 * ((action - p.mean) / jnp.exp(p.log_std)) ** 2 - p.log_std, axis=-1)
    return jnp.exp(log(new) - log(old))


def divergence_by_hand(old, new):
    """KL(old ‖ new) of Gaussians, written out."""
    variance, wanted = jnp.exp(2 * old.log_std), jnp.exp(2 * new.log_std)
    each = 0.5 * (variance / wanted + (old.mean - new.mean) ** 2 / wanted - 1) + new.log_std - old.log_std
    return jnp.sum(each, axis=-1)


def exploring_by_hand(path, inner, credit):
    """−Σ_k mean(π_θ_k / π_old,k) R' of one task."""
    return -credit * sum(
        jnp.sum(inner.weight[k] * density_ratio(path[k], row(inner.acted, k), inner.action[k])) for k in range(STEPS)
    )


def row(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


@pytest.mark.parametrize("outer", ["ppo", "adam"])
def test_outer_losses_are_the_stated_sums(float64, outer):
    """The gradient of clipped ratios, KL penalty and exploration term: the mean over tasks, each written out."""
    policy, params, predict, data = outer_problem()
    config = Config(outer=outer, kl_weight=0.7, clip=0.1, credit_exploration=True)
    gradient, metrics = quick_jit(meta_gradient(config, predict, 1))(params, data)
    returns = np.asarray(data.outer.episode_return)
    credit = (returns - returns.mean()) / returns.std()

    def task(params, inner, last, credit):
        path, theta = [], params
        for k in range(STEPS):
            path.append(policy.apply(theta, inner.obs[k]))
            slope = jax.grad(partial(inner_loss, policy, naive))(theta, row(inner, k))
            theta = jax.tree.map(lambda p, g: p - 0.1 * g, theta, slope)
        after = policy.apply(theta, last.obs)
        old = last.acted if outer == "ppo" else jax.lax.stop_gradient(after)
        ratio, A = density_ratio(after, old, last.action), last.advantage
        if outer == "ppo":
            total = -jnp.sum(last.weight * jnp.minimum(ratio * A, jnp.clip(ratio, 0.9, 1.1) * A))
            for k in range(STEPS):
                total += 0.7 * jnp.sum(inner.weight[k] * divergence_by_hand(row(inner.acted, k), path[k]))
        else:
            total = -jnp.sum(last.weight * ratio * A)
        return total + exploring_by_hand(path, inner, credit)

    mean = lambda params: jnp.mean(jax.vmap(task, (None, 0, 0, 0))(params, data.inner, data.outer, credit))
    assert_close(gradient, quick_jit(jax.grad(mean))(params), 1e-6)
    np.testing.assert_allclose(metrics["return"], returns.mean())
    np.testing.assert_allclose(metrics["return_before"], data.inner.episode_return[:, 0].mean())


def test_the_loss_and_divergence_of_a_trust_region_step_by_hand(float64):
    """Means over the tasks, of predictions near those of the parameters; and the settings."""
    _, params, predict, data = outer_problem()
    config = Config(credit_exploration=True, max_kl=0.02, cg_iterations=7, cg_damping=0.03, line_search_shrink=0.6)
    old = jax.vmap(partial(predict, params))(data)
    nearby = DiagonalGaussian(old.after.mean + 0.1, old.after.log_std - 0.2)
    new = old._replace(after=nearby, before=jax.tree.map(lambda x: x + 0.05, old.before))
    returns = np.asarray(data.outer.episode_return)
    credit = (returns - returns.mean()) / returns.std()
    loss = kl = 0.0
    for i in range(TASKS):
        before, after, last = row(old.after, i), row(new.after, i), row(data.outer, i)
        loss -= jnp.sum(last.weight * density_ratio(after, before, last.action) * last.advantage) / TASKS
        path = [row(row(new.before, i), k) for k in range(STEPS)]
        loss += exploring_by_hand(path, row(data.inner, i), credit[i]) / TASKS
        kl += jnp.sum(last.weight * divergence_by_hand(before, after)) / TASKS
    found = trust_region_loss(config, data, credits(data.outer), old, new), trust_region_divergence(data, old, new)
    np.testing.assert_allclose(found, [loss, kl], rtol=1e-6)
    settings = {"max_divergence": 0.02, "cg_iterations": 7, "damping": 0.03, "shrink": 0.6, "max_backtracks": 15}
    assert trust_region_settings(config) == settings


def test_a_trust_region_update_is_the_step_on_that_loss(float64):
    _, params, predict, data = outer_problem()
    config = Config(credit_exploration=True, max_kl=0.02, cg_iterations=7, cg_damping=0.03, line_search_shrink=0.6)
    after, _, metrics = quick_jit(lambda params: trust_region_update(config, predict, 1)(params, (), data))(params)
    old, new = (jax.vmap(partial(predict, theta))(data) for theta in (params, after))
    loss = partial(trust_region_loss, config, data, credits(data.outer), old)
    np.testing.assert_allclose(metrics["improvement"], loss(old) - loss(new), rtol=1e-6)
    np.testing.assert_allclose(metrics["kl"], trust_region_divergence(data, old, new), rtol=1e-6)
    assert 0.01 < float(metrics["kl"]) <= 0.02


def test_epochs_descend_from_where_the_last_one_ended(float64):
    *_, data = outer_problem()
    update = epochs_update(Config(outer_epochs=3), optax.sgd(0.1), lambda params, data: (2 * params, {}))
    after, _, metrics = update(jnp.array([1.0, -2.0]), optax.sgd(0.1).init(jnp.zeros(2)), data)
    np.testing.assert_allclose(after, 0.8**3 * np.array([1.0, -2.0]))
    np.testing.assert_allclose(metrics["grad_norm"], 2 * 5**0.5)


# --- acting and adapting, by hand --------------------------------------------------------------------------------

TINY = {
    "meta_batch_size": 2,
    "episodes_per_task": 3,
    "horizon": 6,
    "hidden": (4,),
    "activation": "tanh",
    "outer": "sgd",
}
TINY |= {
    "inner_steps": 2,
    "outer_learning_rate": 1.0,
    "eval_tasks": 2,
    "eval_episodes": 3,
    "eval_inner_steps": 3,
    "inner_learning_rate": 0.8,
}


@pytest.fixture(scope="module")
def by_hand(navigation):
    """The algorithm, its first state, and (params, task, key, rates) -> returns and batches before each adaptation step
    and after the last; `rates` holds a rate for each step."""
    env, tasks = navigation
    algorithm = make(Config(**TINY, eval_inner_rate_decay=0.25), env, tasks)
    policy = GaussianPolicy(2, (4,), "tanh")

    @quick_jit
    def once(params, task, key, rate):
        t = play_episodes(env, algorithm.agent, task, params, key, episodes=3, horizon=6)
        batch = policy_batch(t, lambda obs: obs, 0.99, 1.0)
        slope = jax.grad(lambda params: inner_loss(policy, naive, params, batch))(params)
        return jax.tree.map(lambda p, g: p - rate * g, params, slope), batch

    def adapted(params, task, key, rates):
        batches = []
        for key, rate in zip(jax.random.split(key, len(rates) + 1), [*rates, 0.0]):  # noqa: B020
            params, batch = once(params, task, key, rate)
            batches.append(batch)
        return [float(batch.episode_return) for batch in batches], batches

    state = quick_jit(algorithm.init)(jax.random.key(0))
    return tasks, algorithm, policy, state, adapted


def test_adaptation_at_test_time_by_hand(by_hand):
    """α in the first step and a quarter of it in the others; tasks and episodes are drawn with the key."""
    tasks, algorithm, _, state, adapted = by_hand
    evaluate = quick_jit(algorithm.evaluate)
    found = np.asarray(evaluate(state, jax.random.key(5))["return"].values)
    key_tasks, key_adapt = jax.random.split(jax.random.key(5))
    test, expected = tasks.test_batch(2, key_tasks), []
    for i, key in enumerate(jax.random.split(key_adapt, 2)):
        expected.append(adapted(state.params, row(test, i), key, [0.8, 0.2, 0.2])[0])
    assert_close(found, expected, 1e-3)
    others = np.asarray(evaluate(state, jax.random.key(6))["return"].values)
    assert (found[:, 1:] != others[:, 1:]).all()


def test_an_iteration_by_hand(by_hand):
    """Both steps use α; SGD with a rate of 1 subtracts the gradient of the mean loss through both."""
    tasks, algorithm, policy, state, adapted = by_hand
    after, metrics = quick_jit(algorithm.step)(state)
    loss = partial(inner_loss, policy, naive)

    def of_task(params, one, two, last):
        for batch in (one, two):
            params = jax.tree.map(lambda p, g: p - 0.8 * g, params, jax.grad(loss)(params, batch))
        log_prob = policy.apply(params, last.obs).log_prob(last.action)
        return -jnp.sum(last.weight * jnp.exp(log_prob - jax.lax.stop_gradient(log_prob)) * last.advantage)

    slope, gradient, returns = quick_jit(jax.grad(of_task)), jax.tree.map(jnp.zeros_like, state.params), []
    for key in state.world:
        _, key_task, key_adapt = jax.random.split(key, 3)
        found, batches = adapted(state.params, tasks.sample(key_task), key_adapt, [0.8, 0.8])
        returns.append(found)
        gradient = jax.tree.map(lambda total, g: total + g / 2, gradient, slope(state.params, *batches))
    np.testing.assert_allclose(metrics["return_before"], np.mean(returns, axis=0)[0], rtol=1e-4)
    np.testing.assert_allclose(metrics["return"], np.mean(returns, axis=0)[2], rtol=1e-3)
    moved = jax.tree.map(lambda a, b: a - b, state.params, after.params)
    assert_close(moved, gradient, 2e-3, scale=max(np.abs(g).max() for g in jax.tree.leaves(gradient)))
    # keys differ from task to task and from iteration to iteration
    used = np.concatenate([jax.random.key_data(s.world) for s in (state, after)])
    assert len(np.unique(used, axis=0)) == 4


# --- the algorithm -----------------------------------------------------------------------------------------------


def test_trpo_improves_within_its_bound(tiny_maml):
    state, metrics = quick_jit(tiny_maml.step)(quick_jit(tiny_maml.init)(jax.random.key(0)))
    assert int(state.iteration) == 1
    assert bool(metrics["accepted"])
    assert float(metrics["improvement"]) > 0
    assert 0 < float(metrics["kl"]) <= 0.01
    assert all(v.shape == () for v in metrics.values())


def test_evaluation_has_named_axes_and_starts_at_the_origin(tiny_maml):
    measured = quick_jit(tiny_maml.evaluate)(tiny_maml.init(jax.random.key(0)), jax.random.key(1))
    assert measured["return"].axes == ("task", "adaptation_step")
    assert measured["return"].values.shape == (4, 3)
    assert measured["path"].axes == ("task", "adaptation_step", "time", "observation")
    assert measured["path"].values.shape == (4, 3, 21, 2)
    np.testing.assert_array_equal(measured["path"].values[:, :, 0], 0.0)


@pytest.mark.parametrize(
    "settings", [{"outer": "adam"}, {"inner_steps": 0}, {"inner_steps": 2, "remat": True}, {"fisher_episodes": 1}]
)
def test_variants_run(settings):
    sizes = {"meta_batch_size": 2, "episodes_per_task": 2, "horizon": 8, "hidden": (8,)}
    algorithm = jaxrl_hier.make("maml", **sizes, **settings)
    _, metrics = quick_jit(algorithm.step)(quick_jit(algorithm.init)(jax.random.key(0)))
    assert ("return_before" in metrics) == (settings.get("inner_steps", 1) > 0)
    assert all(bool(jnp.isfinite(v)) for v in metrics.values())
    assert algorithm.env_steps == 2 * 2 * 8 * (settings.get("inner_steps", 1) + 1)


@pytest.mark.parametrize("outer", ["trpo", "adam"])
def test_chunks_of_tasks_change_nothing(navigation, outer):
    sizes = {
        "meta_batch_size": 6,
        "episodes_per_task": 2,
        "horizon": 10,
        "hidden": (8,),
        "cg_iterations": 3,
        "outer": outer,
    }
    after = {}
    for chunk in (6, 1, 4):  # 4 does not divide 6
        algorithm = make(Config(**sizes, task_chunk=chunk), *navigation)
        after[chunk] = quick_jit(algorithm.step)(quick_jit(algorithm.init)(jax.random.key(0)))[0].params
    for chunk in (1, 4):
        assert_close(after[chunk], after[6], 1e-4)


def test_discrete_actions_and_gymnax_environments():
    algorithm = jaxrl_hier.make(
        "maml", env="CartPole-v1", meta_batch_size=2, episodes_per_task=2, horizon=16, hidden=(8,)
    )
    _, metrics = quick_jit(algorithm.step)(quick_jit(algorithm.init)(jax.random.key(0)))
    assert 8 <= float(metrics["return"]) <= 16


@pytest.mark.parametrize("outer", [pytest.param("trpo", marks=pytest.mark.rounding), "sgd"])
def test_numbers_that_are_only_multiplied_can_be_swept_by_vmap(navigation, outer):
    env, tasks = navigation
    sizes = {
        "meta_batch_size": 2,
        "episodes_per_task": 2,
        "horizon": 8,
        "hidden": (8,),
        "cg_iterations": 3,
        "outer": outer,
    }
    state = make(Config(**sizes), env, tasks).init(jax.random.key(0))

    def one(inner_learning_rate, max_kl):
        return (
            make(Config(**sizes, inner_learning_rate=inner_learning_rate, max_kl=max_kl), env, tasks)
            .step(state)[0]
            .params
        )

    swept = jax.jit(jax.vmap(one))(jnp.array([0.1, 0.5]), jnp.array([0.01, 0.002]))
    for i, (inner_learning_rate, max_kl) in enumerate([(0.1, 0.01), (0.5, 0.002)]):
        single = jax.jit(one)(inner_learning_rate, max_kl)
        assert_close(jax.tree.map(lambda x, i=i: x[i], swept), single)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"meta_batch_size": 0}, "meta_batch_size must be positive, got 0"),
        ({"episodes_per_task": -1}, "episodes_per_task must be positive"),
        ({"inner_steps": -1}, "inner_steps must be at least 0"),
        ({"discount": 1.5}, r"discount must lie in \[0, 1\], got 1.5"),
        ({"outer": "lbfgs"}, "outer must be one of trpo, ppo, adam, sgd, got 'lbfgs'"),
        ({"estimator": "dicee"}, "estimator must be one of naive, lvc, dice, loaded-dice, got 'dicee'"),
        ({"estimator": "dice", "gae_lambda": 0.9}, "dice needs gae_lambda = 1, got 0.9"),
        ({"credit_exploration": True, "inner_steps": 0}, "inner_steps must be positive"),
        ({"reptile": True}, "outer must be adam or sgd"),
        ({"reptile": True, "outer": "sgd", "head_only": True}, "head_only must be off and context_parameters 0"),
        ({"head_only": True, "context_parameters": 2}, "choose one"),
        (
            {"fisher_episodes": 21, "episodes_per_task": 20},
            r"fisher_episodes must be at most episodes_per_task \(20\), got 21",
        ),
        ({"fisher_episodes": 0}, "fisher_episodes must be positive, got 0"),
        (
            {"microbatch_size": 10, "credit_exploration": True, "outer": "adam"},
            "microbatch_size must be none with credit_exploration",
        ),
        ({"microbatch_size": 5}, "microbatch_size needs outer adam, sgd or ppo; trpo uses all trajectories at once"),
        (
            {"microbatch_size": 3, "meta_batch_size": 20, "outer": "adam"},
            r"meta_batch_size must be a multiple of microbatch_size \(3\), got 20",
        ),
        ({"activation": "gelu"}, "activation must be one of relu"),
        ({"hidden": (4, 0)}, "hidden layers must have positive sizes"),
        ({"eval_tasks": 41}, "41 test tasks were asked for and the task distribution holds 40"),
        ({"inner_learning_rat": 1}, "unknown setting of maml 'inner_learning_rat'; nearest: inner_learning_rate"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(jaxrl_hier.UsageError, match=message):
        jaxrl_hier.make("maml", **settings)


def test_published_values_belong_to_their_setting():
    assert published(Config(), "navigation2d").text(2) == "-3.33 ± 0.55"
    assert published(Config(inner_steps=0), "navigation2d").text(1) == "-19.73"
    assert published(Config(context_parameters=5), "navigation2d").text(1) == "-13.90"
    assert published(Config(context_parameters=5, inner_steps=0), "navigation2d") is None
    assert published(Config(), "CartPole-v1") is None
    for switch in ({"first_order": True}, {"reptile": True}, {"head_only": True}, {"outer": "adam"}):
        assert published(Config(**switch), "navigation2d") is None
