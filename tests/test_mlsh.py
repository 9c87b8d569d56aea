"""MLSH: what each level learns from against a slow decision process over choices, which parameters each phase may move,
one sub-policy against flat PPO, and a master that must find the best of perfect sub-policies."""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from gymnax.environments import environment, spaces

import jaxrl_hier
from jaxrl_envs.tasks import from_batch, single
from jaxrl_hier import UsageError
from jaxrl_hier.combined import mlsh
from jaxrl_hier.combined.mlsh import Config
from jaxrl_hier.engine.adapting import as_agent
from jaxrl_hier.engine.rollout import play_episodes
from jaxrl_hier.flat import policy_gradient
from jaxrl_hier.learning.minibatches import descent, in_minibatches
from jaxrl_hier.learning.optimization import apart, clipped
from jaxrl_hier.testing import assert_equal
from tests.close import assert_close
from tests.compiling import quick_jit
from tests.line import Line
from tests.sizes import SIZES

CELLS, START, LIMIT = 7, 3, 8


@struct.dataclass
class Params(environment.EnvParams):
    goal: jax.Array | np.int32 = struct.field(default_factory=lambda: np.int32(0))
    max_steps_in_episode: int = LIMIT


@struct.dataclass
class State(environment.EnvState):
    cell: jax.Array
    time: jax.Array


class Ends(environment.Environment):
    """Seven cells in a row, from the middle; left, stay and right. The goal, one of the ends, pays 1 and terminates;
    every other step costs 0.1."""

    @property
    def default_params(self):
        return Params()

    def reset_env(self, key, params):
        cell = jnp.full((), START, jnp.int32)
        return cell, State(cell=cell, time=jnp.zeros((), jnp.int32))

    def step_env(self, key, state, action, params):
        cell = jnp.clip(state.cell + action - 1, 0, CELLS - 1)
        there = cell == params.goal
        return cell, State(cell=cell, time=state.time + 1), jnp.where(there, 1.0, -0.1), there, {}

    def action_space(self, params=None):
        return spaces.Discrete(3)

    def observation_space(self, params=None):
        return spaces.Discrete(CELLS)


ENDS = np.array([0, CELLS - 1], np.int32)
SMALL: dict[str, Any] = {
    "num_sub_policies": 3,
    "steps_per_choice": 3,
    "meta_batch_size": 4,
    "episodes_per_task": 8,
    "horizon": 14,
    "warmup_updates": 2,
    "joint_updates": 1,
    "minibatch_size": 56,
    "hidden": (),
    "discount": 0.9,
    "master_discount": 0.7,
    "gae_lambda": 0.8,
    "eval_tasks": 2,
}


def tasks():
    both = Params(goal=ENDS, max_steps_in_episode=np.full(2, LIMIT, np.int32))
    return from_batch(both, both)


@pytest.fixture(scope="module")
def setup():
    return mlsh.setup_of(Config(**SMALL), Ends(), tasks())


def spread(params, key):
    """Other numbers of the size of one in the place of the parameters, biases among them."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)])


def played(setup, key=0):
    """Parameters, and a rollout [T, E, ...] in which they acted."""
    key_params, key_play = jax.random.split(jax.random.key(key))
    params = spread(mlsh.init_params(setup, key_params), key_params)
    agent, config = mlsh.agent_of(setup), setup.config
    sizes = {"episodes": config.episodes_per_task, "horizon": setup.horizon}
    return params, play_episodes(setup.env, agent, setup.env.default_params, params, key_play, **sizes)


@pytest.fixture(scope="module")
def rollout(setup):
    return jax.device_get(quick_jit(partial(played, setup))())


def table(layer):
    """What a network without hidden layers says of each state, [..., S, size] float64."""
    (dense,) = layer["params"]["MLP_0"].values() if "MLP_0" in layer["params"] else layer["params"].values()
    return np.asarray(dense["kernel"] + dense["bias"][..., None, :], np.float64)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


# What each level learns from


def test_choices_last_so_many_steps_or_until_the_episode_ends(rollout):
    _, t = rollout
    first, over, did = np.asarray(t.first), np.asarray(t.terminated | t.truncated), t.extras
    assert t.terminated.any()
    assert t.truncated.any()
    for e in range(first.shape[1]):
        time, running = 0, None
        for i in range(len(first)):
            time = 0 if first[i, e] or time == 3 else time
            assert did.chosen[i, e] == (time == 0)
            running = did.sub_policy[i, e] if time == 0 else running
            assert did.sub_policy[i, e] == running
            time += 1
            assert did.last[i, e] == (time == 3)
            assert not over[i, e] or i + 1 == len(first) or first[i + 1, e]


def test_the_master_learns_a_decision_process_over_choices(setup, rollout):
    """Rewards summed over a choice, γ_θ and λ once for each; a choice that is cut short bootstraps undiscounted."""
    config = setup.config
    params, t = rollout
    batch = quick_jit(partial(mlsh.master_batch, setup))(params, t)
    value = table(params.master.value)[:, 0]
    reward, chosen = np.asarray(t.reward, np.float64), np.asarray(t.extras.chosen)
    expected = np.zeros_like(reward)
    cut = 0
    for e in range(reward.shape[1]):
        begins = [*np.flatnonzero(chosen[:, e]), len(reward)]
        following = 0.0  # the advantage of the next choice of the same episode
        for begin, end in reversed(list(pairwise(begins))):
            last = end - 1
            whole = end - begin == 3
            cut += not whole
            after = 0.0 if t.terminated[last, e] else value[t.next_obs[last, e]]
            discount = config.master_discount if whole else 1.0
            follows = 0.0 if t.terminated[last, e] or t.truncated[last, e] else following
            error = reward[begin:end, e].sum() + discount * after - value[t.obs[begin, e]]
            following = error + config.master_discount * config.gae_lambda * follows
            expected[begin, e] = following
    assert cut > 5
    there = chosen
    assert_close(np.asarray(batch.target)[there], (expected + value[t.obs])[there], 1e-5)
    standard = (expected[there] - expected[there].mean()) / expected[there].std()
    assert_close(np.asarray(batch.advantage)[there], standard, 1e-4)
    log_prob = log_softmax(table(params.master.policy))[t.obs, t.extras.sub_policy]
    assert_close(batch.log_prob, log_prob, 1e-5)
    np.testing.assert_array_equal(batch.own, chosen)
    np.testing.assert_array_equal(batch.action, t.extras.sub_policy)


def test_sub_policies_learn_every_step_and_expect_the_next_choice(setup, rollout):
    config = setup.config
    params, t = rollout
    batch = quick_jit(partial(mlsh.sub_batch, setup))(params, t)
    values, acts = table(params.sub.value)[..., 0], table(params.sub.policy)  # [K, S], [K, S, A]
    choice = np.exp(log_softmax(table(params.master.policy)))  # [S, K]
    for e in range(t.reward.shape[1]):
        following = 0.0
        for i in reversed(range(t.reward.shape[0])):
            k, s, then = (int(x[i, e]) for x in (t.extras.sub_policy, t.obs, t.next_obs))
            after = choice[then] @ values[:, then] if t.extras.last[i, e] else values[k, then]
            error = t.reward[i, e] + config.discount * after * (1 - t.terminated[i, e]) - values[k, s]
            going_on = not (t.terminated[i, e] or t.truncated[i, e])
            following = error + config.discount * config.gae_lambda * going_on * following
            assert batch.advantage[i, e] == pytest.approx(following, abs=1e-4)
            assert batch.target[i, e] == pytest.approx(following + values[k, s], abs=1e-4)
            assert batch.log_prob[i, e] == pytest.approx(log_softmax(acts[k])[s, t.action[i, e]], abs=1e-4)
    np.testing.assert_array_equal(batch.own, t.extras.sub_policy)


# Gradients


def slow_loss(config, weight, logits, value, batch, own):
    """PPO's loss of one policy on its own steps, from tables [S, A] and [S]."""
    s, action = np.asarray(batch.obs)[own], np.asarray(batch.action)[own]
    advantage, old, target = (np.asarray(x, np.float64)[own] for x in (batch.advantage, batch.log_prob, batch.target))
    log_p = log_softmax(logits)[s]
    ratio = np.exp(log_p[np.arange(len(s)), action] - old)
    clipped = np.clip(ratio, 1 - config.clip, 1 + config.clip)
    assert (np.minimum(ratio * advantage, clipped * advantage) < ratio * advantage).any()
    entropy = -(np.exp(log_p) * log_p).sum(axis=1)
    policy = -np.minimum(ratio * advantage, clipped * advantage) - weight * entropy
    return np.mean(policy + 0.5 * (target - value[s]) ** 2)


def finite_differences(f, *tables):
    found = [np.zeros_like(x) for x in tables]
    for i, place in ((i, place) for i, x in enumerate(tables) for place in np.ndindex(x.shape)):
        ends = []
        for bump in (1e-5, -1e-5):
            moved = [x.copy() for x in tables]
            moved[i][place] += bump
            ends.append(f(*moved))
        found[i][place] = (ends[0] - ends[1]) / 2e-5
    return found


def kernels(gradient):
    """Gradients by the kernels of policy and value, [..., S, A] and [..., S]: those by the entries of their tables."""
    (policy,) = gradient.policy["params"]["MLP_0"].values()
    (value,) = gradient.value["params"].values()
    return policy["kernel"], value["kernel"][..., 0]


def test_gradients_of_both_levels_against_finite_differences(setup, rollout):
    """Of the sum of all losses, where ratios are clipped: the policies have moved since they acted."""
    config = setup.config
    weight = config.master_entropy_weight

    @quick_jit
    def found(params, t):
        moved = jax.tree.map(lambda x, d: x + 0.3 * d, params, spread(params, jax.random.key(3)))
        both = mlsh.master_batch(setup, params, t), mlsh.sub_batch(setup, params, t)
        master, sub = jax.tree.map(lambda x: x.reshape(-1), both)
        of_master = jax.grad(partial(mlsh.loss, setup.master, config.clip, weight), has_aux=True)
        of_sub, _, acted = mlsh.sub_gradient(setup, moved.sub, sub)
        return moved, master, sub, kernels(of_master(moved.master, master, master.own)[0]), kernels(of_sub), acted

    moved, master, sub, of_master, of_sub, acted = jax.device_get(found(*rollout))
    expected = finite_differences(
        lambda policy, value: slow_loss(config, weight, policy, value, master, np.asarray(master.own)),
        table(moved.master.policy),
        table(moved.master.value)[:, 0],
    )
    assert_close(of_master, tuple(expected), 1e-3)

    def of_all(policies, values):
        each = zip(range(3), policies, values)
        weight = config.entropy_weight
        return sum(slow_loss(config, weight, p, v, sub, np.asarray(sub.own) == k) for k, p, v in each)

    expected = finite_differences(of_all, table(moved.sub.policy), table(moved.sub.value)[..., 0])
    assert_close(of_sub, tuple(expected), 1e-3)
    np.testing.assert_array_equal(acted, 1.0)


def test_what_other_sub_policies_did_never_overflows(setup, rollout):
    """A step that is all but impossible for the one that acted, and certain for another."""
    params, t = rollout
    zeros = np.zeros(4, np.float32)
    batch = mlsh.Batch(
        np.ravel(t.obs)[:4], np.ravel(t.action)[:4], zeros - 200, zeros + 1, zeros, np.zeros(4, np.int32)
    )
    gradient, metrics, acted = quick_jit(partial(mlsh.sub_gradient, setup))(params.sub, batch)
    others = jax.tree.map(lambda x: x[1:], (gradient, metrics))
    assert_equal(others, jax.tree.map(jnp.zeros_like, others))
    np.testing.assert_array_equal(acted, [1, 0, 0])


def test_gradients_are_averaged_over_the_tasks_in_which_a_sub_policy_acted(setup, rollout):
    setup = setup._replace(sub_rule=optax.sgd(1.0))

    @quick_jit
    def both(sub, t):
        params = mlsh.Policies(setup.master.init(jax.random.key(0)), sub)
        batch = jax.tree.map(lambda x: x.reshape(2, -1).T, mlsh.sub_batch(setup, params, t))  # [n, tasks]
        # the third acts in the second task alone, the second in none
        batch = batch._replace(own=jnp.where(batch.own == 1, 0, batch.own).at[:, 0].set(0))
        each = jax.vmap(lambda batch: mlsh.sub_gradient(setup, sub, batch)[0], 1)(batch)  # [tasks, K, ...]
        state = sub, jax.vmap(setup.sub_rule.init)(sub)
        return mlsh.sub_step(setup, 0.5)(state, batch)[0][0], each

    params, t = rollout
    after, each = both(params.sub, t)
    mean = lambda g: jnp.stack([(g[0, 0] + g[1, 0]) / 2, jnp.zeros_like(g[0, 1]), g[1, 2]])
    assert_close(after, jax.tree.map(lambda p, g: p - 0.5 * mean(g), params.sub, each), 1e-5)


# What each phase may move


def biased(setup, bias):
    """The setup with masters that begin with other biases [K] of their choices."""

    def init(key):
        master = setup.master.init(key)
        (layer,) = master.policy["params"]["MLP_0"].values()
        layer["bias"] = bias
        return master

    return setup._replace(master=setup.master._replace(init=init))


def test_only_the_sub_policies_that_acted_move(setup):
    """Their Adam too, which has moments since all acted."""
    step = quick_jit(lambda state, bias: mlsh.iteration(biased(setup, bias), tasks(), state))
    begun = quick_jit(partial(mlsh.init, setup))(jax.random.key(0))
    all_acted, metrics = step(begun, jnp.zeros(3))
    assert all(not np.array_equal(x[k], y[k]) for x, y in pairs(begun, all_acted) for k in range(3))
    after, _ = step(all_acted, jnp.array([0.0, 1e4, 0.0]))  # whatever masters learn, they choose the second
    for x, y in pairs(all_acted, after):
        assert not np.array_equal(x[1], y[1])
        np.testing.assert_array_equal(x[jnp.array([0, 2])], y[jnp.array([0, 2])])
    assert_equal(after.params.master, begun.params.master)
    assert np.isfinite(metrics["return_before"])


def pairs(before, after):
    parts = [jax.tree.leaves((state.params.sub, state.learner)) for state in (before, after)]
    return zip(*parts)


def test_nothing_but_their_own_update_moves_sub_policies(setup, monkeypatch):
    """Without it an iteration, warm-up and updates of masters included, leaves all that is kept as it is, bit for
    bit."""
    monkeypatch.setattr(mlsh, "in_minibatches", lambda step, state, batch, key, **sizes: (state, {}))

    @quick_jit
    def run(key):
        state = mlsh.init(setup, key)
        return state, mlsh.iteration(setup, tasks(), state)[0]

    before, after = run(jax.random.key(0))
    assert_equal(after.params, before.params)
    assert_equal(after.learner, before.learner)


def test_every_task_has_a_new_master(setup):
    """Nothing of it is known from tasks before: neither parameters nor moments. The warm-up then moves all of it."""
    none = setup._replace(config=Config(**SMALL | {"warmup_updates": 0}))
    player = mlsh.player_of(setup)

    @quick_jit
    def begun(key):
        params = mlsh.init_params(setup, key)
        learned = jax.tree.map(lambda x: x + 1, params)
        subs = jax.tree.map(lambda x, y: jnp.stack([x, x, y]), params.sub, learned.sub)
        keys = jax.random.split(key)[jnp.array([0, 1, 0])]
        begin = lambda setup: jax.vmap(lambda sub, key: mlsh.begin_tasks(setup, tasks(), sub, key)[2])(subs, keys)
        return begin(none), begin(setup).master, player.new_task(learned, key)[0]

    found, warm, played = begun(jax.random.key(0))
    for x, y, z in zip(*map(jax.tree.leaves, (found.master, played.master, warm))):
        np.testing.assert_array_equal(x[0], x[2])
        assert len({str(new) for new in (x[0], x[1], y)}) == (3 if np.any(x) else 1)  # biases are zero
        assert not np.array_equal(x[0], z[0])
    assert not any(np.any(x) for x in jax.tree.leaves((found.optimizer, played.optimizer)))


# One sub-policy


@pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
def test_one_sub_policy_chosen_at_every_step_learns_as_ppo(discrete):
    env = Line(discrete)
    sizes: dict[str, Any] = {"hidden": (4,), "epochs": 2, "minibatch_size": 20, "clip": 0.1, "entropy_weight": 0.05}
    config = Config(num_sub_policies=1, steps_per_choice=1, episodes_per_task=8, horizon=5, **sizes)
    setup = mlsh.setup_of(config, env, single(env.default_params))
    flat = policy_gradient.Config(environments=8, rollout_length=5, **sizes)
    net, rule = policy_gradient.networks(flat, env), apart(clipped(flat, optax.adam(flat.learning_rate, eps=1e-5)))
    key = jax.random.key(5)

    @quick_jit
    def both():
        params, t = played(setup)
        # rewards that differ
        t = t._replace(reward=jax.random.normal(key, t.reward.shape))
        one = jax.tree.map(lambda x: x[0], params.sub)
        batch = policy_gradient.batch_of(flat, net, one, t)
        shuffled = {"key": key, "epochs": 2, "size": 20}
        step = descent(partial(policy_gradient.loss, flat, net), rule, 0.7)
        expected, told = in_minibatches(step, (one, rule.init(one)), batch, **shuffled)
        ours = mlsh.sub_batch(setup, params, t)
        ours = ours._replace(advantage=mlsh.standardize(ours.advantage, jnp.ones_like(ours.advantage)))
        ours = jax.tree.map(lambda x: x[:, :, None], ours)
        state = params.sub, jax.vmap(setup.sub_rule.init)(params.sub)
        found, metrics = in_minibatches(mlsh.sub_step(setup, 0.7), state, ours, **shuffled)
        return expected, told, jax.tree.map(lambda x: x[0], found), metrics

    expected, told, found, metrics = both()
    assert_close(found[0], expected[0], 1e-5)
    assert_close(jax.tree.leaves(found[1]), jax.tree.leaves(expected[1]), 1e-4)
    assert_close(metrics, told, 1e-4, scale=1e-2)


def test_pictures_go_through_convolutions():
    algorithm = jaxrl_hier.make("mlsh", "Breakout-MinAtar", **SIZES["mlsh"], network="cnn", channels=(3, 5))
    params = jax.eval_shape(algorithm.agent.init, jax.random.key(0))
    for level, networks in (((), params.master), ((2,), params.sub)):
        shapes = [x.shape for x in jax.tree.leaves(networks)]
        assert shapes.count((*level, 36, 3)) == shapes.count((*level, 27, 5)) == 2  # of the policy and of the value
    jax.eval_shape(algorithm.step, jax.eval_shape(algorithm.init, jax.random.key(0)))


# A master that learns


def perfect(setup, key):
    """Sub-policies that go left, stay and go right."""
    params = mlsh.init_params(setup, key)
    (layer,) = params.sub.policy["params"]["MLP_0"].values()
    layer["kernel"], layer["bias"] = jnp.zeros_like(layer["kernel"]), 50.0 * jnp.eye(3)
    return params


def test_a_master_finds_the_best_sub_policy_of_each_task():
    """The goal is three steps away, as long as a choice lasts: the best return is 1 − 2 · 0.1, a wrong first choice
    costs at least 0.3 more."""
    sizes = {"horizon": LIMIT, "minibatch_size": 64, "episodes_per_task": 32}
    config = Config(**SMALL | sizes | {"master_learning_rate": 0.05, "eval_updates": 15})
    env = Ends()
    algorithm = mlsh.make(config, env, tasks())
    setup = mlsh.setup_of(config, env, tasks())
    best = 1 - 2 * 0.1

    @quick_jit
    def run(key):
        params = perfect(setup, key)
        state = algorithm.init(key)
        measured = algorithm.evaluate(mlsh.replace(state, params=params), key)

        def adapted(goal, key):
            task = Params(goal=goal)
            known = algorithm.adapt(params, task, key)
            agent = as_agent(algorithm.player, known)
            t = play_episodes(env, agent, task, params, key, episodes=1, horizon=LIMIT, greedy=True)
            choice = setup.master.policy(known.memory.master.policy, jnp.int32(START))
            return t.extras.sub_policy[0, 0], jnp.sum(t.reward[:3]), t.terminated[2, 0], jax.nn.softmax(choice.logits)

        return measured, jax.vmap(adapted)(jnp.asarray(ENDS), jax.random.split(key))

    measured, (chosen, returns, there, choice) = run(jax.random.key(0))
    np.testing.assert_array_equal(chosen, [0, 2])
    assert_close(returns, np.full(2, best), 1e-6)
    assert there.all()
    assert (np.asarray(choice)[[0, 1], [0, 2]] > 0.9).all()
    assert measured["return"].axes == ("task", "adaptation_step")
    assert measured["return"].values.shape == (2, 16)
    assert np.all(measured["return"].values[:, 0] < 0.4)
    assert np.all(measured["return"].values[:, -1] > 0.72)
    assert np.all(measured["return"].values <= best + 1e-6)
    np.testing.assert_array_equal(measured["experience_steps"].values[0], 32 * LIMIT * np.arange(16))
    np.testing.assert_array_equal(measured["complete"].values, 1.0)


# Settings


def test_settings_that_cannot_work():
    for settings, message in (
        ({"num_sub_policies": 0}, "num_sub_policies must be positive, got 0"),
        ({"minibatch_size": 50}, r"\(8 × 14\) must be a multiple of minibatch_size \(50\)"),
        ({"eval_tasks": 3}, "3 test tasks were asked for and the task distribution holds 2"),
        ({"master_discount": 1.5}, r"master_discount must lie in \[0, 1\]"),
    ):
        with pytest.raises(UsageError, match=message):
            mlsh.make(Config(**SMALL | settings), Ends(), tasks())
