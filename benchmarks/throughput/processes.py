"""Training as two processes on two cores of one machine, beside one process with two devices, or with one.

Each process, or each device of the one process, has a core. `jaxrl-hier train` runs in turn in these ways, and a
run's speed is the median over its rows without the first, of five iterations each. The processes exchange through the
loopback interface (gloo).
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxrl_hier.checks import UsageError

from ._timing import Setup

NAMES = ("maml", "rl2", "fun")
ITERATIONS, EVERY = 20, 5  # of a run, and of a row of its log
ALONE, BOTH_CORES = "one device on one core", "one device on two cores"
DEVICES, PROCESSES = "one process with two devices", "two processes of one device"


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    for name in setup.chosen(NAMES, smoke=("fun",)):
        speeds: dict[str, list[float]] = {how: [] for how in (ALONE, BOTH_CORES, DEVICES, PROCESSES)}
        for _ in range(setup.rounds):
            for how, found in speeds.items():
                found.append(speed(name, how))
        medians = {how: statistics.median(found) for how, found in speeds.items()}
        for how in (BOTH_CORES, DEVICES, PROCESSES):
            yield {
                "what": f"{name}, {how}",
                "unit": "environment steps per second",
                "ours": medians[how],
                "peer": ALONE,
                "theirs": medians[ALONE],
                "ratio": medians[how] / medians[ALONE],
                "aggregate": False,
                "note": f"runs: {setup.rounds}",
            }


def speed(name: str, how: str) -> float:
    """Environment steps per second of a run."""
    cores = sorted(os.sched_getaffinity(0))
    if how == PROCESSES and len(cores) < 2:
        raise UsageError("two processes need two cores, got one")
    with tempfile.TemporaryDirectory() as folder:
        out, port, count = Path(folder) / "run", free_port(), 2 if how == PROCESSES else 1
        started = [train(name, how, out, rank, port, cores) for rank in range(count)]
        for process in started:
            said = process.communicate()[0]
            if process.returncode:
                raise UsageError(f"{name} failed as {how}: {said.strip().splitlines()[-1]}")
        logged = (out / "metrics.jsonl").read_text().splitlines()[1:]
    return statistics.median(json.loads(line)["steps_per_second"] for line in logged)


def train(name: str, how: str, out: Path, rank: int, port: int, cores: list[int]) -> "subprocess.Popen[str]":
    """One process of a run, on its core or on two."""
    command = [sys.executable, "-m", "jaxrl_hier.cli", "train", name, "--no-plots", "--no-tensorboard", "--quiet"]
    command += ["--iterations", str(ITERATIONS), "--log-every", str(EVERY), "--evaluate-every", "0"]
    command += ["--checkpoint-every", str(ITERATIONS), "--out", str(out)]
    flags, own = os.environ.get("XLA_FLAGS", ""), set(cores[:1])
    if how == DEVICES:
        command += ["--devices", "2"]
        # a device per core needs no threads beside its own
        flags += " --xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false"
        own = set(cores[:2])
    elif how == BOTH_CORES:
        own = set(cores[:2])
    elif how == PROCESSES:
        command += ["--distributed", "--coordinator", f"localhost:{port}", "--processes", "2", "--process", str(rank)]
        own = {cores[rank]}
    env = os.environ | {"XLA_FLAGS": flags}
    process = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    os.sched_setaffinity(process.pid, own)  # long before it starts threads
    return process


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])
