"""What the functions of an algorithm return, checked while they are traced, so that a mistake in an algorithm of your
own is one line.

Nothing is traced for it: `engine.chunk` calls the checks within the programs that it makes anyway.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.logging import COLUMNS
from jaxrl_hier.engine.types import Average, NamedArray, TrainState


class ContractError(UsageError):
    """An algorithm's function returns what the engine cannot use; the message names the fault and what is right."""


def of_init(init: Callable[[Any], Any]) -> Callable[[Any], TrainState]:
    """`init` of one seed. Raises ContractError, when it is traced, where it makes no TrainState."""

    def checked(start: Any) -> TrainState:
        state = init(start)
        _require_state(state, "init")
        if _form(state.iteration) != ((), jnp.int32):
            raise ContractError(
                f"init must return a state whose iteration is jnp.int32(0), got {described(state.iteration)}"
            )
        return state

    return checked


def of_step(step: Callable[..., Any]) -> Callable[..., tuple[TrainState, dict[str, Average]]]:
    """`step` of one seed's state, with its metrics as Averages.

    Raises, when it is traced:
        ContractError: it returns something else than a state like the one it takes, and metrics.
    """

    def checked(before: TrainState) -> tuple[TrainState, dict[str, Average]]:
        returned = step(before)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise ContractError(f"step must return a pair, state and metrics, got {described(returned)}")
        after, metrics = returned
        _require_state(after, "step")
        _require_same_form(before, after)
        return after, averages(metrics)

    return checked


def averages(metrics: Any) -> dict[str, Average]:
    """The metrics of a `step` or `learn`, numbers or Averages, as Averages. Python's numbers are converted; a number
    counts once.

    Raises:
        ContractError: they are no dict, one of them is no number, or has a name that the log's rows have already.
    """
    if not isinstance(metrics, dict):
        raise ContractError(f"step must return its metrics as a dict, name -> number, got {described(metrics)}")
    if taken := sorted(metrics.keys() & {*COLUMNS}):
        raise ContractError(
            f"step: the metric {taken[0]!r} needs another name; the engine itself logs {', '.join(COLUMNS)}"
        )
    return {name: _average(name, metric) for name, metric in metrics.items()}


def of_evaluate(evaluate: Callable[..., Any]) -> Callable[..., dict[str, NamedArray]]:
    """`evaluate` of one seed's state.

    Raises, when it is traced:
        ContractError: it returns something else than NamedArrays by name, or one has too few or too many axes.
    """

    def checked(*args: Any) -> dict[str, NamedArray]:
        measured = evaluate(*args)
        if not isinstance(measured, dict):
            raise ContractError(f"evaluate must return a dict, name -> NamedArray, got {described(measured)}")
        for name, found in measured.items():
            if not isinstance(found, NamedArray):
                raise ContractError(
                    f"evaluate must return NamedArrays, and {name!r} is {described(found)}: NamedArray(x, axes) names "
                    f"its axes, such as {_example(found)}"
                )
            if "seed" in found.axes:
                raise ContractError(
                    f"evaluate: {name!r} has an axis 'seed', which the engine adds; it measures one seed's state"
                )
            if len(_form(found.values)[0]) != len(found.axes):
                raise ContractError(
                    f"evaluate: {name!r} is {described(found.values)} and its axes are {found.axes}; each axis needs "
                    "one name"
                )
        return measured

    return checked


def require_counted(iteration: int, expected: int) -> None:
    """Raises ContractError where `step` has not counted the iterations."""
    if iteration != expected:
        raise ContractError(
            f"step must add 1 to iteration, since checkpoints and keys follow it; after iteration {expected} it is "
            f"{iteration}"
        )


def _require_state(found: Any, function: str) -> None:
    if not isinstance(found, TrainState):
        raise ContractError(f"{function} must return a TrainState, got {described(found)}")


def _require_same_form(before: TrainState, after: TrainState) -> None:
    old, new = (dict(jax.tree.flatten_with_path(state)[0]) for state in (before, after))
    forms: list[Any] = [jax.tree.structure(state) for state in (before, after)]
    if forms[0] != forms[1]:
        lost = [jax.tree_util.keystr(path)[1:] for path in [*(old.keys() - new.keys()), *(new.keys() - old.keys())]]
        what = f" {', '.join(sorted(lost)[:3])} is in only one of them" if lost else " their classes differ"
        raise ContractError(f"step must return a state of the same structure as it takes:{what}")
    for path, x in old.items():
        if _form(x) != _form(new[path]):
            raise ContractError(
                f"step must return a state of the same shapes and types as it takes: {jax.tree_util.keystr(path)[1:]} "
                f"is {described(x)} before and {described(new[path])} after"
            )


def _average(name: Any, metric: Any) -> Average:
    parts = (metric.total, metric.count) if isinstance(metric, Average) else (metric, 1.0)
    for part in parts:
        if not _is_number(part):
            raise ContractError(
                f"step: the metric {name!r} must be one number, or an Average of numbers, got {described(part)}; "
                "jnp.mean(x) makes one of an array"
            )
    return Average(*map(jnp.asarray, parts))


def _is_number(x: Any) -> bool:
    try:
        shape, dtype = _form(x)
    except TypeError:
        return False
    return shape == () and any(jnp.issubdtype(dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating))


def _form(x: Any) -> tuple[Any, Any]:
    """Shape and dtype of a leaf, an array or a Python number."""
    kind = jax.typeof(x)
    return kind.shape, kind.dtype


def _example(x: Any) -> str:
    names = ["episode", "step", "axis", "other"][: jnp.ndim(x) if hasattr(x, "shape") else 0]
    listed = ", ".join(f'"{name}"' for name in names)
    return f"({listed},)" if len(names) == 1 else f"({listed})"


def described(x: Any) -> str:
    """`x` in a message, an array by its type and shape."""
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{x.dtype}{[*x.shape]}"
    return f"{x!r}" if isinstance(x, bool | int | float | str) else f"a {type(x).__name__}"
