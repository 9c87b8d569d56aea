"""Logging: `metrics.jsonl`, TensorBoard and Weights & Biases, and progress on the terminal."""

import json
import os
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from jaxrl_hier.checks import UsageError, warn, writing_to
from jaxrl_hier.engine.files import checksum, replacing
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
        return f"{len(self.damaged)} of {self.lines} lines cannot be read (line {listed(self.damaged)})"


DIVERGED = "diverged"  # the last row of a seed that was dropped: the iteration in which it diverged
COLUMNS = ("iteration", "seed", "env_steps", "steps_per_second", DIVERGED)  # of rows, beside the metrics
SHOWN = 10  # damaged lines, or missing evaluations, that a message names
PART = 2**26  # bytes of metrics.jsonl at which the next part begins


def listed(numbers: list[int]) -> str:
    """The first numbers in words."""
    return ", ".join(map(str, numbers[:SHOWN])) + (", …" if len(numbers) > SHOWN else "")


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
    """The row in a line, a JSON object of numbers with iteration, from 1, and seed; None for anything else."""
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):  # decoding errors are ValueErrors, too
        return None
    largest = sys.float_info.max  # whole numbers in JSON have any size
    number = lambda x: type(x) is float or (type(x) is int and -largest <= x <= largest)
    if not isinstance(row, dict) or not all(map(number, row.values())):
        return None
    whole = lambda name, least, end: isinstance(x := row.get(name), int) and least <= x < end
    return row if whole("iteration", 1, 2**63) and whole("seed", 0, 2**64) else None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics, given by <run>/metrics.jsonl, with the earlier parts of a long log. Lines that
    cannot be read are left out, with a warning."""
    rows = []
    for part in parts(path):
        found = parse_metrics(part)
        if problem := found.problem():
            warn(f"{part}: {problem} and are left out")
        rows += found.rows
    return rows


def parts(path: Path) -> list[Path]:
    """The files of a log in order: <run>/metrics-000001.jsonl, …, full ones, and `path` itself, which grows."""
    return [*sorted(path.parent.glob(f"{path.stem}-[0-9]*{path.suffix}")), path]


def _back_up(path: Path) -> Path:
    """Copy the file to `<name>.damaged` beside it, with a number if that exists."""
    content, number = path.read_bytes(), 1
    while True:
        copy = path.with_name(f"{path.name}.damaged" + (f"-{number}" if number > 1 else ""))
        if not copy.exists():
            with replacing(copy) as partial:
                partial.write_bytes(content)
        if copy.read_bytes() == content:
            return copy
        number += 1


def _shortened(path: Path, iteration: int) -> int:
    """Keep only the whole rows of a log up to `iteration`, the last of which is returned, 0 if there are none."""
    found = parse_metrics(path)
    rows = [row for row in found.rows if row["iteration"] <= iteration]
    if problem := found.problem():
        copy = _back_up(path)
        warn(f"{path}: {problem} and are left out; the file as it was is kept as {copy.name}")
    with replacing(path) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return max((row["iteration"] for row in rows), default=0)


class RunLog:
    """Rows of a run, one JSON object per line and seed, and the same numbers for TensorBoard and Weights & Biases.

    `directory=None` keeps the rows in memory; else they are only in the file, so that memory does not grow with the
    length of a run, and a file of `PART` bytes is put aside as the next of `parts`. On resume, rows after the
    checkpoint are dropped: the run writes them again. If a file is damaged, readable rows are kept, a warning names the
    others, and a copy of the file is kept as `metrics.jsonl.damaged`.
    """

    def __init__(
        self,
        directory: Path | None,
        seeds: list[int],
        tensorboard: bool = False,
        iteration: int = 0,
        wandb: bool = False,
    ):
        self._rows: list[dict[str, Any]] = []
        self.written: dict[str, tuple[int, int]] = {}  # file -> length and checksum of what it holds
        self._file: FileIO | None = None
        self._writers: dict[int, list[Writer]] = {}
        if directory is None:
            if wandb:
                raise UsageError("wandb needs a run folder to keep its ids: set out")
            return
        path = directory / "metrics.jsonl"
        try:
            reached = max(_shortened(part, iteration) for part in parts(path))
            self.written = {part.name: (part.stat().st_size, checksum(part)) for part in parts(path)}
            self._path, self._file = path, path.open("ab", buffering=0)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        if reached < iteration:
            warn(f"{path}: rows of the iterations {reached + 1} to {iteration}, before the checkpoint, are missing")
        kinds = [kind for kind, asked in ((TensorBoard, tensorboard), (WeightsAndBiases, wandb)) if asked]
        try:
            self._writers = {seed: [kind(directory, seed, iteration) for kind in kinds] for seed in seeds}
        except UsageError:
            self._file.close()
            raise

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows of the run so far."""
        return read_jsonl(self._path) if self._file else self._rows

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Rows of some or all seeds. Raises UsageError if they cannot be written."""
        if self._file:
            text = "".join(json.dumps(row) + "\n" for row in rows).encode()
            with writing_to(self._path):
                # a file in a removed folder could be written, but would be gone
                if os.stat(self._path).st_size > PART:
                    self._begin_next_part()
                length, crc = self.written[self._path.name]
                self.written[self._path.name] = length + len(text), zlib.crc32(text, crc)
                while text:
                    text = text[self._file.write(text) :]
        else:
            self._rows.extend(rows)
        for row in rows:
            for writer in self._writers.get(row["seed"], ()):
                writer.write(row)

    def _begin_next_part(self) -> None:
        number = len(parts(self._path))
        assert self._file is not None
        self.sync()
        self._file.close()
        full = self._path.with_name(f"{self._path.stem}-{number:06d}{self._path.suffix}")
        self._path.rename(full)
        self.written |= {full.name: self.written[self._path.name], self._path.name: (0, 0)}
        self._file = self._path.open("ab", buffering=0)

    def sync(self) -> None:
        """Wait until everything that was written is on the disk."""
        if self._file:
            with writing_to(self._path):
                os.fsync(self._file.fileno())
        for writer in (writer for writers in self._writers.values() for writer in writers):
            writer.sync()

    def close(self) -> None:
        if self._file:
            with suppress(OSError):  # what a checkpoint needs is on the disk; later rows are written again
                self._file.close()
        for writer in (writer for writers in self._writers.values() for writer in writers):
            writer.close()


class Progress:
    """Iteration, return, steps per second and time left: a live bar on a terminal, else a line every few seconds."""

    EVERY_SECONDS = 10.0
    PATIENCE = 30.0  # seconds after which something that is still under way is told, and again after twice as long

    def __init__(self, total: int, quiet: bool):
        self.total, self.first, self.quiet = total, 0, quiet
        self._doing: tuple[str, str, float] | None = None  # what is under way, a hint, since when
        self._over = threading.Event()
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
            self.task = self.bar.add_task("training", total=total, text="compiling")

    def __enter__(self) -> "Progress":
        if self.bar:
            self.bar.start()
        if not self.quiet:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        if self.bar:
            self.bar.stop()

    @contextmanager
    def doing(self, what: str, hint: str = "") -> Iterator[None]:
        """Tell the user what is under way if it takes long, such as "compiling", with a hint."""
        self._doing = what, f"; {hint}" if hint else "", time.monotonic()
        try:
            yield
        finally:
            self._doing = None

    def _watch(self) -> None:
        seen, after = None, self.PATIENCE
        while not self._over.wait(self.PATIENCE / 30):
            if (doing := self._doing) is not seen:
                seen, after = doing, self.PATIENCE
            if doing and time.monotonic() - doing[2] > after:
                self.say(f"still {doing[0]} after {after:.0f} s{doing[1]}")
                after *= 2

    def start_clock(self, done: int) -> None:
        """Estimate the time left from now on, after compilation and `done` iterations."""
        self.first = done
        self.begun = self.last_line = time.perf_counter()
        if self.bar:
            self.bar.update(self.task, completed=done)

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
