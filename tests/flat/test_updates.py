"""Whole updates of DQN, TD3 and SAC in float64: terms by hand, what each term moves, which way, and slow copies.

The networks are small functions whose parameters are arrays, and plain gradient descent with rate 1 stands for Adam:
what an update changes is then minus the gradient that it took.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_hier.flat import dqn, sac, td3
from jaxrl_hier.learning.distributions import DiagonalGaussian
from jaxrl_hier.learning.normalization import Statistics
from jaxrl_hier.learning.off_policy import Step
from tests.close import assert_close
from tests.compiling import quick_jit

N, F, D, A = 16, 3, 2, 4
DESCENT = optax.sgd(1.0)
GAMMA, TAU = 0.9, 0.25
SETTINGS = {"discount": GAMMA, "target_rate": TAU}


def values(weights, inputs, action):
    """Of two critics, [2, N]."""
    hidden = jnp.tanh(jnp.concatenate([inputs, action], axis=-1) @ weights["in"])
    return jnp.einsum("eno,eo->en", hidden, weights["out"]) + weights["bias"][:, None]


def outputs(weights, inputs):
    return jnp.tanh(inputs @ weights["in"]) @ weights["out"]


def gaussian(weights, inputs):
    mean, log_std = jnp.split(outputs(weights, inputs), 2, axis=-1)
    return DiagonalGaussian(mean, log_std - 0.5)


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def critic_weights(seed):
    return {"in": draw(seed, 2, F + D, 5), "out": draw(seed + 1, 2, 5), "bias": jnp.zeros(2)}


def actor_weights(seed, size):
    return {"in": draw(seed, F, 5), "out": 0.7 * draw(seed + 1, 5, size)}


def steps(action):
    """Half of them end the task; inputs of all sizes."""
    ended = jnp.arange(N) % 2 == 0
    return Step(draw(1, N, F), action, draw(3, N), ended, 0.5 + draw(4, N, F))


def difference(before, after):
    return jax.tree.map(jnp.subtract, before, after)


def slope_along(function, where, direction):
    """The derivative of a scalar function at `where`, by central differences, and that direction's squared length."""
    at = lambda h: float(function(jax.tree.map(lambda x, d: x + h * d, where, direction)))
    length = sum(float(jnp.sum(d**2)) for d in jax.tree.leaves(direction))
    return (at(1e-5) - at(-1e-5)) / 2e-5, length


def between(slow, fast):
    return jax.tree.map(lambda x, y: (1 - TAU) * x + TAU * y, slow, fast)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# SAC

SOFT = sac.Model(gaussian, values)
ENTROPY = -1.5


def soft_case(**settings):
    config = sac.Config(**SETTINGS, **settings)
    networks = sac.Networks(actor_weights(10, 2 * D), critic_weights(12), jnp.log(jnp.asarray(0.3)), ())
    learner = sac.Learner(critic_weights(14), DESCENT.init(networks[:3]))
    return config, networks, learner, steps(jnp.tanh(draw(2, N, D)))


def soft_sample(weights, inputs, noise):
    """a and log π(a), by the change of variables."""
    mean, log_std = np.split(np.asarray(outputs(weights, inputs)), 2, axis=-1)
    log_std = log_std - 0.5
    u = mean + np.exp(log_std) * noise
    log_normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    return np.tanh(u), np.sum(log_normal - np.log(1 - np.tanh(u) ** 2), axis=-1)


@pytest.fixture(scope="module")
def soft():
    """The update of SAC as one program, and another without a learned temperature."""
    with jax.enable_x64(True):
        yield {
            learned: quick_jit(partial(sac.update, soft_case(learn_temperature=learned)[0], SOFT, DESCENT))
            for learned in (True, False)
        }


def test_terms_of_sac_by_hand():
    config, networks, learner, t = soft_case()
    key = jax.random.key(3)
    now, then = (np.asarray(jax.random.normal(k, (N, D))) for k in jax.random.split(key))
    of = lambda config: lambda networks: sac.losses(config, SOFT, networks, learner.target_critics, t, ENTROPY, key)
    terms, metrics = quick_jit(of(config))(networks)

    following, log_prob = soft_sample(networks.actor, t.next_inputs, then)
    slow = np.asarray(values(learner.target_critics, t.next_inputs, following))
    y = t.reward + GAMMA * np.where(t.terminated, 0, slow.min(axis=0) - 0.3 * log_prob)
    q = values(networks.critics, t.inputs, t.action)
    action, log_prob = soft_sample(networks.actor, t.inputs, now)
    judged = np.asarray(values(networks.critics, t.inputs, action)).min(axis=0)
    by_hand = {
        "critics": 0.5 * sum(np.mean((y - one) ** 2) for one in q),
        "actor": np.mean(0.3 * log_prob - judged),
        "temperature": -np.log(0.3) * (np.mean(log_prob) + ENTROPY),
    }
    assert_close(terms, by_hand, 1e-8)
    told = {"critic_loss": by_hand["critics"], "entropy": -np.mean(log_prob), "value": np.mean(q), "temperature": 0.3}
    assert_close(metrics, told, 1e-8)
    fixed, _ = jax.eval_shape(of(replace(config, learn_temperature=False)), networks)
    assert fixed.keys() == {"critics", "actor"}


def test_an_update_of_sac_is_the_sum_of_its_terms_each_for_its_own_networks(soft):
    config, networks, learner, t = soft_case()
    key = jax.random.key(3)
    terms = lambda networks: sac.losses(config, SOFT, networks, learner.target_critics, t, ENTROPY, key)[0]
    gradients = quick_jit(jax.jacrev(terms))(networks)
    reach = {"critics": "critics", "actor": "actor", "temperature": "log_alpha"}
    assert gradients.keys() == reach.keys()
    for term, gradient in gradients.items():
        size = lambda name, gradient=gradient: max(jnp.abs(x).max() for x in jax.tree.leaves(getattr(gradient, name)))
        assert {name for name in reach.values() if size(name) > 0} == {reach[term]}
    total = jax.tree.map(lambda *parts: sum(parts), *gradients.values())
    for learned in (True, False):
        after, slow, _ = soft[learned](networks, learner, t, ENTROPY, key)
        expected = total if learned else total._replace(log_alpha=jnp.zeros(()))
        assert_close(difference(networks[:3], after[:3]), expected[:3], 1e-8)
        assert_close(slow.target_critics, between(learner.target_critics, after.critics), 1e-8)


@pytest.mark.parametrize("least", ["first", "second"])
def test_the_actor_of_sac_ascends_the_lesser_value_and_the_entropy(soft, least):
    """Against central differences of E[min Q(s, a) − α log π(a | s)]; either critic may be the lesser."""
    _, networks, learner, t = soft_case()
    bias = jnp.array([-9.0, 0.0] if least == "first" else [0.0, -9.0])
    networks = networks._replace(critics=networks.critics | {"bias": bias})
    key = jax.random.key(3)
    after, _, _ = soft[True](networks, learner, t, ENTROPY, key)
    noise = np.asarray(jax.random.normal(jax.random.split(key)[0], (N, D)))

    def objective(weights):
        action, log_prob = soft_sample(weights, t.inputs, noise)
        of_one = values(networks.critics, t.inputs, action)[0 if least == "first" else 1]
        return np.mean(of_one - 0.3 * log_prob)

    slope, length = slope_along(objective, networks.actor, difference(after.actor, networks.actor))
    assert length > 1e-4
    assert slope == pytest.approx(length, rel=1e-5)


@pytest.mark.parametrize("wanted", [-9.0, 9.0])
def test_the_temperature_of_sac_rises_where_entropy_is_missing(soft, wanted):
    _, networks, learner, t = soft_case()
    after, _, metrics = soft[True](networks, learner, t, wanted, jax.random.key(3))
    step = float(after.log_alpha - networks.log_alpha)
    assert step == pytest.approx(wanted - float(metrics["entropy"]), rel=1e-8)
    assert (step > 0) == (wanted > 0)


def test_the_entropy_that_sac_aims_at():
    assert sac.target_entropy(sac.Config(), 3) == -3
    assert sac.target_entropy(sac.Config(target_entropy=0.5), 3) == 0.5


def test_actions_of_sac_now_and_then_are_drawn_apart():
    """Where both states are the same, actions differ by their draws alone."""
    config, networks, learner, t = soft_case()
    seen = []

    def critics(w, inputs, action):
        seen.append(action)
        return values(w, inputs, action)

    model = SOFT._replace(critics=critics)
    t = t._replace(next_inputs=t.inputs)
    sac.losses(config, model, networks, learner.target_critics, t, ENTROPY, jax.random.key(3))
    then, given, now = seen
    np.testing.assert_array_equal(given, t.action)
    assert (jnp.abs(then - now) > 1e-6).all()


# TD3

CERTAIN = td3.Model(outputs, values)
BOTH = td3.Optimizers(DESCENT, DESCENT)


def certain_case(**settings):
    config = td3.Config(**SETTINGS, **settings)
    networks = td3.Networks(actor_weights(10, D), critic_weights(12), ())
    states = DESCENT.init(networks.actor), DESCENT.init(networks.critics)
    learner = td3.Learner(actor_weights(16, D), critic_weights(14), *states, jnp.zeros((), jnp.int32))
    return config, networks, learner, steps(jnp.tanh(draw(2, N, D)))


def test_target_of_td3_by_hand():
    config, _, learner, t = certain_case(target_noise=0.4, target_noise_clip=0.3)
    key = jax.random.key(5)
    noise = np.clip(0.4 * np.asarray(jax.random.normal(key, (N, D))), -0.3, 0.3)
    assert (np.abs(noise) == 0.3).any()
    following = np.clip(np.tanh(outputs(learner.target_actor, t.next_inputs)) + noise, -1, 1)
    slow = np.asarray(values(learner.target_critics, t.next_inputs, following))
    y = t.reward + GAMMA * np.where(t.terminated, 0, slow.min(axis=0))
    assert_close(td3.target(config, CERTAIN, learner, t, key), y, 1e-8)


@pytest.fixture(scope="module")
def delayed():
    """The update of TD3 with a delay of 3 and a price of outputs, as one program."""
    with jax.enable_x64(True):
        yield quick_jit(partial(td3.update, certain_case(policy_delay=3, action_penalty=0.03)[0], CERTAIN, BOTH))


def test_critics_of_td3_descend_their_squared_errors_and_nothing_else_moves_before_its_time(delayed):
    config, networks, learner, t = certain_case()
    for waited in (0, 1):
        learner = learner._replace(waited=jnp.asarray(waited, jnp.int32))
        after, slow, metrics = delayed(networks, learner, t, jax.random.key(5))
        assert int(slow.waited) == waited + 1
        assert_close((after.actor, slow.target_actor, slow.target_critics), (networks.actor, *learner[:2]), 0)
    y = np.asarray(td3.target(config, CERTAIN, learner, t, jax.random.key(5)))
    error = lambda critics: np.sum(np.mean((np.asarray(values(critics, t.inputs, t.action)) - y) ** 2, axis=1))
    slope, length = slope_along(error, networks.critics, difference(after.critics, networks.critics))
    assert slope == pytest.approx(-length, rel=1e-5)
    assert_close(
        metrics, {"critic_loss": error(networks.critics), "value": jnp.mean(values(networks.critics, *t[:2]))}, 1e-8
    )


def test_the_actor_of_td3_ascends_the_first_critics_value(delayed):
    """Against central differences of E[Q₁(s, π(s))], less the penalty; the second critic wants the opposite."""
    _, networks, learner, t = certain_case()
    first = networks.critics
    networks = networks._replace(critics={"in": first["in"].at[1].set(first["in"][0]), "bias": first["bias"]})
    networks.critics["out"] = first["out"].at[1].set(-9 * first["out"][0])
    learner = learner._replace(waited=jnp.asarray(2, jnp.int32))
    after, slow, _ = delayed(networks, learner, t, jax.random.key(5))

    def objective(actor):  # of the critics after their step
        before_tanh = outputs(actor, t.inputs)
        return np.mean(values(after.critics, t.inputs, jnp.tanh(before_tanh))[0]) - 0.03 * np.mean(before_tanh**2)

    slope, length = slope_along(objective, networks.actor, difference(after.actor, networks.actor))
    assert length > 1e-4
    assert slope == pytest.approx(length, rel=1e-5)
    assert_close(slow.target_actor, between(learner.target_actor, after.actor), 1e-8)
    assert_close(slow.target_critics, between(learner.target_critics, after.critics), 1e-8)
    assert int(slow.waited) == 0


def test_noise_on_td3s_actions():
    """Gaussian about π(s), cut at the bounds; a part of the actions is uniform, whatever the noise would have been."""
    explore = td3.actor_critic(td3.Config(exploration_noise=0.1, random_actions=0.25, hidden=(4,)), 1).explore
    keys = jax.random.split(jax.random.key(0), 40_000)
    noisy = np.asarray(quick_jit(jax.vmap(lambda key: explore(jnp.array([0.2]), key)))(keys))[:, 0]
    assert np.abs(noisy).max() <= 1
    far = np.abs(noisy - 0.2) > 0.5  # five standard deviations: uniform ones alone
    share = far.mean() / 0.25
    assert share == pytest.approx(0.5, abs=0.03)  # [−1, −.3] and [.7, 1] are half of [−1, 1]
    assert (noisy > 0.7).sum() / far.sum() == pytest.approx(0.3, abs=0.03)
    near = noisy[np.abs(noisy - 0.2) < 0.25]
    uniform = 0.25 * 0.25  # share of the uniform ones among all that are as near
    variance = (near.var() * len(near) - uniform * len(noisy) * 0.25**2 / 3) / (len(near) - uniform * len(noisy))
    assert np.sqrt(variance) == pytest.approx(0.0987 * 1.0, abs=0.003)


def test_learning_rates_of_td3s_networks():
    """Adam's first step is as long as its rate."""
    config = td3.Config(hidden=(4,), learning_rate=1e-2, actor_learning_rate=1e-3, policy_delay=1)
    learner, t = td3.actor_critic(config, D), steps(jnp.tanh(draw(2, N, D)))

    @quick_jit
    def once():
        params = learner.init(jax.random.split(jax.random.key(0)), jnp.ones(F))
        return params, learner.update(params, learner.begin(params), t, jax.random.key(1))[0]

    params, after = once()
    longest = lambda x: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(x))
    assert longest(difference(after.critics, params.critics)) == pytest.approx(1e-2, rel=1e-3)
    assert longest(difference(after.actor, params.actor)) == pytest.approx(1e-3, rel=1e-3)


# DQN


def greedy_case():
    config = dqn.Config(**SETTINGS)
    networks = dqn.Networks(actor_weights(20, A), ())
    return config, networks, dqn.Learner(actor_weights(22, A), DESCENT.init(networks.q)), steps(jnp.arange(N) % A)


@pytest.mark.parametrize("double", [False, True], ids=["plain", "double"])
def test_an_update_of_dqn_descends_its_error_with_the_target_held_fixed(double):
    config, networks, learner, t = greedy_case()
    config = replace(config, double=double)
    slow, fast = (np.asarray(outputs(w, t.next_inputs)) for w in (learner.target, networks.q))
    best = slow[np.arange(N), fast.argmax(axis=1)] if double else slow.max(axis=1)
    y = np.asarray(t.reward) + GAMMA * np.where(t.terminated, 0, best)

    def error(weights):
        away = np.abs(np.asarray(outputs(weights, t.inputs))[np.arange(N), np.arange(N) % A] - y)
        return np.mean(np.where(away < 1, 0.5 * away**2, away - 0.5))

    after, late, metrics = quick_jit(partial(dqn.update, config, outputs, DESCENT))(networks, learner, t)
    assert float(metrics["loss"]) == pytest.approx(error(networks.q), rel=1e-8)
    slope, length = slope_along(error, networks.q, difference(after.q, networks.q))
    assert length > 1e-4
    assert slope == pytest.approx(-length, rel=1e-5)
    assert_close(late.target, between(learner.target, after.q), 1e-8)


# Inputs

UPDATES = {  # a case, and the update (config, networks, learner, t)
    "dqn": (greedy_case, lambda config, w, l, t: dqn.update(config, outputs, DESCENT, w, l, t)),
    "sac": (soft_case, lambda config, w, l, t: sac.update(config, SOFT, DESCENT, w, l, t, ENTROPY, jax.random.key(3))),
    "td3": (certain_case, lambda config, w, l, t: td3.update(config, CERTAIN, BOTH, w, l, t, jax.random.key(3))),
}


@pytest.mark.parametrize("algorithm", UPDATES)
def test_both_states_are_scaled_by_the_statistics_with_this_batch_among_them(algorithm):
    """The update is that of inputs which were scaled before, by the statistics of all states s (and of no s')."""
    case, of_config = UPDATES[algorithm]
    config, networks, learner, t = case()
    known = Statistics(jnp.asarray(2.0 * N), draw(30, F), 1.0 + draw(31, F) ** 2)
    mean = known.mean * 2 / 3 + jnp.mean(t.inputs, axis=0) / 3
    square = (known.variance + known.mean**2) * 2 / 3 + jnp.mean(t.inputs**2, axis=0) / 3
    scale = lambda x: jnp.clip((x - mean) / jnp.sqrt(square - mean**2), -5, 5)
    update = quick_jit(partial(of_config, config))
    after, slow, _ = update(networks._replace(inputs=known), learner, t)
    plain, plain_slow, _ = update(
        networks, learner, t._replace(inputs=scale(t.inputs), next_inputs=scale(t.next_inputs))
    )
    assert_close(after.inputs, Statistics(jnp.asarray(3.0 * N), mean, square - mean**2), 1e-8)
    assert_close((after[:-1], slow), (plain[:-1], plain_slow), 1e-8)
