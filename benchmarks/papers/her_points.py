"""Hindsight experience replay on a point that reaches and one that pushes: after Andrychowicz et al. (NeurIPS 2017).

The paper's figure 3 in small: DDPG with and without hindsight (`future`, k = 4) on sparse rewards, `point-reach` and
`point-push` of this package. The settings are the paper's but for 4 episodes instead of 16 for each 40 updates and slow
targets that move with each update. As there, success is that of an episode's last step, without exploration noise. No
number is published for these tasks: what is compared is with and without.
"""

from typing import Any

import numpy as np

from jaxrl_hier.reports.statistics import FRACTION

from ..drawing import seeds_and_mean, subplots
from ..figure import Figure, Found, Measured, Scale, Training
from ..results import Row

SETTINGS: dict[str, Any] = {
    "environments": 4,
    "rollout_length": 50,
    "updates": 40,
    "batch_size": 128,
    "hidden": (64, 64, 64),
    "warmup_steps": 1_000,
    "discount": 0.98,
    "target_rate": 0.05,
    "normalize_observations": True,
    "reward_range": (-1.0, 0.0),
    "exploration_noise": 0.05,
    "random_actions": 0.2,
    "action_penalty": 1.0,
    "her_goals": 4,
    "eval_episodes": 100,
}
ITERATIONS = {"point-reach": 100, "point-push": 5_000}
NAMES = {"future": "DDPG + HER", "none": "DDPG"}
POINTS = 20  # of a curve
STEPS = SETTINGS["environments"] * SETTINGS["rollout_length"]  # of an iteration


def parts(scale: Scale) -> dict[str, Training]:
    found = {}
    points = 2 if scale == "smoke" else POINTS
    for env, iterations in [("point-reach", points)] if scale == "smoke" else ITERATIONS.items():
        for her, name in NAMES.items():
            settings = SETTINGS | {"her": her, "capacity": SETTINGS["warmup_steps"] + iterations * STEPS}
            curves = ("success_at_end",)
            found[f"{env}, {name}"] = Training("ddpg", settings, iterations, env, points=points, curves=curves)
    return found


def rows(found: Found) -> list[Row]:
    return [row for name, measured in found.items() for row in result_rows(name, measured)]


def result_rows(name: str, measured: Measured) -> list[Row]:
    """Success over the last quarter of training, and how many steps a success of 0.9 took."""
    success, steps = measured["success_at_end"], measured["env_steps"]
    last = success[:, -POINTS // 4 :].mean(axis=1)
    row = Row.measured(f"{name}: success at the last step", last, bounds=FRACTION)
    row.note = f"mean of the last quarter of {steps[-1]:,} steps a seed, {measured.seconds:.0f} s for all; at the end: "
    row.note += ", ".join(f"{x:.2f}" for x in success[:, -1])
    there = success >= 0.9
    if not there.any():
        return [row]
    first = np.where(there.any(axis=1), steps[np.argmax(there, axis=1)], np.inf)
    statistic = "mean" if np.isfinite(first).all() else "median"
    took = Row.measured(f"{name}: steps to a success of 0.9", first, statistic=statistic)
    took.note = f"{statistic}; {there.any(axis=1).sum()} of {len(success)} seeds; measured every {steps[0]:,} steps"
    return [row, took]


def draw(found: Found) -> dict[str, Any]:
    """Success over training, a panel per task: seeds thin, their mean thick."""
    tasks = [env for env in ITERATIONS if any(name.startswith(env) for name in found)]
    figure, axes = subplots(1, len(tasks), sharey=True)
    for ax, env in zip(axes[0], tasks):
        for name in NAMES.values():
            if measured := found.get(f"{env}, {name}"):
                seeds_and_mean(ax, measured["env_steps"] / 1000, measured["success_at_end"], name)
        ax.set(title=env, xlabel="thousand steps", ylim=(-0.03, 1.03))
        ax.legend(loc="center right")
    axes[0, 0].set_ylabel("success at the last step")
    return {"": figure}


FIGURE = Figure(
    name="her_points",
    paper="Andrychowicz et al., Hindsight Experience Replay, NeurIPS 2017",
    shows="figure 3 in small: a point that reaches and a point that pushes, with and without hindsight",
    parts=parts,
    rows=rows,
    draw=draw,
)
