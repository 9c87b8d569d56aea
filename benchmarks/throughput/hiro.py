"""Training HIRO on the point in a maze: this project beside plain PyTorch, in one run.

    python -m benchmarks.throughput.hiro --torch-python PYTHON     # a Python that has torch; default: this one

Environment steps per second of training (acting on both levels, memory, updates of both levels, the correction), on
equal networks, batches and numbers of updates: 10 environments, c = 10, and for each 10 steps of them 50 updates of the
worker and 25 of the manager, or, as published, one update of the worker per step and one of the manager per ten. Blocks
of ours and PyTorch's alternate, so that a slow minute of the machine hits both; medians and their ratio are reported.
PyTorch runs as it comes, and with glibc keeping its freed memory as it does for us. Ours is one learner in each row: no
sum over seeds. No compilation is counted.

At the published widths the work is matrix products. The floor is the time of the updates' and the correction's products
alone, at the speed of large ones, measured in between.
"""

import sys
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

import jax
import tyro

import jaxrl_envs
from benchmarks.throughput._timing import (
    THREADS,
    Program,
    floor_row,
    product_speed,
    publish,
    row,
    torch_blocks,
    torch_peer,
    training,
)
from jaxrl_hier.hierarchical.hiro import SAMPLED_GOALS, Config, make

ENVIRONMENTS, HORIZON = 10, 10


class Sizes(NamedTuple):
    """What both have."""

    hidden: int  # of each of two layers
    batch_size: int
    manager_updates: int
    worker_update_ratio: int


SIZES = {
    "64 wide, batches of 64, 75 updates per 100 steps": Sizes(64, 64, manager_updates=25, worker_update_ratio=2),
    "300 wide, batches of 100, 110 updates per 100 steps": Sizes(300, 100, manager_updates=10, worker_update_ratio=10),
}


@dataclass(frozen=True)
class Arguments:
    torch_python: str = sys.executable
    """a Python with torch (extra `bench`), for the reference"""
    rounds: int = 3
    """alternations of ours and theirs"""
    iterations: int = 40
    """iterations of 100 steps in a block of ours"""
    out: Path | None = None
    """the JSON; default benchmarks/results/throughput/hiro-<device>.json"""


def program(sizes: Sizes, iterations: int) -> Program:
    config = Config(
        hidden=(sizes.hidden,) * 2,
        batch_size=sizes.batch_size,
        manager_updates=sizes.manager_updates,
        worker_update_ratio=sizes.worker_update_ratio,
        goal_horizon=HORIZON,
        environments=ENVIRONMENTS,
        rollout_length=HORIZON,
        warmup_steps=5_000,
        goal_range=5.0,
        random_goals=0.2,
        worker_discount=0.95,
        actor_learning_rate=1e-3,
        target_rate=0.02,
        normalize_observations=False,
    )
    return training(make(config, *jaxrl_envs.make("point-maze")), iterations)


def operations(sizes: Sizes, worker: int = 4, manager: int = 6, action: int = 2) -> float:
    """Floating point operations per environment step of the matrix products in updates and correction; `worker` and
    `manager` are the numbers that those see."""
    width, batch = sizes.hidden, sizes.batch_size

    def network(inputs: int, outputs: int) -> tuple[int, int]:
        """Of a forward pass of one input, and of its first layer."""
        return 2 * sum(a * b for a, b in pairwise([inputs, width, width, outputs])), 2 * inputs * width

    def update(inputs: int) -> float:
        actor, actor_first = network(inputs, action)
        critic, critic_first = network(inputs + action, 1)
        # forward, with respect to weights and to inputs but the first layer's; every second one improves the actor,
        # which a critic judges forward and for its gradient
        critics = 2 * (3 * critic - critic_first)
        return batch * (actor + 2 * critic + critics + (3 * actor - actor_first + 2 * critic) / 2)

    correction = batch * HORIZON * (2 + SAMPLED_GOALS) * network(worker, action)[0]
    iteration = sizes.manager_updates * (sizes.worker_update_ratio * update(worker) + update(manager) + correction)
    return iteration / (ENVIRONMENTS * HORIZON)


def main(arguments: Arguments) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    programs = {label: program(sizes, arguments.iterations) for label, sizes in SIZES.items()}
    theirs: dict[tuple[str, int, bool], list[float]] = {}
    products = []
    for _ in range(arguments.rounds):
        for label, sizes in SIZES.items():
            for threads, kept in product(THREADS, (False, True)):
                programs[label].run()
                products.append(product_speed())
                speeds = torch_blocks(
                    arguments.torch_python, "torch_hiro.py", sizes._asdict() | {"threads": threads}, kept
                )
                theirs.setdefault((label, threads, kept), []).extend(speeds)

    rows, unit = [], "environment steps per second"
    for (label, threads, kept), speeds in theirs.items():
        what = f"HIRO training, {label}"
        rows.append(row(what, unit, programs[label], torch_peer(threads, kept), speeds))
        updates = SIZES[label].manager_updates * (1 + SIZES[label].worker_update_ratio) / 100  # per step
        rows[-1]["updates_per_second"] = {whose: updates * rows[-1][whose] for whose in ("ours", "theirs")}
    label = list(SIZES)[-1]
    rows.append(floor_row(f"HIRO training, {label}", unit, programs[label], products, operations(SIZES[label])))
    path = publish("hiro", rows, arguments.out)
    for r in rows:
        print(f"{r['what']:<72}{r['ours']:10.0f}  {r['peer']:<68}{r['theirs']:10.0f}  ratio {r['ratio']:.1f}")
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
