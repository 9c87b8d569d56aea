"""Adapting a `Player` to a task in compiled code, and the resulting agent.

known = algorithm.adapt(params, task, key)           # vmap it over tasks and keys
agent = as_agent(algorithm.player, known)            # acts in `engine.rollout`
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_envs.boxes import accepted
from jaxrl_envs.contract import Played
from jaxrl_envs.resetting import select
from jaxrl_hier.engine.acting import unseen
from jaxrl_hier.engine.rollout import play_episodes, recorded
from jaxrl_hier.engine.types import ActInput, Agent, Carry, EnvParams, Params, Player, Transition


class Known(NamedTuple):
    """A player's state between two episodes of a task."""

    memory: Any
    carry: Carry
    prev_action: Any  # of the last step on the task; zeros where the next step does not depend on it
    prev_reward: jax.Array  # [] float32


def as_agent(player: Player, known: Known) -> Agent:
    """The adapted `player` as a fixed agent: every episode starts from `known`, and nothing is learned. It has no
    `init`: its parameters are those of the algorithm."""

    def start(params: Params, key: jax.Array) -> Carry:
        return player.new_episode(params, known.memory, known.carry, key)

    def act(params: Params, carry: Carry, inp: ActInput, key: jax.Array, greedy: bool) -> Any:
        before = (known.prev_action, known.prev_reward), (inp.prev_action, inp.prev_reward)
        action, reward = jax.tree.map(lambda first, later: jnp.where(inp.first, first, later), *before)
        inp = inp._replace(prev_action=action, prev_reward=reward)
        return player.act(params, known.memory, carry, inp, key, greedy)

    return Agent(init=_no_init, start=start, act=act)


def _no_init(key: jax.Array) -> Params:
    raise TypeError("an adapted agent has no init: it acts with the parameters of the algorithm")


def adapter(
    env: Any, player: Player, shown: Callable[[Transition, EnvParams], jax.Array] | None = None
) -> Callable[..., Known]:
    """`Algorithm.adapt`: params, task, key, steps = `player.most` -> `Known` after `steps` steps of adaptation.

    For every adaptation step a player with `learn` collects `player.horizon` steps in each of `player.episodes`
    environments, as in the meta-test of gradient-based methods; a new episode follows one that ends early. A player
    without it plays complete episodes sequentially. Actions are sampled, not greedy.

    Args:
        shown: transitions [T, E, ...], task -> the rewards [T, E] that the player learns from; None: the
            environment's own.
    """

    def adapt(params: Params, task: EnvParams, key: jax.Array, steps: int = player.most) -> Known:
        keys = jax.random.split(key, steps + 1)
        inp = unseen(env)
        known = Known(*player.new_task(params, keys[-1]), inp.prev_action, inp.prev_reward)
        if player.learn is None:
            return _episodes(env, player, params, task, known, keys[0], player.episodes * steps)

        def one(memory: Any, key: jax.Array) -> tuple[Any, None]:
            agent = as_agent(player, known._replace(memory=memory))
            seen = play_episodes(env, agent, task, params, key, episodes=player.episodes, horizon=player.horizon)
            if shown is not None:
                seen = seen._replace(reward=shown(seen, task))
            assert player.learn is not None
            return player.learn(params, memory, seen, jnp.full(player.episodes, player.horizon)), None

        return known._replace(memory=jax.lax.scan(one, known.memory, keys[:-1])[0])

    return adapt


def _episodes(
    env: Any, player: Player, params: Params, task: EnvParams, known: Known, key: jax.Array, episodes: int
) -> Known:
    """`known` after `episodes` complete episodes in sequence, for a player that remembers them in its carry."""
    played = Played(env)

    def begun(key: jax.Array, carry: Carry) -> tuple[Any, Any, Carry]:
        key_reset, key_carry = jax.random.split(key)
        obs, state = played.reset(key_reset, task)
        return obs, state, player.new_episode(params, known.memory, carry, key_carry)

    def going_on(now: Any) -> jax.Array:
        return now[-1] < episodes

    def step(now: Any) -> Any:
        state, inp, carry, key, count = now
        key, key_act, key_step, key_episode = jax.random.split(key, 4)
        action, carry, _ = player.act(params, known.memory, carry, inp, key_act, False)
        action = recorded(action, inp.prev_action.dtype)
        seen = played.step(key_step, state, accepted(env, task, action), task)
        over = seen.terminated | seen.truncated
        obs, state, carry = select(over, begun(key_episode, carry), (seen.obs, seen.state, carry))
        inp = ActInput(obs, action.astype(inp.prev_action.dtype), seen.reward, over)
        return state, inp, carry, key, count + over

    key, _, key_episode = jax.random.split(key, 3)  # as in `rollout.begin`, whose second key samples a task
    obs, state, carry = begun(key_episode, known.carry)
    now = (state, unseen(env)._replace(obs=obs), carry, key, jnp.zeros((), jnp.int32))
    _, inp, carry, _, _ = jax.lax.while_loop(going_on, step, now)
    return Known(known.memory, carry, inp.prev_action, inp.prev_reward)


def experienced(each: jax.Array) -> jax.Array:
    """Cumulative experience [N, K + 1] after 0, 1, …, K adaptation steps, from the experience of each step [N, K]."""
    return jnp.pad(jnp.cumsum(each, axis=1), ((0, 0), (1, 0)))
