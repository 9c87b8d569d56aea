"""Feudal networks (FuN): a manager sets directions in a space that it learns, and a worker acts (Vezhnevets et al.,
ICML 2017).

Perception turns an observation into z_t, and a layer of ReLU turns that into s_t, a point in the manager's space.

    manager  ĝ_t = Σ_{i<r} h_{t−i},   h_t, state_t = LSTM(s_t, state_{t−r})    dilated: r cores that take turns
             g_t = ĝ_t / |ĝ_t|, or with probability ε a random direction
    worker   w_t = φ Σ_{i=0..c} g_{t−i},   φ linear, without bias
             π(· | t) = softmax(U_t w_t),   U_t [A, k] from an LSTM of z_t

    manager's loss     −A^M_t cos(s_{t+c} − s_t, g_t)                            s held fixed, g_t learned
    worker's loss      −A^D_t log π(a_t | t)                                     goals held fixed
    intrinsic reward   r^I_t = 1/c Σ_{i=1..c} cos(s_t − s_{t−i}, g_{t−i})        on arriving in t

A^M is the advantage for the environment's reward and the manager's discount, A^D that for r + α r^I and the worker's
discount. Each level has a linear value of its LSTM's output; the loss adds ½ (return − value)², times `critic_weight`,
and subtracts an entropy bonus. Up to constants cos is the logarithm of a von Mises-Fisher density: the manager's loss
is a policy gradient for the direction in which the worker will have moved after c steps.

Nothing crosses the end of an episode: goals, outputs and states of an earlier episode count as zero, a pair (t, t + c)
with an end in between is left out, and so is the last state of an episode, in which nobody acts. Where a time limit or
the end of the rollout cuts an episode, the value of its last step bootstraps the steps before it, and that step itself
is left out.

At the end of a rollout s_{t+c} is not yet known for the last c steps. They wait: an update sees a window of those steps
and the new ones, and unrolls the manager over all of them from the memory that it had before them. The worker learns
from the new steps only.

The ablations of the paper are settings: `dilation = 1`, `goal_horizon = 1`, `directional_goals = False` (absolute
goals, s_{t+c} in place of s_{t+c} − s_t), `extrinsic_weight = 0` (purely feudal). Its sizes for Atari are d = 256, k =
16, a worker's LSTM of 256 and rollouts of 400 steps; its discounts are 0.95 and 0.99, and for Montezuma's Revenge 0.99
and 0.999.

Departures from the paper, whose code was never published:
- Environments side by side and Adam replace asynchronous workers that share RMSProp's averages. Advantages are those of
  the λ-return; λ = 1 is the paper's.
- Perception is a network for small pictures and vectors.
- ĝ sums the last r outputs, one of each core; the paper sums the last c, and has c = r.
- Heads start at zero. With random ones the first policies were so one-sided that no episode was ever rewarded, while
  the estimated values grew with every update.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl_hier.checks import UsageError, require_fraction, require_positive
from jaxrl_hier.engine.evaluation import play, present
from jaxrl_hier.engine.loops import begin_worlds, episode_metrics
from jaxrl_hier.engine.rollout import ended, episode_totals, require_time_limit, rollout
from jaxrl_hier.engine.sharding import mean_over_devices
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
from jaxrl_hier.learning import dilated_lstm
from jaxrl_hier.learning.advantages import discounted_sum
from jaxrl_hier.learning.dilated_lstm import delayed
from jaxrl_hier.learning.distributions import Categorical
from jaxrl_hier.learning.networks import (
    MLP,
    Dense,
    GridEncoder,
    encoder_for,
    require_array_observations,
    require_discrete_actions,
)
from jaxrl_hier.learning.normalization import as_seen, learned, normalized, updated
from jaxrl_hier.learning.optimization import OptimizerConfig, check_optimizer, optimizer_of
from jaxrl_hier.learning.recurrent import Memory, lstm
from jaxrl_hier.learning.vectors import cosine, normalised
from jaxrl_hier.relations import Relation, at_least, multiple, require
from jaxrl_hier.settings import Rate


@dataclass(frozen=True)
class Config(OptimizerConfig):
    """Settings of FuN."""

    goal_horizon: int = 10
    """steps that a goal is for (c)"""
    dilation: int = 10
    """cores of the manager's dilated LSTM (r); 1: an ordinary LSTM"""
    directional_goals: bool = True
    """goals are directions from the present state; False: absolute places"""
    intrinsic_weight: float = 0.1
    """weight of the intrinsic reward in the worker's reward (α), at least 0"""
    extrinsic_weight: float = 1.0
    """weight of the environment's reward in the worker's reward, at least 0; 0: purely feudal"""
    random_goals: float = 0.05
    """probability that a goal is a random direction (ε), in [0, 1]"""
    worker_discount: float = 0.95
    """discount of the worker (γ), in [0, 1]"""
    manager_discount: float = 0.99
    """discount of the manager (γ), in [0, 1]"""
    gae_lambda: float = 1.0
    """decay of the advantages (λ), in [0, 1]; 1: n-step returns up to the end of the rollout"""
    entropy_weight: float = 0.03
    """weight of the entropy bonus of the worker's policy, at least 0"""
    critic_weight: float = 0.5
    """weight of the value losses of both levels, at least 0"""
    learning_rate: Rate = 2e-3
    """learning rate of Adam"""
    max_grad_norm: float | None = 0.5
    """bound on the norm of the whole gradient; None: no bound"""
    environments: int = 32
    """environments side by side"""
    rollout_length: int = 40
    """new steps of each environment per iteration, which is one update; a multiple of the dilation"""
    channels: tuple[int, ...] = (16, 32)
    """channels of the perception's convolutions, for pictures [H, W, C]; none: a picture is flattened"""
    hidden: tuple[int, ...] = (64,)
    """layers of ReLU of the perception, after the convolutions"""
    goal_size: int = 64
    """numbers in the manager's state, its LSTM and its goals (d)"""
    worker_size: int = 64
    """numbers in the worker's LSTM"""
    embedding_size: int = 16
    """numbers in the embedded goal w (k)"""
    normalize_observations: bool = False
    """standardise observations by their running mean and standard deviation"""
    eval_episodes: int = 64
    """episodes per evaluation"""

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
            at_least("rollout_length", "goal_horizon"),  # the steps that wait for their goal
            Relation(
                counts=("rollout_length",),
                fits=lambda s: s.rollout_length != 1,
                gives={"rollout_length": lambda s: 2 * s.dilation},
                message=lambda s: (
                    "rollout_length must be at least 2, got 1: the value of its last step stands for what follows, and "
                    "the worker learns nothing from that step itself"
                ),
            ),
        ]


class Carry(NamedTuple):
    """What the agent remembers within an episode; zeros stand for the steps before it."""

    cores: Any  # (c, h) [r, d] of the manager's LSTM after the last r steps, oldest first
    worker: Any  # (c, h) [H] of the worker's LSTM
    goals: jax.Array  # [c, d] of the last c steps, oldest first


class Acted(NamedTuple):
    """The extras of a transition."""

    goal: jax.Array  # [d] g_t, as the worker was given it


class Seen(NamedTuple):
    """The outputs of the networks over a window: W steps in all, of which the last T are new."""

    space: jax.Array  # [W, B, d] s_t
    goal: jax.Array  # [W, B, d] g_t of the manager, without random ones
    manager_value: jax.Array  # [W, B]
    policy: Categorical  # [T, B]
    worker_value: jax.Array  # [T, B]


@struct.dataclass
class Waiting:
    """`TrainState.memory`: the steps whose s_{t+c} is not yet known; every leaf has leading axis [B]."""

    before: World  # the environments before these steps
    steps: Transition  # [B, n, ...]


# Rewards, advantages and losses


def time_in_episode(age: jax.Array, first: jax.Array) -> jax.Array:
    """Steps since the episode's start, [T, B] int32, where the episodes of the first row had `age` [B] steps before it.

    Args:
        first: [T, B] bool, an episode's first step.
    """
    t = jnp.arange(first.shape[0], dtype=jnp.int32)[:, None]
    return t - jax.lax.cummax(jnp.where(first, t, -age), axis=0)


def intrinsic_reward(
    space: jax.Array, goal: jax.Array, time: jax.Array, goal_horizon: int, directional: bool
) -> jax.Array:
    """r^I_t [T, B] of arriving in s_t. In the first c rows only pairs within the window count.

    Args:
        space, goal: [T, B, d]. time: [T, B], steps since the episode's start.
    """
    nothing = jnp.zeros((goal.shape[1], goal_horizon, goal.shape[2]))
    total = jnp.zeros(goal.shape[:2])
    for i in range(1, goal_horizon + 1):
        origin = delayed(nothing, space, time, i) if directional else 0.0
        total += cosine(space - origin, delayed(nothing, goal, time, i))
    return total / goal_horizon


def advantages(
    reward: jax.Array, value: jax.Array, t: Transition, discount: Any, gae_lambda: Any
) -> tuple[jax.Array, jax.Array]:
    """A_t [T, B] over a window, and the weight [T, B] of its steps: 0 where the next value is unknown, else 1.

    It is unknown after the last row and after a time limit, unless the task ended there. The value of such a step
    bootstraps the steps before it, and its own advantage is zero.
    """
    last = jnp.arange(len(reward))[:, None] == len(reward) - 1
    cut = t.truncated | (last & ~t.terminated)
    following = jnp.concatenate([value[1:], value[-1:]])
    error = reward + discount * jnp.where(t.terminated, 0.0, following) - value
    going_on = jnp.where(t.terminated | cut, 0.0, discount * gae_lambda)
    return discounted_sum(jnp.where(cut, 0.0, error), going_on), jnp.where(cut, 0.0, 1.0)


def losses(seen: Seen, t: Transition, time: jax.Array, config: Config) -> dict[str, jax.Array]:
    """The terms of the loss, each a sum over the steps that count, divided by the number of all steps: "manager",
    "manager_critic", "worker", "worker_critic", "entropy"; and means that measure how well goals were followed,
    "cosine", over pairs of steps in one episode, and "inner_reward".

    Args:
        seen: of the window t [W, B, ...]. time: [W, B], steps since the episode's start.
    """
    terms = manager_losses(seen, t, time, config) | worker_losses(seen, t, time, config)
    return {name: jnp.mean(x) for name, x in terms.items()}


def manager_losses(seen: Seen, t: Transition, time: jax.Array, config: Config) -> dict[str, jax.Array]:
    """The manager's terms of `losses`, of the T steps [T, B] that lie c steps before the window's last T."""
    c, fixed = config.goal_horizon, jax.lax.stop_gradient(seen)
    waited = len(time) - config.rollout_length
    here, there = slice(waited - c, -c), slice(waited, None)
    advantage, weight = advantages(t.reward, fixed.manager_value, t, config.manager_discount, config.gae_lambda)
    target, weight = (advantage + fixed.manager_value)[here], weight[here]
    towards = fixed.space[there] - fixed.space[here] if config.directional_goals else fixed.space[there]
    together = weight * (time[there] >= c)  # t + c in the same episode
    alignment = cosine(towards, seen.goal[here])
    return {
        "manager": -advantage[here] * alignment * together,
        "manager_critic": 0.5 * (target - seen.manager_value[here]) ** 2 * weight,
        "cosine": alignment * together / jnp.maximum(jnp.mean(together), 1e-8),
    }


def worker_losses(seen: Seen, t: Transition, time: jax.Array, config: Config) -> dict[str, jax.Array]:
    """The worker's terms of `losses`, of the window's last T steps [T, B]."""
    fixed, new = jax.lax.stop_gradient(seen), slice(len(time) - config.rollout_length, None)
    inner = intrinsic_reward(fixed.space, t.extras.goal, time, config.goal_horizon, config.directional_goals)[new]
    now = jax.tree.map(lambda x: x[new], t)
    arriving = jnp.where(ended(now), 0.0, jnp.concatenate([inner[1:], inner[-1:]]))
    reward = config.extrinsic_weight * now.reward + config.intrinsic_weight * arriving
    advantage, weight = advantages(reward, fixed.worker_value, now, config.worker_discount, config.gae_lambda)
    target = advantage + fixed.worker_value
    return {
        "worker": -seen.policy.log_prob(now.action) * jax.lax.stop_gradient(advantage) * weight,
        "worker_critic": 0.5 * (jax.lax.stop_gradient(target) - seen.worker_value) ** 2 * weight,
        "entropy": seen.policy.entropy(),
        "inner_reward": inner,
    }


# The network


class Network(NamedTuple):
    """The modules of FuN for an environment, `network_of`; the functions below apply them to its parameters."""

    blank: jax.Array  # an observation of zeros
    encode: Any  # observations [..., *shape] -> inputs of the perception
    percept: nn.Module  # -> z [..., F]
    to_space: nn.Module  # z -> s before the ReLU [..., d]
    to_policy: nn.Module  # the worker's output -> U [..., A k]
    to_value: nn.Module  # the output of either LSTM -> its value [..., 1]
    worker: Memory


def network_of(config: Config, env: Any) -> Network:
    """The modules for an environment with Discrete actions and observations that fit in an array."""
    observations = env.observation_space(env.default_params)
    picture = len(observations.shape) == 3 and bool(config.channels)
    layers: list[Any] = [GridEncoder(config.channels)] if picture else []
    if config.hidden:
        layers += [MLP(config.hidden), nn.relu]
    head = lambda size: Dense(size, kernel_init=nn.initializers.zeros)
    return Network(
        blank=jnp.zeros(observations.shape, observations.dtype),
        encode=(lambda obs: obs.astype(jnp.float32)) if picture else encoder_for(observations),
        percept=nn.Sequential(layers),
        to_space=Dense(config.goal_size),
        to_policy=head(env.action_space(env.default_params).n * config.embedding_size),
        to_value=head(1),
        worker=lstm(config.worker_size),
    )


def init_params(config: Config, network: Network, key: jax.Array) -> Params:
    """The parameters, by module."""
    keys = jax.random.split(key, 8)
    d, worker_output = config.goal_size, jnp.zeros(config.worker_size)
    z, percept = network.percept.init_with_output(keys[0], network.encode(network.blank))
    features: Any = z
    return {
        "percept": percept,
        "space": network.to_space.init(keys[1], features),
        "manager": dilated_lstm.init(keys[2], d),
        "manager_value": network.to_value.init(keys[3], jnp.zeros(d)),
        "worker": network.worker.init(keys[4], features.shape[-1]),
        "worker_value": network.to_value.init(keys[5], worker_output),
        "policy": network.to_policy.init(keys[6], worker_output),
        "embedding": nn.initializers.lecun_normal()(keys[7], (d, config.embedding_size)),
    }


def start(config: Config, network: Network) -> Carry:
    """The carry before an episode's first step."""
    goals = jnp.zeros((config.goal_horizon, config.goal_size))
    return Carry(dilated_lstm.start(config.goal_size, config.dilation), network.worker.start(), goals)


def perceive(network: Network, params: Params, obs: Any) -> tuple[Any, jax.Array]:
    """z [..., F] and s [..., d] of observations [..., *shape]."""
    z: Any = network.percept.apply(params["percept"], network.encode(obs))
    s: Any = network.to_space.apply(params["space"], z)
    return z, nn.relu(s)


def policy(network: Network, params: Params, u: jax.Array, goals: jax.Array) -> Categorical:
    """π [...] from the worker's output u [..., H] and the sum of goals [..., d], through which nothing is learned."""
    w = jax.lax.stop_gradient(goals) @ params["embedding"]
    rows: Any = network.to_policy.apply(params["policy"], u)
    rows = rows.reshape(*rows.shape[:-1], -1, w.shape[-1])  # U [..., A, k]
    return Categorical(jnp.sum(rows * w[..., None, :], axis=-1))


def act(
    config: Config, network: Network, params: Params, carry: Carry, inp: ActInput, key: jax.Array, greedy: bool
) -> tuple[jax.Array, Carry, Acted]:
    """One step of both levels: an action []; greedily the likeliest one, and no random goals."""
    z, s = perceive(network, params, inp.obs)
    cores, output = dilated_lstm.step(params["manager"], carry.cores, s)
    key_action, key_explore, key_goal = jax.random.split(key, 3)
    goal = normalised(output)
    if not greedy:
        explores = jax.random.uniform(key_explore) < config.random_goals
        goal = jnp.where(explores, normalised(jax.random.normal(key_goal, goal.shape)), goal)
    memory, u = network.worker.step(params["worker"], carry.worker, z)
    choice = policy(network, params, u, jnp.sum(carry.goals, axis=0) + goal)
    action = choice.mode() if greedy else choice.sample(key_action)
    goals = jnp.concatenate([carry.goals[1:], goal[None]])
    return action, Carry(cores, memory, goals), Acted(goal)


def unroll(
    config: Config, network: Network, params: Params, before: World, here: World, t: Transition, time: jax.Array
) -> Seen:
    """The networks over a window.

    Args:
        before, here: the environments [B] before the window and before its last T steps, with the memory to start from.
        t: the window [W, B, ...]. time: [W, B], steps since the episode's start.
    """
    z, s = perceive(network, params, t.obs)
    output = dilated_lstm.unroll(params["manager"], before.carry.cores, s, time)
    new = slice(len(time) - config.rollout_length, None)
    _, u = network.worker.unroll(params["worker"], here.carry.worker, z[new], t.first[new])
    goal = t.extras.goal
    goals = sum((delayed(before.carry.goals, goal, time, i) for i in range(1, config.goal_horizon + 1)), goal)
    manager_value: Any = network.to_value.apply(params["manager_value"], output)
    worker_value: Any = network.to_value.apply(params["worker_value"], u)
    return Seen(
        space=s,
        goal=normalised(output),
        manager_value=manager_value[..., 0],
        policy=policy(network, params, u, goals[new]),
        worker_value=worker_value[..., 0],
    )


def loss(
    params: Params,
    config: Config,
    network: Network,
    before: World,
    here: World,
    t: Transition,
    time: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss [] of a window, with arguments as of `unroll`, and its terms."""
    terms = losses(unroll(config, network, params, before, here, t, time), t, time, config)
    critics = config.critic_weight * (terms["manager_critic"] + terms["worker_critic"])
    return terms["manager"] + terms["worker"] + critics - config.entropy_weight * terms["entropy"], terms


# The algorithm


class Setup(NamedTuple):
    """What stays the same through a run."""

    config: Config
    env: Any
    tasks: Tasks
    network: Network
    agent: Agent
    optimizer: optax.GradientTransformation

    @property
    def waiting(self) -> int:
        """Steps that wait for the ends of their goals: at least c, and whole turns of the cores."""
        return -(-self.config.goal_horizon // self.config.dilation) * self.config.dilation


def collect(setup: Setup, params: Params, world: World, length: int) -> tuple[World, Waiting, Transition]:
    """Collect `length` steps [T, B] and then those that wait. Returns the worlds, the latter, and all new steps."""
    of = setup.env, setup.agent, setup.tasks, params
    between, early = rollout(*of, world, length)
    after, late = rollout(*of, between, setup.waiting)
    steps = jax.tree.map(lambda *x: jnp.concatenate(x), early, late)
    return after, Waiting(between, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), late)), steps


def step(setup: Setup, state: TrainState) -> tuple[TrainState, Metrics]:
    """Learn from a window: the steps that waited, and new ones, of which the last wait in turn."""
    config, held = setup.config, state.memory
    world, memory, steps = collect(setup, state.params, state.world, config.rollout_length - setup.waiting)
    window = jax.tree.map(lambda old, new: jnp.concatenate([jnp.moveaxis(old, 1, 0), new]), held.steps, steps)
    time = time_in_episode(held.before.ep_length, window.first)
    window, params = window._replace(obs=as_seen(state.params, window.obs)), learned(state.params)
    slope = lambda params, *about: jax.grad(loss, has_aux=True)(params, config, setup.network, *about)
    about = (held.before, state.world, window, time)
    gradient, terms = mean_over_devices(slope, (None, 0, 0, 1, 1))(params, *about)
    change, learner = setup.optimizer.update(gradient, state.learner, params)
    metrics = episode_metrics(*episode_totals(state.world, steps), ended(steps)) | {
        "goal_cosine": terms["cosine"],
        "inner_reward": terms["inner_reward"],
        "manager_critic_loss": terms["manager_critic"],
        "worker_critic_loss": terms["worker_critic"],
        "policy_entropy": terms["entropy"],
        "grad_norm": optax.global_norm(gradient),
    }
    params = updated(state.params, optax.apply_updates(params, change), steps.obs)
    return TrainState(params, learner, world, memory, state.key, state.iteration + 1), metrics


def init(setup: Setup, key: jax.Array, params: Any = None) -> TrainState:
    """Parameters, new ones unless given, and the first steps that wait."""
    key, key_params, key_world = jax.random.split(key, 3)
    params = setup.agent.init(key_params) if params is None else params
    of = setup.env, setup.agent, setup.tasks, params
    before = begin_worlds(*of, key_world, setup.config.environments)
    world, steps = rollout(*of, before, setup.waiting)
    memory = Waiting(before, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), steps))
    params = updated(params, learned(params), steps.obs)
    return TrainState(params, setup.optimizer.init(learned(params)), world, memory, key, jnp.zeros((), jnp.int32))


def evaluate(setup: Setup, state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
    """Measurements of `play`, with actions and goals drawn as in training."""
    tasks, episodes = present(setup.tasks, state.world), setup.config.eval_episodes
    return play(setup.env, setup.agent, tasks, state.params, key, episodes, greedy=False)


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """FuN on an environment with Discrete actions and observations that fit in an array.

    Learner: the state of Adam. Memory: `Waiting`, whose first steps are taken by `init` and not counted.

    Raises:
        UsageError: a setting that cannot work, or actions that are not Discrete.
    """
    check(config, env, tasks)
    require_time_limit(env, tasks)
    network = network_of(config, env)
    optimizer = optimizer_of(config, config.learning_rate, rule=partial(optax.adam, eps=1e-5))
    agent = Agent(
        init=partial(init_params, config, network),
        start=lambda params, key: start(config, network),
        act=partial(act, config, network),
    )
    if config.normalize_observations:
        agent = normalized(agent, env.observation_space(env.default_params))
    setup = Setup(config, env, tasks, network, agent, optimizer)
    return Algorithm(
        init=partial(init, setup),
        step=partial(step, setup),
        evaluate=partial(evaluate, setup),
        agent=agent,
        env_steps=config.environments * config.rollout_length,
    )


def check(config: Config, env: Any, tasks: Tasks) -> None:
    """Raises UsageError for settings, actions or observations that cannot work."""
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
    require_discrete_actions(env, "FuN", instead="hiro")
    require_array_observations(env, "FuN")
