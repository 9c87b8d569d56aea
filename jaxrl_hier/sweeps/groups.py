"""Groups of members that share a program: the numbers in which they differ are part of its state."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import struct

from jaxrl_hier.building import built
from jaxrl_hier.checks import writing_to
from jaxrl_hier.engine.chunk import initial
from jaxrl_hier.engine.files import replacing
from jaxrl_hier.engine.room import free_bytes, size
from jaxrl_hier.engine.train import Compiled, divergences
from jaxrl_hier.engine.types import Algorithm, Average, NamedArray, Tasks, TrainState
from jaxrl_hier.settings import traceable
from jaxrl_hier.sweeps.members import MOST, Member

HELD = 2  # a program holds a state, and what it makes of it
DIVERGED = "diverged.json"  # in a group's folder: place -> iteration and metric


@struct.dataclass
class Carried:
    """The learner's state in a sweep: its own, and the numbers of its member."""

    learner: Any
    numbers: dict[str, jax.Array]  # [] each


class Group(NamedTuple):
    """Members that share a program."""

    members: list[int]
    numbers: dict[str, np.ndarray]  # [members], the settings in which they differ


def structure(member: Member) -> tuple[Any, ...]:
    """The settings that members of one program share; of a number that may be traced, only whether there is one."""
    traced = traceable(type(member.config))
    values = vars(member.config).items()
    return member.run, tuple((k, (k in traced and v is not None) or v) for k, v in values)


def groups_of(members: Sequence[Member], at_once: Callable[[Member], int]) -> list[list[int]]:
    """The members, by their numbers, in groups of one structure; `at_once`: how many like a member run together."""
    alike: dict[Any, list[int]] = {}
    for i, member in enumerate(members):
        alike.setdefault(structure(member), []).append(i)
    groups = []
    for found in alike.values():
        most = max(1, at_once(members[found[0]]))
        groups += [found[i : i + most] for i in range(0, len(found), most)]
    return groups


def group_of(members: Sequence[Member], chosen: list[int]) -> Group:
    """A group of these members. Numbers that all of them share stay constants of the program."""
    configs = [vars(members[i].config) for i in chosen]
    names = [k for k in traceable(type(members[0].config)) if len({config[k] for config in configs}) > 1]
    dtype = lambda values: np.int32 if isinstance(values[0], int) else np.float32
    columns = {k: [config[k] for config in configs] for k in names}
    return Group(chosen, {k: np.array(values, dtype(values)) for k, values in columns.items()})


def members_at_once(name: str, member: Member, env: Any, tasks: Tasks) -> int:
    """How many members like this one fit into the free memory."""
    free = free_bytes()
    if free is None:
        return MOST
    return free // (HELD * size(initial(built(name, member.config, env, tasks), member.run)[0]))


def swept(name: str, config: Any, env: Any, tasks: Tasks) -> Algorithm:
    """An algorithm whose state holds some of its settings: `init` takes a key and these numbers, by name."""

    def of(numbers: dict[str, jax.Array]) -> Algorithm:
        return built(name, replace(config, **numbers), env, tasks)

    def opened(state: TrainState) -> tuple[Algorithm, TrainState]:
        return of(state.learner.numbers), replace(state, learner=state.learner.learner)

    def init(start: Any) -> TrainState:
        key, numbers = start
        state = of(numbers).init(key)
        return replace(state, learner=Carried(state.learner, numbers))

    def step(state: TrainState) -> tuple[TrainState, Any]:
        algorithm, plain = opened(state)
        after, metrics = algorithm.step(plain)
        return replace(after, learner=Carried(after.learner, state.learner.numbers)), metrics

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        algorithm, plain = opened(state)
        return algorithm.evaluate(plain, key)

    plain = built(name, config, env, tasks)
    return plain._replace(init=init, step=step, evaluate=evaluate)


class Enduring(Compiled):
    """Goes on where places on the axis of seeds have diverged, and remembers which did, also after a resume.

    The engine's "drop-seed" would stop a group in which every member diverges, and speak of places as of seeds.
    """

    def __init__(self, algorithm: Algorithm, directory: Path | None, *, skip: bool = False):
        super().__init__(algorithm, skip=skip, divided=False)
        self.path = None if directory is None else directory / DIVERGED
        self.diverged: dict[int, tuple[int, str]] = {}  # place -> iteration, metric

    def begin(self, state: TrainState, resumed: bool) -> TrainState:
        self.done = int(state.iteration[0])
        if resumed and self.path and self.path.exists():
            kept = {int(place): (when, what) for place, (when, what) in json.loads(self.path.read_text()).items()}
            self.diverged = {place: found for place, found in kept.items() if found[0] <= self.done}
        return state

    def compile(self, state: TrainState, length: int) -> None:
        super().compile(state, length)
        self.length = length

    def run(self, state: TrainState) -> tuple[TrainState, dict[str, Average], dict[str, Any]]:
        state, metrics, bad = super().run(state)
        found = {each.seed: (each.iteration, each.metric) for each in divergences(bad, 0, self.done, self.length)}
        new = found.keys() - self.diverged.keys()
        self.diverged = found | self.diverged
        if self.path and new:
            with writing_to(self.path), replacing(self.path) as partial_file:
                partial_file.write_text(json.dumps(self.diverged))
        self.done += self.length
        return state, metrics, {metric: np.full_like(at, self.length) for metric, at in bad.items()}
