"""Gradient-based meta-RL on 2-D navigation: what each switch of `jaxrl_hier.meta.maml` buys, at one budget.

Return on the paper's 40 test goals after 0 to 3 gradient steps, and seconds and memory of an outer step. Every variant
sees the same environment steps: 100 iterations of 10 tasks × 2 batches × 10 environments × 100 steps, a quarter of the
paper's (`--scale gpu` has the paper's batches); one with more adaptation steps has fewer environments to each, the
pre-trained policy twice as many in its one batch. An outer step is timed at the paper's size, 20 tasks × 2 batches × 20
environments.

The inner rate α = .5, the network and everything not named in a label are those of MAML's experiment. Adam's learning
rate was chosen from .001, .003 and .01 by the return of MAML with Adam after one step on fresh goals (two seeds that
are not among those reported), and is the same for every variant with Adam or PPO; Reptile, whose "gradient" has another
scale, was tuned by itself over .003 and .01. At test time α of every variant but Meta-SGD, whose rates are learned, is
the best of .05, .1, .2 and .5 on fresh goals, and falls to 35 % after the first step.

The last rows are about a claim that is often repeated, that leaving second derivatives out makes MAML ten times as fast
and costs less than 5 %. The cost is the share of MAML's gain, from 0 to k gradient steps, that the first-order variant
misses: not everywhere nothing, with TRPO outside it loses 2 to 3 % after two and three steps.
"""

import dataclasses
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

import jaxrl_envs
from jaxrl_hier import Run
from jaxrl_hier.meta import maml
from jaxrl_hier.reports.records import mean_over

from ..drawing import GREEN, ORANGE, PURPLE, YELLOW, colour, curve, subplots, with_intervals
from ..figure import Computation, Figure, Found, Measured, Scale, Training, evaluated
from ..results import Row

ADAM: dict[str, Any] = {"outer": "adam", "outer_learning_rate": 3e-3}
PPO: dict[str, Any] = {"outer": "ppo", "outer_learning_rate": 3e-3}
VARIANTS: dict[str, dict[str, Any]] = {
    "MAML": ADAM,
    "FOMAML": ADAM | {"first_order": True},
    "Reptile": ADAM | {"reptile": True},
    "pre-trained": ADAM | {"inner_steps": 0},
    "LVC": ADAM | {"estimator": "lvc"},
    "DiCE": ADAM | {"estimator": "dice"},
    "loaded DiCE": ADAM | {"estimator": "loaded-dice"},
    "ANIL": ADAM | {"head_only": True},
    "Meta-SGD": ADAM | {"learn_inner_rates": True},
    "E-MAML": ADAM | {"credit_exploration": True},
    "MAML, K = 3": ADAM | {"inner_steps": 3},
    "MAML, PPO": PPO,
    "ProMP": PPO | {"estimator": "lvc", "kl_weight": 5e-4},
    "MAML, TRPO": {"fisher_episodes": None},
    "FOMAML, TRPO": {"fisher_episodes": None, "first_order": True},
}
PANELS = {
    "first order": ("MAML", "FOMAML", "Reptile", "pre-trained"),
    "estimator of the inner Hessian": ("MAML", "LVC", "DiCE", "loaded DiCE"),
    "what adapts, and how often": ("MAML", "ANIL", "Meta-SGD", "E-MAML", "MAML, K = 3"),
    "outer optimiser": ("MAML", "MAML, PPO", "ProMP", "MAML, TRPO", "FOMAML, TRPO"),
}
# of variants of a method; a panel has no colour twice, and each line of the picture has its own marker
OTHER_COLOURS = {"MAML, K = 3": YELLOW, "MAML, PPO": PURPLE, "MAML, TRPO": GREEN, "FOMAML, TRPO": ORANGE}
MARKERS = dict(zip(VARIANTS, "os^Dvph*XP<>d8H"))
CLAIM = {"Adam": ("MAML", "FOMAML"), "TRPO": ("MAML, TRPO", "FOMAML, TRPO")}
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"meta_batch_size": 4, "episodes_per_task": 4, "horizon": 20, "eval_episodes": 4, "eval_tasks": 4},
    "cpu": {"meta_batch_size": 10, "episodes_per_task": 10},
    "gpu": {},
}
STEP_SIZES = (0.05, 0.1, 0.2, 0.5)


def parts(scale: Scale) -> dict[str, Any]:
    smoke = scale == "smoke"
    labels = ("FOMAML",) if smoke else tuple(VARIANTS)
    iterations, points, rates = (2, 1, STEP_SIZES[-1:]) if smoke else (100, 10, STEP_SIZES)
    about: dict[str, Any] = {"env": "navigation2d", "points": points, "curves": (), "logged": ("return",)}
    train = partial(Training, "maml", iterations=iterations, log_every=1, measure=partial(tuned, rates=rates), **about)
    found: dict[str, Any] = {label: train(settings=configuration(label, scale)) for label in labels}
    timed = {"labels": labels, "scale": "smoke" if smoke else "gpu", "repeats": 2 if smoke else 7}
    return found | {"outer steps": Computation(outer_steps, timed, seeds=0)}


def configuration(label: str, scale: str) -> dict[str, Any]:
    """The settings of a variant: as many environment steps as with one adaptation step."""
    settings = SIZES[scale] | VARIANTS[label]
    config = maml.Config(**settings)
    return settings | {"episodes_per_task": 2 * config.episodes_per_task // (config.inner_steps + 1)}


def tuned(run: Run, rates: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Return on the test goals after each gradient step, [seeds, steps + 1], with that of the step sizes α that has the
    best mean return after 1 to 3 steps, over all seeds, on goals that are neither trained nor tested on."""
    best, settings = np.nan, {}
    if not run.config.learn_inner_rates:
        fresh = {"tasks": run.tasks._replace(test=None), "eval_tasks": 20}
        fresh |= {"eval_episodes": min(20, run.config.eval_episodes)}
        score = lambda rate: mean_over(evaluated(run, inner_learning_rate=rate, **fresh)["return"])[:, 1:].mean()
        best = max(rates, key=score) if len(rates) > 1 else rates[0]
        settings = {"inner_learning_rate": best}
    returns = mean_over(evaluated(run, **settings)["return"])
    return {"tested": returns, "step size": np.full(len(returns), best)}


def outer_steps(labels: tuple[str, ...], scale: str, repeats: int) -> dict[str, np.ndarray]:
    """For each variant the median seconds of an iteration of one seed, rollouts included, and MiB of temporary memory
    of the compiled program. The variants take turns."""
    steps, states, seconds = [], [], np.empty((repeats, len(labels)))
    begun = time.perf_counter()
    for label in labels:
        algorithm = maml.make(maml.Config(**configuration(label, scale)), *jaxrl_envs.make("navigation2d"))
        states.append(jax.jit(algorithm.init)(jax.random.key(0)))
        steps.append(jax.jit(algorithm.step).lower(states[-1]).compile())
    compiled = time.perf_counter() - begun
    for i in range(repeats):
        for j, step in enumerate(steps):
            begun = time.perf_counter()
            states[j] = jax.block_until_ready(step(states[j])[0])
            seconds[i, j] = time.perf_counter() - begun
    found = {"compile_seconds": np.array(compiled)}
    for label, step, taken in zip(labels, steps, seconds.T):
        found[f"{label}: seconds"] = np.array(np.median(taken[1:]))
        memory = step.memory_analysis()
        assert memory is not None
        found[f"{label}: MiB"] = np.array(memory.temp_size_in_bytes / 2**20)
    return found


# Rows


def rows(found: Found) -> list[Row]:
    made = [row for label in VARIANTS if label in found for row in test_rows(label, found[label])]
    costs = outer_costs(found)
    for outer, (second, first) in CLAIM.items():
        if {first, second} <= costs.keys():
            made.append(speed_row(outer, costs[second]["seconds"] / costs[first]["seconds"]))
        if {first, second} <= found.keys():
            made += [shortfall(outer, found[second], found[first], k) for k in (1, 2, 3)]
    return made


def test_rows(label: str, measured: Measured) -> list[Row]:
    """A row for each number of gradient steps; a published value where the settings are the published ones."""
    sizes, default = measured.about["identity"]["settings"], dataclasses.asdict(maml.Config())
    same = all(sizes[name] == default[name] for name in SIZES["cpu"])
    published = maml.published(maml.Config(), "navigation2d") if label == "MAML, TRPO" and same else None
    made = []
    for k, values in enumerate(measured["tested"].T):
        row = Row.measured(f"{label}: {k} gradient step{'' if k == 1 else 's'}", values)
        row.note = f"test α {measured['step size'][0]:g}"
        if published:
            value, half = published.values[k], published.half_widths[k]
            row.published = value
            row.published_interval = None if half is None else (value - half, value + half)
        made.append(row.judged())
    return made


def outer_costs(found: Found) -> dict[str, dict[str, float]]:
    """Seconds and MiB of an outer step, by variant."""
    measured: Mapping[str, np.ndarray] = found.get("outer steps", {})
    timed = [label for label in VARIANTS if f"{label}: MiB" in measured]
    return {label: {unit: float(measured[f"{label}: {unit}"]) for unit in ("seconds", "MiB")} for label in timed}


def speed_row(outer: str, times: float) -> Row:
    note = "seconds of an outer step, second over first order; one process, medians"
    row = Row.computed(f"FOMAML against MAML, {outer}: times as fast", times, published=10.0, note=note)
    row.seeds, row.unit, row.method = 1, "process", "no interval: medians of one process"
    return row.judged()


def shortfall(outer: str, second: Measured, first: Measured, k: int) -> Row:
    """The share of second-order MAML's gain in k steps that first order misses; the claim is: less than 5 %."""
    gain = lambda measured: measured["tested"][:, k] - measured["tested"][:, 0]
    label = f"FOMAML against MAML, {outer}: share of the gain in {k} steps that is missed"
    row = Row.measured(label, gain(first), gain(second), statistic="shortfall", published=0.05)
    row.note = "gain: mean return after k steps less that after none; negative: first order gains more"
    return row.judged("lower")


# Picture


def draw(found: Found) -> dict[str, Any]:
    """Above, return after adaptation in training; below, on the test goals after each gradient step. Bands and bars:
    95 % over seeds."""
    figure, axes = subplots(2, len(PANELS), width=3.9, height=3.6, sharey="row")
    for (above, below), (title, labels) in zip(axes.T, PANELS.items()):
        for i, label in enumerate(labels):
            if label not in found:
                continue
            color = OTHER_COLOURS.get(label) or colour(label)
            trained, chosen = found[label]["logged return"], test_rows(label, found[label])
            curve(above, np.arange(1, trained.shape[1] + 1), trained, label, lw=1.5, color=color)
            steps = np.arange(len(chosen)) + 0.05 * (i - len(labels) / 2)
            with_intervals(below, steps, chosen, color, label, fmt=f"{MARKERS[label]}-", ms=5, lw=1.5, capsize=3)
        above.set(title=title, xlabel="iteration")
        below.set(xlabel="gradient steps on a test goal", xticks=range(4))
        if below.get_legend_handles_labels()[0]:
            below.legend(loc="lower right", fontsize=9)
    axes[0, 0].set_ylabel("return after adaptation, training goals")
    axes[1, 0].set_ylabel("mean return, the 40 test goals")
    return {"": figure}


FIGURE = Figure(
    name="meta_navigation",
    paper="Finn et al., 2017; Nichol et al., 2018; Raghu et al., 2020; Li et al., 2017; Stadie et al., 2018; Foerster "
    "et al., 2018; Farquhar et al., 2019; Rothfuss et al., 2019",
    shows="2-D navigation, every variant at one budget; a claim about first-order MAML",
    parts=parts,
    rows=rows,
    draw=draw,
    about=lambda found: {"outer_steps": outer_costs(found)},
)
