"""Ways to turn experience into updates. So far: `metagrad`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_hier.engine.rollout import play_episodes
from jaxrl_hier.engine.types import Agent, EnvParams, Metrics, Params, Tasks, TrainState, Transition

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
