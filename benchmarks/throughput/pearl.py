"""Gradient steps of PEARL: this project beside a plain PyTorch reference, in one run on the same cores.

At the published sizes (16 tasks × 256 steps through networks of 3 × 300, contexts of 1024 steps through 3 × 200) and at
small ones. A step draws its tasks, contexts and batches from memory; ours also plays 40 environment steps in each block
of gradient steps, which an iteration cannot do without. Processes of theirs and blocks of ours alternate; medians.

At the published sizes the work is matrix products. The floor is the time that they would take at the speed of one of
them, 4096 × 300 by 300 × 300, measured in between: products that a gradient does not need are not counted. PyTorch runs
as it comes, and with glibc keeping its freed memory as it does for us.
"""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise, product
from typing import Any, NamedTuple

import jax

import jaxrl_envs
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.meta import pearl

from ._timing import (
    THREADS,
    Program,
    Setup,
    compared,
    floor_row,
    product_speed,
    torch_blocks,
    torch_peer,
)


class Sizes(NamedTuple):
    """What both have."""

    meta_batch_size: int
    batch_size: int
    context_size: int
    hidden: int  # of each of three layers
    encoder_hidden: int


SIZES = {  # sizes, gradient steps in a block
    "published sizes": (Sizes(16, 256, 1024, hidden=300, encoder_hidden=200), 5),
    "small sizes": (Sizes(8, 32, 64, hidden=32, encoder_hidden=32), 500),
}


def program(sizes: Sizes, updates: int) -> Program:
    """One iteration of so many gradient steps."""
    config = pearl.Config(
        meta_batch_size=sizes.meta_batch_size,
        batch_size=sizes.batch_size,
        context_size=sizes.context_size,
        hidden=(sizes.hidden,) * 3,
        encoder_hidden=(sizes.encoder_hidden,) * 3,
        learning_rate=3e-4,
        tasks_per_iteration=1,
        initial_steps=1000,
        prior_steps=20,
        posterior_steps=20,
        updates=updates,
        capacity=80 * 1100,
    )
    algorithm = pearl.make(config, *jaxrl_envs.make("sparse-point-robot"))
    return Program(lambda state: algorithm.step(state)[0], jit(algorithm.init)(jax.random.key(0)), updates)


def operations(sizes: Sizes, obs: int = 2, action: int = 2, latent: int = 5) -> int:
    """Floating point operations of the matrix products in a gradient step."""

    def network(rows: int, inputs: int, hidden: int, outputs: int) -> tuple[int, int]:
        layers = [inputs, *[hidden] * 3, outputs]
        return 2 * rows * sum(a * b for a, b in pairwise(layers)), 2 * rows * inputs * hidden

    rows, hidden = sizes.meta_batch_size * sizes.batch_size, sizes.hidden
    critic, _ = network(rows, obs + latent + action, hidden, 1)
    value, value_first = network(rows, obs + latent, hidden, 1)
    actor, actor_first = network(rows, obs + latent, hidden, 2 * action)
    encoder, encoder_first = network(
        sizes.meta_batch_size * sizes.context_size, obs + action + 1, sizes.encoder_hidden, 2 * latent
    )
    # forward, with respect to weights and to inputs; the first layers' inputs matter to the critics alone
    trained = 3 * (2 * critic + value + actor + encoder) - value_first - actor_first - encoder_first
    return trained + 2 * 2 * critic + value  # the critics as judges of the actor, forward and for its gradient; V'


BLOCKS = 3  # of theirs in a process


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    sizes = {label: size for label, size in SIZES.items() if label in setup.chosen(SIZES, smoke=("small sizes",))}
    programs = {label: program(size, 5 if setup.smoke else steps) for label, (size, steps) in sizes.items()}
    products: list[float] = []

    def theirs(label: str, threads: int, kept: bool) -> list[float]:
        products.append(product_speed())
        size, steps = sizes[label]
        flags = size._asdict() | {"steps": steps, "blocks": BLOCKS, "threads": threads}
        return torch_blocks(setup.python("torch"), "torch_pearl.py", flags, kept)

    peers = {
        (label, torch_peer(threads, kept)): partial(theirs, label, threads, kept)
        for label, threads, kept in product(sizes, THREADS, (False, True))
    }
    unit = "gradient steps per second"
    yield from compared("PEARL", unit, programs, peers, setup.rounds)
    label = next(iter(sizes))
    yield floor_row(f"PEARL, {label}", unit, programs[label], products, operations(sizes[label][0]))
