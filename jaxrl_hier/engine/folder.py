"""The folder of a run: config.json with what the run is, and the files of its evaluations.

<run>/config.json, identity.npz        what is trained, compared on resume
<run>/lock                             held by the process that trains, so that there is one (flock)
<run>/metrics.jsonl, tensorboard/      logged rows (`engine.logging`)
<run>/checkpoints/<iteration>          the newest full states (`engine.checkpoint`)
<run>/evaluations/<iteration>.npz      measurements
<run>/report.json, plots/              what `jaxrl_hier.train` makes of them at the end
"""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_hier.checks import DivergedError, UsageError, warn, writing_to
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.identity import ARRAYS, Identity, differences, summary
from jaxrl_hier.engine.identity import load as load_identity
from jaxrl_hier.engine.identity import save as save_identity
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.types import NamedArray

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"
DEEPEST = 30  # levels of objects and lists in config.json
FACTS: dict[str, tuple[Any, str]] = {  # types of what the identity in config.json holds
    "algorithm": (str, "a text"),
    "env": (str | None, "a text or null"),
    "config": (dict, "an object"),
    "environment": (dict, "an object"),
    "tasks": (dict, "an object"),
}
BEFORE_CONFIG = {LOCK, "config.partial", ARRAYS, f"partial-{ARRAYS}"}  # what is written before config.json


@contextmanager
def writing(directory: Path, identity: Identity | None, run: RunConfig, resume: bool) -> Iterator[bool]:
    """Hold the folder of a run as its only writer: make it, or check that it is the run to resume.

    A new folder is removed again if an error stops the run before its first row.

    Yields:
        Whether it has a checkpoint.

    Raises:
        UsageError: it exists already, cannot be written, or another process trains in it; on resume, it holds no run or
            another one.
    """
    identity = identity or Identity({})
    facts = json.loads(json.dumps(identity.facts | {"seed": run.seed, "seeds": run.seeds}))
    identity = identity._replace(facts=facts)
    if resume and not (directory / "config.json").is_file():
        raise UsageError(f"nothing to resume in {directory}: it holds no config.json of a run")
    try:
        if not resume:
            _require_new(directory)
            directory.mkdir(parents=True, exist_ok=True)
        lock = _lock(directory)
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror or error}") from error
    try:
        if resume:
            _require_same(directory, identity)
        else:
            _begin(directory, identity, run)
        with nullcontext() if resume else _removed_if_refused(directory):
            yield bool(checkpoint.iterations(directory))
    finally:
        os.close(lock)


def _lock(directory: Path) -> int:
    """A descriptor of <run>/lock that holds the lock. The system releases it when the process ends, however it does.

    Raises:
        UsageError: another process holds it. OSError: the file cannot be written.
    """
    path = directory / LOCK
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lock), os.stat(path)):
            raise FileNotFoundError  # the other process was refused and has removed its folder
    except (BlockingIOError, FileNotFoundError):
        os.close(lock)
        raise UsageError(f"another process is training in {directory}: wait for it, or choose another --out") from None
    except OSError as error:  # a file system without locks
        warn(f"{path} cannot be locked ({error.strerror}): take care that no other process trains in this folder")
    return lock


def _require_new(directory: Path) -> None:
    """Raises UsageError unless the folder is missing, empty, or one in which a run was killed before it began."""
    if directory.exists() and not (directory.is_dir() and {p.name for p in directory.iterdir()} <= BEFORE_CONFIG):
        raise UsageError(f"{directory} exists already; go on with it by --resume, or choose another --out")


def _require_same(directory: Path, identity: Identity) -> None:
    """Raises UsageError unless the folder's run is the one that `identity` describes."""
    kept = load_identity(directory, read_config(directory)["identity"])
    if different := differences(kept._replace(facts=identity.current(kept.facts)), identity):
        raise UsageError(f"{directory} is another run: {summary(different)}")


def _begin(directory: Path, identity: Identity, run: RunConfig) -> None:
    """Write what the run is; config.json, which makes the folder that of a run, comes last."""
    _require_new(directory)  # again, now that no other process can begin one
    devices = sorted({d.device_kind for d in jax.devices()})
    about = {"identity": identity.facts, "run": dataclasses.asdict(run), "jax": jax.__version__, "devices": devices}
    try:
        save_identity(directory, identity.arrays)
        partial = directory / "config.partial"
        partial.write_text(json.dumps(about, indent=2) + "\n")
        partial.replace(directory / "config.json")
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror or error}") from error


@contextmanager
def _removed_if_refused(directory: Path) -> Iterator[None]:
    """Remove a folder that was just made if an error stops the run before its first row."""
    try:
        yield
    except DivergedError:
        raise
    except Exception:
        if not (directory / "checkpoints").exists():
            rows = directory / "metrics.jsonl"
            if not rows.is_file() or not rows.stat().st_size:
                shutil.rmtree(directory, ignore_errors=True)
        raise


def read_config(directory: Path) -> dict[str, Any]:
    """The config.json of a run. Raises UsageError when there is none, or it is not that of a run.

    It may be a stranger's: what it names is not imported here, and `jaxrl_hier.load` imports no module that it names.
    """
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        _require_facts(config)
        return config
    except OSError as error:
        raise UsageError(f"{directory} is no run folder: it holds no readable config.json") from error
    except (ValueError, RecursionError) as error:  # decoding errors are ValueErrors, too
        raise UsageError(f"{path} is not the config.json of a run: {' '.join(str(error).split())[:200]}") from error


def _require_facts(config: Any) -> None:
    """Raises ValueError unless what config.json holds has the right types."""
    if not isinstance(config, dict) or not isinstance(config.get("identity"), dict):
        raise ValueError("it has no identity")
    if depth(config) > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    if not isinstance(config.get("run", {}), dict):
        raise ValueError("run must be an object")
    identity = config["identity"]
    for name, (kinds, what) in FACTS.items():
        if name in identity and not isinstance(identity[name], kinds):
            raise ValueError(f"{name} must be {what}")
    for name, least, most in (("seed", 0, 2**64), ("seeds", 1, 2**31)):
        value = identity.get(name)
        if type(value) is not int or not least <= value < most:
            raise ValueError(f"{name} must be a whole number from {least} to {most - 1}")


def depth(value: Any) -> int:
    """How deep lists and objects are nested."""
    level, found = [value], 0
    while level := [x for x in level if isinstance(x, dict | list)]:
        found += 1
        level = [x for part in level for x in (part.values() if isinstance(part, dict) else part)]
    return found


def save_evaluation(directory: Path | None, evaluation: dict[str, NamedArray], iteration: int) -> None:
    """Write the measurements to <run>/evaluations/<iteration>.npz; the names of their axes are kept as `<name>:axes`.
    With `directory=None` nothing is written."""
    if directory is None:
        return
    folder = directory / "evaluations"
    arrays: dict[str, Any] = {}
    for name, m in evaluation.items():
        arrays |= {name: m.values, f"{name}:axes": np.array(m.axes)}
    partial, path = folder / f"{iteration}.partial.npz", folder / f"{iteration}.npz"
    with writing_to(path):
        folder.mkdir(exist_ok=True)
        np.savez_compressed(partial, **arrays)
        partial.replace(path)


def load_evaluations(directory: Path) -> dict[int, dict[str, NamedArray]]:
    """All saved evaluations of a run by iteration, in order. A warning names files that cannot be read."""
    found = {iteration: load_evaluation(path) for iteration, path in evaluation_files(directory).items()}
    return {iteration: measured for iteration, measured in found.items() if measured is not None}


def load_evaluation(path: Path) -> dict[str, NamedArray] | None:
    """The measurements in a file, or None and a warning where it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            names = [k for k in data.files if not k.endswith(":axes")]
            found = {k: NamedArray(data[k], tuple(map(str, data[f"{k}:axes"]))) for k in names}
            if not all(m.values.ndim == len(m.axes) for m in found.values()):
                raise ValueError("its axes do not fit its arrays")
            return found
    except Exception as error:  # zipfile, zlib and numpy raise various types for damaged files
        warn(f"the evaluation {path} is damaged and left out: {' '.join(str(error).split())[:100]}")
        return None


def evaluation_files(directory: Path) -> dict[int, Path]:
    """The files of a run's evaluations by iteration, in order."""
    paths = (directory / "evaluations").glob("*.npz")
    return dict(sorted((int(path.stem), path) for path in paths if re.fullmatch("[0-9]{1,19}", path.stem)))
