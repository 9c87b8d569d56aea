"""Checkpoints of the full state: parameters, optimiser, environments, memory, keys. Resuming changes nothing.

`<run>/checkpoints/<iteration>` appears only when it is complete (orbax writes beside it and renames), so a run that is
killed at any moment leaves its last checkpoint intact.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import TrainState, Transition

KEEP = 2  # newest checkpoints of a run that stay on disk


def iterations(run: Path) -> list[int]:
    """The iterations with complete checkpoints in the folder `run`, oldest first."""
    folder = run / "checkpoints"
    names = [p.name for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def save(run: Path, state: TrainState, iteration: int) -> Path:
    """Write one checkpoint and drop all but the newest `KEEP`. Raises UsageError if it cannot be written."""
    import orbax.checkpoint as ocp

    path = (run / "checkpoints" / str(iteration)).resolve()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, _without_empty_facts(state), force=True)
    except OSError as error:
        raise UsageError(f"cannot write checkpoint {path}: {error.strerror or error}") from error
    for old in iterations(run)[:-KEEP]:
        shutil.rmtree(run / "checkpoints" / str(old), ignore_errors=True)
    return path


def restore(run: Path, template: Any, iteration: int | None = None) -> TrainState:
    """The checkpoint of `iteration`, default the newest, with the shapes and dtypes of `template`.

    Args:
        template: a TrainState of arrays or of jax.ShapeDtypeStruct.

    Raises:
        UsageError: no such checkpoint, a damaged one, or one of another algorithm or size.
    """
    import orbax.checkpoint as ocp

    available = iterations(run)
    if not available:
        raise UsageError(f"{run} holds no checkpoint")
    if iteration is not None and iteration not in available:
        raise UsageError(
            f"{run} holds no checkpoint of iteration {iteration}; it holds {', '.join(map(str, available))}"
        )
    path = (run / "checkpoints" / str(available[-1] if iteration is None else iteration)).resolve()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            stored = checkpointer.restore(path, jax.tree.map(_abstract, _without_empty_facts(template)))
        state = _with_empty_facts(stored)
        # orbax compares the shapes of plain arrays, but fits typed keys into whatever shape is asked for
        for leaf, stored in zip(jax.tree.leaves(template), jax.tree.leaves(state), strict=True):
            if leaf.shape != stored.shape or leaf.dtype != stored.dtype:
                raise ValueError(f"it holds {stored.dtype}{list(stored.shape)} for {leaf.dtype}{list(leaf.shape)}")
    except Exception as error:  # orbax and tensorstore raise a different type for every kind of damage
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"checkpoint {path} is damaged or belongs to another run: {reason}") from error
    return state


class _Stored(NamedTuple):
    """A Transition without facts, in the form of checkpoints from before that field existed."""

    obs: Any
    action: Any
    reward: Any
    terminated: Any
    truncated: Any
    next_obs: Any
    first: Any
    extras: Any


def _without_empty_facts(tree: Any) -> Any:
    is_transition = lambda x: isinstance(x, Transition)
    stored = lambda x: _Stored(*x[:-1]) if is_transition(x) and x.facts == () else x
    return jax.tree.map(stored, tree, is_leaf=is_transition)


def _with_empty_facts(tree: Any) -> Any:
    is_stored = lambda x: isinstance(x, _Stored)
    return jax.tree.map(lambda x: Transition(*x) if is_stored(x) else x, tree, is_leaf=is_stored)


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))
