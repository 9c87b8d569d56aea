"""The boundary between environments and the engine: everything that an environment returns passes through here.

`Played(env)` has `reset` and `step`, whose results have the dtypes and shapes of the contract, whatever the environment
returned: scalars of Python or NumPy, integers for booleans, weak types. What cannot be converted without loss raises
`EnvCheckError` with one line.

A wrapper in the style of gymnax, which overrides `reset` and `step` and forwards everything else, is stepped by its own
`step`. The environment that it wraps is stepped without gymnax's automatic reset: the engine resets by itself, and
needs the true successor of an episode's last step.

Optional: `render(state, params)` -> uint8 [H, W, 3], a picture of one state of one task, on the host and in NumPy
(`jaxrl_envs.rendering`); a trained policy is then animated (<run>/plots/episode.gif). And `facts`, names of entries of
`info` that describe a step, see `Played.declared_facts`.
"""

import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple, NoReturn

import flax
import jax
import jax.numpy as jnp
import numpy as np

STEP_ENV = "step_env returns (observation, state, reward, terminated, info)"
STEP = "step returns (observation, state, reward, terminated, truncated, info)"


class EnvCheckError(ValueError):
    """The environment breaks the contract; the message says in which ways."""


class Step(NamedTuple):
    """The result of one step of one environment."""

    obs: Any  # the true successor, never the observation after a reset; dtypes of the observation space
    state: Any  # shapes and dtypes of the state before
    reward: jax.Array  # [] float32
    terminated: jax.Array  # [] bool: the task's own end
    truncated: jax.Array  # [] bool: the time limit; never both
    info: dict[str, Any]


class Played:
    """An environment as the engine uses it; other attributes are those of the environment.

    Raises:
        EnvCheckError: it overrides `step` where nothing would call it, or has no spaces or params.
    """

    def __init__(self, env: Any):
        self.env: Any = env.env if isinstance(env, Played) else _without_automatic_resets(env)
        for name in ("default_params", "observation_space", "action_space"):
            if not hasattr(env, name):
                refuse(env, f"it has no {name}")
        self.observations = env.observation_space(env.default_params)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, key: jax.Array, task: Any) -> tuple[Any, Any]:
        """The first observation of an episode and its state."""
        obs, state = self.returned_by_reset(key, task)
        return self._observation(obs), jax.tree_util.tree_map_with_path(self._leaf, state)

    def step(self, key: jax.Array, state: Any, action: Any, task: Any) -> Step:
        """Take `action` in `state`."""
        obs, after, reward, terminated, truncated, info = self.returned_by_step(key, state, action, task)
        terminated = self._flag("terminated", terminated)
        return Step(
            obs=self._observation(obs),
            state=self._like(state, after),
            reward=self._converted("the reward", reward, (), jnp.float32),
            terminated=terminated,
            truncated=self._flag("truncated", truncated) & ~terminated,
            info=dict(info) if isinstance(info, Mapping) else {},
        )

    def returned_by_reset(self, key: jax.Array, task: Any) -> tuple[Any, Any]:
        """Observation and state as the environment returns them."""
        returned = _call(self, "reset_env", key, task)
        if not isinstance(returned, tuple) or len(returned) != 2:
            refuse(self, f"reset_env returns (observation, state), this one {_count(returned)}")
        return returned

    def returned_by_step(self, key: jax.Array, state: Any, action: Any, task: Any) -> tuple[Any, ...]:
        """Observation, state, reward, terminated, truncated and info as the environment returns them."""
        returned = _call(self, "step_env", key, state, action, task)
        if not isinstance(returned, tuple) or len(returned) != 5:
            refuse(self, f"{STEP_ENV}, this one {_count(returned)}")
        obs, after, reward, terminated, info = returned
        self._same_structure(state, after)
        return obs, after, reward, terminated, _call(self, "is_truncated", after, task), info

    @property
    def stepped_by_wrapper(self) -> bool:
        """Whether the environment is stepped by a wrapper's own `step`."""
        return isinstance(self.env, _SteppedByWrapper)

    def declared_facts(self, info: dict[str, Any]) -> dict[str, jax.Array]:
        """The entries of `info` that the environment declares, without those that this one lacks; "success" as [] bool.

        An environment declares facts by an attribute `facts`, their names, such as ("regret",). Without it "success" is
        the only one, where it is a scalar: true unless zero. Anything else by that name is the environment's own.
        """
        if not hasattr(self.env, "facts"):
            success = _scalar(info.get("success"))
            return {} if success is None else {"success": success != 0}
        read = lambda name, x: (self._flag if name == "success" else self._converted)(f"info[{name!r}]", x)
        return {name: read(name, info[name]) for name in self.env.facts if name in info}

    # Conversions

    def _observation(self, obs: Any, space: Any = None, what: str = "the observation") -> Any:
        from gymnax.environments import spaces  # here, since gymnax is slow to import

        space = self.observations if space is None else space
        if isinstance(space, spaces.Dict):
            if not hasattr(obs, "keys") or set(obs) != set(space.spaces):
                found = ", ".join(map(str, obs)) if hasattr(obs, "keys") else type(obs).__name__
                refuse(self, f"{what} is a dict of {', '.join(space.spaces)} by its space, this one is {found}")
            return {
                name: self._observation(obs[name], part, f"{what}[{name!r}]") for name, part in space.spaces.items()
            }
        if isinstance(space, spaces.Tuple):
            if not isinstance(obs, tuple | list) or len(obs) != len(space.spaces):
                refuse(self, f"{what} is a tuple of {len(space.spaces)} by its space, this one is {_kind(obs)}")
            parts = enumerate(zip(obs, space.spaces))
            return tuple(self._observation(x, part, f"{what}[{i}]") for i, (x, part) in parts)
        if not hasattr(space, "shape") or not hasattr(space, "dtype"):
            return jax.tree_util.tree_map_with_path(self._leaf, obs)
        return self._converted(what, obs, tuple(space.shape), space.dtype)

    def _like(self, before: Any, after: Any) -> Any:
        """`after` with the dtypes of `before`, a state of the same structure and shapes."""
        self._same_structure(before, after)

        def leaf(path: Any, x: Any, y: Any) -> jax.Array:
            name = f"the state's {_name(path)} after a step"
            if is_key(x) and is_key(y):
                return y
            return self._converted(name, y, x.shape, x.dtype, exactly=True)

        return jax.tree_util.tree_map_with_path(leaf, before, after)

    def _same_structure(self, before: Any, after: Any) -> None:
        old: Any = jax.tree.structure(before)
        new: Any = jax.tree.structure(after)
        if old != new:
            refuse(self, f"a step changes the state's structure, from {old} to {new}")

    def _leaf(self, path: Any, x: Any) -> jax.Array:
        """`x` as an array of JAX's dtype for it, without weak type."""
        return x if is_key(x) else self._converted(f"the state's {_name(path)}", x)

    def _flag(self, what: str, x: Any) -> jax.Array:
        return self._converted(what, x, (), jnp.bool_)

    def _converted(
        self, what: str, x: Any, shape: tuple[int, ...] | None = None, dtype: Any = None, *, exactly: bool = False
    ) -> jax.Array:
        try:
            return converted(what, x, shape, dtype, exactly=exactly)
        except ValueError as error:
            refuse(self, str(error))


def converted(
    what: str, x: Any, shape: tuple[int, ...] | None = None, dtype: Any = None, *, exactly: bool = False
) -> jax.Array:
    """`x` as an array [...] of `dtype`, without weak type; None for a shape or dtype stands for that of `x`.

    Args:
        what: its name in errors.
        exactly: whether rounding to a `dtype` of less precision is an error, too.

    Raises:
        ValueError: it is no array, has another shape, or numbers that `dtype` may not hold; one line.
    """
    numbers = jax.tree.leaves(x, is_leaf=lambda leaf: leaf is None)
    try:
        # JAX would cut numbers of the host to 32 bits before we know what is wanted
        found: Any = np.asarray(x) if numbers and all(isinstance(n, ON_HOST) for n in numbers) else jnp.asarray(x)
        if found.dtype == object and all(isinstance(n, int) for n in found.flat):  # Python's, of more than 64 bits
            found = found.astype(np.float64)
        own = jnp.result_type(found)  # a TypeError for NumPy's arrays of objects or text
        dtype = own if dtype is None else jax.dtypes.canonicalize_dtype(dtype)
    except (TypeError, ValueError):
        raise ValueError(f"{what} is no array but {type(x).__name__}") from None
    except OverflowError:
        raise ValueError(f"{what} is a number too large for any dtype") from None
    shape = found.shape if shape is None else shape
    if found.shape != shape or not convertible(found.dtype, dtype) or _loses(found, dtype, exactly):
        wanted = f"{dtype}{list(shape)}" if shape else f"a scalar, {dtype}"
        raise ValueError(f"{what} is {_described(found, dtype)}, it must be {wanted}")
    if dtype == jnp.bool_ and found.dtype != jnp.bool_:
        found = found != 0
    if isinstance(found, np.ndarray):
        with np.errstate(over="ignore"):
            return jnp.asarray(found.astype(dtype))
    return jax.lax.convert_element_type(found, dtype)


def _scalar(x: Any) -> jax.Array | None:
    """`x` as an array [] of a number; None where it is none."""
    try:
        return converted("", x, ())
    except ValueError:
        return None


ON_HOST = (bool, int, float, complex, np.bool_, np.number, np.ndarray)


def _loses(x: Any, wanted: Any, exactly: bool) -> bool:
    """Whether numbers of `x` may be beyond those of dtype `wanted`, or if `exactly`, fall between them.

    Whole numbers of the host are looked at. Its floats are taken to fit, as are JAX's weakly typed numbers.
    """
    both = lambda kind: all(jnp.issubdtype(dtype, kind) for dtype in (x.dtype, wanted))
    on_host = isinstance(x, np.ndarray)
    if on_host and both(jnp.integer):
        return bool(x.size) and not jnp.iinfo(wanted).min <= x.min() <= x.max() <= jnp.iinfo(wanted).max
    if on_host or x.weak_type:
        return False
    if both(jnp.integer):
        return jnp.iinfo(x.dtype).bits > jnp.iinfo(wanted).bits
    if not exactly or not both(jnp.floating):
        return False
    old, new = jnp.finfo(x.dtype), jnp.finfo(wanted)
    return old.nmant > new.nmant or old.maxexp > new.maxexp


def _described(x: Any, wanted: Any) -> str:
    """`x` in an error: a whole number of the host that does not fit by its value, else dtype and shape."""
    integers = all(jnp.issubdtype(dtype, jnp.integer) for dtype in (x.dtype, wanted))
    return str(x) if isinstance(x, np.ndarray) and x.shape == () and integers else f"{x.dtype}{list(x.shape)}"


def _name(path: Any) -> str:
    """Of a leaf in errors."""
    return jax.tree_util.keystr(path).lstrip(".") or "value"


def convertible(found: Any, wanted: Any) -> bool:
    """Whether numbers of dtype `found` can stand for those of `wanted`: booleans for integers, both for floats, and
    integers for booleans, of any number of bits."""
    if found == wanted:
        return True
    if jnp.issubdtype(wanted, jnp.floating):
        return any(jnp.issubdtype(found, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))
    return any(jnp.issubdtype(found, kind) for kind in (jnp.integer, jnp.bool_))


def describe(x: Any) -> str:
    """dtype and shape: float32[2]."""
    return f"{jnp.result_type(x)}{list(jnp.shape(x))}"


def refuse(env: Any, problem: str) -> NoReturn:
    """Raise EnvCheckError with one line on how an environment breaks the contract."""
    raise EnvCheckError(f"{name_of(env)} breaks the environment contract: {problem} (see jaxrl_envs.check_env)")


def name_of(env: Any) -> str:
    """The name of an environment, or else of its class."""
    name = getattr(env, "name", None)
    while isinstance(env, Played | _SteppedByWrapper | _NoAutomaticReset):
        env = next(iter(vars(env).values()))
    return name if isinstance(name, str) else type(env).__name__


def is_key(x: Any) -> bool:
    """Whether `x` is an array of JAX's typed keys, or the shape of one."""
    return jax.dtypes.issubdtype(getattr(x, "dtype", None), jax.dtypes.prng_key)


def _kind(obs: Any) -> str:
    return f"one of {len(obs)}" if isinstance(obs, tuple | list) else f"a {type(obs).__name__}"


def _count(returned: Any) -> str:
    if isinstance(returned, tuple | list):
        return f"returns {len(returned)} value{'' if len(returned) == 1 else 's'}"
    return "returns an array" if isinstance(returned, jax.Array) else f"returns a {type(returned).__name__}"


def _call(played: Played, method: str, *arguments: Any) -> Any:
    """Call a method of the environment; its errors become one line that names the line of code."""
    if not hasattr(played.env, method):
        refuse(played, f"it has no {method}")
    try:
        return getattr(played.env, method)(*arguments)
    except EnvCheckError:
        raise
    except Exception as error:
        if _plays_on_host(played.env):  # what an environment of Gymnasium breaks is said where it is played
            raise
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not _of_a_library(f.filename)]
        where = f" ({frames[-1].filename.rsplit('/', 1)[-1]}, line {frames[-1].lineno})" if frames else ""
        text = (str(error).strip() or "no message").splitlines()[0]
        raise EnvCheckError(
            f"{name_of(played)} breaks the environment contract: {method} raises {type(error).__name__}{where}: {text}"
        ) from error


def on_host(env: Any) -> bool:
    """Whether an environment is one of Gymnasium, which runs on the host and is not compiled."""
    return bool(getattr(env, "on_host", False))


def _plays_on_host(env: Any) -> bool:
    """Whether an environment, or the one that it wraps, runs on the host: an error may then come from there."""
    return on_host(env) or ((inner := wrapped(env)) is not None and _plays_on_host(inner))


LIBRARIES = tuple(str(Path(str(module.__file__)).parent) for module in (jax, flax))


def _of_a_library(path: str) -> bool:
    return path == __file__ or path.startswith(LIBRARIES)


# Wrappers


class _NoAutomaticReset:
    """An environment as gymnax's wrappers see it, whose `step` does not reset at an episode's end."""

    def __init__(self, played: Played):
        self._played = played

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_played":
            raise AttributeError(name)
        return getattr(self._played, name)

    def reset(self, key: jax.Array, params: Any = None) -> tuple[Any, Any]:
        return self._played.reset(key, self._played.default_params if params is None else params)

    def step(self, key: jax.Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        s = self._played.step(key, state, action, self._played.default_params if params is None else params)
        told = {"terminated": s.terminated, "truncated": s.truncated, "final_observation": s.obs}
        return s.obs, s.state, s.reward, s.terminated, s.truncated, {**s.info, **told}


class WrapperState(NamedTuple):
    """The state of a wrapper that is stepped by its own `step`."""

    wrapper: Any
    truncated: Any  # as returned by the step that led here


class _SteppedByWrapper:
    """A wrapper that overrides `reset` and `step`, around an environment that does not reset by itself, in the form of
    the contract."""

    def __init__(self, wrapper: Any):
        self._wrapper = wrapper

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_wrapper":
            raise AttributeError(name)
        return getattr(self._wrapper, name)

    def reset_env(self, key: jax.Array, params: Any) -> Any:
        returned = uncompiled(self._wrapper.reset)(key, params)
        if not isinstance(returned, tuple) or len(returned) != 2:
            refuse(self, f"reset returns (observation, state), this one {_count(returned)}")
        obs, state = returned
        return obs, WrapperState(state, False)

    def step_env(self, key: jax.Array, state: WrapperState, action: Any, params: Any) -> Any:
        returned = self._wrapper.step(key, state.wrapper, action, params)
        if not isinstance(returned, tuple) or len(returned) != 6:
            refuse(self, f"{STEP}, this one {_count(returned)}")
        obs, after, reward, terminated, truncated, info = returned
        return obs, WrapperState(after, truncated), reward, terminated, info

    def is_truncated(self, state: WrapperState, params: Any) -> Any:
        return state.truncated


def uncompiled(method: Any) -> Any:
    """A method without a `jit` of its own, which hides from a reset on the host that nothing comes of it."""
    function: Any = getattr(method, "__func__", None)
    if not isinstance(function, jax.stages.Wrapped):
        return method
    return partial(getattr(function, "__wrapped__"), method.__self__)  # noqa: B009 - no part of JAX's type


def _without_automatic_resets(env: Any) -> Any:
    """`env`; if it is a wrapper, a copy of it around an environment that does not reset by itself."""
    if isinstance(env, Played | _SteppedByWrapper | _NoAutomaticReset):
        return env
    inner = wrapped(env)
    for method, own in (("step", "step_env"), ("reset", "reset_env")):
        if _overrides(env, method, own) and (inner is None or _defining(type(env), own) or method in vars(env)):
            refuse(
                env,
                f"{type(env).__name__} overrides {method}, which is not called: override {own}, or write a wrapper, an "
                f"object that holds the environment and has the methods reset and step",
            )
    if inner is None:
        return env
    defined = lambda *methods: [method for method in methods if _defining(type(env), method)]
    ours, gymnaxs = defined("reset_env", "step_env", "is_truncated"), defined("reset", "step")
    if ours and gymnaxs and "step_env" not in ours:
        refuse(
            env,
            f"{type(env).__name__} overrides {', '.join(gymnaxs)} and {', '.join(ours)}, of which only some would be "
            "called: override either reset and step, or reset_env, step_env and is_truncated",
        )
    if not ours and len(_outermost(env)) > 1:
        refuse(
            env,
            f"{type(env).__name__} wraps several environments: override step_env and reset_env instead of step and "
            "reset",
        )
    wrapper = object.__new__(type(env))  # copy.copy fails where `__getattr__` forwards
    for name, x in vars(env).items():
        owner = getattr(x, "__self__", None)
        if _is_environment(x):
            x = _inside(x)
        elif _is_environment(owner) and owner is not env:  # a method of the environment, kept by itself
            x = getattr(_inside(owner), x.__name__)
        elif _steps_by_itself(x):
            refuse(
                env,
                f"{type(env).__name__} keeps the environment's step in {name}, compiled or inside of another function, "
                "where it resets by itself: call the environment's step in the wrapper's methods",
            )
        vars(wrapper)[name] = x
    return wrapper if ours else _SteppedByWrapper(wrapper)


def _inside(env: Any) -> Any:
    """An environment for the wrapper that holds it: neither its `step` resets by itself."""
    return _NoAutomaticReset(Played(env)) if hasattr(env, "is_truncated") else env  # else of another package


def _steps_by_itself(x: Any, seen: tuple[Any, ...] = ()) -> bool:
    """Whether a function is or calls an environment's `step`, by what it wraps, closes over and names."""
    owner = getattr(x, "__self__", None)
    if _is_environment(owner) and getattr(x, "__name__", "") == "step":
        return True
    around = [getattr(x, "__wrapped__", None)] if callable(x) else []  # of jax.jit and jax.vmap
    if isinstance(x, partial):
        around += [x.func, *x.args]
    if isinstance(x, FunctionType | MethodType):
        cells = [cell.cell_contents for cell in x.__closure__ or ()]
        if "step" in _names_in(x.__code__) and any(_is_environment(held) for held in [owner, *cells]):
            return True
        around += cells
    followed = [y for y in around if callable(y) and not _is_environment(y) and not any(y is z for z in seen)]
    return any(_steps_by_itself(y, (*seen, x)) for y in followed)


def _names_in(code: CodeType) -> set[str]:
    """The attributes and globals that a function and those inside of it use."""
    return set(code.co_names).union(*(_names_in(part) for part in code.co_consts if isinstance(part, CodeType)))


def wrapped(env: Any) -> Any:
    """The environment that a wrapper holds in an attribute, the outermost; None if `env` is no wrapper."""
    return next(iter(_outermost(env)), None)


def _outermost(env: Any) -> list[Any]:
    """The environments in attributes of `env`, without those that another of them holds in turn."""
    held = _held(env)
    within = {id(x) for outer in held for x in _all_within(outer)}
    return [x for x in held if id(x) not in within]


def _held(env: Any) -> list[Any]:
    return [*{id(x): x for x in getattr(env, "__dict__", {}).values() if _is_environment(x)}.values()]


def _all_within(env: Any) -> list[Any]:
    return [x for held in _held(env) for x in (held, *_all_within(held))]


def _is_environment(x: Any) -> bool:
    if isinstance(x, type) or not (hasattr(x, "step") or hasattr(x, "step_env")):
        return False
    return hasattr(x, "default_params") and not callable(x.default_params)  # a method in environments of other packages


def _defining(kind: type, method: str) -> type | None:
    """The class that defines a method; None if no class does, or only gymnax's base class."""
    return next((c for c in _classes(kind) if method in vars(c)), None)


def _classes(kind: type) -> list[type]:
    """A class and its bases, without gymnax's base class of all environments."""
    from gymnax.environments import environment

    return [c for c in kind.__mro__ if c is not environment.Environment]


def _overrides(env: Any, method: str, own: str) -> bool:
    """Whether `method` is defined by the object, or by a class derived from the one that defines `own`."""
    here = getattr(env, "__dict__", {})
    if method in here or own in here:
        return own not in here
    order, overriding, defining = type(env).__mro__, _defining(type(env), method), _defining(type(env), own)
    return overriding is not None and (defining is None or order.index(overriding) < order.index(defining))


def describes(env: Any, name: str) -> bool:
    """Whether a method, such as an exact `model`, describes the environment that is stepped.

    It does not if a wrapper or a subclass changes the steps of the environment that defines it.
    """
    if not callable(getattr(env, name, None)):
        return False
    if name in getattr(env, "__dict__", {}):
        return True
    order = _classes(type(env))
    place = lambda method: next((i for i, c in enumerate(order) if method in vars(c)), len(order))
    steps = min(place("step_env"), place("step"))
    if place(name) < len(order):
        return place(name) <= steps
    inner = wrapped(env)
    return steps == len(order) and inner is not None and describes(inner, name)


def observed_model(env: Any) -> bool:
    """Whether the environment has a `model` whose states are its observations; those of fickle `Taxi` are not."""
    return describes(env, "model") and not getattr(env, "partially_observed", False)


def behind_a_wrapper(env: Any, name: str) -> bool:
    """Whether a method is that of an environment inside of a wrapper with steps of its own, which it may not fit."""
    inner = wrapped(env)
    if inner is None or name in vars(env) or _defining(type(env), name):
        return False
    return any(_defining(type(env), step) for step in ("step", "step_env")) or behind_a_wrapper(inner, name)
