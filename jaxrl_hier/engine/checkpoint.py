"""Checkpoints of the full state: parameters, optimiser, environments, memory, keys. Resuming changes nothing.

`<run>/checkpoints/<iteration>` appears only when it is complete and on the disk (it is written beside and renamed), so
a run that is killed at any moment leaves its last checkpoint intact.
"""

import gc
import json
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from logging import CRITICAL, getLogger
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from jaxrl_hier.checks import UsageError, warn, writing_to
from jaxrl_hier.engine import processes
from jaxrl_hier.engine.files import PARTIAL, checksum, partial_of, replacing
from jaxrl_hier.engine.old_rings import converted, with_old_rings
from jaxrl_hier.engine.types import TrainState, Transition

# in a checkpoint, beside what orbax writes: compressed numbers may change without a sign
CHECKSUMS = "checksums.json"
# what orbax writes into a checkpoint; a damaged one has lost some of it
PARTS = {"_CHECKPOINT_METADATA", "_METADATA", "_sharding", "array_metadatas", "d", "manifest.ocdbt", "ocdbt.process_0"}


def iterations(run: Path) -> list[int]:
    """The iterations with checkpoints in the folder `run`, oldest first. Other files and folders there are ignored."""
    folder = run / "checkpoints"
    names = [p.name for p in folder.iterdir() if is_checkpoint(p)] if folder.is_dir() else []
    return sorted(map(int, names))


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a folder that this module wrote, be it damaged by now."""
    if not re.fullmatch("0|[1-9][0-9]{0,18}", path.name) or path.is_symlink() or not path.is_dir():
        return False
    return any(part.name in PARTS for part in path.iterdir())


def save(run: Path, state: TrainState, iteration: int) -> Path:
    """Write one checkpoint. Raises UsageError if it cannot be written."""
    path = (run / "checkpoints").resolve() / str(iteration)
    with writing_to(path):
        path.parent.mkdir(exist_ok=True)  # not its parents: a run whose folder was removed has lost its config.json
        with replacing(path) if processes.is_first() else nullcontext(partial_of(path)) as partial:
            _attempt(lambda orbax: orbax.save(partial, _without_empty_facts(state), force=True))
            if processes.is_first():
                (partial / CHECKSUMS).write_text(json.dumps(_checksums(partial)) + "\n")
            if path.exists() and processes.is_first():  # of an earlier resume, or foreign
                shutil.rmtree(path) if is_checkpoint(path) else _set_aside(path)
    processes.barrier("saved")
    return path


def _checksums(path: Path) -> dict[str, int]:
    """The checksum of every file of a checkpoint, by its path in there."""
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != CHECKSUMS)
    return {p.relative_to(path).as_posix(): checksum(p) for p in files}


def _require_as_written(path: Path) -> None:
    """Raises UsageError if a file of a checkpoint has changed. A checkpoint of an earlier version has no checksums."""
    if not (path / CHECKSUMS).is_file():
        return
    try:
        kept = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))
        found = _checksums(path)
        changed = [name for name, number in kept.items() if found.get(name) != number]
    except (OSError, ValueError, AttributeError, RecursionError):
        changed = [CHECKSUMS]
    if changed:
        raise UsageError(f"checkpoint {path} is damaged: {changed[0]} is not as it was written")


def drop(run: Path, kept: Collection[int]) -> None:
    """Remove the checkpoints of all iterations but `kept`."""
    if not processes.is_first():
        return
    for old in set(iterations(run)).difference(kept):
        shutil.rmtree(run / "checkpoints" / str(old), ignore_errors=True)


def restore(run: Path, template: Any, iteration: int | None = None) -> TrainState:
    """The checkpoint of `iteration` with the shapes and dtypes of `template`; default: the newest that can be read. A
    warning names those that cannot.

    Args:
        template: a TrainState of arrays or of jax.ShapeDtypeStruct.

    Raises:
        UsageError: no such checkpoint, a damaged one, or one of another algorithm or size.
    """
    if iteration is not None and (isinstance(iteration, bool) or not isinstance(iteration, int | np.integer)):
        raise UsageError(f"iteration must be a whole number or 'best', got {iteration!r}")
    available = iterations(run)
    if not available:
        raise UsageError(f"{run} holds no checkpoint")
    if iteration is not None and iteration not in available:
        raise UsageError(
            f"{run} holds no checkpoint of iteration {iteration}; it holds {', '.join(map(str, available))}"
        )
    problems: list[str] = []
    for number in available[::-1] if iteration is None else [iteration]:
        try:
            state = _read((run / "checkpoints").resolve() / str(number), template)
        except UsageError as error:
            problems.append(str(error))
            continue
        if problems:
            warn(f"{'; '.join(problems)}; it is left out for that of iteration {number}")
        return state
    others = f"; nor can any other of the {len(problems)} be read" if len(problems) > 1 else ""
    raise UsageError(problems[0] + others)


def set_aside_later(run: Path, iteration: int) -> None:
    """Rename checkpoints after `iteration`, which are damaged, and remove what a killed process left half-written."""
    if not processes.is_first():
        return
    for later in (i for i in iterations(run) if i > iteration):
        _set_aside(run / "checkpoints" / str(later))
    for unfinished in (run / "checkpoints").glob(f"{PARTIAL}*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _set_aside(path: Path) -> None:
    """Rename `<name>` to `<name>.aside`, with a number if that exists."""
    names = (path.with_name(f"{path.name}.aside" + (f"-{n}" if n else "")) for n in count())
    path.rename(next(name for name in names if not name.exists()))


def _read(path: Path, template: Any) -> TrainState:
    """The checkpoint at a path, also one whose replay buffer is of the older form, see `old_rings`.

    Raises:
        UsageError: it is damaged or does not fit.
    """
    _require_as_written(path)
    try:
        return _restored(path, template)
    except UsageError as error:
        try:
            older = _restored(path, with_old_rings(template))
        except UsageError:
            raise error from None
    return converted(older, template)


def _restored(path: Path, template: Any) -> TrainState:
    """The checkpoint at a path in the form of `template`. Raises UsageError if it is damaged or does not fit."""
    asked = jax.tree.map(_abstract, _without_empty_facts(template))
    try:
        state = _with_empty_facts(_attempt(lambda orbax: orbax.restore(path, asked)))
        # orbax compares the shapes of plain arrays, but fits typed keys into whatever shape is asked for
        for leaf, stored in zip(jax.tree.leaves(template), jax.tree.leaves(state), strict=True):
            if leaf.shape != stored.shape or leaf.dtype != stored.dtype:
                raise ValueError(f"it holds {stored.dtype}{list(stored.shape)} for {leaf.dtype}{list(leaf.shape)}")
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"checkpoint {path} is damaged or belongs to another run: {reason}") from error
    return state


def _attempt(do: Callable[[Any], Any]) -> Any:
    """What `do` makes of a checkpointer of orbax.

    Raises:
        ValueError: it failed, with what orbax and tensorstore say, who raise another type for every kind of damage.
    """
    import orbax.checkpoint as ocp

    with _unheard(), _uncounted():
        try:
            with ocp.StandardCheckpointer(async_options=ocp.AsyncOptions(barrier_sync_fn=processes.meet)) as orbax:
                return do(orbax)
        except Exception as error:
            reason = str(error)
        gc.collect()  # of several tasks that failed, all but one report it when they are collected as garbage
    raise ValueError(reason)


@contextmanager
def _unheard() -> Iterator[None]:
    """Keep what orbax's threads and tasks report, each with a traceback, from the terminal: what failed is raised."""
    loggers, hook = [getLogger("absl"), getLogger("asyncio")], sys.unraisablehook
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(CRITICAL)
        sys.unraisablehook = lambda _: None
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
        sys.unraisablehook = hook


@contextmanager
def _uncounted() -> Iterator[None]:
    """Keep orbax from asking tensorstore how much it has written, which it only logs: tensorstore (0.1.86) never frees
    its answers, 20 KB for each checkpoint."""
    import tensorstore

    name = "experimental_collect_matching_metrics"
    ask = getattr(tensorstore, name, None)
    try:
        setattr(tensorstore, name, lambda *_, **__: [])
        yield
    finally:
        setattr(tensorstore, name, ask)


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
    """Shape, dtype and place: the first device where the template names none, not those of whoever saved it, which this
    process may not have."""
    here = getattr(x, "sharding", None) or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)
