"""The flat learners from replay on the classic tasks of gymnax: SAC, TD3, DDPG on Pendulum-v1, DQN on CartPole-v1.

    python -m benchmarks.papers.flat_replay            # 10 seeds, about four minutes on one core
    python -m benchmarks.papers.flat_replay --scale smoke

The mean return of 100 greedy episodes at the end of training. No paper has these runs; the rows compare with what
usually counts as solved: a mean return above −200 on Pendulum-v1 (200 steps, at best about −150 from random starts) and
above 475 on CartPole-v1 (500 at most).
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_hier import api, registry
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_evaluation
from jaxrl_hier.learning.optimization import linear_over
from jaxrl_hier.reports.statistics import Bounds

SMALL: dict[str, Any] = {"hidden": (64, 64)}
# DQN reaches 500 and loses it again, seed by seed, with a constant learning rate; and, less so, where its values are
# free to grow beyond 100, which is all that a pole that never falls is worth
DQN = {
    "environments": 8, "updates": 2, "batch_size": 128, "target_rate": 0.01, "double": True, "hidden": (120, 84),
    "learning_rate": 5e-4, **linear_over(40_000), "capacity": 16_000, "reward_range": (0.0, 1.0),
}  # fmt: skip
RUNS: dict[str, tuple[dict[str, Any], int, float]] = {  # name -> settings, iterations, what counts as solved
    "sac": (SMALL, 10_000, -200.0),
    "td3": (SMALL, 10_000, -200.0),
    "ddpg": (SMALL, 10_000, -200.0),
    "dqn": (DQN, 40_000, 475.0),
}
BOUNDS: dict[str, Bounds] = {"dqn": (0.0, 500.0)}  # most seeds end at CartPole's highest return
POINTS = 20
COLORS = {"sac": "#1f6fb4", "td3": "#e8710a", "ddpg": "#3a9c5a", "dqn": "#1f6fb4"}


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: a minute, to see that it runs"""
    seeds: int = 10
    """independent runs"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


def main(arguments: Arguments) -> None:
    rows: list[Row] = []
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    seconds = compile_seconds = 0.0
    for name, (settings, iterations, solved) in RUNS.items():
        block = 5 if arguments.scale == "smoke" else iterations // POINTS
        algorithm = api.make(name, **settings)
        state = init_seeds(algorithm, RunConfig(seeds=arguments.seeds))

        @partial(jax.jit, donate_argnums=0)
        def advance(state: Any, step: Any = algorithm.step, block: int = block) -> Any:
            return jax.lax.fori_loop(0, block, lambda _, s: jax.vmap(step)(s)[0], state)

        begun = time.perf_counter()
        program, evaluate = advance.lower(state).compile(), make_evaluation(algorithm)
        compile_seconds += time.perf_counter() - begun
        returns = []
        for _ in range(POINTS):
            begun = time.perf_counter()
            state = jax.block_until_ready(program(state))
            seconds += time.perf_counter() - begun
            returns.append(np.asarray(evaluate(state)["return"].values).mean(axis=1))
        steps = 1000 + block * algorithm.env_steps * np.arange(1, POINTS + 1)  # with the warm-up
        curves[name] = steps, np.array(returns)
        env = registry.entry(name).env
        row = Row.measured(f"{name} on {env}, {steps[-1]} steps", returns[-1], bounds=BOUNDS.get(name))
        row.published, row.note = solved, "to compare with: what counts as solved"
        rows.append(row.judged(f"at least {solved}"))
        show(rows[-1:])
    picture(curves, arguments.out / "flat_replay.png")
    path = write_paper(
        "flat_replay",
        "none: the baselines of later comparisons",
        "mean return on gymnax's Pendulum-v1 and CartPole-v1",
        rows,
        arguments.scale,
        arguments.out,
        wall_seconds=seconds,
        compile_seconds=compile_seconds,
        curves={
            name: {"steps": steps.tolist(), "return of seeds": returns.T.tolist()}
            for name, (steps, returns) in curves.items()
        },
    )
    print(path)


def picture(curves: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Mean return against steps with its 95 % interval over the seeds; dashed: what counts as solved."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE, draw_band

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.6))
        for name, (steps, returns) in curves.items():
            ax = axes[int(name == "dqn")]
            draw_band(ax, steps / 1000, returns.T, COLORS[name], BOUNDS.get(name), label=name.upper())
            ax.axhline(RUNS[name][2], color="0.5", ls="--", lw=1)
        axes[0].set(xlabel="thousand steps", ylabel="mean return", title="Pendulum-v1")
        axes[1].set(xlabel="thousand steps", title="CartPole-v1")
        for ax in axes:
            ax.legend(loc="lower right")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
