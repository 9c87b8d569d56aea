"""Training RL²: steps per second, and the memory that back-propagation through a long trial takes.

Speed is environment steps per second of whole iterations: acting, advantages, 5 epochs of minibatches of 128 trials
of 100 steps, back-propagated from end to end. Memory is what XLA's compiled program needs beside arguments and results
for the gradient through 1000 steps of a GRU, with and without checkpointed chunks, computed again. There
is no peer here. The programs take turns and medians are reported; compilation stands apart.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

import jaxrl_envs
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.learning.recurrent import gru
from jaxrl_hier.meta.rl2 import Config, make

from ..papers.rl2_tables import TRAINED_HERE, cells
from ._timing import Setup

STEPS, TRIALS, SIZE, FEATURES = 1000, 64, 128, 16
CHUNKS = (0, 10, 25, 50, 100, 250)
TRAINED = ("k = 5, n = 100", "MDP, n = 10")


class Program:
    """A compiled function and the times that it took."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        begun = time.perf_counter()
        self.compiled = jit(function).lower(*arguments).compile()
        self.compile_seconds = time.perf_counter() - begun
        self.arguments = arguments
        self.seconds: list[float] = []
        self.run()
        self.seconds.clear()  # first call: page faults, thread pools

    def run(self) -> None:
        begun = time.perf_counter()
        jax.block_until_ready(self.compiled(*self.arguments))
        self.seconds.append(time.perf_counter() - begun)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def backpropagation(chunk: int) -> Program:
    """The gradient of a GRU's outputs with respect to its weights."""
    memory = gru(SIZE, chunk)
    params = memory.init(jax.random.key(0), FEATURES)
    x = jax.random.normal(jax.random.key(1), (STEPS, TRIALS, FEATURES))
    first = jnp.zeros((STEPS, TRIALS), bool).at[0].set(True)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        return jnp.mean(memory.unroll(params, jnp.zeros((TRIALS, SIZE)), x, first)[1] ** 2)

    return Program(jax.grad(loss), params, x)


def training(name: str) -> tuple[Program, int]:
    """An iteration of a cell of the tables, and the environment steps that it takes."""
    cell = cells("cpu")[name]
    algorithm = make(Config(**cell.settings), *jaxrl_envs.make(cell.env))
    return Program(algorithm.step, jit(algorithm.init)(jax.random.key(0))), algorithm.env_steps


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    chosen = setup.chosen(TRAINED, smoke=())
    trained = {name: training(name) for name in chosen}
    gradients = {chunk: backpropagation(chunk) for chunk in (CHUNKS[:2] if setup.smoke else CHUNKS)}
    for _ in range(setup.rounds):
        for program in (*(p for p, _ in trained.values()), *gradients.values()):
            program.run()
    for name, found in trained.items():
        yield speed_row(name, *found)
    for chunk, program in gradients.items():
        if chunk:
            yield memory_row(chunk, program, gradients[0])


def speed_row(name: str, program: Program, steps: int) -> dict[str, Any]:
    settings = TRAINED_HERE[name][2]
    network = f"{'two GRUs' if settings.get('separate_critic', True) else 'one GRU'} of {Config().memory_size}"
    return {
        "what": f"RL² training, {name}",
        "unit": "environment steps per second",
        "ours": steps / program.median,
        "peer": None,
        "theirs": None,
        "ratio": None,
        "compile_seconds": program.compile_seconds,
        "aggregate": False,
        "note": f"{network}, {settings['environments']} trials of 100 steps, 5 epochs",
    }


def memory_row(chunk: int, ours: Program, plain: Program) -> dict[str, Any]:
    size = lambda program: program.compiled.memory_analysis().temp_size_in_bytes / 2**20
    times = f"{1000 * ours.median:.0f} ms, without chunks {1000 * plain.median:.0f}"
    return {
        "what": f"back-propagation through {STEPS} steps, chunks of {chunk}",
        "unit": "MiB",
        "ours": size(ours),
        "peer": "without chunks",
        "theirs": size(plain),
        "ratio": size(ours) / size(plain),
        "compile_seconds": ours.compile_seconds,
        "aggregate": False,
        "note": f"GRU of {SIZE}, {TRIALS} trials; {times}",
    }
