"""Hindsight experience replay on the Fetch robots: Andrychowicz et al. (NeurIPS 2017), figure 3, DDPG with and without.

Needs the extra `robotics`. FetchReach (not in the paper's figure) is held to a success of 1 at the end of the episode.
FetchPush is run for as long as two cores allow in an hour and reported as it is: its curve must not be laid over the
paper's. Theirs has a tolerance of 7 cm, 10 simulator steps per action and 8 workers; gymnasium-robotics' has 5 cm, 20
steps, and ours one process. The settings are the paper's, but for 2 episodes instead of 16 for each 40 updates, batches
of 256 and slow targets that move with each update. At scale "gpu" FetchPush has the paper's number of episodes and five
seeds; a GPU is no help, only time.
"""

from typing import Any

import numpy as np

from jaxrl_hier.reports.statistics import FRACTION

from ..drawing import colour, subplots
from ..figure import Figure, Found, Measured, Scale, Training
from ..results import Row

REACH, PUSH = "FetchReach-v4", "FetchPush-v4"
SETTINGS: dict[str, Any] = {
    "environments": 2,
    "rollout_length": 50,
    "updates": 40,
    "batch_size": 256,
    "hidden": (64, 64, 64),
    "capacity": 1_000_000,
    "warmup_steps": 1_000,
    "discount": 0.98,
    "target_rate": 0.05,
    "normalize_observations": True,
    "reward_range": (-1.0, 0.0),
    "exploration_noise": 0.05,
    "random_actions": 0.2,
    "action_penalty": 1.0,
    "her_goals": 4,
}
NAMES = {"future": "DDPG + HER", "none": "DDPG"}


def parts(scale: Scale) -> dict[str, Training]:
    smoke = scale == "smoke"
    # an iteration is 2 episodes and 40 updates; the paper's 200 epochs are 10 000 of 16 episodes
    iterations, points = (10, 2) if smoke else (80_000 if scale == "gpu" else 24_000, 20)
    seeds = 5 if scale == "gpu" else 1
    found = {f"{REACH}, {NAMES['future']}": training(REACH, "future", 10 if smoke else 50, 2 if smoke else 10, smoke)}
    if not smoke:
        found |= {f"{PUSH}, {NAMES[her]}": training(PUSH, her, iterations, points, smoke, seeds) for her in NAMES}
    return found


def training(task: str, her: str, iterations: int, points: int, smoke: bool, seeds: int | None = None) -> Training:
    settings = SETTINGS | {"her": her, "eval_episodes": 10 if smoke else 50}
    about: dict[str, Any] = {"curves": ("success_at_end",), "final": ("success_at_end",)}
    return Training("ddpg", settings, iterations, f"gymnasium:{task}", points=points, seeds=seeds, **about)


def rows(found: Found) -> list[Row]:
    return [row for name, measured in found.items() for row in task_rows(name, measured)]


def task_rows(name: str, measured: Measured) -> list[Row]:
    """Success at the end, and for FetchReach what it took."""
    success, steps = measured["success_at_end"], measured["env_steps"]
    minutes = measured.seconds / len(success) / 60
    note = f"{steps[-1]:,} steps, {minutes:.1f} minutes of acting and learning for a run"
    one = len(success) == 1
    values = measured["final success_at_end"].ravel() if one else success[:, -1]
    unit = "episodes of the one seed" if one else "seeds"
    final = Row.measured(f"{name}: success at the last step", values, bounds=FRACTION, unit=unit, note=note)
    if not name.startswith(REACH):
        final.note += "; tolerance 5 cm where the paper has 7 cm: not its environment"
        return [final]
    final.exact = 1.0
    solved = np.array([steps[np.argmax(run >= 1.0)] if (run >= 1.0).any() else np.inf for run in success])
    statistic = "mean" if np.isfinite(solved).all() else "median"
    first = Row.measured(f"{name}: steps until 50 of 50 episodes succeed", solved, statistic=statistic)
    first.note = f"{statistic}; solved by {np.isfinite(solved).sum()} of {len(solved)} runs; "
    first.note += f"evaluated every {steps[0]} steps"
    return [final.judged(), first]


def draw(found: Found) -> dict[str, Any]:
    """Success at the last step over training, a panel per task; lines are seeds, the thick one their median."""
    figure, (axes,) = subplots(1, 2)
    for name, measured in found.items():
        task, method = name.split(", ")
        ax, x = axes[int(task == PUSH)], measured["env_steps"] / 1000
        ax.plot(x, measured["success_at_end"].T, color=colour(method), lw=0.6, alpha=0.5)
        ax.plot(x, np.median(measured["success_at_end"], axis=0), color=colour(method), lw=2, label=method)
    for ax, task in zip(axes, (REACH, PUSH)):
        ax.set(title=task, xlabel="thousand steps", ylabel="success at the last step", ylim=(-0.03, 1.03))
        if ax.lines:
            ax.legend(loc="best")
    return {"": figure}


FIGURE = Figure(
    name="her_fetch",
    paper="Andrychowicz et al., Hindsight Experience Replay, NeurIPS 2017",
    shows="figure 3 (pushing), on gymnasium-robotics' environments; FetchReach",
    parts=parts,
    rows=rows,
    draw=draw,
)
