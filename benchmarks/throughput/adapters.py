"""Steps per second of other packages' environments behind our adapters, under a random policy.

As `environments` measures our own, of those whose package is installed (the extras `adapters` and `xland`); compilation
apart, and without the memory of environments on the host. Beside MuJoCo's robots and environments of Gymnasium stands
Gymnasium, one environment in a Python loop.
"""

from collections.abc import Iterator
from typing import Any

from jaxrl_hier.building import environment

from ._timing import Setup
from .environments import draw, gymnasium_speed, program, row

__all__ = ["draw", "rows"]

NAMES = (
    "jumanji:Maze-v0",
    "jumanji:Game2048-v1",
    "navix:Navix-Empty-8x8-v0",
    "navix:Navix-DoorKey-8x8-v0",
    "pgx:tic_tac_toe",
    "pgx:minatar-breakout",
    "craftax:Craftax-Classic-Symbolic-v1",
    "XLand-MiniGrid-R1-9x9",
    "gymnasium:CartPole-v1",
    "gymnasium:HalfCheetah-v5",
    "mujoco:HalfCheetah-v5",
    "mujoco:Ant-v5",
    "mujoco:Humanoid-v5",
    "brax:halfcheetah",
    "brax:ant",
    "playground:CartpoleBalance",
)
NUMBERS = (1, 64, 1024)
SLOW = {"craftax:": (64,), "brax:": (64,), "playground:": (64,)}  # what compiles for a minute and more
STEPS = 2**14  # of all environments, in a block; at least 16 of each
GYMNASIUM_STEPS = 2_000


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    for name in setup.chosen(NAMES, smoke=("pgx:tic_tac_toe",)):
        try:
            environment(name)
        except ValueError as error:
            print(error)
            continue
        numbers = next((few for prefix, few in SLOW.items() if name.startswith(prefix)), NUMBERS)
        programs = {count: program(name, count, max(16, STEPS // count)) for count in numbers}
        gymnasium: list[float] = []
        for _ in range(setup.rounds):
            for timed in programs.values():
                timed.run()
            if name.startswith(("gymnasium:", "mujoco:")):
                gymnasium.append(gymnasium_speed(name.partition(":")[2], GYMNASIUM_STEPS))
        for count, timed in programs.items():
            yield row(name, count, timed, gymnasium)
