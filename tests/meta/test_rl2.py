"""RL²: minibatches, losses, the hidden state, the recurrent update, a task that needs memory, bad settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from gymnax.environments import environment, spaces

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs import Trial
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk
from jaxrl_hier.learning.minibatches import minibatches_of, over_epochs
from jaxrl_hier.learning.optimization import linear_decay, linear_over
from jaxrl_hier.learning.recurrent import MEMORIES
from jaxrl_hier.meta import rl2
from jaxrl_hier.meta.rl2 import Config, network
from tests.close import assert_close
from tests.compiling import optimised_jit, quick_jit
from tests.probes import Lottery, lotteries
from tests.reference import slow_advantage

TINY = Config(environments=16, minibatch_size=8, memory_size=8, eval_tasks=4)


def config(**settings):
    return dataclasses.replace(TINY, **settings)


# --- minibatches and losses ----------------------------------------------------------------------------------------


def test_minibatches_are_whole_trials_each_once():
    x = jnp.arange(12)[None, :] + 100 * jnp.arange(3)[:, None]  # [T, B]
    parts = minibatches_of(jax.random.key(0), {"x": x, "deep": jnp.stack([x, -x], axis=-1)}, 4)
    assert parts["x"].shape == (4, 3, 3)
    np.testing.assert_array_equal(parts["x"][:, 1] - parts["x"][:, 0], 100)  # columns stay together
    np.testing.assert_array_equal(parts["deep"][..., 1], -parts["x"])
    np.testing.assert_array_equal(np.sort(parts["x"][:, 0].ravel()), np.arange(12))
    again = minibatches_of(jax.random.key(1), {"x": x}, 4)
    assert (parts["x"] != again["x"]).any()
    by_part = np.sort(parts["x"][:, 0] // 4, axis=1)  # one of every four neighbours
    np.testing.assert_array_equal(by_part, np.tile(np.arange(3), (4, 1)))


def test_every_epoch_sees_each_trial_once_in_another_order():
    x = jnp.arange(12)[None] + 100 * jnp.arange(2)[:, None]  # [T, B]

    @jax.jit
    def seen(key):
        note = lambda steps, part: (steps + 1, part["x"][0])
        return over_epochs(note, 0, {"x": x}, key, 6, 4)

    steps, parts = seen(jax.random.key(0))
    assert int(steps) == 24
    assert parts.shape == (6, 4, 3)
    np.testing.assert_array_equal(np.sort(parts.reshape(6, -1), axis=1), np.tile(np.arange(12), (6, 1)))
    assert len(np.unique(parts.reshape(6, -1), axis=0)) == 6
    assert (parts != seen(jax.random.key(1))[1]).any(axis=(1, 2)).all()


@pytest.mark.parametrize("learner", ["ppo", "a2c"])
def test_the_loss_of_a_batch_by_hand(learner):
    """With steps that do not count, and probabilities at the time of acting that differ from the policy's."""
    settings = config(learner=learner, memory_size=4, critic_weight=0.3, clip=0.2)
    trial = Trial(jaxrl_envs.make("bandit-n10-k5")[0])
    net, rng = network(settings, trial), np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape), net.init(jax.random.key(0)))
    obs = jnp.asarray(rng.normal(size=(5, 3, trial.observation_space().shape[0])), jnp.float32)
    first = jnp.zeros((5, 3), bool).at[0].set(True)
    carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, *x.shape)), net.start())
    policy, value = net.unroll(params, carry, obs, first)
    action = jnp.asarray(rng.integers(5, size=(5, 3)))
    log_prob = np.asarray(policy.log_prob(action))
    old = log_prob + rng.normal(size=(5, 3)) * 0.5
    advantage, target = rng.normal(size=(2, 5, 3))
    weight = (rng.random((5, 3)) < 0.7) * 1.0
    batch = rl2.Batch(jax.tree.map(lambda x: x[None], carry), obs, first, action, old, advantage, target, weight)
    total, terms = rl2.batch_loss(settings, net, params, batch, 0.05)

    ratio = np.exp(log_prob - old)
    clipped = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
    per_step = -clipped if learner == "ppo" else -log_prob * advantage
    mean = lambda x: np.sum(weight * np.asarray(x)) / weight.sum()
    value_loss, entropy = mean(0.5 * (target - value) ** 2), mean(policy.entropy())
    assert_close([total, terms["kl"]], [mean(per_step) + 0.3 * value_loss - 0.05 * entropy, mean(old - log_prob)], 1e-4)


# --- the hidden state ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes():
    """Trials of two episodes of 10 steps."""
    env, tasks = jaxrl_envs.make("tabular-mdp")
    trial = Trial(env, 2)
    return trial, trial.tasks_of(tasks)


@pytest.mark.parametrize("memory", ["gru", "lstm", "linear", "s5", "attention"])
@pytest.mark.parametrize("separate", [True, pytest.param(False, marks=pytest.mark.rounding)])
def test_acting_equals_the_unroll_across_rollouts_and_trials(processes, memory, separate):
    """Acting and unrolling from the stored hidden state give the same log-probabilities and values."""
    env, tasks = processes
    settings = config(memory=memory, separate_critic=separate, encoder_hidden=(6,) if separate else (), memory_window=9)
    algorithm, net = rl2.make(settings, env, tasks), network(settings, env)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    play = jax.jit(lambda world: rollout(env, algorithm.agent, tasks, state.params, world, 14))
    world = state.world
    for _ in range(3):  # 42 steps: trials end within rollouts, and continue after them
        before = world
        world, t = play(before)
        policy, value = net.unroll(state.params, before.carry, t.obs, t.first)
        assert_close(policy.log_prob(t.action), t.extras.log_prob)
        assert_close(value, t.extras.value)


def test_each_head_moves_its_own_memory(processes):
    """With separate memories the policy's gradient reaches only the first, the value's only the second.

    The value's scale is a factor."""
    env, _ = processes
    obs = jax.random.normal(jax.random.key(1), (4, 2, env.observation_space().shape[0]))
    first = jnp.zeros((4, 2), bool)

    def outputs(scale):
        net = network(config(memory_size=4, value_scale=scale), env)
        carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, *x.shape)), net.start())
        params = net.init(jax.random.key(0))

        def both(params):
            policy, value = net.unroll(params, carry, obs, first)
            return jnp.sum(policy.log_prob(jnp.zeros((4, 2), int))), jnp.sum(value)

        _, _, acted = net.step(params, jax.tree.map(lambda x: x[0], carry), obs[0, 0])
        return both(params)[1], acted, jax.jacrev(both)(params)

    (value, acted, of), (three, acted_three, _) = outputs(1.0), outputs(3.0)
    np.testing.assert_allclose([three, acted_three], 3 * np.array([value, acted]), rtol=1e-5)
    reached = [
        {
            name
            for name, part in {**of_one, "first": of_one["torsos"][0], "second": of_one["torsos"][1]}.items()
            if any(np.any(x) for x in jax.tree.leaves(part))
        }
        for of_one in of
    ]
    assert reached == [{"torsos", "first", "policy"}, {"torsos", "second", "value"}]


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
    assert rl2.make(config(episodes_per_trial=3), *jaxrl_envs.make("tabular-mdp")).env_steps == 16 * 30
    assert rl2.make(TINY, *jaxrl_envs.make("bandit-n100-k5")).env_steps == 16 * 100
    assert rl2.make(config(rollout_length=7), *jaxrl_envs.make("bandit-n100-k5")).env_steps == 16 * 7


@pytest.mark.parametrize("algorithm", ["rl2", "varibad"])
def test_a_rollout_of_one_step_has_nothing_to_learn_from(algorithm):
    with pytest.raises(UsageError, match="rollout_length must be at least 2, got 1: the value of its last step"):
        jaxrl_hier.make(algorithm, "bandit-n10-k5", rollout_length=1)


def test_attention_sees_a_whole_trial_unless_told_otherwise(processes):
    def window(memory_window):
        settings = config(memory="attention", memory_window=memory_window)
        world = jax.eval_shape(rl2.make(settings, *processes).init, jax.random.key(0)).world
        return world.carry[0].keys.shape

    assert window(None) == window(1000) == (16, 2, 4, 20, 2)  # environments, layers, heads, window, numbers of a head
    assert window(7) == (16, 2, 4, 7, 2)


# --- the update ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learner", ["ppo", "a2c"])
def test_the_update_of_one_batch_by_hand(learner):
    """Loss terms and gradient of one epoch with one minibatch, cut in the middle of a trial, from slow advantages."""
    settings = config(
        learner=learner, epochs=1, minibatch_size=16, rollout_length=7, critic_weight=0.3, entropy_weight=0.02
    )
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
    # the gradient itself, from Adam's first moments before and after: μ' = 0.9 μ + 0.1 g
    moments = (optax.tree_utils.tree_get(s.learner[0], "mu") for s in (after, state))
    used = jax.tree.map(lambda new, old: 10 * (new - 0.9 * old), *moments)
    assert_close(used, gradient, 1e-3, scale=max(np.abs(g).max() for g in jax.tree.leaves(gradient)))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.params, state.params)
    assert max(jax.tree.leaves(moved)) < 10 * settings.learning_rate  # Adam's


def test_rate_and_entropy_bonus_fall_in_a_line():
    np.testing.assert_allclose([linear_decay(i, 4) for i in range(6)], [1.0, 0.75, 0.5, 0.25, 0.0, 0.0])
    assert linear_decay(7, 0) == 1.0
    env, tasks = jaxrl_envs.make("bandit-n10-k5")
    base = {"learner": "a2c", "critic_weight": 0.0, "learning_rate": 1e-3}
    plain = quick_jit(rl2.make(config(**base), env, tasks).step)
    falling = quick_jit(
        rl2.make(config(**base, entropy_weight=3.0, entropy_decay_iterations=5, **linear_over(20)), env, tasks).step
    )
    state = quick_jit(rl2.make(config(**base), env, tasks).init)(jax.random.key(0))
    late = dataclasses.replace(state, learner=(state.learner[0], jnp.int32(5)))
    change = lambda step, state: jax.tree.map(lambda a, b: a - b, step(state)[0].params, state.params)
    # after 5 iterations no bonus is left, and three quarters of the rate
    expected = jax.tree.map(lambda x: 0.75 * x, change(plain, state))
    assert_close(change(falling, late), expected, 2e-3, scale=1e-3)
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), change(falling, state), change(plain, state))
    assert max(jax.tree.leaves(apart)) > 1e-5
    assert int(falling(late)[0].learner[1]) == 6


def test_a_memory_of_your_own(processes, monkeypatch):
    monkeypatch.setitem(MEMORIES, "mine", MEMORIES["gru"])
    env, tasks = processes
    mine, theirs = (quick_jit(rl2.make(config(memory=m), env, tasks).init)(jax.random.key(0)) for m in ("mine", "gru"))
    jax.tree.map(np.testing.assert_array_equal, mine.params, theirs.params)


@pytest.mark.rounding
def test_chunks_of_the_unroll_change_nothing():
    env, tasks = jaxrl_envs.make("bandit-n10-k5")
    states = []
    for chunk in (0, 5):
        algorithm = rl2.make(config(remat_steps=chunk), env, tasks)
        states.append(jax.jit(algorithm.step)(jax.jit(algorithm.init)(jax.random.key(0)))[0])
    assert_close(states[1].params, states[0].params, 1e-4)


def test_continuous_actions():
    algorithm = jaxrl_hier.make(
        "rl2", "navigation2d", **dataclasses.asdict(config(rollout_length=20, episodes_per_trial=2))
    )
    state, _ = quick_jit(algorithm.step)(quick_jit(algorithm.init)(jax.random.key(0)))
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(state.params))
    assert jax.tree.leaves(state.world.carry)[0].any()  # 20 of 200 steps: the trial continues


def test_evaluation_tells_the_inner_episodes_apart():
    algorithm = jaxrl_hier.make("rl2", "tabular-mdp", **dataclasses.asdict(config(episodes_per_trial=3)))
    measured = quick_jit(algorithm.evaluate)(quick_jit(algorithm.init)(jax.random.key(0)), jax.random.key(1))
    assert measured["trial_return"].axes == ("task",)
    assert measured["return"].axes == measured["length"].axes == ("task", "adaptation_step")
    assert_close(measured["return"].values.sum(1), measured["trial_return"].values)
    np.testing.assert_array_equal(measured["length"].values, np.full((4, 3), 10))
    np.testing.assert_array_equal(measured["experience_episodes"].values, np.tile([0, 1, 2], (4, 1)))
    np.testing.assert_array_equal(measured["experience_steps"].values, np.tile([0, 10, 20], (4, 1)))


def test_evaluations_draw_tasks_and_episodes_anew():
    """The hundreds of a lottery's return identify the task, the rest the draw of the episode."""
    algorithm = rl2.make(config(memory_size=4), Lottery(), lotteries())
    state, evaluate = quick_jit(algorithm.init)(jax.random.key(0)), quick_jit(algorithm.evaluate)
    tasks, draws = np.divmod([evaluate(state, jax.random.key(k))["trial_return"].values for k in (1, 2)], 100)
    for found in (tasks, draws):
        assert len(np.unique(found.round(4))) == 8  # of 4 tasks each, with two keys
    again = evaluate(state, jax.random.key(1))["trial_return"].values
    np.testing.assert_array_equal(again, 100 * tasks[0] + draws[0])


# --- a task that needs memory --------------------------------------------------------------------------------------


@struct.dataclass
class RecallState(environment.EnvState):
    time: jax.Array


@struct.dataclass
class RecallParams(environment.EnvParams):
    bit: jax.Array = struct.field(default_factory=lambda: np.int32(0))
    max_steps_in_episode: int = 3


class Recall(environment.Environment):
    """The first observation shows a bit; then action 1 costs 2; then naming the bit pays 1.

    Without memory the middle action could carry the bit, but costs more than it brings: no return above 0.5."""

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


@pytest.mark.parametrize(
    ("memory", "learner"), [("gru", "ppo"), ("lstm", "a2c"), ("s5", "ppo"), ("attention", "ppo"), ("none", "ppo")]
)
def test_only_with_memory_is_the_bit_recalled(memory, learner):
    draw = lambda key: RecallParams(bit=jax.random.bernoulli(key).astype(jnp.int32), max_steps_in_episode=3)
    settings = config(
        memory=memory, learner=learner, environments=128, minibatch_size=64, memory_size=16, eval_tasks=512
    )
    settings = dataclasses.replace(settings, learning_rate=1e-2, entropy_weight=0.05)
    algorithm = rl2.make(settings, Recall(), Tasks(sample=draw, resample="episode"))
    state, _, _ = optimised_jit(make_chunk(algorithm, 60 if learner == "ppo" else 300))(
        init_seeds(algorithm, RunConfig())
    )
    state = jax.tree.map(lambda x: x[0], state)
    earned = np.mean(jax.jit(algorithm.evaluate)(state, jax.random.key(1))["trial_return"].values)
    if memory == "none":
        assert earned < 0.5 + 4 * 0.5 / 512**0.5
    else:
        assert earned > 0.9


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learner": "trpo"}, "learner must be one of ppo, a2c"),
        ({"memory": "mlp"}, "memory must be one of gru, gru-relu, lstm, linear, s5, attention, none"),
        ({"minibatch_size": 6}, r"environments \(16\) must be a multiple of minibatch_size \(6\)"),
        ({"remat_steps": 3}, r"the steps of a rollout \(10\) must be a multiple of remat_steps \(3\)"),
        ({"episodes_per_trial": 0}, "a trial has at least one episode, not 0"),
        ({"encoder_hidden": (8, 0)}, "encoder_hidden layers must have positive sizes"),
        ({"discount": 1.5}, r"discount must lie in \[0, 1\]"),
        ({"memory_size": 0}, "memory_size must be positive"),
        ({"memory_window": 0}, "memory_window must be positive"),
    ],
)
def test_what_cannot_work_is_said(settings, message):
    with pytest.raises(UsageError, match=message):
        jaxrl_hier.make("rl2", **(dataclasses.asdict(TINY) | settings))


def test_estimates_are_not_left_out_of_trials_of_ones_own():
    env, tasks = jaxrl_envs.make("tabular-mdp")
    trial = Trial(env, 2)
    with pytest.raises(UsageError, match="value_sweeps must be 0 with trials of your own"):
        jaxrl_hier.make("rl2", trial, trial.tasks_of(tasks), value_sweeps=3)
