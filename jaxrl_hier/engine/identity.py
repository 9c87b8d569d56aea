"""The identity of a run: algorithm, settings, environment and tasks, saved in its folder and compared on resume.

An environment is identified by its class, its spaces and the attributes that its constructor set, and likewise for
wrapped environments; one of Gymnasium also by what its wrappers hold. What an attribute holds counts too: the parts of
containers and objects, the arguments of a `partial`, and the values that a function takes from around it. The code of
a lambda counts too, since it has no name of its own; the name of any other function stands for its code. A task
distribution is identified by its `test` and `train` tasks and the results of `sample` for fixed keys.
Rounding differs between processors, so arrays are saved and compared numerically, not by a hash.
"""

import json
import math
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from random import Random
from types import CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_envs.contract import is_key, on_host
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.files import replacing

FOLLOWING = "draws of resample"
ARRAYS = "identity.npz"  # beside config.json
DRAWS = 8  # sampled tasks, with keys 0, 1, …
LARGEST = 2**24  # bytes; only the first rows of a larger array are saved
SHOWN = 3  # differences that a message lists
CLOSE = 1e-4  # relative tolerance, above rounding differences
INSIDE = "inside"  # the facts of what attributes hold, by dotted name, which earlier versions did not keep
CODE = "<code>"  # of a lambda; no setting or attribute can have this name
PACKAGES = ("jaxrl_", "gymnax.")  # whose lambdas may be written otherwise in a new version
DEEPEST, MOST = 8, 1000  # levels, and parts, of an attribute that are looked at


class Identity(NamedTuple):
    """What identifies a run."""

    facts: dict[str, Any]  # as in config.json
    arrays: Mapping[str, np.ndarray] = MappingProxyType({})  # by their origin, such as "test tasks: goal"
    current: Callable[[dict[str, Any]], dict[str, Any]] = dict  # upgrades facts saved by an earlier version


def identity_of(
    algorithm: str, config: dict[str, Any], name: str | None, env: Any, tasks: Tasks, own_tasks: bool = False
) -> Identity:
    """The identity of a run, without its seeds.

    Args:
        algorithm: its name. config: its settings.
        name: the environment's name, from which it can be rebuilt; None for the user's own object.
        own_tasks: whether the user passed the tasks, instead of those that `name` builds.
    """
    facts, arrays = environment_facts(env), dict(environment_arrays(env))
    inside, arrays_inside = parts_inside(env)
    names = {"env": name, "own_tasks": own_tasks}
    kept = {"algorithm": algorithm, **names, "environment": facts, INSIDE: inside, "config": config}
    arrays |= arrays_inside
    if not on_host(env) or env.set_task is not None:
        facts_of_tasks, arrays_of_tasks = task_facts(tasks)
        kept, arrays = kept | {"tasks": facts_of_tasks}, arrays | arrays_of_tasks
    return Identity(json.loads(json.dumps(kept)), arrays)


# Environments


def environment_facts(env: Any, within: tuple[Any, ...] = ()) -> dict[str, Any]:
    """Class, spaces and attributes of an environment, as JSON types.

    Args:
        within: the environments that contain it, in case it refers back to one.
    """
    kind = type(env)
    facts: dict[str, Any] = {"class": f"{kind.__module__}.{kind.__qualname__}"}
    if hasattr(env, "default_params"):
        facts["observations"] = space_text(env.observation_space(env.default_params))
        facts["actions"] = space_text(env.action_space(env.default_params))
    within = (*within, env)
    return facts | {name: _fact(value, within) for name, value in _attributes(env) if not _is_array(value)}


def environment_arrays(
    env: Any, prefix: str = "environment", within: tuple[Any, ...] = ()
) -> Iterator[tuple[str, np.ndarray]]:
    """Array attributes of an environment and of the environments that it wraps."""
    within = (*within, env)
    for name, value in _attributes(env):
        if _is_array(value):
            yield f"{prefix}: {name}", kept_of(value)
        elif _is_environment(value) and not any(value is holder for holder in within):
            yield from environment_arrays(value, f"{prefix}.{name}", within)


def space_text(space: Any) -> str:
    """A space as text, with the bounds of a Box: "Box[2] float32 in [-1, 1]"."""
    if hasattr(space, "spaces"):
        parts = space.spaces.items() if isinstance(space.spaces, dict) else enumerate(space.spaces)
        return ", ".join(f"{name}: {space_text(part)}" for name, part in parts)
    if hasattr(space, "n"):
        return f"Discrete({int(space.n)})"
    if not hasattr(space, "low"):
        return type(space).__name__
    low, high = float(np.min(np.asarray(space.low))), float(np.max(np.asarray(space.high)))
    return f"Box{list(space.shape)} {np.dtype(space.dtype).name} in [{low:g}, {high:g}]"


def _attributes(env: Any) -> Iterator[tuple[str, Any]]:
    """The attributes that an environment's constructor set, without cached properties."""
    for name, value in sorted(getattr(env, "__dict__", {}).items()):
        if not isinstance(getattr(type(env), name, None), cached_property):
            yield name, value


def _is_environment(value: Any) -> bool:
    return any(hasattr(value, name) for name in ("step_env", "step")) and not isinstance(value, type)


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, jax.Array)) and not isinstance(value, jax.core.Tracer) and value.ndim > 0


def _fact(value: Any, within: tuple[Any, ...] = (), depth: int = 0) -> Any:
    """A value as JSON types, or the name of its type or function where that is not possible."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, (np.generic, np.ndarray, jax.Array)):
        array = kept_of(value)
        plain = not array.ndim and array.dtype.kind in "biufU"
        return array.item() if plain else f"{array.dtype}{list(array.shape)}"
    if _is_environment(value) and not any(value is holder for holder in within):
        return environment_facts(value, within)
    if depth < 3 and isinstance(value, tuple | list):
        return [_fact(x, within, depth + 1) for x in value]
    if depth < 3 and isinstance(value, dict):
        return {str(name): _fact(x, within, depth + 1) for name, x in value.items()}
    if depth < 3 and hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: _fact(getattr(value, name), within, depth + 1) for name in value.__dataclass_fields__}
    if isinstance(value, partial):
        return _fact(value.func, within, depth)
    of = value if callable(value) and hasattr(value, "__qualname__") else type(value)
    return f"{of.__module__}.{of.__qualname__}"


# What attributes hold


def parts_inside(env: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the attributes of an environment hold, beyond what `environment_facts` and `environment_arrays` say: numbers
    and texts by dotted name, and arrays."""
    attributes = [(name, value) for name, value in _attributes(env) if not _is_told(value)]
    if on_host(env):  # a factory may hold what the environment does not, such as all arguments of a script
        attributes = [(name, value) for name, value in attributes if name != "build"]
    held = [part for name, value in attributes for part in islice(_parts(value, name, (env,)), MOST)]
    for i, layer in enumerate(env.layers if on_host(env) else ()):
        first, second = (dict(islice(_parts(x, f"layer {i}"), MOST)) for x in layer)
        # not what is drawn for each, or read off a clock
        held += [(name, x) for name, x in first.items() if name in second and np.array_equal(x, second[name])]
    facts = {f"environment.{name}": x for name, x in held if not isinstance(x, np.ndarray)}
    return facts, {f"{INSIDE} environment: {name}": x for name, x in held if isinstance(x, np.ndarray)}


def _is_told(value: Any, depth: int = 0) -> bool:
    """Whether `_fact`, or `environment_arrays` of an array, says all that there is to a value."""
    if depth < 3 and isinstance(value, dict):
        return all(_is_told(x, depth + 1) for x in value.values())
    if depth < 3 and isinstance(value, tuple | list):
        return all(_is_told(x, depth + 1) for x in value)
    return value is None or isinstance(value, bool | int | float | str) or (depth == 0 and _is_array(value))


def _parts(value: Any, name: str, within: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The numbers, texts and arrays that a value holds, by dotted name, and the types of the objects.

    Args:
        within: the values that contain it, in case it refers back to one.
    """
    if isinstance(value, jax.core.Tracer | np.random.Generator | np.random.RandomState | Random):
        return
    if _is_array(value) and value.dtype.kind in "biufcU":
        yield name, kept_of(value)
    elif value is None or isinstance(value, bool | int | float | str | np.generic):
        yield name, _fact(value)
    elif len(within) <= DEEPEST and not any(value is holder for holder in within):
        if not isinstance(value, tuple | list | dict):
            yield name, _fact(value, (value,), DEEPEST)
        for part, x in _held(value):
            yield from _parts(x, f"{name}.{part}", (*within, value))


def _held(value: Any) -> Iterable[tuple[Any, Any]]:
    """What a value holds, by name or number, in an order that is always the same."""
    if isinstance(value, partial):
        return [("function", value.func), ("arguments", value.args), ("keywords", value.keywords)]
    if isinstance(value, Mapping):
        named = [(name, x) for name, x in value.items() if isinstance(name, str | int)]
        return sorted(named, key=lambda each: str(each[0]))
    if isinstance(value, set | frozenset):
        return enumerate(sorted((x for x in value if isinstance(x, str | int | float)), key=str))
    if isinstance(value, tuple | list):
        return enumerate(value)
    if isinstance(value, MethodType):
        return [("object", value.__self__), ("function", value.__func__)]
    if isinstance(value, FunctionType):
        around = zip(value.__code__.co_freevars, value.__closure__ or ())
        own = not (value.__module__ or "").startswith(PACKAGES)
        code = [(CODE, _compiled(value.__code__))] if own and value.__name__ == "<lambda>" else []
        return [*code, *_filled(around), ("defaults", value.__defaults__), ("keywords", value.__kwdefaults__)]
    if callable(value) and hasattr(value, "__wrapped__"):  # a function that is compiled, or whose results are kept
        return [("function", value.__wrapped__)]
    if isinstance(value, Enum):
        return [("value", value.value)]
    if isinstance(value, type | ModuleType | jax.Array | np.ndarray):
        return []
    if hasattr(value, "__dataclass_fields__"):  # which may be kept in slots
        return [(name, getattr(value, name, None)) for name in value.__dataclass_fields__]
    return _attributes(value)


def _compiled(code: CodeType) -> str:
    """The version of Python and a checksum of what it has compiled, without names of files and lines."""

    def parts(code: CodeType) -> tuple[Any, ...]:
        constants = [parts(x) if isinstance(x, CodeType) else repr(x) for x in code.co_consts]
        return code.co_code.hex(), constants, code.co_names, code.co_varnames

    return f"{sys.version_info.major}.{sys.version_info.minor} {zlib.crc32(repr(parts(code)).encode()):08x}"


def _filled(cells: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for name, cell in cells:
        with suppress(ValueError):  # a variable that has no value yet
            yield name, cell.cell_contents


# Tasks


def task_facts(tasks: Tasks) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """When tasks are resampled, the numbers of test and training tasks, and arrays that identify the tasks."""
    keys = jax.vmap(jax.random.key)(np.arange(DRAWS, dtype=np.uint32))
    samples = jit(jax.vmap(tasks.sample))(keys)
    kinds = {"test tasks": tasks.test, "training tasks": tasks.train, "draws of sample": samples}
    if callable(tasks.resample):
        kinds[FOLLOWING] = jit(jax.vmap(tasks.resample))(keys, samples)
    count = lambda batch: None if batch is None else int(np.shape(jax.tree.leaves(batch)[0])[0])
    resample = tasks.resample if isinstance(tasks.resample, str) else _fact(tasks.resample)
    facts = {"resample": resample, "test": count(tasks.test), "train": count(tasks.train)}
    arrays = {}
    for kind, batch in kinds.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            arrays[f"{kind}: {name or 'value'}"] = kept_of(leaf)
    return facts, arrays


def kept_of(value: Any) -> np.ndarray:
    """An array in its saved form: the data of keys, and only the first rows of a very large array."""
    array = np.asarray(jax.random.key_data(value) if is_key(value) else value)
    return array if array.nbytes <= LARGEST else array[: max(1, len(array) * LARGEST // array.nbytes)]


# Saving and comparing


def save(directory: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Save the arrays beside config.json, atomically."""
    if arrays:
        named: Any = arrays
        with replacing(directory / ARRAYS) as partial_file:
            np.savez_compressed(partial_file, **named)


def load(directory: Path, facts: dict[str, Any]) -> Identity:
    """The identity in a run folder.

    Raises:
        UsageError: its arrays cannot be read.
    """
    path = directory / ARRAYS
    if not path.is_file():
        return Identity(facts, {})
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            return Identity(facts, {name: data[name] for name in data.files})
    except Exception as error:  # zipfile, zlib and numpy raise various types for damaged files
        raise UsageError(f"{path} is damaged: {' '.join(str(error).split())[:100]}") from None


def differences(kept: Identity, now: Identity, parts: tuple[str, ...] = ()) -> list[str]:
    """How a run differs from the saved one, as text. Facts that an older version did not save are not compared.

    Args:
        parts: names of the facts to compare; (): all.
    """
    old, new = dict(kept.facts), dict(now.facts)
    both = "environment" in old and "environment" in new
    unimportant = ("env", "own_tasks") if both else ("own_tasks", "environment", "tasks")  # facts count, not names
    old, new = ({name: x for name, x in facts.items() if name not in unimportant} for facts in (old, new))
    if parts:
        old, new = ({name: x for name, x in facts.items() if name in parts} for facts in (old, new))
    inside = [facts.pop(INSIDE, None) for facts in (old, new)]
    known = None not in inside  # earlier versions did not keep them
    flat_old, flat_new = (flat(facts) | ((x or {}) if known else {}) for facts, x in zip((old, new), inside))
    names = (flat_old.keys() | flat_new.keys()) - {"initial.folder"}  # which may be moved
    changed = sorted(k for k in names if not _same(k, flat_old.get(k), flat_new.get(k)))
    called = [facts.get("env") for facts in (kept.facts, now.facts)]
    if any(k.startswith("environment.") for k in changed) and None not in called and called[0] != called[1]:
        changed = [k for k in changed if not k.startswith("environment.")]  # the two names say enough
        flat_old, flat_new, changed = flat_old | {"env": called[0]}, flat_new | {"env": called[1]}, ["env", *changed]
    found = [f"{k} was {flat_old.get(k)!r} and is now {flat_new.get(k)!r}" for k in changed]
    if kept.arrays:
        more = FOLLOWING if known else (FOLLOWING, INSIDE)
        later = lambda name: name.startswith(more) and name not in kept.arrays  # from before it was saved
        arrays = sorted(name for name in kept.arrays.keys() | now.arrays.keys() if not later(name))
        found += [text for name in arrays if (text := _difference(name, kept.arrays.get(name), now.arrays.get(name)))]
    return found


def summary(different: list[str]) -> str:
    """The first few differences, and the number of further ones."""
    more = len(different) - SHOWN
    return "; ".join(different[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _same(name: str, old: Any, new: Any) -> bool:
    """Whether two facts are equal: exactly for settings, up to rounding for an environment's numbers, and as far as one
    version of Python has compiled both for code."""
    if name.endswith(f".{CODE}"):  # which earlier versions did not keep
        return None in (old, new) or old == new or old.split()[0] != new.split()[0]
    if name.startswith("environment.") and isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=CLOSE) or (math.isnan(old) and math.isnan(new))
    return bool(old == new)


def _difference(name: str, old: np.ndarray | None, new: np.ndarray | None) -> str | None:
    """The difference between two arrays as text, or None."""
    if old is None or new is None:
        return f"{name} {'are new' if old is None else 'are gone'}"
    if old.shape != new.shape or old.dtype.kind != new.dtype.kind:
        return f"{name} was {old.dtype}{list(old.shape)} and is now {new.dtype}{list(new.shape)}"
    same = old == new
    if old.dtype.kind == "f" and old.size:
        sizes = np.abs(old[np.isfinite(old)])
        rounding = 1e-6 * sizes.max(initial=0.0)  # error of small differences of large numbers
        same = np.isclose(old, new, rtol=CLOSE, atol=rounding, equal_nan=True)
    if np.all(same):
        return None
    place = tuple(map(int, np.argwhere(~np.asarray(same))[0]))
    text = lambda x: f"{x:.6g}" if x.dtype.kind == "f" else str(x)
    at = f" at {list(place)}" if place else ""
    return f"{name} was {text(old[place])} and is now {text(new[place])}{at}"


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found
