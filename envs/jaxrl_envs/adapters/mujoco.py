"""Gymnasium's MuJoCo robots as pure functions, stepped on the host by MuJoCo itself.

    jaxrl-hier train ppo --env mujoco:HalfCheetah-v5          pip install 'jaxrl-hier[mujoco]'

A state holds every number of double precision from which Gymnasium's environment computes its next step. So an episode
is Gymnasium's own, bit for bit, and a compiled program can keep thousands of states and step them in any order. A step
of many environments is one call of the host, which divides them among its threads.

The price: JAX does not keep such programs between processes, and another device than a CPU waits for the host.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces

from jaxrl_envs.adapters import AdaptedParams, Adapter, package, raw_observations, require_name
from jaxrl_envs.resetting import wanted

EXTRA = "mujoco"


def robots() -> list[str]:
    """Ids of Gymnasium's robots, of version 5.

    Raises:
        ValueError: MuJoCo or Gymnasium is not installed.
    """
    package("mujoco", "MuJoCo", EXTRA)
    registry = package("gymnasium", "Gymnasium", EXTRA).registry
    return [id for id, spec in registry.items() if id.endswith("-v5") and "envs.mujoco" in str(spec.entry_point)]


class Stepped(NamedTuple):
    """The result of a step; leading axes are those of the states."""

    state: Any  # [S] uint32, two of which are a number of double precision
    obs: Any  # [F] float32
    reward: Any  # [] float32
    terminated: Any  # [] bool
    told: Any  # [K] float32, the entries of `info` that were asked for


class HostRobot:
    """A robot whose `reset` and `step` are functions of JAX that are computed on the host.

    Args:
        id: in Gymnasium's registry, of version 5, such as "HalfCheetah-v5"; or any name, with `make` and `limit`.
        told: entries of `info` that a step returns; 0 where this robot has none of that name.
        threads: None: one for each core that this process may use.
        make: (render_mode=…) -> gymnasium.Env on MuJoCo, whose state is all that its steps depend on.
        limit: steps of an episode.
        settings: of `gymnasium.make`.

    Raises:
        ValueError: MuJoCo or Gymnasium is not installed, there is no such robot, or a function has no `limit`.
    """

    def __init__(
        self,
        id: str,
        told: Sequence[str] = (),
        threads: int | None = None,
        *,
        make: Callable[..., Any] | None = None,
        limit: int | None = None,
        **settings: Any,
    ):
        package("mujoco", "MuJoCo", EXTRA)
        gymnasium = package("gymnasium", "Gymnasium", EXTRA)
        if make is None:
            require_name(id, robots(), "Gymnasium")
            make, limit = partial(gymnasium.make, id, **settings), gymnasium.spec(id).max_episode_steps
        if limit is None:
            raise ValueError(f"{id} needs a limit, the steps of an episode, since it is made by a function")
        self.id, self.told, self.settings, self._make, self.limit = id, tuple(told), settings, make, limit
        self.simulators = Simulators(lambda: Simulator(make()), threads)
        one = self.simulators.made[0]
        actions, shape = one.env.action_space, one.env.observation_space.shape
        self.actions = spaces.Box(actions.low, actions.high, actions.shape, jnp.float32)
        self.observations = raw_observations(shape)
        of = jax.ShapeDtypeStruct
        self._result = Stepped(
            state=of((2 * one.size,), jnp.uint32),
            obs=of(shape, jnp.float32),
            reward=of((), jnp.float32),
            terminated=of((), jnp.bool_),
            told=of((len(self.told),), jnp.float32),
        )

    def reset(self, words: jax.Array) -> tuple[jax.Array, jax.Array]:
        """State and first observation of the episode that Gymnasium begins with the seed 2³² · words[0] + words[1].

        Args:
            words: [2] uint32.
        """
        result = self._result.state, self._result.obs
        return jax.pure_callback(self._reset, result, words, wanted(), vmap_method="broadcast_all")

    def step(self, state: jax.Array, action: jax.Array) -> Stepped:
        """Gymnasium's own step.

        Args:
            state: [S] uint32. action: [A] float32.
        """
        return jax.pure_callback(self._step, self._result, state, action, vmap_method="broadcast_all")

    def picture(self, state: Any) -> np.ndarray:
        """A state as MuJoCo draws it, uint8 [height, width, 3]; needs OpenGL, without a screen MUJOCO_GL=egl."""
        return self._drawn(lambda one: one.put(np.ascontiguousarray(state).view(np.float64)))

    def picture_of(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """As `picture`, of positions [Q] and velocities [V]."""
        return self._drawn(lambda one: one.env.set_state(qpos, qvel))

    def _drawn(self, place: Callable[["Simulator"], None]) -> np.ndarray:
        one = Simulator(self._make(render_mode="rgb_array"))
        try:
            one.env.reset(seed=0)
            place(one)
            one.mujoco.mj_forward(one.env.model, one.env.data)
            return np.asarray(one.env.render())
        finally:
            one.env.close()

    # On the host; leading axes are those of all the vmaps around

    def _reset(self, words: Any, wanted: Any) -> tuple[np.ndarray, np.ndarray]:
        words = np.asarray(words)
        seeds = [int(high) << 32 | int(low) for high, low in words.reshape(-1, 2)]
        out = self._empty(len(seeds))
        begun = np.flatnonzero(np.asarray(wanted))

        def some(one: Simulator, rows: range) -> None:
            for i in begun[rows.start : rows.stop]:
                out.obs[i] = one.env.reset(seed=seeds[i])[0]
                out.state[i] = one.get().view(np.uint32)

        self.simulators.divide(some, len(begun))
        return _shaped(out.state, words.shape[:-1]), _shaped(out.obs, words.shape[:-1])

    def _step(self, state: Any, action: Any) -> Stepped:
        state, action = np.ascontiguousarray(state), np.asarray(action)
        before = state.reshape(-1, state.shape[-1]).view(np.float64)
        actions = action.reshape((len(before), *self.actions.shape))
        out = self._empty(len(before))

        def some(one: Simulator, rows: range) -> None:
            for i in rows:
                one.put(before[i])
                out.obs[i], out.reward[i], out.terminated[i], _, info = one.env.step(actions[i])
                out.state[i] = one.get().view(np.uint32)
                out.told[i] = [info.get(name, 0.0) for name in self.told]

        self.simulators.divide(some, len(before))
        return Stepped(*(_shaped(x, state.shape[:-1]) for x in out))

    def _empty(self, count: int) -> Stepped:
        return Stepped(*(np.zeros((count, *x.shape), x.dtype) for x in self._result))


def _shaped(rows: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return rows.reshape((*axes, *rows.shape[1:]))


class Simulator:
    """An environment of Gymnasium whose whole state can be read and set.

    Beside MuJoCo's own state these are positions of bodies: robots compute velocities from those that the last step of
    the simulator began with, which its state does not hold.
    """

    def __init__(self, env: Any):
        self.env = env.unwrapped
        self.mujoco = package("mujoco", "MuJoCo", EXTRA)
        kinds = self.mujoco.mjtState
        self.parts = int(kinds.mjSTATE_FULLPHYSICS) | int(kinds.mjSTATE_WARMSTART)
        self.own = self.mujoco.mj_stateSize(self.env.model, self.parts)
        self.bodies = self.env.data.xpos.size
        self.size = self.own + 2 * self.bodies

    def get(self) -> np.ndarray:
        """What the next step depends on, float64 [size]."""
        state, data = np.empty(self.size), self.env.data
        self.mujoco.mj_getState(self.env.model, data, state[: self.own], self.parts)
        state[self.own : -self.bodies] = data.xpos.ravel()
        state[-self.bodies :] = data.xipos.ravel()
        return state

    def put(self, state: np.ndarray) -> None:
        """Go on from what `get` returned."""
        data = self.env.data
        self.mujoco.mj_setState(self.env.model, data, state[: self.own], self.parts)
        data.xpos.flat = state[self.own : -self.bodies]
        data.xipos.flat = state[-self.bodies :]


class Simulators:
    """As many simulators as there are threads, each made when it is first needed."""

    def __init__(self, make: Callable[[], Simulator], threads: int | None):
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.make, self.threads = make, threads or cores()
        self.made = [make()]
        self.pool: ThreadPoolExecutor | None = None
        self.lock = threading.Lock()  # they belong to one call at a time

    def divide(self, work: Callable[[Simulator, range], None], count: int) -> None:
        """`work(simulator, rows)` for `count` rows, in a part for each thread."""
        parts = min(self.threads, count)
        with self.lock:
            self.made += [self.make() for _ in range(parts - len(self.made))]
            if parts <= 1:
                return work(self.made[0], range(count))
            self.pool = self.pool or ThreadPoolExecutor(self.threads)
            ends = [count * i // parts for i in range(parts + 1)]
            begun = [self.pool.submit(work, *part) for part in zip(self.made, map(range, ends, ends[1:]))]
            wait(begun)  # all of them, before another call begins
            for part in begun:
                part.result()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Mujoco(Adapter):
    """A robot whose spaces, rewards, ends and, by default, time limit are those of its environment in Gymnasium.

    Args:
        robot: a `HostRobot` or `mjx.CompiledRobot`, or the id of one for the host, such as "HalfCheetah-v5".
        limit: steps of an episode.
        name: of the environment.
    """

    def __init__(self, robot: Any, limit: int | None = None, name: str | None = None):
        self.robot = HostRobot(robot) if isinstance(robot, str) else robot
        limit = self.robot.limit if limit is None else limit
        name = f"mujoco:{self.robot.id}" if name is None else name
        super().__init__(name, limit, self.robot.observations, self.robot.actions)

    def begin(self, key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        state, obs = self.robot.reset(key)
        return obs, state

    def go_on(
        self, key: jax.Array, inner: Any, action: jax.Array, params: Any
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, Any]]:
        seen = self.robot.step(inner, action)
        return seen.obs, seen.state, seen.reward, seen.terminated, {}

    def render(self, state: Any, params: AdaptedParams) -> np.ndarray:
        """One state as MuJoCo draws it, uint8 [height, width, 3]."""
        return self.robot.picture(state.inner)
