"""HIRO: a manager asks for changes of the state, a worker brings them about, both learn off-policy (Nachum, Gu, Lee &
Levine, NeurIPS 2018).

s stands for those coordinates of the state that goals are about. Every c steps of an episode the manager gives a goal,
and in between it stands for the same place:

    goal           g_t = μ_hi(state, target) + noise   each c steps;   else g_t = h(s_{t−1}, g_{t−1}, s_t)
                   h(s, g, s') = s + g − s'
    worker         a_t = μ_lo(state, g_t) + noise,   inner reward −|s_t + g_t − s_{t+1}|₂
    manager        acts once in c steps; its reward is scale Σ r over them

Both levels are TD3 (jaxrl_hier.flat.td3). For the worker every step is one of a task in which s_t + g_t is wanted for
good: the next step's goal is h(s_t, g_t, s_{t+1}), and neither the end of the c steps nor a time limit is an end.

A worker that has learned since does other things with the goals of the past. So the manager learns from a segment of c
steps as if it had given the one of ten goals for which the worker of today would most likely have acted as was acted:

    candidates     g_t,   s_{t+c} − s_t,   and 8 draws of N(s_{t+c} − s_t, (½ reach)²),   within ± reach
    choice         argmax  −½ Σ_{i=t}^{t+c−1} |a_i − μ_lo(state_i, g̃_i)|²,   g̃_{i+1} = h(s_i, g̃_i, s_{i+1})

One memory serves both levels: it holds the worker's steps, and a manager's transition is a segment of them, shorter
where the episode ends. A segment is drawn by one of its steps.

With `intrinsic_reward` = "cosine" the worker is paid for the direction of its step alone, d_cos(s_{t+1} − s_t, g_t),
after the paper's "FuN cos similarity"; FuN's own reward looks back over c steps.

The worker does not see the coordinates that goals are in (`hide_goal_dimensions`), as in the authors' code, nor the
target of an environment with goals.

Departures from the paper and its code: inputs are scaled by their running statistics, the critics' loss is the squared
error and not Huber's, and noises are in units of the bounds. Their first episodes are random; here the actions before
the first iteration are, and later a part of the goals (`random_goals`) and all goals in the beginning of a part of the
episodes (`random_starts`): a manager whose episodes all begin alike meets no second way.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_envs.goals import is_goal_env
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive
from jaxrl_hier.engine import replay as replay_memory
from jaxrl_hier.engine.evaluation import play
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
from jaxrl_hier.hierarchical.fun import cosine
from jaxrl_hier.learning.networks import encoder_for
from jaxrl_hier.learning.off_policy import action_scaling, check, memory_relations
from jaxrl_hier.learning.optimization import OptimizerConfig
from jaxrl_hier.relations import Relation, largest_divisor, require
from jaxrl_hier.settings import Rate

DRAWN = 8  # candidates, beside the goal that was given and the change that came about


@dataclass(frozen=True)
class Config(OptimizerConfig):
    """Settings of HIRO. Where nothing else is said they are those of both levels."""

    goal_horizon: int = 10
    """c, steps that a goal is for"""
    goal_dimensions: tuple[int, ...] = (0, 1)
    """which numbers of the observation goals are about"""
    goal_range: float = 10.0
    """goals lie within ± this in each dimension"""
    intrinsic_reward: Literal["distance", "cosine"] = "distance"
    """inner reward: how far from the goal a step ends, or how well it points there"""
    off_policy_correction: bool = True
    """relabel the manager's goals"""
    hide_goal_dimensions: bool = True
    """the worker does not see the dimensions of goals"""
    reward_scale: float = 0.1
    """of the manager's rewards"""
    exploration_noise: float = 0.1
    """standard deviation of the noise on actions, in units of their bounds"""
    goal_noise: float = 0.1
    """standard deviation of the noise on goals, in units of reach"""
    random_goals: float = 0.0
    """probability of a uniform goal"""
    random_goals_at_start: float = 0.0
    """probability that an episode begins with uniform goals, for a uniform part of the time limit"""
    worker_discount: float = 0.99
    """γ of the worker, for a step"""
    manager_discount: float = 0.99
    """γ of the manager, for c steps"""
    learning_rate: Rate = 1e-3
    """of the critics' Adam"""
    actor_learning_rate: Rate = 1e-4
    """of the actors' Adam"""
    target_rate: float = 0.005
    """τ, how far slow copies move"""
    policy_delay: int = 2
    """updates of the critics for one of the actor and of the slow copies"""
    target_noise: float = 0.2
    """standard deviation of the noise on the target's action"""
    target_noise_clip: float = 0.5
    """bound on that noise"""
    batch_size: int = 100
    """steps, or segments, that an update learns from"""
    environments: int = 10
    """environments side by side"""
    rollout_length: int = 10
    """steps of each environment per iteration"""
    manager_updates: int = 10
    """updates of the manager per iteration"""
    worker_update_ratio: int = 10
    """updates of the worker for each one of the manager"""
    capacity: int = 200_000
    """steps that the memory holds, of all environments"""
    warmup_steps: int = 2_500
    """steps of random actions in all environments before the first iteration, which does not count them"""
    hidden: tuple[int, ...] = (300, 300)
    """hidden layers of each network"""
    activation: Literal["relu", "tanh", "silu"] = "relu"
    """between layers"""
    normalize_observations: bool = True
    """scale inputs by their running mean and standard deviation, and clip them to ±5"""
    eval_episodes: int = 50
    """episodes that an evaluation plays"""

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
    """So that the memory holds two segments of each environment before the first update, of which one is whole."""
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
    """So that goals are about numbers that observations have."""
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
    """The space of observations, without the goals that an environment may have."""
    observations = env.observation_space(env.default_params)
    return observations.spaces["observation"] if is_goal_env(env) else observations


class Levels(NamedTuple):
    """Something of both levels: parameters, or what is beside them."""

    worker: Any
    manager: Any


class Carry(NamedTuple):
    """What the agent remembers within an episode."""

    goal: jax.Array  # [D] g of the last step
    place: jax.Array  # [D] s of the last step
    age: jax.Array  # [] int32, steps that the manager's last goal has been followed; c at the start
    wander: jax.Array  # [] int32, steps before which goals are random


class Acted(NamedTuple):
    """What acting says about a step; the extras of a transition."""

    goal: jax.Array  # [D] g_t
    age: jax.Array  # [] int32, steps since the manager gave it, 0 … c − 1


class Segment(NamedTuple):
    """What the worker did for one of the manager's goals; beyond the end of an episode its last step again."""

    steps: Transition  # [N, c, ...]
    within: jax.Array  # [N, c] bool, steps before the end


def goal_transition(s: jax.Array, goal: jax.Array, s_next: jax.Array) -> jax.Array:
    """h(s, g, s') [..., D]: the same place, as seen from s'."""
    return s + goal - s_next


def distance_reward(s: jax.Array, goal: jax.Array, s_next: jax.Array) -> jax.Array:
    """−|s + g − s'|₂ [...] of vectors [..., D]."""
    return -jnp.linalg.norm(s + goal - s_next, axis=-1)


def cosine_reward(s: jax.Array, goal: jax.Array, s_next: jax.Array) -> jax.Array:
    """d_cos(s' − s, g) [...] of vectors [..., D]; zero where either is zero."""
    return cosine(s_next - s, goal)


INNER = {"distance": distance_reward, "cosine": cosine_reward}


# Segments


def whole_segments(ring: Ring, horizon: int) -> Ring:
    """The ring without its c − 1 newest and oldest steps: it holds all of the segments that the others are in."""
    capacity = ring.episode.shape[1]
    return replace(ring, slot=(ring.slot - (horizon - 1)) % capacity, size=ring.size - 2 * (horizon - 1))


def read_segments(ring: Ring, places: Places, horizon: int) -> Segment:
    """The segments [N, c, ...] that the steps at `places` [N] are in; the ring must hold them."""
    begin = replay_memory.shifted(ring, places, -ring.steps.extras.age[places])
    last = jnp.minimum(replay_memory.following(ring, begin), horizon - 1)[:, None]
    offset = jnp.arange(horizon, dtype=jnp.int32)
    every = Places(begin.env[:, None], begin.slot[:, None])
    steps = replay_memory.read(ring, replay_memory.shifted(ring, every, jnp.minimum(offset, last)))
    return Segment(steps, offset <= last)


# The correction


def candidate_goals(goal: jax.Array, change: jax.Array, noise: jax.Array, reach: Any) -> jax.Array:
    """Ten goals [N, 10, D] within ± reach: the given ones, the changes that came about, and 8 about those.

    Args:
        goal, change: g_t and s_{t+c} − s_t, [N, D]. noise: standard normal, [N, 8, D].
    """
    drawn = change[:, None] + 0.5 * reach * noise
    return jnp.clip(jnp.concatenate([goal[:, None], change[:, None], drawn], axis=1), -reach, reach)


def propagated(goals: jax.Array, s: jax.Array) -> jax.Array:
    """g̃_t … g̃_{t+c−1} [N, K, c, D] of goals g̃_t [N, K, D]: what h makes of them along s [N, c, D]."""
    return (s[:, :1] + goals)[:, :, None] - s[:, None]


def log_likelihood(actions: jax.Array, policy: jax.Array, within: jax.Array) -> jax.Array:
    """−½ Σ |a_i − μ_lo(state_i, g̃_i)|² [N, K] but for constants, over the steps of a segment.

    Args:
        actions: [N, c, A]. policy: [N, K, c, A]. within: [N, c].
    """
    return -0.5 * jnp.sum((actions[:, None] - policy) ** 2 * within[:, None, :, None], axis=(2, 3))


def corrected(
    policy: Callable[[jax.Array], jax.Array],
    s: jax.Array,
    s_end: jax.Array,
    actions: jax.Array,
    within: jax.Array,
    given: jax.Array,
    noise: jax.Array,
    reach: Any,
) -> tuple[jax.Array, jax.Array]:
    """The goals g̃_t [N, D] that explain the actions best, and which of the candidates they are [N]; 0: the given one.

    Args:
        policy: goals [N, K, c, D] -> μ_lo(state_i, g̃_i) [N, K, c, A] along the segments; called once.
        s, s_end: s_t … s_{t+c−1} [N, c, D] and s_{t+c} [N, D]. actions: [N, c, A]. within: [N, c].
        given, noise: as `candidate_goals` has them.
    """
    candidates = candidate_goals(given, s_end - s[:, 0], noise, reach)
    best = jnp.argmax(log_likelihood(actions, policy(propagated(candidates, s)), within), axis=1)
    return jnp.take_along_axis(candidates, best[:, None, None], axis=1)[:, 0], best


# What the levels learn from


class Seen(NamedTuple):
    """What the levels see; any leading axes."""

    place: Callable[[Any], jax.Array]  # observations -> s [..., D]
    worker: Callable[[Any, jax.Array], jax.Array]  # observations, goals [..., D] -> the worker's inputs [..., F]
    manager: Callable[[Any], jax.Array]  # observations -> the manager's inputs [..., F]
    action: Callable[[jax.Array], jax.Array]  # actions -> [..., A] in [−1, 1]


def worker_steps(config: Config, seen: Seen, t: Transition) -> td3.Step:
    """Steps [N, ...] as the worker's, with the inner reward."""
    s, goal, s_next = seen.place(t.obs), t.extras.goal, seen.place(t.next_obs)
    following = seen.worker(t.next_obs, goal_transition(s, goal, s_next))
    reward = INNER[config.intrinsic_reward](s, goal, s_next)
    return td3.Step(seen.worker(t.obs, goal), seen.action(t.action), reward, t.terminated, following)


def manager_steps(config: Config, seen: Seen, segment: Segment, goal: jax.Array) -> td3.Step:
    """Segments [N, c, ...] as steps of the manager, as if it had given `goal` [N, D]."""
    steps, within = segment
    return td3.Step(
        inputs=seen.manager(jax.tree.map(lambda x: x[:, 0], steps.obs)),
        action=goal / config.goal_range,
        reward=config.reward_scale * jnp.sum(steps.reward * within, axis=1),
        terminated=steps.terminated[:, -1],
        next_inputs=seen.manager(jax.tree.map(lambda x: x[:, -1], steps.next_obs)),
    )


class Sample(NamedTuple):
    """For an update of the manager, and W of the worker before it."""

    worker: td3.Step  # [W, N, ...]
    manager: td3.Step  # [N, ...]
    kept: jax.Array  # [] share of the manager's goals that are those given


def sample(
    config: Config,
    seen: Seen,
    policy: Callable[[jax.Array], jax.Array],
    ring: Ring,
    places: Places,
    key: jax.Array,
) -> Sample:
    """What an update learns from: the worker's steps are those at `places` [W N], the manager's segments are drawn.

    Args:
        policy: inputs [..., F] -> μ_lo [..., A] of the worker of today.
    """
    key_draw, key_candidates = jax.random.split(key)
    drawn = replay_memory.draw(whole_segments(ring, config.goal_horizon), key_draw, config.batch_size)
    segment = read_segments(ring, drawn, config.goal_horizon)
    steps, within = segment
    goal, which = steps.extras.goal[:, 0], jnp.zeros(config.batch_size)
    if config.off_policy_correction:
        spread = lambda x: jnp.broadcast_to(x[:, None], (len(x), 2 + DRAWN, *x.shape[1:]))  # over the candidates
        by_goals = lambda goals: policy(seen.worker(jax.tree.map(spread, steps.obs), goals))
        noise = jax.random.normal(key_candidates, (config.batch_size, DRAWN, len(config.goal_dimensions)))
        s, s_end = seen.place(steps.obs), seen.place(steps.next_obs)[:, -1]
        goal, which = corrected(by_goals, s, s_end, seen.action(steps.action), within, goal, noise, config.goal_range)
    batches = jax.tree.map(
        lambda x: x.reshape(-1, config.batch_size, *x.shape[1:]),
        worker_steps(config, seen, replay_memory.read(ring, places)),
    )
    return Sample(batches, manager_steps(config, seen, segment, goal), jnp.mean(which == 0))


def update(
    worker: td3.ActorCritic, manager: td3.ActorCritic, params: Levels, learner: Levels, sample: Sample, key: jax.Array
) -> tuple[Levels, Levels, Metrics]:
    """W updates of the worker, one after the other, and then one of the manager."""

    def once(carry: tuple[Any, Any], step: tuple[td3.Step, jax.Array]) -> tuple[tuple[Any, Any], Metrics]:
        params, learner, metrics = worker.update(*carry, *step)
        return (params, learner), metrics

    key_worker, key_manager = jax.random.split(key)
    keys = jax.random.split(key_worker, len(sample.worker.reward))
    (low, low_learner), low_metrics = jax.lax.scan(once, (params.worker, learner.worker), (sample.worker, keys))
    high, high_learner, high_metrics = manager.update(params.manager, learner.manager, sample.manager, key_manager)
    metrics = {f"worker_{name}": jnp.mean(x) for name, x in low_metrics.items()}
    metrics |= {f"manager_{name}": x for name, x in high_metrics.items()}
    metrics |= {"inner_reward": jnp.mean(sample.worker.reward), "goals_kept": sample.kept}
    return Levels(low, high), Levels(low_learner, high_learner), metrics


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


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """HIRO on an environment with a flat, bounded Box of actions, and a flat Box of observations or goals.

    Params and learner: Levels of `td3.Networks` and `td3.Learner`. Memory: a Ring of the worker's steps.

    Raises:
        UsageError: a setting that cannot work, other actions or observations.
    """
    require_choice(config, "intrinsic_reward", tuple(INNER))
    require_positive(config, "goal_horizon", "goal_range", "reward_scale", "worker_update_ratio")
    require_positive(config, "goal_noise", or_zero=True)
    require_fraction(config, "random_goals", "random_goals_at_start", "worker_discount", "manager_discount")
    below, above = level_configs(config)
    check(above, env, tasks)
    td3.check_actor_critic(below)
    c = config.goal_horizon
    limit = tasks.time_limit()
    to_action, to_unit = action_scaling(env, "HIRO", instead="fun or option-critic")
    observations = env.observation_space(env.default_params)
    goals = is_goal_env(env)
    state = state_space(env)
    if len(getattr(state, "shape", ())) != 1:
        raise UsageError(f"HIRO needs observations that are flat vectors, for its goals; those of {env.name} are not")
    require(config, config.relations(env, tasks))
    size, dimensions = state.shape[0], jnp.array(config.goal_dimensions, jnp.int32)
    seen = jnp.array(
        [i for i in range(size) if not (config.hide_goal_dimensions and i in config.goal_dimensions)], jnp.int32
    )
    worker = td3.actor_critic(below, env.action_space(env.default_params).shape[0])
    manager = td3.actor_critic(above, len(config.goal_dimensions))

    # What the levels see

    encode = encoder_for(observations)  # for the manager, with the target
    state_of = lambda obs: (obs["observation"] if goals else obs).astype(jnp.float32)
    place_of = lambda obs: state_of(obs)[..., dimensions]  # s

    def worker_inputs(obs: Any, goal: jax.Array) -> jax.Array:
        return jnp.concatenate([state_of(obs)[..., seen], goal / config.goal_range], axis=-1)

    # The agent

    def init_params(key: jax.Array) -> Levels:
        key_sample, *keys = jax.random.split(key, 5)
        obs = observations.sample(key_sample)
        none = jnp.zeros(len(config.goal_dimensions))
        return Levels(worker.init(keys[:2], worker_inputs(obs, none)), manager.init(keys[2:], encode(obs)))

    def start(params: Levels, key: jax.Array) -> Carry:
        none = jnp.zeros(len(config.goal_dimensions))
        key_whether, key_steps = jax.random.split(key)
        steps = jax.random.randint(key_steps, (), 0, limit)
        wander = jnp.where(jax.random.bernoulli(key_whether, config.random_goals_at_start), steps, 0)
        return Carry(none, none, jnp.full((), c, jnp.int32), wander)

    def act(params: Levels, carry: Carry, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Carry, Acted]:
        key_goal, key_wander, key_action = jax.random.split(key, 3)
        wanted = manager.policy(params.manager, encode(inp.obs))
        if not greedy:
            anywhere = jax.random.uniform(key_wander, wanted.shape, minval=-1.0)
            wanted = jnp.where(carry.wander > 0, anywhere, manager.explore(wanted, key_goal))
        place, new = place_of(inp.obs), carry.age == c
        goal = jnp.where(new, config.goal_range * wanted, goal_transition(carry.place, carry.goal, place))
        age = jnp.where(new, 0, carry.age)
        unit = worker.policy(params.worker, worker_inputs(inp.obs, goal))
        if not greedy:
            unit = worker.explore(unit, key_action)
        return to_action(unit), Carry(goal, place, age + 1, jnp.maximum(carry.wander - 1, 0)), Acted(goal, age)

    agent = Agent(init=init_params, start=start, act=act)

    view = Seen(place_of, worker_inputs, encode, to_unit)

    def relabel(params: Levels, ring: Ring, places: Places, key: jax.Array) -> Sample:
        return sample(config, view, partial(worker.policy, params.worker), ring, places, key)

    def init(key: jax.Array) -> TrainState:
        each = lambda steps: steps // config.environments
        sizes = {"capacity": each(config.capacity), "warmup": each(config.warmup_steps)}
        state = begin_replay(env, agent, tasks, key, environments=config.environments, **sizes)
        params = state.params
        return replace(state, learner=Levels(worker.begin(params.worker), manager.begin(params.manager)))

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        return play(env, agent, tasks, state.params, key, config.eval_episodes)

    drawn = config.worker_update_ratio * config.batch_size
    learn = learning_from_memory(
        partial(update, worker, manager), updates=config.manager_updates, batch=drawn, relabel=relabel
    )
    step = replay(env, agent, tasks, learn, length=config.rollout_length)
    env_steps = config.environments * config.rollout_length
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=env_steps, learn=learn)
