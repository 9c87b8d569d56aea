"""Training of every algorithm at its preset: environment steps and updates per second, time to the first step, memory.

Each algorithm has two processes, one after the other, with the same folder for compiled programs, which is empty for
the first: "cold" and "warm" are the seconds from the start of Python to the end of the first iteration. Then iterations
are timed in blocks of at least a second. Memory is the highest resident memory of the process, Python and JAX included.
One seed, one learner in a row: nothing is summed over learners.

An update is a step of an optimiser, or of a table's rule; where a tabular learner updates with every step the two
numbers are the same.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from ._timing import Setup, device_in_words

PREFIX = __package__.rpartition(".")[0] if __package__ else "benchmarks"


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    from jaxrl_hier import registry

    for name in setup.chosen(registry.ALGORITHMS, smoke=("q-learning",)):
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = (in_process(name, cache, setup) for _ in range(2))
        yield row(name, cold, warm)


def in_process(name: str, cache: str, setup: Setup) -> dict[str, Any]:
    """What `measured` returns, in a process of its own."""
    command = [sys.executable, "-m", f"{PREFIX}.throughput.algorithms", name, str(setup.rounds)]
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "STARTED": repr(time.time())}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measured(name: str, rounds: int, started: float) -> dict[str, Any]:
    """The first iteration and the speed of the following ones, in this process."""
    import jax

    import jaxrl_hier
    from jaxrl_hier import registry
    from jaxrl_hier.allocator import keep_freed_memory
    from jaxrl_hier.building import config_of
    from jaxrl_hier.engine.chunk import init_seeds, make_chunk
    from jaxrl_hier.engine.run_config import RunConfig

    keep_freed_memory()
    algorithm = jaxrl_hier.make(name)
    length = registry.entry(name).run.get("log_every", 1)
    state = init_seeds(algorithm, RunConfig())
    begun = time.perf_counter()
    chunk = jaxrl_hier.jit(make_chunk(algorithm, length), donate_argnums=0).lower(state).compile()
    compile_seconds = time.perf_counter() - begun
    state, *_ = jax.block_until_ready(chunk(state))
    first = time.time() - started
    speeds = []
    for _ in range(rounds):
        begun, done = time.perf_counter(), 0
        while time.perf_counter() - begun < 1.0:
            state, *_ = jax.block_until_ready(chunk(state))
            done += length
        speeds.append(done / (time.perf_counter() - begun))
    return {
        "env": registry.entry(name).env,
        "first_step_seconds": first,
        "compile_seconds": compile_seconds,
        "iterations_per_second": statistics.median(speeds),
        "env_steps": algorithm.env_steps,
        "updates": updates(config_of(name, {}), algorithm.env_steps),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def updates(config: Any, env_steps: int) -> int:
    """Updates in an iteration with these settings, which takes so many steps of the environments."""
    if hasattr(config, "manager_updates"):
        return config.manager_updates * (1 + config.worker_update_ratio)
    if hasattr(config, "updates"):
        return config.updates
    if hasattr(config, "joint_updates"):  # of the masters, side by side, and of the sub-policies
        rollouts = config.warmup_updates + config.joint_updates
        rows = env_steps // (config.meta_batch_size * rollouts)
        return rollouts * config.master_epochs + config.joint_updates * config.epochs * (rows // config.minibatch_size)
    learner = getattr(config, "learner", "ppo")
    if not hasattr(config, "minibatch_size") or learner == "a2c":
        return 1
    # a row of a minibatch is a step; of RL², which also has `episodes_per_trial`, a whole trial
    rows = config.environments * (1 if hasattr(config, "episodes_per_trial") else config.rollout_length)
    return config.epochs * max(1, rows // config.minibatch_size) + (learner == "trpo")


def row(name: str, cold: dict[str, Any], warm: dict[str, Any]) -> dict[str, Any]:
    speed = statistics.median(x["iterations_per_second"] for x in (cold, warm))
    return {
        "what": f"{name} on {cold['env']}",
        "unit": "environment steps per second",
        "ours": speed * cold["env_steps"],
        "peer": None,
        "theirs": None,
        "ratio": None,
        "updates_per_second": speed * cold["updates"],
        "first_step_seconds": {"cold": cold["first_step_seconds"], "warm": warm["first_step_seconds"]},
        "compile_seconds": cold["compile_seconds"],
        "peak_mib": max(cold["peak_mib"], warm["peak_mib"]),
        "aggregate": False,
        "note": f"one learner on {device_in_words()}",
    }


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], int(sys.argv[2]), float(os.environ["STARTED"]))))
