"""Training FuN on rooms with keys, doors and a treasure: this project beside plain PyTorch, in one run.

    python -m benchmarks.throughput.fun --torch-python PYTHON     # a Python that has torch; default: this one

Environment steps per second of training (acting, returns of both levels, inner rewards, one Adam step per rollout of 40
steps), on equal networks: a layer of ReLU, a dilated LSTM of ten cores, a worker's LSTM, c = 10. Blocks of ours and
PyTorch's alternate, so that a slow minute of the machine hits both; medians and their ratio are reported. PyTorch steps
all environments together, and unrolls the cores of the dilated LSTM side by side, as ours does. Ours is one learner in
each row: no sum over seeds. Both are single runs of training on the same cores; no compilation is counted.
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
from jaxrl_hier.hierarchical.fun import Config, make

# label -> environments, and the width of every layer
SIZES = {
    "16 environments × 40 steps, 32 wide": (16, 32),
    "32 environments × 40 steps, 64 wide": (32, 64),
    "128 environments × 40 steps, 32 wide": (128, 32),
}
THREADS = (1, 2)


@dataclass(frozen=True)
class Arguments:
    torch_python: str = sys.executable
    """a Python with torch (extra `bench`), for the reference"""
    rounds: int = 3
    """alternations of ours and theirs"""
    iterations: int = 40
    """updates per block"""
    out: Path | None = None
    """the JSON; default benchmarks/results/throughput/fun-<device>.json"""


class Program:
    """A compiled block of updates and the speeds that it ran at."""

    def __init__(self, environments: int, width: int, iterations: int):
        config = Config(environments=environments, hidden=(width,), space=width, worker=width)
        algorithm = make(config, *jaxrl_envs.make("treasure-vector"))
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


def peer(python: str, environments: int, width: int, threads: int) -> list[float]:
    """Steps per second of each timed block of the PyTorch reference."""
    script = Path(__file__).with_name("torch_fun.py")
    sizes = {"environments": environments, "hidden": width, "space": width, "worker": width, "threads": threads}
    flags = [part for name, value in sizes.items() for part in (f"--{name}", str(value))]
    done = subprocess.run([python, str(script), *flags], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the PyTorch reference failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])["steps_per_second"]


def main(arguments: Arguments) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    programs = {label: Program(*size, arguments.iterations) for label, size in SIZES.items()}
    theirs: dict[tuple[str, int], list[float]] = {}
    for _ in range(arguments.rounds):
        for label, size in SIZES.items():
            for threads in THREADS:
                programs[label].run()
                theirs.setdefault((label, threads), []).extend(peer(arguments.torch_python, *size, threads))

    rows = [row(label, threads, programs[label], speeds) for (label, threads), speeds in theirs.items()]
    content = {**provenance(), "rows": rows, "cpu_count": os.cpu_count(), "load": os.getloadavg()[0]}
    content["command"] = content["command"].replace(arguments.torch_python, "PYTHON")
    device = jax.devices()[0]
    kind = "cpu" if device.platform == "cpu" else device.device_kind.lower().replace(" ", "-")
    path = write(arguments.out or ROOT / "throughput" / f"fun-{kind}.json", content)
    for r in rows:
        print(f"{r['what']:<56}{r['ours']:12.0f}  {r['peer']:<44}{r['theirs']:10.0f}  ratio {r['ratio']:.1f}")
    print(path)


def row(label: str, threads: int, program: Program, speeds: list[float]) -> dict[str, Any]:
    ours, theirs = statistics.median(program.speeds), statistics.median(speeds)
    return {
        "what": f"FuN training, {label}",
        "unit": "environment steps per second",
        "ours": ours,
        "peer": f"plain PyTorch, own reference, {threads} thread{'s' if threads > 1 else ''}",
        "theirs": theirs,
        "ratio": ours / theirs,
        "compile_seconds": program.compile_seconds,
        "aggregate": False,
        "note": f"medians of {len(program.speeds)} and {len(speeds)} blocks",
    }


if __name__ == "__main__":
    main(tyro.cli(Arguments))
