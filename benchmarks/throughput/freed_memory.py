"""What keeping freed memory is worth on a CPU (jaxrl_hier/allocator.py): this project with it and without, in one run.

    python -m benchmarks.throughput.freed_memory

Seconds of an iteration, and page faults, in processes that take turns: one as users have it, one that leaves glibc as
it is. Linux with glibc.
"""

import json
import os
import resource
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
from benchmarks.papers.hiro_points import HIRO
from benchmarks.throughput._timing import publish
from jaxrl_hier.allocator import OPT_OUT
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk
from jaxrl_hier.hierarchical import hiro
from jaxrl_hier.meta import maml

ITERATIONS = 5


@dataclass(frozen=True)
class Arguments:
    rounds: int = 3
    """processes of each kind"""
    measure: bool = False
    """only measure and print, as the whole does in processes of their own"""
    out: Path | None = None
    """the JSON; default benchmarks/results/throughput/freed_memory-<device>.json"""


def programs() -> dict[str, tuple[Any, int]]:
    """Algorithms, and learners side by side."""
    maze, navigation = jaxrl_envs.make("point-maze"), jaxrl_envs.make("navigation2d")
    wide = HIRO | {"hidden": (300, 300), "batch_size": 100}
    return {
        "HIRO, 64 wide, five vmapped learners": (hiro.make(hiro.Config(**HIRO), *maze), 5),
        "HIRO, 300 wide, one learner": (hiro.make(hiro.Config(**wide), *maze), 1),
        "MAML, TRPO outside, one learner": (maml.make(maml.Config(), *navigation), 1),
    }


def measured(algorithm: Any, seeds: int) -> dict[str, float]:
    state = init_seeds(algorithm, RunConfig(seeds=seeds))
    chunk = jit(make_chunk(algorithm, ITERATIONS), donate_argnums=0).lower(state).compile()
    seconds, faults = [], []
    for _ in range(4):
        begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        state = jax.block_until_ready(chunk(state)[0])
        seconds.append((time.perf_counter() - begun) / ITERATIONS)
        faults.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / ITERATIONS)
    return {"seconds": statistics.median(seconds[1:]), "faults": statistics.median(faults[1:])}


def main(arguments: Arguments) -> None:
    if arguments.measure:
        print(json.dumps({what: measured(*program) for what, program in programs().items()}))
        return
    found: dict[str, list[dict[str, dict[str, float]]]] = {"kept": [], "given back": []}
    for _ in range(arguments.rounds):
        for how, extra in (("kept", {}), ("given back", {OPT_OUT: "0"})):
            command = [sys.executable, "-m", "benchmarks.throughput.freed_memory", "--measure"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | extra)
            if done.returncode:
                raise SystemExit(f"a process failed: {done.stderr.strip().splitlines()[-1]}")
            found[how].append(json.loads(done.stdout.strip().splitlines()[-1]))
    rows = []
    for what in found["kept"][0]:
        median = lambda how, key, what=what: statistics.median(process[what][key] for process in found[how])
        kept, given_back = median("kept", "seconds"), median("given back", "seconds")
        rows.append(
            {
                "what": what,
                "unit": "seconds of an iteration",
                "ours": kept,
                "peer": "the same with glibc as it is",
                "theirs": given_back,
                "ratio": given_back / kept,
                "page_faults": {how: median(how, "faults") for how in found},
                "aggregate": False,
                "note": f"medians of {arguments.rounds} processes each",
            }
        )
        print(f"{what:<44}{kept:8.3f} s, given back {given_back:8.3f} s, ratio {given_back / kept:.2f}")
    print(publish("freed_memory", rows, arguments.out))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
