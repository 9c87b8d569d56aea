"""FuN: the dilated LSTM, gradients, rewards and masks against slow loops, and invariance to the unroll length."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl_envs
from jaxrl_envs.memory_tasks import TMaze
from jaxrl_envs.tasks import single
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.types import Agent, Transition
from jaxrl_hier.hierarchical.fun import (
    Acted,
    Config,
    Seen,
    act,
    advantages,
    init_params,
    intrinsic_reward,
    losses,
    make,
    network_of,
    start,
    time_in_episode,
    unroll,
)
from jaxrl_hier.learning import dilated_lstm
from jaxrl_hier.learning.distributions import Categorical
from jaxrl_hier.learning.recurrent import lstm
from jaxrl_hier.learning.vectors import cosine
from tests.close import assert_close
from tests.compiling import quick_jit
from tests.probes import Corridor, CorridorParams

B, D, A = 3, 5, 4


def unit(x):
    return x / max(np.linalg.norm(x), 1e-6)


def cos(x, y):
    return float(unit(np.asarray(x, float)) @ unit(np.asarray(y, float)))


def episode_starts(rng, length, batch=B, probability=0.2):
    """Random episode ages before the first row [B], first steps [T, B] and times in the episode [T, B], by a loop."""
    age = rng.integers(0, 6, batch)
    first = rng.random((length, batch)) < probability
    age = np.where(first[0], 0, np.maximum(age, 1))
    time = np.zeros((length, batch), int)
    for b in range(batch):
        steps = age[b] - 1
        for t in range(length):
            steps = 0 if first[t, b] else steps + 1
            time[t, b] = steps
    return age, first, time


def test_time_in_episode_against_a_loop():
    for seed in range(5):
        age, first, time = episode_starts(np.random.default_rng(seed), 12)
        np.testing.assert_array_equal(time_in_episode(jnp.asarray(age), jnp.asarray(first)), time)


# The dilated LSTM


@pytest.mark.parametrize("r", [1, 2, 3])
def test_dilated_lstm_is_r_interleaved_lstms(r):
    """Core i is an LSTM that sees every r-th input; the output is the sum of the cores' last outputs."""
    rng, memory, length = np.random.default_rng(r), lstm(D), 12
    params = memory.init(jax.random.key(0), D)
    s = jnp.asarray(rng.normal(size=(length, B, D)), jnp.float32)
    cores = jax.tree.map(lambda x: jnp.zeros((B, r, D)), memory.start())
    time = jnp.broadcast_to(jnp.arange(length)[:, None], (length, B))
    got = dilated_lstm.unroll(params, cores, s, time)

    outputs = []  # of each core by itself, over its inputs
    for i in range(r):
        carry, said = jax.tree.map(lambda x: jnp.zeros((B, D)), memory.start()), []
        for x in s[i::r]:
            carry, h = memory.step(params, carry, x)
            said.append(h)
        outputs.append(said)
    for t in range(length):
        latest = [outputs[i][(t - i) // r] for i in range(r) if t >= i]
        assert_close(got[t], sum(latest))


dilated_unroll = jax.jit(dilated_lstm.unroll)
dilated_step = jax.jit(jax.vmap(dilated_lstm.step, (None, 0, 0)))


@pytest.mark.parametrize("r", [1, 3])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), probability=st.sampled_from([0.0, 0.2, 0.6, 1.0]))
def test_dilated_unroll_is_the_steps_one_by_one_across_episodes(r, seed, probability):
    rng, memory, length = np.random.default_rng(seed), lstm(D), 18
    params = memory.init(jax.random.key(0), D)
    s = jnp.asarray(rng.normal(size=(length, B, D)), jnp.float32)
    age, first, time = episode_starts(rng, length, probability=probability)
    known = np.arange(r)[None] >= r - age[:, None]  # of an episode younger than r, the earlier cores are empty
    cores = jax.tree.map(lambda _: jnp.float32(rng.normal(size=(B, r, D)) * known[..., None]), memory.start())
    got = dilated_unroll(params, cores, s, time)
    for t in range(length):
        cores = jax.tree.map(lambda x: np.where(first[t][:, None, None], 0.0, x), cores)  # noqa: B023
        cores, output = dilated_step(params, cores, s[t])
        assert_close(got[t], output)


# Rewards, advantages and losses, against slow loops


def slow_intrinsic(space, goal, time, c, relative):
    T, B = time.shape
    out = np.zeros((T, B))
    for t in range(T):
        for b in range(B):
            for i in range(1, c + 1):
                if i <= time[t, b] and t - i >= 0:
                    moved = space[t, b] - space[t - i, b] if relative else space[t, b]
                    out[t, b] += cos(moved, goal[t - i, b]) / c
    return out


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("c", [1, 4])
def test_intrinsic_reward_against_a_loop(c, relative):
    rng = np.random.default_rng(c)
    _, _, time = episode_starts(rng, 15)
    space, goal = rng.normal(size=(2, 15, B, D))
    space[5] = space[4]  # who stands still goes nowhere
    got = intrinsic_reward(jnp.asarray(space), jnp.asarray(goal), jnp.asarray(time), c, relative)
    assert_close(got, slow_intrinsic(space, goal, time, c, relative))


def random_window(config, seed=0, batch=B):
    """Random network outputs, transitions and times of a window, with terminations and truncations."""
    rng = np.random.default_rng(seed)
    waited = -(-config.goal_horizon // config.dilation) * config.dilation
    W, T = waited + config.rollout_length, config.rollout_length
    age = rng.integers(1, 6, batch)
    end = rng.choice(3, (W, batch), p=[0.84, 0.08, 0.08])
    first = np.concatenate([np.zeros((1, batch), bool), end[:-1] > 0])
    time = np.asarray(time_in_episode(jnp.asarray(age), jnp.asarray(first)))
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape))
    seen = Seen(
        space=normal(W, batch, D),
        goal=normal(W, batch, D),
        manager_value=normal(W, batch),
        policy=Categorical(normal(T, batch, A)),
        worker_value=normal(T, batch),
    )
    t = Transition(
        obs=jnp.zeros((W, batch)),
        action=jnp.asarray(rng.integers(A, size=(W, batch))),
        reward=normal(W, batch),
        terminated=jnp.asarray(end == 1),
        truncated=jnp.asarray(end == 2),
        next_obs=jnp.zeros((W, batch)),
        first=jnp.asarray(first),
        extras=Acted(goal=normal(W, batch, D)),
    )
    return seen, t, jnp.asarray(time)


def slow_advantage(reward, value, terminated, truncated, discount, trace):
    """λ-returns minus values by a backward loop; 0 with weight 0 where the next value is unknown."""
    T, B = reward.shape
    A, weight = np.zeros((T, B)), np.ones((T, B))
    for b in range(B):
        following = 0.0
        for t in reversed(range(T)):
            if truncated[t, b] or (t == T - 1 and not terminated[t, b]):
                following, weight[t, b] = 0.0, 0.0
            elif terminated[t, b]:
                following = reward[t, b] - value[t, b]
            else:
                following = reward[t, b] + discount * value[t + 1, b] - value[t, b] + discount * trace * following
            A[t, b] = following
    return A, weight


def test_advantages_against_a_loop_and_as_returns():
    seen, t, _ = random_window(Config(rollout_length=30, dilation=3, goal_horizon=3))
    arguments = (
        np.asarray(t.reward),
        np.asarray(seen.manager_value),
        np.asarray(t.terminated),
        np.asarray(t.truncated),
    )
    for trace in (0.0, 0.7, 1.0):
        got, weight = advantages(t.reward, seen.manager_value, t, 0.9, trace)
        slow, slow_weight = slow_advantage(*arguments, 0.9, trace)
        assert_close(got, slow)
        np.testing.assert_array_equal(weight, slow_weight)
    # λ = 1, nothing ends: A + V is the discounted sum of what follows, and the last value
    open_end = t._replace(terminated=jnp.zeros_like(t.terminated), truncated=jnp.zeros_like(t.truncated))
    got, _ = advantages(t.reward, seen.manager_value, open_end, 0.9, 1.0)
    powers = 0.9 ** np.arange(len(t.reward) - 1)
    expected = powers @ np.asarray(t.reward[:-1]) + 0.9 ** len(powers) * np.asarray(seen.manager_value[-1])
    assert_close((got + seen.manager_value)[0], expected)


WINDOWS = [
    Config(rollout_length=12, goal_horizon=3, dilation=3, manager_discount=0.95, worker_discount=0.9, gae_lambda=0.8),
    Config(
        rollout_length=12,
        goal_horizon=4,
        dilation=3,
        directional_goals=False,
        extrinsic_weight=0.0,
        intrinsic_weight=0.7,
    ),  # more wait than c
    Config(rollout_length=12, goal_horizon=1, dilation=3),
]


@pytest.mark.parametrize("config", WINDOWS)
def test_losses_against_a_loop(config):
    """The manager's pairs (t, t + c) lie in one episode, with t from c steps before the new steps to c before their
    end."""
    with jax.enable_x64(True):
        seen, t, time = random_window(config)
        got = losses(seen, t, time, config)
        c, T, W = config.goal_horizon, config.rollout_length, len(t.reward)
        space, goal, manager_value = (np.asarray(x) for x in (seen.space, seen.goal, seen.manager_value))
        ends = np.asarray(t.terminated | t.truncated)
        advantage, weight = slow_advantage(
            np.asarray(t.reward),
            manager_value,
            np.asarray(t.terminated),
            np.asarray(t.truncated),
            config.manager_discount,
            config.gae_lambda,
        )
        manager = critic = 0.0
        for b in range(B):
            for i in range(W - T - c, W - c):
                critic += 0.5 * weight[i, b] * advantage[i, b] ** 2 / (T * B)
                if not ends[i : i + c, b].any():
                    moved = space[i + c, b] - space[i, b] if config.directional_goals else space[i + c, b]
                    manager -= weight[i, b] * advantage[i, b] * cos(moved, goal[i, b]) / (T * B)
        np.testing.assert_allclose(got["manager"], manager, atol=1e-9)
        np.testing.assert_allclose(got["manager_critic"], critic, atol=1e-9)

        inner = slow_intrinsic(space, np.asarray(t.extras.goal), np.asarray(time), c, config.directional_goals)
        new = slice(W - T, None)
        arriving = np.zeros((T, B))
        for i in range(T - 1):
            arriving[i] = np.where(ends[W - T + i], 0.0, inner[W - T + i + 1])
        reward = config.extrinsic_weight * np.asarray(t.reward[new]) + config.intrinsic_weight * arriving
        advantage, weight = slow_advantage(
            reward,
            np.asarray(seen.worker_value),
            np.asarray(t.terminated[new]),
            np.asarray(t.truncated[new]),
            config.worker_discount,
            config.gae_lambda,
        )
        log_p = np.asarray(jax.nn.log_softmax(seen.policy.logits))
        chosen = np.take_along_axis(log_p, np.asarray(t.action[new])[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(got["worker"], -np.mean(weight * advantage * chosen), atol=1e-9)
        np.testing.assert_allclose(got["worker_critic"], 0.5 * np.mean(weight * advantage**2), atol=1e-9)
        np.testing.assert_allclose(got["inner_reward"], inner[new].mean(), atol=1e-9)


@pytest.mark.parametrize("config", WINDOWS[:2])
def test_gradients_of_the_losses_are_the_closed_forms_and_nothing_else(config):
    with jax.enable_x64(True):
        seen, t, time = random_window(config)
        gradient = lambda name: jax.grad(lambda x, goal: losses(x, with_goal(t, goal), time, config)[name], (0, 1))(
            seen, t.extras.goal
        )
        with_goal = lambda t, goal: t._replace(extras=Acted(goal))
        reached = {}
        for name in ("manager", "manager_critic", "worker", "worker_critic"):
            by_seen, by_goal = gradient(name)
            assert not np.any(by_goal)  # the goals that the worker was given are not its to change
            leaves = {**by_seen._asdict(), "policy": by_seen.policy.logits}
            reached[name] = {key for key, x in leaves.items() if np.any(np.asarray(x))}
        assert reached == {
            "manager": {"goal"},  # neither s_t nor s_{t+c}
            "manager_critic": {"manager_value"},
            "worker": {"policy"},
            "worker_critic": {"worker_value"},
        }
        # A ∇ cos(direction, g), through the cosine alone
        c, T, W = config.goal_horizon, config.rollout_length, len(t.reward)
        here, there = slice(W - T - c, W - c), slice(W - T, None)
        A, weight = advantages(t.reward, seen.manager_value, t, config.manager_discount, config.gae_lambda)
        towards = seen.space[there] - seen.space[here] if config.directional_goals else seen.space[there]
        slope = jax.grad(lambda g: jnp.sum(cosine(towards, g)))(seen.goal[here])
        scale = (A * weight)[here] * (time[there] >= c)
        expected = -np.asarray(scale[..., None] * slope) / (T * B)
        assert_close(gradient("manager")[0].goal[here], expected, 1e-10)
        assert np.abs(expected).max() > 1e-3


# The networks, played


SMALL = {
    "environments": 4,
    "goal_size": 6,
    "worker_size": 7,
    "embedding_size": 3,
    "hidden": (8,),
    "channels": (),
    "eval_episodes": 4,
}


@pytest.fixture(scope="module")
def played():
    """48 steps of a short T-maze with terminations, truncations and random goals, and the worlds every 6 steps."""
    env = TMaze(2)
    tasks = single(env.default_params.replace(max_steps_in_episode=9))
    config = Config(**SMALL, goal_horizon=4, dilation=3, rollout_length=48, random_goals=0.2)
    net = network_of(config, env)
    agent = Agent(partial(init_params, config, net), lambda params, key: start(config, net), partial(act, config, net))
    noise = np.random.default_rng(0)  # so that no head is zero
    params = jax.tree.map(lambda x: x + 0.3 * noise.normal(size=x.shape).astype(x.dtype), agent.init(jax.random.key(1)))
    begin = begin_worlds(env, agent, tasks, params, jax.random.key(0), 4)
    play = quick_jit(lambda world, length: rollout(env, agent, tasks, params, world, length), static_argnums=1)
    before, _ = play(begin, 6)  # amid an episode
    worlds, seen, world = [before], [], before
    for _ in range(8):
        world, steps = play(world, 6)
        worlds.append(world)
        seen.append(steps)
    t = jax.tree.map(lambda *x: jnp.concatenate(x), *seen)
    assert bool(t.terminated.any())
    assert bool(t.truncated.any())
    return env, config, net, play, params, worlds, t


@pytest.mark.rounding
def test_unroll_says_what_acting_said(played):
    """Unrolled goals, except random ones, and policies equal those of acting, also from the middle of an episode."""
    _, config, net, play, params, worlds, t = played
    time = time_in_episode(worlds[0].ep_length, t.first)
    seen = jax.jit(partial(unroll, config, net))(params, worlds[0], worlds[0], t, time)
    same = np.abs(np.asarray(seen.goal - t.extras.goal)).max(axis=-1) < 1e-4
    assert 0.7 < same.mean() < 0.9
    # the policy with which the actions were drawn: run the agent again, step by step, and give it the stored goals
    agent_act = jax.jit(jax.vmap(partial(act, config, net), (None, 0, 0, 0, None)), static_argnums=4)
    world = worlds[0]
    for i in range(6):
        keys = jax.vmap(lambda key: jax.random.split(key, 4))(world.key)
        action, _, did = agent_act(params, world.carry, world.inp, keys[:, 1], False)
        np.testing.assert_array_equal(action, t.action[i])
        assert_close(did.goal, t.extras.goal[i])
        drawn = jax.vmap(lambda key: jax.random.split(key, 3)[0])(keys[:, 1])
        again = jax.vmap(lambda policy, key: policy.sample(key))(Categorical(seen.policy.logits[i]), drawn)
        np.testing.assert_array_equal(again, action)
        world, _ = play(world, 1)


@pytest.mark.rounding
@pytest.mark.parametrize("length", [6, 12, 24])
def test_unroll_length_changes_no_forward_quantity(played, length):
    """Windows of any length that start from the agent's memory give equal outputs; only gradients are truncated."""
    _, config, net, _, params, worlds, t = played
    whole = unroll(config, net, params, worlds[0], worlds[0], t, time_in_episode(worlds[0].ep_length, t.first))
    short = jax.jit(partial(unroll, replace(config, rollout_length=length), net))
    for i in range(0, 48, length):
        part = jax.tree.map(lambda x: x[i : i + length], t)  # noqa: B023
        world = worlds[i // 6]
        seen = short(params, world, world, part, time_in_episode(world.ep_length, part.first))
        assert_close(seen, jax.tree.map(lambda x: x[i : i + length], whole))  # noqa: B023


@pytest.mark.rounding
def test_a_window_that_waited_says_the_same(played):
    """The manager begins 6 steps before the worker's first new step."""
    _, config, net, _, params, worlds, t = played
    whole = unroll(config, net, params, worlds[0], worlds[0], t, time_in_episode(worlds[0].ep_length, t.first))
    part = jax.tree.map(lambda x: x[6:24], t)
    late = jax.jit(partial(unroll, replace(config, rollout_length=12), net))
    seen = late(params, worlds[1], worlds[2], part, time_in_episode(worlds[1].ep_length, part.first))
    for name in ("space", "goal", "manager_value"):
        assert_close(getattr(seen, name), getattr(whole, name)[6:24])
    assert_close(seen.policy.logits, whole.policy.logits[12:24])
    assert_close(seen.worker_value, whole.worker_value[12:24])


def test_each_loss_reaches_its_own_parameters(played):
    env, *_, params, worlds, t = played
    time = time_in_episode(worlds[0].ep_length, t.first)
    part = jax.tree.map(lambda x: x[:18], t)
    config = Config(**SMALL, goal_horizon=4, dilation=3, rollout_length=12)
    net = network_of(config, env)

    @quick_jit
    def gradients(params):
        total = lambda params: losses(
            unroll(config, net, params, worlds[0], worlds[1], part, time[:18]), part, time[:18], config
        )
        return jax.jacrev(total)(params)

    reached = {
        name: {part for part, x in found.items() if any(np.any(leaf) for leaf in jax.tree.leaves(x))}
        for name, found in gradients(params).items()
    }
    assert reached["manager"] == {"percept", "space", "manager"}
    assert reached["manager_critic"] == {"percept", "space", "manager", "manager_value"}
    assert reached["worker"] == {"percept", "worker", "policy", "embedding"}
    assert reached["worker_critic"] == {"percept", "worker", "worker_value"}
    assert reached["inner_reward"] == set()


# The algorithm


@pytest.fixture(scope="module")
def amid():
    """A learner, its compiled step, and a state in mid-episode with no head at zero; episodes terminate or truncate."""
    env = Corridor()
    tasks = single(CorridorParams(max_steps_in_episode=7))
    config = Config(
        **SMALL,
        goal_horizon=4,
        dilation=3,
        rollout_length=12,
        max_grad_norm=0.02,
        entropy_weight=0.4,
        critic_weight=0.3,
    )
    config = replace(config, intrinsic_weight=0.7, gae_lambda=0.9)
    algorithm = make(config, env, tasks)
    state = quick_jit(algorithm.init)(jax.random.key(4))  # of which the tests below assert what they need
    noise = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.3 * noise.normal(size=x.shape).astype(x.dtype), state.params)
    step = quick_jit(algorithm.step)
    state, _ = step(state.replace(params=params))
    state = state.replace(learner=algorithm.init(jax.random.key(0)).learner)  # Adam from its beginning
    return env, tasks, config, algorithm, state, step


@pytest.fixture(scope="module")
def updated(amid):
    """The same, with the state after an update and its metrics instead of the step."""
    *learner, state, step = amid
    return *learner, state, *step(state)


def test_steps_wait_for_the_next_window(updated):
    """An update keeps the last steps of its rollout, and the environments as they were before these."""
    env, tasks, _, algorithm, state, after, _ = updated
    assert state.memory.steps.reward.shape == (4, 6)  # two turns of three cores, at least c = 4
    play = quick_jit(lambda world: rollout(env, algorithm.agent, tasks, state.params, world, 6))
    world, _ = play(state.world)
    ended, late = play(world)
    assert_close(after.memory.before.carry.goals, world.carry.goals)
    assert_close(after.memory.before.ep_length, world.ep_length)
    assert_close(after.world.carry.goals, ended.carry.goals)
    assert_close(after.memory.steps.obs, jnp.moveaxis(late.obs, 1, 0))
    assert_close(after.memory.steps.extras.goal, jnp.moveaxis(late.extras.goal, 1, 0))


def test_an_update_follows_the_weighted_sum_of_its_terms(updated):
    """Adam's first moments show the gradient of all five terms, clipped by its global norm."""
    env, tasks, config, algorithm, state, after, metrics = updated
    new = quick_jit(lambda world: rollout(env, algorithm.agent, tasks, state.params, world, 12)[1])(state.world)
    window = jax.tree.map(lambda x, y: jnp.concatenate([jnp.moveaxis(x, 1, 0), y]), state.memory.steps, new)
    assert window.terminated.any()
    assert window.truncated.any()
    time, age = [], np.asarray(state.memory.before.ep_length)
    for first in np.asarray(window.first):
        age = np.where(first, 0, age)
        time.append(age)
        age = age + 1
    net = network_of(config, env)

    def loss(params):
        seen = unroll(config, net, params, state.memory.before, state.world, window, jnp.array(time))
        of = losses(seen, window, jnp.array(time), config)
        total = of["manager"] + of["worker"] + 0.3 * of["manager_critic"] + 0.3 * of["worker_critic"]
        return total - 0.4 * jnp.mean(seen.policy.entropy())

    gradient = quick_jit(jax.grad(loss))(state.params)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
    assert norm > 2 * config.max_grad_norm
    assert_close(metrics["grad_norm"], norm, 1e-3)
    used = jax.tree.map(lambda mu: 10 * mu, optax.tree_utils.tree_get(after.learner, "mu"))
    wanted = jax.tree.map(lambda g: config.max_grad_norm * g / norm, gradient)
    assert_close(used, wanted, 1e-3, scale=config.max_grad_norm)
    moved = jax.tree.map(lambda a, b, g: np.sum((a - b) * g), after.params, state.params, gradient)
    assert sum(jax.tree.leaves(moved)) < 0  # downhill


def test_the_manager_begins_at_the_memory_of_the_steps_that_waited(amid, updated):
    """The update depends on the manager's memory there, and not on the worker's."""
    *_, state, step = amid
    after = updated[5]

    def with_memory(change):
        before = state.memory.before
        carry = jax.tree.map(lambda x: x + 1, getattr(before.carry, change))
        before = before.replace(carry=before.carry._replace(**{change: carry}))
        return step(state.replace(memory=state.memory.replace(before=before)))[0].params

    same = lambda a, b: all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))
    assert not same(with_memory("cores")["manager"], after.params["manager"])
    assert same(with_memory("worker"), after.params)


def test_random_goals_are_of_all_directions_and_none_when_greedy(updated):
    """They are as frequent as configured, and independent of the action."""
    env, _, config, _, state, _, _ = updated
    config, net, count = replace(config, random_goals=0.3), network_of(config, env), 20_000
    params = state.params | {"policy": jax.tree.map(jnp.zeros_like, state.params["policy"])}  # any action
    world = jax.tree.map(lambda x: x[0], state.world)

    def acted(greedy, count):
        one = lambda key: act(config, net, params, world.carry, world.inp, key, greedy)
        action, carry, did = quick_jit(jax.vmap(one))(jax.random.split(jax.random.key(0), count))
        np.testing.assert_array_equal(carry.goals[:, -1], did.goal)
        return np.asarray(action), np.asarray(did.goal)

    own = acted(True, 2)[1][0]
    assert (acted(True, 100)[1] == own).all()
    action, goal = acted(False, count)
    explores = np.abs(goal - own).max(axis=1) > 1e-5
    assert abs(explores.mean() - 0.3) < 5 * (0.21 / count) ** 0.5
    np.testing.assert_allclose(np.linalg.norm(goal, axis=1), 1.0, rtol=1e-4)
    spread = 5 / (6 * explores.sum()) ** 0.5
    np.testing.assert_allclose(goal[explores].mean(axis=0), 0.0, atol=spread)
    for chosen in (0, 1):
        assert abs(explores[action == chosen].mean() - 0.3) < 5 * (0.42 / count) ** 0.5
        directions = goal[explores & (action == chosen)]
        np.testing.assert_allclose(directions.mean(axis=0), 0.0, atol=1.5 * spread)


class Clock(Corridor):
    """The corridor, with a reward of 1 per step."""

    def step_env(self, key, state, action, params):
        obs, state, _, terminated, info = super().step_env(key, state, action, params)
        return obs, state, jnp.ones(()), terminated, info


def test_evaluation_plays_first_episodes():
    env = Clock()
    algorithm = make(
        Config(**SMALL | {"eval_episodes": 32}, goal_horizon=3, dilation=3, rollout_length=3),
        env,
        single(CorridorParams()),
    )
    state, evaluate = algorithm.init(jax.random.key(0)), quick_jit(algorithm.evaluate)
    one, again, other = (evaluate(state, jax.random.key(k)) for k in (1, 1, 2))
    lengths = np.asarray(one["length"].values)
    np.testing.assert_array_equal(one["return"].values, lengths)
    assert len(np.unique(lengths)) > 5
    assert lengths.max() <= 30
    np.testing.assert_array_equal(lengths, again["length"].values)
    assert (lengths != other["length"].values).any()


@pytest.mark.parametrize("name", ["treasure", "non-match", "water-maze"])
def test_runs_on_pictures_and_vectors(name):
    settings = {**SMALL, "channels": (4, 4)}
    algorithm = make(Config(**settings, rollout_length=10), *jaxrl_envs.make(name))
    state, metrics = jax.eval_shape(lambda key: algorithm.step(algorithm.init(key)), jax.random.key(0))
    assert {m.shape for m in jax.tree.leaves(metrics)} == {()}
    patches = state.params["percept"]["params"]["layers_0"]["Dense_0"]["kernel"].shape
    assert patches == {"treasure": (9 * 5, 4), "non-match": (9 * 5, 4), "water-maze": (3, 8)}[name]


def test_remembers_the_sign_of_a_t_maze():
    """The prize is where the sign of the first square said; without a memory the return is ½."""
    env = TMaze(1)
    tasks = single(env.default_params)
    settings = {**SMALL, "environments": 32, "goal_size": 16, "worker_size": 16, "hidden": (16,), "eval_episodes": 200}
    config = Config(
        **settings,
        goal_horizon=3,
        dilation=3,
        rollout_length=12,
        learning_rate=3e-3,
        entropy_weight=0.01,
        gae_lambda=0.95,
    )
    algorithm = make(config, env, tasks)

    def trained(key):
        state = jax.lax.fori_loop(0, 800, lambda _, s: algorithm.step(s)[0], algorithm.init(key))
        return algorithm.evaluate(state, jax.random.key(1))["return"].values

    assert float(jnp.mean(jax.jit(trained)(jax.random.key(0)))) > 0.9


@pytest.mark.parametrize(
    ("settings", "env", "message"),
    [
        (
            {"rollout_length": 1, "goal_horizon": 1, "dilation": 1},
            "treasure",
            "rollout_length must be at least 2, got 1",
        ),
        ({"rollout_length": 25}, "treasure", r"rollout_length must be a multiple of dilation \(10\), got 25"),
        (
            {"rollout_length": 10, "goal_horizon": 12},
            "treasure",
            r"rollout_length must be at least goal_horizon \(12\), got 10",
        ),
        ({"goal_horizon": 0}, "treasure", "goal_horizon must be positive, got 0"),
        ({"random_goals": 2.0}, "treasure", r"random_goals must lie in \[0, 1\], got 2.0"),
        ({"hidden": (), "channels": ()}, "treasure", "perception needs at least one layer"),
        ({"hidden": (0,)}, "treasure", "layers must have positive sizes"),
        ({}, "Pendulum-v1", "FuN needs discrete actions"),
        ({}, "bit-flipping-5", "FuN needs observations that an array holds"),
    ],
)
def test_bad_input(settings, env, message):
    with pytest.raises(UsageError, match=message):
        make(Config(**settings), *jaxrl_envs.make(env))
