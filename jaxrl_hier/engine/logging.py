"""Logging: `metrics.jsonl`, TensorBoard and Weights & Biases, and progress on the terminal."""

import json
import os
import sys
import time
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from jaxrl_hier.checks import UsageError, warn, writing_to
from jaxrl_hier.engine.writers import TensorBoard, WeightsAndBiases, Writer


class MetricsFile(NamedTuple):
    """The contents of a `metrics.jsonl`."""

    rows: list[dict[str, Any]]
    lines: int  # their number, without an unfinished last one
    damaged: list[int]  # numbers, from 1, of lines that are not exactly one row

    def problem(self) -> str:
        """Which lines cannot be read, in words; "" if all can be."""
        if not self.damaged:
            return ""
        which = ", ".join(map(str, self.damaged[:SHOWN])) + (", …" if len(self.damaged) > SHOWN else "")
        return f"{len(self.damaged)} of {self.lines} lines cannot be read (line {which})"


SHOWN = 10  # damaged lines that a message names


def parse_metrics(path: Path) -> MetricsFile:
    """Read the file of a run; a missing one is empty. Raises UsageError if it cannot be opened."""
    try:
        *lines, last = path.read_bytes().split(b"\n") if path.exists() else [b""]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    if _row(last) is not None:
        lines.append(last)
    found: list[dict[str, Any] | None] = []
    damaged = []
    for number, line in enumerate(lines, 1):
        whole = _row(line)
        if whole is None and line.strip():
            damaged.append(number)
            found += [_row(b"{" + part) for part in line.split(b"{")]  # if two rows share a line, one may be intact
        found.append(whole)
    rows = [row for row in found if row is not None]
    return MetricsFile(rows, len(lines), damaged)


def _row(line: bytes) -> dict[str, Any] | None:
    """The row in a line, a JSON object of numbers with iteration and seed; None for anything else."""
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):  # decoding errors are ValueErrors, too
        return None
    number = lambda x: isinstance(x, int | float) and not isinstance(x, bool)
    if not isinstance(row, dict) or not all(map(number, row.values())):
        return None
    return row if all(isinstance(row.get(name), int) for name in ("iteration", "seed")) else None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics. Lines that cannot be read are left out, with a warning."""
    found = parse_metrics(path)
    if problem := found.problem():
        warn(f"{path}: {problem} and are left out")
    return found.rows


def _back_up(path: Path) -> Path:
    """Copy the file to `<name>.damaged` beside it, with a number if that exists."""
    content, number = path.read_bytes(), 1
    while True:
        copy = path.with_name(f"{path.name}.damaged" + (f"-{number}" if number > 1 else ""))
        if not copy.exists():
            partial = copy.with_name(f"{copy.name}.partial")
            partial.write_bytes(content)
            partial.replace(copy)
        if copy.read_bytes() == content:
            return copy
        number += 1


class RunLog:
    """Rows of a run, one JSON object per line and seed, and the same numbers for TensorBoard and Weights & Biases.

    `directory=None` keeps the rows in memory only. On resume, rows after the checkpoint are dropped: the run writes
    them again. If the file is damaged, readable rows are kept, a warning names the others, and a copy of the file is
    kept as `metrics.jsonl.damaged`.
    """

    def __init__(
        self, directory: Path | None, seeds: list[int], tensorboard: bool, iteration: int = 0, wandb: bool = False
    ):
        self.rows: list[dict[str, Any]] = []
        self._file: FileIO | None = None
        self._writers: list[list[Writer]] = [[] for _ in seeds]
        if directory is None:
            if wandb:
                raise UsageError("wandb needs a run folder to keep its ids: set out")
            return
        path = directory / "metrics.jsonl"
        found = parse_metrics(path)
        self.rows = [row for row in found.rows if row["iteration"] <= iteration]
        partial = path.with_suffix(".partial")
        try:
            if problem := found.problem():
                copy = _back_up(path)
                warn(f"{path}: {problem} and are left out; the file as it was is kept as {copy.name}")
            partial.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
            partial.replace(path)
            self._path, self._file = path, path.open("ab", buffering=0)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        reached = max((row["iteration"] for row in self.rows), default=0)
        if reached < iteration:
            warn(f"{path}: rows of the iterations {reached + 1} to {iteration}, before the checkpoint, are missing")
        kinds = [kind for kind, asked in ((TensorBoard, tensorboard), (WeightsAndBiases, wandb)) if asked]
        try:
            self._writers = [[kind(directory, seed, iteration) for kind in kinds] for seed in seeds]
        except UsageError:
            self._file.close()
            raise

    def write(self, rows: list[dict[str, Any]]) -> None:
        """One row per seed, in the order of the seeds. Raises UsageError if they cannot be written."""
        self.rows.extend(rows)
        if self._file:
            text = "".join(json.dumps(row) + "\n" for row in rows).encode()
            with writing_to(self._path):
                os.stat(self._path)  # a file in a removed folder could be written, but would be gone
                while text:
                    text = text[self._file.write(text) :]
        for writers, row in zip(self._writers, rows):
            for writer in writers:
                writer.write(row)

    def close(self) -> None:
        if self._file:
            self._file.close()
        for writer in (writer for writers in self._writers for writer in writers):
            writer.close()


class Progress:
    """Iteration, return, steps per second and time left: a live bar on a terminal, else a line every few seconds."""

    EVERY_SECONDS = 10.0

    def __init__(self, total: int, done: int, quiet: bool):
        self.total, self.first, self.quiet = total, done, quiet
        self.begun = self.last_line = time.perf_counter()
        self.bar: Any = None
        if not quiet and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self.bar = progress.Progress(
                "[progress.description]{task.description}",
                progress.BarColumn(bar_width=20),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[text]}"),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task("training", total=total, completed=done, text="compiling")

    def __enter__(self) -> "Progress":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar:
            self.bar.stop()

    def start_clock(self, done: int) -> None:
        """Estimate the time left from now on, after compilation and `done` iterations."""
        self.first = done
        self.begun = self.last_line = time.perf_counter()

    def update(self, iteration: int, metrics: dict[str, float], steps_per_second: float) -> None:
        text = "  ".join(f"{k} {metrics[k]:.4g}" for k in ("return", "loss") if k in metrics)
        text += f"  {steps_per_second:,.0f} steps/s"
        now = time.perf_counter()
        if self.bar:
            self.bar.update(self.task, completed=iteration, text=text)
        elif not self.quiet and (now - self.last_line > self.EVERY_SECONDS or iteration == self.total):
            self.last_line = now
            left = (now - self.begun) / max(1, iteration - self.first) * (self.total - iteration)
            print(f"iteration {iteration}/{self.total}  {text}  {left:.0f} s left", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        if not self.quiet:
            self.bar.console.print(text) if self.bar else print(text, file=sys.stderr, flush=True)
