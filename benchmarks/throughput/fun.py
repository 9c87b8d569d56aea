"""Training FuN on rooms with keys, doors and a treasure: this project beside plain PyTorch, in one run.

    python -m benchmarks.throughput.fun --torch-python PYTHON     # a Python that has torch; default: this one

Environment steps per second of training (acting, returns of both levels, inner rewards, one Adam step per rollout of 40
steps), on equal networks: a layer of ReLU, a dilated LSTM of ten cores, a worker's LSTM, c = 10. Blocks of ours and
PyTorch's alternate, so that a slow minute of the machine hits both; medians and their ratio are reported. PyTorch steps
all environments together, and unrolls the cores of the dilated LSTM side by side, as ours does. Ours is one learner in
each row: no sum over seeds. Both are single runs of training on the same cores; no compilation is counted.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import tyro

import jaxrl_envs
from benchmarks.throughput._timing import THREADS, Program, publish, row, torch_blocks, torch_peer, training
from jaxrl_hier.hierarchical.fun import Config, make

# label -> environments, and the width of every layer
SIZES = {
    "16 environments × 40 steps, 32 wide": (16, 32),
    "32 environments × 40 steps, 64 wide": (32, 64),
    "128 environments × 40 steps, 32 wide": (128, 32),
}


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


def program(environments: int, width: int, iterations: int) -> Program:
    config = Config(environments=environments, hidden=(width,), goal_size=width, worker_size=width)
    return training(make(config, *jaxrl_envs.make("treasure-vector")), iterations)


def main(arguments: Arguments) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    programs = {label: program(*size, arguments.iterations) for label, size in SIZES.items()}
    theirs: dict[tuple[str, int], list[float]] = {}
    for _ in range(arguments.rounds):
        for label, (environments, width) in SIZES.items():
            sizes = {"environments": environments, "hidden": width, "space": width, "worker": width}
            for threads in THREADS:
                programs[label].run()
                speeds = torch_blocks(arguments.torch_python, "torch_fun.py", sizes | {"threads": threads})
                theirs.setdefault((label, threads), []).extend(speeds)

    unit = "environment steps per second"
    rows = [
        row(f"FuN training, {label}", unit, programs[label], torch_peer(threads), speeds)
        for (label, threads), speeds in theirs.items()
    ]
    path = publish("fun", rows, arguments.out)
    for r in rows:
        print(f"{r['what']:<56}{r['ours']:12.0f}  {r['peer']:<44}{r['theirs']:10.0f}  ratio {r['ratio']:.1f}")
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
