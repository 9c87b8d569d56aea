"""Hindsight experience replay on a point that reaches and one that pushes: after Andrychowicz et al. (NeurIPS 2017).

    python -m benchmarks.papers.her_points                 # 5 seeds, about a quarter of an hour on one core
    python -m benchmarks.papers.her_points --scale smoke

The paper's figure 3 in small: DDPG with and without hindsight (`future`, k = 4) on sparse rewards, `point-reach` and
`point-push` of this package. The settings are the paper's but for 4 episodes instead of 16 for each 40 updates and slow
targets that move with each update. As there, success is that of an episode's last step, without exploration noise.
No number is published for
these tasks: what is compared is with and without.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

import jaxrl_envs
from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk, make_evaluation
from jaxrl_hier.flat import td3
from jaxrl_hier.reports.statistics import FRACTION

SETTINGS: dict[str, Any] = {
    "critics": 1,  # with the next two: DDPG
    "policy_delay": 1,
    "target_noise": 0.0,
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


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: a minute, to see that it runs"""
    seeds: int = 5
    """independent runs"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


def main(arguments: Arguments) -> None:
    begun = time.perf_counter()
    rows: list[Row] = []
    curves: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    spent = {"train_seconds": 0.0, "compile_seconds": 0.0}
    for name, iterations in ITERATIONS.items():
        for her in NAMES:
            total = POINTS if arguments.scale == "smoke" else iterations
            curves[name, her], times = learn(name, her, total, arguments.seeds)
            spent = {key: spent[key] + times[key] for key in spent}
            rows += result_rows(name, her, *curves[name, her], times["train_seconds"])
    picture(curves, arguments.out / "her_points.png")
    path = write_paper(
        "her_points",
        "Andrychowicz et al., Hindsight Experience Replay, NeurIPS 2017",
        "figure 3 in small: a point that reaches and a point that pushes, with and without hindsight",
        rows,
        arguments.scale,
        arguments.out,
        wall_seconds=time.perf_counter() - begun,
        **spent,
        curves={
            f"{name}, {NAMES[her]}": {"steps": steps.tolist(), "success of seeds": success.tolist()}
            for (name, her), (steps, success) in curves.items()
        },
    )
    show(rows)
    print(path)


def learn(name: str, her: Any, iterations: int, seeds: int) -> tuple[tuple[np.ndarray, np.ndarray], dict[str, float]]:
    """Steps [points] and success at the last step [seeds, points], the untrained policy first; seconds."""
    env, tasks = jaxrl_envs.make(name)
    per_iteration = SETTINGS["environments"] * SETTINGS["rollout_length"]
    config = td3.Config(**SETTINGS, her=her, capacity=SETTINGS["warmup_steps"] + iterations * per_iteration)
    algorithm, every = td3.make(config, env, tasks), iterations // POINTS
    state = init_seeds(algorithm, RunConfig(iterations, seeds=seeds))
    evaluate = make_evaluation(algorithm)
    begun = time.perf_counter()
    chunk = jit(make_chunk(algorithm, every), donate_argnums=0).lower(state).compile()
    times = {"compile_seconds": time.perf_counter() - begun, "train_seconds": 0.0}
    success = [evaluate(state)["success_at_end"].values.mean(axis=1)]
    for _ in range(POINTS):
        begun = time.perf_counter()
        state, _, _ = jax.block_until_ready(chunk(state))
        times["train_seconds"] += time.perf_counter() - begun
        success.append(evaluate(state)["success_at_end"].values.mean(axis=1))
    return (np.arange(POINTS + 1) * every * per_iteration, np.stack(success, axis=1)), times


def result_rows(name: str, her: str, steps: np.ndarray, success: np.ndarray, seconds: float) -> list[Row]:
    """Success over the last quarter of training, and how many steps a success of 0.9 took."""
    last = success[:, -POINTS // 4 :].mean(axis=1)
    row = Row.measured(f"{name}, {NAMES[her]}: success at the last step", last, bounds=FRACTION)
    row.note = f"mean of the last quarter of {steps[-1]:,} steps a seed, {seconds:.0f} s for all; seeds at the end: "
    row.note += ", ".join(f"{x:.2f}" for x in success[:, -1])
    there = success >= 0.9
    if not there.any():
        return [row]
    first = np.where(there.any(axis=1), steps[np.argmax(there, axis=1)], np.inf)
    statistic = "mean" if np.isfinite(first).all() else "median"
    took = Row.measured(f"{name}, {NAMES[her]}: steps to a success of 0.9", first, statistic=statistic)
    took.note = f"{statistic}; {there.any(axis=1).sum()} of {len(success)} seeds; measured every {steps[1]:,} steps"
    return [row, took]


def picture(curves: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Success over training, a panel per task, with 95 % intervals over the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import BLUE, ORANGE, STYLE, draw_band

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.8), sharey=True)
        for (name, her), (steps, success) in curves.items():
            ax = axes[[*ITERATIONS].index(name)]
            color = BLUE if her == "future" else ORANGE
            draw_band(ax, steps / 1000, success, color, FRACTION, label=NAMES[her])
            ax.set(title=name, xlabel="thousand steps", ylim=(-0.03, 1.03))
        axes[0].set_ylabel("success at the last step")
        axes[0].legend(loc="center right")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
