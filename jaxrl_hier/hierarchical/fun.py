"""Feudal networks: a manager sets directions in a space that it learns, a worker acts (Vezhnevets et al., ICML 2017).

Perception turns an observation into z_t, and a layer of ReLU turns that into s_t, a point in the manager's space.

    manager  ĝ_t = Σ_{i<r} h_{t−i},   h_t, state_t = LSTM(s_t, state_{t−r})    dilated: r cores that take turns
             g_t = ĝ_t / |ĝ_t|, or with probability ε a random direction
    worker   w_t = φ Σ_{i=0..c} g_{t−i},   φ linear, without bias
             π(· | t) = softmax(U_t w_t),   U_t [A, k] from an LSTM of z_t

    manager's loss   −A^M_t cos(s_{t+c} − s_t, g_t)                            s held fixed, g_t learned
    worker's loss    −A^D_t log π(a_t | t)                                     goals held fixed
    inner reward     r^I_t = 1/c Σ_{i=1..c} cos(s_t − s_{t−i}, g_{t−i})        on arriving in t

A^M is the advantage for the environment's reward and the manager's discount, A^D that for r + α r^I and the worker's;
both levels have a linear value of their LSTM's output, and ½ (return − value)² is added, less an entropy bonus. cos is
the logarithm of a von Mises-Fisher density, but for constants: the manager's loss is a policy gradient for where the
worker will have gone after c steps.

What lies across an episode's end is in no sum: goals, outputs and states of an earlier episode are zero, a pair
(t, t + c) whose episode ends in between is not learned from, and the last state of an episode, in which nobody acts, is
in no pair. Where a time limit or the rollout cuts an episode, the last step's value bootstraps those before it, and
nothing is learned from that step.

A rollout ends before s_{t+c} is known for its last c steps. They wait: an update sees a window, those steps and the new
ones, and goes over them again, from the memory that the agent had before them. The worker learns from the new steps.

The paper's comparisons are settings: `dilation = 1`, `goal_horizon = 1`, `directional_goals = False` (absolute goals,
s_{t+c} in place of s_{t+c} − s_t), `extrinsic_weight = 0` (purely feudal). Its sizes for Atari are d = 256, k = 16, a
worker's LSTM of 256, and rollouts of 400 steps; its discounts 0.95 and 0.99, and for Montezuma's Revenge 0.99 and
0.999.

Departures from the paper, whose code was never published:
- Environments side by side and Adam instead of asynchronous workers that share RMSProp's averages; an advantage is
  the λ-return's, which for λ = 1 is the paper's.
- Perception is a network for small pictures and vectors.
- ĝ sums the last r outputs, one of each core; the paper's sums the last c, and has c = r.
- Heads start at zero: from random ones the first policies were so one-sided that no episode was ever paid, and values
  of nothing grew from update to update.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from gymnax.environments import spaces

from jaxrl_hier.checks import UsageError, require_fraction, require_positive
from jaxrl_hier.engine.evaluation import play
from jaxrl_hier.engine.loops import begin_worlds, episode_metrics
from jaxrl_hier.engine.rollout import ended, episode_totals, rollout
from jaxrl_hier.engine.types import (
    ActInput,
    Agent,
    Algorithm,
    Metrics,
    NamedArray,
    Params,
    Tasks,
    TrainState,
    Transition,
    World,
)
from jaxrl_hier.learning.advantages import discounted_sum
from jaxrl_hier.learning.distributions import Categorical
from jaxrl_hier.learning.networks import MLP, Dense, GridEncoder, encoder_for, is_array, kind_of
from jaxrl_hier.learning.optimization import OptimizerConfig, check_optimizer, optimizer_of
from jaxrl_hier.learning.recurrent import lstm
from jaxrl_hier.learning.vectors import cosine, normalised
from jaxrl_hier.relations import Relation, at_least, multiple, require
from jaxrl_hier.settings import Rate


@dataclass(frozen=True)
class Config(OptimizerConfig):
    """Settings of FuN."""

    goal_horizon: int = 10
    """c, steps that a goal is for"""
    dilation: int = 10
    """r, cores of the manager's LSTM; 1: an ordinary LSTM"""
    directional_goals: bool = True
    """goals are directions; else places"""
    intrinsic_weight: float = 0.1
    """α, weight of the inner reward"""
    extrinsic_weight: float = 1.0
    """weight of the environment's reward for the worker; 0: purely feudal"""
    random_goals: float = 0.05
    """ε, probability of a random goal"""
    worker_discount: float = 0.95
    """γ of the worker"""
    manager_discount: float = 0.99
    """γ of the manager"""
    gae_lambda: float = 1.0
    """λ of the returns; 1: n-step, up to the rollout's end"""
    entropy_weight: float = 0.03
    """weight of the entropy bonus of the worker's policy"""
    critic_weight: float = 0.5
    """weight of the values' losses"""
    learning_rate: Rate = 2e-3
    """of Adam"""
    max_grad_norm: float | None = 0.5
    """bound on the norm of the whole gradient"""
    environments: int = 32
    """environments side by side"""
    rollout_length: int = 40
    """new steps of each environment per update, a multiple of the dilation"""
    channels: tuple[int, ...] = (16, 32)
    """convolutions of perception, for pictures [H, W, C]; none: a picture is a vector"""
    hidden: tuple[int, ...] = (64,)
    """layers of ReLU of perception, after the convolutions"""
    goal_size: int = 64
    """d, dimension of the manager's space, of its LSTM and of goals"""
    worker_size: int = 64
    """numbers in the worker's LSTM"""
    embedding_size: int = 16
    """k, dimension of the worker's goal w"""
    eval_episodes: int = 64
    """episodes that an evaluation plays"""

    renamed: ClassVar = {
        "horizon": "goal_horizon",
        "relative": "directional_goals",
        "intrinsic": "intrinsic_weight",
        "extrinsic": "extrinsic_weight",
        "trace": "gae_lambda",
        "entropy": "entropy_weight",
        "critic": "critic_weight",
        "length": "rollout_length",
        "space": "goal_size",
        "worker": "worker_size",
        "embedding": "embedding_size",
    }

    @staticmethod
    def relations(env: Any, tasks: Tasks) -> list[Relation]:
        return [
            multiple("rollout_length", "dilation"),
            at_least("rollout_length", "goal_horizon"),
        ]  # the steps that wait for their goal


class Carry(NamedTuple):
    """What the agent remembers within an episode. Zero stands for steps before it."""

    cores: Any  # (c, h) [r, d] of the manager's LSTM after the last r steps, oldest first
    worker: Any  # (c, h) [H] of the worker's LSTM
    goals: jax.Array  # [c, d] of the last c steps, oldest first


class Acted(NamedTuple):
    """What acting says about a step; the extras of a transition."""

    goal: jax.Array  # [d] g_t, the one that the worker was given


class Seen(NamedTuple):
    """What the networks say about the steps of a window: W in all, the last T of them new."""

    space: jax.Array  # [W, B, d] s_t
    goal: jax.Array  # [W, B, d] g_t as the manager would give it, without random ones
    manager_value: jax.Array  # [W, B]
    policy: Categorical  # [T, B]
    worker_value: jax.Array  # [T, B]


@struct.dataclass
class Waiting:
    """The steps that the manager has yet to learn from; every leaf has leading axis [B]."""

    before: World  # the environments before them
    steps: Transition  # [B, n, ...]


# Directions and rewards


def time_in_episode(age: jax.Array, first: jax.Array) -> jax.Array:
    """Steps since the episode's start, [T, B] int32, where `age` [B] steps had been taken before the first row."""
    t = jnp.arange(first.shape[0], dtype=jnp.int32)[:, None]
    return t - jax.lax.cummax(jnp.where(first, t, -age), axis=0)


def back(before: jax.Array, x: jax.Array, time: jax.Array, i: int) -> jax.Array:
    """x_{t−i} [T, B, ...], and zero where that step belongs to an earlier episode.

    Args:
        before: [B, n, ...], the n ≥ i steps before the first row of x [T, B, ...], oldest first.
        time: [T, B], steps since the episode's start.
    """
    everything = jnp.concatenate([jnp.moveaxis(before, 1, 0), x])
    begin = before.shape[1] - i
    return jnp.where((time >= i)[..., None], everything[begin : begin + len(x)], 0.0)


def intrinsic_reward(space: jax.Array, goal: jax.Array, time: jax.Array, horizon: int, relative: bool) -> jax.Array:
    """r^I_t [T, B] of arriving in s_t; of a window's first c rows only pairs within the window count.

    Args:
        space, goal: [T, B, d]. time: [T, B], steps since the episode's start.
    """
    nothing = jnp.zeros((goal.shape[1], horizon, goal.shape[2]))
    total = jnp.zeros(goal.shape[:2])
    for i in range(1, horizon + 1):
        origin = back(nothing, space, time, i) if relative else 0.0
        total += cosine(space - origin, back(nothing, goal, time, i))
    return total / horizon


def advantages(
    reward: jax.Array, value: jax.Array, t: Transition, discount: Any, trace: Any
) -> tuple[jax.Array, jax.Array]:
    """A_t [T, B] over a window, and the weight [T, B] of its steps: 0 where what follows is unknown, else 1.

    Unknown is what follows the last row and a time limit, unless the task ended there. The value of such a step
    bootstraps those before it, and its own advantage is zero.
    """
    last = jnp.arange(len(reward))[:, None] == len(reward) - 1
    cut = t.truncated | (last & ~t.terminated)
    following = jnp.concatenate([value[1:], value[-1:]])
    error = reward + discount * jnp.where(t.terminated, 0.0, following) - value
    going_on = jnp.where(t.terminated | cut, 0.0, discount * trace)
    return discounted_sum(jnp.where(cut, 0.0, error), going_on), jnp.where(cut, 0.0, 1.0)


# The dilated LSTM


def dilated_step(params: Params, cores: Any, s: jax.Array) -> tuple[Any, jax.Array]:
    """Cores and ĝ_t [d] after one step; the core that is oldest takes its turn. cores: (c, h) [r, d]. s: [d]."""
    memory = lstm(s.shape[-1])
    after, _ = memory.step(params, jax.tree.map(lambda x: x[0], cores), s)
    cores = jax.tree.map(lambda x, new: jnp.concatenate([x[1:], new[None]]), cores, after)
    return cores, jnp.sum(cores[1], axis=0)


def dilated_unroll(params: Params, cores: Any, s: jax.Array, time: jax.Array) -> jax.Array:
    """ĝ_t [T, B, d] of all steps, T a multiple of r: the cores, which know nothing of each other, side by side.

    Args:
        cores: (c, h) [B, r, d] before the first step. s: [T, B, d]. time: [T, B], steps since the episode's start.
    """
    length, batch, size = s.shape
    r = cores[1].shape[1]
    fold = lambda x: x.reshape(length // r, r * batch, *x.shape[2:])
    carry = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0).reshape(r * batch, size), cores)
    _, h = lstm(size).unroll(params, carry, fold(s), fold(time < r))
    h = h.reshape(length, batch, size)
    return sum((back(cores[1], h, time, i) for i in range(1, r)), h)


# The network


class Network(NamedTuple):
    """The functions that FuN's parameters are used by, of `network`."""

    init: Callable[[jax.Array], Params]
    start: Callable[[], Carry]
    perceive: Callable[[Params, Any], tuple[Any, jax.Array]]  # observations -> z [..., F] and s [..., d]
    act: Callable[[Params, Carry, ActInput, jax.Array, bool], tuple[jax.Array, Carry, Acted]]
    unroll: Callable[[Params, World, World, Transition, jax.Array], Seen]
    # params, world before the window, world before its new steps, window [W, B, ...], time [W, B] -> what is seen


def network(config: Config, env: Any) -> Network:
    """FuN's networks for an environment."""
    observations = env.observation_space(env.default_params)
    num_actions = env.action_space(env.default_params).n
    d, k, c, r = config.goal_size, config.embedding_size, config.goal_horizon, config.dilation
    picture = len(observations.shape) == 3 and bool(config.channels)
    layers: list[Any] = [GridEncoder(config.channels)] if picture else []
    if config.hidden:
        layers += [MLP(config.hidden), nn.relu]
    percept = nn.Sequential(layers)
    encode = (lambda obs: obs.astype(jnp.float32)) if picture else encoder_for(observations)
    head = lambda size: Dense(size, kernel_init=nn.initializers.zeros)
    to_space, to_policy, to_value = Dense(d), head(num_actions * k), head(1)
    manager, worker = lstm(d), lstm(config.worker_size)

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key, 8)
        blank = encode(jnp.zeros(observations.shape, observations.dtype))
        z, perceiving = percept.init_with_output(keys[0], blank)
        features: Any = z
        return {
            "percept": perceiving,
            "space": to_space.init(keys[1], features),
            "manager": manager.init(keys[2], d),
            "manager_value": to_value.init(keys[3], jnp.zeros(d)),
            "worker": worker.init(keys[4], features.shape[-1]),
            "worker_value": to_value.init(keys[5], jnp.zeros(config.worker_size)),
            "policy": to_policy.init(keys[6], jnp.zeros(config.worker_size)),
            "embedding": nn.initializers.lecun_normal()(keys[7], (d, k)),
        }

    def start() -> Carry:
        cores = jax.tree.map(lambda x: jnp.broadcast_to(x, (r, d)), manager.start())
        return Carry(cores, worker.start(), jnp.zeros((c, d)))

    def perceive(params: Params, obs: Any) -> tuple[Any, jax.Array]:
        z: Any = percept.apply(params["percept"], encode(obs))
        s: Any = to_space.apply(params["space"], z)
        return z, nn.relu(s)

    def policy(params: Params, u: jax.Array, goals: jax.Array) -> Categorical:
        """π from the worker's output and the sum of goals; the goals are not the worker's to change."""
        w = jax.lax.stop_gradient(goals) @ params["embedding"]
        rows: Any = to_policy.apply(params["policy"], u)
        rows = rows.reshape(*rows.shape[:-1], num_actions, k)
        return Categorical(jnp.sum(rows * w[..., None, :], axis=-1))

    def value(params: Params, x: jax.Array) -> Any:
        v: Any = to_value.apply(params, x)
        return v[..., 0]

    def act(params: Params, carry: Carry, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Carry, Acted]:
        z, s = perceive(params, inp.obs)
        cores, output = dilated_step(params["manager"], carry.cores, s)
        key_action, key_explore, key_goal = jax.random.split(key, 3)
        goal = normalised(output)
        if not greedy:
            explores = jax.random.uniform(key_explore) < config.random_goals
            goal = jnp.where(explores, normalised(jax.random.normal(key_goal, (d,))), goal)
        memory, u = worker.step(params["worker"], carry.worker, z)
        choice = policy(params, u, jnp.sum(carry.goals, axis=0) + goal)
        action = choice.mode() if greedy else choice.sample(key_action)
        goals = jnp.concatenate([carry.goals[1:], goal[None]])
        return action, Carry(cores, memory, goals), Acted(goal)

    def unroll(params: Params, before: World, here: World, t: Transition, time: jax.Array) -> Seen:
        z, s = perceive(params, t.obs)
        output = dilated_unroll(params["manager"], before.carry.cores, s, time)
        new = slice(len(time) - config.rollout_length, None)
        _, u = worker.unroll(params["worker"], here.carry.worker, z[new], t.first[new])
        goal = t.extras.goal
        goals = sum((back(before.carry.goals, goal, time, i) for i in range(1, c + 1)), goal)
        return Seen(
            space=s,
            goal=normalised(output),
            manager_value=value(params["manager_value"], output),
            policy=policy(params, u, goals[new]),
            worker_value=value(params["worker_value"], u),
        )

    return Network(init, start, perceive, act, unroll)


def losses(seen: Seen, t: Transition, time: jax.Array, config: Config) -> dict[str, jax.Array]:
    """The terms of the loss, each a mean over steps: "manager", "manager_critic", "worker", "worker_critic", "entropy";
    and "cosine" and "inner_reward", how well goals were followed.

    Args:
        seen: of the window t [W, B, ...]. time: [W, B], steps since the episode's start.
    """
    c, length = config.goal_horizon, config.rollout_length
    waited = len(time) - length
    here, there, new = slice(waited - c, -c), slice(waited, None), slice(waited, None)
    fixed = jax.lax.stop_gradient(seen)

    advantage, weight = advantages(t.reward, fixed.manager_value, t, config.manager_discount, config.gae_lambda)
    target, weight = (advantage + fixed.manager_value)[here], weight[here]
    towards = fixed.space[there] - fixed.space[here] if config.directional_goals else fixed.space[there]
    together = weight * (time[there] >= c)  # t + c in the same episode
    alignment = cosine(towards, seen.goal[here])
    terms = {
        "manager": -advantage[here] * alignment * together,
        "manager_critic": 0.5 * (target - seen.manager_value[here]) ** 2 * weight,
        "cosine": alignment * together,
    }

    inner = intrinsic_reward(fixed.space, t.extras.goal, time, c, config.directional_goals)[new]
    now = jax.tree.map(lambda x: x[new], t)
    arriving = jnp.where(ended(now), 0.0, jnp.concatenate([inner[1:], inner[-1:]]))
    reward = config.extrinsic_weight * now.reward + config.intrinsic_weight * arriving
    advantage, weight = advantages(reward, fixed.worker_value, now, config.worker_discount, config.gae_lambda)
    target = advantage + fixed.worker_value
    terms |= {
        "worker": -seen.policy.log_prob(now.action) * jax.lax.stop_gradient(advantage) * weight,
        "worker_critic": 0.5 * (jax.lax.stop_gradient(target) - seen.worker_value) ** 2 * weight,
        "entropy": seen.policy.entropy(),
        "inner_reward": inner,
    }
    return {name: jnp.mean(x) for name, x in terms.items()}


# The algorithm


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """FuN on an environment with Discrete actions and observations that an array holds.

    Learner: the state of Adam. Memory: the steps that wait, of which the first are played by `init` and not counted.

    Raises:
        UsageError: a setting that cannot work, or actions that are not Discrete.
    """
    require_positive(config, "goal_horizon", "dilation", "goal_size", "worker_size", "embedding_size")
    check_optimizer(config)
    require_positive(config, "learning_rate", "environments", "rollout_length", "eval_episodes")
    require_positive(config, "intrinsic_weight", "extrinsic_weight", "entropy_weight", "critic_weight", or_zero=True)
    require_fraction(config, "random_goals", "worker_discount", "manager_discount", "gae_lambda")
    if not all(size > 0 for size in (*config.channels, *config.hidden)):
        raise UsageError(f"layers must have positive sizes, got {config.channels} and {config.hidden}")
    if not (config.channels or config.hidden):
        raise UsageError("perception needs at least one layer: give hidden, or channels for pictures")
    require(config, config.relations(env, tasks))
    waiting = (
        -(-config.goal_horizon // config.dilation) * config.dilation
    )  # at least c steps, and whole turns of the cores
    actions = env.action_space(env.default_params)
    if not isinstance(actions, spaces.Discrete):
        raise UsageError(
            f"FuN needs discrete actions, for its worker's softmax policy; {env.name} has {type(actions).__name__} "
            "actions. Use hiro"
        )
    observations = env.observation_space(env.default_params)
    if not is_array(observations):
        raise UsageError(
            f"FuN needs observations that an array holds, Discrete or Box; {env.name} has {kind_of(observations)} "
            "observations"
        )
    net = network(config, env)
    optimizer = optimizer_of(config, config.learning_rate, rule=partial(optax.adam, eps=1e-5))
    agent = Agent(init=net.init, start=lambda params, key: net.start(), act=net.act)

    def loss(
        params: Params, before: World, here: World, t: Transition, time: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        terms = losses(net.unroll(params, before, here, t, time), t, time, config)
        critics = config.critic_weight * (terms["manager_critic"] + terms["worker_critic"])
        return terms["manager"] + terms["worker"] + critics - config.entropy_weight * terms["entropy"], terms

    def collect(params: Params, world: World) -> tuple[World, Waiting, Transition]:
        """`length` steps [T, B], of which the last wait for what follows."""
        between, early = rollout(env, agent, tasks, params, world, config.rollout_length - waiting)
        after, late = rollout(env, agent, tasks, params, between, waiting)
        joined = jax.tree.map(lambda *x: jnp.concatenate(x), early, late)
        return after, Waiting(between, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), late)), joined

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        held: Waiting = state.memory
        world, memory, steps = collect(state.params, state.world)
        window = jax.tree.map(lambda old, new: jnp.concatenate([jnp.moveaxis(old, 1, 0), new]), held.steps, steps)
        time = time_in_episode(held.before.ep_length, window.first)
        gradient, terms = jax.grad(loss, has_aux=True)(state.params, held.before, state.world, window, time)
        change, learner = optimizer.update(gradient, state.learner, state.params)
        metrics = episode_metrics(*episode_totals(state.world, steps), ended(steps)) | {
            "goal_cosine": terms["cosine"],
            "inner_reward": terms["inner_reward"],
            "manager_critic_loss": terms["manager_critic"],
            "worker_critic_loss": terms["worker_critic"],
            "policy_entropy": terms["entropy"],
            "grad_norm": optax.global_norm(gradient),
        }
        params = optax.apply_updates(state.params, change)
        return TrainState(params, learner, world, memory, state.key, state.iteration + 1), metrics

    def init(key: jax.Array) -> TrainState:
        key, key_params, key_world = jax.random.split(key, 3)
        params = net.init(key_params)
        before = begin_worlds(env, agent, tasks, params, key_world, config.environments)
        world, steps = rollout(env, agent, tasks, params, before, waiting)
        memory = Waiting(before, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), steps))
        return TrainState(params, optimizer.init(params), world, memory, key, jnp.zeros((), jnp.int32))

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """As `play` has it, acting as in training."""
        return play(env, agent, tasks, state.params, key, config.eval_episodes, greedy=False)

    env_steps = config.environments * config.rollout_length
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=env_steps)
