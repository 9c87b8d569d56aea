"""Training an option-critic on four rooms: this project beside plain PyTorch, in one run on the same cores.

    python -m benchmarks.throughput.option_critic --torch-python PYTHON     # a Python that has torch; default: this one

Environment steps per second of training (acting, λ-returns, one Adam step per rollout), on equal sizes: 4 options, a
torso of 64-64, one-hot cells. Blocks of ours and PyTorch's alternate, so that a slow minute of the machine hits both;
medians and their ratio are reported. PyTorch runs batched over as many environments, with one thread and with two, and
as the usual loop over a single environment that updates after each step. Ours is one learner in each row: no sum over
seeds.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import tyro

import jaxrl_envs
from benchmarks.throughput._timing import THREADS, Program, publish, row, torch_blocks, torch_peer, training
from jaxrl_hier.hierarchical.option_critic import Config, make

SIZES = {"32 environments × 16 steps": (32, 16), "256 environments × 16 steps": (256, 16)}


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


def program(environments: int, length: int, iterations: int) -> Program:
    config = Config(environments=environments, rollout_length=length)
    return training(make(config, *jaxrl_envs.make("four-rooms-option-critic")), iterations)


def main(arguments: Arguments) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    programs = {label: program(*size, arguments.iterations) for label, size in SIZES.items()}
    single = program(1, 1, 50 * arguments.iterations)
    theirs: dict[tuple[str, str], list[float]] = {}
    python, script = arguments.torch_python, "torch_option_critic.py"
    for _ in range(arguments.rounds):
        for label, (environments, length) in SIZES.items():
            for threads in THREADS:
                programs[label].run()
                flags: dict[str, int | str] = {"mode": "batched", "threads": threads, "iterations": 30}
                flags |= {"environments": environments, "length": length}
                speeds = torch_blocks(python, script, flags)
                theirs.setdefault((label, f"batched, {torch_peer(threads)}"), []).extend(speeds)
        single.run()
        speeds = torch_blocks(python, script, {"mode": "single", "threads": 1, "iterations": 300})
        theirs.setdefault(("1 environment × 1 step", f"single environment, {torch_peer(1)}"), []).extend(speeds)

    rows = []
    unit = "environment steps per second"
    for (label, name), speeds in theirs.items():
        rows.append(row(f"option-critic training, {label}", unit, programs.get(label, single), name, speeds))
        if label not in programs:  # the same task, each in the way that it is usually run
            label = "32 environments × 16 steps"
            rows.append(row(f"option-critic training, {label}", unit, programs[label], name, speeds))
    path = publish("option_critic", rows, arguments.out)
    for r in rows:
        print(f"{r['what']:<52}{r['ours']:12.0f}  {r['peer']:<56}{r['theirs']:10.0f}  ratio {r['ratio']:.1f}")
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
