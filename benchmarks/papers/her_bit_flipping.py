"""Bit flipping with and without hindsight: Andrychowicz et al. (NeurIPS 2017), figure 1.

    python -m benchmarks.papers.her_bit_flipping            # 5 seeds, 35 minutes on one core
    python -m benchmarks.papers.her_bit_flipping --scale smoke

Success against the number of bits, for DQN alone and with hindsight (future, k = 4), after the same number of steps and
updates for each n; for DQN alone and small n also after the paper's 160 000 episodes, with its memory of a million
steps; then, for one n, learning curves of the four strategies and of k. Success is that of 200 greedy episodes with
random states and goals: the goal is reached in some step.

The learning rate begins with the paper's and falls to zero, which it does not in the paper: constant, it left some
seeds of n = 50 short of .95.

The paper's curves are read off a figure: DQN alone solves n up to 13, with hindsight n up to 50 and more.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_envs.bit_flipping import BitFlipping, bit_flipping_tasks
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_evaluation
from jaxrl_hier.flat import dqn
from jaxrl_hier.learning.optimization import linear_over
from jaxrl_hier.reports.statistics import FRACTION

BITS = (5, 10, 13, 15, 20, 25, 30, 40, 50)
LONG_BITS, LONG_EPISODES, LONG_CAPACITY = (10, 13, 15), 160_000, 1_000_000  # DQN alone, as long as in the paper
STRATEGY_BITS = 20
STRATEGIES = ("future", "final", "episode", "random", "none")
GOALS = (1, 2, 4, 8, 16)
POINTS = 12  # evaluations of a run


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: a minute, to see that it runs"""
    seeds: int = 5
    """independent runs, the paper's number"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


@dataclass
class Curve:
    """How a setting learned."""

    steps: np.ndarray  # [points] environment steps
    success: np.ndarray  # [points, seeds]
    seconds: float
    compile_seconds: float


def setting(bits: int, her: Any, goals: int = 4) -> dqn.Config:
    """The paper's network, discount, batch and learning rate; 4 updates for 32 steps."""
    return dqn.Config(
        discount=0.98, hidden=(256,), batch_size=128, target_rate=0.05, epsilon=0.3, environments=32, updates=4,
        capacity=200_000, warmup_steps=1_600, reward_range=(-1.0, 0.0), her=her, her_goals=goals, eval_episodes=200,
    )  # fmt: skip


def iterations(bits: int) -> int:
    """Enough for hindsight to solve `bits`; what it takes grows about with the cube."""
    return max(2_000, bits**3 // 2)


def learn(bits: int, config: dqn.Config, length: int, seeds: int) -> Curve:
    """All seeds in one program, measured POINTS times; the learning rate falls to zero."""
    config = replace(config, **linear_over(length))
    algorithm = dqn.make(config, BitFlipping(bits), bit_flipping_tasks(bits))
    state = init_seeds(algorithm, RunConfig(seeds=seeds))
    block = length // POINTS

    @partial(jit, donate_argnums=0)
    def advance(state: Any) -> Any:
        return jax.lax.fori_loop(0, block, lambda _, s: jax.vmap(algorithm.step)(s)[0], state)

    begun = time.perf_counter()
    program, evaluate = advance.lower(state).compile(), make_evaluation(algorithm)
    compile_seconds, seconds, success = time.perf_counter() - begun, 0.0, []
    for _ in range(POINTS):
        begun = time.perf_counter()
        state = jax.block_until_ready(program(state))
        seconds += time.perf_counter() - begun
        success.append(np.asarray(evaluate(state)["success"].values).mean(axis=1))
    steps = config.warmup_steps + block * algorithm.env_steps * np.arange(1, POINTS + 1)
    return Curve(steps, np.array(success), seconds, compile_seconds)


def main(arguments: Arguments) -> None:
    smoke = arguments.scale == "smoke"
    length = lambda bits: POINTS * 5 if smoke else iterations(bits)
    every = (5, 10) if smoke else BITS
    strategy_bits = 5 if smoke else STRATEGY_BITS
    run = lambda bits, her, goals=4: learn(bits, setting(bits, her, goals), length(bits), arguments.seeds)

    curves: dict[tuple[int, str, int], Curve] = {}
    wanted = [(bits, her, 4) for bits in every for her in ("future", "none")]
    wanted += [(strategy_bits, her, 4) for her in STRATEGIES] + [(strategy_bits, "future", k) for k in GOALS]
    for key in dict.fromkeys(wanted):
        curves[key] = run(*key)
        print(key, np.round(curves[key].success[-1], 3), f"{curves[key].seconds:.0f} s", flush=True)

    long = {}
    for bits in LONG_BITS[:1] if smoke else LONG_BITS:
        config = replace(setting(bits, "none"), capacity=LONG_CAPACITY)
        episodes = 100 if smoke else LONG_EPISODES
        long[bits] = learn(bits, config, episodes * bits // config.environments, arguments.seeds)
        print(bits, "DQN for long", np.round(long[bits].success[-1], 3), f"{long[bits].seconds:.0f} s", flush=True)

    rows = [of_figure(bits, her, curves[bits, her, 4]) for her in ("future", "none") for bits in every]
    rows += [of_long(bits, curve) for bits, curve in long.items()]
    rows += [of_strategy(strategy_bits, her, curves[strategy_bits, her, 4]) for her in STRATEGIES]
    rows += [of_goals(strategy_bits, k, curves[strategy_bits, "future", k]) for k in GOALS]
    picture(curves, long, every, strategy_bits, arguments.out / "her_bit_flipping.png")
    path = write_paper(
        "her_bit_flipping",
        "Andrychowicz et al., Hindsight Experience Replay, NeurIPS 2017",
        "figure 1 (bit flipping: success against n), and the strategies and k of section 4.5 on bit flipping",
        rows,
        arguments.scale,
        arguments.out,
        wall_seconds=sum(c.seconds for c in (*curves.values(), *long.values())),
        compile_seconds=sum(c.compile_seconds for c in (*curves.values(), *long.values())),
        curves=[about(*key, curve) for key, curve in curves.items()]
        + [about(bits, "none", 4, curve) | {"memory": LONG_CAPACITY} for bits, curve in long.items()],
    )
    show(rows)
    print(path)


def about(bits: int, her: str, goals: int, curve: Curve) -> dict[str, Any]:
    """A curve, for the file."""
    success = np.round(curve.success.T, 4).tolist()
    return {
        "bits": bits,
        "strategy": her,
        "k": 0 if her == "none" else goals,
        "steps": curve.steps.tolist(),
        "success of seeds": success,
    }


def spread(success: np.ndarray) -> str:
    """Median and quartiles over the seeds."""
    low, middle, high = np.quantile(success, [0.25, 0.5, 0.75])
    return f"median {middle:.3f}, quartiles {low:.3f} and {high:.3f}"


def row(label: str, success: np.ndarray, note: str = "", **about: Any) -> Row:
    return Row.measured(label, success, bounds=FRACTION, note=f"{note}{spread(success)}", **about)


def of_figure(bits: int, her: str, curve: Curve) -> Row:
    """The paper's figure says 1 with hindsight for all n here, and from n = 20 on 0 without."""
    at = f"after {curve.steps[-1]} steps; "
    if her != "none":
        return row(
            f"n = {bits}, DQN + HER", curve.success[-1], at, published=1.0, published_interval=(0.95, 1.0)
        ).judged()
    measured = row(f"n = {bits}, DQN", curve.success[-1], at)
    if bits < 20:
        return measured  # far fewer steps than in the paper; see `of_long`
    measured.published, measured.published_interval = 0.0, (0.0, 0.05)
    return measured.judged("lower")


def of_long(bits: int, curve: Curve) -> Row:
    """DQN alone; the paper's text says that it solves n up to 13."""
    measured = row(f"n = {bits}, DQN, as long as in the paper", curve.success[-1], f"after {curve.steps[-1]} steps; ")
    if bits > 13:
        return measured  # between what the text says and what the figure shows
    measured.published, measured.published_interval = 1.0, (0.9, 1.0)
    return measured.judged()


def of_strategy(bits: int, her: str, curve: Curve) -> Row:
    label = "without hindsight" if her == "none" else f"strategy {her}, k = 4"
    return row(f"n = {bits}, {label}, success over the whole run", curve.success.mean(axis=0))


def of_goals(bits: int, k: int, curve: Curve) -> Row:
    return row(f"n = {bits}, strategy future, k = {k}, success over the whole run", curve.success.mean(axis=0))


def picture(
    curves: dict[tuple[int, str, int], Curve], long: dict[int, Curve], every: Any, bits: int, path: Path
) -> None:
    """Success against n, medians and quartiles; learning curves of strategies and of k at one n."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import BLUE, GREY, STYLE

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(12.6, 4.1), width_ratios=(1.25, 1, 1))
        for her, label, color in (("future", "DQN + HER", BLUE), ("none", "DQN", GREY)):
            final = np.array([curves[n, her, 4].success[-1] for n in every])
            low, middle, high = np.quantile(final, [0.25, 0.5, 0.75], axis=1)
            axes[0].fill_between(every, low, high, color=color, alpha=0.25, lw=0)
            axes[0].plot(every, middle, "o-", color=color, label=label)
        final = np.array([curve.success[-1] for curve in long.values()])
        low, middle, high = np.quantile(final, [0.25, 0.5, 0.75], axis=1)
        axes[0].errorbar(
            list(long), middle, [middle - low, high - middle], fmt="s--", color=GREY, mfc="white", capsize=3,
            label=f"DQN, {LONG_EPISODES:,} episodes",
        )  # fmt: skip
        axes[0].axvline(13, color="0.7", ls=":", lw=1)
        axes[0].annotate("paper: DQN alone\nsolves n ≤ 13", (13.4, 0.42), color="0.4", fontsize=8.5)
        axes[0].set(
            xlabel="number of bits n", ylabel="success", ylim=(-0.03, 1.05), title="after the same steps for each n"
        )
        axes[0].legend(loc="center right")
        colors = plt.get_cmap("viridis")(np.linspace(0, 0.88, 5))
        for ax, keys, title in (
            (axes[1], [(bits, her, 4) for her in STRATEGIES], f"n = {bits}, k = 4: strategy"),
            (axes[2], [(bits, "future", k) for k in GOALS], f"n = {bits}, future: k"),
        ):
            for key, color in zip(keys, colors):
                label = (key[1] if key[1] != "none" else "no hindsight") if ax is axes[1] else f"{key[2]}"
                curve = curves[key]
                low, middle, high = np.quantile(curve.success, [0.25, 0.5, 0.75], axis=1)
                ax.fill_between(curve.steps / 1000, low, high, color=color, alpha=0.15, lw=0)
                ax.plot(curve.steps / 1000, middle, color=color, label=label)
            ax.set(xlabel="thousand steps", ylim=(-0.03, 1.05), title=title)
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17)}
            ax.legend(**below, fontsize=8.5, ncols=5, columnspacing=0.9, handlelength=1.2, handletextpad=0.4)
        figure.suptitle("bit flipping, medians and quartiles over seeds", fontsize=10, color="0.3")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
