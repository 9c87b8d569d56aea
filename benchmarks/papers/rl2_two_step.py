"""The two-step task (Wang et al., Learning to reinforcement learn, 2016): does a learned learner use a model?

An LSTM of 48 units, trained by advantage actor-critic and tested with frozen weights. A trial is a choice, a common
(3 of 4) or rare transition to one of two states, and a reward with probability 0.9 or 0.1; before each of the 100
trials of an episode the states exchange their probabilities with probability 0.025. How often is a choice repeated
after a reward or none, and a common or rare transition?

Beside it `classical.two_step`: a model-free and a model-based learner, each with the learning rate and temperature of a
grid that pay it most, and the exact belief. Two measurements:

- In the task itself, as in the paper. There even the model-free learner has some interaction of reward and transition,
  because of what it has learned before; so the agent's is compared with that one's.
- With rewards by the toss of a coin, which say nothing about choices. There the interaction of any model-free learner
  is zero, and what is found is due to the last trial alone.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.tabular_mdp import TwoStep, TwoStepParams
from jaxrl_envs.tasks import single
from jaxrl_envs.trial import Trial
from jaxrl_hier import Run
from jaxrl_hier.classical import two_step as learners
from jaxrl_hier.classical.two_step import interaction, stay_probabilities
from jaxrl_hier.reports.statistics import FRACTION, band

from ..drawing import BLUE, ORANGE, legend_below, subplots
from ..figure import Computation, Figure, Found, Measured, Scale, Training
from ..results import Row
from ._rl2 import WANG, WANG_SETTINGS, each_seed, recorder

STEPS = 200  # two for each trial
TASK = TwoStepParams(common=np.float32(0.75), max_steps_in_episode=STEPS)
COIN = TASK.replace(high=np.float32(0.5), low=np.float32(0.5))
SETTINGS = WANG_SETTINGS | {"max_grad_norm": 40.0}
GRID = [(rate, temperature) for rate in (0.1, 0.2, 0.3, 0.5, 0.7, 0.9) for temperature in (0.02, 0.05, 0.1, 0.2)]
REFERENCES = ("model-free", "model-based", "exact belief")
GROUPS = 40  # of episodes, for the intervals of players that are not trained


def parts(scale: Scale) -> dict[str, Any]:
    smoke = scale == "smoke"
    settings = SETTINGS | ({"environments": 4, "memory_size": 8} if smoke else {})
    env, count, iterations = (TwoStep(), single(TASK)), 80 if smoke else 4000, 2 if smoke else 1200
    measure = partial(of_agent, count=count)
    agent = Training("rl2", settings, iterations, env, points=2 if smoke else 12, curves=(), measure=measure)
    grid = GRID[:2] if smoke else GRID
    return {"RL²": agent} | {
        name: Computation(of_reference, {"name": name, "count": count, "grid": grid}, seeds=0) for name in REFERENCES
    }


# Played: "stay" [R, 2, 2] in the task, "stay, coin" with rewards by the toss of a coin, "reward" [R] of an episode in
# the task; R seeds, or groups of episodes


def copies(params: TwoStepParams, count: int) -> Any:
    """The same task `count` times."""
    return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x), (count,)), params)


def of_agent(run: Run, count: int) -> dict[str, np.ndarray]:
    """Of each seed."""
    env = Trial(TwoStep(), trial_number=True)
    play = recorder(env, run.algorithm.agent, STEPS, lambda worlds: worlds.env_state.inner.state)

    def both(task: TwoStepParams) -> tuple[np.ndarray, np.ndarray]:
        batch = jax.vmap(env.params_of)(copies(task, count))
        seen = [play(params, batch) for params in each_seed(run)]
        stay = np.stack([stay_probabilities(state, t.action, t.reward) for state, t in seen])
        return stay, np.array([t.reward.sum(axis=0).mean() for _, t in seen])

    (stay, reward), (stay_coin, _) = both(TASK), both(COIN)
    return {"stay": stay, "stay, coin": stay_coin, "reward": reward}


def of_reference(name: str, count: int, grid: list[tuple[float, float]]) -> dict[str, np.ndarray]:
    """Of groups of episodes of a player that is not trained, with the settings of the grid that pay it most."""
    makers: dict[str, Any] = {
        "model-free": learners.model_free,
        "model-based": partial(learners.model_based, common=float(TASK.common)),
        "exact belief": partial(learners.bayes_optimal, TASK),
    }
    play, batch = recorder(TwoStep(), makers[name](), STEPS, lambda worlds: worlds.env_state.state), copies(TASK, count)
    settings = [tuple(map(jnp.float32, pair)) for pair in grid] if name != "exact belief" else [()]
    rewards = [play(params, batch)[1].reward.sum(axis=0) for params in settings]
    best = int(np.argmax([reward.sum() for reward in rewards]))
    stay, stay_coin = (in_groups(*play(settings[best], copies(task, count))) for task in (TASK, COIN))
    found: dict[str, np.ndarray] = {
        "stay": stay,
        "stay, coin": stay_coin,
        "reward": np.asarray(rewards[best]).reshape(GROUPS, -1).mean(axis=1),
    }
    return found | ({"setting": np.array(grid[best])} if name != "exact belief" else {})


def in_groups(state: np.ndarray, seen: Any) -> np.ndarray:
    """Stay probabilities [GROUPS, 2, 2] of as many groups of episodes."""
    cut = lambda x: x.reshape(len(x), GROUPS, -1)
    return np.asarray(jax.vmap(stay_probabilities, 1)(cut(state), cut(seen.action), cut(seen.reward)))


# Rows


def rows(found: Found) -> list[Row]:
    return [row for name in found for row in player_rows(name, found)]


def label_of(name: str, measured: Measured) -> str:
    """The player, with its setting if it has one."""
    return "{} (α = {:g}, τ = {:g})".format(name, *measured["setting"]) if "setting" in measured else name


def player_rows(name: str, found: Found) -> list[Row]:
    measured, label, trained = found[name], label_of(name, found[name]), name == "RL²"
    # players that are not trained: one of them, groups of its episodes
    row_of = partial(Row.measured, unit="seeds" if trained else "groups of episodes")
    made = []
    for where, array in (("in the task", "stay"), ("rewards by the toss of a coin", "stay, coin")):
        stay = measured[array]
        row = row_of(f"{label}, {where}: reward × transition", interaction(stay))
        if trained and (array != "stay" or "model-free" in found):
            at_least = float(interaction(found["model-free"]["stay"]).mean()) if array == "stay" else 0.0
            row.judged(f"above {at_least:.4g}")
            row.note = f"reached: the interval lies above a model-free learner's {at_least:.3f}"
        made.append(row)
        for i, j in np.ndindex(2, 2):
            case = f"{('no reward', 'reward')[i]}, {('rare', 'common')[j]} transition"
            about: Any = {"statistic": "mean inside", "bounds": FRACTION}
            made.append(row_of(f"{label}, {where}: stays after {case}", stay[:, i, j], **about))
    row = row_of(f"{label}: reward of {STEPS // 2} trials", measured["reward"])
    if "exact belief" in found:
        row.exact, row.note = float(found["exact belief"]["reward"].mean()), "exact: the belief, played"
        if trained:
            row.judged(f"at least {0.95 * row.exact:.4g}").note += "; reached: 95 % of it"
    return [*made, row]


# Picture


def draw(found: Found) -> dict[str, Any]:
    """A column for each player; above in the task, below with rewards by the toss of a coin."""
    figure, axes = subplots(2, len(found), width=3.4, height=3.1, sharey=True)
    for column, (name, measured) in zip(axes.T, found.items()):
        for ax, stay in zip(column, (measured["stay"], measured["stay, coin"])):
            bars(ax, stay)
        column[0].set_title(label_of(name, measured).replace(" (", "\n("))
    axes[0, 0].set_ylabel("in the task\nprobability of the same choice")
    axes[1, 0].set_ylabel("rewards by the toss of a coin\nprobability of the same choice")
    legend_below(figure, axes[0, 0], 2)
    return {"": figure}


def bars(ax: Any, stay: np.ndarray) -> None:
    mean = stay.mean(axis=0)
    half = band(stay.reshape(len(stay), 4))[1].reshape(2, 2) - mean
    for j, (label, color) in enumerate((("rare", ORANGE), ("common", BLUE))):
        x = np.array([1, 0]) + (0.2 if j == 0 else -0.2)
        style: dict[str, Any] = {"error_kw": {"lw": 1, "ecolor": "0.3"}, "capsize": 2, "color": color}
        ax.bar(x, mean[:, j], 0.38, yerr=half[:, j], label=f"{label} transition", **style)
    value = float(interaction(stay).mean())
    ax.text(0.5, 1.045, f"reward × transition {value:+.2f}", ha="center", va="bottom", fontsize=9)
    ax.set(xticks=[0, 1], xticklabels=["reward", "no reward"], ylim=(0, 1.18), yticks=np.linspace(0, 1, 6))
    ax.grid(False, axis="x")


FIGURE = Figure(
    name="rl2_two_step",
    paper=WANG,
    shows="stay probabilities in the two-step task",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=3,
)
