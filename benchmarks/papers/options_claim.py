"""A claim of tutorials about options in four rooms, measured.

The claim: intra-option Q-learning with hallway options converges 3 to 5 times faster than flat Q-learning, and the
options transfer to new goals. It is told of Sutton, Precup & Singh (Artificial Intelligence 112, 1999), who never
compare the two and give no ratio. Whether it holds depends on what "converges" means. Here:

- Task: the paper's four rooms, episodes from the upper left corner, γ = .9, ε = .1, Q = 0 at first. Goals: the paper's
  G1 and G2 and random cells. The eight hallway options are the same for all goals: they were built without any.
- Methods: flat Q-learning; SMDP Q-learning and intra-option Q-learning over primitive actions and hallway options
  (A ∪ H), both acting by ε-greedy options that run to their end; intra-option Q-learning over the hallway options alone
  (H), for the goals where the best policy over them is good enough.
- Converged: the greedy policy's expected steps from the start, by a linear solve, are at most 1.2 times the fewest of
  any policy, and are so again at the next check. Each check comes after an eighth more steps (50, 56, 63, …), for all
  methods alike. Counted are the episodes and the steps in the environment until the first of the two checks.
- α: the power of two with the fewest episodes (geometric mean over the goals of the median), for each method, by other
  seeds than those reported.
- Ratio: the median over seeds for flat Q-learning divided by that of the method, 95 % over the seeds; for the random
  goals together the geometric mean, 95 % over the goals.

Verdicts on the claim: "reached" if the interval of the ratio in episodes meets 3 to 5, "short" if it lies below, "more"
if above. Learning ends when nine in ten of the runs of a method that are made together have converged for every goal,
or at a time limit; runs that have not count as if they had at that moment, which is later than any median unless a note
says otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.four_rooms import G1, G2, NUM_CELLS, FourRooms, FourRoomsParams, cell_coordinates, cell_index
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.engine.types import Algorithm
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.flat import q_learning
from jaxrl_hier.hierarchical import intra_option_q, smdp_q

from ..drawing import colour, with_intervals
from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row
from ._options import GAMMA, START, Runs, after, options_of

FLAT, SMDP, INTRA, ALONE = "flat Q", "SMDP Q, A ∪ H", "intra-option Q, A ∪ H", "intra-option Q, H"
SETS: dict[str, Literal["A", "H", "A ∪ H"]] = {FLAT: "A", INTRA: "A ∪ H", SMDP: "A ∪ H", ALONE: "H"}
COMPARED = (INTRA, SMDP, ALONE)  # with flat
GOALS = {"G1": int(cell_index(*G1)), "G2": int(cell_index(*G2))}
RANDOM_GOALS = 20
ALPHAS = tuple(2.0**-i for i in range(6))
EPSILON = 0.1
NEAR = 1.2  # times the fewest expected steps
OTHERS = (1.5, 2.0)  # other thresholds, reported beside
CLAIM = (3.0, 5.0)
SHOWN = np.unique(np.geomspace(1, 1000, 40).round()).astype(int)  # episodes of the learning curves


def goal_cells() -> list[int]:
    """G1, G2 and the random goals."""
    rest = np.array([c for c in range(NUM_CELLS) if c != START and c not in GOALS.values()])
    return [*GOALS.values(), *np.sort(np.random.default_rng(0).choice(rest, RANDOM_GOALS, replace=False)).tolist()]


def label_of(cell: int) -> str:
    names = {number: name for name, number in GOALS.items()}
    return names.get(cell, "({}, {})".format(*cell_coordinates(cell)))


def parts(scale: Scale) -> dict[str, Any]:
    smoke = scale == "smoke"
    found: dict[str, Any] = {}
    for method in (FLAT, INTRA) if smoke else SETS:
        about = {"method": method, "cells": goal_cells()[: 3 if smoke else None], "horizon": 500 if smoke else 240_000}
        tuning = about | {"alphas": ALPHAS[1:2] if smoke else ALPHAS}
        found[f"tuning: {method}"] = Computation(
            tune, tuning, seeds=2 if smoke else 5, first_seed=10_000, shared=("cells", "alphas")
        )
        found[method] = partial(tuned_part, about=about)
    return found


def tuned_part(found: Found, about: dict[str, Any]) -> Computation | None:
    tuning = found.get(f"tuning: {about['method']}")
    shared = ("cells", "fewest", "best", "alpha")
    return None if tuning is None else Computation(learn, about | {"alpha": chosen(tuning)}, shared=shared)


def chosen(tuning: Measured) -> float:
    return float(tuning["alphas"][np.argmin(medians(tuning).mean(axis=0))])


def medians(tuning: Measured) -> np.ndarray:
    """Logarithms of the median episodes until converged, [goals, α]."""
    return np.log(np.maximum(np.median(tuning["episodes"], axis=0), 1))


# Learning


@dataclass
class Progress:
    """Runs of one method, seen at each check; cases are pairs of a goal and a step size."""

    at: np.ndarray  # [checks] steps
    episodes: np.ndarray  # [checks, seeds, cases] ended so far
    ratio: np.ndarray  # [checks, seeds, cases] expected steps of the greedy policy from the start, by the fewest
    compile_seconds: float


def goal_params(env: FourRooms, cell: Any) -> FourRoomsParams:
    """Without a time limit, as in the paper."""
    return env.default_params.replace(goal=cell, start=START, max_steps_in_episode=10**8)


def solved(method: str, cells: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Expected steps from the start to each goal [goals]: the fewest, and those of the best policy (discounted) over
    the method's options."""
    with jax.enable_x64(True):
        env, options = FourRooms(), options_of(SETS[method])

        def solve(cell: jax.Array) -> tuple[jax.Array, jax.Array]:
            P, R = env.model(goal_params(env, cell))
            models = smdp.option_models(P, R, options, GAMMA)
            values = smdp.smdp_optimal_values(models, options.initiation, tolerance=1e-12)
            policy = tabular.greedy_policy(values, options.initiation.T)
            steps = smdp.option_expected_steps(P, options, policy)
            return tabular.minimal_expected_steps(P)[START], steps[START]

        fewest, best = jax.jit(lambda cells: jax.lax.map(solve, cells))(jnp.array(cells))
        return np.asarray(fewest), np.asarray(best)


def solvable(method: str, cells: list[int]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The goals for which the method's best policy counts as converged, with what `solved` finds."""
    fewest, best = solved(method, cells)
    there = best <= NEAR * fewest
    return [cell for cell, good in zip(cells, there) if good], fewest[there], best[there]


def maker(method: str) -> Callable[..., Algorithm]:
    """An algorithm from a goal and a step size."""
    env = FourRooms()

    def make(goal: Any, alpha: Any) -> Algorithm:
        tasks = Tasks(sample=lambda key: goal_params(env, goal))
        common: dict[str, Any] = {"step_size": alpha, "epsilon": EPSILON, "discount": GAMMA, "recorded_episodes": 1}
        if method == FLAT:
            return q_learning.make(q_learning.Config(**common), env, tasks)
        if method == SMDP:
            return smdp_q.make(smdp_q.Config(options="both", **common), env, tasks)
        options: Any = "both" if method == INTRA else "hallway"
        return intra_option_q.make(intra_option_q.Config(options=options, **common), env, tasks)

    return make


def progress(
    seeds: Sequence[int], method: str, cases: list[tuple[int, float]], fewest: np.ndarray, horizon: int
) -> Progress:
    """All runs of all cases (goal, α) in one program, until most have converged or `horizon` steps are over.

    Args:
        fewest: [cases] expected steps.
    """
    runs = Runs(maker(method), [{"goal": cell, "alpha": alpha} for cell, alpha in cases], seeds)
    options = options_of(SETS[method])
    models = run_models(options, jnp.array([cell for cell, _ in cases]))
    measure = jax.jit(lambda q: greedy_steps(options, q.reshape(*runs.shape, *q.shape[1:]), models))
    nothing = np.zeros(runs.shape)
    at, episodes, ratio, done = [0], [nothing], [nothing + np.inf], nothing > 0
    # a median needs no more than half; the last few would take as long as all the others
    while at[-1] < horizon and done.mean(axis=0).min() < 0.9:
        check = max(50, int(at[-1] * 1.125))
        state = runs.advance(check - at[-1])
        at.append(check)
        episodes.append(runs.by_seed(state.memory.count[:, 0]))
        measured = np.asarray(measure(state.params)) / fewest
        # a system that is near to singular, of a policy that takes for ever, may be solved by anything
        ratio.append(np.where(measured >= 0.99, measured, np.inf))
        done |= (ratio[-1] <= NEAR) & (ratio[-2] <= NEAR)
    return Progress(np.array(at[1:]), np.array(episodes[1:]), np.array(ratio[1:]), runs.compile_seconds)


def run_models(options: Options, goals: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Durations [cases, O, S] of the options and where they stop, [cases, O, S, S'], before the goal.

    Both depend on the goal but not on what is learned: solved for once, for all checks.
    """
    env = FourRooms()

    def runs(goal: jax.Array) -> tuple[jax.Array, jax.Array]:
        P, R = env.model(goal_params(env, goal))
        # these options stop for sure, so that γ = 1 gives the probabilities of where
        stops_in = smdp.option_models(P, R, options, 1.0).transition
        return smdp.option_durations(P, options), stops_in.at[:, :, goal].set(0.0)

    return jax.jit(lambda goals: jax.lax.map(runs, goals))(goals)


def greedy_steps(options: Options, q: jax.Array, models: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Exact expected steps from the start, [seeds, cases], of the greedy policies for q [seeds, cases, S, O]."""
    available = options.initiation.T

    def from_start(q: jax.Array, durations: jax.Array, stops_in: jax.Array) -> jax.Array:
        policy = tabular.greedy_policy(q, available, tolerance=0.0)
        chain = jnp.einsum("so,ost->st", policy, stops_in)
        cost = jnp.sum(jnp.where(policy > 0, policy * durations.T, 0.0), axis=1)
        return jnp.linalg.solve(jnp.eye(NUM_CELLS) - chain, cost)[START]

    return jax.vmap(jax.vmap(from_start), (0, None, None))(q, *models)


def convergence(seen: Progress, near: float = NEAR) -> dict[str, np.ndarray]:
    """The first check that finds the greedy policy within `near` of the fewest steps, as does the next one.

    Returns:
        "episodes" and "steps" until then, [seeds, cases], until learning ended where "ended" [seeds, cases] is False.
    """
    good = seen.ratio <= near
    stays = good[:-1] & good[1:]
    ended = stays.any(axis=0)
    first = np.where(ended, stays.argmax(axis=0), len(seen.at) - 1)
    episodes = np.take_along_axis(seen.episodes, first[None], axis=0)[0]
    return {"episodes": episodes, "steps": seen.at[first], "ended": ended}


def tune(
    seeds: Sequence[int], method: str, cells: list[int], alphas: tuple[float, ...], horizon: int
) -> dict[str, Any]:
    """Returns "episodes" until converged and whether they "ended", [seeds, goals, α]."""
    cells, fewest, _ = solvable(method, cells)
    cases = [(cell, alpha) for cell in cells for alpha in alphas]
    seen = progress(seeds, method, cases, np.repeat(fewest, len(alphas)), horizon)
    shaped = {k: x.reshape(len(seeds), len(cells), -1) for k, x in convergence(seen).items() if k != "steps"}
    return shaped | {"cells": np.array(cells), "alphas": alphas, "compile_seconds": seen.compile_seconds}


def learn(seeds: Sequence[int], method: str, cells: list[int], alpha: float, horizon: int) -> dict[str, Any]:
    """With one step size, for the goals "cells" [goals] that the method can solve.

    Returns:
        "episodes", "steps" and "ended", see `convergence`, [seeds, goals]; "episodes within <near>" and "ended within
        <near>" for OTHERS. "curve" [seeds, named goals, points], expected steps of the greedy policy, by the fewest, in
        the episodes SHOWN, at most 1000; NaN after the run's last one. "fewest" and "best" [goals], see `solved`.
    """
    cells, fewest, best = solvable(method, cells)
    seen = progress(seeds, method, [(cell, alpha) for cell in cells], fewest, horizon)
    found: dict[str, Any] = convergence(seen)
    for near in OTHERS:
        found |= {f"{k} within {near:g}": x for k, x in convergence(seen, near).items() if k != "steps"}
    at = SHOWN - 1  # the first check comes before the first episode has ended
    named = [i for i, cell in enumerate(cells) if cell in GOALS.values()]
    curves = np.stack([after(at, seen.episodes[..., i].T, seen.ratio[..., i].T) for i in named], axis=1)
    reached = at <= seen.episodes[-1][:, named, None]
    found["curve"] = np.where(reached, np.minimum(curves, 1000), np.nan)
    shared = {"cells": np.array(cells), "fewest": fewest, "best": best, "alpha": np.array(alpha)}
    return found | shared | {"compile_seconds": seen.compile_seconds}


# Rows


def rows(found: Found) -> list[Row]:
    learned = {method: found[method] for method in SETS if method in found}
    made = claim_rows(learned) if FLAT in learned else []
    made += time_rows(learned)
    made += threshold_rows(learned) if {FLAT, INTRA} <= learned.keys() else []
    for method in SETS:
        if tuning := found.get(f"tuning: {method}"):
            made += tuning_rows(method, tuning)
    return made


def labels(measured: Measured) -> list[str]:
    return [label_of(int(cell)) for cell in measured["cells"]]


def ratios_by_goal(learned: Found, method: str, what: str) -> dict[str, Row]:
    """Flat Q-learning's median divided by a method's, without label, by the goals that the method can solve."""
    flat, ours = learned[FLAT], learned[method]
    place = {label: i for i, label in enumerate(labels(flat))}
    pairs = {label: (flat[what][:, place[label]], ours[what][:, i]) for i, label in enumerate(labels(ours))}
    return {label: Row.measured("", *pair, statistic="ratio of medians", unit="runs") for label, pair in pairs.items()}


def together(ratios: list[Row]) -> Row:
    """Geometric mean over goals."""
    return Row.measured("", [row.ours for row in ratios], statistic="geometric mean", unit="goals")


CLAIMED = f"meets {CLAIM[0]} {CLAIM[1]}"


def claim_rows(learned: Found) -> list[Row]:
    made = []
    for method in (method for method in COMPARED if method in learned):
        episodes, steps = (ratios_by_goal(learned, method, what) for what in ("episodes", "steps"))
        drawn = [label for label in episodes if label not in GOALS]
        # the claim is about episodes or steps, it does not say; the verdict is on episodes
        for row in episodes.values():
            row.judged(CLAIMED)
        for unit, ratios in (("episodes", episodes), ("steps", steps)):
            named = {label: row for label, row in ratios.items() if label in GOALS}
            if drawn:
                named["random goals"] = together([ratios[label] for label in drawn])
                of = len(learned[FLAT]["cells"]) - len(GOALS)
                named["random goals"].note = summary([ratios[label] for label in drawn], of)
            if unit == "episodes" and drawn:
                named["random goals"].judged(CLAIMED)
            made += [replace(row, label=f"flat / {method}, {unit}, {label}") for label, row in named.items()]
        for label in drawn:
            row = replace(episodes[label], label=f"flat / {method}, episodes, goal {label}")
            row.note = f"in steps {steps[label].ours:.2f}"
            made.append(row)
    return made


def summary(ratios: list[Row], of: int) -> str:
    """What the ratios of several goals come to."""
    verdicts = [replace(row).judged(CLAIMED).verdict for row in ratios]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("short", "reached", "more"))
    sides = [row.told(1.0) for row in ratios]
    return (
        f"geometric mean over {len(ratios)} random goals, of {of}: {counts}; faster than flat for "
        f"{sides.count('above')}, slower for {sides.count('below')} (interval on one side of 1); from "
        f"{min(row.ours for row in ratios):.2f} to {max(row.ours for row in ratios):.2f}"
    )


def time_rows(learned: Found) -> list[Row]:
    """Medians, by method and goal."""
    made = []
    for method, measured in learned.items():
        for unit in ("episodes", "steps"):
            for goal, values, ended in zip(labels(measured), measured[unit].T, measured["ended"].T):
                label = f"{unit} until converged, {method}, {goal}"
                note = f"median; quartiles {np.quantile(values, 0.25):.0f} and {np.quantile(values, 0.75):.0f}"
                if not ended.all():
                    note += f"; {np.sum(~ended)} of {len(ended)} runs had not when learning ended"
                made.append(Row.measured(label, values, statistic="median", unit="runs", note=note))
    return made


def threshold_rows(learned: Found) -> list[Row]:
    """How the ratio of intra-option to flat Q-learning depends on what counts as converged."""
    made = []
    for near in OTHERS:
        by_goal = ratios_by_goal(learned, INTRA, f"episodes within {near:g}")
        unfinished = {method: np.sum(~learned[method][f"ended within {near:g}"]) for method in (FLAT, INTRA)}
        drawn = [row for label, row in by_goal.items() if label not in GOALS]
        named = {label: by_goal[label] for label in GOALS} | ({"random goals": together(drawn)} if drawn else {})
        note = "α as tuned for 1.2"
        if any(unfinished.values()):
            counts = ", ".join(f"{count} of {method}" for method, count in unfinished.items())
            note += f"; runs that had not when learning ended: {counts}"
        for label, row in named.items():
            made.append(replace(row, label=f"flat / {INTRA}, episodes until within {near:g}, {label}", note=note))
    return made


def tuning_rows(method: str, tuning: Measured) -> list[Row]:
    made, by_alpha = [], np.exp(medians(tuning)).T
    for j, (alpha, values) in enumerate(zip(tuning["alphas"], by_alpha)):
        converged = tuning["ended"][:, :, j].mean()
        note = f"geometric mean over {len(values)} goals of the median episodes; {converged:.0%} converged"
        note += "; chosen" if alpha == chosen(tuning) else ""
        label = f"tuning, {method}, α = {'1' if alpha == 1 else f'1/{1 / alpha:.0f}'}"
        made.append(Row.measured(label, values, statistic="geometric mean", unit="goals", note=note))
    return made


# Picture


def draw(found: Found) -> dict[str, Any]:
    """Above: learning curves for G1 and G2, and the goals on the map. Below: the ratio by goal."""
    import matplotlib.pyplot as plt

    learned = {method: found[method] for method in SETS if method in found}
    if not {FLAT, INTRA} <= learned.keys():
        return {}
    ratios = {method: ratios_by_goal(learned, method, "episodes") for method in COMPARED if method in learned}
    figure = plt.figure(figsize=(12.5, 8.4))
    grid = figure.add_gridspec(2, 3, height_ratios=(1, 1.05), width_ratios=(1, 1, 0.95))
    left = figure.add_subplot(grid[0, 0])
    for i, goal in enumerate(GOALS):
        ax = left if i == 0 else figure.add_subplot(grid[0, 1], sharey=left)
        learning_curves(ax, learned, goal)
    left.set_ylabel("greedy policy: expected steps / fewest")
    left.legend(loc="upper right", fontsize=9)
    goal_map(figure.add_subplot(grid[0, 2]), ratios[INTRA])
    ratios_by_method(figure.add_subplot(grid[1, :]), ratios, len(learned[FLAT]["episodes"]))
    return {"": figure}


def learning_curves(ax: Any, learned: Found, goal: str) -> None:
    """Exact expected steps of the greedy policy against episodes, as far as nine in ten runs have come: median over
    runs, band: the middle half."""
    for method, measured in learned.items():
        named = [label for label in labels(measured) if label in GOALS]
        if goal in named:
            curves = measured["curve"][:, named.index(goal)]
            seen = np.isfinite(curves).mean(axis=0) >= 0.9
            low, middle, high = np.nanquantile(curves[:, seen], [0.25, 0.5, 0.75], axis=0)
            ax.fill_between(SHOWN[seen], low, high, color=colour(method), alpha=0.2, lw=0)
            ax.plot(SHOWN[seen], middle, color=colour(method), lw=1.7, label=method)
    ax.axhline(NEAR, color="0.2", lw=1, ls="--", label="converged: 1.2")
    ax.set(xscale="log", yscale="log", xlabel="episode", ylim=(0.95, 60), xlim=(1, 1000), title=f"goal {goal}")
    ax.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    ax.minorticks_off()


def goal_map(ax: Any, ratios: dict[str, Row]) -> None:
    """The ratio in episodes of intra-option to flat Q-learning, in the cell of each goal."""
    env = FourRooms()
    cells = {label: cell for cell in goal_cells() if (label := label_of(cell)) in ratios}
    values = np.full(NUM_CELLS, np.nan)
    for label, cell in cells.items():
        values[cell] = np.log(max(ratios[label].ours, 0.01))
    env.draw(ax, env.default_params.replace(goal=np.int32(-1), start=START), values=values)
    for label, cell in cells.items():
        row, column = cell_coordinates(cell)
        weight = "bold" if label in GOALS else "normal"
        text = f"{ratios[label].ours:.1f}"
        ax.text(column, row, text, ha="center", va="center", fontsize=7.5, weight=weight)
    ax.grid(False)
    ax.set_title("the ratio below by goal, for intra-option Q, A ∪ H\n(bold: G1 and G2; square: start)", fontsize=10)


def ratios_by_method(ax: Any, ratios: dict[str, dict[str, Row]], runs: int) -> None:
    """The ratio in episodes of each method to flat Q-learning, by goal."""
    drawn = [label for label in ratios[INTRA] if label not in GOALS]
    order = [*GOALS, *sorted(drawn, key=lambda label: ratios[INTRA][label].ours)]
    ax.axhspan(*CLAIM, color="#f3d9a4", alpha=0.55, lw=0, label="the claim: 3 to 5")
    ax.axhline(1, color="0.35", lw=1, label="as fast as flat Q")
    for shift, (method, by_goal) in zip((-0.2, 0.0, 0.2), ratios.items()):
        x = np.array([order.index(label) for label in by_goal]) + shift
        with_intervals(ax, x, [*by_goal.values()], colour(method), method, fmt="o", ms=5, lw=1.4, capsize=2.5)
    ax.axvline(1.5, color="0.7", lw=0.8)
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50) if low <= t <= high]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.set_xticks(range(len(order)), order, rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set(xlim=(-0.6, len(order) - 0.4), xlabel="goal: the paper's two, then random cells (row, column)")
    ax.grid(axis="x", visible=False)
    ax.set_ylabel("how many times fewer episodes\nthan flat Q-learning")
    ax.set_title(f"episodes until within 1.2 of the fewest steps: ratio of medians of {runs} runs, 95 % intervals")
    ax.legend(loc="upper left", ncols=5, fontsize=9)
    ax.set_ylim(low, high * 1.25)


def about(found: Found) -> dict[str, Any]:
    learned = {method: found[method] for method in SETS if method in found}
    columns = {m: dict(zip(labels(x), zip(x["fewest"], x["best"]))) for m, x in learned.items()}
    return {
        "step_sizes": {method: float(measured["alpha"]) for method, measured in learned.items()},
        "goals": [
            {
                "label": label,
                "fewest_steps": float(next(c[label][0] for c in columns.values() if label in c)),
                "best_steps": {method: float(c[label][1]) for method, c in columns.items() if label in c},
            }
            for label in dict.fromkeys(label for c in columns.values() for label in c)
        ],
    }


FIGURE = Figure(
    name="options_claim",
    paper="told of Sutton, Precup & Singh, Between MDPs and semi-MDPs, Artificial Intelligence 112, 1999; not in it",
    shows="intra-option Q-learning with hallway options is 3 to 5 times faster than flat Q-learning, and they transfer",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=100,
    threads=2,
    minutes=18,
    about=about,
)
