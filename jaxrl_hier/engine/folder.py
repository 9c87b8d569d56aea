"""The folder of a run: config.json with what the run is, and the files of its evaluations.

<run>/config.json, identity.npz        what is trained, compared on resume
<run>/metrics.jsonl, tensorboard/      logged rows (`engine.logging`)
<run>/checkpoints/<iteration>          the newest full states (`engine.checkpoint`)
<run>/evaluations/<iteration>.npz      measurements
<run>/report.json, plots/              what `jaxrl_hier.train` makes of them at the end
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_hier.checks import DivergedError, UsageError
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.identity import Identity, differences, summary
from jaxrl_hier.engine.identity import load as load_identity
from jaxrl_hier.engine.identity import save as save_identity
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.types import NamedArray


def prepare_directory(directory: Path, identity: Identity | None, run: RunConfig, resume: bool) -> bool:
    """Make the folder of a run, or check that it is the run to resume.

    Returns:
        Whether it has a checkpoint.

    Raises:
        UsageError: it exists already or cannot be written; on resume, it holds no run or another one.
    """
    identity = identity or Identity({})
    facts = json.loads(json.dumps(identity.facts | {"seed": run.seed, "seeds": run.seeds}))
    identity = identity._replace(facts=facts)
    config = directory / "config.json"
    if resume:
        if not config.is_file():
            raise UsageError(f"nothing to resume in {directory}: it holds no config.json of a run")
        kept = load_identity(directory, read_config(directory)["identity"])
        if different := differences(kept._replace(facts=identity.current(kept.facts)), identity):
            raise UsageError(f"{directory} is another run: {summary(different)}")
        return bool(checkpoint.iterations(directory))
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise UsageError(f"{directory} exists already; go on with it by --resume, or choose another --out")
        directory.mkdir(parents=True, exist_ok=True)
        partial = config.with_suffix(".partial")
        devices = sorted({d.device_kind for d in jax.devices()})
        about = {"identity": identity.facts, "run": dataclasses.asdict(run), "jax": jax.__version__, "devices": devices}
        save_identity(directory, identity.arrays)
        partial.write_text(json.dumps(about, indent=2) + "\n")
        partial.replace(config)
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror or error}") from error
    return False


@contextmanager
def removed_if_refused(directory: Path | None, resume: bool) -> Iterator[None]:
    """Remove a folder that `prepare_directory` has just made if an error stops the run before its first row."""
    try:
        yield
    except DivergedError:
        raise
    except Exception:
        if directory is not None and not resume and not (directory / "checkpoints").exists():
            rows = directory / "metrics.jsonl"
            if not rows.is_file() or not rows.stat().st_size:
                shutil.rmtree(directory, ignore_errors=True)
        raise


def read_config(directory: Path) -> dict[str, Any]:
    """The config.json of a run. Raises UsageError when there is none, or it is not that of a run."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text())
        if not isinstance(config, dict) or not isinstance(config["identity"], dict):
            raise ValueError("it has no identity")
        return config
    except OSError as error:
        raise UsageError(f"{directory} is no run folder: it holds no readable config.json") from error
    except (ValueError, KeyError) as error:
        raise UsageError(f"{path} is not the config.json of a run: {error}") from error


def save_evaluation(directory: Path | None, evaluation: dict[str, NamedArray], iteration: int) -> None:
    """Write the measurements to <run>/evaluations/<iteration>.npz; the names of their axes are kept as `<name>:axes`.
    With `directory=None` nothing is written."""
    if directory is None:
        return
    folder = directory / "evaluations"
    folder.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {}
    for name, m in evaluation.items():
        arrays |= {name: m.values, f"{name}:axes": np.array(m.axes)}
    partial = folder / f"{iteration}.partial.npz"
    np.savez_compressed(partial, **arrays)
    partial.replace(folder / f"{iteration}.npz")


def load_evaluations(directory: Path) -> dict[int, dict[str, NamedArray]]:
    """All saved evaluations of a run by iteration, in order."""
    found = {}
    for iteration, path in evaluation_files(directory).items():
        with np.load(path) as data:
            names = [k for k in data.files if not k.endswith(":axes")]
            found[iteration] = {k: NamedArray(data[k], tuple(map(str, data[f"{k}:axes"]))) for k in names}
    return found


def evaluation_files(directory: Path) -> dict[int, Path]:
    """The files of a run's evaluations by iteration, in order."""
    paths = (directory / "evaluations").glob("*.npz")
    return dict(sorted((int(path.stem), path) for path in paths if path.stem.isdecimal()))
