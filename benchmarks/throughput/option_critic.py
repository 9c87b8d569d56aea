"""Training an option-critic on four rooms: this project beside plain PyTorch, in one run on the same cores.

    python -m benchmarks.throughput.option_critic --torch-python PYTHON     # a Python that has torch; default: this one

Environment steps per second of training (acting, λ-returns, one Adam step per rollout), on equal sizes: 4 options, a
torso of 64-64, one-hot cells. Blocks of ours and PyTorch's alternate, so that a slow minute of the machine hits both;
medians and their ratio are reported. PyTorch runs batched over as many environments, with one thread and with two, and
as the usual loop over a single environment that updates after each step. Ours is one learner in each row: no sum over
seeds.
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
from jaxrl_hier.hierarchical.option_critic import Config, make

SIZES = {"32 environments × 16 steps": (32, 16), "256 environments × 16 steps": (256, 16)}
PEERS = {  # label -> flags of torch_option_critic.py
    "batched, 1 thread": ["--mode", "batched", "--threads", "1", "--iterations", "30"],
    "batched, 2 threads": ["--mode", "batched", "--threads", "2", "--iterations", "30"],
}
SINGLE = ["--mode", "single", "--threads", "1", "--iterations", "300"]


@dataclass(frozen=True)
class Arguments:
    torch_python: str = sys.executable
    """a Python with torch (extra `bench`), for the reference"""
    rounds: int = 3
    """alternations of ours and theirs"""
    iterations: int = 200
    """updates of ours per block"""
    out: Path | None = None
    """the JSON; default benchmarks/results/throughput/option_critic-<device>.json"""


class Program:
    """A compiled block of updates and the speeds that it ran at."""

    def __init__(self, environments: int, length: int, iterations: int):
        algorithm = make(Config(environments=environments, length=length), *jaxrl_envs.make("four-rooms-option-critic"))
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


def peer(python: str, flags: list[str]) -> list[float]:
    """Steps per second of each timed block of the PyTorch reference."""
    script = Path(__file__).with_name("torch_option_critic.py")
    done = subprocess.run([python, str(script), *flags], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the PyTorch reference failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])["steps_per_second"]


def main(arguments: Arguments) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    programs = {label: Program(*size, arguments.iterations) for label, size in SIZES.items()}
    single = Program(1, 1, 50 * arguments.iterations)
    theirs: dict[tuple[str, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for label, (environments, length) in SIZES.items():
            for name, flags in PEERS.items():
                programs[label].run()
                sizes = ["--environments", str(environments), "--length", str(length)]
                theirs.setdefault((label, name), []).extend(peer(arguments.torch_python, [*flags, *sizes]))
        single.run()
        theirs.setdefault(("1 environment × 1 step", "single environment, 1 thread"), []).extend(
            peer(arguments.torch_python, SINGLE)
        )

    rows = []
    for (label, name), speeds in theirs.items():
        program = programs.get(label, single)
        rows.append(row(label, name, program, speeds))
        if program is single:  # the same task, each in the way that it is usually run
            rows.append(row("32 environments × 16 steps", name, programs["32 environments × 16 steps"], speeds))
    content = {**provenance(), "rows": rows, "cpu_count": os.cpu_count(), "load": os.getloadavg()[0]}
    content["command"] = content["command"].replace(arguments.torch_python, "PYTHON")
    device = jax.devices()[0]
    kind = "cpu" if device.platform == "cpu" else device.device_kind.lower().replace(" ", "-")
    path = write(arguments.out or ROOT / "throughput" / f"option_critic-{kind}.json", content)
    for r in rows:
        print(
            f"{r['what']:<52}{r['ours']:12.0f}  PyTorch {r['peer'][30:]:<36}{r['theirs']:10.0f}  ratio {r['ratio']:.1f}"
        )
    print(path)


def row(label: str, name: str, program: Program, speeds: list[float]) -> dict[str, Any]:
    ours, theirs = statistics.median(program.speeds), statistics.median(speeds)
    return {
        "what": f"option-critic training, {label}",
        "unit": "environment steps per second",
        "ours": ours,
        "peer": f"plain PyTorch, own reference, {name}",
        "theirs": theirs,
        "ratio": ours / theirs,
        "compile_seconds": program.compile_seconds,
        "aggregate": False,
        "note": f"medians of {len(program.speeds)} and {len(speeds)} blocks",
    }


if __name__ == "__main__":
    main(tyro.cli(Arguments))
