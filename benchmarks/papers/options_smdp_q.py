"""SMDP Q-learning in four rooms: Sutton, Precup & Singh (Artificial Intelligence 112, 1999), figure 6.

Steps per episode while learning with the primitive actions (A), the eight hallway options (H) and both (A ∪ H), to the
goals G1 (the east hallway) and G2 (in the lower right room, two cells below it), from the upper left corner. As in the
paper: 30 runs of 10 000 episodes, ε = .1, Q = 0 at first, γ = .9, α = 1/8 but 1/16 for H at G1 and 1/4 for A ∪ H at G2.
The curves are means over stretches of episodes, forty for each factor of ten.

The paper prints no numbers for this figure. What there is to compare with, `exact` in the rows, is computed from its
specification:

- The first episode is a random walk, since nothing is known before the first reward. 1000 more runs of one episode
  measure its mean; "reached" means within 3 standard errors.
- The best policy over a set of options is what can be learned. The greedy policy of each run at its end is evaluated
  exactly, and compared with it. The learning curves stay above, as one choice in ten is random; they are compared with
  the best policy with such choices, which, of several equally good options, takes the longest: it chooses less often.
  "reached": the interval holds the reference or lies below it. A constant α keeps the values moving, so that many runs
  end a little above; the notes give the ratios.
- What the paper says about the figure in words.

Editions differ on the exceptions from α = 1/8, so that powers of two are swept too, with other seeds and 1000 episodes.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxrl_envs.four_rooms import G1, G2, FourRooms, cell_index
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.engine.types import Algorithm
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.hierarchical import smdp_q

from ..drawing import colour, curve, subplots, with_intervals
from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row
from ._options import GAMMA, NAMES, OPTIONS, SPS, Runs, options_of

GOALS = {"G1": cell_index(*G1), "G2": cell_index(*G2)}
PAPERS_ALPHA = {("H", "G1"): 1 / 16, ("A ∪ H", "G2"): 1 / 4}  # 1/8 in the other four
ALPHAS = tuple(2.0**-i for i in range(1, 7))  # swept
EPSILON = 0.1
LOOK = 5000  # steps between looks at which runs are done
LAST = 1000  # episodes that count as the plateau


def papers_alpha(name: str, goal: str) -> float:
    return PAPERS_ALPHA.get((name, goal), 1 / 8)


def parts(scale: Scale) -> dict[str, Computation]:
    smoke, found = scale == "smoke", {}
    for name in ["H"] if smoke else OPTIONS:
        about = {"options": name}
        found[f"{name}, exact"] = Computation(exactly, about, seeds=0)
        first_runs = 20 if smoke else 1000
        found[f"{name}, first episode"] = Computation(first_episode, about, seeds=first_runs, first_seed=10_000)
        episodes = {"episodes": 100 if smoke else 10_000}
        found[f"{name}, learning"] = Computation(learn, about | episodes, shared=("edges",))
        sweep = {"episodes": 20 if smoke else 1000, "alphas": ALPHAS[2:4] if smoke else ALPHAS}
        found[f"{name}, α sweep"] = Computation(sweep_alpha, about | sweep, first_seed=20_000)
    return found


# What is measured, for one set of options


def exactly(options: str) -> dict[str, Any]:
    """Expected steps from the start to each goal [goals]: "first", choosing uniformly among what can start; "best",
    maximising the discounted return; "exploring", the same with one choice in ten at random and, of equally good
    options, the longest; "fewest", of any policy over actions."""
    found: dict[str, list[float]] = {"first": [], "best": [], "exploring": [], "fewest": []}
    with jax.enable_x64(True):
        env, over = FourRooms(), options_of(options)
        for goal in GOALS.values():
            params = env.default_params.replace(goal=goal)
            P, R = env.model(params)
            uniform = smdp.uniform_over_available(over.initiation)
            models = smdp.option_models(P, R, over, GAMMA)
            best = smdp.smdp_optimal_values(models, over.initiation, tolerance=1e-12)
            greedy = tabular.greedy_policy(best, over.initiation.T)
            longest = tabular.greedy_policy(smdp.option_durations(P, over).T, greedy > 0)
            exploring = (1 - EPSILON) * longest + EPSILON * uniform
            for name, policy in {"first": uniform, "best": greedy, "exploring": exploring}.items():
                found[name].append(float(smdp.option_expected_steps(P, over, policy)[params.start]))
            found["fewest"].append(float(tabular.minimal_expected_steps(P)[params.start]))
    return {name: np.array(x) for name, x in found.items()}


def learner(options: str, episodes: int) -> Any:
    """An algorithm from a goal and a step size, which records so many episodes."""

    def make(goal: Any, alpha: Any) -> Algorithm:
        env = FourRooms()
        # the paper has no time limit
        task = env.default_params.replace(goal=goal, max_steps_in_episode=10**8)
        config = smdp_q.Config(
            OPTIONS[options], step_size=alpha, epsilon=EPSILON, discount=GAMMA, recorded_episodes=episodes
        )
        return smdp_q.make(config, env, Tasks(sample=lambda key: task))

    return make


def with_papers_alpha(options: str) -> list[dict[str, Any]]:
    return [{"goal": cell, "alpha": papers_alpha(options, goal)} for goal, cell in GOALS.items()]


def first_episode(seeds: Sequence[int], options: str) -> dict[str, Any]:
    """Its "steps" [seeds, goals]."""
    runs = Runs(learner(options, 1), with_papers_alpha(options), seeds)
    lengths = runs.by_seed(runs.until(1, LOOK).memory.lengths)[:, :, 0, 0]
    return {"steps": lengths, "compile_seconds": runs.compile_seconds}


def learn(seeds: Sequence[int], options: str, episodes: int) -> dict[str, Any]:
    """With the paper's α: "steps" per episode [seeds, goals, stretches], means over stretches of episodes that end at
    "edges"; "greedy" [seeds, goals], exact expected steps of the greedy policy at the end."""
    settings = with_papers_alpha(options)
    runs = Runs(learner(options, episodes), settings, seeds)
    state = runs.until(episodes, LOOK)
    edges = stretches(episodes)
    lengths = runs.by_seed(state.memory.lengths)[:, :, 0]
    evaluate = lambda state, goal, alpha: learner(options, episodes)(goal, alpha).evaluate(state, state.key)
    columns = [np.tile([s[name] for s in settings], len(seeds)) for name in ("goal", "alpha")]
    greedy = jax.jit(jax.vmap(lambda *about: evaluate(*about)["steps"].values[0]))(state, *columns)
    return {
        "steps": np.add.reduceat(lengths, edges[:-1], axis=2) / np.diff(edges),
        "edges": edges,
        "greedy": runs.by_seed(greedy),
        "compile_seconds": runs.compile_seconds,
    }


def stretches(episodes: int) -> np.ndarray:
    """Where stretches of episodes begin and end: forty for each factor of ten, and one begins with the plateau."""
    grown = np.round(10 ** (np.arange(40 * np.log10(episodes) + 1) / 40)).astype(int)
    return np.unique([0, max(0, episodes - LAST), episodes, *grown])


def sweep_alpha(seeds: Sequence[int], options: str, episodes: int, alphas: tuple[float, ...]) -> dict[str, Any]:
    """Steps per episode [seeds, goals, α]: "steps" over all episodes, "late" over the last 200."""
    settings: list[dict[str, Any]] = [{"goal": goal, "alpha": alpha} for goal in GOALS.values() for alpha in alphas]
    runs = Runs(learner(options, episodes), settings, seeds)
    lengths = runs.by_seed(runs.until(episodes, LOOK).memory.lengths).reshape(len(seeds), len(GOALS), len(alphas), -1)
    about = {"alphas": np.tile(alphas, (len(seeds), 1)), "compile_seconds": runs.compile_seconds}
    return {"steps": lengths.mean(axis=3), "late": lengths[..., -200:].mean(axis=3)} | about


# Rows


def rows(found: Found) -> list[Row]:
    return [*first_rows(found), *claim_rows(found), *limit_rows(found), *phase_rows(found), *sweep_rows(found)]


def of_each(found: Found, part: str) -> list[tuple[str, int, str, Measured]]:
    """Set of options, number and name of the goal, and what a part has found of them."""
    there = [(name, found[f"{name}, {part}"]) for name in OPTIONS if f"{name}, {part}" in found]
    return [(name, i, goal, measured) for name, measured in there for i, goal in enumerate(GOALS)]


def first_rows(found: Found) -> list[Row]:
    made = []
    for name, i, goal, measured in of_each(found, "first episode"):
        values, expected = measured["steps"][:, i], float(found[f"{name}, exact"]["first"][i])
        row = Row.measured(f"first episode, {name}, {goal}", values, exact=expected, unit="runs")
        z = (row.ours - expected) / (values.std(ddof=1) / len(values) ** 0.5)
        row.verdict = "reached" if abs(z) < 3 else "short"
        row.note = f"steps; {z:+.2f} standard errors from the expectation"
        made.append(row)
    return made


def mean_between(measured: Measured, goal: int, begin: int, end: int) -> np.ndarray:
    """Mean steps of the episodes begin + 1, …, end, [seeds]; both are edges of stretches."""
    edges = measured["edges"]
    within = (edges[:-1] >= begin) & (edges[1:] <= end)
    return np.average(measured["steps"][:, goal, within], axis=1, weights=np.diff(edges)[within])


def limit_rows(found: Found) -> list[Row]:
    made = []
    for name, i, goal, measured in sorted(of_each(found, "learning"), key=lambda about: about[1]):
        exact = {kind: float(x[i]) for kind, x in found[f"{name}, exact"].items()}
        alpha, greedy = f"α = 1/{1 / papers_alpha(name, goal):.0f}", measured["greedy"][:, i]
        made.append(compared(f"greedy policy at the end, {name}, {goal}", greedy, exact["best"]))
        made[-1].note = (
            f"expected steps, exact for each run's policy; {alpha}; {greedy.mean() / exact['best']:.3f} times the best "
            f"policy over these options; the fewest of any policy over actions is {exact['fewest']:.2f}"
        )
        last = mean_between(measured, i, *plateau(measured))
        made.append(compared(f"last {LAST} episodes while learning, {name}, {goal}", last, exact["exploring"]))
        made[-1].note = (
            f"steps per episode; exact is the best policy over these options with ε = .1 (without: "
            f"{exact['best']:.2f}); {alpha}; {last.mean() / exact['exploring']:.3f} times that"
        )
    return made


def plateau(measured: Measured) -> tuple[int, int]:
    end = measured["edges"][-1]
    return max(0, end - LAST), end


def compared(label: str, values: np.ndarray, exact: float) -> Row:
    """Reached: the interval holds the reference, but for rounding, or lies below it."""
    return Row.measured(label, values, exact=exact, unit="runs", tolerance=1e-4).judged("lower")


def claim_rows(found: Found) -> list[Row]:
    """What the paper says in words, as ratios of mean steps per episode; a ratio below 1 is an advantage of options."""
    first, last, everything = "first 10 episodes", f"last {LAST} episodes", "all episodes"
    claims = [
        ("H", "G1", first, "much quicker from the very first trial on"),
        ("A ∪ H", "G1", first, "much quicker from the very first trial on"),
        ("H", "G2", first, "much quicker from the very first trial on"),
        ("A ∪ H", "G2", first, "much quicker from the very first trial on"),
        ("H", "G1", last, "the advantage persists throughout"),
        ("A ∪ H", "G1", last, "the advantage persists throughout"),
        ("H", "G2", last, "worse in the long run, as H can not express the best policy"),
        ("A ∪ H", "G2", everything, "an advantage over A, though a smaller one than at G1"),
        ("A ∪ H", "G2", last, "an advantage over A, though a smaller one than at G1"),
    ]
    made = []
    for name, goal, part, claim in claims:
        both = [found.get(f"{options}, learning") for options in (name, "A")]
        if both[0] is None or both[1] is None:
            continue
        span = {first: (0, 10), last: plateau(both[0]), everything: (0, both[0]["edges"][-1])}[part]
        ours, flat = (mean_between(measured, [*GOALS].index(goal), *span) for measured in both if measured)
        note = f"the paper: {claim}. Steps per episode {ours.mean():.2f} and {flat.mean():.2f}"
        row = Row.measured(f"claim: {name} / A, {goal}, {part}", ours, flat, statistic="ratio", unit="runs", note=note)
        made.append(row.judged("above 1" if claim.startswith("worse") else "below 1"))
    return made


def phase_rows(found: Found) -> list[Row]:
    """The learning curves in a few numbers."""
    made = []
    for name, i, goal, measured in of_each(found, "learning"):
        ends = [end for end in (0, 1, 10, 100, 1000, 10_000) if end <= measured["edges"][-1]]
        for begin, end in itertools.pairwise(ends):
            label = f"steps per episode, {name}, {goal}, episode{'s' if end > 1 else ''} {begin + 1}–{end}"
            means = mean_between(measured, i, begin, end)
            made.append(Row.measured(label.replace(" 1–1", " 1"), means, unit="runs"))
    return made


def sweep_rows(found: Found) -> list[Row]:
    made = []
    for name, i, goal, measured in of_each(found, "α sweep"):
        alphas, steps = [*measured["alphas"][0]], measured["steps"][:, i].T  # [α, seeds]
        best = int(np.argmin(steps.mean(axis=1)))
        if (alpha := papers_alpha(name, goal)) in alphas:
            papers = alphas.index(alpha)
            label = f"α sweep, {name}, {goal}: the paper's 1/{1 / alpha:.0f} against the best"
            note = f"ratio of steps per episode; the best of the sweep is 1/{1 / alphas[best]:.0f}"
            row = Row.computed(label, 1.0, note="the paper's α is the best of the sweep")
            if best != papers:
                row = Row.measured(label, steps[papers], steps[best], statistic="ratio", unit="runs", note=note)
            made.append(row)
        for j, alpha in enumerate(alphas):
            row = Row.measured(f"α sweep, {name}, {goal}, α = 1/{1 / alpha:.0f}", steps[j], unit="runs")
            late = measured["late"][:, i, j].mean()
            row.note = f"steps per episode over all episodes of the sweep; over the last 200 of them {late:.2f}"
            made.append(row)
    return made


# Picture


def draw(found: Found) -> dict[str, Any]:
    """Above: learning curves with exact ends. Below: the sweep of α."""
    figure, axes = subplots(2, 2, figsize=(10.5, 7.6), sharey="row", height_ratios=(1.7, 1))
    titles = ("goal G1, the east hallway", "goal G2, inside the lower right room")
    sweeps = {row.label: row for row in sweep_rows(found)}
    hollow: dict[str, Any] = {"ls": "none", "ms": 7, "mfc": "white", "mew": 1.6}
    for (above, below), title in zip(axes.T, titles):
        above.set(xscale="log", yscale="log", xlim=(0.93, 10_700), ylim=(22, 1100), title=title, xlabel="episode")
        above.set_xticks([1, 10, 100, 1000, 10_000], ["1", "10", "100", "1000", "10 000"])
        above.set_yticks([20, 50, 100, 200, 500, 1000], ["20", "50", "100", "200", "500", "1000"])
        below.set_xscale("log", base=2)
        below.set_yscale("log")
        below.set_xticks(ALPHAS, [f"1/{1 / alpha:.0f}" for alpha in ALPHAS])
        below.set_yticks([30, 40, 50, 60, 80], ["30", "40", "50", "60", "80"])
        below.set(xlabel="step size α (ringed: the paper's)")
        for ax in (above, below):
            ax.minorticks_off()
    for name, i, _, measured in of_each(found, "learning"):
        edges, exact, color = measured["edges"], found[f"{name}, exact"], colour(NAMES[name])
        middle = (edges[:-1] + 1 + edges[1:]) / 2
        curve(axes[0, i], middle, measured["steps"][:, i], NAMES[name], label=f"{name}: {NAMES[name]}")
        axes[0, i].plot(1, exact["first"][i], "D", mec=color, zorder=5, clip_on=False, **hollow)
        axes[0, i].plot(1.16 * edges[-1], exact["exploring"][i], "<", mec=color, clip_on=False, **hollow)
    for name, i, goal, measured in of_each(found, "α sweep"):
        alphas, color = measured["alphas"][0], colour(NAMES[name])
        chosen = [sweeps[f"α sweep, {name}, {goal}, α = 1/{1 / alpha:.0f}"] for alpha in alphas]
        with_intervals(axes[1, i], alphas, chosen, color, ms=4, lw=1.4)
        alpha = papers_alpha(name, goal)
        ringed = [row.ours for row, a in zip(chosen, alphas) if a == alpha]
        axes[1, i].plot([alpha] * len(ringed), ringed, "o", ms=11, mfc="none", mec=color, mew=1.6)
    axes[0, 0].set_ylabel("steps per episode")
    axes[1, 0].set_ylabel("steps per episode,\nmean of the whole sweep")
    axes[0, 0].plot([], [], "D", mec="0.2", **hollow, label="exact expectation of the first episode")
    axes[0, 0].plot([], [], "<", mec="0.2", **hollow, label="best policy over the options with ε = .1, exact")
    axes[0, 0].legend(loc="upper right", fontsize=9)
    return {"": figure}


FIGURE = Figure(
    name="options_smdp_q",
    paper=SPS,
    shows="figure 6 (SMDP Q-learning)",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=30,
    threads=2,
    minutes=3,
)
