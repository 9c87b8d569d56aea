"""Hindsight experience replay: this project beside stable-baselines3 and SBX, in one run on the same cores.

Equal settings on equal environments: one environment, one update per step, batches of 256, future goals, k = 4, Adam.
DQN: bit flipping, n = 15, one hidden layer of 256. SAC: point reach, two of 256.

Updates per second, environment steps included: processes of ours and theirs alternate, so that a slow minute of the
machine hits both; medians and their ratio are reported, above 1 where ours is faster. Seconds to solve: from the
construction of the learner to the first of the evaluations, one every 500 updates, with a success of at least 98 %;
what is compiled and evaluated on the way is included, imports are not. Each is a fresh process without compilation
cache, but for one row: from the second run on the command line finds its programs in JAX's cache. Nothing is summed
over seeds, but for one row too: the seconds until all seeds have been solved, ours in one program, theirs one after the
other. stable-baselines3 runs as it comes, and with glibc keeping its freed memory as it does for us.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxrl_envs
from jaxrl_hier import registry
from jaxrl_hier.allocator import ENVIRONMENT, keep_freed_memory
from jaxrl_hier.engine.compilation import jit, keep_programs
from jaxrl_hier.engine.train import Evaluation, RunConfig, init_seeds, make_chunk

from ._timing import HOW, THREADS, Setup, own_process, with_threads

EVERY, SOLVED = 500, 0.98
UPDATES = {"dqn": 6_000, "sac": 1_000}  # at most; of SAC too few to solve anything
ROUNDS_OF_ALL = 2  # processes of all seeds at once, for each peer
COMMON: dict[str, Any] = {
    "her": "future", "her_goals": 4, "batch_size": 256, "discount": 0.98, "learning_rate": 1e-3, "capacity": 100_000,
    "warmup_steps": 1000, "environments": 1, "rollout_length": 1, "updates": 1, "eval_episodes": 100,
}  # fmt: skip
RUNS: dict[str, tuple[str, dict[str, Any], str]] = {  # environment, settings, measure of success
    "dqn": (
        "bit-flipping-15",
        {"hidden": (256,), "target_rate": 0.05, "epsilon": 0.1, "reward_range": (-1.0, 0.0)},
        "success",
    ),
    "sac": ("point-reach", {"hidden": (256, 256), "target_rate": 0.005}, "success_at_end"),
}
PEERS = {  # what -> algorithm of ours, algorithm of sb3_her.py, name, threads, does glibc keep its freed memory
    f"{name} + HER, {with_threads(threads)}, {HOW[kept]}": (
        name.lower(),
        name.lower(),
        "stable-baselines3",
        threads,
        kept,
    )
    for name, threads, kept in product(("DQN", "SAC"), THREADS, (False, True))
} | {"SAC + HER": ("sac", "sbx", "SBX", THREADS[-1], True)}


def build(name: str) -> Any:
    env, settings, _ = RUNS[name]
    module = registry.module(name)
    return module.make(module.Config(**COMMON, **settings), *jaxrl_envs.make(env))


def run(name: str, seed: int, updates: int, seeds: int = 1) -> dict[str, Any]:
    """What sb3_her.py prints, of ours, and the seconds of compilation. Several seeds are solved when the last one is;
    each may have been so at another time."""
    registry.module(name)  # imports it
    begun = time.perf_counter()
    algorithm = build(name)
    state = init_seeds(algorithm, RunConfig(seed=seed, seeds=seeds))
    chunk = jit(make_chunk(algorithm, EVERY), donate_argnums=0).lower(state).compile()
    evaluate = Evaluation(algorithm)
    compile_seconds = time.perf_counter() - begun
    speeds, solved, reached, best = [], None, [], np.zeros(seeds)
    for _ in range(updates // EVERY):
        block = time.perf_counter()
        state = jax.block_until_ready(chunk(state)[0])
        speeds.append(EVERY / (time.perf_counter() - block))
        success = evaluate(state)[RUNS[name][2]].values.mean(axis=1)
        reached.append(float(success.mean()))
        best = np.maximum(best, success)
        if solved is None and best.min() >= SOLVED:
            solved = time.perf_counter() - begun
    return {
        "updates_per_second": speeds[1:],  # the first: page faults, thread pools
        "seconds_to_solve": solved,
        "success": reached,
        "compile_seconds": compile_seconds,
    }


def process(python: str, flags: list[str], kept: bool = True) -> dict[str, Any]:
    """The JSON line that a process prints."""
    env = os.environ | (ENVIRONMENT if kept else {})
    done = subprocess.run([python, *flags], capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(f"{' '.join(flags)} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def solve(seed: int, updates: int, seeds: int = 1, cache: str = "") -> dict[str, Any]:
    """What `run` measures of DQN in a process of its own."""
    _, *command = own_process("her", seed, updates, seeds, cache)
    return process(sys.executable, command)


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as cache:  # an empty folder for the programs of the runs that keep them
        yield from compared(setup, cache)


def compared(setup: Setup, cache: str) -> Iterator[dict[str, Any]]:
    script, rounds = str(Path(__file__).with_name("sb3_her.py")), setup.rounds + 2
    together = []  # all seeds in one program
    solve(0, EVERY, cache=cache)
    for what, (ours, theirs, _, threads, kept) in PEERS.items():
        updates = UPDATES[ours]
        mine, others, again = [], [], []
        for seed in range(rounds if ours == "dqn" else 1):
            flags = ["--algorithm", theirs, "--updates", str(updates), "--threads", str(threads), "--seed", str(seed)]
            others.append(process(setup.python("stable-baselines3"), [script, *flags], kept))
            mine.append(solve(seed, updates) if ours == "dqn" else run(ours, seed, updates))
            if ours == "dqn":  # with the programs of an earlier process
                again.append(solve(seed, updates, cache=cache))
            if ours == "dqn" and seed < ROUNDS_OF_ALL:
                together.append(solve(0, updates, rounds))
        yield speed_row(what, mine, others)
        if ours == "dqn":
            yield solve_row(what, mine, others)
            yield solve_row(what, again, others, "ours compiled by an earlier run")
            yield solve_all_row(what, together, others)


def speed_row(what: str, mine: list[dict[str, Any]], others: list[dict[str, Any]]) -> dict[str, Any]:
    ours, theirs = ([x for r in results for x in r["updates_per_second"]] for results in (mine, others))
    note = f"medians of {len(ours)} and {len(theirs)} blocks of {EVERY}"
    return row(what, "updates per second", statistics.median(ours), statistics.median(theirs), mine, note)


def solve_row(
    what: str,
    mine: list[dict[str, Any]],
    others: list[dict[str, Any]],
    compiled: str = "compilation included in both",
) -> dict[str, Any]:
    """Medians over the seeds; one that was not solved counts as infinite, and an infinite median is None."""
    ours, theirs = seconds_to_solve(mine), seconds_to_solve(others)
    say = lambda seconds: ", ".join(f"{x:.1f}" for x in seconds)
    note = f"medians over seeds; ours: {say(ours)}; theirs: {say(theirs)}; {compiled}"
    unit = "seconds to 98 % success"
    return row(what, unit, statistics.median(ours), statistics.median(theirs), mine, note)


def solve_all_row(what: str, mine: list[dict[str, Any]], others: list[dict[str, Any]]) -> dict[str, Any]:
    """Until the last seed is solved: ours side by side, theirs one after the other."""
    ours, theirs = seconds_to_solve(mine), seconds_to_solve(others)
    unit = f"seconds to 98 % success of {len(theirs)} seeds"
    note = f"ours in one program, median of {len(ours)}; theirs one after the other; compilation included in both"
    return row(what, unit, statistics.median(ours), sum(theirs), mine, note) | {"aggregate": True}


def seconds_to_solve(results: list[dict[str, Any]]) -> list[float]:
    return [r["seconds_to_solve"] or math.inf for r in results]


def finite(x: float) -> float | None:
    """None for seconds that are infinite, and for the ratio of such."""
    return x if math.isfinite(x) and x > 0 else None


def row(what: str, unit: str, ours: float, theirs: float, mine: list[dict[str, Any]], note: str) -> dict[str, Any]:
    algorithm, _, peer, threads, kept = PEERS[what]
    return {
        "what": f"{what.split(',')[0]}, {RUNS[algorithm][0]}, one environment, one update per step",
        "unit": unit,
        "ours": finite(ours),
        "peer": f"{peer}, {with_threads(threads)}, {HOW[kept]}",
        "theirs": finite(theirs),
        "ratio": finite(theirs / ours if unit.startswith("seconds") else ours / theirs),
        "compile_seconds": statistics.median(r["compile_seconds"] for r in mine),
        "aggregate": False,
        "note": note,
    }


if __name__ == "__main__":
    keep_freed_memory()
    first, most, count, folder = sys.argv[2:]
    if folder:
        keep_programs(folder)
    else:
        jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    print(json.dumps(run("dqn", int(first), int(most), int(count))))
