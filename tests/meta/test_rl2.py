"""RL²: advantages across inner ends, the recurrent update, what memory is for, errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from close import assert_close
from compiling import quick_jit
from flax import struct
from gymnax.environments import environment, spaces

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs import Trial
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk
from jaxrl_hier.meta import rl2
from jaxrl_hier.meta.rl2 import Config, network, ppo_loss, shuffled, trial_advantage

TINY = Config(environments=16, minibatch=8, size=8, eval_tasks=4)


def config(**settings):
    return dataclasses.replace(TINY, **settings)


# --- advantages and losses -----------------------------------------------------------------------------------------


def slow_advantage(reward, value, terminated, discount, lam):
    """Sums over every later step of the same trial, one environment; None where the future is not known."""
    T = len(reward)
    last_known = T - 1 if terminated[-1] else T - 2
    out = np.zeros(T)
    for t in range(last_known + 1):
        weight = 1.0
        for k in range(t, last_known + 1):
            after = 0.0 if terminated[k] else value[k + 1]
            out[t] += weight * (reward[k] + discount * after - value[k])
            if terminated[k]:
                break
            weight *= discount * lam
    return out


def test_advantages_run_to_the_end_of_the_trial_or_of_what_is_known():
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 12, 3)).astype(np.float32)
    terminated = np.zeros((12, 3), bool)
    terminated[[4, 9], 0] = True  # goes on behind the rollout
    terminated[11, 1] = True  # one whole trial
    terminated[3, 2] = terminated[11, 2] = True
    advantage, weight = trial_advantage(*map(jnp.asarray, (reward, value, terminated)), 0.9, 0.7)
    for b in range(3):
        slow = slow_advantage(reward[:, b], value[:, b], terminated[:, b], 0.9, 0.7)
        assert_close(advantage[:, b], slow)
    np.testing.assert_array_equal(weight[:-1], 1)
    np.testing.assert_array_equal(weight[-1], [0, 1, 1])


def test_ppo_loss_by_hand():
    ratio = np.array([1.0, 1.05, 1.3, 0.5, 1.3, 0.5])
    advantage = np.array([2.0, 1.0, 1.0, 1.0, -1.0, -1.0])
    old = np.log([0.2, 0.3, 0.4, 0.5, 0.1, 0.6])
    loss = ppo_loss(old + np.log(ratio), old, advantage, 0.1)
    # clipped where the ratio has moved far in the direction that the advantage wants
    assert_close(loss, [-2.0, -1.05, -1.1, -0.5, 1.3, 0.9])


def test_minibatches_are_whole_trials_each_once():
    x = jnp.arange(12)[None, :] + 100 * jnp.arange(3)[:, None]  # [T, B]
    parts = shuffled(jax.random.key(0), {"x": x, "deep": jnp.stack([x, -x], axis=-1)}, 4)
    assert parts["x"].shape == (4, 3, 3)
    np.testing.assert_array_equal(parts["x"][:, 1] - parts["x"][:, 0], 100)  # columns stay together
    np.testing.assert_array_equal(parts["deep"][..., 1], -parts["x"])
    np.testing.assert_array_equal(np.sort(parts["x"][:, 0].ravel()), np.arange(12))
    again = shuffled(jax.random.key(1), {"x": x}, 4)
    assert (parts["x"] != again["x"]).any()
    by_part = np.sort(parts["x"][:, 0] // 4, axis=1)  # one of every four neighbours
    np.testing.assert_array_equal(by_part, np.tile(np.arange(3), (4, 1)))


# --- the hidden state ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes():
    """Trials of two episodes of 10 steps."""
    env, tasks = jaxrl_envs.make("tabular-mdp")
    trial = Trial(env, 2)
    return trial, trial.tasks_of(tasks)


@pytest.mark.parametrize("memory", ["gru", "lstm", "linear"])
@pytest.mark.parametrize("separate", [True, pytest.param(False, marks=pytest.mark.rounding)])
def test_acting_equals_the_unroll_across_rollouts_and_trials(processes, memory, separate):
    """Log-probabilities and values of acting are those of learning, from the stored hidden state on."""
    env, tasks = processes
    settings = config(memory=memory, separate=separate, encoder=(6,) if separate else ())
    algorithm, net = rl2.make(settings, env, tasks), network(settings, env)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    play = jax.jit(lambda world: rollout(env, algorithm.agent, tasks, state.params, world, 14))
    world = state.world
    for _ in range(3):  # 42 steps: trials end within rollouts, and go on behind them
        before = world
        world, t = play(before)
        policy, value = net.unroll(state.params, before.carry, t.obs, t.first)
        assert_close(policy.log_prob(t.action), t.extras.log_prob)
        assert_close(value, t.extras.value)


def test_the_hidden_state_is_forgotten_between_trials_and_nowhere_else(processes):
    env, tasks = processes
    algorithm = rl2.make(TINY, env, tasks)
    state = quick_jit(algorithm.init)(jax.random.key(0))
    one = quick_jit(lambda world: rollout(env, algorithm.agent, tasks, state.params, world, 1))
    world, forgotten = state.world, []
    for _ in range(41):
        forgotten.append(all(not np.asarray(h).any() for h in jax.tree.leaves(world.carry)))
        world, _ = one(world)
    assert np.flatnonzero(forgotten).tolist() == [0, 20, 40]


def test_a_rollout_is_a_whole_trial_by_default(processes):
    assert rl2.make(TINY, *processes).env_steps == 16 * 20
    assert rl2.make(config(episodes=3), *jaxrl_envs.make("tabular-mdp")).env_steps == 16 * 30
    assert rl2.make(TINY, *jaxrl_envs.make("bandit-n100-k5")).env_steps == 16 * 100
    assert rl2.make(config(length=7), *jaxrl_envs.make("bandit-n100-k5")).env_steps == 16 * 7


# --- the update ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learner", ["ppo", "a2c"])
def test_the_update_of_one_batch_by_hand(learner):
    """Loss terms and gradient of one epoch of one minibatch, cut in mid-trial, from slow advantages."""
    settings = config(learner=learner, epochs=1, minibatch=16, length=7, critic=0.3, entropy=0.02)
    env, tasks = jaxrl_envs.make("bandit-n10-k5")
    algorithm = rl2.make(settings, env, tasks)
    env, tasks = Trial(env), Trial(env).tasks_of(tasks)
    net = network(settings, env)
    step = quick_jit(algorithm.step)
    state, _ = step(quick_jit(algorithm.init)(jax.random.key(0)))
    after, metrics = step(state)  # steps 8 to 10 of a trial, and 1 to 4 of the next
    _, t = quick_jit(lambda s: rollout(env, algorithm.agent, tasks, s.params, s.world, 7))(state)
    value = np.asarray(t.extras.value)
    columns = zip(np.asarray(t.reward).T, value.T, np.asarray(t.terminated).T)
    advantage = np.array([slow_advantage(*column, 0.99, 0.3) for column in columns]).T[:6]
    target = advantage + value[:6]
    if learner == "ppo":
        advantage = (advantage - advantage.mean()) / advantage.std()

    def loss(params):
        policy, v = net.unroll(params, state.world.carry, t.obs, t.first)
        value_loss, entropy = jnp.mean((target - v[:6]) ** 2) / 2, jnp.mean(policy.entropy()[:6])
        policy_loss = -jnp.mean(policy.log_prob(t.action)[:6] * advantage)  # the ratio is 1, and so is its slope
        return policy_loss + 0.3 * value_loss - 0.02 * entropy, (value_loss, entropy)

    gradient, (value_loss, entropy) = quick_jit(jax.grad(loss, has_aux=True))(state.params)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
    assert_close(metrics["grad_norm"], norm, 1e-3)
    assert_close(metrics["value_loss"], value_loss, 1e-4)
    assert_close(metrics["policy_entropy"], entropy, 1e-4)
    assert abs(float(metrics["kl"])) < 1e-5
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.params, state.params)
    assert max(jax.tree.leaves(moved)) < 10 * settings.learning_rate  # Adam's


def test_the_entropy_bonus_falls_to_zero():
    env, tasks = jaxrl_envs.make("bandit-n10-k5")
    base = {"learner": "a2c", "critic": 0.0, "learning_rate": 1e-3}
    state = quick_jit(rl2.make(config(**base), env, tasks).init)(jax.random.key(0))
    late = dataclasses.replace(state, learner=(state.learner[0], jnp.int32(5)))
    step = lambda **more: quick_jit(rl2.make(config(**base, **more), env, tasks).step)
    plain = step()(late)[0].params
    annealed = step(entropy=3.0, entropy_anneal=5)
    assert_close(annealed(late)[0].params, plain)
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, annealed(state)[0].params, step()(state)[0].params)))


@pytest.mark.rounding
def test_chunks_of_the_unroll_change_nothing():
    env, tasks = jaxrl_envs.make("bandit-n10-k5")
    states = []
    for chunk in (0, 5):
        algorithm = rl2.make(config(chunk=chunk), env, tasks)
        states.append(jax.jit(algorithm.step)(jax.jit(algorithm.init)(jax.random.key(0)))[0])
    assert_close(states[1].params, states[0].params, 1e-4)


def test_continuous_actions():
    algorithm = jaxrl_hier.make("rl2", "navigation2d", **dataclasses.asdict(config(length=20, episodes=2)))
    state, _ = quick_jit(algorithm.step)(quick_jit(algorithm.init)(jax.random.key(0)))
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(state.params))
    assert jax.tree.leaves(state.world.carry)[0].any()  # 20 of 200 steps: the trial goes on


def test_evaluation_tells_the_inner_episodes_apart():
    algorithm = jaxrl_hier.make("rl2", "tabular-mdp", **dataclasses.asdict(config(episodes=3)))
    measured = quick_jit(algorithm.evaluate)(quick_jit(algorithm.init)(jax.random.key(0)), jax.random.key(1))
    assert measured["return"].axes == ("task",)
    assert measured["episode_return"].axes == measured["episode_length"].axes == ("task", "episode")
    assert_close(measured["episode_return"].values.sum(1), measured["return"].values)
    np.testing.assert_array_equal(measured["episode_length"].values, np.full((4, 3), 10))


# --- what memory is for --------------------------------------------------------------------------------------------


@struct.dataclass
class RecallState(environment.EnvState):
    time: jax.Array


@struct.dataclass
class RecallParams(environment.EnvParams):
    bit: jax.Array = struct.field(default_factory=lambda: np.int32(0))
    max_steps_in_episode: int = 3


class Recall(environment.Environment):
    """A bit is shown; then action 0 is due, and 1 costs 2; then naming the bit pays 1. Without memory the bit could be
    carried in the action between, which costs more than it brings: nothing is better than 0.5."""

    default_params = RecallParams()

    def reset_env(self, key, params):
        return jnp.asarray(params.bit, jnp.int32), RecallState(time=jnp.zeros((), jnp.int32))

    def step_env(self, key, state, action, params):
        named = (action == params.bit).astype(jnp.float32)
        reward = jnp.where(state.time == 2, named, jnp.where(state.time == 1, -2.0 * action, 0.0))
        state = RecallState(time=state.time + 1)
        return 1 + state.time, state, reward, jnp.zeros((), bool), {}

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params=None):
        return spaces.Discrete(5)


@pytest.mark.parametrize(("memory", "learner"), [("gru", "ppo"), ("lstm", "a2c"), ("none", "ppo")])
def test_only_with_memory_is_the_bit_recalled(memory, learner):
    draw = lambda key: RecallParams(bit=jax.random.bernoulli(key).astype(jnp.int32), max_steps_in_episode=3)
    settings = config(memory=memory, learner=learner, environments=128, minibatch=64, size=16, eval_tasks=512)
    settings = dataclasses.replace(settings, learning_rate=1e-2, entropy=0.05)
    algorithm = rl2.make(settings, Recall(), Tasks(sample=draw, resample="episode"))
    state, _, _ = jax.jit(make_chunk(algorithm, 60 if learner == "ppo" else 300))(init_seeds(algorithm, RunConfig()))
    state = jax.tree.map(lambda x: x[0], state)
    earned = np.mean(jax.jit(algorithm.evaluate)(state, jax.random.key(1))["return"].values)
    if memory == "none":
        assert earned < 0.5 + 4 * 0.5 / 512**0.5
    else:
        assert earned > 0.9


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learner": "trpo"}, "learner must be one of ppo, a2c"),
        ({"memory": "mlp"}, "memory must be one of gru, gru-relu, lstm, linear, none"),
        ({"minibatch": 6}, r"environments \(16\) must be a multiple of minibatch \(6\)"),
        ({"chunk": 3}, r"the steps of a rollout \(10\) must be a multiple of chunk \(3\)"),
        ({"episodes": 0}, "a trial has at least one episode, not 0"),
        ({"encoder": (8, 0)}, "encoder layers must have positive sizes"),
        ({"discount": 1.5}, r"discount must lie in \[0, 1\]"),
        ({"size": 0}, "size must be positive"),
    ],
)
def test_what_cannot_work_is_said(settings, message):
    with pytest.raises(UsageError, match=message):
        jaxrl_hier.make("rl2", **(dataclasses.asdict(TINY) | settings))
