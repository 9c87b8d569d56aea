"""Environments of Gymnasium, which run on the host: `HostEnv` makes one an environment of gymnax's contract.

    jaxrl-hier train her-ddpg --env gymnasium:FetchReach-v4                 the robots need the extra `robotics`
    jaxrl_hier.train("sac", "gymnasium:Pendulum-v1", out="runs/pendulum")
    jaxrl_hier.train("sac", HostEnv(lambda: MyEnv()))                       with more to say about an environment

One seed of a flat learner acts on the host, between compiled updates (`jaxrl_hier.host_training`). Everything else,
such as RL² or several seeds, runs in one compiled program, from which every step calls the host
(`jaxrl_hier.host_episodes`). Goals are gymnasium-robotics' dicts as they come.
"""

import copy
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import vector
from gymnax.environments import environment, spaces

from jaxrl_envs.adapters import Adapter
from jaxrl_envs.goals import PARTS
from jaxrl_envs.resetting import wanted
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.checks import UsageError
from jaxrl_hier.gymnasium_boundary import Converted, layers, name_of, time_limit
from jaxrl_hier.host_episodes import Episodes, Seen


@struct.dataclass
class HostState(environment.EnvState):
    """The state that JAX sees of an environment that keeps its own."""

    time: jax.Array  # [] int32, steps taken


@struct.dataclass
class Ticket(HostState):
    """For an episode that the host keeps. It is valid for one step, since the host's episode cannot go back."""

    number: jax.Array  # [] uint32, which episode it is
    truncated: jax.Array  # [] bool: the environment itself has cut it


@struct.dataclass
class HostParams(environment.EnvParams):
    """A task that the environment is told at the start of an episode."""

    task: jax.Array = struct.field(default_factory=lambda: jnp.zeros(0))  # as `HostEnv.set_task` takes it
    max_steps_in_episode: int = 1


class HostEnv(environment.Environment):
    """An environment of Gymnasium as learners see it.

    Args:
        make: an id of Gymnasium's registry, or a function () -> gymnasium.Env.
        compute_reward: for an environment with goals, (achieved, desired) -> reward, [] float32, in jax. None: −1
            beyond the environment's `distance_threshold` and 0 within it, as for the sparse robots of
            gymnasium-robotics.
        set_task: (env, task) -> None, called before an episode begins with what `make` made and the task, an array of
            NumPy; for an environment with a distribution over tasks, see `tasks`.
        task: with `set_task`, the task of `default_params`: numbers of any shape, float32 where they have a point, and
            else int32, such as the number of a level.
        settings: keyword arguments of `make`, or for `gymnasium.make`.

    Raises:
        UsageError: no such environment, a missing package, or a space or reward that cannot be used.
    """

    on_host = True
    costly_reset = True
    name: str = ""
    default_params: Any = None
    step = Adapter.step
    set_task: Callable[[Any, np.ndarray], None] | None = None
    played = True

    def __init__(
        self,
        make: str | Callable[[], Any],
        compute_reward: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
        *,
        set_task: Callable[[Any, np.ndarray], None] | None = None,
        task: Any = None,
        **settings: Any,
    ):
        super().__init__()
        build = partial(_gymnasium_make, make, **settings) if isinstance(make, str) else partial(make, **settings)
        example = build()
        if not isinstance(example, gymnasium.Env):
            raise UsageError(f"HostEnv needs a function () -> gymnasium.Env; this one returns {type(example).__name__}")
        self.build: Callable[[], Any] = lambda: Converted(build())
        self._make = make if isinstance(make, str) else None
        self._settings = settings
        self._class = type(example.unwrapped)  # part of a run's identity, as `_settings` are
        self.name, limit = name_of(example), time_limit(example)
        if limit is None:
            how = "wrap it in gymnasium's TimeLimit"
            if isinstance(make, str):
                how = f"give HostEnv({make!r}, max_episode_steps=…)"
            raise UsageError(f"{self.name} has no time limit, which episodes need: {how}")
        self.default_params = environment.EnvParams(max_steps_in_episode=limit)
        if (set_task is None) != (task is None):
            raise UsageError(f"{self.name} needs set_task and task, or neither: how it is told a task, and one of them")
        if set_task is not None:
            self.set_task = set_task
            self.default_params = self.params_of(jnp.asarray(task))
        converted = Converted(example)
        self._observations = _converted(converted.observation_space, f"observations of {self.name}")
        self._actions = _converted(converted.action_space, f"actions of {self.name}")
        for space, theirs in ((self._observations, example.observation_space), (self._actions, example.action_space)):
            if start := int(getattr(theirs, "start", 0)):
                space.start = start  # learners count from 0, and a `Policy` for the environment itself from here
        if isinstance(self._observations, spaces.Dict):
            reward = compute_reward or _sparse_reward(example)
            self.rewards_seen = _compare_rewards(reward, example)
            self.compute_reward = lambda achieved, desired, params: reward(achieved, desired)
        example.close()

    def params_of(self, task: jax.Array) -> HostParams:
        """The params of a task, in the form that `set_task` takes."""
        return HostParams(task=task, max_steps_in_episode=self.default_params.max_steps_in_episode)

    def tasks(self, sample: Callable[[jax.Array], jax.Array], resample: Any = "never", test: Any = None) -> Tasks:
        """A distribution over the tasks of an environment with `set_task`.

        Args:
            sample: key -> a task, in jax.
            resample: as for `jaxrl_envs.Tasks`.
            test: tasks that are held out, with a leading axis.
        """
        if self.set_task is None:
            raise UsageError(f"{self.name} has no tasks: give HostEnv set_task, how it is told one, and a first task")
        first, drawn = self.default_params.task, jax.eval_shape(lambda: jnp.asarray(sample(jax.random.key(0))))
        each = drawn if test is None else jax.eval_shape(lambda: jnp.asarray(test)[0])
        for what, found in (("sample draws", drawn), ("test holds", each)):
            if found.size != first.size or jnp.promote_types(found.dtype, first.dtype) != first.dtype:
                these, wanted = (f"{x.dtype}{list(x.shape)}" for x in (found, first))
                raise UsageError(f"the tasks of {self.name} must be {wanted}, like its first, and {what} {these}")
        like = lambda task: jnp.reshape(jnp.asarray(task, first.dtype), first.shape)
        held_out = None if test is None else jax.vmap(lambda task: self.params_of(like(task)))(jnp.asarray(test))
        return Tasks(sample=lambda key: self.params_of(like(sample(key))), resample=resample, test=held_out)

    def tell(self, env: Any, params: Any) -> None:
        """Tell one that `build` or `rendered` has made its next task, if there are tasks."""
        if self.set_task is not None:
            self.set_task(env.env, np.asarray(params.task))

    def observation_space(self, params: Any = None) -> Any:
        """The observation space in gymnax's form; float64 becomes float32."""
        return self._observations

    def action_space(self, params: Any = None) -> Any:
        """The action space in gymnax's form; float64 becomes float32."""
        return self._actions

    def outline(self) -> "HostEnv":
        """The environment with zeros for all that it returns: for shapes, without an episode on the host."""
        outlined = copy.copy(self)
        outlined.played = False
        return outlined

    def reset_env(self, key: jax.Array, params: Any) -> tuple[Any, HostState]:
        """The first observation of an episode that begins on the host; the key gives Gymnasium's seed."""
        zero = jnp.zeros((), jnp.int32)
        if not self.played:
            return _zeros(self._observations), HostState(time=zero)
        task = params.task if self.set_task else jnp.zeros(0)
        result = jax.ShapeDtypeStruct((), jnp.uint32), _shapes(self._observations)
        words = jax.random.key_data(key)
        number, obs = jax.pure_callback(self.episodes.begin, result, words, task, wanted(), vmap_method="broadcast_all")
        return obs, Ticket(time=zero, number=number, truncated=jnp.zeros((), bool))

    def step_env(self, key: jax.Array, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
        """The environment's own step, on the host."""
        if not self.played:
            return _zeros(self._observations), state, jnp.zeros(()), jnp.zeros((), bool), {}
        of = jax.ShapeDtypeStruct
        flag = of((), jnp.bool_)
        result = Seen(_shapes(self._observations), of((), jnp.float32), flag, flag, flag)
        ticket = state.number, state.time
        seen = jax.pure_callback(self.episodes.step, result, ticket, action, vmap_method="broadcast_all")
        state = state.replace(time=state.time + 1, truncated=seen.truncated)
        return seen.obs, state, seen.reward, seen.terminated, {"success": seen.success} if self.tells_success else {}

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        """By the environment itself, or by the limit that its specification states."""
        if not self.played:
            return jnp.zeros((), bool)
        return state.truncated | (state.time >= self.default_params.max_steps_in_episode)

    @cached_property
    def tells_success(self) -> bool:
        """Whether a step says if the task is solved, as the first does."""
        example = self.build()
        self.tell(example, self.default_params)
        example.reset(seed=0)
        told = "success" in example.step(example.action_space.sample())[4]
        example.close()
        return told

    @cached_property
    def layers(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """What the environment and its wrappers hold, from the outside in, in two new examples: part of a run's
        identity."""
        examples = [self.build(), self.build()]
        pairs = zip(*[layers(example.env) for example in examples])
        found = [(_own_attributes(first), _own_attributes(second)) for first, second in pairs]
        for example in examples:
            example.close()
        return found

    @cached_property
    def episodes(self) -> Episodes:
        """Those that are under way on the host for compiled programs."""
        limit = self.default_params.max_steps_in_episode
        return Episodes(self.build, limit, self._observations, self._actions, self.set_task)

    def vector(self, count: int) -> Any:
        """`count` environments side by side, a gymnasium.vector.VectorEnv that does not reset by itself."""
        # in this process: JAX has threads, beside which a fork may lock up
        return vector.SyncVectorEnv([self.build] * count, autoreset_mode=vector.AutoresetMode.DISABLED)

    def rendered(self) -> Any:
        """An environment that renders to arrays; None if it cannot: it has no such mode, a package or OpenGL is
        missing, or `make` is a function whose environments have another mode."""
        try:
            if self._make is not None:
                env = Converted(_gymnasium_make(self._make, **self._settings | {"render_mode": "rgb_array"}))
            else:
                env = self.build()
            if env.render_mode == "rgb_array":
                env.reset(seed=0)
                env.render()  # where OpenGL is missing, MuJoCo says so only here
                return env
            env.close()
        except Exception:  # a package that only rendering needs raises what it likes
            pass
        return None


def _own_attributes(layer: Any) -> dict[str, Any]:
    """Those of one layer, without what it draws from, and what Gymnasium keeps of it."""
    told = {name: x for name, x in vars(layer).items() if name not in ("env", "_np_random_seed")}
    specification = gymnasium.Space | gymnasium.envs.registration.EnvSpec
    return {"class": type(layer)} | {name: x for name, x in told.items() if not isinstance(x, specification)}


def _gymnasium_make(name: str, **settings: Any) -> Any:
    try:
        import gymnasium_robotics

        gymnasium.register_envs(gymnasium_robotics)
    except ImportError:
        pass
    try:
        return gymnasium.make(name, **settings)
    except (gymnasium.error.Error, ImportError) as error:
        missing = isinstance(error, gymnasium.error.UnregisteredEnv | ImportError)
        hint = "; the robots need the extra: pip install 'jaxrl-hier[robotics]'" if missing else ""
        raise UsageError(f"Gymnasium cannot make {name!r}: {str(error).splitlines()[0]}{hint}") from error


def _converted(space: Any, what: str) -> Any:
    if isinstance(space, gymnasium.spaces.Box):
        dtype = np.float32 if space.dtype == np.float64 else space.dtype
        return spaces.Box(space.low, space.high, space.shape, dtype)
    if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
        return spaces.Discrete(int(space.n))
    if isinstance(space, gymnasium.spaces.Dict) and set(space) == set(PARTS):
        return spaces.Dict({part: _converted(space[part], what) for part in PARTS})
    raise UsageError(
        f"{what} are {space}; supported are Box, Discrete, and for observations the dict of {', '.join(PARTS)}, and "
        "what Gymnasium's wrapper FlattenObservation makes a Box of"
    )


def _sparse_reward(example: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    threshold = getattr(example.unwrapped, "distance_threshold", None)
    if threshold is None:
        raise UsageError(
            f"{type(example.unwrapped).__name__} has no distance_threshold to take its reward from: give "
            "compute_reward, (achieved, desired) -> reward in jax"
        )
    return lambda achieved, desired: jnp.where(jnp.linalg.norm(achieved - desired) > threshold, -1.0, 0.0)


def _compare_rewards(reward: Callable[[jax.Array, jax.Array], jax.Array], example: Any) -> tuple[float, float]:
    """The lowest and the highest reward on pairs of the goals that a random episode achieves; UsageError where they
    differ from the environment's own."""
    obs, _ = example.reset(seed=0)
    example.action_space.seed(0)
    goals, over = [obs["desired_goal"], obs["achieved_goal"]], False
    while not over:
        obs, _, terminated, truncated, info = example.step(example.action_space.sample())
        goals.append(obs["achieved_goal"])
        over = terminated or truncated
    theirs = [[example.unwrapped.compute_reward(a, d, info) for d in goals] for a in goals]
    stacked = jnp.asarray(np.stack(goals), jnp.float32)
    ours = jax.vmap(jax.vmap(reward, (None, 0)), (0, None))(stacked, stacked)
    wrong = np.mean(~np.isclose(ours, theirs, atol=1e-5))
    if wrong > 0.01:  # at the rim of a threshold float32 may decide otherwise
        raise UsageError(
            f"compute_reward differs from the environment's own on {wrong:.0%} of the pairs of goals of an episode; "
            "without the argument compute_reward a sparse reward of −1 and 0 is assumed"
        )
    return float(ours.min()), float(ours.max())


def _zeros(space: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), _shapes(space))


def _shapes(space: Any) -> Any:
    """The shapes of a space's elements in JAX."""
    if isinstance(space, spaces.Dict):
        return {name: _shapes(part) for name, part in space.spaces.items()}
    return jax.ShapeDtypeStruct(space.shape, jax.dtypes.canonicalize_dtype(space.dtype))
