"""Steps per second of other packages' environments behind our adapters, under a random policy.

As `environments` measures our own, of those whose package is installed (the extra `adapters`); compilation apart.
"""

from collections.abc import Iterator
from typing import Any

import jaxrl_envs

from ._timing import Setup
from .environments import program, row

NAMES = (
    "jumanji:Maze-v0",
    "jumanji:Game2048-v1",
    "navix:Navix-Empty-8x8-v0",
    "navix:Navix-DoorKey-8x8-v0",
    "pgx:tic_tac_toe",
    "pgx:minatar-breakout",
    "craftax:Craftax-Classic-Symbolic-v1",
    "brax:halfcheetah",
    "brax:ant",
    "playground:CartpoleBalance",
)
NUMBERS = (1, 64, 1024)
STEPS = 2**14  # of all environments, in a block; at least 16 of each


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    for name in setup.chosen(NAMES, smoke=("pgx:tic_tac_toe",)):
        try:
            jaxrl_envs.make(name)
        except ValueError as error:
            print(error)
            continue
        programs = {count: program(name, count, max(16, STEPS // count)) for count in NUMBERS}
        for _ in range(setup.rounds):
            for timed in programs.values():
                timed.run()
        for count, timed in programs.items():
            yield row(name, count, timed, [])
