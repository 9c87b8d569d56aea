"""A claim of tutorials about options in four rooms, measured.

    python -m benchmarks.papers.options_claim                  # a quarter of an hour on two cores
    python -m benchmarks.papers.options_claim --scale smoke    # a minute

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
- Ratio: the median over seeds for flat Q-learning through that of the method, 95 % over the seeds; for the random goals
  together the geometric mean, 95 % over the goals.

Verdicts on the claim: "reached" if the interval of the ratio in episodes meets 3 to 5, "short" if it lies below, "more"
if above. Learning ends when nine in ten runs of a method have converged for every goal, or at a time limit; runs that
have not count as if they had at that moment, which is later than any median unless a note says otherwise.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_envs.four_rooms import G1, G2, NUM_CELLS, FourRooms, FourRoomsParams, cell_coordinates, cell_index
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.engine.types import Algorithm, TrainState
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.flat import q_learning
from jaxrl_hier.hierarchical import intra_option_q, smdp_q
from jaxrl_hier.hierarchical.options import option_set

FLAT, SMDP, INTRA, ALONE = "flat Q", "SMDP Q, A ∪ H", "intra-option Q, A ∪ H", "intra-option Q, H"
OPTIONS: dict[str, Literal["primitive", "hallway", "both"]] = {
    FLAT: "primitive",
    INTRA: "both",
    SMDP: "both",
    ALONE: "hallway",
}
GOALS = ("G1", "G2")
START = cell_index(1, 1)
ALPHAS = tuple(2.0**-i for i in range(6))
GAMMA, EPSILON = 0.9, 0.1
NEAR = 1.2  # times the fewest expected steps
OTHERS = (1.5, 2.0)  # other thresholds, reported beside
CLAIM = (3.0, 5.0)


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: a minute, to see that it runs"""
    seeds: int = 100
    """runs of each method for each goal"""
    tuning_seeds: int = 5
    """runs of each method for each goal and α"""
    random_goals: int = 20
    """beside G1 and G2"""
    horizon: int = 240_000
    """steps in the environment after which a run is given up"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


@dataclass
class Task:
    """One goal and what is exact about it."""

    label: str
    cell: int
    fewest: float  # expected steps of the best policy
    best: dict[str, float]  # method -> expected steps of the best policy (discounted) over its options


@dataclass
class Progress:
    """Runs of one method, seen at each check."""

    at: np.ndarray  # [checks] steps
    episodes: np.ndarray  # [checks, cases, seeds] ended so far
    steps: np.ndarray  # [checks, cases, seeds] expected steps of the greedy policy from the start
    seconds: float
    compile_seconds: float


@dataclass
class Converged:
    """How long it took, [cases, seeds]; where it did not happen, the time limit and False in `ended`."""

    episodes: np.ndarray
    steps: np.ndarray
    ended: np.ndarray


def main(arguments: Arguments) -> None:
    smoke = arguments.scale == "smoke"
    seeds, tuning_seeds, random_goals, horizon, alphas = (
        (8, 2, 2, 4000, ALPHAS[2:4])
        if smoke
        else (arguments.seeds, arguments.tuning_seeds, arguments.random_goals, arguments.horizon, ALPHAS)
    )
    begun = time.perf_counter()
    env = FourRooms()
    tasks = make_tasks(env, random_goals)
    solvable = {method: [t for t in tasks if t.best[method] <= NEAR * t.fewest] for method in OPTIONS}

    def measure(method: str) -> tuple[Progress, Progress, float]:
        mine = solvable[method]
        tuning = [(task, alpha) for task in mine for alpha in alphas]
        tuned = learn(env, method, tuning, tuning_seeds, horizon, seed=1)
        alpha = alphas[int(np.argmin(sweep(tuned, mine, alphas)))]
        return tuned, learn(env, method, [(task, alpha) for task in mine], seeds, horizon, seed=0), alpha

    found = {method: measure(method) for method in OPTIONS}
    wall = time.perf_counter() - begun

    progress = {method: found[method][1] for method in OPTIONS}
    rows = claim_rows(progress, solvable, tasks)
    rows += time_rows(progress, solvable) + threshold_rows(progress, solvable, tasks)
    for method in OPTIONS:
        rows += tuning_rows(method, found[method][0], solvable[method], alphas)
    picture(env, progress, solvable, tasks, seeds, arguments.out / "options_claim.png")
    path = write_paper(
        "options_claim",
        "told of Sutton, Precup & Singh, Between MDPs and semi-MDPs, Artificial Intelligence 112, 1999; not in it",
        "intra-option Q-learning with hallway options is 3 to 5 times faster than flat Q-learning, and they transfer",
        rows,
        arguments.scale,
        arguments.out,
        seeds=seeds,
        tuning_seeds=tuning_seeds,
        horizon=horizon,
        definition=" ".join((__doc__ or "").split("Here:")[1].split("Verdicts")[0].split()),
        step_sizes={method: found[method][2] for method in OPTIONS},
        goals=[{"label": t.label, "fewest_steps": t.fewest, "best_steps": t.best} for t in tasks],
        wall_seconds=wall,
        compile_seconds=sum(p.compile_seconds for tuned, last, _ in found.values() for p in (tuned, last)),
    )
    show(rows)
    print(f"{wall:.0f} s\n{path}")


def make_tasks(env: FourRooms, random_goals: int) -> list[Task]:
    named = {"G1": int(cell_index(*G1)), "G2": int(cell_index(*G2))}
    rest = np.array([c for c in range(NUM_CELLS) if c != START and c not in named.values()])
    drawn = np.sort(np.random.default_rng(0).choice(rest, random_goals, replace=False))
    cells = named | {"({}, {})".format(*cell_coordinates(int(cell))): int(cell) for cell in drawn}

    def task(label: str, cell: int) -> Task:
        params = goal_params(env, cell)
        P, R = env.model(params)
        best = {}
        for method in OPTIONS:
            options = method_options(env, method)
            values = smdp.smdp_optimal_values(
                smdp.option_models(P, R, options, GAMMA), options.initiation, tolerance=1e-12
            )
            policy = tabular.greedy_policy(values, options.initiation.T)
            best[method] = float(smdp.option_expected_steps(P, options, policy)[START])
        return Task(label, cell, float(tabular.minimal_expected_steps(P)[START]), best)

    with jax.enable_x64(True):
        return [task(label, cell) for label, cell in cells.items()]


def goal_params(env: FourRooms, cell: Any) -> FourRoomsParams:
    """Without a time limit, as in the paper."""
    return env.default_params.replace(goal=cell, start=START, max_steps_in_episode=10**8)


# Learning


def make_algorithm(env: FourRooms, method: str, goal: jax.Array, alpha: Any) -> Algorithm:
    tasks = Tasks(sample=lambda key: goal_params(env, goal))
    common: dict[str, Any] = {"step_size": alpha, "epsilon": EPSILON, "discount": GAMMA, "recorded_episodes": 1}
    if method == FLAT:
        return q_learning.make(q_learning.Config(**common), env, tasks)
    if method == SMDP:
        return smdp_q.make(smdp_q.Config(options="both", **common), env, tasks)
    return intra_option_q.make(intra_option_q.Config(options=OPTIONS[method], **common), env, tasks)


def learn(
    env: FourRooms, method: str, cases: list[tuple[Task, float]], seeds: int, horizon: int, seed: int
) -> Progress:
    """All runs of all cases (goal, α) in one program, until most have converged or `horizon` steps are over."""
    begun = time.perf_counter()
    goals = jnp.repeat(jnp.array([task.cell for task, _ in cases], jnp.int32), seeds)
    alphas = jnp.repeat(jnp.array([alpha for _, alpha in cases]), seeds)
    keys = jax.random.split(jax.random.key(seed), len(goals))
    shape = (len(cases), seeds)
    fewest = np.array([[task.fewest] for task, _ in cases])
    models = run_models(env, method, jnp.array([task.cell for task, _ in cases], jnp.int32))

    def advance(state: TrainState, steps: jax.Array, models: Any) -> tuple[TrainState, jax.Array]:
        step = jax.vmap(lambda state, goal, alpha: make_algorithm(env, method, goal, alpha).step(state)[0])
        state = jax.lax.fori_loop(0, steps, lambda i, state: step(state, goals, alphas), state)
        return state, greedy_steps(env, method, state.params.reshape(*shape, *state.params.shape[1:]), models)

    init = jax.vmap(lambda goal, alpha, key: make_algorithm(env, method, goal, alpha).init(key))
    state = jax.jit(init)(goals, alphas, keys)
    compiled = jax.jit(advance, donate_argnums=0).lower(state, jnp.int32(0), models).compile()
    compile_seconds = time.perf_counter() - begun

    at, episodes, steps, done = [0], [np.zeros(shape, int)], [np.full(shape, np.inf)], np.zeros(shape, bool)
    # a median needs no more than half; the last few would take as long as all the others
    while at[-1] < horizon and done.mean(axis=1).min() < 0.9:
        check = max(50, int(at[-1] * 1.125))
        state, measured = compiled(state, jnp.int32(check - at[-1]), models)
        at.append(check)
        episodes.append(np.asarray(state.memory.count).reshape(shape))
        # a system that is near to singular, of a policy that takes for ever, may be solved by anything
        steps.append(np.where(measured >= 0.99 * fewest, measured, np.inf))
        done |= (steps[-1] <= NEAR * fewest) & (steps[-2] <= NEAR * fewest)
    seconds = time.perf_counter() - begun - compile_seconds
    return Progress(np.array(at[1:]), np.array(episodes[1:]), np.array(steps[1:]), seconds, compile_seconds)


def run_models(env: FourRooms, method: str, goals: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Durations [cases, O, S] of the options and where they stop, [cases, O, S, S'], before the goal.

    Both depend on the goal but not on what is learned: solved for once, for all checks.
    """
    options = method_options(env, method)

    def runs(goal: jax.Array) -> tuple[jax.Array, jax.Array]:
        P, R = env.model(goal_params(env, goal))
        # these options stop for sure, so that γ = 1 gives the probabilities of where
        stops_in = smdp.option_models(P, R, options, 1.0).transition
        return smdp.option_durations(P, options), stops_in.at[:, :, goal].set(0.0)

    return jax.jit(lambda goals: jax.lax.map(runs, goals))(goals)


def greedy_steps(env: FourRooms, method: str, q: jax.Array, models: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Exact expected steps from the start, [cases, seeds], of the greedy policies for q [cases, seeds, S, O]."""
    available = method_options(env, method).initiation.T

    def from_start(q: jax.Array, durations: jax.Array, stops_in: jax.Array) -> jax.Array:
        policy = tabular.greedy_policy(q, available, tolerance=0.0)
        chain = jnp.einsum("so,ost->st", policy, stops_in)
        cost = jnp.sum(jnp.where(policy > 0, policy * durations.T, 0.0), axis=1)
        return jnp.linalg.solve(jnp.eye(NUM_CELLS) - chain, cost)[START]

    return jax.vmap(jax.vmap(from_start, (0, None, None)))(q, *models)


def method_options(env: FourRooms, method: str) -> Options:
    return option_set(OPTIONS[method], None, env, Tasks(sample=lambda key: env.default_params))


def convergence(progress: Progress, tasks: list[Task], near: float = NEAR) -> Converged:
    """The first check that finds the greedy policy within `near` of the fewest steps, as does the next one."""
    good = progress.steps <= near * np.array([[task.fewest] for task in tasks])
    stays = good[:-1] & good[1:]
    ended = np.asarray(stays.any(axis=0))
    first = np.where(ended, stays.argmax(axis=0), len(progress.at) - 1)
    episodes = np.take_along_axis(progress.episodes, first[None], axis=0)[0]
    return Converged(episodes, progress.at[first], ended)


def sweep(tuned: Progress, tasks: list[Task], alphas: tuple[float, ...]) -> np.ndarray:
    """Geometric mean over the goals of the median episodes until converged, [α]."""
    result = convergence(tuned, [task for task in tasks for _ in alphas])
    medians = np.median(result.episodes, axis=1).reshape(len(tasks), len(alphas))
    return np.exp(np.log(np.maximum(medians, 1)).mean(axis=0))


# Rows


def ratio(flat: np.ndarray, ours: np.ndarray) -> Row:
    """Flat Q-learning's median through a method's, without a label."""
    return Row.measured("", flat, ours, statistic="ratio of medians", unit="runs")


def together(ratios: list[Row]) -> Row:
    """Geometric mean over goals."""
    return Row.measured("", [row.ours for row in ratios], statistic="geometric mean", unit="goals")


def ratios_by_goal(
    progress: dict[str, Progress], solvable: dict[str, list[Task]], method: str, what: str, near: float = NEAR
) -> dict[str, Row]:
    """Goal -> ratio in "episodes" or "steps", for the goals that the method can solve."""
    flat_tasks = [t.label for t in solvable[FLAT]]
    flat = getattr(convergence(progress[FLAT], solvable[FLAT], near), what)
    ours = getattr(convergence(progress[method], solvable[method], near), what)
    labels = [t.label for t in solvable[method]]
    return {label: ratio(flat[flat_tasks.index(label)], ours[i]) for i, label in enumerate(labels)}


CLAIMED = f"meets {CLAIM[0]} {CLAIM[1]}"


def claim_rows(progress: dict[str, Progress], solvable: dict[str, list[Task]], tasks: list[Task]) -> list[Row]:
    rows = []
    for method in (INTRA, SMDP, ALONE):
        episodes = ratios_by_goal(progress, solvable, method, "episodes")
        steps = ratios_by_goal(progress, solvable, method, "steps")
        drawn = [label for label in episodes if label not in GOALS]
        # the claim is about episodes or steps, it does not say; the verdict is on episodes
        for row in episodes.values():
            row.judged(CLAIMED)
        for unit, ratios in (("episodes", episodes), ("steps", steps)):
            named = {label: row for label, row in ratios.items() if label in GOALS}
            if drawn:
                named["random goals"] = together([ratios[label] for label in drawn])
                named["random goals"].note = summary([ratios[label] for label in drawn], len(tasks) - len(GOALS))
            if unit == "episodes" and drawn:
                named["random goals"].judged(CLAIMED)
            rows += [replace(row, label=f"flat / {method}, {unit}, {label}") for label, row in named.items()]
        for label in drawn:
            row = replace(episodes[label], label=f"flat / {method}, episodes, goal {label}")
            row.note = f"in steps {steps[label].ours:.2f}"
            rows.append(row)
    return rows


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


def time_rows(progress: dict[str, Progress], solvable: dict[str, list[Task]]) -> list[Row]:
    """Medians, by method and goal."""
    rows = []
    for method, seen in progress.items():
        result = convergence(seen, solvable[method])
        for unit in ("episodes", "steps"):
            for task, values, ended in zip(solvable[method], getattr(result, unit), result.ended):
                label = f"{unit} until converged, {method}, {task.label}"
                note = f"median; quartiles {np.quantile(values, 0.25):.0f} and {np.quantile(values, 0.75):.0f}"
                if not ended.all():
                    note += f"; {np.sum(~ended)} of {len(ended)} runs had not when learning ended"
                rows.append(Row.measured(label, values, statistic="median", unit="runs", note=note))
    return rows


def threshold_rows(progress: dict[str, Progress], solvable: dict[str, list[Task]], tasks: list[Task]) -> list[Row]:
    """How the ratio of intra-option to flat Q-learning depends on what counts as converged."""
    rows = []
    for near in OTHERS:
        by_goal = ratios_by_goal(progress, solvable, INTRA, "episodes", near)
        unfinished = {m: np.sum(~convergence(progress[m], tasks, near).ended) for m in (FLAT, INTRA)}
        drawn = [r for label, r in by_goal.items() if label not in GOALS]
        named = {label: by_goal[label] for label in GOALS} | ({"random goals": together(drawn)} if drawn else {})
        note = "α as tuned for 1.2"
        if any(unfinished.values()):
            counts = ", ".join(f"{count} of {method}" for method, count in unfinished.items())
            note += f"; runs that had not when learning ended: {counts}"
        for label, row in named.items():
            rows.append(replace(row, label=f"flat / {INTRA}, episodes until within {near:g}, {label}", note=note))
    return rows


def tuning_rows(method: str, tuned: Progress, tasks: list[Task], alphas: tuple[float, ...]) -> list[Row]:
    result = convergence(tuned, [task for task in tasks for _ in alphas])
    by_alpha = result.episodes.reshape(len(tasks), len(alphas), -1)
    ended = result.ended.reshape(len(tasks), len(alphas), -1)
    scores, rows = sweep(tuned, tasks, alphas), []
    for j, alpha in enumerate(alphas):
        note = f"geometric mean over {len(tasks)} goals of the median episodes; {ended[:, j].mean():.0%} converged"
        note += "; chosen" if j == int(np.argmin(scores)) else ""
        label = f"tuning, {method}, α = {'1' if alpha == 1 else f'1/{1 / alpha:.0f}'}"
        medians = np.maximum(np.median(by_alpha[:, j], axis=1), 1)
        rows.append(Row.measured(label, medians, statistic="geometric mean", unit="goals", note=note))
    return rows


# Picture

COLORS = {FLAT: "0.35", SMDP: "#6aa84f", INTRA: "#1f6fb4", ALONE: "#e8710a"}


def picture(
    env: FourRooms,
    progress: dict[str, Progress],
    solvable: dict[str, list[Task]],
    tasks: list[Task],
    seeds: int,
    path: Path,
) -> None:
    """Above: learning curves for G1 and G2, and the goals on the map. Below: the ratio by goal."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE

    ratios = {m: ratios_by_goal(progress, solvable, m, "episodes") for m in (INTRA, SMDP, ALONE)}
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(12.5, 8.4))
        grid = figure.add_gridspec(2, 3, height_ratios=(1, 1.05), width_ratios=(1, 1, 0.95))
        left = figure.add_subplot(grid[0, 0])
        for i, goal in enumerate(GOALS):
            ax = left if i == 0 else figure.add_subplot(grid[0, 1], sharey=left)
            learning_curves(ax, progress, solvable, goal)
            ax.set_title(f"goal {goal}")
        left.set_ylabel("greedy policy: expected steps / fewest")
        left.legend(loc="upper right", fontsize=9)
        goal_map(figure.add_subplot(grid[0, 2]), env, ratios[INTRA], tasks)

        ax = figure.add_subplot(grid[1, :])
        drawn = sorted((t.label for t in tasks if t.label not in GOALS), key=lambda label: ratios[INTRA][label].ours)
        order = [*GOALS, *drawn]
        ax.axhspan(*CLAIM, color="#f3d9a4", alpha=0.55, lw=0, label="the claim: 3 to 5")
        ax.axhline(1, color="0.35", lw=1)
        for shift, (method, by_goal) in zip((-0.2, 0.0, 0.2), ratios.items()):
            x = np.array([order.index(label) for label in by_goal]) + shift
            value = np.array([row.ours for row in by_goal.values()])
            error = np.abs(np.array([row.interval or (np.nan, np.nan) for row in by_goal.values()]).T - value)
            ax.errorbar(x, value, error, fmt="o", ms=5, lw=1.4, capsize=2.5, color=COLORS[method], label=method)
        ax.axvline(1.5, color="0.7", lw=0.8)
        ax.set_yscale("log")
        ticks = [0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50]
        low, high = ax.get_ylim()
        ax.set_yticks([t for t in ticks if low <= t <= high], [f"{t:g}" for t in ticks if low <= t <= high])
        ax.minorticks_off()
        ax.set_xticks(range(len(order)), order, rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
        ax.set(xlim=(-0.6, len(order) - 0.4), xlabel="goal: the paper's two, then random cells (row, column)")
        ax.grid(axis="x", visible=False)
        ax.set_ylabel("how many times fewer episodes\nthan flat Q-learning")
        ax.set_title(f"episodes until within 1.2 of the fewest steps: ratio of medians of {seeds} runs, 95 % intervals")
        ax.legend(loc="upper left", ncols=4, fontsize=9)
        ax.set_ylim(low, high * 1.25)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def learning_curves(ax: Any, progress: dict[str, Progress], solvable: dict[str, list[Task]], goal: str) -> None:
    """Exact expected steps of the greedy policy against episodes: median over runs, band: the middle half."""
    for method, seen in progress.items():
        labels = [t.label for t in solvable[method]]
        if goal not in labels:
            continue
        i = labels.index(goal)
        # 1 + episodes, as the first check comes before the first episode has ended
        x = 1 + seen.episodes[:, i].mean(axis=1)
        low, middle, high = np.quantile(seen.steps[:, i] / solvable[method][i].fewest, [0.25, 0.5, 0.75], axis=1)
        ax.fill_between(x, low, high, color=COLORS[method], alpha=0.2, lw=0)
        ax.plot(x, middle, color=COLORS[method], lw=1.7, label=method)
    ax.axhline(NEAR, color="0.2", lw=1, ls="--")
    ax.text(0.985, NEAR * 1.03, "1.2", transform=ax.get_yaxis_transform(), ha="right", va="bottom", fontsize=9)
    ax.set(xscale="log", yscale="log", xlabel="episode", ylim=(0.95, 60), xlim=(1, 1000))
    ax.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    ax.minorticks_off()


def goal_map(ax: Any, env: FourRooms, ratios: dict[str, Row], tasks: list[Task]) -> None:
    """The ratio in episodes of intra-option to flat Q-learning, in the cell of each goal."""
    values = np.full(NUM_CELLS, np.nan)
    for task in tasks:
        values[task.cell] = np.log(ratios[task.label].ours)
    env.draw(ax, env.default_params.replace(goal=np.int32(-1), start=START), values=values)
    for task in tasks:
        row, col = cell_coordinates(task.cell)
        weight = "bold" if task.label in GOALS else "normal"
        ax.text(col, row, f"{ratios[task.label].ours:.1f}", ha="center", va="center", fontsize=7.5, weight=weight)
    ax.grid(False)
    ax.set_title("that ratio by goal, for intra-option Q, A ∪ H\n(bold: G1 and G2; square: start)", fontsize=10)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
