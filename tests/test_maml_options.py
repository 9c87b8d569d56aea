"""MAML over options: the distribution of pairs against its formula, its policy gradient against an exact one, what is
recorded against what happened, and the derivative through the adaptation against finite differences."""

from functools import partial
from itertools import product

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
import jaxrl_hier
from jaxrl_hier import UsageError
from jaxrl_hier.combined import maml_options
from jaxrl_hier.combined.maml_options import Config, PairPolicy
from jaxrl_hier.engine.rollout import play_episodes
from jaxrl_hier.hierarchical.option_ppo import OptionPolicies
from jaxrl_hier.learning.networks import CategoricalPolicy
from jaxrl_hier.meta import maml
from tests.compiling import quick_jit

O, A, F = 3, 2, 4
SMALL = Config(num_options=O, meta_batch_size=2, episodes_per_task=3, horizon=12, hidden=(8,), eval_tasks=2)


def policy(options=O):
    return PairPolicy(OptionPolicies(options, A, True, (8,), "tanh"))


def inputs(features, before, options=O):
    """What the policy sees in a state after an option; `options`: after none."""
    return jnp.concatenate([features, jax.nn.one_hot(before, options + 1)], axis=-1)


def heads_of(params, features):
    """π_o [..., O, A], μ [..., O] and β [..., O], straight from the network."""
    found = OptionPolicies(O, A, True, (8,), "tanh").apply({"params": params["params"]["options"]}, features)
    return jax.nn.softmax(found.actions.logits), jax.nn.softmax(found.options), jax.nn.sigmoid(found.stop)


def by_formula(params, features, before):
    """π(o, a | o', s), [O, A]."""
    low, fresh, stop = heads_of(params, features)
    goes_on = 0.0 if before == O else (1 - stop[before]) * (jnp.arange(O) == before)
    high = goes_on + (1.0 if before == O else stop[before]) * fresh
    return high[:, None] * low


@pytest.fixture(scope="module")
def params():
    return policy().init(jax.random.key(1), inputs(jnp.zeros(F), 0))


def test_pairs_are_an_option_by_call_and_return_and_its_action(params):
    features = jax.random.normal(jax.random.key(0), (O + 1, F))
    found = policy().apply(params, inputs(features, jnp.arange(O + 1)))
    for before in range(O + 1):
        expected = by_formula(params, features[before], before)
        np.testing.assert_allclose(expected.sum(), 1, rtol=1e-6)
        np.testing.assert_allclose(jax.nn.softmax(found.logits[before]), expected.ravel(), rtol=1e-5)


def test_one_option_is_a_flat_policy():
    """Whatever ran before, and with the same gradient for the layers that both have."""
    features, action = jax.random.normal(jax.random.key(0), (5, F)), jnp.array([0, 1, 1, 0, 1])
    own = policy(1).init(jax.random.key(1), inputs(features, jnp.zeros(5, int), 1))
    layers = own["params"]["options"]
    flat = {"params": {"MLP_0": {"Dense_0": layers["MLP_0"]["Dense_0"], "Dense_1": layers["actions"]}}}

    def of_pairs(params):
        return policy(1).apply(params, inputs(features, jnp.array([0, 1, 0, 1, 0]), 1)).log_prob(action)

    def of_actions(params):
        return CategoricalPolicy(A, (8,), "tanh").apply(params, features).log_prob(action)

    np.testing.assert_allclose(of_pairs(own), of_actions(flat), rtol=1e-5)
    gradient = jax.grad(lambda params: of_pairs(params).sum())(own)["params"]["options"]
    expected = jax.grad(lambda params: of_actions(params).sum())(flat)["params"]["MLP_0"]
    np.testing.assert_allclose(gradient["actions"]["kernel"], expected["Dense_1"]["kernel"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        gradient["MLP_0"]["Dense_0"]["kernel"], expected["Dense_0"]["kernel"], rtol=1e-5, atol=1e-6
    )
    assert not np.any(gradient["options"]["kernel"])
    assert np.abs(gradient["terminations"]["kernel"]).max() < 1e-6


PAYS, LEADS = np.array([[0.3, 1.0], [0.7, 0.0]]), np.array([[0, 1], [1, 0]])  # [S, A] of a process of two states


def test_the_policy_gradient_of_pairs_is_that_of_the_return(params):
    """Three steps: the sum over all 6³ sequences of pairs of P R ∇ log P, against the derivative of the exact return,
    which dynamic programming over states and options computes from the formula."""
    features = jax.random.normal(jax.random.key(5), (2, F))
    pairs = np.array(list(product(range(O * A), repeat=3)))
    states, before = np.zeros_like(pairs), np.full_like(pairs, O)
    for t in (1, 2):
        states[:, t] = LEADS[states[:, t - 1], pairs[:, t - 1] % A]
        before[:, t] = pairs[:, t - 1] // A
    earned = PAYS[states, pairs % A].sum(axis=1)

    def surrogate(params):
        log_prob = policy().apply(params, inputs(features[states], before)).log_prob(pairs).sum(axis=1)
        return jnp.sum(jax.lax.stop_gradient(jnp.exp(log_prob)) * earned * log_prob)

    def exact(params):
        value = jnp.zeros((2, O))  # of the steps to come, in a state after an option
        for befores in (range(O), range(O), [O]):
            q = PAYS[:, None] + jnp.moveaxis(value[LEADS], 2, 1)  # [S, O, A]
            chosen = [[by_formula(params, features[s], b) for b in befores] for s in range(2)]
            value = jnp.einsum("sboa,soa->sb", jnp.array(chosen), q)
        return value[0, 0]

    found, expected = (jax.flatten_util.ravel_pytree(quick_jit(jax.grad(f))(params))[0] for f in (surrogate, exact))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.fixture(scope="module")
def rooms():
    env, tasks = jaxrl_envs.make("four-rooms-hidden-goal")
    setup = maml_options.setup_of(SMALL, env, tasks)
    return env, tasks, setup, maml_options.make(SMALL, env, tasks)


def test_options_are_recorded_as_they_ran(rooms):
    env, tasks, setup, algorithm = rooms
    task = tasks.sample(jax.random.key(0)).replace(max_steps_in_episode=5)
    start = algorithm.agent.init(jax.random.key(1))
    t = quick_jit(partial(play_episodes, env, algorithm.agent, episodes=4, horizon=12))(task, start, jax.random.key(2))
    option, before = t.extras.pair // 4, t.extras.before
    assert np.array_equal(t.action, t.extras.pair % 4)
    assert np.array_equal(before[1:], jnp.where(t.first[1:], O, option[:-1]))
    assert np.all(before[0] == O)
    told = setup.told(t)
    distribution = setup.policy.apply(start, setup.encode(told.obs))
    np.testing.assert_allclose(distribution.logits, told.extras.logits, atol=1e-5)
    assert np.array_equal(told.action, t.extras.pair)


def test_the_derivative_through_the_adaptation(rooms):
    """Of a weighted sum of the adapted policy's log-probabilities, in double precision, against central differences."""
    _, tasks, setup, algorithm = rooms
    agent, key = algorithm.agent, jax.random.key(3)
    collect = maml.adapt_by_acting(setup, agent, steps=1, episodes=3)
    start = agent.init(jax.random.key(4))
    _, batches = quick_jit(collect)(start, tasks.sample(key), key)
    weights = jax.random.normal(key, batches.outer.weight.shape)
    with jax.enable_x64(True):
        double = lambda x: jnp.asarray(x, jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.asarray(x)
        # goals are seldom reached at first: what is learned from is made up
        inner = batches.inner._replace(advantage=jnp.broadcast_to(weights, batches.inner.advantage.shape))
        stored, params = jax.tree.map(double, (batches._replace(inner=inner), start))
        vector, back = jax.flatten_util.ravel_pytree(params)
        direction = jnp.asarray(np.random.default_rng(0).normal(size=vector.shape))

        @quick_jit
        def outcome(vector):
            predicted = maml.predict(setup, back(vector), stored).after
            return jnp.sum(double(weights) * predicted.log_prob(stored.outer.action))

        slope = jax.jvp(outcome, (vector,), (direction,))[1]
        h = 1e-5
        np.testing.assert_allclose(
            slope, (outcome(vector + h * direction) - outcome(vector - h * direction)) / (2 * h), rtol=1e-6
        )


def test_what_cannot_work_is_said():
    with pytest.raises(UsageError, match=r"^maml-options needs Discrete actions; .* Box actions\. Use maml or mlsh$"):
        jaxrl_hier.make("maml-options", "navigation2d")
    with pytest.raises(UsageError, match="num_options must be positive"):
        jaxrl_hier.make("maml-options", num_options=0)
    with pytest.raises(UsageError, match="context_parameters is for maml"):
        jaxrl_hier.make("maml-options", context_parameters=3)
