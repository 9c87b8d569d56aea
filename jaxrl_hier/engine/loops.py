"""Ways to turn experience into updates: `online` and `metagrad`.

`online` learns from each rollout once. `metagrad` differentiates through an adaptation.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_hier.engine.rollout import begin, ended, episode_totals, play_episodes, rollout
from jaxrl_hier.engine.types import (
    Agent,
    Average,
    EnvParams,
    Metrics,
    Params,
    Tasks,
    TrainState,
    Transition,
    World,
)


@struct.dataclass
class EpisodeLog:
    """The first N episodes of each environment, for learning curves against episodes; leading axis [B]."""

    count: jax.Array  # [B] int32, episodes ended so far, those beyond N included
    returns: jax.Array  # [B, N] float32, undiscounted
    lengths: jax.Array  # [B, N] int32, steps; 0: not ended yet

    @classmethod
    def empty(cls, environments: int, episodes: int) -> "EpisodeLog":
        shape = (environments, episodes)
        return cls(jnp.zeros(environments, jnp.int32), jnp.zeros(shape), jnp.zeros(shape, jnp.int32))


def _record(log: EpisodeLog, totals: jax.Array, lengths: jax.Array, ended: jax.Array) -> EpisodeLog:
    """`log` with the episodes that ended in a rollout [T, B]; those beyond N are counted only."""

    def step(log: EpisodeLog, row: Any) -> tuple[EpisodeLog, None]:  # one environment
        total, length, ended = row
        slot = jnp.where(ended, log.count, log.returns.shape[0])  # out of bounds, and so dropped, unless it ended
        returns = log.returns.at[slot].set(total, mode="drop")
        return EpisodeLog(log.count + ended, returns, log.lengths.at[slot].set(length, mode="drop")), None

    rows = (totals, lengths, ended)
    return jax.vmap(lambda log, *rows: jax.lax.scan(step, log, rows)[0], in_axes=(0, 1, 1, 1))(log, *rows)


def begin_worlds(env: Any, agent: Agent, tasks: Tasks, params: Params, key: jax.Array, environments: int) -> World:
    """`environments` fresh worlds [B], each with its own key and task."""
    return jax.vmap(lambda k: begin(env, agent, tasks, params, k))(jax.random.split(key, environments))


def online(
    env: Any,
    agent: Agent,
    tasks: Tasks,
    update: Callable[[Params, Any, Transition, jax.Array], tuple[Params, Any, Metrics]],
    *,
    length: int,
) -> Callable[[TrainState], tuple[TrainState, Metrics]]:
    """Act for `length` steps, learn from them, forget them; returns the `step` of an algorithm.

    With length 1 and one environment this is the textbook loop of temporal-difference learning, whose parallelism
    comes from vmapped seeds.

    Args:
        update: params, learner, transitions [length, B, ...], key -> params, learner, metrics.

    `TrainState.world` holds the environments, from `begin_worlds`; `TrainState.memory` an EpisodeLog, or () for none.
    Metrics gain "return" and "episode_length", averages over the episodes that ended.
    """

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        world, transitions = rollout(env, agent, tasks, state.params, state.world, length)
        key = jax.random.fold_in(state.key, state.iteration)
        params, learner, metrics = update(state.params, state.learner, transitions, key)
        totals, lengths = episode_totals(state.world, transitions)
        done = ended(transitions)
        count = jnp.sum(done)
        metrics = {
            "return": Average(jnp.sum(totals * done), count),
            "episode_length": Average(jnp.sum(lengths * done), count),
            **metrics,
        }
        memory = _record(state.memory, totals, lengths, done) if isinstance(state.memory, EpisodeLog) else ()
        state = TrainState(params, learner, world, memory, state.key, state.iteration + 1)
        return state, metrics

    return step


Batch = Any  # what an algorithm makes of the trajectories of one task


class MetaBatch(NamedTuple):
    """What a task's adaptation saw. After `metagrad` has sampled its tasks every leaf has a leading axis [tasks]."""

    inner: Batch  # [K, ...]: the batch that adaptation step k learned from
    outer: Batch  # [...]: the batch that the adapted policy collected


def adaptation(
    env: Any,
    agent: Agent,
    process: Callable[[Transition], Batch],
    inner_step: Callable[[Params, Batch, jax.Array], Params],
    *,
    steps: int,
    episodes: int,
    horizon: int,
) -> Callable[[Params, EnvParams, jax.Array], tuple[Params, MetaBatch]]:
    """A function that adapts to one task by acting and learning in turn.

    Args:
        process: transitions [horizon, episodes, ...] -> batch.
        inner_step: params, batch, k -> params after adaptation step k.
        steps: K, adaptation steps; 0 only collects.
        episodes, horizon: collected before each step, and once more at the end.

    Returns:
        (params, task, key) -> (adapted params, MetaBatch).
    """

    def collect(params: Params, task: EnvParams, key: jax.Array) -> Batch:
        return process(play_episodes(env, agent, task, params, key, episodes=episodes, horizon=horizon))

    def adapt(params: Params, task: EnvParams, key: jax.Array) -> tuple[Params, MetaBatch]:
        keys = jax.random.split(key, steps + 1)

        def one_step(params: Params, step: tuple[jax.Array, jax.Array]) -> tuple[Params, Batch]:
            k, key = step
            batch = collect(params, task, key)
            return inner_step(params, batch, k), batch

        params, inner = jax.lax.scan(one_step, params, (jnp.arange(steps), keys[:-1]))
        return params, MetaBatch(inner, collect(params, task, keys[-1]))

    return adapt


def metagrad(
    tasks: Tasks,
    adapt: Callable[[Params, EnvParams, jax.Array], tuple[Params, MetaBatch]],
    outer_update: Callable[[Params, Any, MetaBatch], tuple[Params, Any, Metrics]],
) -> Callable[[TrainState], tuple[TrainState, Metrics]]:
    """Meta-learning by gradient in two phases; returns the `step` of an algorithm.

    (A) Sample tasks and, for each, the inner and outer batches, acting with the adapted parameters. Nothing is
        differentiated here.
    (B) `outer_update` re-runs the adaptation on the stored batches as a pure function of the meta-parameters, and
        differentiates that. It never touches an environment, so second order is a gradient through scans over arrays.

    `TrainState.world` holds one key per task, [meta_batch]: every iteration starts fresh tasks and episodes.
    """

    def sample(params: Params, key: jax.Array) -> tuple[jax.Array, MetaBatch]:
        key, key_task, key_adapt = jax.random.split(key, 3)
        return key, adapt(params, tasks.sample(key_task), key_adapt)[1]

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        world, batches = jax.vmap(sample, (None, 0))(state.params, state.world)
        params, learner, metrics = outer_update(state.params, state.learner, jax.lax.stop_gradient(batches))
        state = replace(state, params=params, learner=learner, world=world, iteration=state.iteration + 1)
        return state, metrics

    return step
