"""Shared parts of replay learners: settings, input statistics, targets, action scaling, and the algorithm itself.

Axes in shapes: N steps in a batch, F inputs of a network, E networks in an ensemble.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from jaxrl_envs import boxes
from jaxrl_envs.contract import name_of, on_host
from jaxrl_envs.goals import is_goal_env
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive, require_sizes
from jaxrl_hier.engine.evaluation import play, present
from jaxrl_hier.engine.loops import begin_replay, learning_from_memory, replay
from jaxrl_hier.engine.types import Agent, Algorithm, Metrics, NamedArray, Params, Tasks, TrainState, Transition
from jaxrl_hier.learning.hindsight import (
    STRATEGIES,
    hindsight,
    require_computed_rewards,
    require_ends_independent_of_goals,
    rewards_of_goals,
)
from jaxrl_hier.learning.networks import ACTIVATIONS
from jaxrl_hier.learning.normalization import Statistics, observed, standardised
from jaxrl_hier.learning.optimization import OptimizerConfig, check_optimizer
from jaxrl_hier.relations import Relation, at_least, at_most, largest_divisor, multiple, require
from jaxrl_hier.settings import Factor, Rate, is_traced


@dataclass(frozen=True)
class ReplayConfig(OptimizerConfig):
    """Settings shared by all replay learners."""

    on_host: ClassVar[bool] = True
    renamed: ClassVar = {
        "batch": "batch_size",
        "length": "rollout_length",
        "warmup": "warmup_steps",
        "normalize": "normalize_observations",
        "goals": "her_goals",
    }

    discount: float = 0.99
    """discount γ, in [0, 1]"""
    learning_rate: Rate = 1e-3
    """learning rate of Adam"""
    target_rate: float = 0.005
    """share τ, in [0, 1], by which the target networks move towards the learned ones in each update"""
    batch_size: int = 256
    """steps per update"""
    environments: int = 1
    """parallel environments per seed"""
    rollout_length: int = 1
    """steps of each environment per iteration"""
    updates: int = 1
    """updates per iteration"""
    capacity: int = 100_000
    """steps that the replay buffer holds, over all environments; fewer where observations have 512 bytes or more and
    episodes are shorter than eight steps on average"""
    warmup_steps: int = 1_000
    """random steps over all environments before the first iteration, not counted as environment steps"""
    hidden: tuple[int, ...] = (256, 256)
    """sizes of the hidden layers of each network"""
    activation: Literal["relu", "tanh", "silu"] = "relu"
    """activation of the hidden layers"""
    normalize_observations: bool = False
    """normalise inputs by their running mean and standard deviation, and clip them to ±5"""
    reward_range: tuple[float, float] | None = None
    """lowest and highest reward, if known: targets are clipped to the returns that such rewards allow, with 0 after a
    termination (for HER's −1 and 0: [−1 / (1 − γ), 0])"""
    her: Literal["none", "future", "final", "episode", "random"] = "none"
    """strategy of hindsight relabelling; needs an environment with goals"""
    her_goals: Factor = 4
    """relabelled steps k per step with its original goal, at least 0"""
    eval_episodes: int = 100
    """episodes per evaluation"""

    @staticmethod
    def relations(env: Any, tasks: Tasks) -> list[Relation]:
        return [
            *memory_relations(tasks.time_limit()),
            Relation(
                counts=(),
                fits=lambda s: s.reward_range is None or is_traced(s.discount) or s.discount != 1,
                gives={"reward_range": lambda s: None},
                message=lambda s: "reward_range needs a discount below 1, got 1: it bounds values by reward / (1 − γ)",
            ),
            rewards_in_range(env, tasks),
        ]


def rewards_in_range(env: Any, tasks: Tasks) -> Relation:
    """`reward_range` holds the rewards of an environment with goals: else targets are clipped to wrong returns."""
    actions = env.action_space(env.default_params)
    known = is_goal_env(env) and (boxes.is_box(actions) or isinstance(actions, spaces.Discrete))  # others are refused
    seen = cache(lambda: env.rewards_seen if on_host(env) else rewards_of_goals(env, tasks))

    def fits(s: Any) -> bool:
        if s.reward_range is None or not known:
            return True
        low, high = s.reward_range
        return not low <= high or (low <= seen()[0] and seen()[1] <= high)  # others refuse one in the wrong order

    def message(s: Any) -> str:
        (low, high), (least, most) = s.reward_range, seen()
        rewards = f"{name_of(env)} has rewards from {least:g} to {most:g}"
        return f"reward_range must hold all rewards, got {low:g} and {high:g}; {rewards}"

    return Relation(counts=(), fits=fits, gives={"reward_range": lambda s: None}, message=message)


def memory_relations(episode: int) -> list[Relation]:
    """Relations between the sizes of the replay buffer, for episodes of up to `episode` steps."""
    steps = lambda s: max(episode, s.rollout_length)  # fewest steps that each environment's buffer must hold

    def too_small(s: Any) -> str:
        what = "an episode" if episode >= s.rollout_length else "the length of a rollout"
        return (
            f"capacity leaves {s.capacity // s.environments} steps to each of {s.environments} environments, and "
            f"{what} has {steps(s)}; use at least {steps(s) * s.environments}"
        )

    return [
        multiple("capacity", "environments"),
        multiple("warmup_steps", "environments"),
        at_least("capacity", "batch_size"),
        Relation(
            counts=("capacity", "environments", "rollout_length"),
            fits=lambda s: s.capacity // s.environments >= steps(s),
            gives={
                "capacity": lambda s: steps(s) * s.environments,
                "rollout_length": lambda s: min(s.rollout_length, max(episode, s.capacity // s.environments)),
                "environments": lambda s: largest_divisor(s.capacity, max(s.capacity // steps(s), 1)),
            },
            message=too_small,
        ),
        at_least("capacity", "warmup_steps")._replace(message=at_most("warmup_steps", "capacity").message),
    ]


def check(config: ReplayConfig, env: Any, tasks: Tasks) -> None:
    """Raises UsageError for invalid shared settings, or ones that do not fit these tasks."""
    require_positive(
        config, "learning_rate", "batch_size", "environments", "rollout_length", "updates", "capacity", "eval_episodes"
    )
    require_positive(config, "warmup_steps", "her_goals", or_zero=True)
    require_fraction(config, "discount", "target_rate")
    check_optimizer(config)
    require_choice(config, "activation", tuple(ACTIVATIONS))
    require_choice(config, "her", ("none", *STRATEGIES))
    require_sizes(config, "hidden")
    if config.reward_range is not None and config.reward_range[0] > config.reward_range[1]:
        low, high = config.reward_range
        raise UsageError(f"reward_range must be the lowest and the highest reward, got {low} and {high}")
    require(config, config.relations(env, tasks))


# Inputs


def no_statistics(config: ReplayConfig, inputs: jax.Array) -> Any:
    """The initial statistics for `inputs` [F]; () without normalisation."""
    if not config.normalize_observations:
        return ()
    return Statistics.none(inputs.shape)


# Batches, and critics of continuous actions


class Step(NamedTuple):
    """A batch of steps, with observations encoded as network inputs."""

    inputs: jax.Array  # [N, F]
    action: jax.Array  # [N, D] in [−1, 1], or [N] int32 if discrete
    reward: jax.Array  # [N]
    terminated: jax.Array  # [N] bool
    next_inputs: jax.Array  # [N, F]


def scaled(statistics: Any, step: Step) -> tuple[Any, Step]:
    """The statistics updated with the batch's inputs, and the batch with inputs standardised by the new statistics."""
    statistics = observed(statistics, step.inputs)
    now, then = standardised(statistics, step.inputs), standardised(statistics, step.next_inputs)
    return statistics, step._replace(inputs=now, next_inputs=then)


def ensemble_init(critic: nn.Module, key: jax.Array, count: int, inputs: jax.Array) -> Params:
    """The parameters of E = `count` critics, with leading axis [E]."""
    return jax.vmap(lambda k: critic.init(k, inputs))(jax.random.split(key, count))


def ensemble(critic: nn.Module) -> Callable[[Params, jax.Array, jax.Array], jax.Array]:
    """Parameters [E, ...], inputs [N, F], actions [N, D] -> Q(s, a) of each critic, [E, N]."""

    def values(params: Params, inputs: jax.Array, action: jax.Array) -> jax.Array:
        together = jnp.concatenate([inputs, action], axis=-1)
        q: Any = jax.vmap(critic.apply, (0, None))(params, together)
        return q[..., 0]

    return values


# Targets


def bellman_target(config: ReplayConfig, reward: jax.Array, terminated: jax.Array, following: jax.Array) -> jax.Array:
    """r + γ V(s') [N], with V(s') = 0 after a termination, but not after a truncation; without gradient."""
    target = reward + config.discount * jnp.where(terminated, 0.0, following)
    if config.reward_range is not None:
        bound = lambda reward: reward / (1 - config.discount) if reward else 0.0  # also where γ is traced, and 1
        low, high = config.reward_range
        target = jnp.clip(target, bound(min(low, 0.0)), bound(max(high, 0.0)))
    return jax.lax.stop_gradient(target)


def moved(target: Params, params: Params, rate: Any) -> Params:
    """Target parameters after an update: (1 − τ) θ' + τ θ."""
    return jax.tree.map(lambda slow, fast: slow + rate * (fast - slow), target, params)


# Actions

DRAWS = 64  # tasks whose bounds stand for those of all


def action_scaling(
    env: Any, algorithm: str, instead: str
) -> tuple[Callable[[jax.Array], jax.Array], Callable[[Any], jax.Array]]:
    """Functions from [−1, 1]^D to the environment's actions and back, from `jaxrl_envs.boxes.scaling`.

    Args:
        algorithm: its name, for messages.
        instead: the algorithm to suggest for discrete actions.

    Raises:
        UsageError: the actions are not a flat Box, or its bounds are infinite, NaN or in the wrong order.
    """
    with jax.ensure_compile_time_eval():  # concrete bounds even inside a trace
        space = env.action_space(env.default_params)
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or space.dtype == jnp.bool_:
        kind = f"Box{list(space.shape)}" if isinstance(space, spaces.Box) else type(space).__name__
        kind = f"boolean {kind}" if getattr(space, "dtype", None) == jnp.bool_ else kind
        advice = f". Use {instead}" if isinstance(space, spaces.Discrete) else ""
        raise UsageError(
            f"{algorithm} needs a flat vector of continuous actions; {name_of(env)} has {kind} actions{advice}"
        )
    try:
        return boxes.scaling(space)
    except ValueError as error:
        raise UsageError(f"{algorithm} needs bounded actions; the bounds of {name_of(env)} are {error}") from None


def require_bounds_of_all_tasks(env: Any, tasks: Tasks, algorithm: str) -> None:
    """Raises UsageError if a task has actions outside of `default_params`' bounds, which scaled actions never reach."""
    low, high = boxes.bounds(env.action_space(env.default_params))
    of_task = lambda key: boxes.bounds(env.action_space(tasks.sample(key)))
    found: list[Any] = []  # bounds that do not depend on the draw are numbers under a trace, and nothing is run
    jax.eval_shape(lambda: found.append(of_task(jax.random.key(0))))
    if not any(isinstance(x, jax.core.Tracer) for x in found[0]):
        return
    with jax.ensure_compile_time_eval():
        lows, highs = jax.vmap(of_task)(jax.random.split(jax.random.key(0), DRAWS))
    if (lows < low).any() or (highs > high).any():
        raise UsageError(
            f"{algorithm} scales its actions to the bounds of default_params, {float(low.min()):g} to "
            f"{float(high.max()):g}, and there are tasks of {name_of(env)} with actions from {float(lows.min()):g} to "
            f"{float(highs.max()):g}: give default_params the widest bounds, or scale actions in step_env"
        )


# The algorithm


def learner_from_replay(
    config: ReplayConfig,
    env: Any,
    tasks: Tasks,
    agent: Agent,
    begin: Callable[[Params], Any],
    update: Callable[[Params, Any, Transition, jax.Array], tuple[Params, Any, Metrics]],
) -> Algorithm:
    """A replay algorithm, made of an agent and an update.

    Args:
        begin: params -> initial learner state.
        update: params, learner, steps [N, ...], key -> params, learner, metrics.
    """
    relabel = None
    if config.her != "none":
        relabel = hindsight(env, tasks, config.her, config.her_goals)
        require_computed_rewards(env, tasks)
        require_ends_independent_of_goals(env, tasks)

    def init(key: jax.Array, params: Any = None) -> TrainState:
        each = lambda steps: steps // config.environments
        sizes = {"capacity": each(config.capacity), "warmup": each(config.warmup_steps)}
        state = begin_replay(env, agent, tasks, key, params, environments=config.environments, **sizes)
        return replace(state, learner=begin(state.params))

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        return play(env, agent, present(tasks, state.world), state.params, key, config.eval_episodes)

    learn = learning_from_memory(update, updates=config.updates, batch=config.batch_size, relabel=relabel)
    step = replay(env, agent, tasks, learn, length=config.rollout_length)
    env_steps = config.environments * config.rollout_length
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=env_steps, learn=learn)
