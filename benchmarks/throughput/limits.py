"""Steps per second over numbers of environments, beside what the device's arithmetic or its memory would allow.

Environments under a random policy (`environments`), and whole iterations of learners. The limit is the smaller of two
speeds: floating-point operations, counted in the program as compiled for a CPU (`benchmarks.programs`), at the speed of
a large matrix product; and the bytes of what every step, or every iteration, has to read and write again (the
environments' states; parameters and optimiser), at the speed of a copy. Both speeds are measured here, first. A ratio
near 1 is as fast as the device can be; small batches are far from it, since starting each operation takes longer. What
fits into a cache may exceed the limit by memory.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

import jaxrl_hier
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.room import size

from ..programs import counts
from ._timing import Program, Setup, training
from .environments import program

ENVIRONMENTS = ("CartPole-v1", "navigation2d", "taxi")
LEARNERS: dict[str, dict[str, Any]] = {  # settings beside the number of environments, or of tasks
    "ppo": {"minibatch_size": 64},
    "dqn": {},
    "rl2": {"minibatch_size": 64},
    "maml": {},
}
NUMBERS = (64, 1024, 16_384)
STEPS = 64  # of each environment, in a block


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    side = 512 if setup.smoke else 4096
    products = 2 * side**3 * per_second(lambda x: x @ x / side, jnp.ones((side, side)))
    copies = 2 * 4 * side**2 * per_second(lambda x: x + 1, jnp.ones((side, side)))
    for name in setup.chosen([*ENVIRONMENTS, *LEARNERS], smoke=("CartPole-v1", "ppo")):
        for number in NUMBERS[:1] if setup.smoke else NUMBERS:
            if name in ENVIRONMENTS:
                timed = program(name, number, STEPS)
                moved = 2 * STEPS * size(timed.state)
            else:
                batch = "meta_batch_size" if name == "maml" else "environments"
                timed = training(jaxrl_hier.make(name, **{batch: number}, **LEARNERS[name]), 1)
                moved = 2 * size(replace(timed.state, memory=(), world=()))
            for _ in range(setup.rounds):
                timed.run()
            yield row(f"{name}, {number}", timed, operations(timed), moved, products, copies)


def per_second(f: Callable[[jax.Array], jax.Array], x: jax.Array, repeats: int = 50) -> float:
    """How often a function can be applied, one after the other."""
    repeated = jit(lambda x: jax.lax.fori_loop(0, repeats, lambda _, x: f(x), x))
    jax.block_until_ready(repeated(x))
    begun = time.perf_counter()
    jax.block_until_ready(repeated(x))
    return repeats / (time.perf_counter() - begun)


def operations(timed: Program) -> float:
    """Floating-point operations of a block."""
    cpu = SingleDeviceSharding(jax.devices("cpu")[0])
    on_cpu = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=cpu), timed.state)
    return counts(timed.lower(on_cpu).compile().as_text()).operations


def row(what: str, timed: Program, done: float, moved: float, products: float, copies: float) -> dict[str, Any]:
    """Args: operations and bytes of a block; operations and bytes per second of this device."""
    ours, by_products, by_copies = statistics.median(timed.speeds), done / products, moved / copies
    arithmetic, memory = f"arithmetic at {products / 1e9:.0f} GFLOP/s", f"memory at {copies / 1e9:.0f} GB/s"
    theirs = timed.work / max(by_products, by_copies)
    return {
        "what": f"{what} side by side",
        "unit": "environment steps per second",
        "ours": ours,
        "peer": f"the limit: {arithmetic if by_products > by_copies else memory}",
        "theirs": theirs,
        "ratio": ours / theirs,
        "compile_seconds": timed.compile_seconds,
        "aggregate": False,
        "note": f"median of {len(timed.speeds)} blocks of {done / 1e9:.3g} GFLOP, {moved / 1e9:.3g} GB at least",
    }
