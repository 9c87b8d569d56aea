"""Types of settings: every `Config`, and `RunConfig`, converts its values to the types of its annotations.

Numbers of NumPy and JAX are accepted. Whole numbers must fit in 32 bits, as counters and shapes do; real numbers must
be finite in float32. The type of a setting says whether JAX may trace it, so that you can vmap over it: real numbers,
and whole ones that are only multiplied (`Factor`). All others are structural: they decide shapes or what is compiled.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import jax
import numpy as np

from jaxrl_hier.checks import UsageError
from jaxrl_hier.relations import Relation


class Most(NamedTuple):
    """The largest sensible value."""

    value: int | float
    why: str


INT32 = Most(2**31 - 1, "the largest integer of 32 bits")
FLOAT32 = Most(float(np.finfo(np.float32).max), "beyond which float32 is infinite")
MULTIPLIED = "multiplied"  # a whole number that may be traced
SUPPORTED = "a setting is a bool, int, float, str, Literal or tuple (tuple[float, ...]), or one of these or None"
CHOOSES = "decides what is compiled and cannot be traced: give the value itself"

Rate = Annotated[float, Most(1e9, "beyond which a step overwrites what float32 weights hold")]
Seed = Annotated[int, Most(2**64 - 1, "the largest integer of 64 bits")]
Factor = Annotated[int, INT32, MULTIPLIED]

# the new name of a setting; or its old value, and all old settings -> new settings
Renaming = str | Callable[[Any, Mapping[str, Any]], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """Settings whose fields are bool, int, float, str, Literal, tuples of these, or None where the annotation says so.

    Raises:
        UsageError: a value of the wrong type; the message names the field.
    """

    side_by_side: ClassVar[str] = "environments"  # the setting that is split over devices
    on_host: ClassVar[bool] = False  # whether `Algorithm.learn` may follow rollouts in environments on the host
    renamed: ClassVar[Mapping[str, Renaming]] = {}  # settings of earlier versions, by their old names

    def __post_init__(self) -> None:
        config: Any = type(self)
        for name, kind in _kinds(config).items():
            object.__setattr__(self, name, converted(name, getattr(self, name), kind))

    @staticmethod
    def relations(env: Any, tasks: Any) -> list[Relation]:
        """Relations between the settings in this environment, see `jaxrl_hier.relations`."""
        return []


def renamings(config: type) -> dict[str, Renaming]:
    """Old names of a config's settings, including inherited ones."""
    found: dict[str, Renaming] = {}
    for base in reversed(config.__mro__):
        found |= vars(base).get("renamed", {})
    return found


def current(config: type, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Settings `kept` by a run of any version under their present names. Unknown ones stay as they are."""
    renamed = renamings(config)
    settings = {name: value for name, value in kept.items() if name not in renamed}
    for name, renaming in renamed.items():
        if name in kept:
            settings |= {renaming: kept[name]} if isinstance(renaming, str) else renaming(kept[name], kept)
    return settings


@cache
def _kinds(config: Any) -> dict[str, Any]:
    hints = get_type_hints(config, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def traceable(config: Any) -> tuple[str, ...]:
    """The settings of a config that may be traced, unless they are None; the others are structural."""
    return tuple(name for name, kind in _kinds(config).items() if _may_be_traced(kind))


def _may_be_traced(kind: Any) -> bool:
    if get_origin(kind) in (Union, UnionType):
        return _may_be_traced(get_args(kind)[0])
    if get_origin(kind) is Annotated:
        return MULTIPLIED in get_args(kind) or _may_be_traced(get_args(kind)[0])
    return kind is float


def held(config: Any, name: str, value: Any) -> Any:
    """`value` as a config holds it in the setting `name`. Raises UsageError as the config does."""
    return converted(name, value, _kinds(config)[name])


def converted(name: str, value: Any, kind: Any) -> Any:
    """`value` as a Python value of the `kind` that an annotation says. Raises UsageError that mentions `name`."""
    most: list[Any] = []
    if get_origin(kind) is Annotated:
        kind, *most = get_args(kind)
    arguments = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        one, *others = [x for x in arguments if x is not NoneType]
        if others:
            raise UsageError(f"{name} is declared as {kind}: {SUPPORTED}")
        return None if value is None else converted(name, value, one)
    if get_origin(kind) is Literal:
        return _choice(name, value, arguments)
    if get_origin(kind) is tuple:
        return _several(name, value, arguments)
    if kind not in CONVERSIONS:
        raise UsageError(f"{name} is declared as {getattr(kind, '__name__', kind)}: {SUPPORTED}")
    return CONVERSIONS[kind](name, _plain(value), *most)


def is_traced(value: Any) -> bool:
    """Whether `value` is traced by JAX, so that it has no number yet."""
    return isinstance(value, jax.core.Tracer)


def shown(value: Any) -> str:
    """`value` in a message: on one line, and not too long."""
    if is_traced(value):
        return "a traced value"
    if isinstance(value, (np.ndarray, jax.Array)) and value.ndim:
        return f"an array {list(value.shape)}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a user's own repr, or Python's for integers of some thousand digits
        text = f"an object of {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}…"


def _plain(value: Any) -> Any:
    """Scalars and arrays without axes, of NumPy and JAX, as Python numbers; anything else unchanged."""
    if is_traced(value) or not isinstance(value, (np.generic, np.ndarray, jax.Array)) or value.ndim:
        return value
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value
    scalar = np.asarray(value)[()]
    if isinstance(scalar, (np.float16, np.float32)):
        return float(str(scalar))  # np.float32(1e-3) is 0.001, as in every program that computes in float32
    return float(scalar) if jax.dtypes.issubdtype(scalar.dtype, np.floating) else scalar.item()


def _flag(name: str, value: Any) -> bool:
    if is_traced(value):
        raise UsageError(f"{name} {CHOOSES}")
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be True or False, got {shown(value)}")
    return value


def _whole(name: str, value: Any, most: Most = INT32, traced: str = "") -> Any:
    if is_traced(value):
        if traced == MULTIPLIED and not value.shape:
            return value
        raise UsageError(f"{name} {CHOOSES}")
    fits: Any = isinstance(value, numbers.Real) and not isinstance(value, bool) and value % 1 == 0
    if not fits:
        raise UsageError(f"{name} must be a whole number, got {shown(value)}")
    if value > most.value:
        raise UsageError(f"{name} must be at most {most.value}, {most.why}, got {shown(value)}")
    return int(value)


def _number(name: str, value: Any, most: Most = FLOAT32) -> Any:
    if is_traced(value) and not value.shape:
        return value
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise UsageError(f"{name} must be a number, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not abs(number) <= FLOAT32.value:
        raise UsageError(f"{name} must be finite, in float32 too, got {shown(value)}")
    if number > most.value:
        raise UsageError(f"{name} must be at most {most.value:g}, {most.why}, got {shown(value)}")
    return number


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a string, got {shown(value)}")
    return str(value)


def _choice(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    if not isinstance(value, str):  # which of them is checked with the rest, by `require_choice`
        raise UsageError(f"{name} must be one of {', '.join(map(str, choices))}, got {shown(value)}")
    return str(value)


def _several(name: str, value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    listed = isinstance(value, (list, tuple, range)) or (
        isinstance(value, (np.ndarray, jax.Array)) and not is_traced(value) and value.ndim == 1
    )
    endless = kinds[-1] is Ellipsis
    if not listed or not (endless or len(value) == len(kinds)):
        several = "a list of numbers" if endless else f"{len(kinds)} numbers"
        raise UsageError(f"{name} must be {several}, got {shown(value)}")
    return tuple(converted(name, x, kinds[0] if endless else kind) for x, kind in zip(value, kinds * len(value)))


CONVERSIONS: dict[Any, Callable[..., Any]] = {bool: _flag, int: _whole, float: _number, str: _text}
