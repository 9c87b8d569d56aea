"""Kaelbling's navigation task and her hierarchical distance to goal as a MAXQ graph: Dietterich (JAIR 13, 2000, section
7.2), figures 11 and 12 and table 6.

An open grid of 100 cells, a new start and goal in every trial. Flat Q-learning, and MAXQ-Q with state abstraction,
committed and polled, with the paper's settings: α = 1, Boltzmann exploration from T = 50 with a cooling rate for each
subtask, initial values .123 (flat) and −20.123. Polled: control goes back to the root after L steps; L is 3000 at first
and 2 less after each successful trial. Ten runs each, where the paper has 100; MAXQ-Q without abstraction, of which the
paper says that it is slower than flat Q-learning, is not run. Measured is the mean reward of greedy trials without
learning, cut after 100 steps.

The coordinates of the twelve landmarks could not be found. Ours agree with every count of the paper's table
(`hierarchical.landmark_graph`), which therefore is no result; that table 6 gives them is one. The paper prints no
numbers for its figures but says that without abstraction MAXQ-Q is much slower than flat Q-learning, with it about
three times as fast; that polled execution saves about one action, and flat Q-learning about one more.

Exact, over all pairs of start and goal: the fewest steps; the recursively optimal policy whose subtasks know of the
goal only what their tables can tell, which is what MAXQ-Q converges to, and its polled execution; and the best
policy that the graph allows to subtasks that know the goal.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.drawing import draw_grid
from jaxrl_envs.goal_grid import CELLS, FREE, NUM_CELLS, GoalGrid, encode
from jaxrl_envs.tasks import single
from jaxrl_hier.engine.types import Algorithm
from jaxrl_hier.exact import hierarchy
from jaxrl_hier.hierarchical import maxq
from jaxrl_hier.hierarchical.landmark_graph import PUBLISHED, counts, landmark_graph, plan, regions
from jaxrl_hier.reports.statistics import mean

from ..drawing import colour, legend_below, subplots
from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row
from ._options import Runs
from .maxq_taxi import ABSTRACT, FLAT, POLLED, flat_q, greedy_trials

OPTIMUM = {FLAT: "flat", ABSTRACT: "committed", POLLED: "polled"}
PER_CALL = 500  # steps of a run in one call of `step`
EVERY = 20  # calls between evaluations
TOTALS = {"HDG": 6070, "MAXQ with abstraction": 6171, "flat Q": 40_000}


def parts(scale: Scale) -> dict[str, Computation]:
    smoke = scale == "smoke"
    about = {"steps": 20_000 if smoke else 600_000, "trials": 4 if smoke else 50, "final_trials": 4 if smoke else 1000}
    found = {FLAT: Computation(learn, about | {"label": FLAT}, shared=("at",))}
    for label in () if smoke else (ABSTRACT, POLLED):
        found[label] = Computation(learn, about | {"label": label, "steps": 200_000}, shared=("at",))
    return found | {"exact": Computation(exact, {"goals": 3 if smoke else NUM_CELLS}, seeds=0)}


def learner(label: str) -> Algorithm:
    env = GoalGrid()
    if label == FLAT:
        return flat_q(env, alpha=1.0, cooling=0.9074)
    config = maxq.Config(
        step_size=1.0,
        initial_value=-20.123,
        polling_interval=3000.0,
        polling_interval_decrease=2.0 if label == POLLED else 0.0,
        rollout_length=PER_CALL,
    )
    return maxq.make(config, env, single(env.default_params), landmark_graph())


def learn(seeds: Sequence[int], label: str, steps: int, trials: int, final_trials: int) -> dict[str, Any]:
    """One learner.

    Returns:
        "reward" [seeds, points] of greedy trials after "at" [points] steps; and at the end "final" [seeds], the mean of
        more trials, and "ended" [seeds], the share of them that reached the goal.
    """
    algorithm = learner(label)
    runs = Runs(lambda: algorithm, [{}], seeds)
    keys = lambda i: jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), i))(jnp.array(seeds))
    play, rewards = greedy_trials(GoalGrid(), algorithm.agent, trials), []
    at = np.arange(0, steps // PER_CALL + 1, EVERY)
    for i, count in enumerate(np.diff(at, prepend=0)):
        rewards.append(np.asarray(play(runs.advance(count).params, keys(1 + i))[0]).mean(axis=1))
    final, ended = map(np.asarray, greedy_trials(GoalGrid(), algorithm.agent, final_trials)(runs.state.params, keys(0)))
    found = {"at": at * PER_CALL, "reward": np.stack(rewards, axis=1)}
    return found | {"final": final.mean(axis=1), "ended": ended.mean(axis=1), "compile_seconds": runs.compile_seconds}


def exact(goals: int) -> dict[str, np.ndarray]:
    """Mean numbers of steps over all starts and the first `goals` goals.

    Returns:
        "flat"; "predicted" by the plan's values, "committed" and "polled" as its execution takes; and "recursive" of
        subtasks that know the goal. Of every tenth goal "some flat" and "hierarchical", of subtasks that know it.
    """
    env, graph, best = GoalGrid(), landmark_graph(), plan()
    steps: dict[str, list[np.ndarray]] = {}
    for goal in range(goals):
        P, R = env.goal_model(goal)
        seen, choice = encode(np.arange(NUM_CELLS), goal), jnp.asarray(best.choice[:, :, goal])
        values = {
            "flat": -np.abs(CELLS - CELLS[goal]).sum(axis=1),
            "predicted": -best.steps[:, goal],
            "committed": hierarchy.hierarchical_values(P, R, graph, choice, observed=seen).value[-1],
            "polled": hierarchy.polled_values(P, R, graph, choice, observed=seen),
            "recursive": hierarchy.recursively_optimal(P, R, graph, observed=seen).value[-1],
        }
        if goal % 10 == 0:
            values["some flat"] = values["flat"]
            values["hierarchical"] = hierarchy.hierarchically_optimal(P, R, graph, observed=seen)
        for name, value in values.items():
            steps.setdefault(name, []).append(-np.delete(np.asarray(value), goal))
    return {name: np.asarray(np.mean(found)) for name, found in steps.items()}


def rows(found: Found) -> list[Row]:
    learned = {label: found[label] for label in OPTIMUM if label in found}
    solved = found.get("exact")
    made = [row for label, measured in learned.items() for row in final_rows(label, measured, solved)]
    made += order_rows(learned) if {FLAT, ABSTRACT, POLLED} <= learned.keys() else []
    return made + (exact_rows(solved) if solved else []) + size_rows()


def final_rows(label: str, measured: Measured, solved: Measured | None) -> list[Row]:
    row = Row.measured(f"{label}: greedy reward at the end", measured["final"], unit="runs")
    row.note = f"{1 - measured['ended'].mean():.3%} of the trials are cut at 100 steps"
    if solved:
        row.exact, row.tolerance = -float(solved[OPTIMUM[label]]), 0.005
    return [row.judged()]


def order_rows(learned: Found) -> list[Row]:
    """What the paper says of its figures."""
    needed = {label: steps_needed(measured) for label, measured in learned.items()}
    of = lambda text, ours, other: Row.measured(f"claim: {text}", ours, other, unit="runs")
    final = {label: measured["final"] for label, measured in learned.items()}
    fast = of("with abstraction faster than flat Q-learning", needed[FLAT], needed[ABSTRACT]).judged("above 0")
    times = needed[FLAT].mean() / needed[ABSTRACT].mean()
    fast.note = (
        f"steps until within 1 of the learner's own final median: {needed[FLAT].mean():.0f} and "
        f"{needed[ABSTRACT].mean():.0f}"
    )
    ratio = Row.computed("claim: times as fast with abstraction as flat Q-learning", times, published=3.0)
    ratio.note = "the paper says roughly three times; reached: at least 2"
    ratio.verdict = "reached" if times >= 2 else "short"
    saves = of("polled execution saves about one action", final[POLLED], final[ABSTRACT])
    more = of("flat Q-learning saves about one action more", final[FLAT], final[POLLED])
    for row in (saves, more):
        row.published = 1.0
        row.judged("above 0")
        row.note = "reached: above 0. How much depends on the landmarks, which are not the paper's"
    return [fast, ratio, saves, more]


def steps_needed(measured: Measured) -> np.ndarray:
    """[seeds] steps until the greedy reward, averaged over three points, is within 1 of its median at the end."""
    smooth = np.stack([np.convolve(row, np.ones(3) / 3, "same") for row in measured["reward"]])[:, :-1]
    reached = smooth >= np.median(measured["reward"][:, -10:]) - 1
    return np.where(reached.any(1), measured["at"][reached.argmax(1)], measured["at"][-1]).astype(float)


def exact_rows(solved: Measured) -> list[Row]:
    texts = {
        "flat": "any policy",
        "some flat": "any policy, every tenth goal",
        "hierarchical": "hierarchically optimal, subtasks that know the goal, every tenth goal",
        "recursive": "recursively optimal, subtasks that know the goal",
        "predicted": "recursively optimal with abstraction, as its values predict",
        "committed": "recursively optimal with abstraction",
        "polled": "the same, polled",
    }
    notes = {"committed": "fewer than predicted: some ways lead over the goal, which ends the trial"}
    made = [Row.computed(f"exact: {text}, steps", float(solved[name])) for name, text in texts.items()]
    for row, name in zip(made, texts):
        row.note = notes.get(name, "")
    return made


def size_rows() -> list[Row]:
    """Table 6."""
    found, graph = counts(regions()), landmark_graph()
    made = [Row.computed(f"values: {name}", number, published=PUBLISHED[name]) for name, number in found.items()]
    for row in made:
        row.note = "agrees because the landmarks were chosen so"
    hdg = sum(found[name] for name in ("to a landmark", "between landmarks", "to the goal"))
    total = Row.computed("values: HDG, total", hdg, published=TOTALS["HDG"]).judged("lower")
    ours = Row.computed("values: MAXQ with abstraction, total", graph.num_values)
    ours.published = TOTALS["MAXQ with abstraction"]
    ours.judged("lower")
    ours.note = (
        "reached: no more. The paper counts C(GotoGoalLmk, s, GotoLmk) for each region that it is called from, but "
        "where no move goes astray it depends on the two landmarks alone"
    )
    flat = Row.computed("values: flat Q", GoalGrid.num_observations * 4, published=TOTALS["flat Q"]).judged("lower")
    return [*made, total, ours, flat]


def draw(found: Found) -> dict[str, Any]:
    learned = {label: found[label] for label in OPTIMUM if label in found}
    pictures: dict[str, Any] = {"regions": regions_figure()}
    return pictures | ({"": learning_figure(learned, found.get("exact"))} if learned else {})


def learning_figure(learned: Found, solved: Measured | None) -> Any:
    figure, ((left, right),) = subplots(1, 2, 6, 4.6)
    for ax, limits in ((left, (-102, 0)), (right, (-11, -6))):
        for label, measured in learned.items():
            points = [mean(column, "runs") for column in measured["reward"].T]
            low, high = np.array([point.interval or (np.nan, np.nan) for point in points]).T
            x, color = measured["at"] / 1000, colour(label)
            ax.fill_between(x, low, high, color=color, alpha=0.25, lw=0)
            ax.plot(x, [point.value for point in points], color=color, lw=1.6, label=label)
        ax.set(xlabel="primitive steps / 1000", ylim=limits, xlim=(0, None))
    left.set(ylabel="mean reward of a greedy trial", title="learning")
    right.set(title="the same, near the optima")
    for name, ls in (("flat", "--"), ("polled", ":"), ("committed", "-.")):
        if solved:
            value = -float(solved[name])
            right.axhline(value, color="0.2", lw=1, ls=ls, label=f"{name} optimum {value:.2f}")
    legend_below(figure, right, columns=4)
    runs = len(next(iter(learned.values()))["reward"])
    figure.suptitle(f"start and goal anywhere in a grid of 100 cells, {runs} runs", fontsize=10, color="0.3")
    return figure


def regions_figure() -> Any:
    """The landmarks and their regions; and how many steps more than the fewest the plan takes to one goal."""
    figure, ((left, right),) = subplots(1, 2, 4.6, 4.8)
    found, best = regions(), plan()
    goal = int(found.landmark[1]) + 2
    extra = best.steps[:, goal] - np.abs(CELLS - CELLS[goal]).sum(axis=1)
    for ax, values, title in (
        (left, found.nearest % 5, "twelve landmarks and their regions"),
        (right, extra, "steps more than the fewest that the plan predicts"),
    ):
        image = draw_grid(ax, FREE, values=values, goal=goal if ax is right else None)
        for cell in found.landmark:
            row, column = CELLS[cell]
            ax.plot(column, row, "o", mfc="none", mec="black", ms=13)
        for cell, (row, column) in enumerate(CELLS):  # borders of regions
            for ahead, (x, y) in ((cell + 1, ((0.5, 0.5), (-0.5, 0.5))), (cell + 10, ((-0.5, 0.5), (0.5, 0.5)))):
                beside = column < 9 if ahead == cell + 1 else row < 9
                if beside and found.nearest[cell] != found.nearest[ahead]:
                    ax.plot(column + np.array(x), row + np.array(y), color="black", lw=2)
        ax.set_title(title, fontsize=11)
    left.images[-1].set_cmap("Pastel1")
    figure.colorbar(image, ax=right, shrink=0.7, ticks=range(0, int(extra.max()) + 1, 2))
    return figure


FIGURE = Figure(
    name="maxq_landmarks",
    paper="Dietterich, Hierarchical reinforcement learning with the MAXQ value function decomposition, JAIR 13, 2000",
    shows="figures 11 and 12 and table 6 (Kaelbling's hierarchical distance to goal)",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=10,
)
