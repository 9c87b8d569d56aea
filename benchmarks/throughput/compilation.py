"""What our choices for compiling on a CPU are worth: training with and without each of them, in one run.

- LLVM's level 2, which `jaxrl_hier.jit` asks for, against XLA's default of 3.
- Kernels of narrowing layers transposed first (`jaxrl_hier.learning.networks.product`), against plain
  `lax.dot_general`. The heads of FuN and option-critic are not part of an MLP and stay transposed in every variant.
- Keys that a rollout splits by threefry written out (`jaxrl_envs.random_bits`), against JAX's loop.

Each program is a training chunk whose state is donated, as in `train`. Reported are the seconds to compile it and the
median seconds of a call. The variants take turns, and each round starts with another one.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxrl_envs
from jaxrl_envs import random_bits
from jaxrl_hier import registry
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.compilation import LEVEL, jit
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk
from jaxrl_hier.learning import networks

from ._timing import Setup

BIT_FLIPPING = {"her": "future", "environments": 1, "rollout_length": 1, "updates": 1, "hidden": (256,)}
SMALL = {"hidden": (32,) * 3, "encoder_hidden": (32,) * 3, "batch_size": 32, "meta_batch_size": 8, "context_size": 64}
CASES: dict[str, tuple[str, str, dict[str, Any], int]] = {  # algorithm, environment, settings, iterations of a chunk
    "Q-learning": ("q-learning", "four-rooms", {}, 50_000),
    "RL² on random processes": ("rl2", "tabular-mdp", {"episodes_per_trial": 10}, 1),
    "RL² on bandits": ("rl2", "bandit-n100-k5", {}, 1),
    "MAML, TRPO outside": ("maml", "navigation2d", {}, 1),
    "option-critic": ("option-critic", "four-rooms-option-critic", {}, 1000),
    "FuN": ("fun", "treasure", {}, 20),
    "HIRO, 64 wide": ("hiro", "point-maze", {"hidden": (64, 64), "manager_updates": 25, "worker_update_ratio": 2}, 10),
    "DQN with hindsight, 256 wide": ("dqn", "bit-flipping-15", BIT_FLIPPING, 1000),
    "PEARL, 32 wide": ("pearl", "sparse-point-robot", SMALL, 1),
}
OURS, JAXS = (random_bits.split, random_bits.fold_in), (jax.random.split, jax.random.fold_in)
VARIANTS: dict[str, tuple[int, Any, Any]] = {  # level, layer, keys
    "as it is": (LEVEL, networks.Dense, OURS),
    "at level 3": (3, networks.Dense, OURS),
    "kernels as they are": (LEVEL, nn.Dense, OURS),
    "keys by JAX's loop": (LEVEL, networks.Dense, JAXS),
}


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    if jax.default_backend() != "cpu":
        raise UsageError("these choices are for a CPU; set JAX_PLATFORMS=cpu")
    for what, (name, env, settings, iterations) in CASES.items():
        if name in setup.chosen([case[0] for case in CASES.values()], smoke=("option-critic",)):
            module = registry.module(name)
            algorithm = module.make(module.Config(**settings), *jaxrl_envs.make(env))
            state = init_seeds(algorithm, RunConfig())
            chunk = partial(make_chunk, algorithm, 2 if setup.smoke else iterations)
            yield from compared(what, chunk, state, 2 * setup.rounds)


def compared(what: str, chunk: Callable[[], Any], start: Any, rounds: int) -> list[dict[str, Any]]:
    """A row for each variant except the first, which is ours. Each has a chunk of its own: a chunk is traced once."""
    programs, states, compile_seconds = {}, {}, {}
    for variant, (level, layer, keys) in VARIANTS.items():
        networks.Dense, (random_bits.split, random_bits.fold_in) = layer, keys  # read when the program is traced
        lowered = jit(chunk(), level=level, donate_argnums=0).lower(start)
        begun = time.perf_counter()
        programs[variant] = lowered.compile()
        compile_seconds[variant] = time.perf_counter() - begun
        states[variant] = programs[variant](jax.tree.map(jnp.copy, start))[0]  # the first call, not timed
    _, networks.Dense, (random_bits.split, random_bits.fold_in) = VARIANTS["as it is"]

    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    order = list(VARIANTS)
    for _ in range(rounds):
        for variant in order:
            begun = time.perf_counter()
            states[variant] = jax.block_until_ready(programs[variant](states[variant]))[0]
            seconds[variant].append(time.perf_counter() - begun)
        order = order[1:] + order[:1]

    ours, *others = VARIANTS
    found = []
    for other in others:
        mine, theirs = (statistics.median(seconds[variant]) for variant in (ours, other))
        found.append(
            {
                "what": what,
                "unit": "seconds of a call",
                "ours": mine,
                "peer": f"the same, {other}",
                "theirs": theirs,
                "ratio": theirs / mine,
                "compile_seconds": compile_seconds[ours],
                "compile_seconds_of_peer": compile_seconds[other],
                "aggregate": False,
                "note": f"medians of {rounds} calls each, in turns",
            }
        )
    return found
