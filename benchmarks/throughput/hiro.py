"""Training HIRO on the point in a maze: this project beside plain PyTorch, in one run.

    python -m benchmarks.throughput.hiro --torch-python PYTHON     # a Python that has torch; default: this one

Environment steps per second of training (acting on both levels, memory, updates of both levels, the correction), on
equal networks, batches and numbers of updates: 10 environments, c = 10, and for each 10 steps of them 50 updates of the
worker and 25 of the manager, or, as published, one update of the worker per step and one of the manager per ten. Blocks
of ours and PyTorch's alternate, so that a slow minute of the machine hits both; medians and their ratio are reported.
Ours is one learner in each row: no sum over seeds. No compilation is counted.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import tyro

import jaxrl_envs
from benchmarks.results import ROOT, provenance, write
from jaxrl_hier.hierarchical.hiro import Config, make

# label -> sizes that both have
SIZES: dict[str, dict[str, int]] = {
    "64 wide, batches of 64, 75 updates per 100 steps": {
        "hidden": 64,
        "batch": 64,
        "updates": 25,
        "worker_updates": 2,
    },
    "300 wide, batches of 100, 110 updates per 100 steps": {
        "hidden": 300,
        "batch": 100,
        "updates": 10,
        "worker_updates": 10,
    },
}
THREADS = sorted({1, len(os.sched_getaffinity(0))})


@dataclass(frozen=True)
class Arguments:
    torch_python: str = sys.executable
    """a Python with torch (extra `bench`), for the reference"""
    rounds: int = 3
    """alternations of ours and theirs"""
    iterations: int = 40
    """iterations of 100 steps in a block of ours"""
    out: Path | None = None
    """the JSON; default benchmarks/results/throughput/hiro-<device>.json"""


class Program:
    """A compiled block of iterations and the speeds that it ran at."""

    def __init__(self, sizes: dict[str, int], iterations: int):
        config = Config(
            **sizes | {"hidden": (sizes["hidden"],) * 2},
            environments=10,
            length=10,
            warmup=5_000,
            reach=5.0,
            random_goals=0.2,
            worker_discount=0.95,
            actor_learning_rate=1e-3,
            target_rate=0.02,
            normalize=False,
        )
        algorithm = make(config, *jaxrl_envs.make("point-maze"))
        self.steps = algorithm.env_steps * iterations
        self.state = jax.jit(algorithm.init)(jax.random.key(0))
        block = lambda state: jax.lax.fori_loop(0, iterations, lambda _, state: algorithm.step(state)[0], state)
        begun = time.perf_counter()
        self.block = jax.jit(block, donate_argnums=0).lower(self.state).compile()
        self.compile_seconds = time.perf_counter() - begun
        self.speeds: list[float] = []
        self.run()
        self.speeds.clear()  # first call: page faults, thread pools

    def run(self) -> None:
        begun = time.perf_counter()
        self.state = jax.block_until_ready(self.block(self.state))
        self.speeds.append(self.steps / (time.perf_counter() - begun))


def peer(python: str, sizes: dict[str, int], threads: int) -> list[float]:
    """Steps per second of each timed block of the PyTorch reference."""
    script = Path(__file__).with_name("torch_hiro.py")
    flags = [part for name, value in (sizes | {"threads": threads}).items() for part in (f"--{name}", str(value))]
    done = subprocess.run([python, str(script), *flags], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the PyTorch reference failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])["steps_per_second"]


def main(arguments: Arguments) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    programs = {label: Program(sizes, arguments.iterations) for label, sizes in SIZES.items()}
    theirs: dict[tuple[str, int], list[float]] = {}
    for _ in range(arguments.rounds):
        for label, sizes in SIZES.items():
            for threads in THREADS:
                programs[label].run()
                theirs.setdefault((label, threads), []).extend(peer(arguments.torch_python, sizes, threads))

    rows = [row(label, threads, programs[label], speeds) for (label, threads), speeds in theirs.items()]
    content = {**provenance(), "rows": rows, "cpu_count": os.cpu_count(), "load": os.getloadavg()[0]}
    content["command"] = content["command"].replace(arguments.torch_python, "PYTHON")
    device = jax.devices()[0]
    kind = "cpu" if device.platform == "cpu" else device.device_kind.lower().replace(" ", "-")
    path = write(arguments.out or ROOT / "throughput" / f"hiro-{kind}.json", content)
    for r in rows:
        print(f"{r['what']:<72}{r['ours']:10.0f}  {r['peer']:<44}{r['theirs']:10.0f}  ratio {r['ratio']:.1f}")
    print(path)


def row(label: str, threads: int, program: Program, speeds: list[float]) -> dict[str, Any]:
    ours, theirs = statistics.median(program.speeds), statistics.median(speeds)
    updates = SIZES[label]["updates"] * (1 + SIZES[label]["worker_updates"]) / 100  # per step
    return {
        "what": f"HIRO training, {label}",
        "unit": "environment steps per second",
        "ours": ours,
        "peer": f"plain PyTorch, own reference, {threads} thread{'s' if threads > 1 else ''}",
        "theirs": theirs,
        "ratio": ours / theirs,
        "updates_per_second": {"ours": ours * updates, "theirs": theirs * updates},
        "compile_seconds": program.compile_seconds,
        "aggregate": False,
        "note": f"medians of {len(program.speeds)} and {len(speeds)} blocks",
    }


if __name__ == "__main__":
    main(tyro.cli(Arguments))
