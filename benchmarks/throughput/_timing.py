"""What the throughput benchmarks share: a compiled program that is timed, a PyTorch process beside it, and the JSON.

Blocks of ours and of theirs alternate, so that a slow minute of the machine hits both; medians and their ratio are
reported, compilation apart.
"""

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.results import ROOT, provenance, write
from jaxrl_hier.allocator import ENVIRONMENT
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.types import Algorithm, TrainState

THREADS = sorted({1, len(os.sched_getaffinity(0))})  # of a PyTorch process; not more than there are cores to run on

HOW = {True: "freed memory kept", False: "as it comes"}  # what glibc does in a PyTorch process


class Program:
    """`block`, compiled for `state`, which it takes and returns; the speeds of its runs, in `work` per second."""

    def __init__(self, block: Callable[[TrainState], TrainState], state: TrainState, work: int):
        self.work, self.state = work, state
        begun = time.perf_counter()
        self.block = jit(block, donate_argnums=0).lower(state).compile()
        self.compile_seconds = time.perf_counter() - begun
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


def publish(name: str, rows: list[dict[str, Any]], out: Path | None) -> Path:
    """benchmarks/results/throughput/<name>-<device>.json, or `out`."""
    content = {**provenance(), "rows": rows, "cpu_count": os.cpu_count(), "load": os.getloadavg()[0]}
    device = jax.devices()[0]
    kind = "cpu" if device.platform == "cpu" else device.device_kind.lower().replace(" ", "-")
    return write(out or ROOT / "throughput" / f"{name}-{kind}.json", content)
