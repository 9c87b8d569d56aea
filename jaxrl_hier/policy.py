"""A policy that acts step by step, NumPy in and out, for environments outside of compiled programs.

    policy = Policy(algorithm, params, env, tasks)
    obs, _ = world.reset()
    for _ in range(1000):
        action = policy.act(obs, reward, done)       # reward and done are of the step that led to obs
        ...

The policy keeps what the agent remembers from step to step and what it learns of a task. It calls one compiled program
(`engine.acting`) per step. With the key of a world of `engine.rollout` it chooses the same actions; continuous ones up
to rounding, since XLA may fuse the two programs differently.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces

from jaxrl_envs.contract import convertible, is_key
from jaxrl_envs.tasks import Tasks, single
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine import acting
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.numerics import own_numerics, with_own_numerics
from jaxrl_hier.engine.types import Algorithm, Params
from jaxrl_hier.exported_policy import words_of
from jaxrl_hier.settings import shown


class Policy:
    """A trained agent that acts.

    The first `act` of a new policy begins a task. An agent that adapts learns from the data of the task as it arrives:
    RL² and VariBAD in a hidden state, PEARL in its belief after each episode, MAML's family by a gradient step after as
    many episodes as in training, up to the number of steps in a meta-test. It learns from the rewards given to `act`;
    if the environment has a `sparse_reward`, PEARL was trained to adapt to that one.

    Without `greedy` it samples its actions as in training. With it, MAML's family and MLSH still sample until they have
    adapted: a policy gradient of the likeliest actions vanishes.

    Args:
        algorithm: from `make`.
        params: `TrainState.params` of one seed.
        env: the environment that it was trained in, for its spaces.
        tasks: its tasks.
        key: for all random numbers; a number or a JAX key.
        greedy: act without exploring, once adapted.
        count: agents that act side by side, on tasks of their own; None: one, without a leading axis. See `batch`.
    """

    @with_own_numerics
    def __init__(
        self,
        algorithm: Algorithm,
        params: Params,
        env: Any,
        tasks: Tasks | None = None,
        *,
        key: Any = 0,
        greedy: bool = True,
        count: int | None = None,
    ):
        if algorithm.player is None:
            raise UsageError("this algorithm has no player: a policy needs how it acts")
        self._algorithm, self._env, self._greedy, self._count = algorithm, env, greedy, count
        self._tasks = single(env.default_params) if tasks is None else tasks
        self._params = jax.tree.map(jnp.asarray, params)
        self._given_key = key
        keys = as_key(key)
        keys = keys[None] if count is None else jax.random.split(keys, count)
        self._rows = len(keys)
        programs = Programs(algorithm, self._params, env, self._tasks, greedy, single=count is None)
        self._programs, words = programs, jax.random.key_data(keys)
        self._begin = Compiled(programs.new_task, self._params, words)
        self._memory, self._agents = self._begin(self._params, words)
        self._finish: Any = None
        self._step: Any = None  # compiled when it is first needed
        self._over = np.zeros(self._rows, bool)  # whose episode was ended by `reset`
        self._ended = False  # whether any was
        self._space = env.observation_space(env.default_params)
        self._first_action = start_of(env.action_space(env.default_params))
        self._final, self._learns = algorithm.player.final_obs, algorithm.player.learn is not None

    def act(self, obs: Any, reward: Any = 0.0, done: Any = False, final_obs: Any = None) -> Any:
        """The action for `obs`.

        Args:
            obs: an element of the observation space; numbers of other precision are converted.
            reward: of the step that led to `obs`; ignored before the first step on a task.
            done: whether that step ended an episode, so that `obs` is the first of the next.
            final_obs: where `done`, the last observation of the episode; only needed by agents that learn from it.

        Returns:
            An element of the action space: a NumPy integer, or an array within the bounds to the last bit.

        Raises:
            UsageError: an observation outside of the space, or not as many as there are agents.
        """
        seen = self._observation(obs, self._space, "the observation")
        rewards = self._numbers("reward", reward, np.float32)
        over = self._numbers("done", done, np.bool_)
        if self._ended:
            over = over | self._over
            self._over, self._ended = np.zeros(self._rows, bool), False
        if self._learns and over.any():
            ending = [self._ending(seen, final_obs)] if self._final else []
            past = [(self._params, self._memory), self._agents, rewards, over, *ending]
            if self._finish is None:
                self._finish = Compiled(self._programs.finish, *past)
            self._memory, self._agents = self._finish(*past)
        arguments = [(self._params, self._memory), self._agents, seen, rewards, over]
        if self._step is None:
            self._step = Compiled(self._programs.act, *arguments, donate_argnums=1)
        action, self._agents = self._step(*arguments)
        action = np.asarray(action)
        action = action + action.dtype.type(self._first_action) if self._first_action else action
        return action if self._count is not None else action[0]

    def reset(self, where: Any = None) -> None:
        """The next observation is the first of an episode on the same task, as `done` says; the reward that comes with
        it is still of the step before.

        Args:
            where: [n] bool, of a batch: for which agents. None: for all.
        """
        self._over = self._over | self._numbers("where", True if where is None else where, np.bool_)
        self._ended = True

    @with_own_numerics
    def new_task(self, where: Any = None) -> None:
        """The next observation is the first on a new task: what was learned of the one before is forgotten.

        Args:
            where: [n] bool, of a batch: for which agents. None: for all.
        """
        mask = self._numbers("where", True if where is None else where, np.bool_)
        if not mask.any():
            return
        now = self._now()
        fresh = self._begin(self._params, jax.random.key_data(now.key))
        old = self._memory, self._agents
        keep = lambda new, old: jnp.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        self._memory, self._agents = fresh if mask.all() else jax.tree.map(keep, fresh, old)
        self._over = self._over & ~mask

    def batch(self, n: int) -> "Policy":
        """`n` agents side by side, on tasks of their own: all arguments and actions have a leading axis [n]."""
        if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1:
            raise UsageError(f"a batch is of at least one agent, got {shown(n)}")
        arguments = (self._algorithm, self._params, self._env, self._tasks)
        return Policy(*arguments, key=self._given_key, greedy=self._greedy, count=int(n))

    @property
    def steps_of_adaptation(self) -> Any:
        """How far each agent has adapted to its task, as a meta-test counts: gradient steps for MAML and its family,
        episodes for RL², VariBAD and PEARL, 0 for agents that do not adapt. A number, [n] of a batch."""
        return self._told(self._now().adaptation)

    @property
    def experience(self) -> tuple[Any, Any]:
        """Episodes that have ended, and steps whose reward is known, on the present task. Numbers, [n] of a batch."""
        now = self._now()
        return self._told(now.episodes), self._told(now.experience)

    @property
    def memory(self) -> Any:
        """What the agent knows of the task, as NumPy arrays: `Player.memory`, such as MAML's adapted parameters."""
        return jax.tree.map(np.array, self._memory)

    def _now(self) -> acting.Acting:
        with own_numerics():
            return self._programs.unpack(self._agents)

    def _told(self, numbers: jax.Array) -> Any:
        return np.asarray(numbers) if self._count is not None else int(numbers[0])

    # What comes in

    def _numbers(self, name: str, x: Any, dtype: Any) -> np.ndarray:
        """`x` as [B]; a single number is every agent's."""
        if self._count is None and type(x) in (bool, int, float):
            return np.array([x], dtype)
        x = np.asarray(x)
        wanted = () if self._count is None else (self._count,)
        if x.dtype.kind not in "biuf" or x.shape not in (wanted, ()):
            raise UsageError(f"{name} must be {_kind(dtype, wanted)}, got {shown(x)}")
        return np.broadcast_to(x.astype(dtype, copy=False), (self._rows,))

    def _observation(self, obs: Any, space: Any, what: str) -> Any:
        """`obs` in the dtypes of its space, [B, ...]."""
        if isinstance(space, spaces.Dict):
            if not hasattr(obs, "keys") or set(obs) != set(space.spaces):
                found = f"a dict of {', '.join(map(str, obs))}" if hasattr(obs, "keys") else shown(obs)
                raise UsageError(f"{what} must be a dict of {', '.join(space.spaces)}, got {found}")
            parts = space.spaces.items()
            return {name: self._observation(obs[name], part, f"{what}[{name!r}]") for name, part in parts}
        if isinstance(space, spaces.Tuple):
            if not isinstance(obs, tuple | list) or len(obs) != len(space.spaces):
                raise UsageError(f"{what} must be a tuple of {len(space.spaces)}, got {shown(obs)}")
            parts = enumerate(zip(obs, space.spaces))
            return tuple(self._observation(x, part, f"{what}[{i}]") for i, (x, part) in parts)
        dtype = jax.dtypes.canonicalize_dtype(space.dtype)
        leading = () if self._count is None else (self._count,)
        wanted = (*leading, *space.shape)
        try:
            array = np.asarray(obs)
        except ValueError:  # rows of different lengths
            raise UsageError(f"{what} must be {_kind(dtype, wanted)}, got {shown(obs)}") from None
        fits = array.dtype == dtype or (array.dtype.kind in "biuf" and convertible(array.dtype, dtype))
        if array.shape != wanted or not fits:
            raise UsageError(f"{what} must be {_kind(dtype, wanted)}, got {_described(obs, array)}")
        first = start_of(space)
        if isinstance(space, spaces.Discrete) and not (array.min() >= first and array.max() < first + space.n):
            raise UsageError(f"{what} must be from {first} to {first + space.n - 1}, got {shown(obs)}")
        array = array.astype(dtype, copy=False)
        array = array - dtype.type(first) if first else array
        return array if self._count is not None else array[None]

    def _ending(self, seen: Any, final_obs: Any) -> Any:
        if final_obs is None and self._programs.have_begun(self._agents):
            raise UsageError("this agent learns from where steps lead: give act the final_obs of what has ended")
        return seen if final_obs is None else self._observation(final_obs, self._space, "final_obs")


PACKED = 50  # numbers of an array that goes into the one of all small ones


class Programs:
    """The three functions that a policy is: arrays in, arrays out.

    Between two calls the agents [B] are a few arrays, `small` [B, W] uint32 and the larger ones as they are, since
    every array that a call returns costs microseconds. `layout` says what is where.

    Args:
        algorithm, params, env, tasks, greedy: see `Policy`.
        single: one agent, whose memory has no leading axis.
    """

    def __init__(self, algorithm: Algorithm, params: Params, env: Any, tasks: Tasks, greedy: bool, single: bool = True):
        assert algorithm.player is not None
        self._begin = partial(acting.new_task, env, algorithm.player)
        self._step = partial(acting.act, env, algorithm.player, tasks, greedy=greedy, single=single)
        self._finish, self._single = partial(acting.finish, algorithm.player, single=single), single
        self.layout: list[Field] = []
        self._structure: Any = None

        def look() -> None:
            agents = self._begin(params, jax.random.key(0))[1]
            leaves, self._structure = jax.tree_util.tree_flatten_with_path(agents)
            self.layout = [field_of(path, x) for path, x in leaves]

        jax.eval_shape(look)

    def new_task(self, params: Params, words: jax.Array) -> tuple[Any, "Agents"]:
        """Parameters, words of keys [B, 2] -> memory, and agents [B] that know nothing of their tasks."""
        memory, agents = jax.vmap(self._begin, (None, 0))(params, jax.random.wrap_key_data(words))
        return (jax.tree.map(lambda x: x[0], memory) if self._single else memory), self.pack(agents)

    def finish(self, known: tuple[Params, Any], agents: "Agents", *seen: Any) -> tuple[Any, "Agents"]:
        """`engine.acting.finish`; `known` are the parameters and the memory."""
        memory, after = self._finish(*known, self.unpack(agents), *seen)
        return memory, self.pack(after)

    def act(self, known: tuple[Params, Any], agents: "Agents", *seen: Any) -> tuple[Any, "Agents"]:
        """`engine.acting.act`; `known` are the parameters and the memory."""
        action, after = self._step(*known, self.unpack(agents), *seen)
        return action, self.pack(after)

    def have_begun(self, agents: "Agents") -> bool:
        """Whether all agents have taken a step on their tasks."""
        return bool(jnp.all(self.unpack(agents).begun))

    def pack(self, agents: acting.Acting) -> "Agents":
        """Agents [B] as they are between two calls."""
        small, large = [], []
        for x, field in zip(jax.tree.leaves(agents), self.layout, strict=True):
            x = jax.random.key_data(x) if field.key else x
            if not field.small:
                large.append(x)
                continue
            x = x.astype(jnp.uint32) if x.dtype == jnp.bool_ else jax.lax.bitcast_convert_type(x, jnp.uint32)
            small.append(x.reshape(len(x), -1))
        return Agents(jnp.concatenate(small, axis=1), large)

    def unpack(self, agents: "Agents") -> acting.Acting:
        """The inverse of `pack`."""
        leaves, at, large = [], 0, iter(agents.large)
        for field in self.layout:
            if field.small:
                size = math.prod(field.shape)
                x = agents.small[:, at : at + size].reshape(-1, *field.shape)
                x = x != 0 if field.dtype == "bool" else jax.lax.bitcast_convert_type(x, field.dtype)
                at += size
            else:
                x = next(large)
            leaves.append(jax.random.wrap_key_data(x, impl=field.key) if field.key else x)
        return self._structure.unflatten(leaves)


class Agents(NamedTuple):
    """Agents between two calls; see `Programs`."""

    small: jax.Array  # [B, W] uint32
    large: list[jax.Array]  # [B, ...] each


class Field(NamedTuple):
    """An array among those that an agent is."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    key: Any  # JAX's implementation of random keys, where this is the data of a key; else None
    small: bool  # whether it lies in `Agents.small`


def field_of(path: Any, x: jax.Array) -> Field:
    """The Field of one agent's array [...] at `path`."""
    key = jax.random.key_impl(x) if is_key(x) else None
    x = jax.random.key_data(x) if key else x
    small = x.dtype in (jnp.float32, jnp.int32, jnp.uint32, jnp.bool_) and x.size <= PACKED
    return Field(jax.tree_util.keystr(path).lstrip("."), x.shape, str(x.dtype), key, small)


class Compiled:
    """`f(known, *arguments)`, compiled for arrays of these shapes.

    A call costs about a microsecond for each array that it passes. So the program takes only those of `known` that it
    uses: not the critics, for example, which a policy keeps but does not act with.
    """

    @with_own_numerics
    def __init__(self, f: Any, known: Any, *arguments: Any, **options: Any):
        leaves, structure = jax.tree.flatten(known)
        jaxpr = jax.make_jaxpr(lambda leaves: f(jax.tree.unflatten(structure, leaves), *arguments))(leaves).jaxpr
        read = {id(x) for equation in jaxpr.eqns for x in equation.invars} | set(map(id, jaxpr.outvars))
        self._used = [i for i, x in enumerate(jaxpr.invars) if id(x) in read]

        def of_used(used: list[Any], *arguments: Any) -> Any:
            some = dict(zip(self._used, used))
            every = [some.get(i, jnp.zeros_like(x)) for i, x in enumerate(leaves)]
            return f(jax.tree.unflatten(structure, every), *arguments)

        shapes = self._of(known), *arguments
        self._program = jit(of_used, sequential=True, **options).lower(*shapes).compile()

    def _of(self, known: Any) -> list[Any]:
        leaves = jax.tree.leaves(known)
        return [leaves[i] for i in self._used]

    def __call__(self, known: Any, *arguments: Any) -> Any:
        return self._program(self._of(known), *arguments)


def start_of(space: Any) -> int:
    """The number from which Gymnasium counts the elements of a space; learners count them from 0."""
    return getattr(space, "start", 0)


def as_key(key: Any) -> jax.Array:
    """`key` if it is a JAX key [], or the key of a number, all 64 bits of which count."""
    if is_key(key) and not key.shape:
        return key
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        if not -(2**63) <= key < 2**63:
            raise UsageError(f"key must lie from -2**63 to 2**63 - 1, got {shown(key)}")
        with own_numerics():
            return jax.random.wrap_key_data(jnp.asarray(words_of(key)[0]))
    raise UsageError(f"key must be a whole number or a JAX key, got {shown(key)}")


def _kind(dtype: Any, shape: tuple[int, ...]) -> str:
    return f"{np.dtype(dtype)}{list(shape)}" if shape else f"one number, {np.dtype(dtype)}"


def _described(obs: Any, array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}" if array.dtype.kind in "biuf" else shown(obs)
