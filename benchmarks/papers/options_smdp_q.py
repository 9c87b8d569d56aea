"""SMDP Q-learning in four rooms: Sutton, Precup & Singh (Artificial Intelligence 112, 1999), figure 6.

    python -m benchmarks.papers.options_smdp_q                  # about three minutes on two cores
    python -m benchmarks.papers.options_smdp_q --scale smoke    # about a minute, most of it compiling

Steps per episode while learning with the primitive actions (A), the eight hallway options (H) and both (A ∪ H), to the
goals G1 (the east hallway) and G2 (in the lower right room, two cells below it), from the upper left corner. As in the
paper: 30 runs of 10 000 episodes, ε = .1, Q = 0 at first, γ = .9, α = 1/8 but 1/16 for H at G1 and 1/4 for A ∪ H at G2;
means of 10 episodes after the 100th.

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
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_envs.four_rooms import G1, G2, FourRooms, cell_index
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.engine.types import Algorithm, TrainState
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.hierarchical import smdp_q
from jaxrl_hier.hierarchical.options import option_set
from jaxrl_hier.reports.statistics import band

GOALS = {"G1": cell_index(*G1), "G2": cell_index(*G2)}
SETS: dict[str, Literal["primitive", "hallway", "both"]] = {"A": "primitive", "H": "hallway", "A ∪ H": "both"}
PAPERS_ALPHA = {("H", "G1"): 1 / 16, ("A ∪ H", "G2"): 1 / 4}  # 1/8 in the other four
ALPHAS = tuple(2.0**-i for i in range(1, 7))  # swept
EPSILON, GAMMA = 0.1, 0.9
CHUNK = 5000  # steps between looks at whether all runs are done
LAST = 1000  # episodes that count as the plateau

Curve = tuple[str, str]  # option set, goal


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: about a minute, to see that it runs"""
    runs: int = 30
    """independent runs of each curve"""
    episodes: int = 10_000
    """of each run"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


@dataclass
class Learned:
    """Runs of one option set: for each goal and step size, in the order in which they were asked for."""

    lengths: np.ndarray  # [cases, runs, episodes] steps
    greedy: np.ndarray  # [cases, runs] exact expected steps of the greedy policy at the end; NaN if not asked for
    steps: int  # steps taken by all runs together
    seconds: float
    compile_seconds: float


@dataclass
class Measured:
    """What was run for one option set."""

    curves: Learned  # both goals, the paper's α
    first: Learned  # both goals, one episode
    sweep: Learned  # both goals times ALPHAS


@dataclass
class Exact:
    """Expected steps from the start, of policies over one option set to one goal."""

    first: float  # choosing uniformly among what can start
    best: float  # maximising the discounted return
    exploring: float  # the same, with one choice in ten at random and, of equally good options, the longest
    fewest: float  # of any policy over actions


def main(arguments: Arguments) -> None:
    smoke = arguments.scale == "smoke"
    runs, episodes = (4, 300) if smoke else (arguments.runs, arguments.episodes)
    first_runs, sweep_episodes = (50, 20) if smoke else (1000, 1000)
    begun = time.perf_counter()
    env = FourRooms()
    cases = [(goal, alpha) for goal in GOALS for alpha in ALPHAS]

    def measure(name: str) -> Measured:
        papers = [(goal, papers_alpha(name, goal)) for goal in GOALS]
        return Measured(
            curves=learn(env, name, papers, runs, episodes, seed=0, final=True),
            first=learn(env, name, papers, first_runs, 1, seed=1),
            sweep=learn(env, name, cases, runs, sweep_episodes, seed=2),
        )

    with ThreadPoolExecutor(2) as pool:  # these small programs leave a second core idle
        measured = dict(zip(SETS, pool.map(measure, SETS)))
    wall = time.perf_counter() - begun

    exact = {(name, goal): exactly(env, name, goal) for name in SETS for goal in GOALS}
    lengths = {(name, g): measured[name].curves.lengths[i] for name in SETS for i, g in enumerate(GOALS)}
    rows = first_rows(measured, exact) + claim_rows(lengths)
    rows += limit_rows(measured, lengths, exact) + phase_rows(lengths) + sweep_rows(measured)
    curves = {curve: learning_curve(x) for curve, x in lengths.items()}
    picture(curves, measured, exact, arguments.out / "options_smdp_q.png")

    parts = [part for m in measured.values() for part in (m.curves, m.first, m.sweep)]
    path = write_paper(
        "options_smdp_q",
        "Sutton, Precup & Singh, Between MDPs and semi-MDPs, Artificial Intelligence 112, 1999",
        "figure 6 (SMDP Q-learning)",
        rows,
        arguments.scale,
        arguments.out,
        runs=runs,
        episodes=episodes,
        wall_seconds=wall,
        compile_seconds=sum(part.compile_seconds for part in parts),
        steps=sum(part.steps for part in parts),
        about_seconds="wall: all learning and compiling, two threads; compile: the sum over the threads",
        learning_curves=[thinned(curve, *x) for curve, x in curves.items()],
    )
    show(rows)
    print(f"{wall:.0f} s\n{path}")


def papers_alpha(name: str, goal: str) -> float:
    return PAPERS_ALPHA.get((name, goal), 1 / 8)


# Learning


def learn(
    env: FourRooms,
    name: str,
    cases: list[tuple[str, float]],
    runs: int,
    episodes: int,
    seed: int,
    final: bool = False,
) -> Learned:
    """`runs` runs of each case (goal, α), all in one program, until each has had its episodes.

    Args:
        final: evaluate the greedy policies at the end.
    """
    begun = time.perf_counter()
    goals = jnp.repeat(jnp.array([GOALS[goal] for goal, _ in cases], jnp.int32), runs)
    alphas = jnp.repeat(jnp.array([alpha for _, alpha in cases]), runs)
    keys = jax.random.split(jax.random.key(seed), len(goals))

    def algorithm(goal: jax.Array, alpha: float) -> Algorithm:
        # the paper has no time limit
        task = env.default_params.replace(goal=goal, max_steps_in_episode=10**8)
        config = smdp_q.Config(SETS[name], step_size=alpha, epsilon=EPSILON, discount=GAMMA, recorded_episodes=episodes)
        return smdp_q.make(config, env, Tasks(sample=lambda key: task))

    def chunk(state: TrainState) -> TrainState:
        step = jax.vmap(lambda state, goal, alpha: algorithm(goal, alpha).step(state)[0])
        return jax.lax.fori_loop(0, CHUNK, lambda i, state: step(state, goals, alphas), state)

    def evaluate(state: TrainState, goal: jax.Array, alpha: float) -> jax.Array:
        return algorithm(goal, alpha).evaluate(state, state.key)["steps"].values[0]

    init = jax.vmap(lambda goal, alpha, key: algorithm(goal, alpha).init(key))
    state = jax.jit(init)(goals, alphas, keys)
    compiled = jax.jit(chunk, donate_argnums=0).lower(state).compile()
    compile_seconds = time.perf_counter() - begun
    while int(jnp.min(state.memory.count)) < episodes:
        state = compiled(state)
    greedy = jax.jit(jax.vmap(evaluate))(state, goals, alphas) if final else jnp.full(len(goals), jnp.nan)
    return Learned(
        lengths=np.asarray(state.memory.lengths).reshape(len(cases), runs, episodes),
        greedy=np.asarray(greedy).reshape(len(cases), runs),
        steps=int(state.iteration[0]) * len(goals),
        seconds=time.perf_counter() - begun - compile_seconds,
        compile_seconds=compile_seconds,
    )


def exactly(env: FourRooms, name: str, goal: str) -> Exact:
    with jax.enable_x64(True):
        params = env.default_params.replace(goal=GOALS[goal])
        P, R = env.model(params)
        options = option_set(SETS[name], None, env, Tasks(sample=lambda key: params))
        uniform = smdp.uniform_over_available(options.initiation)
        models = smdp.option_models(P, R, options, GAMMA)
        best = smdp.smdp_optimal_values(models, options.initiation, tolerance=1e-12)
        greedy = tabular.greedy_policy(best, options.initiation.T)
        steps = lambda policy: float(smdp.option_expected_steps(P, options, policy)[params.start])
        longest = tabular.greedy_policy(smdp.option_durations(P, options).T, greedy > 0)
        exploring = (1 - EPSILON) * longest + EPSILON * uniform
        fewest = float(tabular.minimal_expected_steps(P)[params.start])
        return Exact(steps(uniform), steps(greedy), steps(exploring), fewest)


# Rows


def first_rows(measured: dict[str, Measured], exact: dict[Curve, Exact]) -> list[Row]:
    rows = []
    for name, (i, goal) in itertools.product(SETS, enumerate(GOALS)):
        values, expected = measured[name].first.lengths[i, :, 0], exact[name, goal].first
        row = Row.measured(f"first episode, {name}, {goal}", values, exact=expected, unit="runs")
        z = (row.ours - expected) / (values.std(ddof=1) / len(values) ** 0.5)
        row.verdict = "reached" if abs(z) < 3 else "short"
        row.note = f"steps; {z:+.2f} standard errors from the expectation"
        rows.append(row)
    return rows


def limit_rows(measured: dict[str, Measured], lengths: dict[Curve, np.ndarray], exact: dict[Curve, Exact]) -> list[Row]:
    rows = []
    for i, goal in enumerate(GOALS):
        for name in SETS:
            e, alpha = exact[name, goal], f"α = 1/{1 / papers_alpha(name, goal):.0f}"
            greedy = measured[name].curves.greedy[i]
            rows.append(compared(f"greedy policy at the end, {name}, {goal}", greedy, e.best))
            rows[-1].note = (
                f"expected steps, exact for each run's policy; {alpha}; {greedy.mean() / e.best:.3f} times the best "
                f"policy over these options; the fewest of any policy over actions is {e.fewest:.2f}"
            )
            last = lengths[name, goal][:, -LAST:].mean(axis=1)
            rows.append(compared(f"last {LAST} episodes while learning, {name}, {goal}", last, e.exploring))
            rows[-1].note = (
                f"steps per episode; exact is the best policy over these options with ε = .1 (without: {e.best:.2f}); "
                f"{alpha}; {last.mean() / e.exploring:.3f} times that"
            )
    return rows


def compared(label: str, values: np.ndarray, exact: float) -> Row:
    """Reached: the interval holds the reference, but for rounding, or lies below it."""
    return Row.measured(label, values, exact=exact, unit="runs", tolerance=1e-4).judged("lower")


def claim_rows(lengths: dict[Curve, np.ndarray]) -> list[Row]:
    """What the paper says in words, as ratios of mean steps per episode; a ratio below 1 is an advantage of options."""
    last = f"last {LAST} episodes"
    claims = [
        ("H", "G1", "first 10 episodes", "much quicker from the very first trial on"),
        ("A ∪ H", "G1", "first 10 episodes", "much quicker from the very first trial on"),
        ("H", "G2", "first 10 episodes", "much quicker from the very first trial on"),
        ("A ∪ H", "G2", "first 10 episodes", "much quicker from the very first trial on"),
        ("H", "G1", last, "the advantage persists throughout"),
        ("A ∪ H", "G1", last, "the advantage persists throughout"),
        ("H", "G2", last, "worse in the long run, as H can not express the best policy"),
        ("A ∪ H", "G2", "all episodes", "an advantage over A, though a smaller one than at G1"),
        ("A ∪ H", "G2", last, "an advantage over A, though a smaller one than at G1"),
    ]
    parts = {"first 10 episodes": slice(10), last: slice(-LAST, None), "all episodes": slice(None)}
    rows = []
    for name, goal, part, claim in claims:
        ours = lengths[name, goal][:, parts[part]].mean(axis=1)
        flat = lengths["A", goal][:, parts[part]].mean(axis=1)
        note = f"the paper: {claim}. Steps per episode {ours.mean():.2f} and {flat.mean():.2f}"
        row = Row.measured(f"claim: {name} / A, {goal}, {part}", ours, flat, statistic="ratio", unit="runs", note=note)
        rows.append(row.judged("above 1" if claim.startswith("worse") else "below 1"))
    return rows


def phase_rows(lengths: dict[Curve, np.ndarray]) -> list[Row]:
    """The learning curves in a few numbers."""
    rows = []
    for (name, goal), values in lengths.items():
        ends = [0, 1, 10, 100, 1000, 10_000]
        for begin, end in itertools.pairwise(end for end in ends if end <= values.shape[1]):
            label = f"steps per episode, {name}, {goal}, episode{'s' if end > 1 else ''} {begin + 1}–{end}"
            means = values[:, begin:end].mean(axis=1)
            rows.append(Row.measured(label.replace(" 1–1", " 1"), means, unit="runs"))
    return rows


def sweep_rows(measured: dict[str, Measured]) -> list[Row]:
    rows = []
    for name, (i, goal) in itertools.product(SETS, enumerate(GOALS)):
        values = sweep_means(measured[name], i)
        mean, papers = values.mean(axis=1), ALPHAS.index(papers_alpha(name, goal))
        best = int(np.argmin(mean))
        label = f"α sweep, {name}, {goal}: the paper's 1/{1 / ALPHAS[papers]:.0f} against the best"
        if best == papers:
            rows.append(Row.computed(label, 1.0, note="the paper's α is the best of the sweep"))
        else:
            note = f"ratio of steps per episode; the best of the sweep is 1/{1 / ALPHAS[best]:.0f}"
            row = Row.measured(label, values[papers], values[best], statistic="ratio", unit="runs", note=note)
            rows.append(row)
        late = measured[name].sweep.lengths.reshape(2, len(ALPHAS), *values.shape[1:], -1)[i][..., -200:].mean((1, 2))
        for j, alpha in enumerate(ALPHAS):
            row = Row.measured(f"α sweep, {name}, {goal}, α = 1/{1 / alpha:.0f}", values[j], unit="runs")
            row.note = f"steps per episode over all episodes of the sweep; over the last 200 of them {late[j]:.2f}"
            rows.append(row)
    return rows


def sweep_means(measured: Measured, goal: int) -> np.ndarray:
    """Steps per episode [α, run]."""
    means = measured.sweep.lengths.mean(axis=2)
    return means.reshape(len(GOALS), len(ALPHAS), -1)[goal]


def learning_curve(lengths: np.ndarray) -> tuple[np.ndarray, ...]:
    """Episode, mean steps, low and high of its interval; each of the first 100 episodes, then means of 10."""
    single, rest = lengths[:, :100], lengths[:, 100:]
    binned = rest[:, : rest.shape[1] // 10 * 10].reshape(len(rest), -1, 10).mean(axis=2)
    values = np.concatenate([single, binned], axis=1)
    episode = np.concatenate([np.arange(1, 1 + single.shape[1]), 105.5 + 10 * np.arange(binned.shape[1])])
    return episode, values.mean(axis=0), *band(values)


def smoothed(episode: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A learning curve's means over equal stretches of the logarithmic axis, 40 a decade."""
    stretch = np.floor(40 * np.log10(episode)).astype(int)
    groups = [stretch == s for s in np.unique(stretch)]
    return np.array([episode[g].mean() for g in groups]), np.array([mean[g].mean() for g in groups])


def thinned(curve: Curve, episode: np.ndarray, *values: np.ndarray) -> dict[str, Any]:
    """A learning curve's points at about forty episodes."""
    wanted = np.geomspace(1, episode[-1], 41)
    at = np.unique(np.searchsorted(episode, wanted).clip(max=len(episode) - 1))
    points = {name: x[at].tolist() for name, x in zip(("mean", "low", "high"), values)}
    return {"options": curve[0], "goal": curve[1], "episode": episode[at].tolist(), **points}


# Picture

COLORS = {"A": "0.35", "H": "#e8710a", "A ∪ H": "#1f6fb4"}


def picture(curves: dict[Curve, Any], measured: dict[str, Measured], exact: dict[Curve, Exact], path: Path) -> None:
    """Above: learning curves with exact ends. Below: the sweep of α."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE

    titles = {"G1": "goal G1, the east hallway", "G2": "goal G2, inside the lower right room"}
    names = {"A": "A: primitive actions", "H": "H: hallway options", "A ∪ H": "A ∪ H: both"}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(10.5, 7.6), sharey="row", height_ratios=(1.7, 1))
        for i, goal in enumerate(GOALS):
            ax, below = axes[:, i]
            for name, color in COLORS.items():
                episode, mean, low, high = curves[name, goal]
                ax.fill_between(episode, low, high, color=color, alpha=0.2, lw=0)
                ax.plot(episode, mean, color=color, lw=0.6, alpha=0.35)
                ax.plot(*smoothed(episode, mean), color=color, lw=1.7, label=names[name])
                e = exact[name, goal]
                ax.plot(1, e.first, "D", ms=7, mfc="white", mec=color, mew=1.6, zorder=5, clip_on=False)
                ax.plot(1.16 * episode[-1], e.exploring, "<", ms=7, mfc="white", mec=color, mew=1.6, clip_on=False)
            ax.set(xscale="log", yscale="log", xlim=(0.93, 10_700), ylim=(22, 1100), title=titles[goal])
            ax.set(xlabel="episode")
            ax.set_yticks([20, 50, 100, 200, 500, 1000], ["20", "50", "100", "200", "500", "1000"])
            ax.set_xticks([1, 10, 100, 1000, 10_000], ["1", "10", "100", "1000", "10 000"])
            ax.minorticks_off()
            for name, color in COLORS.items():
                values = sweep_means(measured[name], i)
                mean = values.mean(axis=1)
                error = np.abs(np.array(band(values.T)) - mean)
                below.errorbar(ALPHAS, mean, error, fmt="o-", ms=4, lw=1.4, capsize=3, color=color)
                chosen = ALPHAS.index(papers_alpha(name, goal))
                below.plot(ALPHAS[chosen], mean[chosen], "o", ms=11, mfc="none", mec=color, mew=1.6)
            below.set_xscale("log", base=2)
            below.set_yscale("log")
            below.set_xticks(ALPHAS, [f"1/{1 / alpha:.0f}" for alpha in ALPHAS])
            below.set_yticks([30, 40, 50, 60, 80], ["30", "40", "50", "60", "80"])
            below.minorticks_off()
            below.set(xlabel="step size α (ringed: the paper's)", title=f"sweep of α, {goal}")
        axes[0, 0].set_ylabel("steps per episode")
        axes[1, 0].set_ylabel(f"steps per episode,\nmean of the first {measured['A'].sweep.lengths.shape[2]}")
        style = {"ls": "none", "marker": "D", "mfc": "white", "mec": "0.2", "mew": 1.4}
        axes[0, 1].plot([], [], **style, label="exact expectation of the first episode")
        axes[0, 1].plot([], [], **style | {"marker": "<"}, label="best policy over the options with ε = .1, exact")
        axes[0, 1].legend(loc="upper right", fontsize=9)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
