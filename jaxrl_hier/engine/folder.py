"""The folder of a run: config.json with what the run is, and the files of its evaluations.

Whatever is written is whole or not there, also after a power cut (`engine.files`), and a checkpoint comes after all
rows and evaluations before it. So a run can be killed at any moment, and goes on as if it had not been.

<run>/config.json, identity.npz        what is trained, compared on resume
<run>/lock                             held by the process that trains, so that there is one (flock)
<run>/metrics.jsonl, tensorboard/      logged rows (`engine.logging`)
<run>/written.json                     which rows and evaluations there were at the newest checkpoint
<run>/checkpoints/<iteration>          the newest full states (`engine.checkpoint`), and the best if asked for
<run>/stop                             made by a user or a scheduler to stop the run (`engine.stopping`)
<run>/evaluations/<iteration>.npz      measurements
<run>/report.json, plots/              what `jaxrl_hier.train` makes of them at the end
"""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_hier import __version__
from jaxrl_hier.checks import DivergedError, UsageError, warn, writing_to
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.evaluation import score
from jaxrl_hier.engine.files import PARTIAL, checksum, link_inside, replacing
from jaxrl_hier.engine.identity import ARRAYS, INSIDE, Identity, differences, summary
from jaxrl_hier.engine.identity import load as load_identity
from jaxrl_hier.engine.identity import save as save_identity
from jaxrl_hier.engine.logging import listed, parse_metrics, parts
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.stopping import STOP
from jaxrl_hier.engine.types import NamedArray
from jaxrl_hier.settings import shown

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"
DEEPEST = 30  # levels of objects and lists in config.json
FACTS: dict[str, tuple[Any, str]] = {  # types of what the identity in config.json holds
    "algorithm": (str, "a string"),
    "env": (str | None, "a string or null"),
    "config": (dict, "an object"),
    "environment": (dict, "an object"),
    "tasks": (dict, "an object"),
    INSIDE: (dict, "an object"),
}
FOLDERS = ("checkpoints", "evaluations", "tensorboard")
BEFORE_CONFIG = {LOCK, ARRAYS, f"{PARTIAL}{ARRAYS}", f"{PARTIAL}config.json"}  # what is written before config.json
WRITTEN = "written.json"
REPORT = "report.json"
FORMAT = 1  # of a run's folder; to be raised when earlier versions can no longer read it


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
    require_no_links(directory)
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
            _require_kinds(directory)
            _say_what_changed(directory)
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


def require_no_links(directory: Path) -> None:
    """Raises UsageError if something in a run's folder, which may be a stranger's, leads what is written out of it."""
    if link := link_inside(directory):
        raise UsageError(f"{link} is a link that leads out of the run's folder, where nothing is written: remove it")


def _require_new(directory: Path) -> None:
    """Raises UsageError unless the folder is missing, empty, or one in which a run was killed before it began."""
    if directory.exists() and not (directory.is_dir() and {p.name for p in directory.iterdir()} <= BEFORE_CONFIG):
        raise UsageError(f"{directory} exists already; go on with it by --resume, or choose another --out")


def _require_same(directory: Path, identity: Identity) -> None:
    """Raises UsageError unless the folder's run is the one that `identity` describes."""
    kept = load_identity(directory, read_config(directory)["identity"])
    if different := differences(kept._replace(facts=identity.current(kept.facts)), identity):
        raise UsageError(f"{directory} is another run: {summary(different)}")


def _require_kinds(directory: Path) -> None:
    """Raises UsageError where a file stands in the place of a folder or a folder in that of a file, before anything is
    changed that could not be written again."""
    for name in FOLDERS:
        if os.path.lexists(directory / name) and not (directory / name).is_dir():
            raise UsageError(f"cannot write to {directory / name}: it is no folder")
    evaluations = evaluation_files(directory).values()
    for path in (*parts(directory / "metrics.jsonl"), directory / WRITTEN, directory / REPORT, *evaluations):
        if path.is_dir():
            raise UsageError(f"cannot write {path}: it is a folder")


def note_written(directory: Path, iteration: int, logs: Mapping[str, tuple[int, int]]) -> None:
    """Keep what is there at a checkpoint: the length and checksum of each file of the log, and which evaluations."""
    about = {"iteration": iteration, "logs": logs, "evaluations": list(evaluation_files(directory))}
    with writing_to(directory / WRITTEN), replacing(directory / WRITTEN) as partial:
        partial.write_text(json.dumps(about) + "\n")


def _say_what_changed(directory: Path) -> None:
    """Warn of damage that readable files do not show: rows with other numbers, and evaluations that are gone.

    After a kill between the note and its checkpoint, the run has gone back and writes again what was later.
    """
    *_, reached = 0, *checkpoint.iterations(directory)
    try:
        kept = json.loads((directory / WRITTEN).read_text(encoding="utf-8"))
        logs = {str(name): (int(length), int(number)) for name, (length, number) in kept["logs"].items()}
        evaluations = [int(iteration) for iteration in kept["evaluations"] if int(iteration) <= reached]
        logs = logs if int(kept["iteration"]) <= reached else {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return  # it only finds damage
    for path in parts(directory / "metrics.jsonl"):
        length, number = logs.get(path.name, (0, 0))
        whole = path.is_file() and path.stat().st_size >= length and not parse_metrics(path).damaged
        if whole and checksum(path, length) != number:
            warn(f"{path} is not as it was written: some of its rows hold other numbers")
    there = evaluation_files(directory)
    if missing := [iteration for iteration in evaluations if iteration not in there]:
        warn(f"{directory}: evaluations of the iterations {listed(missing)} are missing")


def _begin(directory: Path, identity: Identity, run: RunConfig) -> None:
    """Write what the run is; config.json, which makes the folder that of a run, comes last."""
    _require_new(directory)  # again, now that no other process can begin one
    about = {
        "identity": identity.facts,
        "run": dataclasses.asdict(run),
        "format": FORMAT,
        "trained_by": [{"from": 0, **_versions()}],
    }
    try:
        save_identity(directory, identity.arrays)
        _write_config(directory, about)
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror or error}") from error


def note_resume(directory: Path, run: RunConfig) -> None:
    """Keep the settings of the run that goes on as they are now, and the versions if they have changed."""
    (directory / STOP).unlink(missing_ok=True)  # it stopped the run once
    about = read_config(directory)
    earlier = about.get("trained_by", [])
    *_, reached = 0, *checkpoint.iterations(directory)
    last = {k: v for k, v in earlier[-1].items() if k != "from"} if earlier else None
    trained_by = earlier if last == _versions() else [*earlier, {"from": reached, **_versions()}]
    now = about | {"run": dataclasses.asdict(run), "format": FORMAT, "trained_by": trained_by}
    if now != about:
        try:
            _write_config(directory, now)
        except OSError as error:
            raise UsageError(f"cannot write to {directory}: {error.strerror or error}") from error


def _versions() -> dict[str, Any]:
    """What trains: the versions of this package and of JAX, and the kinds of devices."""
    devices = sorted({d.device_kind for d in jax.devices()})
    return {"jaxrl_hier": __version__, "jax": jax.__version__, "devices": devices}


def _write_config(directory: Path, about: dict[str, Any]) -> None:
    with replacing(directory / "config.json") as partial:
        partial.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


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
    if not isinstance(made := config.get("format", FORMAT), int) or not 1 <= made <= FORMAT:
        raise ValueError(f"a later version wrote it, in format {shown(made)}; this one reads up to {FORMAT}")
    by = config.get("trained_by", [])
    if not isinstance(by, list) or not all(isinstance(each, dict) for each in by):
        raise ValueError("trained_by must be a list of objects")
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
    path = folder / f"{iteration}.npz"
    with writing_to(path):
        folder.mkdir(exist_ok=True)
        with replacing(path) as partial:
            np.savez_compressed(partial, **arrays)


def load_evaluations(directory: Path) -> dict[int, dict[str, NamedArray]]:
    """All saved evaluations of a run by iteration, in order. A warning names files that cannot be read, or that are of
    another number of seeds."""
    seeds = read_config(directory)["identity"]["seeds"]
    found = {iteration: load_evaluation(path, seeds) for iteration, path in evaluation_files(directory).items()}
    return {iteration: measured for iteration, measured in found.items() if measured is not None}


def load_evaluation(path: Path, seeds: int | None = None) -> dict[str, NamedArray] | None:
    """The measurements in a file, or None and a warning where it is damaged, or not of so many seeds."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            names = [k for k in data.files if not k.endswith(":axes")]
            found = {k: NamedArray(data[k], tuple(map(str, data[f"{k}:axes"]))) for k in names}
            if not all(m.values.ndim == len(m.axes) for m in found.values()):
                raise ValueError("its axes do not fit its arrays")
            sizes = {m.values.shape[m.axes.index("seed")] for m in found.values() if "seed" in m.axes}
            if seeds is not None and sizes - {seeds}:
                raise ValueError(f"it is of {max(sizes)} seeds, the run of {seeds}")
            return found
    except Exception as error:  # zipfile, zlib and numpy raise various types for damaged files
        warn(f"the evaluation {path} is damaged and left out: {' '.join(str(error).split())[:100]}")
        return None


def best_checkpoint(directory: Path, measurement: str, lowest: bool = False) -> tuple[float, int] | None:
    """The score (`evaluation.score`) and iteration of the best evaluation that has a checkpoint, the first of equals;
    None if no evaluation has one."""
    saved = checkpoint.iterations(directory)
    measured = {i: m for i, m in load_evaluations(directory).items() if i in saved}
    scores = [(score(m, measurement, lowest), i) for i, m in sorted(measured.items())]
    return max(scores, key=lambda each: each[0], default=None)


def evaluation_files(directory: Path) -> dict[int, Path]:
    """The files of a run's evaluations by iteration, in order."""
    paths = (directory / "evaluations").glob("*.npz")
    return dict(sorted((int(path.stem), path) for path in paths if re.fullmatch("[0-9]{1,19}", path.stem)))
