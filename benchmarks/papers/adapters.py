"""Which adapter when? MAML, RL² and PEARL on the same tasks, dense and sparse 2-D navigation.

    python -m benchmarks.papers.adapters                 # about 40 minutes on one busy core
    python -m benchmarks.papers.adapters --scale smoke

PEARL's two point robots (Rakelly et al., 2019): 80 goals to train on, 20 for the test, episodes of 20 steps. What is
the return of an episode after so many steps on a test task, and how many steps of meta-training did that take?

MAML takes a gradient step for each 10 episodes of the test task (200 steps); RL² plays 11 episodes with one hidden
state; PEARL infers a belief before each episode, after the first (dense) or the first five (sparse, as published) with
z from the prior. MAML and RL² are tested with actions drawn, as in training; PEARL with the mean action, as published.

Goals are hidden. Dense: the reward is minus the distance. Sparse: 1 − distance within 0.2 of the goal, else 0. PEARL's
losses, and they alone, see the distance in the sparse task too, which is how it was published; "PEARL, sparse losses"
goes without. Nothing was tuned systematically. MAML has its published settings for 2-D navigation, with half of the
trajectories (with Adam instead of TRPO it got worse in the course of 1000 iterations); PEARL its preset; RL² was given
a memory of its own for the value and a scale of values after a short trial on the dense task in which it did not learn.
These trials, and the ones that PEARL's preset comes from, were judged on the same test goals: a seed each, none hidden.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_envs.point_robot import (
    STEPS,
    TRAINED,
    PointRobot,
    SparsePointRobot,
    best_return,
    half_circle_goals,
    point_robot_tasks,
    square_goals,
)
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk, make_evaluation
from jaxrl_hier.engine.types import Algorithm
from jaxrl_hier.meta import maml, pearl, rl2
from jaxrl_hier.meta.pearl_replay import TaskReplay

BUDGET = 200  # steps on a test task at which meta-training is compared
POINTS = 20  # of a curve
GOALS = {"dense": square_goals(), "sparse": half_circle_goals()}
MAML = maml.Config(episodes_per_task=10, eval_tasks=20, eval_episodes=10)
RL2 = rl2.Config(
    episodes_per_trial=11,
    memory_size=64,
    environments=128,
    minibatch_size=32,
    epochs=4,
    discount=0.99,
    gae_lambda=0.9,
    clip=0.2,
    learning_rate=1e-3,
    value_scale=50.0,
    eval_tasks=20,
)
PEARL = pearl.Config(eval_exploration_episodes=5)
# adapter -> settings, and iterations on each kind of task
ADAPTERS: dict[str, tuple[Any, dict[str, int]]] = {
    "MAML": (MAML, {"dense": 100, "sparse": 100}),
    "RL²": (RL2, {"dense": 250, "sparse": 250}),
    "PEARL": (PEARL, {"dense": 180, "sparse": 200}),
    "PEARL, sparse losses": (PEARL, {"sparse": 150}),
}
COLORS = {"MAML": "#2a9d5c", "RL²": "#e8710a", "PEARL": "#1f6fb4", "PEARL, sparse losses": "#8ab6dd"}


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: two minutes, to see that it runs"""
    seeds: int = 3
    """independent meta-trainings of each"""
    adapters: tuple[str, ...] = tuple(ADAPTERS)
    """which to run"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


@dataclass
class Adapted:
    """What an adapter has come to on its tasks; S seeds."""

    trained: np.ndarray  # [points] steps of meta-training
    tested: np.ndarray  # [budgets] steps on the test task before the episode
    returns: np.ndarray  # [S, points, budgets] mean over the test tasks
    seconds: float
    compile_seconds: float

    @property
    def at_budget(self) -> np.ndarray:
        """Return after BUDGET steps on the test task, [S, points]."""
        return self.returns[..., list(self.tested).index(min(BUDGET, self.tested[-1]))]


def build(name: str, kind: str, smoke: bool) -> tuple[Algorithm, str, int]:
    """The algorithm, what its evaluation measures [task, step], and the steps of each step on a test task."""
    tasks, settings = point_robot_tasks(GOALS[kind]), ADAPTERS[name][0]
    env: Any = PointRobot() if kind == "dense" else SparsePointRobot(shaped=name == "PEARL")
    if smoke:
        small: dict[Any, dict[str, Any]] = {
            maml.Config: {"meta_batch_size": 4, "hidden": (16,)},
            rl2.Config: {"environments": 32, "memory_size": 8},
            pearl.Config: {
                "tasks_per_iteration": 2,
                "posterior_steps": 60,
                "updates": 5,
                "hidden": (16,),
                "encoder_hidden": (16,),
            },
        }
        settings = replace(settings, **small[type(settings)])
    if isinstance(settings, maml.Config):
        return maml.make(settings, env, tasks), "return", STEPS * settings.eval_episodes
    if isinstance(settings, rl2.Config):
        return rl2.make(settings, env, tasks), "return", STEPS
    if kind == "dense":
        settings = replace(settings, eval_exploration_episodes=1)  # every step tells where the goal is
    return pearl.make(settings, env, tasks), "return", STEPS


def learn(algorithm: Algorithm, measure: str, each: int, iterations: int, seeds: int) -> Adapted:
    every = max(iterations // POINTS, 1)
    state, evaluate = init_seeds(algorithm, RunConfig(seeds=seeds)), make_evaluation(algorithm)
    # what was played before the first iteration
    played = int(state.memory.ring.size[0].sum()) if isinstance(state.memory, TaskReplay) else 0
    begun = time.perf_counter()
    chunk = jit(make_chunk(algorithm, every), donate_argnums=0).lower(state).compile()
    compile_seconds, seconds = time.perf_counter() - begun, 0.0
    told: Callable[[], np.ndarray] = lambda: np.asarray(evaluate(state)[measure].values).mean(axis=1)
    returns = [told()]
    for _ in range(iterations // every):
        begun = time.perf_counter()
        state, _, _ = jax.block_until_ready(chunk(state))
        seconds += time.perf_counter() - begun
        returns.append(told())
    trained = played + np.arange(len(returns)) * every * algorithm.env_steps
    return Adapted(trained, each * np.arange(returns[0].shape[-1]), np.stack(returns, axis=1), seconds, compile_seconds)


def main(arguments: Arguments) -> None:
    if unknown := set(arguments.adapters) - set(ADAPTERS):
        raise SystemExit(f"no adapter is called {', '.join(unknown)}; there are {'; '.join(ADAPTERS)}")
    begun, smoke = time.perf_counter(), arguments.scale == "smoke"
    adapted: dict[tuple[str, str], Adapted] = {}
    for kind in GOALS:
        for name in arguments.adapters:
            iterations = ADAPTERS[name][1]
            if kind in iterations:
                total = 2 if smoke else iterations[kind]
                adapted[kind, name] = learn(*build(name, kind, smoke), total, arguments.seeds)
                x = adapted[kind, name]
                print(
                    kind, name, f"{x.seconds:.0f} s", *(f"{r:.1f}" for r in x.returns[:, -1].mean(axis=0)), flush=True
                )
    rows = [row for kind in GOALS for row in made_rows(kind, {n: x for (k, n), x in adapted.items() if k == kind})]
    show(rows)
    picture(adapted, arguments.out / "adapters.png")
    path = write_paper(
        "adapters",
        "Finn et al. 2017 (MAML), Duan et al. 2016 (RL²), Rakelly et al. 2019 (PEARL)",
        "the three adapters on the same tasks: return by steps on a test task and by steps of meta-training",
        rows,
        arguments.scale,
        arguments.out,
        which=answer(adapted),
        costs={
            f"{kind}, {name}": {
                "environment_steps_of_each_seed": int(x.trained[-1]),
                "train_seconds_of_all_seeds": x.seconds,
                "compile_seconds": x.compile_seconds,
            }
            for (kind, name), x in adapted.items()
        },
        wall_seconds=time.perf_counter() - begun,
    )
    for line in answer(adapted):
        print(line)
    print(path)


def best(kind: str) -> float:
    """The exact optimum of the test goals."""
    return float(best_return(GOALS[kind][TRAINED:], sparse=kind == "sparse").mean())


def inside(kind: str) -> dict[str, Any]:
    """How the interval of a mean return over the test goals is made: dense returns have no lower bound."""
    return {"statistic": "mean inside", "bounds": (0.0, best(kind))} if kind == "sparse" else {}


def made_rows(kind: str, adapted: dict[str, Adapted]) -> list[Row]:
    rows = []
    for name, x in adapted.items():
        for budget in sorted({0, STEPS, 5 * STEPS, BUDGET, int(x.tested[-1])} & set(x.tested.tolist())):
            values = x.returns[:, -1, x.tested.tolist().index(budget)]
            row = Row.measured(f"{kind}, {name}: return after {budget} steps on the task", values, **inside(kind))
            row.exact = best(kind)
            rows.append(row.judged())
        half = halfway(x, kind, adapted)
        whole = float(x.trained[-1])
        row = Row.measured(
            f"{kind}, {name}: steps of meta-training to half of the way",
            np.minimum(half, whole),
            statistic="mean inside",
            bounds=(0.0, whole),
        )
        row.note = f"to the mean of the untrained and the best possible return, after {BUDGET} steps on the task"
        if never := int(np.isinf(half).sum()):
            row.verdict = "short"
            row.note += f"; {never} of {len(half)} seeds never, and count with the whole training"
        rows.append(row)
    return rows


def halfway(x: Adapted, kind: str, adapted: dict[str, Adapted]) -> np.ndarray:
    """For each seed the steps of meta-training after which the return at BUDGET is half of the way to the optimum; ∞ if
    it never is. The way begins at the mean of what the untrained adapters reach."""
    start = np.mean([other.at_budget[:, 0].mean() for other in adapted.values()])
    there = x.at_budget >= (start + best(kind)) / 2
    return np.where(there.any(axis=1), x.trained[np.argmax(there, axis=1)], np.inf)


def answer(adapted: dict[tuple[str, str], Adapted]) -> list[str]:
    """When should I use which: the adapter with the highest mean return for each budget."""
    lines = []
    for kind in GOALS:
        those = {name: x for (k, name), x in adapted.items() if k == kind}
        if not those:
            continue
        for budget in (0, STEPS, 5 * STEPS, BUDGET):
            scores = {
                name: x.returns[:, -1, x.tested.tolist().index(budget)].mean()
                for name, x in those.items()
                if budget in x.tested
            }
            lines.append(f"{kind}, {budget} steps on the task: {ranked(scores)}")
        for steps in (100_000, 300_000, 1_000_000):
            scores = {
                name: x.at_budget[:, np.flatnonzero(x.trained <= steps)[-1]].mean()
                for name, x in those.items()
                if x.trained[-1] >= steps
            }
            if scores:
                lines.append(
                    f"{kind}, at most {steps:,} steps of meta-training, {BUDGET} on the task: {ranked(scores)}"
                )
    return lines


def ranked(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {score:.1f}" for name, score in sorted(scores.items(), key=lambda item: -item[1]))


def picture(adapted: dict[tuple[str, str], Adapted], path: Path) -> None:
    """A row for each kind of task: return by steps on a test task, and by steps of meta-training."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE, draw_band

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(10.4, 7.2), sharey="row")
        for (left, right), kind in zip(axes, GOALS):
            for (of, name), x in adapted.items():
                if of != kind:
                    continue
                draw_band(left, x.tested, x.returns[:, -1], COLORS[name], marker="o", ms=4, label=name)
                draw_band(right, np.maximum(x.trained, 1_000), x.at_budget, COLORS[name])
            for ax in (left, right):
                ax.axhline(best(kind), color="black", lw=1.1, ls=(0, (4, 2)))
            left.set(title=f"{kind} reward: at the end of meta-training", ylabel="return of an episode, test goals")
            left.set(xlabel="steps on the test task before")
            left.set_xscale("symlog", linthresh=STEPS)
            left.set_xticks([0, 20, 100, 200, 600], ["0", "20", "100", "200", "600"])
            right.set(xscale="log", xlabel="environment steps of meta-training")
            right.set_title(f"{kind} reward: after {BUDGET} steps on the test task")
            left.text(
                0.01, best(kind), "best possible", fontsize=8.5, va="bottom", transform=left.get_yaxis_transform()
            )
            left.set_xlim(-3, None)
        figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(ADAPTERS))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
