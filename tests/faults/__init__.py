"""Faults on purpose: trainings that are killed, stopped, out of disk, damaged or begun twice, and then resumed.

    python -m tests.faults --jobs 2 --work faults --out faults.json     # all; killed, the same command goes on
    python -m tests.faults --short                                      # a few
    python -m tests.faults --case "kill -9/tabular/3"     # one alone: the same faults, as far as clocks repeat them

A case is a run that meets one fault or, one after another, several. What comes of each fault is one of

    equal     the run was resumed, and all that it leaves is bit for bit that of the undisturbed run: every state after
              a chunk in every process, every row without its time, every evaluation, every checkpoint
    refused   exit code 2 and exactly one line on stderr; each file that was there is there unchanged
    said      only for damaged files: resumed, and rows or an evaluation that the damage itself destroyed are missing,
              which stderr says; everything else is equal
    failed    anything else

On the host a resumed run starts new episodes, so that it is not the undisturbed one. There "equal" says that it went on
from exactly the state that had been saved, that rows and evaluations from before it stayed as they were, and that the
run was completed.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.sizes import SIZES


@dataclass(frozen=True)
class Learner:
    """What is trained. exact: a resumed run is the undisturbed one."""

    algorithm: str
    env: str | None = None
    exact: bool = True
    run: dict[str, Any] = field(default_factory=dict)  # changes to `RUN`

    @property
    def settings(self) -> dict[str, Any]:
        return RUN | SIZES[self.algorithm] | self.run


RUN = {
    "iterations": 24,
    "log_every": 2,
    "checkpoint_every": 4,
    "evaluate_every": 6,
    "plots": False,
    "quiet": True,
}
HALF = 12  # iterations, at a checkpoint and an evaluation, of the runs whose files are damaged
LEARNERS = {
    "tabular": Learner("q-learning"),
    "on-policy": Learner("option-critic"),
    "replay": Learner("her-dqn", run={"eval_episodes": 4}),
    "recurrent": Learner("rl2"),
    "meta": Learner("maml"),
    "hierarchical": Learner("hiro"),
    "host": Learner("dqn", "gymnasium:CartPole-v1", exact=False, run={"eval_episodes": 4, "evaluate_every": 12}),
}
KINDS = ("kill -9", "SIGTERM", "full disk", "damaged file", "concurrent start")
OUTCOMES = ("equal", "refused", "said", "failed")

# faults of each kind and learner; learners that take long to trace have fewer
FULL = {
    "kill -9": dict(zip(LEARNERS, (130, 35, 15, 5, 5, 5, 5))),
    "SIGTERM": dict(zip(LEARNERS, (25, 10, 5, 3, 2, 2, 3))),
    "full disk": dict(zip(LEARNERS, (16, 6, 3, 1, 1, 1, 2))),
    "damaged file": dict(zip(LEARNERS, (62, 22, 8, 2, 2, 2, 2))),
    "concurrent start": dict(zip(LEARNERS, (22, 10, 3, 1, 1, 1, 2))),
}
SHORT = {
    "kill -9": {"tabular": 3},
    "SIGTERM": {"tabular": 1},
    "full disk": {"tabular": 1},
    "damaged file": {"tabular": 2},
    "concurrent start": {"tabular": 1},
}
CHAIN = 5  # faults that one run meets at most


@dataclass(frozen=True)
class Case:
    """One run and the faults that it meets. `name` fixes all that is drawn."""

    kind: str
    learner: str
    number: int
    faults: int

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.learner}/{self.number}"


@dataclass(frozen=True)
class Outcome:
    """What came of one fault."""

    case: str
    fault: str  # in words
    outcome: str  # one of OUTCOMES
    why: str = ""  # where it failed or was refused
    seconds: float = 0.0


def cases(counts: dict[str, dict[str, int]]) -> list[Case]:
    """As many faults as `counts` says, in cases."""
    found = []
    for kind, of in counts.items():
        length = CHAIN if kind in ("kill -9", "SIGTERM") else 2 if kind == "full disk" else 1
        for learner, total in of.items():
            sizes = [min(length, total - begun) for begun in range(0, total, length)]
            found += [Case(kind, learner, number, size) for number, size in enumerate(sizes)]
    return found
