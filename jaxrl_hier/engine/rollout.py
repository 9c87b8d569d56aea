"""The rollout: one scan that acts, steps, resets and records, shared by all algorithms, for training and evaluation."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_envs import random_bits
from jaxrl_envs.boxes import accepted, is_box
from jaxrl_envs.contract import EnvCheckError, Played
from jaxrl_envs.resetting import begun_where
from jaxrl_envs.tasks import as_arrays
from jaxrl_hier.engine.sharding import each_device
from jaxrl_hier.engine.types import ActInput, Agent, Params, Tasks, Transition, World


def require_time_limit(env: Any, tasks: Tasks) -> None:
    """Raises EnvCheckError for tasks without the time limit that an evaluation needs, or with one below a step: before
    training, not after it."""
    if not tasks.has_time_limit():
        raise no_time_limit(Played(env))
    tasks.time_limit()


def no_time_limit(env: Played) -> EnvCheckError:
    """The error for tasks that state none."""
    return EnvCheckError(f"{env.name} states no time limit: its params need max_steps_in_episode")


def begin(env: Any, agent: Agent, tasks: Tasks, params: Params, key: jax.Array) -> World:
    """A world at the start of its first episode, with a task sampled from `tasks`."""
    key, key_task, key_episode = jax.random.split(key, 3)
    return _begin_episode(Played(env), agent, as_arrays(tasks.sample(key_task)), params, key_episode, key)


def _begin_episode(env: Played, agent: Agent, task: Any, params: Params, key_episode: jax.Array, key: Any) -> World:
    key_reset, key_carry = random_bits.split(key_episode)
    obs, env_state = env.reset(key_reset, task)
    space = env.action_space(task)
    inp = ActInput(
        obs=obs,
        prev_action=jnp.zeros(space.shape, action_dtype(space)),
        prev_reward=jnp.zeros((), jnp.float32),
        first=jnp.ones((), bool),
    )
    return World(
        task=task,
        env_state=env_state,
        inp=inp,
        carry=agent.start(params, key_carry),
        ep_return=jnp.zeros((), jnp.float32),
        ep_length=jnp.zeros((), jnp.int32),
        key=key,
    )


def advance(
    env: Played, agent: Agent, tasks: Tasks, params: Params, world: World, greedy: bool = False
) -> tuple[World, Transition]:
    """One step of one environment; returns the next world, and the transition with the environment's facts."""
    key, key_act, key_step, key_episode = random_bits.split(world.key, 4)
    action, carry, extras = agent.act(params, world.carry, world.inp, key_act, greedy)
    action = recorded(action, world.inp.prev_action.dtype)
    seen = env.step(key_step, world.env_state, accepted(env, world.task, action), world.task)
    ends = seen.terminated, seen.truncated
    facts = env.declared_facts(seen.info)
    transition = Transition(world.inp.obs, action, seen.reward, *ends, seen.obs, world.inp.first, extras, facts)
    unkeyed: Any = ()  # JAX's check takes a key in both of the worlds to choose from for one that is used twice
    ongoing = World(
        task=world.task,
        env_state=seen.state,
        inp=ActInput(seen.obs, action.astype(world.inp.prev_action.dtype), seen.reward, jnp.zeros((), bool)),
        carry=carry,
        ep_return=world.ep_return + seen.reward,
        ep_length=world.ep_length + 1,
        key=unkeyed,
    )

    def next_episode(task: Any, params: Params, key_episode: jax.Array) -> World:
        if tasks.resample != "never":
            key_task, key_episode = random_bits.split(key_episode)
            task = tasks.following(key_task, task)
        return _begin_episode(env, agent, task, params, key_episode, unkeyed)

    over, arguments = seen.terminated | seen.truncated, (world.task, params, key_episode)
    return replace(begun_where(env, over, next_episode, arguments, ongoing), key=key), transition


def action_dtype(space: Any) -> Any:
    """The dtype in which agents see their last action: that of the space, but for a Box of whole numbers, where it is
    float32, since what they choose there are real numbers (`recorded`)."""
    dtype = jax.dtypes.canonicalize_dtype(space.dtype)
    whole = is_box(space) and not jnp.issubdtype(dtype, jnp.floating)
    return jnp.dtype(jnp.float32) if whole else dtype


def recorded(action: Any, dtype: Any) -> jax.Array:
    """An agent's action [...] as recorded in transitions: in the space's dtype, except that real numbers stay real."""
    action = jnp.asarray(action)
    real = jnp.issubdtype(action.dtype, jnp.floating) and not jnp.issubdtype(dtype, jnp.floating)
    return action if real else action.astype(dtype)


def rollout(
    env: Any,
    agent: Agent,
    tasks: Tasks,
    params: Params,
    world: World,
    length: int,
    greedy: bool = False,
    facts: bool = False,
) -> tuple[World, Transition]:
    """Let B environments take `length` steps each with the same `params`.

    When an episode ends, a new one begins in its place, with a task according to `tasks.resample` and a new carry.
    Transitions contain the actions as the agent chose them; the environment receives the nearest actions in its space
    (`jaxrl_envs.boxes.accepted`).

    Args:
        world: leading axis [B], from `jax.vmap(begin, ...)` or an earlier rollout.
        facts: whether to record the environment's facts in `Transition.facts`.

    Returns:
        world: after the last step.
        transitions: [length, B, ...].
    """
    alone = lambda params, world: _rollout(env, agent, tasks, params, world, length, greedy, facts)
    return each_device(alone, (None, 0), (0, 1))(params, world)


def _rollout(
    env: Any, agent: Agent, tasks: Tasks, params: Params, world: World, length: int, greedy: bool, facts: bool
) -> tuple[World, Transition]:
    played = Played(env)

    def step(world: World, _: None) -> tuple[World, Transition]:
        world, transition = jax.vmap(lambda world: advance(played, agent, tasks, params, world, greedy))(world)
        return world, transition if facts else transition._replace(facts=())

    return jax.lax.scan(step, world, length=length)


def play_episodes(
    env: Any,
    agent: Agent,
    task: Any,
    params: Params,
    key: jax.Array,
    *,
    episodes: int,
    horizon: int,
    greedy: bool = False,
) -> Transition:
    """`horizon` steps in each of `episodes` fresh environments of one task: [horizon, episodes, ...].

    A new episode follows one that ends early; see `first_episode` and `complete_episodes`.
    """
    only = Tasks(sample=lambda _: task)
    worlds = jax.vmap(lambda k: begin(env, agent, only, params, k))(jax.random.split(key, episodes))
    return _rollout(env, agent, only, params, worlds, horizon, greedy, facts=False)[1]


def ended(transitions: Transition) -> jax.Array:
    """Whether a step is an episode's last, by termination or truncation, [T, B] bool."""
    return transitions.terminated | transitions.truncated


def first_episode(transitions: Transition) -> jax.Array:
    """Which steps belong to each environment's first episode in the rollout, [T, B] float32 ones and zeros."""
    going_on = 1.0 - ended(transitions).astype(jnp.float32)
    return jnp.concatenate([jnp.ones_like(going_on[:1]), jnp.cumprod(going_on[:-1], axis=0)])


def complete_episodes(transitions: Transition) -> jax.Array:
    """Which steps belong to an episode that ends within the rollout, [T, B] float32 ones and zeros."""
    return jax.lax.cummax(ended(transitions).astype(jnp.float32), axis=0, reverse=True)


def episode_totals(before: World, transitions: Transition) -> tuple[jax.Array, jax.Array]:
    """Return and length so far, including the step, of the episode of each step, [T, B] float32 and int32.

    On an episode's last step these are the return and length of the whole episode.

    Args:
        before: the world at the start of the rollout.
    """

    def step(carry: tuple[jax.Array, jax.Array], row: Transition) -> tuple[Any, Any]:
        total, length = carry[0] + row.reward, carry[1] + 1
        going_on = ~ended(row)
        return (total * going_on, length * going_on), (total, length)

    return jax.lax.scan(step, (before.ep_return, before.ep_length), transitions)[1]


def episode_time(transitions: Transition) -> jax.Array:
    """Steps since the episode's start, [T, B] int32; the rollout must begin at a first step."""
    t = jnp.arange(transitions.first.shape[0], dtype=jnp.int32)[:, None]
    return t - jax.lax.cummax(jnp.where(transitions.first, t, 0), axis=0)
