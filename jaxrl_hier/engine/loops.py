"""Three loops that turn experience into updates: `online`, `replay` and `metagrad`.

`online` learns from each rollout once. `replay` stores rollouts and learns from batches drawn from them. `metagrad`
differentiates through an adaptation; `metagrad_in_parts` does so for a few tasks at a time, in bounded memory.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl_envs import random_bits
from jaxrl_envs.boxes import sample
from jaxrl_envs.contract import observed_model
from jaxrl_hier.engine import replay as replay_memory
from jaxrl_hier.engine.replay import Places, Ring
from jaxrl_hier.engine.rollout import begin, ended, episode_totals, play_episodes, require_time_limit, rollout
from jaxrl_hier.engine.sharding import each_device
from jaxrl_hier.engine.types import (
    ActInput,
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
    """The first N episodes of each environment, for learning curves over episodes; leading axis [B]."""

    count: jax.Array  # [B] int32, episodes ended so far, including those beyond N
    returns: jax.Array  # [B, N] float32, undiscounted
    lengths: jax.Array  # [B, N] int32, steps; 0: not ended yet

    @classmethod
    def empty(cls, environments: int, episodes: int) -> "EpisodeLog":
        shape = (environments, episodes)
        return cls(jnp.zeros(environments, jnp.int32), jnp.zeros(shape), jnp.zeros(shape, jnp.int32))


def _record(log: EpisodeLog, totals: jax.Array, lengths: jax.Array, ended: jax.Array) -> EpisodeLog:
    """`log` updated with the episodes that ended in a rollout [T, B]; those beyond N are only counted."""

    def step(log: EpisodeLog, row: Any) -> tuple[EpisodeLog, None]:  # one environment
        total, length, ended = row
        slot = jnp.where(ended, log.count, log.returns.shape[0])  # unless it ended: out of bounds, so dropped
        returns = log.returns.at[slot].set(total, mode="drop")
        return EpisodeLog(log.count + ended, returns, log.lengths.at[slot].set(length, mode="drop")), None

    rows = (totals, lengths, ended)
    return jax.vmap(lambda log, *rows: jax.lax.scan(step, log, rows)[0], in_axes=(0, 1, 1, 1))(log, *rows)


def begin_worlds(env: Any, agent: Agent, tasks: Tasks, params: Params, key: jax.Array, environments: int) -> World:
    """`environments` new worlds [B], each with its own key and task."""
    return jax.vmap(lambda k: begin(env, agent, tasks, params, k))(jax.random.split(key, environments))


def random_rollout(env: Any, tasks: Tasks, environments: int, length: int) -> Transition:
    """`length` steps of random actions in new worlds, [length, environments, ...]; always the same."""
    space = env.action_space(env.default_params)
    uniform = lambda params, carry, inp, key, greedy: (sample(space, key), carry, ())
    at_random = Agent(init=lambda key: (), start=lambda params, key: (), act=uniform)
    worlds = begin_worlds(env, at_random, tasks, (), jax.random.key(0), environments)
    return rollout(env, at_random, tasks, (), worlds, length)[1]


def episode_metrics(totals: jax.Array, lengths: jax.Array, ended: jax.Array) -> Metrics:
    """Averages over the episodes that ended in a rollout [T, B]."""
    count = jnp.sum(ended)
    return {
        "return": Average(jnp.sum(totals * ended), count),
        "episode_length": Average(jnp.sum(lengths * ended), count),
    }


# params, learner, before, transitions [T, B, ...], key -> params, learner, metrics
Update = Callable[[Params, Any, World, Transition, jax.Array], tuple[Params, Any, Metrics]]


def online(
    env: Any, agent: Agent, tasks: Tasks, update: Update, *, length: int
) -> Callable[[TrainState], tuple[TrainState, Metrics]]:
    """Act for `length` steps, learn from them and discard them; returns the `step` of an algorithm.

    With length 1 and one environment this is the textbook loop of temporal-difference learning, whose parallelism
    comes from vmapped seeds.

    Args:
        update: learns from transitions [length, B, ...]. `before` is the world at the start of the rollout, with the
            initial carry of recurrent networks.

    The initial `TrainState` comes from `begin_learning`: `world` holds the worlds, `memory` an EpisodeLog or (). Adds
    the metrics "return" and "episode_length", averages over the episodes that ended.
    """

    learn = learning_from_rollouts(update)

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        return learn(state, *rollout(env, agent, tasks, state.params, state.world, length))

    return step


Learn = Callable[[TrainState, World, Transition], tuple[TrainState, Metrics]]


def learning_from_rollouts(update: Update) -> Learn:
    """The second half of `online`: state before a rollout, world after it, transitions [T, B, ...] -> state, metrics.

    Args:
        update: see `online`.
    """

    def learn(state: TrainState, world: World, transitions: Transition) -> tuple[TrainState, Metrics]:
        key = random_bits.fold_in(state.key, state.iteration)
        params, learner, metrics = update(state.params, state.learner, state.world, transitions, key)
        totals, lengths = episode_totals(state.world, transitions)
        done = ended(transitions)
        metrics = episode_metrics(totals, lengths, done) | metrics
        memory = _record(state.memory, totals, lengths, done) if isinstance(state.memory, EpisodeLog) else ()
        return TrainState(params, learner, world, memory, state.key, state.iteration + 1), metrics

    return learn


def begin_learning(
    env: Any,
    agent: Agent,
    tasks: Tasks,
    key: jax.Array,
    params: Params | None = None,
    *,
    learner: Any = (),
    environments: int = 1,
    recorded_episodes: int = 0,
) -> TrainState:
    """The initial state of a learner from rollouts, such as one of `online`.

    Args:
        params: to begin with; None: new ones from `agent.init`.
        learner: the rest of what learning changes; the caller may set it later.
        recorded_episodes: how many of the first episodes of each environment `memory` records, lengths and returns.
    """
    if not observed_model(env):
        require_time_limit(env, tasks)
    key, key_params, key_world = jax.random.split(key, 3)
    params = agent.init(key_params) if params is None else params
    return TrainState(
        params=params,
        learner=learner,
        world=begin_worlds(env, agent, tasks, params, key_world, environments),
        memory=EpisodeLog.empty(environments, recorded_episodes) if recorded_episodes else (),
        key=key,
        iteration=jnp.zeros((), jnp.int32),
    )


def begin_replay(
    env: Any,
    agent: Agent,
    tasks: Tasks,
    key: jax.Array,
    params: Params | None = None,
    *,
    environments: int,
    capacity: int,
    warmup: int,
    always: int = 1,
) -> TrainState:
    """The initial state of a replay learner, its buffer filled by random actions. The caller sets `learner`.

    Args:
        params: to begin with; None: new ones from `agent.init`.
        capacity: steps that the buffer holds per environment, at least an episode.
        warmup: random steps in each environment, at most `capacity`; iterations do not count them.
        always: steps per environment that the buffer holds however short the episodes are, see `Ring.empty`.
    """
    key, key_params, key_world = jax.random.split(key, 3)
    params = agent.init(key_params) if params is None else params
    world = begin_worlds(env, agent, tasks, params, key_world, environments)
    space = env.action_space(env.default_params)

    def act(params: Params, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        _, carry, extras = agent.act(params, carry, inp, key, greedy)
        return sample(space, random_bits.another_key(key)), carry, extras

    explorer = agent._replace(act=act)
    one_step = jax.eval_shape(lambda world: rollout(env, explorer, tasks, params, world, 1)[1], world)
    one_step = jax.eval_shape(lambda t: jax.tree.map(lambda x: x[0, 0], t), one_step)
    ring = Ring.empty(one_step, environments, capacity, always)
    if warmup:
        world, transitions = rollout(env, explorer, tasks, params, world, warmup)
        ring = replay_memory.add(ring, transitions)
    return TrainState(params, (), world, ring, key, jnp.zeros((), jnp.int32))


def replay(
    env: Any, agent: Agent, tasks: Tasks, learn: Learn, *, length: int
) -> Callable[[TrainState], tuple[TrainState, Metrics]]:
    """Act for `length` steps, then `learn`, from `learning_from_memory`; returns the `step` of an algorithm.

    The initial `TrainState` comes from `begin_replay`.
    """

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        return learn(state, *rollout(env, agent, tasks, state.params, state.world, length))

    return step


def learning_from_memory(
    update: Callable[[Params, Any, Any, jax.Array], tuple[Params, Any, Metrics]],
    *,
    updates: int,
    batch: int,
    relabel: Callable[[Params, Ring, Places, jax.Array], Any] | None = None,
) -> Learn:
    """The second half of `replay`: add a rollout to the buffer and make `updates` updates.

    Args:
        update: params, learner, batch, key -> params, learner, metrics.
        batch: N, steps sampled per update, from all environments.
        relabel: params, buffer, places of the steps [N], key -> the batch, possibly with goals or actions relabelled;
            None: the steps [N, ...] as they were stored.

    Returns:
        state before the rollout, world after it, transitions [T, B, ...] -> state, metrics. Metrics are averages over
        the updates, and "return" and "episode_length" over the episodes that ended.
    """

    def learn(state: TrainState, world: World, transitions: Transition) -> tuple[TrainState, Metrics]:
        ring = replay_memory.add(state.memory, transitions)

        def once(carry: tuple[Params, Any], keys: jax.Array) -> tuple[tuple[Params, Any], Metrics]:
            key_draw, key_relabel, key_update = keys
            places = replay_memory.draw(ring, key_draw, batch)
            sample = relabel(carry[0], ring, places, key_relabel) if relabel else replay_memory.read(ring, places)
            params, learner, metrics = update(*carry, sample, key_update)
            return (params, learner), metrics

        keys = jax.random.split(jax.random.fold_in(state.key, state.iteration), (updates, 3))
        (params, learner), metrics = jax.lax.scan(once, (state.params, state.learner), keys, unroll=updates == 1)
        metrics = jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics)
        metrics = episode_metrics(*episode_totals(state.world, transitions), ended(transitions)) | metrics
        return TrainState(params, learner, world, ring, state.key, state.iteration + 1), metrics

    return learn


Batch = Any  # an algorithm's processed trajectories of one task


class MetaBatch(NamedTuple):
    """The batches of one task. In `metagrad` every leaf has a leading axis [tasks]."""

    inner: Batch  # [K, ...]: the batch that adaptation step k learned from
    outer: Batch  # [...]: the batch collected by the adapted policy
    adapted: Params = ()  # [K, ...]: the parameters after each adaptation step


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
    """A function that adapts to one task by alternating between acting and learning.

    Args:
        process: transitions [horizon, episodes, ...] -> batch.
        inner_step: params, batch, k -> params after adaptation step k.
        steps: K, adaptation steps; with 0 it only collects.
        episodes, horizon: size of the rollouts before each step and after the last.

    Returns:
        (params, task, key) -> (adapted params, MetaBatch).
    """

    def collect(params: Params, task: EnvParams, key: jax.Array) -> Batch:
        return process(play_episodes(env, agent, task, params, key, episodes=episodes, horizon=horizon))

    def adapt(params: Params, task: EnvParams, key: jax.Array) -> tuple[Params, MetaBatch]:
        keys = jax.random.split(key, steps + 1)

        def one_step(params: Params, step: tuple[jax.Array, jax.Array]) -> tuple[Params, tuple[Batch, Params]]:
            k, key = step
            batch = collect(params, task, key)
            params = inner_step(params, batch, k)
            return params, (batch, params)

        params, (inner, adapted) = jax.lax.scan(one_step, params, (jnp.arange(steps), keys[:-1]))
        return params, MetaBatch(inner, collect(params, task, keys[-1]), adapted)

    return adapt


def metagrad(
    tasks: Tasks,
    adapt: Callable[[Params, EnvParams, jax.Array], tuple[Params, MetaBatch]],
    outer_update: Callable[[Params, Any, MetaBatch], tuple[Params, Any, Metrics]],
) -> Callable[[TrainState], tuple[TrainState, Metrics]]:
    """Gradient-based meta-learning in two phases; returns the `step` of an algorithm.

    (A) Sample tasks, and for each the inner and outer batches, acting with the adapted parameters. Nothing is
        differentiated here.
    (B) `outer_update` re-runs the adaptation on the stored batches as a pure function of the meta-parameters, and
        differentiates it. No environment is involved, so second-order gradients go through scans over arrays only.

    `TrainState.world` holds one key per task, [meta_batch_size]: every iteration starts with new tasks and episodes.
    """

    sample = _sampler(tasks, adapt)

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        world, batches = sample(state.params, state.world)
        params, learner, metrics = outer_update(state.params, state.learner, batches)
        state = replace(state, params=params, learner=learner, world=world, iteration=state.iteration + 1)
        return state, metrics

    return step


def metagrad_in_parts(
    tasks: Tasks,
    adapt: Callable[[Params, EnvParams, jax.Array], tuple[Params, MetaBatch]],
    gradient: Callable[[Params, MetaBatch], tuple[Params, Metrics]],
    descend: Callable[[Params, Any, Params], tuple[Params, Any]],
    *,
    microbatch: int,
    epochs: int = 1,
) -> Callable[[TrainState], tuple[TrainState, Metrics]]:
    """`metagrad` for optimisers that need only mean gradients; memory does not grow with the number of tasks.

    Args:
        gradient: params, batches of a microbatch of tasks -> their mean gradient, and metrics.
        descend: params, learner, gradient -> params, learner.
        microbatch: tasks whose trajectories are in memory at a time; divides the length of `TrainState.world`.
        epochs: gradient steps on the same trajectories. They are not kept: each step plays them again, from the same
            keys with the parameters that the iteration began with.

    Adds the metric "grad_norm", of the mean gradient over all tasks. Metrics are those of the first step.
    """
    sample = _sampler(tasks, adapt)

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        # each part takes every n-th task, so that it is spread over all devices
        worlds = state.world.reshape(microbatch, -1).T  # [parts, microbatch]

        def part(params: Params, keys: jax.Array) -> tuple[Any, jax.Array]:
            keys, batches = sample(state.params, keys)
            return gradient(params, batches), keys

        def epoch(carry: tuple[Params, Any], _: None) -> tuple[tuple[Params, Any], Any]:
            def add(total: Any, keys: jax.Array) -> tuple[Any, jax.Array]:
                found, keys = part(carry[0], keys)
                return jax.tree.map(jnp.add, total, found), keys

            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(part, carry[0], worlds[0])[0])
            total, after = jax.lax.scan(add, zeros, worlds)
            slope, metrics = jax.tree.map(lambda x: x / len(worlds), total)
            return descend(*carry, slope), (metrics | {"grad_norm": optax.global_norm(slope)}, after)

        begun = state.params, state.learner
        if epochs == 1:  # without a loop, in which keys would be used again
            (params, learner), (metrics, worlds) = epoch(begun, None)
        else:
            (params, learner), told = jax.lax.scan(epoch, begun, length=epochs)
            metrics, worlds = jax.tree.map(lambda x: x[0], told)
        world = worlds.T.reshape(-1)
        return replace(state, params=params, learner=learner, world=world, iteration=state.iteration + 1), metrics

    return step


def _sampler(
    tasks: Tasks, adapt: Callable[[Params, EnvParams, jax.Array], tuple[Params, MetaBatch]]
) -> Callable[[Params, jax.Array], tuple[jax.Array, MetaBatch]]:
    """params, keys [tasks] -> keys, batches of newly sampled tasks, without gradient."""

    def sample(params: Params, key: jax.Array) -> tuple[jax.Array, MetaBatch]:
        key, key_task, key_adapt = jax.random.split(key, 3)
        return key, adapt(params, tasks.sample(key_task), key_adapt)[1]

    of_each = each_device(jax.vmap(sample, (None, 0)), (None, 0), 0)
    return lambda params, keys: jax.lax.stop_gradient(of_each(params, keys))
