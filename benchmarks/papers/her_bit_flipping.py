"""Bit flipping with and without hindsight: Andrychowicz et al. (NeurIPS 2017), figure 1.

Success against the number of bits, for DQN alone and with hindsight (future, k = 4), after the same number of steps and
updates for each n; for DQN alone and small n also after the paper's 160 000 episodes, with its memory of a million
steps; then, for one n, learning curves of the four strategies and of k. Success is that of 200 greedy episodes with
random states and goals: the goal is reached in some step.

The learning rate begins with the paper's and falls to zero, which it does not in the paper: constant, it left some
seeds of n = 50 short of .95.

The paper's curves are read off a figure: DQN alone solves n up to 13, with hindsight n up to 50 and more.
"""

from typing import Any

import numpy as np

from jaxrl_envs.bit_flipping import BitFlipping, bit_flipping_tasks
from jaxrl_hier.learning.optimization import linear_over
from jaxrl_hier.reports.statistics import FRACTION

from ..drawing import COLOURS, subplots
from ..figure import Figure, Found, Measured, Scale, Training
from ..results import Row

BITS = (5, 10, 13, 15, 20, 25, 30, 40, 50)
LONG_BITS, LONG_EPISODES, LONG_CAPACITY = (10, 13, 15), 160_000, 1_000_000  # DQN alone, as long as in the paper
STRATEGIES = ("future", "final", "episode", "random", "none")
GOALS = (1, 2, 4, 8, 16)
POINTS = 12  # evaluations of a run
WARMUP, ENVIRONMENTS = 1_600, 32
# the paper's network, discount, batch and learning rate; 4 updates for 32 steps
SETTINGS: dict[str, Any] = {
    "discount": 0.98, "hidden": (256,), "batch_size": 128, "target_rate": 0.05, "epsilon": 0.3,
    "environments": ENVIRONMENTS, "updates": 4, "capacity": 200_000, "warmup_steps": WARMUP,
    "reward_range": (-1.0, 0.0), "eval_episodes": 200,
}  # fmt: skip


def part(bits: int, her: str, goals: int = 4, long: bool = False) -> str:
    """The name of a part."""
    name = f"n = {bits}, " + ("DQN" if her == "none" else f"{her}, k = {goals}")
    return f"{name}, as long as in the paper" if long else name


def strategy_bits(found: Any) -> int:
    """The number of bits at which strategies and k are compared, by the parts that there are."""
    return 20 if part(20, "future") in found else 5


def parts(scale: Scale) -> dict[str, Training]:
    smoke = scale == "smoke"
    bits = 5 if smoke else 20
    wanted = [(n, her, 4) for n in ((5,) if smoke else BITS) for her in ("future", "none")]
    if not smoke:
        wanted += [(bits, her, 4) for her in STRATEGIES] + [(bits, "future", k) for k in GOALS]
    # what hindsight takes to solve n bits grows about with the cube
    found = {part(*key): training(*key, POINTS if smoke else max(2_000, key[0] ** 3 // 2)) for key in wanted}
    for n in () if smoke else LONG_BITS:
        iterations = LONG_EPISODES * n // ENVIRONMENTS
        found[part(n, "none", long=True)] = training(n, "none", 4, iterations, capacity=LONG_CAPACITY)
    return found


def training(bits: int, her: str, goals: int, iterations: int, **settings: Any) -> Training:
    iterations = iterations // POINTS * POINTS
    settings = SETTINGS | {"her": her, "her_goals": goals} | linear_over(iterations) | settings
    env, tasks = BitFlipping(bits), bit_flipping_tasks(bits)
    return Training("dqn", settings, iterations, env, tasks, points=POINTS, curves=("success",))


def rows(found: Found) -> list[Row]:
    bits = strategy_bits(found)
    made = [figure_row(n, her, found.get(part(n, her))) for her in ("future", "none") for n in BITS]
    made += [long_row(n, found.get(part(n, "none", long=True))) for n in LONG_BITS]
    names = {h: "without hindsight" if h == "none" else f"strategy {h}, k = 4" for h in STRATEGIES}
    made += [run_row(bits, names[her], found.get(part(bits, her))) for her in STRATEGIES]
    # k = 4 is among the strategies
    made += [run_row(bits, f"strategy future, k = {k}", found.get(part(bits, "future", k))) for k in GOALS if k != 4]
    return [row for row in made if row is not None]


def success_row(label: str, success: np.ndarray, note: str = "", **about: Any) -> Row:
    low, middle, high = np.quantile(success, [0.25, 0.5, 0.75])
    note = f"{note}median {middle:.3f}, quartiles {low:.3f} and {high:.3f}"
    return Row.measured(label, success, bounds=FRACTION, note=note, **about)


def figure_row(bits: int, her: str, measured: Measured | None) -> Row | None:
    """The paper's figure says 1 with hindsight for all n here, and from n = 20 on 0 without."""
    if measured is None:
        return None
    final, note = measured["success"][:, -1], f"after {WARMUP + measured['env_steps'][-1]} steps; "
    if her != "none":
        about: dict[str, Any] = {"published": 1.0, "published_interval": (0.95, 1.0)}
        return success_row(f"n = {bits}, DQN + HER", final, note, **about).judged()
    if bits < 20:  # far fewer steps than in the paper; see `long_row`
        return success_row(f"n = {bits}, DQN", final, note)
    return success_row(f"n = {bits}, DQN", final, note, published=0.0, published_interval=(0.0, 0.05)).judged("lower")


def long_row(bits: int, measured: Measured | None) -> Row | None:
    """DQN alone; the paper's text says that it solves n up to 13."""
    if measured is None:
        return None
    note = f"after {WARMUP + measured['env_steps'][-1]} steps; "
    row = success_row(f"n = {bits}, DQN, as long as in the paper", measured["success"][:, -1], note)
    if bits > 13:
        return row  # between what the text says and what the figure shows
    row.published, row.published_interval = 1.0, (0.9, 1.0)
    return row.judged()


def run_row(bits: int, label: str, measured: Measured | None) -> Row | None:
    if measured is None:
        return None
    return success_row(f"n = {bits}, {label}, success over the whole run", measured["success"].mean(axis=1))


def draw(found: Found) -> dict[str, Any]:
    """Success against n, medians and quartiles; learning curves of strategies and of k at one n."""
    import matplotlib.pyplot as plt

    bits = strategy_bits(found)
    figure, (axes,) = subplots(1, 3, figsize=(12.6, 4.4), width_ratios=(1.25, 1, 1))
    long = {n: found[part(n, "none", long=True)] for n in LONG_BITS if part(n, "none", long=True) in found}
    for her, label in (("future", "DQN + HER"), ("none", "DQN")):
        there = {n: found[part(n, her)] for n in BITS if part(n, her) in found}
        low, middle, high = quartiles(there)
        axes[0].fill_between([*there], low, high, color=COLOURS[label], alpha=0.25, lw=0)
        axes[0].plot([*there], middle, "o-", color=COLOURS[label], label=label)
    if long:
        low, middle, high = quartiles(long)
        look: dict[str, Any] = {"fmt": "s--", "color": COLOURS["DQN"], "mfc": "white", "capsize": 3}
        axes[0].errorbar(
            [*long], middle, [middle - low, high - middle], label=f"DQN, {LONG_EPISODES:,} episodes", **look
        )
    axes[0].axvline(13, color="0.7", ls=":", lw=1)
    axes[0].annotate("paper: DQN alone\nsolves n ≤ 13", (13.4, 0.42), color="0.4", fontsize=8.5)
    axes[0].set(xlabel="number of bits n", ylabel="success", ylim=(-0.03, 1.05), title="the same steps for each n")
    axes[0].legend(loc="center right")
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.88, 5))
    strategies = {"no hindsight" if her == "none" else her: part(bits, her) for her in STRATEGIES}
    for ax, names, title in (
        (axes[1], strategies, f"n = {bits}, k = 4: strategy"),
        (axes[2], {f"{k}": part(bits, "future", k) for k in GOALS}, f"n = {bits}, future: k"),
    ):
        for (label, name), shade in zip(names.items(), shades):
            if measured := found.get(name):
                x = (WARMUP + measured["env_steps"]) / 1000
                low, middle, high = np.quantile(measured["success"], [0.25, 0.5, 0.75], axis=0)
                ax.fill_between(x, low, high, color=shade, alpha=0.15, lw=0)
                ax.plot(x, middle, color=shade, label=label)
        ax.set(xlabel="thousand steps", ylim=(-0.03, 1.05), title=title)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17), "ncols": 5}
        ax.legend(**below, fontsize=8.5, columnspacing=0.9, handlelength=1.2, handletextpad=0.4)
    figure.suptitle("bit flipping, medians and quartiles over seeds", fontsize=10, color="0.3")
    return {"": figure}


def quartiles(measured: dict[int, Measured]) -> np.ndarray:
    """Quartiles and median of success in the end, [3, parts]."""
    return np.quantile(np.array([x["success"][:, -1] for x in measured.values()]), [0.25, 0.5, 0.75], axis=1)


FIGURE = Figure(
    name="her_bit_flipping",
    paper="Andrychowicz et al., Hindsight Experience Replay, NeurIPS 2017",
    shows="figure 1 (bit flipping: success against n), and the strategies and k of section 4.5 on bit flipping",
    parts=parts,
    rows=rows,
    draw=draw,
)
