"""The task of two colours, which a public question reports that a recurrent PPO does not learn in 10⁸ steps
(Stable-Baselines3-contrib, issue 211): 100 steps, one of two colours pays, new colours in every episode.

Who remembers which colour pays earns 99.5 of 100 in the mean, since the first step is a guess; who sees the colours
alone earns 50, and a rule that knows the last reward besides 75 (`jaxrl_envs.two_colours`). Wanted are 95 % of 99.5
within five minutes on two cores, from each of ten seeds. `recurrent-ppo` sees its last action and reward, without which
the task cannot be solved. A reward depends on the last choice alone, so the discount factor is 0, which spares the
learner the noise of later rewards.

The settings were chosen on other seeds. Standardised inputs and a layer before the memory matter most: without them ten
seeds reached 89 in the mean after 12.8 million steps, and one of them stayed at 75 (this command at 9d35e40). With the
preset's own settings, a discount factor of 0.99 among them, the return of one seed was still 50 after 100 iterations.
"""

from typing import Any

import numpy as np

from jaxrl_hier.learning.optimization import linear_over

from ..drawing import legend_below, seeds_and_mean, subplots
from ..figure import Figure, Found, Scale, Training
from ..results import Row

OPTIMUM, ONE_BIT, COLOURS_ALONE = 99.5, 75.0, 50.0
WANTED = 0.95  # of the optimum
SETTINGS: dict[str, Any] = {
    "discount": 0.0,
    "gae_lambda": 0.0,
    "entropy_weight": 0.001,
    "normalize_observations": True,
    "encoder_hidden": (64,),
    "eval_tasks": 200,
}
ITERATIONS = 300
MEMORIES = {"GRU": "gru", "no memory": "none"}


def parts(scale: Scale) -> dict[str, Training]:
    found = {}
    for name, memory in MEMORIES.items():
        count, points = (4, 2) if scale == "smoke" else (ITERATIONS, 10)
        settings = SETTINGS | {"memory": memory} | linear_over(count)
        settings |= {"environments": 16, "minibatch_size": 8, "eval_tasks": 4} if scale == "smoke" else {}
        found[name] = Training("recurrent-ppo", settings, count, "two-colours", points=points, first_seed=200)
    return found


def rows(found: Found) -> list[Row]:
    made = []
    for name, measured in found.items():
        returns = measured["return"][:, -1, 0]  # of the one adaptation step
        row = Row.measured(f"{name}: return", returns, bounds=(0.0, 100.0))
        made.append(row)
        if name == "GRU":
            row.exact = OPTIMUM
            row.judged(f"above {WANTED * OPTIMUM:.4g}")
            least = Row.computed(f"{name}: least return of {len(returns)} seeds", float(np.min(returns)), exact=OPTIMUM)
            made.append(least.judged(f"at least {WANTED * OPTIMUM:.4g}"))
            minutes = measured.seconds / 60 / len(returns)
            made.append(Row.computed(f"{name}: minutes for a seed, all trained in one program", minutes))
    return made


def draw(found: Found) -> dict[str, Any]:
    """Return against steps: each seed, and their mean."""
    figure, ((ax,),) = subplots(width=6.4)
    for name, measured in found.items():
        x, values = measured["env_steps"] / 1e6, measured["return"][..., 0]
        seeds_and_mean(ax, x, values, "random" if name == "no memory" else "PPO", label=name)
    for level, line, label in (
        (OPTIMUM, "--", "who remembers"),
        (ONE_BIT, "-.", "a rule that knows the last reward"),
        (COLOURS_ALONE, ":", "who sees the colours alone"),
    ):
        ax.axhline(level, color="black", ls=line, lw=1, label=label)
    ax.set(xlabel="million steps", ylabel="return of 100 steps", title="two colours: recurrent PPO", ylim=(42, 102))
    legend_below(figure, ax, 2)
    return {"": figure}


FIGURE = Figure(
    name="two_colours",
    paper="none: a public question about recurrent PPO",
    shows="the task of two colours, learned by recurrent PPO",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=10,
)
