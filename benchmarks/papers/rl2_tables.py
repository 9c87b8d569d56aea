"""RL² on bandits and random processes: Duan et al., RL²: Fast reinforcement learning via slow reinforcement learning
(2016), tables 1 and 2, the column of RL².

    python -m benchmarks.papers.rl2_tables                                 # the cells that two cores can train
    python -m benchmarks.papers.rl2_tables --cells "k = 5, n = 10"         # some; rows of others stay in the file
    python -m benchmarks.papers.rl2_tables --scale gpu                     # the other cells, with the paper's sizes
    python -m benchmarks.papers.rl2_tables --scale gpu --cells "MDP, n = 10"   # or any, with these
    python -m benchmarks.papers.rl2_tables --scale smoke

Total reward of a trial, mean over fresh tasks, actions drawn from the policy; 95 % over the seeds, all of which play
the same tasks (how far these may be off is in the notes), or over the tasks where there is one seed. Table 1: Bernoulli
bandits of k arms and n pulls. Table 2: random processes, n episodes of 10 steps. The opponents' cells are
`rl2_opponents`'.

The paper trains each cell for thousands of iterations of 250 000 steps and reports the best of five seeds. On two cores
a trial's batch is smaller, the hidden state has 64 numbers instead of 256, and Adam starts at 3e-3 instead of 1e-3 and
falls to zero over the training. γ is the paper's, and so is λ = 0.3; clipped ratios are what its code has instead of
the paper's TRPO (see `rl2`), and for 10 pulls the code's 5 epochs of minibatches of 128 whole trials. The GRU's
candidate is bounded by tanh. Every seed counts. `--scale gpu` has the paper's sizes, for 1000 iterations and one seed.

Trials of 100 steps depart further, 100 pulls and random processes alike: 1024 trials at once in 4 epochs of minibatches
of 64, an entropy bonus that falls from 0.05 to zero, where paper and code have none, and a value head whose output is
multiplied by 10. For 100 pulls λ is 0.8 in place of 0.3, and the GRU the paper's, with a ReLU.

Verdicts: for 10 pulls "reached" is 98 % of Bayes-optimal play, which nothing may exceed by more than three standard
errors: that would be a learner that sees what it should not. Elsewhere it is the published value, a mean over 1000
tasks, up to the 95 % that such a mean is uncertain. Training can be interrupted: runs are kept in `--runs`, and go on
from there.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

import jaxrl_envs
from benchmarks.papers.options_planning import pyplot
from benchmarks.papers.rl2_opponents import ARMS, COLOURS, EPISODES, FINITE, PILING, PULLS
from benchmarks.results import ROOT, Row, provenance, show, write_paper
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.identity import Identity
from jaxrl_hier.engine.logging import read_jsonl
from jaxrl_hier.engine.train import RunConfig, train
from jaxrl_hier.engine.types import Algorithm, TrainState
from jaxrl_hier.exact.bandits import independent_value
from jaxrl_hier.learning.optimization import linear_over
from jaxrl_hier.meta.rl2 import Config, make
from jaxrl_hier.reports.statistics import mean_of_moments

PAPER = "Duan et al., RL²: Fast reinforcement learning via slow reinforcement learning (2016)"
BANDITS = {5: (6.7, 78.7, 401.6), 10: (6.7, 83.5, 432.5), 50: (6.8, 84.9, 438.9)}  # by arms, then pulls
PROCESSES = (156.2, 445.7, 936.1, 1428.8, 1913.7)
OMNISCIENT = 21.852  # reward of an episode of the best policy for a known process
SHARE = 0.98  # of Bayes-optimal play
PUBLISHED_TASKS = 1000  # that a published mean is over
AT_ONCE = 1000  # fresh tasks side by side
POINTS = 100  # of a learning curve in the file


@dataclass(frozen=True)
class Cell:
    """A cell of a table, and how it is trained."""

    env: str
    published: float
    iterations: int
    seeds: int
    settings: dict[str, Any] = field(default_factory=dict)
    exact: float | None = None  # Bayes-optimal


LONG = {"environments": 1024, "minibatch_size": 64, "epochs": 4, "value_scale": 10.0, "entropy_weight": 0.05}
TRAINED_HERE: dict[str, tuple[int, int, dict[str, Any]]] = {  # iterations, seeds, settings: what two cores can do
    "k = 5, n = 10": (200, 3, {}),
    "k = 10, n = 10": (400, 3, {}),
    "k = 50, n = 10": (800, 3, {}),
    "k = 5, n = 100": (800, 2, LONG | {"gae_lambda": 0.8, "memory": "gru-relu"}),
    "MDP, n = 10": (3000, 1, LONG | {"episodes_per_trial": 10}),
}


def cells(scale: str) -> dict[str, Cell]:
    """All cells with the sizes of the paper, or those of TRAINED_HERE with its own."""
    found = {}
    for k in ARMS:
        for n, published in zip(PULLS, BANDITS[k]):
            exact = independent_value(k, n) if n == 10 else None
            found[f"k = {k}, n = {n}"] = Cell(f"bandit-n{n}-k{k}", published, 1000, 1, of_the_paper(n), exact)
    for n, published in zip(EPISODES, PROCESSES):
        settings = of_the_paper(10 * n) | {"episodes_per_trial": n}
        found[f"MDP, n = {n}"] = Cell("tabular-mdp", published, 1000, 1, settings)
    if scale == "gpu":
        return found
    own = {}
    for name, (iterations, seeds, settings) in TRAINED_HERE.items():
        settings = {"learning_rate": 3e-3, "entropy_decay_iterations": iterations} | linear_over(iterations) | settings
        own[name] = Cell(found[name].env, found[name].published, iterations, seeds, settings, found[name].exact)
    if scale == "smoke":
        name = next(iter(own))
        small = own[name].settings | {"environments": 128, "entropy_decay_iterations": 10} | linear_over(10)
        return {name: Cell(own[name].env, own[name].published, 10, 2, small, own[name].exact)}
    return own


def of_the_paper(steps: int) -> dict[str, Any]:
    """250 000 steps per iteration, rounded to whole minibatches, and 256 numbers in the hidden state."""
    return {
        "memory": "gru-relu",
        "memory_size": 256,
        "environments": 128 * round(250_000 / steps / 128),
        "remat_steps": 50 if steps >= 500 else 0,
    }


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu", "gpu"] = "cpu"
    """smoke: a minute, to see that it runs. gpu: the paper's sizes"""
    cells: tuple[str, ...] = ()
    """which, by name; default: all that two cores can train, or with --scale gpu the others"""
    seeds: int | None = None
    """independent runs of each; default: what stands in the table of cells"""
    tasks: int = 200_000
    """fresh tasks that each run is tested on"""
    runs: Path = Path("runs/rl2_tables")
    """folder for the runs; those in it go on"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


def main(arguments: Arguments) -> None:
    known = cells(arguments.scale)
    for name in arguments.cells:
        if name not in known:
            raise SystemExit(f"no cell {name!r} at scale {arguments.scale}; there are {', '.join(map(repr, known))}")
    file = arguments.out / "rl2_tables.json"
    kept = json.loads(file.read_text()) if file.exists() and arguments.scale != "smoke" else {}
    rows = {row["label"]: Row.from_json(row) for row in kept.get("rows", [])}
    trained = kept.get("trained", {})
    if arguments.tasks < 1 or (arguments.seeds is not None and arguments.seeds < 1):
        raise SystemExit("tasks and seeds must be at least 1")
    opponents = table_of_opponents(ROOT / "papers" / "rl2_opponents.json")
    count = 2000 if arguments.scale == "smoke" else arguments.tasks

    for name in arguments.cells or [name for name in known if arguments.scale != "gpu" or name not in TRAINED_HERE]:
        cell = known[name]
        seeds = range(arguments.seeds or cell.seeds)
        slug = "".join(c for c in name if c.isalnum())
        try:
            found = [train_cell(cell, s, arguments.runs / f"{arguments.scale}-{slug}-{s}", count) for s in seeds]
        except UsageError as error:  # a folder of other settings
            raise SystemExit(str(error)) from None
        rows[f"{name}: RL²"] = cell_row(name, cell, found, opponents.get(name, {}))
        trained[name] = {**provenance(), "scale": arguments.scale, **about(cell, found), "tasks": count}
        write_paper(  # after each cell: the next may take hours
            "rl2_tables",
            PAPER,
            "tables 1 and 2, RL²",
            [rows[label] for label in (f"{n}: RL²" for n in all_names()) if label in rows],
            arguments.scale,
            arguments.out,
            train_seconds=sum(t["seconds"] for t in trained.values()),
            compile_seconds=sum(t["compile_seconds"] for t in trained.values()),
            opponents={n: opponents[n] for n in trained if n in opponents},
            trained=trained,
        )
        show([rows[f"{name}: RL²"]])
    picture(trained, opponents, rows, arguments.out / "rl2_tables.png")
    print(file)


def all_names() -> list[str]:
    return [f"k = {k}, n = {n}" for k in ARMS for n in PULLS] + [f"MDP, n = {n}" for n in EPISODES]


def table_of_opponents(file: Path) -> dict[str, dict[str, float]]:
    """Cell -> opponent -> total reward, as measured by `rl2_opponents`; those of the paper and the best known play."""
    found: dict[str, dict[str, float]] = {}
    for row in json.loads(file.read_text())["rows"]:
        name, _, opponent = row["label"].partition(": ")
        if opponent != PILING and (row.get("published") is not None or opponent == FINITE):
            found.setdefault(name, {})[opponent] = row["ours"]
    return found


# Training


@dataclass
class Trained:
    """One run."""

    totals: np.ndarray  # [tasks] reward of a trial in a fresh task
    curve: (
        np.ndarray
    )  # [points, 3]: seconds of training, environment steps, mean total reward of the trials in training
    compile_seconds: float


def train_cell(cell: Cell, seed: int, folder: Path, count: int) -> Trained:
    env, tasks = jaxrl_envs.make(cell.env)
    algorithm = make(Config(**cell.settings, eval_tasks=min(AT_ONCE, count)), env, tasks)
    every = max(1, cell.iterations // POINTS)
    run = RunConfig(
        iterations=cell.iterations - cell.iterations % every,
        log_every=every,
        checkpoint_every=every * max(1, 50 // every),
        seed=seed,
        tensorboard=False,
        quiet=True,
    )
    begun = time.perf_counter()
    result = train(algorithm, run, directory=folder, identity=Identity(asdict(cell)), resume=folder.exists())
    print(f"{cell.env}, seed {seed}: trained in {time.perf_counter() - begun:.0f} s", flush=True)
    logged = read_jsonl(folder / "metrics.jsonl")  # those before an interruption too
    seconds = np.cumsum([every * algorithm.env_steps / row["steps_per_second"] for row in logged])
    curve = np.array([(s, row["env_steps"], row["return"]) for s, row in zip(seconds, logged)])
    return Trained(test(algorithm, result.state, count), curve, result.compile_seconds)


def test(algorithm: Algorithm, state: TrainState, count: int) -> np.ndarray:
    """Total rewards [count] of a trial each in fresh tasks."""
    state = jax.tree.map(lambda x: x[0], state)
    play = jit(lambda key: algorithm.evaluate(state, key)["trial_return"].values)
    keys = jax.random.split(jax.random.key(2**31 - 1), -(-count // AT_ONCE))  # no seed of a training
    return np.concatenate([jax.device_get(play(key)) for key in keys])[:count]


# Rows


def cell_row(name: str, cell: Cell, found: list[Trained], opponents: dict[str, float]) -> Row:
    """Ours beside the published value, and Bayes-optimal play where it is known."""
    totals = np.stack([t.totals for t in found])  # [seeds, tasks]: every seed plays the same tasks
    means, count = totals.mean(axis=1), totals.shape[1]
    deviation = float(totals.std(ddof=1))
    mean, error = float(means.mean()), deviation / count**0.5  # of a seed
    shared = mean_of_moments(mean, deviation, count, "tasks").interval
    assert shared is not None
    off = np.ptp(shared) / 2
    about: dict[str, Any] = {"published": cell.published, "exact": cell.exact}
    if len(found) > 1:
        row = Row.measured(f"{name}: RL²", means, **about)
    else:
        row = Row.summarised(f"{name}: RL²", mean, deviation, count, "tasks of the one seed", **about)
    row.published_interval = mean_of_moments(cell.published, deviation, PUBLISHED_TASKS, "tasks").interval
    steps, seconds = found[0].curve[-1, 1], np.mean([t.curve[-1, 0] for t in found])
    notes = [
        f"{count:,} fresh tasks, the same for each seed, by which all may be off together: ± {off:.3f}, 95 %",
        f"{steps / 1e6:.1f} million steps and {seconds:.0f} s of training each",
        f"published interval from the spread of a task and the paper's {PUBLISHED_TASKS} tasks",
    ]
    if cell.exact:
        above = bool((means > cell.exact + 3 * error).any())
        row.verdict = "reached" if mean >= SHARE * cell.exact and not above else "short"
        notes.append(f"{100 * mean / cell.exact:.1f} % of Bayes-optimal play")
        reached = [seconds_to(t.curve, SHARE * cell.exact) for t in found]
        if all(s is not None for s in reached):
            notes.append("98 % of it after " + ", ".join(f"{s:.0f}" for s in reached) + " s of training")
        if above:
            notes.append("above what is possible")
    else:
        row.judged()
    if opponents:
        best = max(opponents, key=lambda o: opponents[o])
        notes.append(f"best opponent: {best}, {opponents[best]:.2f}")
        better = [o for o in opponents if opponents[o] > mean]
        notes.append(f"below {', '.join(better)}" if better else "above all opponents")
    row.note = "; ".join(notes)
    return row


def seconds_to(curve: np.ndarray, target: float) -> float | None:
    """Seconds of training until the trials of a logged row reach `target` on average."""
    there = np.flatnonzero(curve[:, 2] >= target)
    return float(curve[there[0], 0]) if len(there) else None


def about(cell: Cell, found: list[Trained]) -> dict[str, Any]:
    """What a cell's training was, for the file."""
    return {
        "settings": cell.settings,
        "iterations": cell.iterations,
        "seconds": float(sum(t.curve[-1, 0] for t in found)),
        "compile_seconds": float(sum(t.compile_seconds for t in found)),
        "exact": cell.exact,
        "published": cell.published,
        "curve": ["seconds", "steps", "return"],
        "curves": [t.curve.tolist() for t in found],
    }


# Picture


def picture(trained: dict[str, Any], opponents: dict[str, dict[str, float]], rows: dict[str, Row], path: Path) -> None:
    """Learning curves: a panel for 10 pulls, in shares of Bayes-optimal play, and one for each other cell."""
    plt = pyplot()
    from jaxrl_hier.reports.plotting import STYLE

    short = [name for name in trained if trained[name]["exact"]]
    others = [name for name in trained if not trained[name]["exact"]]
    with plt.rc_context(STYLE):
        panels = bool(short) + len(others)
        figure, axes = plt.subplots(1, panels, figsize=(5.2 * panels, 4.4), squeeze=False)
        panel = iter(axes[0])
        if short:
            ax = next(panel)
            for name, color in zip(short, ("#1f6fb4", "#e8710a", "#2c9a6b")):
                percent = 100 / trained[name]["exact"]
                draw(ax, trained[name]["curves"], percent, color, name.split(",")[0])
                best = max(opponents[name].values()) * percent
                ax.axhline(best, color=color, lw=0.9, ls=":")
            ax.axhline(100, color="black", lw=1.2)
            ax.text(0.02, 100.15, "Bayes-optimal play", transform=ax.get_yaxis_transform(), fontsize=9, va="bottom")
            ax.set(ylim=(84, 102), ylabel="total reward, % of Bayes-optimal play", title="10 pulls of k arms")
            ax.legend(loc="lower right", fontsize=9, title="dotted: best opponent")
        for name in others:
            ax = next(panel)
            draw(ax, trained[name]["curves"], 1.0, "#1f6fb4", f"RL²: {rows[f'{name}: RL²'].ours:.1f}")
            ax.axhline(trained[name]["published"], color="#1f6fb4", lw=1, ls="--")
            label = f"RL², published: {trained[name]['published']:g}"
            ax.plot([], [], color="#1f6fb4", lw=1, ls="--", label=label)
            for opponent, value in opponents.get(name, {}).items():
                if opponent != "random":
                    ax.axhline(value, color=COLOURS[opponent], lw=1)
                    ax.plot([], [], color=COLOURS[opponent], lw=1, label=f"{opponent}: {value:.1f}")
            values = [v for o, v in opponents.get(name, {}).items() if o != "random"]
            high = max([*values, trained[name]["published"]])
            ax.set(ylim=(opponents[name]["random"], high + 0.06 * (high - opponents[name]["random"])))
            ax.set(ylabel="total reward of a trial", title=name)
            ax.legend(loc="lower right", fontsize=8)
        for ax in axes[0]:
            ax.set(xlabel="million environment steps", xlim=(0, None))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def draw(ax: Any, curves: list[Any], factor: float, color: str, label: str) -> None:
    """The seeds' curves, thin, and their mean."""
    stacked = np.array(curves)  # [seeds, points, 3]
    steps = stacked[0, :, 1] / 1e6
    if len(stacked) > 1:
        ax.plot(steps, factor * stacked[:, :, 2].T, color=color, lw=0.5, alpha=0.4)
    ax.plot(steps, factor * stacked[:, :, 2].mean(axis=0), color=color, lw=1.7, label=label)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
