"""Option-critic with a network, on four rooms and on three of gymnax's environments, with one set of settings.

Bacon, Harb & Precup (2017) and Harb et al. (2018) print results for Atari only, which is not run here. The comparisons
are others: in four rooms with the fewest expected steps, computed exactly; on CartPole and Acrobot with the returns at
which Gym's registry calls them solved, 475 and −100 (from memory). MinAtar's Breakout has no target. Evaluations play
64 episodes per seed: best option, most probable action, terminations drawn.

Beside the four options of the defaults: one option, which is an advantage actor-critic; Acrobot without the scale of
the value head; and four rooms with other deliberation costs ξ. How the options are used, collapse included, stands in
the rows and in the pictures.
"""

from functools import cache
from typing import Any

import jax
import numpy as np

import jaxrl_envs
from jaxrl_hier.exact import tabular
from jaxrl_hier.hierarchical.option_critic import Config
from jaxrl_hier.reports.statistics import FRACTION, Bounds

from ..drawing import BLUE, GREY, VERMILION, curve, shades, subplots
from ..figure import Figure, Found, Measured, Scale, Training
from ..results import Row

ROOMS = "four-rooms-option-critic"
ITERATIONS = {ROOMS: 2_000, "CartPole-v1": 4_000, "Acrobot-v1": 2_000, "Breakout-MinAtar": 4_000}
BOUNDS: dict[str, Bounds] = {"CartPole-v1": (0.0, 500.0)}  # most seeds end at the highest return
SOLVED = {"CartPole-v1": 475.0, "Acrobot-v1": -100.0}
TITLES = {ROOMS: "four rooms", "CartPole-v1": "CartPole", "Acrobot-v1": "Acrobot", "Breakout-MinAtar": "Breakout"}
COSTS = (0.0, 0.01, 0.03, 0.1, 0.3)  # ξ
POINTS = 40  # logged rows of a run
OPTIONS = 4
USAGE = {
    "option_length": "steps per choice of an option",
    "option_run": "steps until another option acts",
    "termination": "mean β",
    "termination_entropy": "entropy of β, nats",
}


def parts(scale: Scale) -> dict[str, Training]:
    about: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in ITERATIONS:
        about |= {f"{name}, 4 options": (name, {}), f"{name}, 1 option": (name, {"num_options": 1})}
    about["Acrobot-v1, 4 options, value_scale = 1"] = ("Acrobot-v1", {"value_scale": 1.0})
    about |= {part_of(cost): (ROOMS, {"deliberation_cost": cost}) for cost in COSTS}
    if scale == "smoke":
        about = {f"{ROOMS}, 4 options": about[f"{ROOMS}, 4 options"]}
    return {label: training(name, settings, scale) for label, (name, settings) in about.items()}


def part_of(cost: float) -> str:
    """The part with this deliberation cost in four rooms; that of the defaults is one of them."""
    return f"{ROOMS}, 4 options" + ("" if cost == Config().deliberation_cost else f", ξ = {cost:g}")


def training(name: str, settings: dict[str, Any], scale: Scale) -> Training:
    logged = ["return", "episode_length"]
    if settings.get("num_options") != 1:
        logged += [*USAGE, *(f"option_usage_{o}" for o in range(OPTIONS))]
    iterations = POINTS if scale == "smoke" else ITERATIONS[name]
    measured, every = "length" if name == ROOMS else "return", iterations // POINTS
    return Training("option-critic", settings, iterations, name, curves=(measured,), logged=(*logged,), log_every=every)


def rows(found: Found) -> list[Row]:
    made = []
    for label, measured in found.items():
        name, _, variant = label.partition(", ")
        if "ξ" not in variant:
            made.append(performance(name, label, measured))
            made += usage_rows(label, measured) if variant == "4 options" else []
    for cost, measured in by_cost(found).items():
        label = f"{ROOMS}, 4 options, ξ = {cost:g}"
        made += [performance(ROOMS, label, measured), *usage_rows(label, measured)]
    return made


def by_cost(found: Found) -> dict[float, Measured]:
    return {cost: found[part_of(cost)] for cost in COSTS if part_of(cost) in found}


def performance(name: str, label: str, measured: Measured) -> Row:
    """Of the greedy policy after training; steps to the goal in four rooms, elsewhere the return."""
    what, text = ("length", "steps") if name == ROOMS else ("return", "return")
    row = Row.measured(f"{label}: {text}", measured[what][:, -1], bounds=BOUNDS.get(name))
    million = measured["env_steps"][-1] / 1e6
    row.note = f"{million:.2f} million steps per seed, {measured.seconds:.0f} s for all seeds"
    if name == ROOMS:
        row.exact = fewest_steps()
        return row.judged("lower")
    row.published = SOLVED.get(name)
    return row.judged()


def usage_rows(label: str, measured: Measured) -> list[Row]:
    """How the options were used in the last tenth of training."""
    late = slice(-POINTS // 10, None)
    made = [
        Row.measured(f"{label}: {text}", logged(measured, name)[:, late].mean(axis=1)) for name, text in USAGE.items()
    ]
    shares = np.sort(usage(measured)[:, late].mean(axis=1), axis=1)[:, ::-1]  # [seeds, O]
    text = f"{label}: share of the most used option"
    row = Row.measured(text, shares[:, 0], statistic="mean inside", bounds=FRACTION)
    row.note = "; ".join(" ".join(f"{x:.2f}" for x in seed) for seed in shares)
    return [*made, row]


@cache
def fewest_steps() -> float:
    """Expected steps to the goal of the best policy, from a uniform start."""
    env, tasks = jaxrl_envs.make(ROOMS)
    task = tasks.sample(jax.random.key(0))
    steps = np.asarray(tabular.minimal_expected_steps(env.model(task)[0]))
    return float(np.delete(steps, int(task.goal)).mean())


def logged(measured: Measured, name: str) -> np.ndarray:
    """A metric over training, [seeds, rows]; a row without any event repeats the one before."""
    values = measured[f"logged {name}"].copy()
    for i in range(1, values.shape[1]):
        values[:, i] = np.where(np.isnan(values[:, i]), values[:, i - 1], values[:, i])
    return values


def usage(measured: Measured) -> np.ndarray:
    """Shares of the options over training, [seeds, rows, O]."""
    return np.stack([logged(measured, f"option_usage_{o}") for o in range(OPTIONS)], axis=2)


# Pictures


def draw(found: Found) -> dict[str, Any]:
    names = [name for name in ITERATIONS if f"{name}, 4 options" in found]
    pictures = {"": learning_figure(found, names)} if names else {}
    return pictures | ({"cost": cost_figure(costs)} if (costs := by_cost(found)) else {})


def learning_figure(found: Found, names: list[str]) -> Any:
    """A column per environment: learning curves; shares of the options; how they terminate. 95 % over seeds."""
    figure, axes = subplots(3, len(names), 3.3, 2.75, sharex="col")
    for column, name in zip(axes.T, names):
        above, middle, below = column
        four, one = found[f"{name}, 4 options"], found.get(f"{name}, 1 option")
        x, what = four["logged env_steps"] / 1e6, "episode_length" if name == ROOMS else "return"
        if one:
            curve(above, x, logged(one, what), "1 option", color=GREY)
        curve(above, x, logged(four, what), "4 options", color=BLUE)
        target, text = (fewest_steps(), "fewest possible") if name == ROOMS else (SOLVED.get(name), "counts as solved")
        if target is not None:
            above.axhline(target, color="0.2", ls="--", lw=1, label=text)
        if name == ROOMS:
            above.set_yscale("log")
            above.yaxis.set_major_formatter("{x:g}")
        above.legend(loc="upper right" if name == ROOMS else "lower right", fontsize=8)
        above.set(title=TITLES[name], ylabel="steps of an episode" if name == ROOMS else "return")
        shares = np.sort(usage(four), axis=2)[:, :, ::-1].mean(axis=0)
        middle.stackplot(x, shares.T, colors=shades(OPTIONS), lw=0)
        middle.set(ylim=(0, 1), xlim=(0, x[-1]))
        curve(below, x, logged(four, "termination"), "mean β", color=VERMILION)
        curve(below, x, logged(four, "termination_entropy") / np.log(2), "entropy of β, bits", color=BLUE)
        curve(below, x, 1 / logged(four, "option_run"), "1 / steps until another option", color=GREY)
        below.set(ylim=(0, 1.02), xlabel="million steps")
    axes[1, 0].set_ylabel("share of steps, most used first")
    axes[2, 0].set_ylabel("how options end")
    axes[2, 0].legend(loc="upper right", fontsize=8)
    return figure


def cost_figure(costs: dict[float, Measured]) -> Any:
    """Four rooms over training for each deliberation cost: steps to the goal, and steps per choice of an option."""
    figure, ((left, right),) = subplots(1, 2, figsize=(10, 4))
    for color, (cost, measured) in zip(shades(len(costs)), costs.items()):
        for ax, name in ((left, "episode_length"), (right, "option_length")):
            curve(ax, measured["logged env_steps"] / 1e6, logged(measured, name), f"ξ = {cost:g}", color=color)
    left.axhline(fewest_steps(), color="0.2", ls="--", lw=1, label="fewest possible")
    left.set(yscale="log", xlabel="million steps", ylabel="steps of an episode", title="four rooms, 4 options")
    right.set(yscale="log", xlabel="million steps", ylabel="steps per choice of an option")
    right.set_title("what a deliberation cost does to the options")
    for ax in (left, right):
        ax.yaxis.set_major_formatter("{x:g}")
    left.legend(loc="upper right")
    return figure


FIGURE = Figure(
    name="option_critic_network",
    paper="Bacon, Harb & Precup, The Option-Critic Architecture, AAAI 2017; Harb et al., AAAI 2018",
    shows="none: function approximation on environments that a CPU can run",
    parts=parts,
    rows=rows,
    draw=draw,
)
