"""Acting and adapting one step at a time, for environments outside the compiled program.

`new_task` and `act` do what a compiled rollout does between two environment steps. With the keys of `rollout.begin` and
`rollout.advance` they choose bit-identical actions. The outcome of a step is known when the next observation arrives;
it is then stored for `Player.learn`, which `finish` calls when enough episodes have ended.

Memory is separate from the rest of an agent's state, which `act` changes. A single agent's memory has no axis [B]:
like parameters it enters matrix products unbatched, which then round as in a rollout.

Axes in shapes: B agents, each on a task of its own.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_envs.boxes import inside
from jaxrl_envs.contract import Played
from jaxrl_envs.resetting import select
from jaxrl_hier.engine.rollout import action_dtype, recorded
from jaxrl_hier.engine.types import ActInput, Carry, Params, Player, Tasks, Transition


class Did(NamedTuple):
    """The latest step, whose outcome is not yet known; zeros before the first step on a task.

    All but the action is for `learn`, and () without one: whatever passes from call to call costs time.
    """

    action: Any  # as the agent chose it
    obs: Any = ()
    first: Any = ()  # [] bool
    extras: Any = ()


@struct.dataclass
class Acting:
    """An agent's state between two steps; when batched, every leaf has leading axis [B]."""

    carry: Carry
    did: Did
    begun: jax.Array  # [] bool, whether a step has been taken on this task
    time: jax.Array  # [] int32, steps of the episode before the one of `did`
    steps: Any  # Transition [T, E, ...] for `learn`; () without one
    length: Any  # [E] int32, steps stored of each episode; () without one
    slot: jax.Array  # [] int32, episodes that have ended since the last step of adaptation
    adaptation: jax.Array  # [] int32, steps of adaptation so far
    episodes: jax.Array  # [] int32, completed episodes on this task
    experience: jax.Array  # [] int32, steps on this task whose outcome is known
    key: jax.Array
    key_episode: jax.Array  # for the next episode, if one begins


def new_task(env: Any, player: Player, params: Params, key: jax.Array) -> tuple[Any, Acting]:
    """Memory, and one agent before its first step on a task; keys as in `rollout.begin`."""
    key, key_task, key_episode = jax.random.split(key, 3)
    memory, carry = player.new_task(params, key_task)
    inp = unseen(env)
    action, _, extras = jax.eval_shape(lambda: player.act(params, memory, carry, inp, key, False))
    action = jax.eval_shape(lambda x: recorded(x, inp.prev_action.dtype), action)
    zeros = partial(jax.tree.map, lambda x: jnp.zeros(x.shape, x.dtype))
    did = _done(player, zeros(action), inp.obs, jnp.zeros((), bool), zeros(extras))
    zero = jnp.zeros((), jnp.int32)
    steps: Any = ()
    length: Any = ()
    if player.learn is not None:
        rows = lambda x: jnp.zeros((player.horizon, player.episodes, *x.shape), x.dtype)
        steps = jax.tree.map(rows, _transition(did, inp.prev_reward, did.first, inp.obs))
        length = jnp.zeros(player.episodes, jnp.int32)
    return memory, Acting(
        carry=carry,
        did=did,
        begun=jnp.zeros((), bool),
        time=zero,
        steps=steps,
        length=length,
        slot=zero,
        adaptation=zero,
        episodes=zero,
        experience=zero,
        key=key,
        key_episode=key_episode,
    )


def unseen(env: Any) -> ActInput:
    """An agent's input before the first step on a task, with zeros for the observation."""
    played, task = Played(env), env.default_params
    obs = jax.eval_shape(lambda: played.reset(jax.random.key(0), task)[0])
    space = env.action_space(task)
    return ActInput(
        obs=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), obs),
        prev_action=jnp.zeros(space.shape, action_dtype(space)),
        prev_reward=jnp.zeros((), jnp.float32),
        first=jnp.ones((), bool),
    )


def finish(
    player: Player,
    params: Params,
    memory: Any,
    acting: Acting,
    reward: jax.Array,
    done: jax.Array,
    final_obs: Any = None,
    *,
    single: bool = False,
) -> tuple[Any, Acting]:
    """Learn from the episodes that have ended; called before `act` for a player with `learn`.

    Args:
        memory: leading axis [B], none for a `single` agent; returned in the same form.
        reward, done: see `act`.
        final_obs: [B, ...] the last observation of an episode, where `done`; None: use the previous observation.
    """
    ended = done & acting.begun
    final_obs = acting.did.obs if final_obs is None else final_obs
    noted = jax.vmap(partial(_experienced, player))(acting, final_obs, reward, ended)
    acting = jax.vmap(select)(ended, noted, acting)
    memory = jax.tree.map(lambda x: x[None], memory) if single else memory
    complete = (acting.slot == player.episodes) & (acting.adaptation < player.most) & ended
    those = jax.vmap(lambda complete, old: select(complete, _adapted(player, params, *old), old))
    memory, acting = jax.lax.cond(jnp.any(complete), those, lambda _, old: old, complete, (memory, acting))
    return (jax.tree.map(lambda x: x[0], memory) if single else memory), acting


def act(
    env: Any,
    player: Player,
    tasks: Tasks,
    params: Params,
    memory: Any,
    acting: Acting,
    obs: Any,
    reward: jax.Array,
    done: jax.Array,
    *,
    greedy: bool = False,
    single: bool = False,
) -> tuple[Any, Acting]:
    """One step of B agents.

    Args:
        tasks: used only for `resample`, on which the keys of episodes depend.
        memory: leading axis [B], without it for a `single` agent.
        acting: leading axis [B].
        obs: [B, ...].
        reward: [B] float32, of the step that led to `obs`; ignored before the first step on a task.
        done: [B] bool, whether that step ended an episode: `obs` is the first of the next, on the same task.

    Returns:
        Actions inside the space [B, ...], and the agents after acting.
    """
    ended = done & acting.begun
    first = done | ~acting.begun
    noted = jax.vmap(partial(_experienced, player))(acting, obs, reward, ended)
    finished = ended if player.learn is not None else jnp.zeros_like(ended)  # `finish` has stored their outcome
    acting = jax.vmap(select)(finished, acting, noted)
    axis = None if single else 0
    begun = jax.vmap(partial(_next_episode, player, tasks, params), (axis, 0))
    fresh = jax.lax.cond(jnp.any(first), begun, lambda _, acting: acting.carry, memory, acting)
    acting = replace(acting, carry=jax.vmap(select)(first, fresh, acting.carry))
    one = partial(_acted, env, player, params, greedy)
    return jax.vmap(one, (axis, 0, 0, 0, 0))(memory, acting, obs, reward, first)


def _done(player: Player, action: Any, obs: Any, first: jax.Array, extras: Any) -> Did:
    return Did(action) if player.learn is None else Did(action, obs, first, extras)


def _transition(did: Did, reward: jax.Array, ended: jax.Array, next_obs: Any) -> Transition:
    """The step as a transition. Callers do not distinguish terminations from truncations: all count as terminations."""
    never = jnp.zeros((), bool)
    return Transition(did.obs, did.action, reward, ended, never, next_obs, did.first, did.extras)


def _experienced(player: Player, acting: Acting, next_obs: Any, reward: jax.Array, ended: jax.Array) -> Acting:
    """One agent's state after the outcome of its last step."""
    adaptation, steps, length = acting.adaptation, acting.steps, acting.length
    if player.learn is not None:
        step = _transition(acting.did, reward, ended, next_obs)
        # before the first step and beyond the horizon the index is out of bounds, so the write is dropped
        time = jnp.where(acting.begun, acting.time, player.horizon)
        put = lambda x, new: x.at[time, acting.slot].set(new, mode="drop")
        steps = jax.tree.map(put, steps, step)
        length = length.at[acting.slot].set(jnp.minimum(acting.time + 1, player.horizon), mode="drop")
    elif player.episodes:
        adaptation = adaptation + ended
    return replace(
        acting,
        steps=steps,
        length=length,
        adaptation=adaptation,
        time=jnp.where(ended, 0, acting.time + acting.begun),
        slot=acting.slot + ended,
        episodes=acting.episodes + ended,
        experience=acting.experience + acting.begun,
    )


def _adapted(player: Player, params: Params, memory: Any, acting: Acting) -> tuple[Any, Acting]:
    """One agent's state after a step of adaptation."""
    assert player.learn is not None
    return player.learn(params, memory, acting.steps, acting.length), replace(
        acting,
        steps=jax.tree.map(jnp.zeros_like, acting.steps),
        length=jnp.zeros_like(acting.length),
        slot=jnp.zeros_like(acting.slot),
        adaptation=acting.adaptation + 1,
    )


def _next_episode(player: Player, tasks: Tasks, params: Params, memory: Any, acting: Acting) -> Carry:
    """One agent's carry before the first step of an episode; keys as in `rollout.advance` and `rollout.begin`."""
    key = acting.key_episode
    if tasks.resample != "never":
        again = jax.random.split(key)[1]
        key = jnp.where(acting.begun, again, key)
    key_carry = jax.random.split(key)[1]
    return player.new_episode(params, memory, acting.carry, key_carry)


def _acted(
    env: Any,
    player: Player,
    params: Params,
    greedy: bool,
    memory: Any,
    acting: Acting,
    obs: Any,
    reward: jax.Array,
    first: jax.Array,
) -> tuple[Any, Acting]:
    """One agent's action and next state; keys as in `rollout.advance`."""
    key, key_act, _, key_episode = jax.random.split(acting.key, 4)
    space = env.action_space(env.default_params)
    dtype = action_dtype(space)
    before = acting.did.action.astype(dtype)
    inp = ActInput(obs, before, jnp.where(acting.begun, reward, 0.0), first)
    choose = partial(player.act, params, memory, acting.carry, inp, key_act)
    chosen = choose(greedy)
    if greedy and player.samples_to_learn:
        chosen = select(acting.adaptation < player.most, choose(False), chosen)
    action, carry, extras = chosen
    action = recorded(action, dtype)
    after = replace(
        acting,
        carry=carry,
        did=_done(player, action, obs, first, extras),
        begun=jnp.ones((), bool),
        key=key,
        key_episode=key_episode,
    )
    return inside(space, action), after
