"""What keeping freed memory is worth on a CPU (jaxrl_hier/allocator.py): this project with it and without, in one run.

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
from collections.abc import Iterator
from typing import Any

import jax

import jaxrl_envs
from jaxrl_hier.allocator import OPT_OUT, keep_freed_memory
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk
from jaxrl_hier.hierarchical import hiro
from jaxrl_hier.meta import maml

from ..papers.hiro_points import HIRO
from ._timing import Setup, own_process

ITERATIONS = 5


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


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    found: dict[str, list[dict[str, dict[str, float]]]] = {"kept": [], "given back": []}
    for _ in range(setup.rounds):
        for how, extra in (("kept", {}), ("given back", {OPT_OUT: "0"})):
            command = own_process("freed_memory", int(setup.smoke))
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | extra)
            if done.returncode:
                raise SystemExit(f"a process failed: {done.stderr.strip().splitlines()[-1]}")
            found[how].append(json.loads(done.stdout.strip().splitlines()[-1]))
    for what in found["kept"][0]:
        median = lambda how, key, what=what: statistics.median(process[what][key] for process in found[how])
        kept, given_back = median("kept", "seconds"), median("given back", "seconds")
        yield {
            "what": what,
            "unit": "seconds of an iteration",
            "ours": kept,
            "peer": "the same with glibc as it is",
            "theirs": given_back,
            "ratio": given_back / kept,
            "page_faults": {how: median(how, "faults") for how in found},
            "aggregate": False,
            "note": f"medians of {setup.rounds} processes each",
        }


if __name__ == "__main__":
    keep_freed_memory()
    chosen = [*programs().items()][-1:] if sys.argv[2] == "1" else programs().items()
    print(json.dumps({what: measured(*program) for what, program in chosen}))
