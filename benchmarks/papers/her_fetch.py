"""Hindsight experience replay on the Fetch robots: Andrychowicz et al. (NeurIPS 2017), figure 3, DDPG with and without.

    pip install 'jaxrl-hier[robotics]'
    python -m benchmarks.papers.her_fetch                  # two hours on one core; `--only` for one part on each of two
    python -m benchmarks.papers.her_fetch --push-iterations 80000 --push-seeds 5      # the paper's number of episodes
    python -m benchmarks.papers.her_fetch --scale smoke

FetchReach (not in the paper's figure) is held to a success of 1 at the end of the episode. FetchPush is run for as long
as two cores allow in an hour and reported as it is: its curve must not be laid over the paper's. Theirs has a tolerance
of 7 cm, 10 simulator steps per action and 8 workers; gymnasium-robotics' has 5 cm, 20 steps, and ours one process. The
settings are the paper's, but for 2 episodes instead of 16 for each 40 updates, batches of 256 and slow targets that
move with each update.

Runs are kept in a folder and taken from there when they are complete, so that a call that was cut off can be repeated.
"""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_hier import host, host_training
from jaxrl_hier.engine.folder import load_evaluations
from jaxrl_hier.engine.identity import Identity
from jaxrl_hier.engine.logging import read_jsonl
from jaxrl_hier.engine.train import RunConfig
from jaxrl_hier.flat import td3
from jaxrl_hier.reports.statistics import FRACTION

REACH, PUSH = "FetchReach-v4", "FetchPush-v4"
SETTINGS: dict[str, Any] = {
    "critics": 1,  # with the next two: DDPG
    "policy_delay": 1,
    "target_noise": 0.0,
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


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: a minute, to see that it runs"""
    reach_seeds: int = 5
    """independent runs of FetchReach"""
    reach_iterations: int = 50
    """of 2 episodes and 40 updates"""
    push_seeds: int = 1
    """independent runs of FetchPush, with and without hindsight each"""
    push_iterations: int = 24_000
    """of 2 episodes and 40 updates; the paper's 200 epochs are 10 000 of 16 episodes"""
    only: Literal["reach", "push", "push-without", "all"] = "all"
    """train no more than this; the result is written when everything is there"""
    runs: Path = Path("runs/her_fetch")
    """folder of the runs"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


@dataclass(frozen=True)
class Plan:
    """One run."""

    part: str
    task: str
    her: Literal["future", "none"]
    seed: int
    iterations: int
    every: int  # iterations between evaluations


def plans(arguments: Arguments) -> list[Plan]:
    smoke = arguments.scale == "smoke"
    reach = 10 if smoke else arguments.reach_iterations
    push = 10 if smoke else arguments.push_iterations
    found = [Plan("reach", REACH, "future", seed, reach, 5) for seed in range(arguments.reach_seeds)]
    for seed in range(arguments.push_seeds):
        every = max(1, push // 20)
        found += [
            Plan("push", PUSH, "future", seed, push, every),
            Plan("push-without", PUSH, "none", seed, push, every),
        ]
    return found


def folder(arguments: Arguments, plan: Plan) -> Path:
    return arguments.runs / f"{plan.task}-{plan.her}-{plan.iterations}-{plan.seed}"


def complete(arguments: Arguments, plan: Plan) -> bool:
    return (folder(arguments, plan) / "times.json").exists()


def run(arguments: Arguments, plan: Plan) -> None:
    """Train, or go on with a run that was cut off."""
    config = td3.Config(**SETTINGS, her=plan.her, eval_episodes=10 if arguments.scale == "smoke" else 50)
    directory = folder(arguments, plan)
    schedule = RunConfig(
        iterations=plan.iterations,
        seed=plan.seed,
        log_every=plan.every,
        checkpoint_every=max(plan.every, plan.iterations // (4 * plan.every) * plan.every),
        evaluate_every=plan.every,
        tensorboard=False,
    )
    schedule = dataclasses.replace(schedule, iterations=plan.iterations // plan.every * plan.every)
    begun = time.perf_counter()
    result = host_training.train(
        td3.make,
        config,
        host.HostEnv(plan.task),
        schedule,
        directory=directory,
        identity=Identity({"task": plan.task, "config": dataclasses.asdict(config)}),
        resume=(directory / "config.json").exists(),
    )
    times = {"wall": time.perf_counter() - begun, "train": result.seconds, "compile": result.compile_seconds}
    (directory / "times.json").write_text(json.dumps(times))


def main(arguments: Arguments) -> None:
    planned = plans(arguments)
    for plan in planned:
        if not complete(arguments, plan) and arguments.only in ("all", plan.part):
            run(arguments, plan)
    if missing := [folder(arguments, plan).name for plan in planned if not complete(arguments, plan)]:
        print("still to be run:", ", ".join(missing))
        return
    rows, curves, times = [], {}, []
    for task in (REACH, PUSH):
        for her in ("future", "none"):
            group = [plan for plan in planned if (plan.task, plan.her) == (task, her)]
            if group:
                evaluations = [load_evaluations(folder(arguments, plan)) for plan in group]
                spent = [json.loads((folder(arguments, plan) / "times.json").read_text()) for plan in group]
                times += spent
                steps = np.array([*evaluations[0]]) * SETTINGS["environments"] * SETTINGS["rollout_length"]
                success = np.array([[e["success_at_end"].values.mean() for e in run.values()] for run in evaluations])
                curves[task, her] = steps, success
                last = np.array([[*run.values()][-1]["success_at_end"].values.ravel() for run in evaluations])
                rows += task_rows(f"{task}, {NAMES[her]}", task, steps, success, last, spent)
    speed = [
        row["steps_per_second"] for plan in planned for row in read_jsonl(folder(arguments, plan) / "metrics.jsonl")
    ]
    picture(curves, arguments.out / "her_fetch.png")
    path = write_paper(
        "her_fetch",
        "Andrychowicz et al., Hindsight Experience Replay, NeurIPS 2017",
        "figure 3 (pushing), on gymnasium-robotics' environments; FetchReach",
        rows,
        arguments.scale,
        arguments.out,
        wall_seconds=sum(spent["wall"] for spent in times),
        train_seconds=sum(spent["train"] for spent in times),
        compile_seconds=sum(spent["compile"] for spent in times),
        steps_per_second=float(np.median(speed)),
        longer="python -m benchmarks.papers.her_fetch --push-iterations 80000 --push-seeds 5",
    )
    show(rows)
    print(path)


def task_rows(
    label: str, task: str, steps: np.ndarray, success: np.ndarray, last: np.ndarray, times: list[dict[str, float]]
) -> list[Row]:
    """Success at the end, and for FetchReach what it took. `success` [seeds, evaluations]; `last` [seeds, episodes], of
    the last evaluation."""
    train = np.mean([spent["train"] for spent in times])
    note = f"{steps[-1]:,} steps, {train / 60:.1f} minutes of acting and learning for a run"
    values, unit = (success[:, -1], "seeds") if len(last) > 1 else (last[0], "episodes of the one seed")
    final = Row.measured(f"{label}: success at the last step", values, bounds=FRACTION, unit=unit, note=note)
    if task != REACH:
        final.note += "; tolerance 5 cm where the paper has 7 cm: not its environment"
        return [final]
    final.exact = 1.0
    solved = np.array([steps[np.argmax(run >= 1.0)] if (run >= 1.0).any() else np.inf for run in success])
    statistic = "mean" if np.isfinite(solved).all() else "median"
    first = Row.measured(f"{label}: steps until 50 of 50 episodes succeed", solved, statistic=statistic)
    first.note = (
        f"{statistic}; solved by {np.isfinite(solved).sum()} of {len(solved)} runs; evaluated every {steps[0]} steps"
    )
    return [final.judged(), first]


def picture(curves: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Success at the last step over training, a panel per task; lines are seeds, the thick one their median."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import BLUE, ORANGE, STYLE

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.8))
        for (task, her), (steps, success) in curves.items():
            ax, color = axes[int(task == PUSH)], BLUE if her == "future" else ORANGE
            x, success = np.append(0, steps) / 1000, np.insert(success, 0, np.nan, axis=1)
            for line in success:
                ax.plot(x, line, color=color, lw=0.6, alpha=0.5)
            ax.plot(x, np.median(success, axis=0), color=color, lw=2, label=NAMES[her])
            ax.set(title=task, xlabel="thousand steps", ylabel="success at the last step", ylim=(-0.03, 1.03))
        axes[1].legend(loc="best")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
