"""Seconds from `jaxrl-hier train NAME` until the first row of the log is written, for every preset.

Each preset is started twice, with one folder for compiled programs: empty at first ("cold"), then with what the first
start has left ("warm"). Python's start, imports, tracing, compiling or loading, the initial state and the iterations
until the row all count. Processor seconds, of all threads, hardly depend on what else a machine is doing; the note has
seconds by the clock, which do. The run is stopped after its row.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxrl_hier import registry
from jaxrl_hier.checks import UsageError

from .. import speed
from ._timing import Setup

TICKS = os.sysconf("SC_CLK_TCK")  # in a second


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    for name in setup.chosen(registry.ALGORITHMS, smoke=("q-learning",)):
        with tempfile.TemporaryDirectory() as folder:
            (cold, cold_clock), (warm, warm_clock) = (first_row(name, Path(folder), n) for n in ("cold", "warm"))
        yield {
            "what": f"{name} on {registry.entry(name).env}, first row",
            "unit": "processor seconds",
            "ours": warm,
            "peer": "empty cache",
            "theirs": cold,
            "ratio": cold / warm,
            "aggregate": False,
            "note": f"{warm_clock:.1f} s by the clock, {cold_clock:.1f} with an empty cache",
        }


def first_row(name: str, folder: Path, run: str) -> tuple[float, float]:
    """Processor seconds, and seconds by the clock, until the first row of a run in <folder>/<run>."""
    log = folder / run / "metrics.jsonl"
    command = [sys.executable, "-m", "jaxrl_hier.cli", "train", name, "--no-plots", "--out", str(log.parent)]
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    begun = time.perf_counter()
    with (folder / f"{run}.txt").open("w+") as said:
        process = subprocess.Popen(command, env=env, stdout=said, stderr=said)
        try:
            while not (log.exists() and log.stat().st_size):
                if process.poll() is not None:
                    raise UsageError(f"{name} failed: {(folder / f'{run}.txt').read_text().strip().splitlines()[-1]}")
                time.sleep(0.01)
            return processor_seconds(process.pid), time.perf_counter() - begun
        finally:
            process.kill()
            process.wait()


def processor_seconds(process: int) -> float:
    """Of all threads of a process until now."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS  # user and system


def draw(rows: list[dict[str, Any]]) -> Any:
    """Bars of both starts."""
    return speed.draw(rows, ours="programs kept by an earlier start")
