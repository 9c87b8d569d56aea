"""VariBAD beside RL² on grid navigation with a hidden goal (Zintgraf et al., 2020, section 5.1; Duan et al., 2016).

A task is one of 21 cells of a 5 × 5 grid, which pays 1 in each step that ends there; any other step costs 0.1. A trial
is four episodes of 15 steps on one task, each from the same corner. Both learners learn by PPO from the same number of
trials, with the same γ, λ and sizes of batches. VariBAD's other settings were chosen among nine, on two seeds that the
figure does not have: w = 0.1 learned faster than the authors' w = 1, and an entropy bonus and a learning rate that fall
to zero made most of the difference. With a constant bonus of 0.01 its policy settled before it had found every goal:
episodes 2 and 4 returned 8.84 and 10.19 (this command at 773e10d). RL² was tried with two settings, of which the
constant bonus was the better, and has one recurrent network for policy and value. Returns are those of the 21 tasks,
ten trials of each, with actions drawn as in training.

Two lines are exact (`exact.hidden_cells`): Bayes-optimal play, whose first episode searches and whose later ones lose
nothing, and play that knows the goal.

The authors trained for 10⁸ steps, by an advantage actor-critic, in their newest release for 2·10⁷, by PPO. Here it is
three million.
"""

from typing import Any

import numpy as np

from jaxrl_envs.grid_navigation import ELSEWHERE, GOALS, IN_GOAL, MOVES, START, GridNavigationParams
from jaxrl_hier.exact.hidden_cells import search_returns
from jaxrl_hier.learning.optimization import linear_over

from ..drawing import BLACK, GREEN, colour, curve, subplots, with_intervals
from ..figure import Computation, Figure, Found, Scale, Training
from ..results import Row

EPISODES = 4
ITERATIONS = 400
SHARED: dict[str, Any] = {
    "episodes_per_trial": EPISODES,
    "environments": 128,
    "minibatch_size": 16,
    "epochs": 4,
    "discount": 0.95,
    "gae_lambda": 0.95,
    "clip": 0.1,
    "max_grad_norm": 0.5,
    "entropy_weight": 0.01,
    "memory_size": 64,
    "eval_tasks": 210,
}
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "VariBAD": (
        "varibad",
        {"clip": 0.2, "entropy_weight": 0.1, "entropy_decay_iterations": ITERATIONS} | linear_over(ITERATIONS),
    ),
    "RL²": ("rl2", {"separate_critic": False, "learning_rate": 2e-3}),
}
OPTIMAL, KNOWING = "Bayes-optimal", "knows the goal"


def parts(scale: Scale) -> dict[str, Any]:
    smoke = scale == "smoke"
    small = {"environments": 16, "memory_size": 8, "epochs": 1, "eval_tasks": 21} if smoke else {}
    about: dict[str, Any] = {"env": "grid-navigation", "points": 2 if smoke else 10, "from_start": True}

    def trained(name: str, settings: dict[str, Any]) -> Training:
        return Training(name, SHARED | settings | small, 2 if smoke else ITERATIONS, **about)

    found: dict[str, Any] = {label: trained(*learner) for label, learner in LEARNERS.items()}
    return found | {OPTIMAL: Computation(solved, seeds=0)}


def solved() -> dict[str, np.ndarray]:
    """The return of each episode of Bayes-optimal play, [episodes], and of play that knows the goal, []."""
    limit = GridNavigationParams().max_steps_in_episode
    optimal, knowing = search_returns(MOVES, GOALS, START, limit, EPISODES, IN_GOAL, ELSEWHERE)
    return {"return": optimal, "knowing": np.array(knowing)}


def rows(found: Found) -> list[Row]:
    made = []
    optimum = [float(x) for x in found[OPTIMAL]["return"]] if OPTIMAL in found else [None] * EPISODES
    for name in LEARNERS:
        if name in found:
            for k, returns in enumerate(at_the_end(found, name).T):
                row = Row.measured(f"{name}, episode {k + 1}: return", returns, exact=optimum[k])
                made.append(row if optimum[k] is None else row.judged())
    if all(name in found for name in LEARNERS):
        ours, other = (at_the_end(found, name) for name in LEARNERS)
        for k in range(EPISODES):
            label = f"VariBAD minus RL², return of episode {k + 1}"
            made.append(Row.measured(label, ours[:, k], other[:, k]).judged("above 0"))
    if OPTIMAL in found:
        made += [Row.computed(f"{OPTIMAL}, episode {k + 1}: return", x) for k, x in enumerate(optimum) if x is not None]
        made.append(Row.computed(f"{KNOWING}: return", float(found[OPTIMAL]["knowing"])))
    return made


def at_the_end(found: Found, name: str) -> np.ndarray:
    """Returns of the episodes of a trial after training, [seeds, episodes]."""
    return found[name]["return"][:, -1]


def draw(found: Found) -> dict[str, Any]:
    """Return against experience on a new task after training; and the return of a trial's last episode while learning,
    that of its first one dotted."""
    figure, (axes,) = subplots(1, 2, width=6.0)
    episodes = np.arange(1, EPISODES + 1)
    for name in LEARNERS:
        if name in found:
            made = [Row.measured("", x) for x in at_the_end(found, name).T]
            with_intervals(axes[0], episodes, made, colour(name), name)
            x, values = found[name]["env_steps"] / 1e6, found[name]["return"]
            curve(axes[1], x, values[..., -1], name, label=f"{name}, episode {EPISODES}")
            axes[1].plot(x, values[..., 0].mean(axis=0), color=colour(name), ls=":", label=f"{name}, episode 1")
    if OPTIMAL in found:
        optimum = found[OPTIMAL]["return"]
        axes[0].plot(episodes, optimum, "D:", color=GREEN, label=OPTIMAL, zorder=0)
        axes[0].axhline(float(found[OPTIMAL]["knowing"]), color=BLACK, ls="--", lw=1, label=KNOWING)
        axes[1].axhline(optimum[-1], color=GREEN, ls="--", lw=1, label=f"{OPTIMAL}, episode {EPISODES}")
        axes[1].axhline(optimum[0], color=GREEN, ls=":", lw=1, label=f"{OPTIMAL}, episode 1")
    axes[0].set(xticks=episodes, xlabel="episode on a new task", ylabel="return of an episode", title="after training")
    axes[1].set(xlabel="million steps of training", ylabel="return of an episode", title="while learning")
    axes[0].legend(loc="best")
    axes[1].legend(loc="lower right", ncols=2)
    return {"": figure}


FIGURE = Figure(
    name="varibad_navigation",
    paper="Zintgraf et al., VariBAD: A very good method for Bayes-adaptive deep RL via meta-learning (ICLR 2020)",
    shows="return of each episode on a new task of grid navigation, of VariBAD and RL²",
    parts=parts,
    rows=rows,
    draw=draw,
    minutes=15,
)
