"""HIRO: a manager asks for changes of the state, a worker makes them, and both learn off-policy (Nachum, Gu, Lee &
Levine, NeurIPS 2018).

s denotes the coordinates of the state that goals are about (`goal_dimensions`). Every c steps of an episode the manager
sets a goal; in between the goal is shifted so that it keeps pointing at the same place:

    goal           g_t = μ_hi(state, target) + noise   every c steps;   otherwise g_t = h(s_{t−1}, g_{t−1}, s_t)
                   h(s, g, s') = s + g − s'
    worker         a_t = μ_lo(state, g_t) + noise,   intrinsic reward −|s_t + g_t − s_{t+1}|₂
    manager        one action every c steps; its reward is scale Σ r over them

Both levels are TD3 (jaxrl_hier.flat.td3). The worker's task is to reach s_t + g_t: the goal of the next
step is h(s_t, g_t, s_{t+1}). It ends where the environment terminates, and neither after c steps nor at a time limit.

The worker changes while it learns, so a stored goal no longer leads to the stored actions. The manager therefore learns
from a segment of c steps as if it had set another goal, the one of ten candidates under which the current worker would
most likely have taken the stored actions:

    candidates     g_t,   s_{t+c} − s_t,   and 8 samples of N(s_{t+c} − s_t, (½ range)²),   clipped to ± range
    choice         argmax  −½ Σ_{i=t}^{t+c−1} |a_i − μ_lo(state_i, g̃_i)|²,   g̃_{i+1} = h(s_i, g̃_i, s_{i+1})

One replay buffer serves both levels. It holds the worker's steps; a transition of the manager is a segment of them,
which is shorter where the episode ends. A segment is sampled by sampling one of its steps.

With `intrinsic_reward` = "cosine" the worker is rewarded for the direction of its step alone, cos(s_{t+1} − s_t, g_t),
as in the paper's "FuN cos similarity"; FuN's own reward looks back over c steps.

The worker sees neither the goal coordinates (`hide_goal_dimensions`), as in the authors' code, nor the target of an
environment with goals.

Departures from the paper and its code: inputs are standardised by running statistics, the critics minimise the squared
error instead of Huber's loss, and noise is given in units of the bounds. The paper's first episodes are random. Here
the actions before the first iteration are random, and later a share of the goals (`random_goals`) and all goals of the
first steps of a share of the episodes (`random_goals_at_start`): a manager whose episodes all start in the same way
never discovers an alternative route.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_envs.contract import name_of
from jaxrl_envs.goals import is_goal_env
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive
from jaxrl_hier.engine import replay as replay_memory
from jaxrl_hier.engine.evaluation import play, present
from jaxrl_hier.engine.loops import begin_replay, learning_from_memory, replay
from jaxrl_hier.engine.replay import Places, Ring
from jaxrl_hier.engine.types import (
    ActInput,
    Agent,
    Algorithm,
    Metrics,
    NamedArray,
    Tasks,
    TrainState,
    Transition,
)
from jaxrl_hier.flat import td3
from jaxrl_hier.learning.networks import encoder_for
from jaxrl_hier.learning.off_policy import action_scaling, check, memory_relations, require_bounds_of_all_tasks
from jaxrl_hier.learning.optimization import OptimizerConfig
from jaxrl_hier.learning.vectors import cosine
from jaxrl_hier.relations import Relation, largest_divisor, require
from jaxrl_hier.settings import Rate

SAMPLED_GOALS = 8  # candidates besides the stored goal and the change of the state


@dataclass(frozen=True)
class Config(OptimizerConfig):
    """Settings of HIRO; those that name no level are shared by both."""

    goal_horizon: int = 10
    """steps between two goals of the manager (c)"""
    goal_dimensions: tuple[int, ...] = (0, 1)
    """indices of the observation's numbers that goals are about"""
    goal_range: float = 10.0
    """bound on each coordinate of a goal, positive: goals lie in ± this"""
    intrinsic_reward: Literal["distance", "cosine"] = "distance"
    """the worker's reward: minus the distance between the goal and where a step ends, or the cosine between the goal
    and the step"""
    off_policy_correction: bool = True
    """relabel the manager's stored goals by those that best explain the worker's actions"""
    hide_goal_dimensions: bool = True
    """leave the goal dimensions out of what the worker sees"""
    reward_scale: float = 0.1
    """factor on the manager's rewards, positive"""
    exploration_noise: float = 0.1
    """standard deviation of the noise on the worker's actions, in units of their bounds"""
    goal_noise: float = 0.1
    """standard deviation of the noise on the manager's goals, in units of goal_range"""
    random_goals: float = 0.0
    """probability that a goal is uniformly random, in [0, 1]"""
    random_goals_at_start: float = 0.0
    """probability that an episode begins with random goals, for a uniformly random part of the time limit, in [0, 1]"""
    worker_discount: float = 0.99
    """discount of the worker (γ), per step, in [0, 1]"""
    manager_discount: float = 0.99
    """discount of the manager (γ), per goal_horizon steps, in [0, 1]"""
    learning_rate: Rate = 1e-3
    """learning rate of the critics (Adam)"""
    actor_learning_rate: Rate = 1e-4
    """learning rate of the actors (Adam)"""
    target_rate: float = 0.005
    """share by which target networks move towards the learned ones in each of their updates (τ), in [0, 1]"""
    policy_delay: int = 2
    """updates of the critics for each update of the actor and of the target networks"""
    target_noise: float = 0.2
    """standard deviation of the noise on actions in the targets, in units of their bounds"""
    target_noise_clip: float = 0.5
    """bound on that noise, in the same units"""
    batch_size: int = 100
    """steps in an update of the worker, and segments in an update of the manager"""
    environments: int = 10
    """environments side by side"""
    rollout_length: int = 10
    """steps of each environment per iteration"""
    manager_updates: int = 10
    """updates of the manager per iteration"""
    worker_update_ratio: int = 10
    """updates of the worker for each update of the manager"""
    capacity: int = 200_000
    """steps in the replay buffer, of all environments together"""
    warmup_steps: int = 2_500
    """steps with random actions in all environments before the first iteration, which does not count them"""
    hidden: tuple[int, ...] = (300, 300)
    """hidden layers of each network"""
    activation: Literal["relu", "tanh", "silu"] = "relu"
    """activation function of the hidden layers"""
    normalize_observations: bool = True
    """standardise inputs by their running mean and standard deviation (at least 0.01), and clip them to ±5"""
    eval_episodes: int = 50
    """episodes per evaluation"""

    renamed: ClassVar = {
        "horizon": "goal_horizon",
        "dimensions": "goal_dimensions",
        "reach": "goal_range",
        "inner": "intrinsic_reward",
        "correction": "off_policy_correction",
        "blind": "hide_goal_dimensions",
        "exploration": "exploration_noise",
        "goal_exploration": "goal_noise",
        "random_starts": "random_goals_at_start",
        "delay": "policy_delay",
        "smoothing": "target_noise",
        "smoothing_clip": "target_noise_clip",
        "batch": "batch_size",
        "length": "rollout_length",
        "updates": "manager_updates",
        "worker_updates": "worker_update_ratio",
        "warmup": "warmup_steps",
        "normalize": "normalize_observations",
    }

    @staticmethod
    def relations(env: Any, tasks: Tasks) -> list[Relation]:
        return [*memory_relations(tasks.time_limit()), *segment_relations(), dimension_relation(env)]


def segment_relations() -> list[Relation]:
    """The buffer holds two segments of each environment before the first update, so that one of them is whole."""
    before = lambda s: s.warmup_steps // s.environments + s.rollout_length
    return [
        Relation(
            counts=("rollout_length", "environments", "goal_horizon"),
            fits=lambda s: before(s) >= 2 * s.goal_horizon,
            gives={
                "warmup_steps": lambda s: s.environments * (2 * s.goal_horizon - s.rollout_length),
                "rollout_length": lambda s: 2 * s.goal_horizon - s.warmup_steps // s.environments,
                "environments": lambda s: max(s.warmup_steps // (2 * s.goal_horizon), 1),
                "goal_horizon": lambda s: max(before(s) // 2, 1),
            },
            message=lambda s: (
                f"warmup_steps and rollout_length must give each environment two segments ({2 * s.goal_horizon} steps) "
                f"before the first update, got {s.warmup_steps // s.environments} and {s.rollout_length}"
            ),
        ),
        Relation(
            counts=("capacity", "environments", "goal_horizon"),
            fits=lambda s: s.capacity // s.environments >= 2 * s.goal_horizon,
            gives={
                "capacity": lambda s: 2 * s.goal_horizon * s.environments,
                "environments": lambda s: largest_divisor(s.capacity, max(s.capacity // (2 * s.goal_horizon), 1)),
                "goal_horizon": lambda s: max(s.capacity // s.environments // 2, 1),
            },
            message=lambda s: (
                f"capacity must hold two segments ({2 * s.goal_horizon} steps) of each of {s.environments} "
                f"environments, got {s.capacity}"
            ),
        ),
    ]


def dimension_relation(env: Any) -> Relation:
    """Goals are about numbers that the observations have."""
    shape: tuple[int, ...] = getattr(state_space(env), "shape", ())
    exists = lambda d: len(shape) != 1 or 0 <= d < shape[0]
    return Relation(
        counts=(),
        fits=lambda s: bool(s.goal_dimensions) and all(map(exists, s.goal_dimensions)),
        gives={"goal_dimensions": lambda s: tuple(filter(exists, s.goal_dimensions))},
        message=lambda s: (
            f"goal_dimensions must name at least one of the {shape[0]} numbers of an observation, 0 to {shape[0] - 1}, "
            f"got {s.goal_dimensions}"
        ),
    )


def state_space(env: Any) -> Any:
    """The space of observations, without the goals of an environment that has some."""
    observations = env.observation_space(env.default_params)
    return observations.spaces["observation"] if is_goal_env(env) else observations


class Levels(NamedTuple):
    """One of these for each level: parameters, learner states, configs or functions."""

    worker: Any
    manager: Any


class Carry(NamedTuple):
    """What the agent remembers within an episode."""

    goal: jax.Array  # [D] g of the last step
    place: jax.Array  # [D] s of the last step
    age: jax.Array  # [] int32, steps since the manager set its last goal; c at the start
    wander: jax.Array  # [] int32, remaining steps in which goals are random


class Acted(NamedTuple):
    """The extras of a transition."""

    goal: jax.Array  # [D] g_t
    age: jax.Array  # [] int32, steps since the manager set it, 0 … c − 1


class Segment(NamedTuple):
    """The worker's steps under one goal of the manager; after the end of an episode its last step is repeated."""

    steps: Transition  # [N, c, ...]
    within: jax.Array  # [N, c] bool, steps before the end


class Inputs(NamedTuple):
    """What the levels see, as functions of arrays with any leading axes."""

    place: Callable[[Any], jax.Array]  # observations -> s [..., D]
    worker: Callable[[Any, jax.Array], jax.Array]  # observations, goals [..., D] -> the worker's inputs [..., F]
    manager: Callable[[Any], jax.Array]  # observations -> the manager's inputs [..., F]
    action: Callable[[jax.Array], jax.Array]  # actions -> [..., A] in [−1, 1]


# Goals and intrinsic rewards


def goal_transition(s: jax.Array, goal: jax.Array, s_next: jax.Array) -> jax.Array:
    """h(s, g, s') [..., D], the goal that points from s' at the place where g points from s."""
    return s + goal - s_next


def distance_reward(s: jax.Array, goal: jax.Array, s_next: jax.Array) -> jax.Array:
    """−|s + g − s'|₂ [...] of vectors [..., D]."""
    return -jnp.linalg.norm(s + goal - s_next, axis=-1)


def cosine_reward(s: jax.Array, goal: jax.Array, s_next: jax.Array) -> jax.Array:
    """cos(s' − s, g) [...] of vectors [..., D]; zero where either is zero."""
    return cosine(s_next - s, goal)


INTRINSIC_REWARDS = {"distance": distance_reward, "cosine": cosine_reward}


# Segments


def whole_segments(ring: Ring, horizon: int) -> Ring:
    """The ring without its c − 1 newest and oldest steps: the segments of all others are in the ring as a whole."""
    return replace(ring, slot=(ring.slot - (horizon - 1)) % ring.capacity, size=ring.size - 2 * (horizon - 1))


def read_segments(ring: Ring, places: Places, horizon: int) -> Segment:
    """The segments [N, c, ...] to which the steps at `places` [N] belong; the ring must hold them."""
    begin = replay_memory.shifted(ring, places, -ring.steps.extras.age[places])
    last = jnp.minimum(replay_memory.following(ring, begin), horizon - 1)[:, None]
    offset = jnp.arange(horizon, dtype=jnp.int32)
    every = Places(begin.env[:, None], begin.slot[:, None])
    steps = replay_memory.read(ring, replay_memory.shifted(ring, every, jnp.minimum(offset, last)))
    return Segment(steps, offset <= last)


# The off-policy correction


def candidate_goals(goal: jax.Array, change: jax.Array, noise: jax.Array, goal_range: Any) -> jax.Array:
    """Ten goals [N, 10, D] within ± range: the stored ones, the changes of the state, and 8 samples around those.

    Args:
        goal, change: g_t and s_{t+c} − s_t, [N, D]. noise: standard normal, [N, 8, D].
    """
    sampled = change[:, None] + 0.5 * goal_range * noise
    return jnp.clip(jnp.concatenate([goal[:, None], change[:, None], sampled], axis=1), -goal_range, goal_range)


def goals_along(goals: jax.Array, s: jax.Array) -> jax.Array:
    """g̃_t … g̃_{t+c−1} [N, K, c, D], the goals g̃_t [N, K, D] shifted by h along s [N, c, D]."""
    return (s[:, :1] + goals)[:, :, None] - s[:, None]


def log_likelihood(actions: jax.Array, policy: jax.Array, within: jax.Array) -> jax.Array:
    """−½ Σ |a_i − μ_lo(state_i, g̃_i)|² [N, K], up to a constant, over the steps of a segment.

    Args:
        actions: [N, c, A]. policy: [N, K, c, A]. within: [N, c] bool.
    """
    return -0.5 * jnp.sum((actions[:, None] - policy) ** 2 * within[:, None, :, None], axis=(2, 3))


def correct_goals(
    policy: Callable[[jax.Array], jax.Array],
    s: jax.Array,
    s_end: jax.Array,
    actions: jax.Array,
    within: jax.Array,
    stored: jax.Array,
    noise: jax.Array,
    goal_range: Any,
) -> tuple[jax.Array, jax.Array]:
    """The candidates g̃_t [N, D] that best explain the actions, and their indices [N] int32; 0 is the stored goal.

    Args:
        policy: goals [N, K, c, D] -> μ_lo(state_i, g̃_i) [N, K, c, A] along the segments; called once.
        s, s_end: s_t … s_{t+c−1} [N, c, D] and s_{t+c} [N, D]. actions: [N, c, A]. within: [N, c] bool.
        stored: g_t [N, D]. noise: standard normal, [N, 8, D].
    """
    candidates = candidate_goals(stored, s_end - s[:, 0], noise, goal_range)
    best = jnp.argmax(log_likelihood(actions, policy(goals_along(candidates, s)), within), axis=1)
    return jnp.take_along_axis(candidates, best[:, None, None], axis=1)[:, 0], best


def relabel(
    config: Config, inputs: Inputs, policy: Callable[[jax.Array], jax.Array], segment: Segment, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The corrected goals [N, D] of segments [N, c, ...], and which of the candidates they are, [N] int32.

    Args:
        policy: inputs [..., F] -> μ_lo [..., A] of the current worker.
    """
    steps, within = segment
    count = len(within)
    spread = lambda x: jnp.broadcast_to(x[:, None], (count, 2 + SAMPLED_GOALS, *x.shape[1:]))  # over the candidates
    by_goals = lambda goals: policy(inputs.worker(jax.tree.map(spread, steps.obs), goals))
    noise = jax.random.normal(key, (count, SAMPLED_GOALS, len(config.goal_dimensions)))
    s, s_end, stored = inputs.place(steps.obs), inputs.place(steps.next_obs)[:, -1], steps.extras.goal[:, 0]
    return correct_goals(by_goals, s, s_end, inputs.action(steps.action), within, stored, noise, config.goal_range)


# Batches and updates


def worker_steps(config: Config, inputs: Inputs, t: Transition) -> td3.Step:
    """Transitions [N, ...] as the worker's, with the intrinsic reward."""
    s, goal, s_next = inputs.place(t.obs), t.extras.goal, inputs.place(t.next_obs)
    following = inputs.worker(t.next_obs, goal_transition(s, goal, s_next))
    reward = INTRINSIC_REWARDS[config.intrinsic_reward](s, goal, s_next)
    return td3.Step(inputs.worker(t.obs, goal), inputs.action(t.action), reward, t.terminated, following)


def manager_steps(config: Config, inputs: Inputs, segment: Segment, goal: jax.Array) -> td3.Step:
    """Segments [N, c, ...] as transitions of the manager, as if it had set `goal` [N, D]."""
    steps, within = segment
    return td3.Step(
        inputs=inputs.manager(jax.tree.map(lambda x: x[:, 0], steps.obs)),
        action=goal / config.goal_range,
        reward=config.reward_scale * jnp.sum(steps.reward * within, axis=1),
        terminated=steps.terminated[:, -1],
        next_inputs=inputs.manager(jax.tree.map(lambda x: x[:, -1], steps.next_obs)),
    )


class Batches(NamedTuple):
    """For one update of the manager, and the W updates of the worker before it."""

    worker: td3.Step  # [W, N, ...]
    manager: td3.Step  # [N, ...]
    kept: jax.Array  # [] share of the manager's goals that the correction left as they were


def sample_batches(
    config: Config,
    inputs: Inputs,
    policy: Callable[[jax.Array], jax.Array],
    ring: Ring,
    places: Places,
    key: jax.Array,
) -> Batches:
    """The worker's batches from the steps at `places` [W N], and the manager's from newly sampled segments.

    Args:
        policy: inputs [..., F] -> μ_lo [..., A] of the current worker.
    """
    key_segments, key_candidates = jax.random.split(key)
    at = replay_memory.draw(whole_segments(ring, config.goal_horizon), key_segments, config.batch_size)
    segment = read_segments(ring, at, config.goal_horizon)
    goal, which = segment.steps.extras.goal[:, 0], jnp.zeros(config.batch_size)
    if config.off_policy_correction:
        goal, which = relabel(config, inputs, policy, segment, key_candidates)
    of_worker = Places(*(x.reshape(-1, config.batch_size) for x in places))
    steps = replay_memory.read(ring, of_worker, axis=1)
    again = manager_steps(config, inputs, segment, goal)
    return Batches(worker_steps(config, inputs, steps), again, jnp.mean(which == 0))


def update(
    levels: Levels, params: Levels, learner: Levels, batches: Batches, key: jax.Array
) -> tuple[Levels, Levels, Metrics]:
    """W updates of the worker, one after the other, and then one of the manager.

    Args:
        levels: the `td3.ActorCritic` of each level.
    """
    worker, manager = levels

    def once(carry: tuple[Any, Any], step: tuple[td3.Step, jax.Array]) -> tuple[tuple[Any, Any], Metrics]:
        params, learner, metrics = worker.update(*carry, *step)
        return (params, learner), metrics

    key_worker, key_manager = jax.random.split(key)
    keys = jax.random.split(key_worker, len(batches.worker.reward))
    (low, low_learner), low_metrics = jax.lax.scan(once, (params.worker, learner.worker), (batches.worker, keys))
    high, high_learner, high_metrics = manager.update(params.manager, learner.manager, batches.manager, key_manager)
    metrics = {f"worker_{name}": jnp.mean(x) for name, x in low_metrics.items()}
    metrics |= {f"manager_{name}": x for name, x in high_metrics.items()}
    metrics |= {"inner_reward": jnp.mean(batches.worker.reward), "goals_kept": batches.kept}
    return Levels(low, high), Levels(low_learner, high_learner), metrics


# The agent


def start(config: Config, time_limit: int, params: Levels, key: jax.Array) -> Carry:
    """The carry at the beginning of an episode; with probability `random_goals_at_start` with random goals to come."""
    none = jnp.zeros(len(config.goal_dimensions))
    key_whether, key_steps = jax.random.split(key)
    steps = jax.random.randint(key_steps, (), 0, time_limit)
    wander = jnp.where(jax.random.bernoulli(key_whether, config.random_goals_at_start), steps, 0)
    return Carry(none, none, jnp.full((), config.goal_horizon, jnp.int32), wander)


def act(
    config: Config,
    inputs: Inputs,
    levels: Levels,
    to_action: Callable[[jax.Array], jax.Array],
    params: Levels,
    carry: Carry,
    inp: ActInput,
    key: jax.Array,
    greedy: bool,
) -> tuple[Any, Carry, Acted]:
    """An action by the goal of this step, which is the manager's every c steps.

    Args:
        levels: the `td3.ActorCritic` of each level. to_action: [A] in [−1, 1] -> an action of the environment.
    """
    worker, manager = levels
    key_goal, key_wander, key_action = jax.random.split(key, 3)
    unit_goal = manager.policy(params.manager, inputs.manager(inp.obs))
    if not greedy:
        anywhere = jax.random.uniform(key_wander, unit_goal.shape, minval=-1.0)
        unit_goal = jnp.where(carry.wander > 0, anywhere, manager.explore(unit_goal, key_goal))
    place, new = inputs.place(inp.obs), carry.age == config.goal_horizon
    goal = jnp.where(new, config.goal_range * unit_goal, goal_transition(carry.place, carry.goal, place))
    age = jnp.where(new, 0, carry.age)
    unit = worker.policy(params.worker, inputs.worker(inp.obs, goal))
    if not greedy:
        unit = worker.explore(unit, key_action)
    return to_action(unit), Carry(goal, place, age + 1, jnp.maximum(carry.wander - 1, 0)), Acted(goal, age)


# The algorithm


def level_configs(config: Config) -> Levels:
    """The `td3.Config` of the worker and of the manager."""
    worker = td3.Config(
        learning_rate_schedule=config.learning_rate_schedule,
        learning_rate_iterations=config.learning_rate_iterations,
        max_grad_norm=config.max_grad_norm,
        discount=config.worker_discount,
        learning_rate=config.learning_rate,
        actor_learning_rate=config.actor_learning_rate,
        target_rate=config.target_rate,
        policy_delay=config.policy_delay,
        target_noise=config.target_noise,
        target_noise_clip=config.target_noise_clip,
        exploration_noise=config.exploration_noise,
        batch_size=config.batch_size,
        environments=config.environments,
        rollout_length=config.rollout_length,
        updates=config.manager_updates * config.worker_update_ratio,
        capacity=config.capacity,
        warmup_steps=config.warmup_steps,
        hidden=config.hidden,
        activation=config.activation,
        normalize_observations=config.normalize_observations,
        eval_episodes=config.eval_episodes,
    )
    manager = replace(
        worker,
        discount=config.manager_discount,
        exploration_noise=config.goal_noise,
        random_actions=config.random_goals,
        updates=config.manager_updates,
    )
    return Levels(worker, manager)


def inputs_of(config: Config, env: Any) -> Inputs:
    """What the levels see in an environment; UsageError for actions that are no flat Box."""
    observations, goals = env.observation_space(env.default_params), is_goal_env(env)
    size = state_space(env).shape[0]
    dimensions = jnp.array(config.goal_dimensions, jnp.int32)
    hidden = config.goal_dimensions if config.hide_goal_dimensions else ()
    visible = jnp.array([i for i in range(size) if i not in hidden], jnp.int32)
    state = lambda obs: (obs["observation"] if goals else obs).astype(jnp.float32)
    return Inputs(
        place=lambda obs: state(obs)[..., dimensions],
        worker=lambda obs, goal: jnp.concatenate([state(obs)[..., visible], goal / config.goal_range], axis=-1),
        manager=encoder_for(observations),  # the target included
        action=action_scaling(env, "HIRO", instead="fun or option-critic")[1],
    )


def actor_critics(config: Config, env: Any) -> Levels:
    """The `td3.ActorCritic` of each level."""
    worker, manager = level_configs(config)
    return Levels(
        worker=td3.actor_critic(worker, env.action_space(env.default_params).shape[0]),
        manager=td3.actor_critic(manager, len(config.goal_dimensions)),
    )


def check_hiro(config: Config, env: Any, tasks: Tasks) -> None:
    """Raises UsageError for settings, actions or observations that cannot work."""
    require_choice(config, "intrinsic_reward", tuple(INTRINSIC_REWARDS))
    require_positive(config, "goal_horizon", "goal_range", "reward_scale", "manager_updates", "worker_update_ratio")
    require_positive(config, "goal_noise", or_zero=True)
    require_fraction(config, "random_goals", "random_goals_at_start", "worker_discount", "manager_discount")
    worker, manager = level_configs(config)
    check(manager, env, tasks)
    td3.check_actor_critic(worker)
    action_scaling(env, "HIRO", instead="fun or option-critic")
    require_bounds_of_all_tasks(env, tasks, "HIRO")
    if len(getattr(state_space(env), "shape", ())) != 1:
        raise UsageError(
            f"HIRO needs observations that are flat vectors, for its goals; those of {name_of(env)} are not"
        )
    require(config, config.relations(env, tasks))


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """HIRO on an environment with a flat, bounded Box of actions, and flat observations, with or without goals.

    Params and learner: Levels of `td3.Networks` and `td3.Learner`. Memory: a Ring of the worker's steps.

    Raises:
        UsageError: a setting that cannot work, other actions or observations.
    """
    check_hiro(config, env, tasks)
    inputs, levels = inputs_of(config, env), actor_critics(config, env)
    to_action, _ = action_scaling(env, "HIRO", instead="fun or option-critic")
    observations = env.observation_space(env.default_params)

    def init_params(key: jax.Array) -> Levels:
        key_sample, *keys = jax.random.split(key, 5)
        obs, no_goal = observations.sample(key_sample), jnp.zeros(len(config.goal_dimensions))
        return Levels(
            worker=levels.worker.init(keys[:2], inputs.worker(obs, no_goal)),
            manager=levels.manager.init(keys[2:], inputs.manager(obs)),
        )

    agent = Agent(
        init=init_params,
        start=partial(start, config, tasks.time_limit()),
        act=partial(act, config, inputs, levels, to_action),
    )

    def sample(params: Levels, ring: Ring, places: Places, key: jax.Array) -> Batches:
        return sample_batches(config, inputs, partial(levels.worker.policy, params.worker), ring, places, key)

    def init(key: jax.Array, params: Any = None) -> TrainState:
        each = lambda steps: steps // config.environments
        sizes = {"capacity": each(config.capacity), "warmup": each(config.warmup_steps)}
        sizes |= {"always": 2 * config.goal_horizon}  # two segments, so that one of them is whole
        state = begin_replay(env, agent, tasks, key, params, environments=config.environments, **sizes)
        learner = Levels(*(level.begin(params) for level, params in zip(levels, state.params)))
        return replace(state, learner=learner)

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        return play(env, agent, present(tasks, state.world), state.params, key, config.eval_episodes)

    learn = learning_from_memory(
        partial(update, levels),
        updates=config.manager_updates,
        batch=config.worker_update_ratio * config.batch_size,
        relabel=sample,
    )
    step = replay(env, agent, tasks, learn, length=config.rollout_length)
    env_steps = config.environments * config.rollout_length
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=env_steps, learn=learn)
