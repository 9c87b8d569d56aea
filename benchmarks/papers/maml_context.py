"""The comparisons of MAML's table 4 on 2-D navigation (Finn, Abbeel & Levine, ICML 2017): a context vector and the
oracle.

Context vector (after Rei, 2015; CAVIA, Zintgraf et al., 2019): five numbers beside the observations adapt by MAML's
inner step, and nothing else does. The policy, and where the numbers begin, are learned by the outer step. The paper
does not say how many there were. Return on its 40 test goals after 0 to 3 gradient steps, each of which sees 40
environments × 100 steps, with the step sizes of `maml_navigation`.

Oracle: a policy that observes the goal beside the position, trained on all tasks by the same TRPO, without adaptation.

Verdicts compare with the published number, of one trained model; ours are over seeds. MAML itself, the policy that was
pre-trained and the random initialisation are `maml_navigation`'s.
"""

from typing import Any

import numpy as np

from jaxrl_envs.navigation2d import NavigationOracle, navigation_tasks
from jaxrl_hier.meta import maml

from ..drawing import BLACK, BLUE, PURPLE, published, subplots, with_intervals
from ..figure import Figure, Found, Scale, Training
from ..results import Row

CONTEXT: dict[str, Any] = {"context_parameters": 5, "fisher_episodes": None}
FIRST, DECAY = 0.5, 0.35  # the first step's size at test time, and the factor on it in later steps
RATE: dict[str, Any] = {"inner_learning_rate": FIRST, "eval_inner_rate_decay": DECAY}
ORACLE: dict[str, Any] = {"inner_steps": 0, "eval_inner_steps": 0, "fisher_episodes": None}
PUBLISHED = maml.published(maml.Config(**CONTEXT), "navigation2d")
PUBLISHED_MAML = maml.published(maml.Config(), "navigation2d")
PUBLISHED_ORACLE = (-2.29, 0.14)  # and half its interval over the 40 tasks, from the authors' result files
STEPS = 3


def parts(scale: Scale) -> dict[str, Training]:
    small = {"meta_batch_size": 4, "episodes_per_task": 4, "eval_episodes": 4} if scale == "smoke" else {}
    iterations = 2 if scale == "smoke" else 100
    about: dict[str, Any] = {"points": 1 if scale == "smoke" else 10, "curves": ("return",)}
    oracle = about | {"env": NavigationOracle(), "tasks": navigation_tasks()}
    return {
        "context vector": Training("maml", small | CONTEXT | RATE, iterations, "navigation2d", **about),
        "oracle": Training("maml", small | ORACLE, iterations, **oracle),
    }


def rows(found: Found) -> list[Row]:
    made = []
    if "context vector" in found:
        made += [context_row(k, values) for k, values in enumerate(found["context vector"]["return"][:, -1].T)]
    if "oracle" in found:
        made.append(oracle_row(found["oracle"]["return"][:, -1, 0]))
    return made


def context_row(k: int, values: np.ndarray) -> Row:
    assert PUBLISHED is not None
    label = f"context vector, α = {FIRST:g} then {FIRST * DECAY:.3g}: {k} gradient step{'' if k == 1 else 's'}"
    return Row.measured(label, values, published=PUBLISHED.values[k]).judged()


def oracle_row(values: np.ndarray) -> Row:
    value, half = PUBLISHED_ORACLE
    return Row.measured(
        "oracle, no adaptation", values, published=value, published_interval=(value - half, value + half)
    ).judged()


def draw(found: Found) -> dict[str, Any]:
    """Return on the test goals after each gradient step, ours solid with its interval over seeds, published dashed; and
    after the last step while meta-training."""
    figure, (axes,) = subplots(1, 2, width=5.4)
    steps = np.arange(STEPS + 1)
    if "context vector" in found:
        measured = found["context vector"]
        made = [context_row(k, x) for k, x in enumerate(measured["return"][:, -1].T)]
        with_intervals(axes[0], steps[: len(made)], made, PURPLE, "context vector, ours")
        published(axes[0], steps[: len(made)], made, PURPLE, "context vector, published")
        for k in range(measured["return"].shape[2]):
            curve = measured["return"][..., k].mean(axis=0)
            label = "before adaptation" if k == 0 else f"after {k} step{'s' * (k > 1)}"
            axes[1].plot(measured["env_steps"] / 1e6, curve, color=PURPLE, alpha=0.3 + 0.7 * k / STEPS, label=label)
    assert PUBLISHED_MAML is not None
    axes[0].plot(steps, PUBLISHED_MAML.values, "s--", color=BLUE, ms=4, lw=1, alpha=0.85, label="MAML, published")
    if "oracle" in found:
        row = oracle_row(found["oracle"]["return"][:, -1, 0])
        axes[0].axhline(row.ours, color=BLACK, lw=1, label="oracle, ours")
        axes[0].axhline(PUBLISHED_ORACLE[0], color=BLACK, lw=1, ls="--", label="oracle, published")
    axes[0].set(xticks=steps, xlabel="gradient steps on the new task", ylabel="mean return of an episode")
    axes[1].set(xlabel="million steps of meta-training", ylabel="mean return of an episode")
    titles, places = ("2-D navigation, the 40 test goals", "while meta-training"), ("lower right", "center right")
    for ax, title, place in zip(axes, titles, places):
        ax.set(title=title)
        ax.legend(loc=place)
    return {"": figure}


FIGURE = Figure(
    name="maml_context",
    paper="Finn, Abbeel & Levine, Model-Agnostic Meta-Learning, ICML 2017",
    shows="table 4, context vector and oracle on 2-D navigation",
    parts=parts,
    rows=rows,
    draw=draw,
)
