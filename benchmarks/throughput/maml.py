"""One MAML meta-iteration at the published size: this project beside plain PyTorch, in one run on the same cores.

    python -m benchmarks.throughput.maml --torch-python PYTHON     # a Python that has torch; default: this one

20 tasks × 20 trajectories × 100 steps, before and after adaptation, 2 × 100 ReLU, one inner step. Blocks of ours and
PyTorch's alternate, so that a slow minute of the machine hits both; medians and their ratio are reported. Also: second
order against first order with each outer optimiser, one step of Adam against PyTorch's TRPO step on the same data, and
the temporary memory of the meta-gradient with and without rematerialisation.
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
from jaxrl_hier.allocator import ENVIRONMENT
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.meta import maml

PEERS = {  # label -> flags of torch_maml.py
    "TRPO, second order": ["--mode", "batched"],
    "TRPO, second order, PyTorch looping over tasks": ["--mode", "loop"],
    "TRPO, first order": ["--mode", "batched", "--first-order"],
    "Adam, second order": ["--mode", "batched", "--outer", "adam"],
    "Adam, first order": ["--mode", "batched", "--outer", "adam", "--first-order"],
}
OURS = {
    "TRPO, second order": maml.Config(),
    "TRPO, first order": maml.Config(first_order=True),
    "Adam, second order": maml.Config(outer="adam"),
    "Adam, first order": maml.Config(outer="adam", first_order=True),
    "PPO, second order": maml.Config(outer="ppo"),
    "PPO, first order": maml.Config(outer="ppo", first_order=True),
}


@dataclass(frozen=True)
class Arguments:
    torch_python: str = sys.executable
    """a Python with torch (extra `bench`), for the references"""
    rounds: int = 2
    """alternations of ours and theirs"""
    iterations: int = 5
    """meta-iterations of ours per round; PyTorch does fewer"""
    torch: bool = True
    """run the PyTorch references"""
    out: Path | None = None
    """the JSON; default benchmarks/results/throughput/maml-<device>.json"""


class Program:
    """A compiled meta-iteration and the times that it took."""

    def __init__(self, config: maml.Config):
        env, tasks = jaxrl_envs.make("navigation2d")
        algorithm = maml.make(config, env, tasks)
        self.env_steps = algorithm.env_steps
        self.state = jit(algorithm.init)(jax.random.key(0))
        begun = time.perf_counter()
        self.step = jit(algorithm.step, donate_argnums=0).lower(self.state).compile()
        self.compile_seconds = time.perf_counter() - begun
        self.temporary_mib = self.step.memory_analysis().temp_size_in_bytes / 2**20
        self.seconds: list[float] = []

    def run(self, iterations: int) -> None:
        for _ in range(iterations):
            begun = time.perf_counter()
            self.state, _ = self.step(self.state)
            jax.block_until_ready(self.state)
            self.seconds.append(time.perf_counter() - begun)


def peer(python: str, flags: list[str], iterations: int) -> list[float]:
    """Seconds of each timed meta-iteration of the PyTorch reference; [] where torch is not installed."""
    script = Path(__file__).with_name("torch_maml.py")
    command = [python, str(script), *flags, "--iterations", str(iterations)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ENVIRONMENT)
    if done.returncode:
        print(f"PyTorch reference failed: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return []
    return json.loads(done.stdout.strip().splitlines()[-1])["seconds_per_iteration"]


def main(arguments: Arguments) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    programs = {label: Program(config) for label, config in OURS.items()}
    for program in programs.values():
        program.run(1)  # first call: page faults, thread pools
        program.seconds.clear()
    theirs: dict[str, list[float]] = {label: [] for label in PEERS}
    for _ in range(arguments.rounds):
        for label, flags in PEERS.items():
            programs[label.split(", PyTorch")[0]].run(arguments.iterations)
            if arguments.torch:
                theirs[label] += peer(arguments.torch_python, flags, 2 if "Adam" not in label else 4)
        for label in OURS.keys() - PEERS.keys():
            programs[label].run(arguments.iterations)

    rows = []
    for label in PEERS:
        program = programs[label.split(", PyTorch")[0]]
        ours = statistics.median(program.seconds)
        row: dict[str, Any] = {
            "what": f"MAML meta-iteration, {label}",
            "unit": "seconds",
            "ours": ours,
            "peer": "plain PyTorch, own reference (torch_maml.py)",
            "theirs": statistics.median(theirs[label]) if theirs[label] else None,
            "compile_seconds": program.compile_seconds,
            "aggregate": False,
            "env_steps_per_second": program.env_steps / ours,
            "note": f"medians of {len(program.seconds)} and {len(theirs[label])} meta-iterations",
        }
        row["ratio"] = row["theirs"] / ours if row["theirs"] else None
        rows.append(row)
    median = {label: statistics.median(program.seconds) for label, program in programs.items()}
    orders = {
        f"{outer}: second / first order": median[f"{outer}, second order"] / median[f"{outer}, first order"]
        for outer in ("TRPO", "Adam", "PPO")
    }
    trpo = next(row for row in rows if row["what"].endswith("TRPO, second order"))
    across = trpo["theirs"] / median["Adam, second order"] if trpo["theirs"] else None

    content = {**provenance(), "rows": rows, "first_order_speedup": orders, "memory": memory_table()}
    content["our_seconds"] = median
    content["pytorch_trpo_over_our_adam"] = across
    content["cpu_count"] = os.cpu_count()
    device = jax.devices()[0]
    name = "cpu" if device.platform == "cpu" else device.device_kind.lower().replace(" ", "-")
    path = write(arguments.out or ROOT / "throughput" / f"maml-{name}.json", content)
    for row in rows:
        their = f"{row['theirs']:8.3f} s  ratio {row['ratio']:.1f}" if row["theirs"] else "       -"
        print(f"{row['what']:<72}{row['ours']:8.3f} s  PyTorch {their}")
    print(json.dumps(median | orders | {"PyTorch's TRPO / our Adam, second order": across}, indent=1))
    for row in content["memory"]:
        print(row)
    print(path)


def memory_table() -> list[dict[str, Any]]:
    """Temporary memory and time of one outer step at K = 1 and 5, with and without rematerialised inner steps."""
    rows = []
    for chunk in (20, 1):
        for steps in (1, 5):
            for remat in (False, True):
                program = Program(maml.Config(outer="adam", inner_steps=steps, remat=remat, task_chunk=chunk))
                program.run(4)
                rows.append(
                    {
                        "outer": "adam",
                        "inner_steps": steps,
                        "tasks_at_a_time": chunk,
                        "remat": remat,
                        "temporary_mib": program.temporary_mib,
                        "seconds": statistics.median(program.seconds[1:]),
                        "compile_seconds": program.compile_seconds,
                    }
                )
    return rows


if __name__ == "__main__":
    main(tyro.cli(Arguments))
