"""Training HIRO on the point in a maze: this project beside plain PyTorch, in one run.

Environment steps per second of training (acting on both levels, memory, updates of both levels, the correction), on
equal networks, batches and numbers of updates: 10 environments, c = 10, and for each 10 steps of them 50 updates of the
worker and 25 of the manager, or, as published, one update of the worker per step and one of the manager per ten. Blocks
of ours and PyTorch's alternate, so that a slow minute of the machine hits both; medians and their ratio are reported.
PyTorch runs as it comes, and with glibc keeping its freed memory as it does for us. Ours is one learner in each row: no
sum over seeds. No compilation is counted.

At the published widths the work is matrix products. The floor is the time of the updates' and the correction's products
alone, at the speed of large ones, measured in between.
"""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise, product
from typing import Any, NamedTuple

import jaxrl_envs
from jaxrl_hier.hierarchical.hiro import SAMPLED_GOALS, Config, make

from ._timing import (
    THREADS,
    Program,
    Setup,
    compared,
    floor_row,
    product_speed,
    torch_blocks,
    torch_peer,
    training,
)

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


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    sizes = {label: size for label, size in SIZES.items() if label in setup.chosen(SIZES, smoke=(next(iter(SIZES)),))}
    programs = {label: program(size, 2 if setup.smoke else 40) for label, size in sizes.items()}
    products: list[float] = []

    def theirs(size: Sizes, threads: int, kept: bool) -> list[float]:
        products.append(product_speed())
        return torch_blocks(setup.python("torch"), "torch_hiro.py", size._asdict() | {"threads": threads}, kept)

    peers = {
        (label, torch_peer(threads, kept)): partial(theirs, size, threads, kept)
        for (label, size), threads, kept in product(sizes.items(), THREADS, (False, True))
    }
    unit = "environment steps per second"
    for row, (label, _) in zip(compared("HIRO training", unit, programs, peers, setup.rounds), peers):
        updates = sizes[label].manager_updates * (1 + sizes[label].worker_update_ratio) / 100  # per step
        yield row | {"updates_per_second": {whose: updates * row[whose] for whose in ("ours", "theirs")}}
    label = [*sizes][-1]
    yield floor_row(f"HIRO training, {label}", unit, programs[label], products, operations(sizes[label]))
