"""Training FuN on rooms with keys, doors and a treasure: this project beside plain PyTorch, in one run.

Environment steps per second of training (acting, returns of both levels, inner rewards, one Adam step per rollout of 40
steps), on equal networks: a layer of ReLU, a dilated LSTM of ten cores, a worker's LSTM, c = 10. Blocks of ours and
PyTorch's alternate, so that a slow minute of the machine hits both; medians and their ratio are reported. PyTorch steps
all environments together, and unrolls the cores of the dilated LSTM side by side, as ours does. Ours is one learner in
each row: no sum over seeds. Both are single runs of training on the same cores; no compilation is counted.
"""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import jaxrl_envs
from jaxrl_hier.hierarchical.fun import Config, make

from ._timing import THREADS, Program, Setup, compared, torch_blocks, torch_peer, training

# label -> environments, and the width of every layer
SIZES = {
    "16 environments × 40 steps, 32 wide": (16, 32),
    "32 environments × 40 steps, 64 wide": (32, 64),
    "128 environments × 40 steps, 32 wide": (128, 32),
}


def program(environments: int, width: int, iterations: int) -> Program:
    config = Config(environments=environments, hidden=(width,), goal_size=width, worker_size=width)
    return training(make(config, *jaxrl_envs.make("treasure-vector")), iterations)


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    sizes = {label: size for label, size in SIZES.items() if label in setup.chosen(SIZES, smoke=(next(iter(SIZES)),))}
    programs = {label: program(*size, 2 if setup.smoke else 40) for label, size in sizes.items()}
    peers = {}
    for (label, (environments, width)), threads in product(sizes.items(), THREADS):
        flags = {"environments": environments, "hidden": width, "space": width, "worker": width, "threads": threads}
        peers[label, torch_peer(threads)] = partial(torch_blocks, setup.python("torch"), "torch_fun.py", flags)
    yield from compared("FuN training", "environment steps per second", programs, peers, setup.rounds)
