"""What measurements of speed share: their setup, a compiled program that is timed, a process beside it, the JSON.

A module of this folder whose name has no "_" at its beginning has `rows(setup)`, which yields rows as it measures them.
Blocks of ours and of theirs alternate, so that a slow minute of the machine hits both; medians and their ratio are
reported, compilation apart.
"""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_hier.allocator import ENVIRONMENT
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.types import Algorithm

from ..results import ROOT, provenance, write

THREADS = sorted({1, len(os.sched_getaffinity(0))})  # of a PyTorch process; not more than there are cores to run on

HOW = {True: "freed memory kept", False: "as it comes"}  # what glibc does in a PyTorch process


@dataclass(frozen=True)
class Setup:
    """How to measure."""

    rounds: int = 3  # alternations of ours and theirs
    smoke: bool = False  # tiny sizes, to see that it runs
    only: tuple[str, ...] = ()  # names of what to measure; (): everything
    pythons: Mapping[str, str] = field(default_factory=dict)  # package -> a Python that has it; default: this one
    peers: Mapping[str, str] = field(default_factory=dict)  # name -> path of a public program to time beside ours

    def chosen(self, names: Iterable[str], smoke: tuple[str, ...]) -> list[str]:
        """Which of the names to measure."""
        return [name for name in names if name in (self.only or (smoke if self.smoke else names))]

    def python(self, package: str) -> str:
        """One that has the package."""
        return self.pythons.get(package, sys.executable)


def device_in_words() -> str:
    """Device, and of a CPU how many cores and which processor."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    cores = len(os.sched_getaffinity(0))
    return f"{cores} core{'s' if cores > 1 else ''} of {processor()}"


def processor() -> str:
    """The name of this machine's processor, as Linux says it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "an unknown processor"


class Program:
    """`block`, compiled for `state`, which it takes and returns; the speeds of its runs, in `work` per second, and the
    bytes of its state and of what it computes on the way."""

    def __init__(self, block: Callable[[Any], Any], state: Any, work: int):
        self.work, self.state = work, state
        begun = time.perf_counter()
        self.lower = jit(block, donate_argnums=0).lower
        self.block = self.lower(state).compile()
        self.compile_seconds = time.perf_counter() - begun
        memory = self.block.memory_analysis()
        self.bytes = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        self.speeds: list[float] = []
        self.run()
        self.speeds.clear()  # first call: page faults, thread pools

    def run(self) -> None:
        begun = time.perf_counter()
        self.state = jax.block_until_ready(self.block(self.state))
        self.speeds.append(self.work / (time.perf_counter() - begun))


def training(algorithm: Algorithm, iterations: int) -> Program:
    """So many iterations in one call; environment steps per second."""
    block = lambda state: jax.lax.fori_loop(0, iterations, lambda _, state: algorithm.step(state)[0], state)
    return Program(block, jit(algorithm.init)(jax.random.key(0)), algorithm.env_steps * iterations)


def seconds_each(step: Callable[[Any], tuple[Any, Any]], state: Any, enough: float) -> list[float]:
    """Seconds of each of 1 to 19 calls of `state, _ = step(state)`, until `enough` seconds are over; the first call,
    which touches new memory, is left out."""
    seconds: list[float] = []
    begun = time.perf_counter()
    while len(seconds) < 2 or (time.perf_counter() - begun < enough and len(seconds) < 20):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state))
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def product_speed(repeats: int = 20) -> float:
    """Floating point operations per second of products of 4096 × 300 by 300 × 300: what this machine can do for layers
    of that width."""
    x, w = jnp.ones((4096, 300)), jnp.ones((300, 300)) / 300

    @jax.jit
    def products(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, repeats, lambda _, x: x @ w, x)

    jax.block_until_ready(products(x))
    begun = time.perf_counter()
    jax.block_until_ready(products(x))
    return repeats * 2 * x.size * 300 / (time.perf_counter() - begun)


def floor_row(what: str, unit: str, program: Program, products: list[float], work: float) -> dict[str, Any]:
    """Ours beside matrix products alone, of `work` operations for each of what `unit` counts, at speeds `products`."""
    peer = f"the matrix products alone, at {statistics.median(products) / 1e9:.0f} GFLOP/s"
    found = row(what, unit, program, peer, [speed / work for speed in products])
    found["note"] += f"; {work / 1e9:.3g} GFLOP for one of the {unit.removesuffix(' per second')}"
    return found


def torch_blocks(python: str, script: str, flags: Mapping[str, int | str], kept: bool = True) -> list[float]:
    """Steps per second of each timed block of the PyTorch reference `script`, a file of this folder.

    Args:
        flags: of its command line, with underscores.
        kept: glibc keeps its freed memory, which `import jaxrl_hier` asks for on our side.
    """
    command = [python, str(Path(__file__).with_name(script))]
    command += [part for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    env = os.environ | (ENVIRONMENT if kept else {})
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(f"{script} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])["steps_per_second"]


class Worker:
    """A process that answers each line of its input with a line of JSON; it waits while others are timed."""

    def __init__(self, command: Sequence[str], devices: int = 1):
        flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
        if devices > 1:  # a device per core needs no threads beside its own
            flags += f" --xla_force_host_platform_device_count={devices} --xla_cpu_multi_thread_eigen=false"
        # the processes share a GPU's memory
        env = {**os.environ, "XLA_FLAGS": flags, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.command = command
        self.process = subprocess.Popen(command, text=True, env=env, **pipes)

    def answer(self) -> Any:
        """The next line that it writes."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self.command)} failed, see above")
        return json.loads(line)

    def ask(self, question: object) -> Any:
        """Its answer to a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{question}\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.communicate()  # closes its input, which ends it


def own_process(module: str, *arguments: object) -> list[str]:
    """The command that runs a module of this folder in a process of its own."""
    return [sys.executable, "-m", f"{__package__}.{module}", "--work", *map(str, arguments)]


def most_devices() -> int:
    """On a CPU a device for each core, else one."""
    return len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" else 1


def compared(
    what: str,
    unit: str,
    programs: Mapping[str, Program],
    peers: Mapping[tuple[str, str], Callable[[], list[float]]],
    rounds: int,
) -> Iterator[dict[str, Any]]:
    """Rows of ours beside theirs, after `rounds` alternations.

    Args:
        programs: by label.
        peers: by label and the peer's name: a function that runs it and returns the speeds of its blocks.
    """
    theirs: dict[tuple[str, str], list[float]] = {key: [] for key in peers}
    for _ in range(rounds):
        for key, run in peers.items():
            programs[key[0]].run()
            theirs[key] += run()
    for (label, peer), speeds in theirs.items():
        yield row(f"{what}, {label}", unit, programs[label], peer, speeds)


def torch_peer(threads: int, kept: bool = True) -> str:
    """How a row calls the PyTorch reference."""
    return f"plain PyTorch, own reference, {with_threads(threads)}, {HOW[kept]}"


def with_threads(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def row(what: str, unit: str, program: Program, peer: str, speeds: list[float]) -> dict[str, Any]:
    """Ours beside theirs."""
    ours, theirs = statistics.median(program.speeds), statistics.median(speeds)
    return {
        "what": what,
        "unit": unit,
        "ours": ours,
        "peer": peer,
        "theirs": theirs,
        "ratio": ours / theirs,
        "compile_seconds": program.compile_seconds,
        "aggregate": False,
        "note": f"medians of {len(program.speeds)} and {len(speeds)} blocks",
    }


def publish(name: str, rows: list[dict[str, Any]], folder: Path = ROOT / "throughput") -> Path:
    """<folder>/<name>-<device>.json."""
    about = {"processor": processor(), "cpu_count": os.cpu_count(), "load": os.getloadavg()[0]}
    device = jax.devices()[0]
    kind = "cpu" if device.platform == "cpu" else device.device_kind.lower().replace(" ", "-")
    command = {"command": f"python -m {__package__.rpartition('.')[0]} throughput {name}"}
    return write(folder / f"{name}-{kind}.json", provenance() | command | {"rows": rows} | about)
