"""Where a run's numbers go: `metrics.jsonl`, TensorBoard, and a line of progress on the terminal."""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxrl_hier.checks import UsageError


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; a last line that was cut off by a kill is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class RunLog:
    """Rows of a run, one JSON object per line and seed, and the same numbers for TensorBoard.

    `directory=None` keeps the rows in memory only. On resume, rows after the checkpoint are dropped: the run writes
    them again.
    """

    def __init__(self, directory: Path | None, seeds: list[int], tensorboard: bool, iteration: int = 0):
        self.rows: list[dict[str, Any]] = []
        self._file = None
        self._writers: list[Any] = []
        if directory is None:
            return
        path = directory / "metrics.jsonl"
        self.rows = [row for row in read_jsonl(path) if row["iteration"] <= iteration]
        partial = path.with_suffix(".partial")
        try:
            partial.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
            partial.replace(path)
            self._file = path.open("a")
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        if tensorboard:
            from tensorboardX import SummaryWriter

            folders = [directory / "tensorboard" / f"seed{seed}" for seed in seeds]
            self._writers = [SummaryWriter(str(folder), purge_step=iteration + 1) for folder in folders]

    def write(self, rows: list[dict[str, Any]]) -> None:
        """One row per seed, in the order of the seeds."""
        self.rows.extend(rows)
        if self._file:
            self._file.write("".join(json.dumps(row) + "\n" for row in rows))
            self._file.flush()
        for writer, row in zip(self._writers, rows):
            for name, value in row.items():
                if name not in ("iteration", "seed"):
                    writer.add_scalar(name, value, row["iteration"])

    def close(self) -> None:
        if self._file:
            self._file.close()
        for writer in self._writers:
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
        """Compilation is over: the time left counts from here, where `done` iterations are over."""
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
