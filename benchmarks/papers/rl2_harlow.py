"""Harlow's task in symbols (Wang et al., Learning to reinforcement learn, 2016, section 3.2.2): which of two new
objects pays is a guess in the first trial of an episode, and known from the second on.

The agent is trained on pairs of 1000 objects and tested with frozen weights on pairs of 200 others, actions drawn: the
share of right choices in each of the ten trials. Exact: one half, then 1. Beside it pairs of the objects of training,
and the paper's network, an LSTM that sees the objects through one linear map.

The paper shows pictures, and reports the share of its 100 seeds that reach the ceiling, nine right choices of ten: 26 %
with one LSTM. Departures: objects are vectors (`jaxrl_envs.harlow`); but for the paper's network, standardised inputs
and a layer of ReLU before the LSTM, with which more seeds learned from half of the steps, on other seeds; a learning
rate and an entropy bonus that fall to zero.
"""

from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl_envs.harlow import LIMIT, TRIALS, Harlow, harlow_tasks
from jaxrl_envs.trial import Trial
from jaxrl_hier import Run
from jaxrl_hier.learning.optimization import linear_over
from jaxrl_hier.reports.statistics import FRACTION

from ..drawing import BLUE, ORANGE, legend_below, seeds_and_mean, subplots
from ..figure import Figure, Found, Scale, Training
from ..results import Row
from ._rl2 import WANG, WANG_SETTINGS, each_seed, fresh, recorder

ITERATIONS = 3000
LEARNERS: dict[str, dict[str, Any]] = {
    "RL²": {"encoder_hidden": (64,), "normalize_observations": True},
    "RL², the paper's network": {},
}
NEW, TRAINED = "new objects", "objects of training"
CEILING = 0.9  # of ten choices, as in the paper
LATER = f"share of right choices in trials 2 to {TRIALS}"


def parts(scale: Scale) -> dict[str, Training]:
    smoke = scale == "smoke"
    small = {"environments": 4, "memory_size": 8} if smoke else {}
    iterations = 2 if smoke else ITERATIONS
    found = {}
    for name, own in list(LEARNERS.items())[: 1 if smoke else None]:  # its twin runs by the same code
        settings = WANG_SETTINGS | {"entropy_decay_iterations": iterations * 9 // 10} | linear_over(iterations)
        found[name] = Training(
            "rl2",
            settings | {"episodes_per_trial": 1} | own | small,
            iterations,
            "harlow",
            points=2 if smoke else 15,
            measure=partial(tested, count=20 if smoke else 400),
        )
    return found


def tested(run: Run, count: int) -> dict[str, np.ndarray]:
    """Share of right choices in each trial, over the episodes that reach it, with new objects and with those of
    training, [seeds, TRIALS] each."""
    env = Trial(Harlow(), trial_number=True)
    play = recorder(env, run.algorithm.agent, LIMIT, lambda worlds: worlds.env_state.inner.trials)
    tasks = env.tasks_of(harlow_tasks())
    new = jax.tree.map(lambda x: x[:count], tasks.test)
    batches = {NEW: new, TRAINED: fresh(tasks, count)}
    return {
        name: np.stack([right_choices(*play(params, batch)) for params in each_seed(run)])
        for name, batch in batches.items()
    }


def right_choices(trials: np.ndarray, seen: Any) -> np.ndarray:
    """Share of right choices in each trial, [TRIALS]; NaN where no episode reaches it.

    Args:
        trials: choices made before each step, [steps, episodes].
        seen: the steps, one episode or more of each world; those after the first end do not count.
    """
    over = np.cumsum(seen.terminated, axis=0) - seen.terminated > 0
    choice = (np.abs(seen.reward) == 1) & ~over
    count = np.bincount(trials[choice], minlength=TRIALS)[:TRIALS]
    right = np.bincount(trials[choice], weights=seen.reward[choice] == 1, minlength=TRIALS)[:TRIALS]
    return np.divide(right, count, out=np.full(TRIALS, np.nan), where=count > 0)


def rows(found: Found) -> list[Row]:
    made = []
    for name, measured in found.items():
        for objects in (NEW, TRAINED):
            share = measured[objects]
            about: dict[str, Any] = {"statistic": "mean inside", "bounds": FRACTION}
            made.append(Row.measured(f"{name}, {objects}: share of right choices in trial 1", share[:, 0], exact=0.5))
            later = Row.measured(f"{name}, {objects}: {LATER}", share[:, 1:].mean(axis=1), exact=1.0, **about)
            made.append(later.judged(f"at least {CEILING}") if name == "RL²" else later)
        at_ceiling = float(np.mean(measured[NEW].mean(axis=1) >= CEILING))
        made.append(Row.computed(f"{name}: share of seeds with {CEILING:.0%} right choices", at_ceiling))
    return made


def draw(found: Found) -> dict[str, Any]:
    """Left: return of an episode while learning. Right: share of right choices in each trial, new objects."""
    figure, ((left, right),) = subplots(1, 2, width=5.2, height=4.0)
    for (name, measured), color in zip(found.items(), (BLUE, ORANGE)):
        seeds_and_mean(left, measured["env_steps"] / 1e6, measured["return"][..., 0], name, color=color)
        seeds_and_mean(right, np.arange(1, TRIALS + 1), measured[NEW], name, color=color)
    left.axhline(2 + TRIALS - 1, color="black", ls="--", lw=1, label="who remembers, exact")
    left.set(xlabel="million steps", ylabel="return of an episode, new objects", title="while learning")
    right.plot(np.arange(1, TRIALS + 1), [0.5] + [1.0] * (TRIALS - 1), "k--", lw=1, label="who remembers, exact")
    right.set(xlabel="trial", ylabel="share of right choices", title="after learning, new objects", ylim=(0.4, 1.02))
    legend_below(figure, (left, right), 3)
    return {"": figure}


FIGURE = Figure(
    name="rl2_harlow",
    paper=WANG,
    shows="Harlow's task in symbols: right choices among two new objects, trial by trial",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=10,
)
