"""The flat learners from replay on the classic tasks of gymnax: SAC, TD3, DDPG on Pendulum-v1, DQN on CartPole-v1.

The mean return of 100 greedy episodes at the end of training. No paper has these runs; the rows compare with what
usually counts as solved: a mean return above −200 on Pendulum-v1 (200 steps, at best about −150 from random starts) and
above 475 on CartPole-v1 (500 at most).
"""

from typing import Any

from jaxrl_hier.learning.optimization import linear_over
from jaxrl_hier.reports.statistics import Bounds

from ..drawing import curve, subplots
from ..figure import Figure, Found, Scale, Training
from ..results import Row

SMALL: dict[str, Any] = {"hidden": (64, 64)}
# DQN reaches 500 and loses it again, seed by seed, with a constant learning rate; and, less so, where its values are
# free to grow beyond 100, which is all that a pole that never falls is worth
DQN = {
    "environments": 8, "updates": 2, "batch_size": 128, "target_rate": 0.01, "double": True, "hidden": (120, 84),
    "learning_rate": 5e-4, **linear_over(40_000), "capacity": 16_000, "reward_range": (0.0, 1.0),
}  # fmt: skip
LEARNERS = {"sac": SMALL, "td3": SMALL, "ddpg": SMALL, "dqn": DQN}
ENV = {"sac": "Pendulum-v1", "td3": "Pendulum-v1", "ddpg": "Pendulum-v1", "dqn": "CartPole-v1"}
SOLVED = {"Pendulum-v1": -200.0, "CartPole-v1": 475.0}
BOUNDS: dict[str, Bounds] = {"dqn": (0.0, 500.0)}  # most seeds end at CartPole's highest return
WARMUP = 1000  # steps before the first iteration
POINTS = 20


def parts(scale: Scale) -> dict[str, Training]:
    if scale == "smoke":
        return {name: Training(name, LEARNERS[name], 2, ENV[name], points=2) for name in ("sac", "dqn")}
    iterations = {name: 40_000 if name == "dqn" else 10_000 for name in LEARNERS}
    return {
        name: Training(name, settings, iterations[name], ENV[name], points=POINTS)
        for name, settings in LEARNERS.items()
    }


def rows(found: Found) -> list[Row]:
    return [solved(name, measured) for name, measured in found.items()]


def solved(name: str, measured: Any) -> Row:
    target, steps = SOLVED[ENV[name]], WARMUP + measured["env_steps"][-1]
    row = Row.measured(f"{name} on {ENV[name]}, {steps} steps", measured["return"][:, -1], bounds=BOUNDS.get(name))
    row.published, row.note = target, "to compare with: what counts as solved"
    return row.judged(f"at least {target}")


def draw(found: Found) -> dict[str, Any]:
    """Mean return against steps with its 95 % interval over the seeds."""
    figure, axes = subplots(1, 2)
    for name, measured in found.items():
        ax = axes[0, [*SOLVED].index(ENV[name])]
        curve(ax, (WARMUP + measured["env_steps"]) / 1000, measured["return"], name.upper(), BOUNDS.get(name))
    for ax, (env, target) in zip(axes[0], SOLVED.items()):
        ax.axhline(target, color="0.5", ls="--", lw=1, label="counts as solved")
        ax.set(xlabel="thousand steps", ylabel="mean return", title=env)
        ax.legend(loc="lower right")
    return {"": figure}


FIGURE = Figure(
    name="flat_replay",
    paper="none: the baselines of later comparisons",
    shows="mean return on gymnax's Pendulum-v1 and CartPole-v1",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=10,
)
