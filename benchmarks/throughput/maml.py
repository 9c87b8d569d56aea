"""One MAML meta-iteration at the published size: this project beside plain PyTorch, in one run on the same cores.

20 tasks × 20 trajectories × 100 steps, before and after adaptation, 2 × 100 ReLU, one inner step. Blocks of ours and
PyTorch's alternate, so that a slow minute of the machine hits both; medians and their ratio are reported. PyTorch has
one thread, and as many as there are cores. Also: second order against first order with each outer optimiser, one step
of Adam against PyTorch's TRPO step on the same data, and the temporary memory of the meta-gradient with and without
rematerialisation.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import jax

import jaxrl_envs
from jaxrl_hier.allocator import ENVIRONMENT
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.meta import maml

from ._timing import THREADS, Setup, torch_peer

ITERATIONS = 5  # of ours in a round; PyTorch does fewer
PEERS = {  # label -> flags of torch_maml.py
    "TRPO, second order": ["--mode", "batched"],
    "TRPO, second order, PyTorch looping over tasks": ["--mode", "loop"],
    "TRPO, second order, Fisher on 4 of 20": ["--mode", "batched", "--fisher-trajectories", "4"],
    "TRPO, first order": ["--mode", "batched", "--first-order"],
    "Adam, second order": ["--mode", "batched", "--outer", "adam"],
    "Adam, first order": ["--mode", "batched", "--outer", "adam", "--first-order"],
}
OURS = {
    "TRPO, second order": maml.Config(),
    "TRPO, second order, Fisher on 4 of 20": maml.Config(fisher_episodes=4),
    "TRPO, first order": maml.Config(first_order=True),
    "Adam, second order": maml.Config(outer="adam"),
    "Adam, first order": maml.Config(outer="adam", first_order=True),
    "PPO, second order": maml.Config(outer="ppo"),
    "PPO, first order": maml.Config(outer="ppo", first_order=True),
}


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


def peer(python: str, flags: list[str], threads: int, iterations: int) -> list[float]:
    """Seconds of each timed meta-iteration of the PyTorch reference; [] where torch is not installed."""
    script = Path(__file__).with_name("torch_maml.py")
    command = [python, str(script), *flags, "--threads", str(threads), "--iterations", str(iterations)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ENVIRONMENT)
    if done.returncode:
        print(f"PyTorch reference failed: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return []
    return json.loads(done.stdout.strip().splitlines()[-1])["seconds_per_iteration"]


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    labels = setup.chosen(OURS, smoke=("Adam, first order",))
    programs = {label: Program(OURS[label]) for label in labels}
    for program in programs.values():
        program.run(1)  # first call: page faults, thread pools
        program.seconds.clear()
    peers = {label: flags for label, flags in PEERS.items() if ours_of(label) in programs}
    theirs: dict[tuple[str, int], list[float]] = {key: [] for key in product(peers, THREADS)}
    for _ in range(setup.rounds):
        for label, threads in theirs:
            programs[ours_of(label)].run(ITERATIONS)
            count = 2 if "Adam" not in label else 4
            theirs[label, threads] += peer(setup.python("torch"), peers[label], threads, count)
        for label in programs.keys() - peers.keys():
            programs[label].run(ITERATIONS)
    for (label, threads), seconds in theirs.items():
        yield row(label, programs[ours_of(label)], torch_peer(threads), seconds)
    trpo, adam, most = "TRPO, second order", "Adam, second order", THREADS[-1]
    if {trpo, adam} <= programs.keys():
        yield row(f"{adam}, beside PyTorch's {trpo}", programs[adam], torch_peer(most), theirs[trpo, most])
    for outer in ("TRPO", "Adam", "PPO"):
        first, second = (programs.get(f"{outer}, {order} order") for order in ("first", "second"))
        if first and second:
            yield row(f"{outer}, first order", first, "the same, second order", second.seconds)
    if not setup.smoke:
        yield from memory_rows()


def ours_of(label: str) -> str:
    """Which of our programs a peer is beside."""
    return label.split(", PyTorch")[0]


def row(label: str, program: Program, peer: str, theirs: list[float]) -> dict[str, Any]:
    ours, other = statistics.median(program.seconds), statistics.median(theirs) if theirs else None
    return {
        "what": f"MAML meta-iteration, {label}",
        "unit": "seconds",
        "ours": ours,
        "peer": peer,
        "theirs": other,
        "ratio": other / ours if other else None,
        "compile_seconds": program.compile_seconds,
        "aggregate": False,
        "env_steps_per_second": program.env_steps / ours,
        "note": f"medians of {len(program.seconds)} and {len(theirs)} meta-iterations",
    }


def memory_rows() -> Iterator[dict[str, Any]]:
    """Temporary memory of one outer step at K = 1 and 5, with and without rematerialised inner steps."""
    for chunk, steps in product((20, 1), (1, 5)):
        plain, remat = (
            Program(maml.Config(outer="adam", inner_steps=steps, remat=remat, task_chunk=chunk))
            for remat in (False, True)
        )
        for program in (plain, remat):
            program.run(4)
        seconds = [1000 * statistics.median(program.seconds[1:]) for program in (remat, plain)]
        yield {
            "what": f"MAML meta-iteration, Adam, {steps} inner steps, {chunk} tasks at a time, rematerialised",
            "unit": "MiB of temporary memory",
            "ours": remat.temporary_mib,
            "peer": "the same, not rematerialised",
            "theirs": plain.temporary_mib,
            "ratio": remat.temporary_mib / plain.temporary_mib,
            "compile_seconds": remat.compile_seconds,
            "aggregate": False,
            "note": f"{seconds[0]:.0f} ms, not rematerialised {seconds[1]:.0f}",
        }
