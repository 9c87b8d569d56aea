"""Training an option-critic on four rooms: this project beside plain PyTorch, in one run on the same cores.

Environment steps per second of training (acting, λ-returns, one Adam step per rollout), on equal sizes: 4 options, a
torso of 64-64, one-hot cells. Blocks of ours and PyTorch's alternate, so that a slow minute of the machine hits both;
medians and their ratio are reported. PyTorch runs batched over as many environments, with one thread and with two, and
as the usual loop over a single environment that updates after each step. Ours is one learner in each row: no sum over
seeds.
"""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import jaxrl_envs
from jaxrl_hier.hierarchical.option_critic import Config, make

from ._timing import THREADS, Program, Setup, compared, torch_blocks, torch_peer, training

SIZES = {"32 environments × 16 steps": (32, 16), "256 environments × 16 steps": (256, 16)}
SINGLE = "1 environment × 1 step"


def program(environments: int, length: int, iterations: int) -> Program:
    config = Config(environments=environments, rollout_length=length)
    return training(make(config, *jaxrl_envs.make("four-rooms-option-critic")), iterations)


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    iterations = 5 if setup.smoke else 200
    programs = {label: program(*size, iterations) for label, size in SIZES.items()}
    programs[SINGLE] = program(1, 1, 50 * iterations)
    blocks = partial(torch_blocks, setup.python("torch"), "torch_option_critic.py")
    peers = {}
    for (label, (environments, length)), threads in product(SIZES.items(), THREADS):
        flags = {"mode": "batched", "threads": threads, "iterations": 30, "environments": environments}
        peers[label, f"batched, {torch_peer(threads)}"] = partial(blocks, flags | {"length": length})
    alone = partial(blocks, {"mode": "single", "threads": 1, "iterations": 300})
    for label in (SINGLE, next(iter(SIZES))):  # the same task, and each in the way that it is usually run
        peers[label, f"single environment, {torch_peer(1)}"] = alone
    yield from compared("option-critic training", "environment steps per second", programs, peers, setup.rounds)
