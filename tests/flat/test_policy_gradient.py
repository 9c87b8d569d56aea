"""REINFORCE, A2C, TRPO and PPO: gradients against the exact objective, whole updates by hand, and exact optima."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrl_hier
from jaxrl_envs.tasks import single
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.types import Transition
from jaxrl_hier.exact import tabular
from jaxrl_hier.flat.policy_gradient import (
    ActorCritic,
    Batch,
    Config,
    Learner,
    Networks,
    batch_of,
    make,
    policy_loss,
    trust_region_update,
    update,
)
from jaxrl_hier.learning.distributions import Categorical, DiagonalGaussian
from jaxrl_hier.learning.normalization import Statistics
from jaxrl_hier.learning.optimization import apart
from tests.close import assert_close
from tests.compiling import optimised_jit, quick_jit
from tests.probes import Corridor

GAMMA = 0.9
LEARNERS = ("a2c", "trpo", "ppo")


# The policy gradient, on a process of three states and two actions


S, A = 3, 2
TABLE = Networks(None, policy=lambda logits, state: Categorical(logits[state]), value=lambda table, state: table[state])


def process():
    """P, R, the distribution of initial states and logits [S, A]."""
    rng = np.random.default_rng(0)
    return (
        rng.dirichlet(np.ones(S), (S, A)),
        rng.normal(size=(S, A)),
        rng.dirichlet(np.ones(S)),
        rng.normal(size=(S, A)),
    )


def objective(logits):
    """The exact discounted return of the policy with these logits."""
    P, R, start, _ = process()
    return start @ tabular.policy_evaluation(jnp.asarray(P), jnp.asarray(R), jax.nn.softmax(logits), GAMMA)


def expected_batch(logits):
    """All pairs (s, a), once each. Advantages are exact and multiplied by the discounted visits to (s, a), so that a
    sum over the rows is an expectation over steps."""
    P, R, start, _ = process()
    policy = np.asarray(jax.nn.softmax(logits))
    visits = np.linalg.solve(np.eye(S) - GAMMA * np.einsum("sa,sat->ts", policy, P), start)
    values = np.asarray(tabular.policy_evaluation(jnp.asarray(P), jnp.asarray(R), jnp.asarray(policy), GAMMA))
    advantage = R + GAMMA * np.einsum("sat,t->sa", P, values) - values[:, None]
    state, action = (x.ravel() for x in np.indices((S, A)))
    weighted = (visits[:, None] * policy * advantage).ravel()
    log_prob = np.log(policy).ravel()
    return Batch(*map(jnp.asarray, (state, action, log_prob, weighted, np.zeros(S * A))))


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_expected_gradient_is_that_of_the_exact_objective(learner):
    """At π = π_old the three losses have one gradient; with exact advantages it is the policy gradient theorem's."""
    with jax.enable_x64(True):
        logits = process()[3]
        batch, config = expected_batch(logits), Config(learner=learner)
        gradient = jax.grad(lambda x: policy_loss(config, TABLE.policy(x, batch.obs), batch))(jnp.asarray(logits))
        exact = np.zeros((S, A))
        for place in np.ndindex(S, A):
            bump = np.zeros((S, A))
            bump[place] = 1e-5
            exact[place] = (objective(logits + bump) - objective(logits - bump)) / 2e-5
        assert np.abs(exact).max() > 0.1
        assert_close(-S * A * gradient, exact, 1e-8)


def test_the_entropy_bonus_raises_the_entropy_and_nothing_else():
    with jax.enable_x64(True):
        logits = jnp.asarray(process()[3])
        batch = expected_batch(logits)
        of = lambda weight: lambda x: policy_loss(Config(entropy_weight=weight), TABLE.policy(x, batch.obs), batch)
        entropy = lambda x: jnp.mean(TABLE.policy(x, batch.obs).entropy())
        difference = jax.grad(of(0.3))(logits) - jax.grad(of(0.0))(logits)
        assert_close(difference, -0.3 * jax.grad(entropy)(logits), 1e-10)


def test_a_trust_region_step_stays_within_its_bound_and_improves_the_exact_objective():
    with jax.enable_x64(True):
        logits = jnp.asarray(process()[3])
        batch = expected_batch(logits)
        for bound in (1e-4, 1e-2):
            config = Config(learner="trpo", max_kl=bound, cg_damping=0.0)
            new, told = trust_region_update(config, TABLE, logits, batch)
            kl = jnp.mean(TABLE.policy(logits, batch.obs).kl(TABLE.policy(new, batch.obs)))
            assert 0.5 * bound < kl <= bound  # a step of the bound's size, not any that satisfies it
            assert_close(told["kl"], kl)
            before, after = (policy_loss(config, TABLE.policy(x, batch.obs), batch) for x in (logits, new))
            assert after < before
            assert objective(new) > objective(logits)


# Whole updates, by hand


T, B, F = 6, 4, 3


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def small(policy):
    """Networks with one hidden layer, and weights for them."""
    net = Networks(
        None,
        policy=lambda w, obs: policy(jnp.tanh(obs @ w["in"]) @ w["out"]),
        value=lambda w, obs: (jnp.tanh(obs @ w["in"]) @ w["out"])[..., 0],
    )
    weights = lambda seed, size: {"in": draw(seed, F, 5), "out": draw(seed + 1, 5, size)}
    return net, ActorCritic(weights(10, 2), weights(20, 1))


def transitions(gaussian):
    """A rollout in which episodes end in both ways."""
    ends = np.random.default_rng(3).choice(3, (T, B), p=[0.6, 0.2, 0.2])
    action = draw(4, T, B, 2) if gaussian else jnp.asarray(np.random.default_rng(4).integers(2, size=(T, B)))
    terminated, truncated = jnp.asarray(ends == 1), jnp.asarray(ends == 2)
    return Transition(draw(5, T, B, F), action, draw(6, T, B), terminated, truncated, draw(7, T, B, F), ends < 0, ())


def slow_advantages(net, params, t, lam):
    """A_t by a backward loop over each environment."""
    value, after = net.value(params.value, t.obs), net.value(params.value, t.next_obs)
    advantage = np.zeros((T, B))
    for b in range(B):
        following = 0.0
        for i in reversed(range(T)):
            over = t.terminated[i, b] or t.truncated[i, b]
            error = t.reward[i, b] + GAMMA * (0.0 if t.terminated[i, b] else after[i, b]) - value[i, b]
            following = error + (0.0 if over else GAMMA * lam * following)
            advantage[i, b] = following
    return advantage, np.asarray(value)


def gradients(net, params, t, scores, target):
    """Minus the mean over steps of `scores` [T, B] times ∇ log π, and the gradient of the value's loss."""
    of_policy = lambda w: -jnp.mean(scores * net.policy(w, t.obs).log_prob(t.action))
    of_value = lambda w: 0.5 * jnp.mean((net.value(w, t.obs) - target) ** 2)
    return ActorCritic(jax.grad(of_policy)(params.policy), jax.grad(of_value)(params.value))


def updated(config, net, params, t, rate=0.1):
    """The parameters after an update by gradient descent with this rate."""
    optimizer = optax.sgd(rate)
    optimizer = optimizer if config.learner == "trpo" else apart(optimizer)
    state = optimizer.init(params.value if config.learner == "trpo" else params)
    learner = Learner(state, jnp.zeros((), jnp.int32), ())
    step = partial(update, config, net, optimizer, lambda iteration: 1.0)
    return quick_jit(step)(params, learner, None, t, jax.random.key(0))


SETTINGS = {"discount": GAMMA, "gae_lambda": 0.7, "epochs": 1, "minibatch_size": T * B}


@pytest.mark.parametrize("gaussian", [False, True])
def test_an_update_of_a2c_is_a_step_along_the_sum_of_its_terms(gaussian):
    with jax.enable_x64(True):
        net, params = small(lambda x: DiagonalGaussian(x, jnp.asarray([0.1, -0.3])) if gaussian else Categorical(x))
        t = transitions(gaussian)
        assert t.terminated.any()
        assert t.truncated.any()
        advantage, value = slow_advantages(net, params, t, 0.7)
        expected = gradients(net, params, t, advantage, advantage + value)
        after, learner, metrics = updated(Config(learner="a2c", **SETTINGS), net, params, t)
        assert_close(jax.tree.map(lambda old, new: 10 * (old - new), params, after), expected, 1e-8)
        assert learner.iteration == 1
        assert_close(metrics["value_loss"], 0.5 * np.mean(advantage**2), 1e-8)


def test_the_first_step_of_ppo_is_that_of_a2c_with_standardised_advantages_and_the_second_is_clipped():
    with jax.enable_x64(True):
        net, params = small(Categorical)
        t = transitions(False)
        advantage, value = slow_advantages(net, params, t, 0.7)
        scores = (advantage - advantage.mean()) / advantage.std()
        log_prob = lambda w: net.policy(w, t.obs).log_prob(t.action)
        rate, now = 2.0, params
        descend = lambda w, gradient: jax.tree.map(lambda x, g: x - rate * g, w, gradient)
        kept = np.ones((T, B))
        for epochs in (1, 2):
            ratio = jnp.exp(log_prob(now.policy) - log_prob(params.policy))
            kept = ~np.where(scores > 0, ratio > 1.2, ratio < 0.8)  # the others' loss is constant
            now = descend(now, gradients(net, now, t, kept * ratio * scores, advantage + value))
            after, _, _ = updated(Config(**SETTINGS | {"epochs": epochs}), net, params, t, rate)
            assert_close(after, now, 1e-7)
        assert 0 < kept.mean() < 1


def test_trpo_fits_the_value_and_moves_the_policy_within_its_bound():
    with jax.enable_x64(True):
        net, params = small(Categorical)
        t, config = transitions(False), Config(learner="trpo", **SETTINGS)
        advantage, value = slow_advantages(net, params, t, 0.7)
        expected = gradients(net, params, t, advantage, advantage + value).value
        after, _, metrics = updated(config, net, params, t)
        assert_close(jax.tree.map(lambda old, new: 10 * (old - new), params.value, after.value), expected, 1e-8)
        kl = jnp.mean(net.policy(params.policy, t.obs).kl(net.policy(after.policy, t.obs)))
        assert 0.5 * config.max_kl < kl <= config.max_kl
        assert metrics["accepted"] == 1
        batch = batch_of(config, net, params, t)
        loss = lambda w: policy_loss(config, net.policy(w, t.obs), batch)
        assert loss(after.policy) < loss(params.policy)


def test_minibatches_hold_each_step_once_an_epoch():
    """A loss that is linear in the parameter: each epoch moves it by the sum of its minibatches' mean targets."""
    with jax.enable_x64(True):
        net = Networks(
            None, policy=lambda w, obs: Categorical(0 * w + obs[..., :2]), value=lambda w, obs: w * obs[..., 0]
        )
        t = transitions(False)
        params = ActorCritic(jnp.zeros(()), jnp.zeros(()))
        rate = 1e-6  # so small that all steps are taken at the old parameters
        settings = SETTINGS | {"minibatch_size": 6, "epochs": 3}
        after, _, _ = updated(Config(**settings), net, params, t, rate)
        advantage, _ = slow_advantages(net, params, t, 0.7)
        expected = 3 * (T * B / 6) * np.mean(np.asarray(t.obs[..., 0]) * advantage)
        assert_close(after.value / rate, expected, 1e-4)


def test_each_network_has_its_own_bound_on_the_gradient():
    rule = apart(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0)))
    params = ActorCritic(jnp.zeros(2), jnp.zeros(2))
    gradient = ActorCritic(jnp.array([0.3, 0.4]), jnp.array([30.0, 40.0]))
    step, _ = rule.update(gradient, rule.init(params), params)
    assert_close(step, ActorCritic(jnp.array([-0.3, -0.4]), jnp.array([-0.6, -0.8])))


# Rewards that are normalised


def test_rewards_are_divided_by_the_deviation_of_discounted_returns():
    """Over two rollouts in which episodes go on and end, as a loop over single steps has it."""
    env = Corridor()
    tasks = single(env.default_params)
    config = Config(environments=4, rollout_length=20, minibatch_size=80, hidden=(), normalize_rewards=True)
    algorithm = make(config, env, tasks)
    state, total, returns = jax.jit(algorithm.init)(jax.random.key(0)), np.zeros(4), []
    step = quick_jit(algorithm.step)
    play = quick_jit(lambda state: rollout(env, algorithm.agent, tasks, state.params, state.world, 20)[1])
    for _ in range(2):
        t = play(state)
        for reward, over in zip(t.reward, t.terminated | t.truncated):
            total = config.discount * total + reward
            returns.append(total)
            total = np.where(over, 0, total)
        state, _ = step(state)
        found = state.learner.rewards
        assert_close([found.steps, found.mean, found.variance], [len(returns) * 4, np.mean(returns), np.var(returns)])
    assert t.terminated.any()
    plain = make(replace(config, normalize_rewards=False), env, tasks)
    measured = [quick_jit(a.evaluate)(state, jax.random.key(1))["return"].values for a in (algorithm, plain)]
    np.testing.assert_array_equal(*measured)


def test_a_learner_sees_the_scaled_rewards():
    """Ten times the reward is nothing new to it."""
    net, params = small(Categorical)
    optimizer = apart(optax.sgd(0.1))
    config = Config(learner="a2c", normalize_rewards=True, **SETTINGS)
    learner = Learner(optimizer.init(params), jnp.zeros((), jnp.int32), Statistics.none(()))
    step = quick_jit(partial(update, config, net, optimizer, lambda iteration: 1.0))
    t = transitions(False)._replace(extras=draw(8, T, B))
    times = lambda x: t._replace(reward=x * t.reward, extras=x * t.extras)
    one, ten = (step(params, learner, None, times(x), jax.random.key(0))[0] for x in (1.0, 10.0))
    assert_close(one, ten, 1e-4)
    other = updated(Config(learner="a2c", **SETTINGS), net, params, t)[0]
    assert np.abs(other.value["out"] - one.value["out"]).max() > 1e-3


# What is learned


@pytest.mark.parametrize("name", ["reinforce", "a2c", "trpo", "ppo"])
def test_a_table_converges_to_the_exact_optimum(name):
    env = Corridor()
    P, R = env.model(env.default_params)
    settings = {"hidden": (), "environments": 16, "rollout_length": 30, "minibatch_size": 120, "discount": GAMMA}
    settings |= {"normalize_rewards": False}
    algorithm = jaxrl_hier.make(name, env, single(env.default_params), learning_rate=0.1, **settings)

    @optimised_jit
    def learn(key):
        state = jax.lax.fori_loop(0, 500, lambda _, state: algorithm.step(state)[0], algorithm.init(key))
        layer = state.params.policy["params"]["MLP_0"]["Dense_0"]
        return jax.nn.softmax(layer["kernel"] + layer["bias"])  # [S, A], of one-hot states

    policy = learn(jax.random.key(0)).astype(P.dtype)
    best = tabular.value_iteration(P, R, GAMMA)
    found = tabular.policy_evaluation(P, R, policy, GAMMA)
    uniform = tabular.policy_evaluation(P, R, jnp.full_like(policy, 0.5), GAMMA)
    assert np.max(best - found) < 0.02 < 0.2 < np.max(best - uniform)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"environments": 10, "rollout_length": 3, "minibatch_size": 4},
            r"environments times rollout_length \(10 × 3\) must be a multiple of minibatch_size \(4\)",
        ),
        ({"learner": "reinforce"}, "learner must be one of a2c, trpo, ppo, got 'reinforce'"),
        ({"max_kl": 0.0}, "max_kl must be positive"),
        ({"gae_lambda": 1.5}, r"gae_lambda must lie in \[0, 1\]"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    env = Corridor()
    with pytest.raises(UsageError, match=message):
        make(Config(**settings), env, single(env.default_params))
