"""LLVM's optimisation level on a CPU, 2 as `jaxrl_hier.jit` has it and 3 as XLA has it: seconds to compile, and speed.

    python -m benchmarks.throughput.optimization_level

Whole training chunks and evaluations of some algorithms. Each is compiled at both levels, which takes turns at going
first; then blocks of the two alternate, and medians are reported.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import tyro

import jaxrl_envs
from benchmarks.throughput._timing import publish
from jaxrl_hier import registry
from jaxrl_hier.engine.compilation import LEVEL, jit
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk
from jaxrl_hier.engine.types import Algorithm, TrainState

XLA_LEVEL = 3
BIT_FLIPPING = {"her": "future", "environments": 1, "length": 1, "updates": 1, "hidden": (256,)}
CASES: dict[str, tuple[str, str, dict[str, Any], int]] = {  # algorithm, environment, settings, iterations of a chunk
    "RL² on random processes": ("rl2", "tabular-mdp", {"episodes": 10}, 1),
    "RL² on bandits": ("rl2", "bandit-n100-k5", {}, 1),
    "MAML, TRPO outside": ("maml", "navigation2d", {}, 1),
    "option-critic": ("option-critic", "four-rooms-option-critic", {}, 1000),
    "FuN": ("fun", "treasure", {}, 20),
    "HIRO, 64 wide": ("hiro", "point-maze", {"hidden": (64, 64), "updates": 25, "worker_updates": 2}, 10),
    "DQN with hindsight": ("dqn", "bit-flipping-15", BIT_FLIPPING, 1000),
    "PEARL, 32 wide": ("pearl", "sparse-point-robot", {"hidden": (32,) * 3, "encoder": (32,) * 3, "batch": 32}, 1),
}


@dataclass(frozen=True)
class Arguments:
    rounds: int = 5
    """blocks of each level"""
    only: tuple[str, ...] = ()
    """which algorithms, by name; default: all"""
    out: Path | None = None
    """the JSON; default benchmarks/results/throughput/optimization_level-<device>.json"""


def main(arguments: Arguments) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    if jax.default_backend() != "cpu":
        raise SystemExit("this compares levels on a CPU; set JAX_PLATFORMS=cpu")
    rows = []
    for what, (name, env, settings, iterations) in CASES.items():
        if arguments.only and name not in arguments.only:
            continue
        module = registry.module(name)
        algorithm = module.make(module.Config(**settings), *jaxrl_envs.make(env))
        state = init_seeds(algorithm, RunConfig())
        programs: dict[str, Callable[..., Any]] = {
            "training": make_chunk(algorithm, iterations),
            "evaluation": evaluation_of_one(algorithm),
        }
        for part, program in programs.items():
            first = LEVEL if len(rows) // 2 % 2 else XLA_LEVEL
            rows.append(compared(f"{what}, {part}", program, state, arguments.rounds, first))
    print(publish("optimization_level", rows, arguments.out))


def evaluation_of_one(algorithm: Algorithm) -> Callable[[TrainState], Any]:
    return lambda state: algorithm.evaluate(jax.tree.map(lambda x: x[0], state), jax.random.key(0))


def compared(what: str, program: Callable[..., Any], state: Any, rounds: int, first: int) -> dict[str, Any]:
    compiled, compile_seconds = {}, {}
    for level in sorted((LEVEL, XLA_LEVEL), key=lambda level: level != first):
        lowered, begun = jit(program, level=level).lower(state), time.perf_counter()
        compiled[level] = lowered.compile()
        compile_seconds[level] = time.perf_counter() - begun
        jax.block_until_ready(compiled[level](state))  # page faults
    seconds: dict[int, list[float]] = {level: [] for level in compiled}
    for _ in range(rounds):
        for level, run in compiled.items():
            begun = time.perf_counter()
            jax.block_until_ready(run(state))
            seconds[level].append(time.perf_counter() - begun)
    ours, theirs = (statistics.median(seconds[level]) for level in (LEVEL, XLA_LEVEL))
    row = {
        "what": what,
        "unit": "seconds of a call",
        "ours": ours,
        "peer": f"the same at level {XLA_LEVEL}",
        "theirs": theirs,
        "ratio": theirs / ours,
        "compile_seconds": compile_seconds[LEVEL],
        "compile_seconds_of_peer": compile_seconds[XLA_LEVEL],
        "compile_ratio": compile_seconds[XLA_LEVEL] / compile_seconds[LEVEL],
        "aggregate": False,
        "note": f"medians of {rounds} calls each, in turns",
    }
    print(
        f"{what:<42}{ours:9.4f} s, {theirs:9.4f} at level {XLA_LEVEL}: {row['ratio']:5.2f} times as fast; compiled in",
        end="",
    )
    print(
        f" {row['compile_seconds']:5.2f} s, {row['compile_seconds_of_peer']:5.2f}: {row['compile_ratio']:.2f}",
        flush=True,
    )
    return row


if __name__ == "__main__":
    main(tyro.cli(Arguments))
