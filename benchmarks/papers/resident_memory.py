"""Does the memory of a training grow with its length?

10 000 chunks with all that a run writes: a row in each, TensorBoard, checkpoints and evaluations. The resident memory
is what the system reports of the process: Python's objects, XLA's buffers, and what glibc keeps. At the beginning it
grows, since the first evaluation and the first checkpoints load their programs.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_hier.building import built, config_of, environment
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.train import Compiled, train

from ..drawing import BLUE, VERMILION, legend_below, subplots
from ..figure import Computation, Figure, Found, Scale
from ..results import Row

SMALL = {"environments": 8, "batch_size": 32, "updates": 2, "capacity": 4096, "warmup_steps": 64, "hidden": (16,)}
LEARNERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Q-learning": ("q-learning", "four-rooms", {"environments": 8, "recorded_episodes": 2}),
    "DQN": ("dqn", "CartPole-v1", SMALL | {"eval_episodes": 8}),
}
COLOURS = dict(zip(LEARNERS, (BLUE, VERMILION)))
SAMPLES = 100
BEGUN = 0.2  # share of the chunks that are the beginning
FLAT = 5.0  # MiB, the most that it may grow after the beginning


class Watched(Compiled):
    """Notes the resident memory after every `every`-th chunk."""

    def __init__(self, algorithm: Any, every: int):
        super().__init__(algorithm)
        self.every, self.chunks, self.seen = every, 0, [resident()]

    def run(self, state: Any) -> Any:
        found = super().run(state)
        self.chunks += 1
        if self.chunks % self.every == 0:
            self.seen.append(resident())
        return found


def resident() -> float:
    """Resident memory of this process in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory_over(algorithm: str, env: str, settings: dict[str, Any], chunks: int) -> dict[str, Any]:
    """Resident memory over a training of so many chunks: "chunk" and "MiB", [SAMPLES + 1]."""
    config, (found, tasks) = config_of(algorithm, settings), environment(env, None)
    learner = built(algorithm, config, found, tasks)
    run = RunConfig(chunks, checkpoint_every=chunks // 20, evaluate_every=chunks // 10, quiet=True)
    watched = Watched(learner, chunks // SAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        train(learner, run, directory=Path(folder) / "run", trainer=watched)
    return {"chunk": np.arange(SAMPLES + 1) * watched.every, "MiB": np.array(watched.seen)}


def parts(scale: Scale) -> dict[str, Computation]:
    def part(learner: str) -> Computation:
        algorithm, env, settings = LEARNERS[learner]
        chunks = 200 if scale == "smoke" else 10_000
        about = {"algorithm": algorithm, "env": env, "settings": settings, "chunks": chunks}
        return Computation(memory_over, about, seeds=0)

    return {learner: part(learner) for learner in LEARNERS}


def rows(found: Found) -> list[Row]:
    made = []
    for learner, x in found.items():
        later = x["MiB"][x["chunk"] >= BEGUN * x["chunk"][-1]]
        how: dict[str, Any] = {"method": "one run"}
        made.append(Row.computed(f"{learner}: MiB at the end", x["MiB"][-1], **how))
        growth = Row.computed(f"{learner}: MiB by which the last 80 % of the chunks grow", later[-1] - later[0], **how)
        made.append(growth.judged(f"at most {FLAT:g}"))
    return made


def draw(found: Found) -> dict[str, Any]:
    figure, axes = subplots(1, 1, figsize=(6.0, 3.6))
    for learner, x in found.items():
        axes[0, 0].plot(x["chunk"], x["MiB"], color=COLOURS[learner], label=learner)
    axes[0, 0].set(xlabel="chunks", ylabel="resident memory in MiB")
    axes[0, 0].set_ylim(bottom=0)
    legend_below(figure, axes)
    return {"": figure}


FIGURE = Figure(
    name="resident_memory",
    paper="none",
    shows="resident memory of a process over a training of 10 000 chunks",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=1,
)
