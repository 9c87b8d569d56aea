"""Where learned options end: Bacon, Harb & Precup, The Option-Critic Architecture (AAAI 2017), figure 3.

    python -m benchmarks.papers.option_critic_terminations                  # about a minute on two cores
    python -m benchmarks.papers.option_critic_terminations --scale smoke

The termination probability of each of four options on the map of four rooms, after 1000 episodes to the east hallway
with the settings of the published code, and the same with a deliberation cost, which the paper has none of in four
rooms. The picture shows the first seed, not a chosen one; the rows are over all runs.

The paper says of its picture that options are more likely to end near the doorways. In numbers: β in the four hallway
cells (and once more: in these and the cells next to them) minus β elsewhere, weighted by how often the running option
arrives there, exactly, for the learned policy. "reached" when the interval lies above 0. What options are used for is
in the rows too: an option's mean length (1 is no temporal abstraction at all), the share of the most used option (1:
one does all), and the entropy of β.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_envs.four_rooms import HALLWAYS, NUM_CELLS, FourRooms, cell_index
from jaxrl_envs.resetting import select
from jaxrl_envs.tasks import single
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk
from jaxrl_hier.engine.types import TrainState
from jaxrl_hier.exact import tabular
from jaxrl_hier.hierarchical import option_critic_tabular
from jaxrl_hier.hierarchical.option_critic_tabular import Config, Tables, as_options

COSTS = (0.0, 0.01, 0.03)  # ξ
CHUNK = 1000
BIN = 40  # episodes per point of a curve


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: to see that it runs"""
    runs: int = 350
    """independent runs for each deliberation cost"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


@dataclass
class Learned:
    """Runs with one deliberation cost: their tables and metrics at the end, and how they came there."""

    tables: Tables  # [runs, ...]
    arrivals: np.ndarray  # [runs, S, O] share of arrivals in s with o running; sums to 1
    curves: dict[str, np.ndarray]  # metric -> [chunks, runs], NaN after a run's end
    episodes: np.ndarray  # [chunks, runs] so far
    compile_seconds: float


def main(arguments: Arguments) -> None:
    smoke = arguments.scale == "smoke"
    runs, episodes = (8, 100) if smoke else (arguments.runs, 1000)
    begun = time.perf_counter()
    env = FourRooms("option-critic")
    learned = {cost: learn(env, cost, runs, episodes) for cost in COSTS}
    wall = time.perf_counter() - begun
    rows = [row for cost in COSTS for row in rows_of(cost, learned[cost])]
    arguments.out.mkdir(parents=True, exist_ok=True)
    maps(env, learned, arguments.out / "option_critic_terminations.png")
    usage(learned, arguments.out / "option_critic_usage.png")
    path = write_paper(
        "option_critic_terminations",
        "Bacon, Harb & Precup, The Option-Critic Architecture, AAAI 2017",
        "figure 3 (termination probabilities)",
        rows,
        arguments.scale,
        arguments.out,
        runs=runs,
        episodes=episodes,
        wall_seconds=wall,
        compile_seconds=sum(x.compile_seconds for x in learned.values()),
    )
    show(rows)
    print(f"{wall:.0f} s\n{path}")


def learn(env: FourRooms, cost: float, runs: int, episodes: int) -> Learned:
    """Each run until it has had its episodes, to within a chunk."""
    config = Config(deliberation_cost=cost, recorded_episodes=episodes)
    algorithm = option_critic_tabular.make(config, env, single(env.default_params))
    steps = make_chunk(algorithm, CHUNK)
    state = init_seeds(algorithm, RunConfig(seeds=runs))

    def advance(state: TrainState) -> tuple[TrainState, Any]:
        after, measured, _ = steps(state)
        finished = state.memory.count[:, 0] >= episodes
        measured = {name: m.replace(count=jnp.where(finished, 0, m.count)) for name, m in measured.items()}
        return jax.vmap(select)(finished, state, after), measured

    begun = time.perf_counter()
    compiled = jax.jit(advance, donate_argnums=0).lower(state).compile()
    compile_seconds = time.perf_counter() - begun
    metrics, counts = [], []
    while int(jnp.min(state.memory.count)) < episodes:
        state, measured = compiled(state)
        metrics.append(jax.device_get(measured))
        counts.append(np.asarray(state.memory.count[:, 0]))
    curves = {name: np.stack([m[name].mean() for m in metrics]) for name in metrics[0]}
    shares = [curves[name] for name in curves if name.startswith("option_usage")]
    curves["most used"] = np.max(shares, axis=0)
    occupied = jax.jit(jax.vmap(lambda tables: arrivals(env, tables, config.temperature)))(state.params)
    return Learned(jax.device_get(state.params), np.asarray(occupied), curves, np.stack(counts), compile_seconds)


def arrivals(env: FourRooms, tables: Tables, temperature: float) -> jax.Array:
    """How often the running option o arrives in s within an episode from a uniform start, as a share, [S, O]."""
    P, _ = env.model(env.default_params)
    options, over_options = as_options(tables, temperature)
    beta = options.termination.T
    S, O = beta.shape
    end = tabular.absorbing(P)
    going_on = (1 - beta)[:, :, None] * jnp.eye(O) + beta[:, :, None] * over_options[:, None]  # [S, O, O']
    moves = jnp.einsum("osa,sat->ost", options.policy, P)  # [O, S, S']
    chain = jnp.einsum("sop,pst->sotp", going_on, jnp.where(end[:, None], 0.0, moves)).reshape(S * O, S * O)
    start = jnp.where(end, 0.0, 1.0) / jnp.sum(~end)
    first = jnp.einsum("s,so,ost->to", start, over_options, moves).reshape(-1)
    total = tabular.solve_chain(chain.T, first[:, None])[:, 0].reshape(S, O)
    total = jnp.where(end[:, None], 0.0, total)  # nothing ends at the goal but the episode
    return total / jnp.sum(total)


# Rows


def rows_of(cost: float, x: Learned) -> list[Row]:
    beta = 1 / (1 + np.exp(-np.asarray(x.tables.vartheta, np.float64)))  # [runs, S, O]
    doors = np.isin(np.arange(NUM_CELLS), [int(cell_index(*cell)) for cell in HALLWAYS.values()])
    near = np.any(FourRooms().transitions[doors] > 0, axis=(0, 1))
    last = np.isfinite(x.curves["most used"]).sum(axis=0) - 1  # each run's last chunk
    end = {name: np.take_along_axis(curve, last[None], 0)[0] for name, curve in x.curves.items()}
    label = f"ξ = {cost:g}"
    rows = []
    for where, text in ((doors, "in hallways"), (near, "in hallways and next to them")):
        weights = [x.arrivals * side[:, None] for side in (where, ~where)]
        inside, outside = (np.sum(beta * w, axis=(1, 2)) / np.sum(w, axis=(1, 2)) for w in weights)
        row = Row.measured(f"{label}: claim: β {text} minus β elsewhere", inside - outside, unit="runs")
        row.judged("above 0")
        row.note = (
            f"the paper: options end near doorways; β {inside.mean():.3f} there and {outside.mean():.3f} elsewhere"
        )
        rows.append(row)
    others = [
        ("steps of an option until it ends", "option_length"),
        ("steps until another option acts", "option_run"),
        ("share of the most used option", "most used"),
        ("entropy of β, nats (at most .693)", "termination_entropy"),
        ("steps per episode", "episode_length"),
    ]
    return rows + [Row.measured(f"{label}: {text}", end[name], unit="runs") for text, name in others]


# Pictures


def maps(env: FourRooms, learned: dict[float, Learned], path: Path) -> None:
    """A row per deliberation cost, a column per option: β as colour, the policy as arrows."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(COSTS), 4, figsize=(11.5, 7.9), squeeze=False)
        image: Any = None
        for row, (cost, x) in zip(axes, learned.items()):
            tables = jax.tree.map(lambda leaf: leaf[0], x.tables)
            options, _ = as_options(tables, 0.01)
            last = np.isfinite(x.curves["most used"][:, 0]).sum() - 1
            for o, ax in enumerate(row):
                beta = np.asarray(options.termination[o])
                image = env.draw(ax, env.default_params, values=beta, policy=np.asarray(options.policy[o]))
                image.set_clim(0, 1)
                share = x.curves[f"option_usage_{o}"][last, 0]
                ax.set_title(f"option {o + 1}: {share:.0%} of the steps", fontsize=9.5)
            row[0].set_ylabel(f"ξ = {cost:g}")
        figure.colorbar(image, ax=axes, shrink=0.5, label="probability β of ending on arrival")
        figure.savefig(path, dpi=130)
        plt.close(figure)


def usage(learned: dict[float, Learned], path: Path) -> None:
    """What the options are used for while learning; median and middle half of the runs in each stretch of episodes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE

    panels = {
        "episode_length": "steps per episode",
        "option_length": "steps of an option until it ends",
        "most used": "share of the most used option",
        "termination_entropy": "entropy of β, nats",
    }
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 4, figsize=(13.5, 3.4))
        for ax, (name, label) in zip(axes, panels.items()):
            for (cost, x), color in zip(learned.items(), ("0.35", "#1f6fb4", "#e8710a")):
                bins = np.arange(0, x.episodes.max() + BIN, BIN)
                seen = [x.curves[name][(x.episodes >= a) & (x.episodes < a + BIN)] for a in bins]
                middle = bins + BIN / 2
                wanted = [(m, v[np.isfinite(v)]) for m, v in zip(middle, seen) if m < 1000 and np.isfinite(v).any()]
                at = [m for m, _ in wanted]
                low, median, high = np.transpose([np.quantile(v, [0.25, 0.5, 0.75]) for _, v in wanted])
                ax.fill_between(at, low, high, color=color, alpha=0.2, lw=0)
                ax.plot(at, median, color=color, lw=1.6, label=f"ξ = {cost:g}")
            ax.set(xlabel="episodes", title=label, xlim=(0, 1000))
        axes[0].set_yscale("log")
        axes[0].set_yticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
        axes[0].minorticks_off()
        axes[1].set_ylim(bottom=1)
        axes[2].set_ylim(0.25, 1.02)
        axes[3].axhline(np.log(2), color="0.3", lw=0.9, ls="--")
        axes[0].legend(fontsize=9)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
