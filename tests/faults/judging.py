"""What a run folder holds, without starting JAX, and how it differs from the undisturbed run."""

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TIMES = ("steps_per_second",)
Rows = dict[tuple[int, int], dict[str, Any]]  # by iteration and seed, without times


@dataclass
class Known:
    """What a run must hold: digests of states by iteration, rows, digests of evaluations by iteration."""

    states: dict[int, str] = field(default_factory=dict)
    rows: Rows = field(default_factory=dict)
    evaluations: dict[int, str] = field(default_factory=dict)
    exact: bool = True


def rows_of(folder: Path) -> Rows:
    """Of metrics.jsonl. An unfinished last line is none; a damaged one, or one row twice, raises ValueError."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    found = {(row["iteration"], row["seed"]): {k: v for k, v in row.items() if k not in TIMES} for row in rows}
    if len(found) < len(rows):
        raise ValueError(f"{len(rows) - len(found)} rows are there twice")
    return found


def evaluations_of(folder: Path, damaged: bool = False) -> dict[int, str]:
    """Digests of the arrays in evaluations/<iteration>.npz. A damaged file raises an error or, if there may be some, is
    none."""
    found = {}
    for path in (folder / "evaluations").glob("*.npz"):
        if re.fullmatch("[0-9]+", path.stem):
            try:
                with np.load(path) as data:
                    parts = [f"{k} {data[k].dtype} {data[k].shape}".encode() + data[k].tobytes() for k in sorted(data)]
            except Exception:  # zipfile, zlib and numpy raise various types for damaged files
                if not damaged:
                    raise
            else:
                found[int(path.stem)] = hashlib.sha256(b"".join(parts)).hexdigest()
    return found


def checkpoints_of(folder: Path) -> list[int]:
    """Iterations that have a complete checkpoint."""
    names = [path.name for path in (folder / "checkpoints").glob("*") if (path / "_CHECKPOINT_METADATA").exists()]
    return sorted(int(name) for name in names if name.isdigit())


def known_of(folder: Path, told: list[dict[str, Any]], exact: bool) -> Known:
    """What an undisturbed run has left and said."""
    states = {message["reached"]: message["state"] for message in told if "reached" in message}
    return Known(states, rows_of(folder), evaluations_of(folder), exact)


def wrong_while_running(told: list[dict[str, Any]], known: Known) -> str:
    """The first state that a process had, and ought not to have had; "" if there is none.

    Where a resumed run is not the undisturbed one, what it reaches becomes what is known.
    """
    for message in told:
        for event in ("restored", "reached", "kept"):
            if event not in message:
                continue
            iteration, state = message[event], message["state"]
            if event == "reached" and not known.exact:
                known.states[iteration] = state
            elif known.states.get(iteration) != state:
                return f"the state {event} at iteration {iteration} is not that of the undisturbed run"
            if event == "restored" and not known.exact:
                known.states = {i: s for i, s in known.states.items() if i <= iteration}
    return ""


def wrong_in(folder: Path, known: Known) -> str:
    """The first row or evaluation in a folder, of a run that need not be complete, that is damaged, missing before
    another or not as known; "" if there is none."""
    try:
        rows, evaluations = rows_of(folder), evaluations_of(folder)
    except Exception as error:
        return f"a file is damaged: {type(error).__name__}: {error}"
    if not known.exact:
        return ""
    last = max((iteration for iteration, _ in rows), default=0)
    for iteration, seed in known.rows:
        if iteration < last and (iteration, seed) not in rows:
            return f"the row of iteration {iteration}, seed {seed} is missing"
    return altered(rows, evaluations, known)


def altered(rows: Rows, evaluations: dict[int, str], known: Known, until: int | None = None) -> str:
    """The first row or evaluation, up to an iteration, that is not as known; "" if there is none."""
    counts = lambda iteration: until is None or iteration <= until
    for key, row in rows.items():
        if counts(key[0]) and known.rows.get(key) != row:
            return f"the row of iteration {key[0]}, seed {key[1]} is {row}, not {known.rows.get(key)}"
    for iteration, found in evaluations.items():
        if counts(iteration) and known.evaluations.get(iteration) != found:
            return f"the evaluation of iteration {iteration} differs"
    return ""


def missing_at_the_end(folder: Path, known: Known, iterations: int) -> list[str]:
    """Of a completed run: rows, evaluations and the last checkpoint that are not there."""
    rows, evaluations = rows_of(folder), evaluations_of(folder, damaged=True)
    missing = [f"the row of iteration {i}, seed {seed}" for i, seed in known.rows if (i, seed) not in rows]
    missing += [f"the evaluation of iteration {i}" for i in known.evaluations if i not in evaluations]
    if iterations not in checkpoints_of(folder):
        missing.append("the last checkpoint")
    return missing


def changed_before(before: Known, folder: Path, restored: int) -> str:
    """The first row or evaluation of iterations up to `restored` that is not as it was before the resume."""
    rows, evaluations = rows_of(folder), evaluations_of(folder)
    for key, row in before.rows.items():
        if key[0] <= restored and rows.get(key) != row:
            return f"the row of iteration {key[0]} has changed"
    for iteration, found in before.evaluations.items():
        if iteration <= restored and evaluations.get(iteration) != found:
            return f"the evaluation of iteration {iteration} has changed"
    return ""


def contents(folder: Path) -> dict[str, str]:
    """Each file, link and folder below a folder, and what it is; but for the lock, which is opened by each process."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_dir():
            found[name] = "folder"
        elif name != "lock":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
