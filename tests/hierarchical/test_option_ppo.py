"""PPO over options: gradients against the exact objective, advantages against a loop, one option against flat PPO."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrl_envs
from jaxrl_envs.memory_tasks import TMaze
from jaxrl_envs.tasks import single
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.types import ActInput, Transition
from jaxrl_hier.exact import tabular
from jaxrl_hier.flat import policy_gradient
from jaxrl_hier.flat.policy_gradient import ActorCritic, Learner
from jaxrl_hier.hierarchical.option_ppo import (
    Batch,
    Carry,
    Config,
    Heads,
    Networks,
    batch_of,
    high_policy,
    loss,
    losses,
    make,
    update,
)
from jaxrl_hier.hierarchical.usage import Executed
from jaxrl_hier.learning.distributions import Categorical, DiagonalGaussian
from jaxrl_hier.learning.normalization import Statistics
from jaxrl_hier.learning.optimization import apart
from tests.close import assert_close
from tests.compiling import optimised_jit, quick_jit
from tests.probes import Corridor

GAMMA = 0.9
S, O, A = 3, 2, 2
ROOMS = "four-rooms-option-critic"


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# The exact objective of a process of three states, two options and two actions


def process():
    """P, R, the distribution of initial states, and logits: of actions [S, O, A], options and terminations [S, O]."""
    rng = np.random.default_rng(0)
    tables = rng.normal(size=(S, O, A)), rng.normal(size=(S, O)), rng.normal(size=(S, O))
    return rng.dirichlet(np.ones(S), (S, A)), rng.normal(size=(S, A)), rng.dirichlet(np.ones(S)), tables


def switches(options, stop):
    """π^H(o | o', s) [O', S, O], as its definition says it."""
    beta, fresh = sigmoid(stop).T[..., None], softmax(options)[None]
    return (1 - beta) * np.eye(O)[:, None] + beta * fresh


def solved(tables):
    """The chain of pairs (s, o) that act, v^L [S, O], and the return from the start."""
    P, R, start, _ = process()
    actions, options, stop = tables
    policy, high = softmax(actions), switches(options, stop)
    chain = np.einsum("soa,sat,otp->sotp", policy, P, high).reshape(S * O, S * O)
    values = np.linalg.solve(np.eye(S * O) - GAMMA * chain, np.einsum("soa,sa->so", policy, R).ravel()).reshape(S, O)
    return chain, values, start @ np.sum(softmax(options) * values, axis=1)


def finite_differences(f, tables):
    found = [np.zeros_like(x) for x in tables]
    for i, table in enumerate(tables):
        for place in np.ndindex(table.shape):
            ends = []
            for bump in (1e-5, -1e-5):
                moved = [x.copy() for x in tables]
                moved[i][place] += bump
                ends.append(f(moved))
            found[i][place] = (ends[0] - ends[1]) / 2e-5
    return found


def heads_at(tables, state):
    actions, options, stop = tables
    return Heads(Categorical(actions[state]), options[state], stop[state])


def enumerated(first, previous, state, option, action, low_advantage, high_advantage, tables):
    """A batch of given steps and advantages, at ratio 1."""
    nothing = jnp.zeros(len(state))
    batch = Batch(state, action, first, option, previous, nothing, nothing, low_advantage, high_advantage, nothing)
    batch = jax.tree.map(jnp.asarray, batch)
    heads = heads_at(tables, state)
    low = heads.actions.log_prob(jnp.broadcast_to(batch.action[:, None], (len(state), O)))
    high = high_policy(heads, batch.previous, batch.first).log_prob(batch.option)
    return batch._replace(low_log_prob=low[jnp.arange(len(state)), option], high_log_prob=high)


def term(names, batch, config):
    """Tables -> the sum of these terms of the loss."""

    def total(tables):
        terms = losses(config, heads_at(tables, batch.obs), jnp.zeros((len(batch.obs), O)), batch)
        return sum(terms[name] for name in names)

    return total


def test_expected_gradients_are_those_of_the_exact_objective():
    """All pairs of a step and what led to it, with exact advantages, weighted by their discounted visits."""
    P, R, start, tables = process()
    chain, values, _ = solved(tables)
    policy, fresh, high = softmax(tables[0]), softmax(tables[1]), switches(*tables[1:])
    visits = np.linalg.solve(np.eye(S * O) - GAMMA * chain.T, (start[:, None] * fresh).ravel()).reshape(S, O)
    arrivals = GAMMA * np.einsum("so,soa,sat->ot", visits, policy, P)  # [O', S]
    after = np.sum(high * values, axis=2)  # v^H [O', S]
    inside = R[:, None] + GAMMA * np.einsum("sat,ot->soa", P, after)  # of an action, [S, O, A]
    steps = np.indices((2, O, S, O, A)).reshape(5, -1)
    first, previous, state, option, action = steps
    begins = start[state] * (previous == 0) * fresh[state, option]  # what led there is arbitrary, and counts once
    goes_on = arrivals[previous, state] * high[previous, state, option]
    weight = np.where(first, begins, goes_on) * policy[state, option, action]
    low = inside[state, option, action] - values[state, option]
    led = np.where(first, np.sum(fresh * values, axis=1)[state], after[previous, state])
    with jax.enable_x64(True):
        rows = first == 1, previous, state, option, action
        batch = enumerated(*rows, weight * low, weight * (values[state, option] - led), tables)
        gradient = jax.grad(term(("low", "high"), batch, Config(num_options=O)))(tables)
        exact = finite_differences(lambda tables: solved(tables)[2], tables)
        for found, wanted in zip(gradient, exact):
            assert np.abs(wanted).max() > 0.01
            assert_close(-len(state) * found, wanted, 1e-7)


def test_a_termination_is_charged_for_itself():
    """High loss and cost descend what choosing is worth less ξ β, wherever an option may have led."""
    tables, values = process()[3], np.random.default_rng(1).normal(size=(S, O))
    cost = 0.7
    worth = lambda tables: np.mean(np.sum(switches(*tables[1:]) * values, axis=2) - cost * sigmoid(tables[2]).T)
    high = switches(*tables[1:])
    previous, state, option = np.indices((O, S, O)).reshape(3, -1)
    advantage = values[state, option] - np.sum(high * values, axis=2)[previous, state]
    config = Config(num_options=O, deliberation_cost=cost)
    with jax.enable_x64(True):
        rows = np.zeros(len(state), bool), previous, state, option, 0 * state
        scores = O * high[previous, state, option] * advantage
        batch = enumerated(*rows, 0 * advantage, scores, tables)
        gradient = jax.grad(term(("low", "high", "deliberation"), batch, config))(tables)
        for found, wanted in zip(gradient, finite_differences(worth, tables)):
            assert_close(-found, wanted, 1e-8)
        charged = jax.grad(term(("deliberation",), batch, config))(tables)[2]
        assert (charged > 0).all()  # descent keeps options going
        after_the_first = batch._replace(previous=jnp.zeros_like(batch.previous))
        charged = jax.grad(term(("deliberation",), after_the_first, config))(tables)[2]
        assert (charged[:, 0] > 0).all()
        assert not charged[:, 1:].any()  # whichever options act
        everything_first = batch._replace(first=jnp.ones_like(batch.first))
        assert not jax.grad(term(("deliberation",), everything_first, config))(tables)[2].any()


# The loss, and what it is computed from


T, B, F = 7, 4, 3


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def small(gaussian=False, options=O):
    """Networks with one hidden layer, and weights for them."""

    def policy(w, obs):
        x = jnp.tanh(obs @ w["in"])
        actions = (x @ w["actions"]).reshape(*obs.shape[:-1], options, A)
        deviations = jnp.broadcast_to(w["log_std"], actions.shape)
        distribution = DiagonalGaussian(actions, deviations) if gaussian else Categorical(actions)
        return Heads(distribution, x @ w["options"], x @ w["stop"])

    net = Networks(None, policy, value=lambda w, obs: jnp.tanh(obs @ w["in"]) @ w["out"])
    heads = {"actions": draw(11, 5, options * A), "options": draw(12, 5, options), "stop": draw(13, 5, options)}
    of_policy = {"in": draw(10, F, 5), "log_std": 0.3 * draw(14, options, A)} | heads
    of_value = {"in": draw(20, F, 5), "out": draw(21, 5, options)}
    return net, jax.tree.map(jnp.asarray, ActorCritic(of_policy, of_value))


def transitions(gaussian=False, options=O):
    """A rollout in which options and episodes end, these in both ways."""
    rng = np.random.default_rng(3)
    ends = rng.choice(3, (T, B), p=[0.6, 0.2, 0.2])
    first = np.concatenate([rng.random((1, B)) < 0.5, ends[:-1] > 0])
    option = rng.integers(options, size=(T, B))
    previous = np.concatenate([rng.integers(options, size=(1, B)), option[:-1]])
    did = Executed(option, previous, first | (option != previous), np.full((T, B), 0.5))
    action = draw(4, T, B, A) if gaussian else rng.integers(A, size=(T, B))
    over = ends == 1, ends == 2
    t = Transition(draw(5, T, B, F), action, draw(6, T, B), *over, draw(7, T, B, F), first, (did, draw(8, T, B)))
    return jax.tree.map(jnp.asarray, t)


def high_by_hand(heads, place, previous, first):
    fresh = softmax(np.asarray(heads.options[place]))
    if first:
        return fresh
    beta = sigmoid(float(heads.stop[(*place, previous)]))
    return np.array([(1 - beta) * (o == previous) + beta * p for o, p in enumerate(fresh)])


def advantages_by_hand(net, params, t, lam):
    """G_t, A^L_t and A^H_t by a backward loop over each environment, not standardised."""
    heads, value = jax.device_get((net.policy(params.policy, t.obs), net.value(params.value, t.obs)))
    after, value_after = jax.device_get((net.policy(params.policy, t.next_obs), net.value(params.value, t.next_obs)))
    did, shape = t.extras[0], t.reward.shape
    low, high, target = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for b in range(B):
        following = 0.0
        for i in reversed(range(T)):
            o, here = int(did.option[i, b]), (i, b)
            ahead = high_by_hand(after, here, o, False) @ value_after[here]
            error = t.reward[here] + GAMMA * (0.0 if t.terminated[here] else ahead) - value[(*here, o)]
            over = t.terminated[here] or t.truncated[here]
            following = error + (0.0 if over else GAMMA * lam * following)
            low[here], target[here] = following, following + value[(*here, o)]
            led = high_by_hand(heads, here, int(did.previous[here]), t.first[here]) @ value[here]
            high[here] = target[here] - led
    return target, low, high


def standard(x):
    return (x - x.mean()) / x.std()


def test_advantages_in_both_processes_are_those_of_a_slow_loop():
    with jax.enable_x64(True):
        net, params = small()
        t = transitions()
        config = Config(num_options=O, discount=GAMMA, gae_lambda=0.7)
        batch = quick_jit(partial(batch_of, config, net))(params, t)
        target, low, high = advantages_by_hand(net, params, t, 0.7)
        assert t.terminated.any()
        assert t.truncated.any()
        assert_close(batch.target, target, 1e-10)
        assert_close(batch.low_advantage, standard(low), 1e-6)  # which adds 1e-8 to the deviation
        assert_close(batch.high_advantage, standard(high), 1e-6)
        assert np.abs(standard(low) - standard(high)).max() > 0.1


@pytest.mark.parametrize("gaussian", [False, True])
def test_the_loss_is_that_of_a_slow_loop_where_ratios_are_clipped(gaussian):
    with jax.enable_x64(True):
        net, params = small(gaussian)
        t = transitions(gaussian)
        config = Config(num_options=O, deliberation_cost=0.3, entropy_weight=0.2, option_entropy_weight=0.4, clip=0.1)
        batch = batch_of(config, net, params, t)
        moved = jax.tree.map(lambda x: x + 0.1 * draw(30, *x.shape), params)
        found, told = quick_jit(partial(loss, config, net))(moved, batch)
        heads, value = jax.device_get((net.policy(moved.policy, t.obs), net.value(moved.value, t.obs)))
        total, clipped, entropies = 0.0, [], []
        for i, b in np.ndindex(T, B):
            here, did = (i, b), t.extras[0]
            o, before, action = int(did.option[here]), int(did.previous[here]), np.asarray(t.action[here])
            high = high_by_hand(heads, here, before, t.first[here])
            if gaussian:
                mean, log_std = heads.actions.mean[here][o], heads.actions.log_std[here][o]
                z = (action - mean) / np.exp(log_std)
                log_prob = np.sum(-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi))
                entropy = np.sum(log_std + 0.5 * np.log(2 * np.pi * np.e))
            else:
                pi = softmax(heads.actions.logits[here][o])
                log_prob, entropy = np.log(pi[action]), -pi @ np.log(pi)
            for new, old, advantage in (
                (log_prob, batch.low_log_prob[here], batch.low_advantage[here]),
                (np.log(high[o]), batch.high_log_prob[here], batch.high_advantage[here]),
            ):
                ratio = np.exp(new - old)
                total -= min(ratio * advantage, np.clip(ratio, 0.9, 1.1) * advantage)
                clipped.append(not 0.9 < ratio < 1.1)
            total += 0.5 * (batch.target[here] - value[here][o]) ** 2
            total += 0.0 if t.first[here] else 0.3 * sigmoid(heads.stop[here][before])
            entropies.append([entropy, -high @ np.log(high)])
            total -= 0.2 * entropies[-1][0] + 0.4 * entropies[-1][1]
        assert 0.1 < np.mean(clipped) < 0.9
        assert_close(found, total / (T * B), 1e-10)
        assert_close([told["policy_entropy"], told["option_entropy"]], np.mean(entropies, axis=0), 1e-10)


MOVES = {  # term -> the parts of the networks that it moves
    "critic": {"value"},
    "low": {"torso", "actions"},
    "low_entropy": {"torso", "actions"},
    "high": {"torso", "options", "terminations"},
    "high_entropy": {"torso", "options", "terminations"},
    "deliberation": {"torso", "terminations"},
}


def test_each_term_moves_its_parameters_and_no_others():
    env, tasks = jaxrl_envs.make("CartPole-v1")
    config = Config(num_options=3, deliberation_cost=0.1, environments=4, rollout_length=8, hidden=(5,))
    algorithm = make(replace(config, minibatch_size=32), env, tasks)
    from jaxrl_hier.hierarchical.option_ppo import networks

    net, state = networks(config, env), algorithm.init(jax.random.key(0))

    @quick_jit
    def slopes(state):
        t = rollout(env, algorithm.agent, tasks, state.params, state.world, 8)[1]
        batch = batch_of(config, net, state.params, t)
        terms = lambda params: losses(
            config, net.policy(params.policy, batch.obs), net.value(params.value, batch.obs), batch
        )
        return jax.jacrev(terms)(state.params)

    for name, slope in slopes(state).items():
        parts = {"value": slope.value, "torso": slope.policy["params"]["MLP_0"]}
        parts |= {head: slope.policy["params"][head] for head in ("actions", "options", "terminations")}
        moved = {part for part, tree in parts.items() if any(np.any(x) for x in jax.tree.leaves(tree))}
        if name in MOVES:
            assert moved == MOVES[name], name


# One option


def flat_of(net):
    """Flat networks with the same parameters as those of one option."""

    def policy(w, obs):
        return jax.tree.map(lambda x: x[..., 0, :], net.policy(w, obs).actions)

    return policy_gradient.Networks(None, policy, value=lambda w, obs: net.value(w, obs)[..., 0])


@pytest.mark.parametrize("gaussian", [False, True])
def test_the_update_of_one_option_is_that_of_ppo(gaussian):
    """Minibatches, epochs, clipping, Adam, scaled rewards and entropy bonus alike, to the last digits of float64."""
    shared = {"discount": GAMMA, "gae_lambda": 0.7, "epochs": 3, "minibatch_size": 14, "entropy_weight": 0.1}
    shared |= {"normalize_rewards": True}
    config = Config(num_options=1, deliberation_cost=0.7, **shared)  # which a single option does not pay
    with jax.enable_x64(True):
        net, params = small(gaussian, options=1)
        t = transitions(gaussian, options=1)
        optimizer = apart(optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.05, eps=1e-5)))
        learner = Learner(optimizer.init(params), jnp.zeros((), jnp.int32), Statistics.none(()))
        share = lambda iteration: 0.8
        key = jax.random.key(0)
        found = quick_jit(partial(update, config, net, optimizer, share))(params, learner, None, t, key)
        flat = partial(policy_gradient.update, policy_gradient.Config(**shared), flat_of(net), optimizer, share)
        wanted = quick_jit(flat)(params, learner, None, t._replace(extras=t.extras[1]), key)
        assert_close(found[0], wanted[0], 1e-12)
        assert_close(found[1].rewards, wanted[1].rewards, 1e-12)
        assert np.abs(found[0].policy["in"] - params.policy["in"]).max() > 0.1
        for name in ("value_loss", "policy_entropy", "kl", "grad_norm"):
            assert_close(found[2][name], wanted[2][name], 1e-12)


def test_one_option_trains_as_ppo_does():
    """Two iterations from the same weights and keys: the same actions, and parameters that differ by rounding."""
    env, tasks = jaxrl_envs.make("CartPole-v1")
    shared = {
        "environments": 8,
        "rollout_length": 16,
        "minibatch_size": 32,
        "hidden": (8, 6),
        "normalize_rewards": True,
    }
    shared |= {"normalize_observations": True}
    flat = policy_gradient.make(policy_gradient.Config(**shared), env, tasks)
    ours = make(Config(num_options=1, **shared), env, tasks)
    state, begun = flat.init(jax.random.key(0)), ours.init(jax.random.key(0))
    layers = dict(state.params.params.policy["params"]["MLP_0"])
    heads = begun.params.params.policy["params"] | {"actions": layers.pop("Dense_2"), "MLP_0": layers}
    networks = ActorCritic({"params": heads}, state.params.params.value)
    begun = replace(begun, params=begun.params._replace(params=networks))

    def two(algorithm):
        return quick_jit(lambda state: jax.lax.fori_loop(0, 2, lambda _, state: algorithm.step(state)[0], state))

    wanted, found = two(flat)(state), two(ours)(begun)
    np.testing.assert_array_equal(found.world.inp.prev_action, wanted.world.inp.prev_action)
    np.testing.assert_array_equal(found.world.ep_length, wanted.world.ep_length)
    layers = dict(found.params.params.policy["params"]["MLP_0"])
    layers["Dense_2"] = found.params.params.policy["params"]["actions"]
    assert_close(layers, wanted.params.params.policy["params"]["MLP_0"], 1e-5)
    assert_close(found.params.params.value, wanted.params.params.value, 1e-5)
    assert_close(found.params.inputs, wanted.params.inputs, 1e-5)


# The agent


def test_acting_draws_options_terminations_and_actions_independently():
    """Frequencies of terminations, options and actions in one state are those of independent draws."""
    env, count, options = TMaze(1, "vector"), 40_000, 3
    config = Config(num_options=options, hidden=(5,))
    algorithm = make(config, env, single(env.default_params))
    rng = np.random.default_rng(1)
    params = algorithm.agent.init(jax.random.key(0))
    params = jax.tree.map(lambda x: x + 0.5 * rng.normal(size=x.shape).astype(np.float32), params)
    obs, _ = env.reset_env(jax.random.key(0), env.default_params)
    layers = params.policy["params"]
    dense = lambda x, layer: x @ layer["kernel"] + layer["bias"]
    x = jnp.tanh(dense(obs, layers["MLP_0"]["Dense_0"]))
    policies = softmax(np.asarray(dense(x, layers["actions"])).reshape(options, 4))
    fresh, beta = softmax(np.asarray(dense(x, layers["options"]))), float(sigmoid(dense(x, layers["terminations"]))[1])

    def act(greedy, first):
        inp = ActInput(obs, jnp.int32(0), jnp.zeros(()), jnp.array(first))
        one = lambda key: algorithm.agent.act(params, Carry(jnp.int32(1), ()), inp, key, greedy)
        keys = jax.random.split(jax.random.key(0), 500 if greedy else count)
        action, carry, (did, _) = quick_jit(jax.vmap(one))(keys)
        np.testing.assert_array_equal(carry.option, did.option)
        assert (did.previous == 1).all()
        assert_close(did.beta, np.full(len(keys), beta))
        return np.asarray(action), np.asarray(did.option), np.asarray(did.chosen)

    expected = np.stack([(1 - beta) * np.eye(options)[1][:, None] * policies, beta * fresh[:, None] * policies])
    action, option, chosen = act(greedy=False, first=False)
    seen = np.bincount((chosen * options + option) * 4 + action, minlength=8 * options) / count
    np.testing.assert_allclose(seen.reshape(2, options, 4), expected, atol=4.5 * 0.5 / count**0.5)
    assert act(greedy=False, first=True)[2].all()
    action, option, chosen = act(greedy=True, first=False)
    assert set(option[chosen]) == {int(fresh.argmax())}
    assert 0 < chosen.mean() < 1
    np.testing.assert_array_equal(action, policies.argmax(axis=1)[option])


def test_options_go_on_until_they_terminate():
    env, tasks = jaxrl_envs.make(ROOMS)
    tasks = tasks._replace(sample=lambda key: env.default_params.replace(max_steps_in_episode=10))
    algorithm = make(Config(num_options=3, environments=16, minibatch_size=64, hidden=(4,)), env, tasks)
    play = quick_jit(lambda state: rollout(env, algorithm.agent, tasks, state.params, state.world, 32)[1])
    t = jax.device_get(play(algorithm.init(jax.random.key(0))))
    did = t.extras[0]
    assert (did.previous[1:] == np.where(t.first[1:], 0, did.option[:-1])).all()
    assert did.chosen[t.first].all()
    assert (did.option == did.previous)[~did.chosen].all()
    assert len(np.unique(did.option)) == 3


@pytest.mark.thorough
def test_a_table_converges_to_the_exact_optimum():
    env = Corridor()
    P, R = env.model(env.default_params)
    config = Config(num_options=3, hidden=(), environments=16, rollout_length=30, minibatch_size=120, discount=GAMMA)
    algorithm = make(replace(config, learning_rate=0.1), env, single(env.default_params))

    @optimised_jit
    def learn(key):
        state = jax.lax.fori_loop(0, 500, lambda _, state: algorithm.step(state)[0], algorithm.init(key))
        heads = state.params.policy["params"]
        of = lambda name: heads[name]["kernel"] + heads[name]["bias"]  # of one-hot states
        return of("actions"), of("options"), of("terminations")

    actions, options, stop = (np.asarray(x, np.float64) for x in learn(jax.random.key(0)))
    policy, beta = softmax(actions.reshape(6, 3, 2)), sigmoid(stop)
    fresh = softmax(options)
    # the value of the pairs (s, o): an option goes on or another one is drawn in the state that is entered
    high = (1 - beta.T[..., None]) * np.eye(3)[:, None] + beta.T[..., None] * fresh[None]
    chain = np.einsum("soa,sat,otp->sotp", policy, np.asarray(P), high).reshape(18, 18)
    values = np.linalg.solve(np.eye(18) - GAMMA * chain, np.einsum("soa,sa->so", policy, np.asarray(R)).ravel())
    found = np.sum(fresh * values.reshape(6, 3), axis=1)
    best = np.asarray(tabular.value_iteration(P, R, GAMMA))
    uniform = np.asarray(tabular.policy_evaluation(P, R, jnp.full((6, 2), 0.5), GAMMA))
    assert np.max(best - found) < 0.02 < 0.2 < np.max(best - uniform)


@pytest.mark.parametrize(
    ("settings", "env", "message"),
    [
        ({"num_options": 0}, ROOMS, "num_options must be at least 1, got 0"),
        ({"clip": 0.0}, ROOMS, "clip must be positive, got 0.0"),
        ({"option_entropy_weight": -0.1}, ROOMS, "option_entropy_weight must be at least 0, got -0.1"),
        ({"gae_lambda": 1.5}, ROOMS, r"gae_lambda must lie in \[0, 1\], got 1.5"),
        ({"minibatch_size": 100}, ROOMS, r"\(32 × 64\) must be a multiple of minibatch_size \(100\)"),
        ({"network": "cnn"}, ROOMS, "the observations are Discrete"),
        ({"normalize_observations": True}, ROOMS, "normalize_observations needs observations in a Box"),
    ],
)
def test_bad_input(settings, env, message):
    with pytest.raises(UsageError, match=message):
        make(Config(**settings), *jaxrl_envs.make(env))
