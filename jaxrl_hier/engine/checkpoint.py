"""Full-state checkpoints: parameters, optimiser, environments, memory and keys, so that a resumed run is the same run.

`<run>/checkpoints/<iteration>` appears only when it is complete (orbax writes beside it and renames), so a run killed
at any moment leaves its last checkpoint whole.
"""

import shutil
from pathlib import Path
from typing import Any

import jax

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import TrainState

KEEP = 2  # the newest so many checkpoints of a run stay on disk


def iterations(run: Path) -> list[int]:
    """The iterations that `run` has complete checkpoints of, oldest first."""
    folder = run / "checkpoints"
    names = [p.name for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def save(run: Path, state: TrainState, iteration: int) -> Path:
    """Write one checkpoint and drop all but the newest `KEEP`. Raises UsageError when the disk refuses."""
    import orbax.checkpoint as ocp

    path = (run / "checkpoints" / str(iteration)).resolve()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, state, force=True)
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
            state = checkpointer.restore(path, jax.tree.map(_abstract, template))
        # orbax compares the shapes of plain arrays, but fits typed keys into whatever shape is asked for
        for leaf, stored in zip(jax.tree.leaves(template), jax.tree.leaves(state), strict=True):
            if leaf.shape != stored.shape or leaf.dtype != stored.dtype:
                raise ValueError(f"it holds {stored.dtype}{list(stored.shape)} for {leaf.dtype}{list(leaf.shape)}")
    except Exception as error:  # orbax and tensorstore raise a different type for every kind of damage
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"checkpoint {path} is damaged or belongs to another run: {reason}") from error
    return state


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))
