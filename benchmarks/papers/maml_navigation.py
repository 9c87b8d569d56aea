"""MAML on 2-D navigation: Finn, Abbeel & Levine (ICML 2017), table 4 and the authors' result files.

Return on the paper's 40 test goals after 0 to 3 gradient steps: MAML, the policy pre-trained on all tasks, and the
random initialisation. Each gradient step at test time sees 40 environments × 100 steps, as in the authors' code.

Three things are reported for each: the mean over one episode per environment with our test-time step sizes (.5, then
.175), the same with the paper's (.5, then .25), and with the paper's sizes also the mean as the authors' sampler takes
it, over all episodes that fit the budget, which counts short episodes more often. For the pre-trained policy, whose
standard deviation is small and its gradient therefore large, the step size is also tuned, on fresh goals.

Verdicts compare with the published interval over the 40 tasks of one trained model; ours is over seeds.
"""

from functools import partial
from typing import Any

import numpy as np

from jaxrl_hier import Run
from jaxrl_hier.meta import maml
from jaxrl_hier.reports.records import mean_over

from ..drawing import colour, legend_below, published, subplots, with_intervals
from ..figure import Figure, Found, Scale, Training, evaluated
from ..results import Row

ALL: dict[str, Any] = {"fisher_episodes": None}  # environments, where the preset has 4 of 20
STEP_SIZES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
FIRST = 0.5  # step size of the first step at test time
OURS, PAPERS = maml.Config().eval_inner_rate_decay, 0.5
PUBLISHED = {
    "MAML": maml.published(maml.Config(), "navigation2d"),
    "pre-trained": maml.published(maml.Config(inner_steps=0), "navigation2d"),
    "random initialisation": maml.Published(
        "random initialisation, published", (-82.66, -57.96, -53.84, -46.81), (None,) * 4
    ),
}


def parts(scale: Scale) -> dict[str, Training]:
    small = {"meta_batch_size": 4, "episodes_per_task": 4, "eval_episodes": 4} if scale == "smoke" else {}
    iterations = 2 if scale == "smoke" else 100
    rates = STEP_SIZES[-1:] if scale == "smoke" else STEP_SIZES
    tuned = partial(adapted_and_tuned, rates=rates)
    about: dict[str, Any] = {"env": "navigation2d", "curves": ()}
    found = {
        "MAML": Training("maml", small, iterations, measure=adapted, **about),
        "pre-trained": Training("maml", small | ALL | {"inner_steps": 0}, iterations, measure=tuned, **about),
        # the authors' script leaves the activation of this policy at its default, tanh
        "random initialisation": Training("maml", small | ALL | {"activation": "tanh"}, 0, measure=adapted, **about),
    }
    return {"pre-trained": found["pre-trained"]} if scale == "smoke" else found  # it takes the most measurements


def adapted(run: Run) -> dict[str, np.ndarray]:
    """Mean return after each gradient step, [seeds, steps + 1], with our test-time step sizes and the paper's."""
    ours, papers = (evaluated(run, eval_inner_rate_decay=decay) for decay in (OURS, PAPERS))
    return {
        "ours": mean_over(ours["return"]),
        "paper's": mean_over(papers["return"]),
        "authors' average": mean_over(papers["return_completed"]),
    }


def adapted_and_tuned(run: Run, rates: tuple[float, ...]) -> dict[str, np.ndarray]:
    """And with that of the step sizes that has the best mean return after 1 to 3 steps, over all seeds, on goals that
    are neither trained nor tested on."""
    fresh = run.tasks._replace(test=None)
    score = lambda rate: mean_over(evaluated(run, tasks=fresh, inner_learning_rate=rate)["return"])[:, 1:].mean()
    best = max(rates, key=score)
    tuned = mean_over(evaluated(run, inner_learning_rate=best)["return"])
    return adapted(run) | {"tuned": tuned, "step size": np.full(len(tuned), best)}


def rows(found: Found) -> list[Row]:
    """A row for each number of gradient steps."""
    made = []
    for name, measured in found.items():
        labels = {
            "ours": f"α = .5 then {FIRST * OURS:.3g}",
            "paper's": f"α = .5 then {FIRST * PAPERS:.3g}",
            "authors' average": "α = .5 then .25, authors' average",
        }
        if "tuned" in measured:
            best = float(measured["step size"][0])
            labels = {"tuned": f"α tuned to {best:g} then {best * OURS:.3g}"} | labels
        for array, label in labels.items():
            made += [step_row(f"{name}, {label}", k, values, name) for k, values in enumerate(measured[array].T)]
    return made


def step_row(label: str, k: int, values: np.ndarray, name: str) -> Row:
    published = PUBLISHED[name]
    assert published is not None
    value, half = published.values[k], published.half_widths[k]
    theirs = None if half is None else (value - half, value + half)
    label = f"{label}: {k} gradient step{'' if k == 1 else 's'}"
    return Row.measured(label, values, published=value, published_interval=theirs).judged()


CURVES = {"MAML": "ours", "pre-trained": "tuned", "random initialisation": "ours"}


def draw(found: Found) -> dict[str, Any]:
    """Return on the test goals after each gradient step: ours solid with its interval over seeds, published dashed. On
    the right the two that were trained, after adaptation."""
    figure, (axes,) = subplots(1, 2, width=5.4, height=4.6)
    lowest = 0.0
    for name, measured in found.items():
        chosen = [step_row(name, k, x, name) for k, x in enumerate(measured[CURVES[name]].T)]
        steps = np.arange(len(chosen))
        label = f"{name}, ours" + (", α tuned" if CURVES[name] == "tuned" else "")
        lowest = min([lowest, *(row.ours for row in chosen), *(row.published or 0 for row in chosen)])
        for ax, begin in zip(axes, (0, 1)):
            if begin and name == "random initialisation":
                continue
            color = colour(name)
            with_intervals(ax, steps[begin:] - 0.03, chosen[begin:], color, label)
            published(ax, steps[begin:] + 0.03, chosen[begin:], color, f"{name}, published")
    for ax in axes:
        ax.set(xticks=range(4), xlabel="gradient steps on the new task", ylabel="mean return of an episode")
    axes[0].set(title="2-D navigation, the 40 test goals", ylim=(1.08 * lowest, 2))
    axes[1].set(title="after adaptation, closer", xticks=range(1, 4), xlim=(0.8, 3.2))
    legend_below(figure, axes[0])
    return {"": figure}


FIGURE = Figure(
    name="maml_navigation",
    paper="Finn, Abbeel & Levine, Model-Agnostic Meta-Learning, ICML 2017",
    shows="table 4 (2-D navigation) and the authors' result files",
    parts=parts,
    rows=rows,
    draw=draw,
)
