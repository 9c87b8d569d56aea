"""Where learned options end: Bacon, Harb & Precup, The Option-Critic Architecture (AAAI 2017), figure 3.

The termination probability of each of four options on the map of four rooms, after 1000 episodes to the east hallway
with the settings of the published code, and the same with a deliberation cost, of which the paper has none in four
rooms. The picture shows the first seed, which was not chosen; the rows are over all runs.

The paper says of its picture that options are more likely to end near the doorways. In numbers: β in the four hallway
cells (and once more: in these and the cells next to them) minus β elsewhere, weighted by how often the running option
arrives there, exactly, for the learned policy. "reached" when the interval lies above 0. What options are used for is
in the rows too: an option's mean length (1 is no temporal abstraction at all), the share of the most used option (1:
one does all), and the entropy of β. Each is the mean over a run's last 1000 steps.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.four_rooms import HALLWAYS, NUM_CELLS, FourRooms, cell_index
from jaxrl_envs.resetting import select
from jaxrl_envs.tasks import single
from jaxrl_hier.engine.chunk import init_seeds, make_chunk
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.types import TrainState
from jaxrl_hier.exact import tabular
from jaxrl_hier.hierarchical import option_critic_tabular
from jaxrl_hier.hierarchical.option_critic_tabular import Config, Tables, as_options

from ..drawing import shades, subplots
from ..figure import Computation, Figure, Found, Scale
from ..results import Row

COSTS = (0.0, 0.01, 0.03)  # ξ
OPTIONS = 4
CHUNK = 1000
POINTS = 20  # of a curve
WHERE = {"in hallways": "doors", "in hallways and next to them": "near"}
USAGE = {
    "option_length": "steps of an option until it ends",
    "option_run": "steps until another option acts",
    "most_used": "share of the most used option",
    "termination_entropy": "entropy of β, nats (at most .693)",
    "episode_length": "steps per episode",
}
CURVES = {
    "episode_length": "steps per episode",
    "option_length": "steps of an option until it ends",
    "most_used": "share of the most used option",
    "termination_entropy": "entropy of β, nats",
}


def parts(scale: Scale) -> dict[str, Computation]:
    costs, episodes = (COSTS[1:2], 40) if scale == "smoke" else (COSTS, 1000)
    shared = ("episodes", "first beta", "first policy", "first usage")
    return {f"ξ = {cost:g}": Computation(learn, {"cost": cost, "episodes": episodes}, shared=shared) for cost in costs}


def learn(seeds: Sequence[int], cost: float, episodes: int) -> dict[str, Any]:
    """Each run until it has had its episodes, to within a chunk.

    Returns:
        For each of USAGE its mean over the last chunk, "last <name>" [seeds]; for each of CURVES its course, "<name>"
        [seeds, points], over "episodes" [points]. "doors inside", "doors outside", "near inside" and "near outside"
        [seeds], β by place. Of the first seed "first beta" [O, S], "first policy" [O, S, A], "first usage" [O].
    """
    env, config = FourRooms("option-critic"), Config(deliberation_cost=cost, recorded_episodes=1)
    algorithm = option_critic_tabular.make(config, env, single(env.default_params))
    steps = make_chunk(algorithm, CHUNK)
    state = init_seeds(algorithm, RunConfig(seed=seeds[0], seeds=len(seeds)))

    @partial(jax.jit, donate_argnums=0)
    def advance(state: TrainState) -> tuple[TrainState, Any]:
        after, measured, _ = steps(state)
        finished = state.memory.count[:, 0] >= episodes
        measured = {name: m.replace(count=jnp.where(finished, 0, m.count)) for name, m in measured.items()}
        return jax.vmap(select)(finished, state, after), measured

    begun = time.perf_counter()
    program = advance.lower(state).compile()
    compile_seconds = time.perf_counter() - begun
    metrics, counts = [], []
    while int(jnp.min(state.memory.count)) < episodes:
        state, measured = program(state)
        metrics.append(jax.device_get(measured))
        counts.append(np.asarray(state.memory.count[:, 0]))
    courses = {name: np.stack([m[name].mean() for m in metrics], axis=1) for name in metrics[0]}  # NaN after the end
    usage = np.stack([courses[f"option_usage_{o}"] for o in range(OPTIONS)])  # [O, seeds, chunks]
    courses["most_used"] = usage.max(axis=0)
    lasts = np.isfinite(courses["most_used"]).sum(axis=1) - 1  # each run's last chunk
    points, ended = (np.arange(POINTS) + 0.5) * episodes / POINTS, np.stack(counts, axis=1)
    found: dict[str, Any] = {"episodes": points, "compile_seconds": compile_seconds}
    for name in USAGE:
        found[f"last {name}"] = np.array([course[last] for course, last in zip(courses[name], lasts)])
    for name in CURVES:
        runs = zip(courses[name], ended, lasts)
        found[name] = np.array([np.interp(points, at[: last + 1], course[: last + 1]) for course, at, last in runs])
    occupied = jax.jit(jax.vmap(lambda tables: arrivals(env, tables, config.temperature)))(state.params)
    found |= by_place(np.asarray(state.params.vartheta, np.float64), np.asarray(occupied))
    options, _ = as_options(jax.tree.map(lambda leaf: leaf[0], state.params), config.temperature)
    first = {"beta": options.termination, "policy": options.policy, "usage": usage[:, 0, lasts[0]]}
    return found | {f"first {name}": x for name, x in first.items()}


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


def by_place(vartheta: np.ndarray, occupied: np.ndarray) -> dict[str, np.ndarray]:
    """Mean β in and outside of places, weighted by arrivals, [seeds]. Both arguments are [seeds, S, O]."""
    beta = 1 / (1 + np.exp(-vartheta))
    doors = np.isin(np.arange(NUM_CELLS), [int(cell_index(*cell)) for cell in HALLWAYS.values()])
    near = np.any(FourRooms().transitions[doors] > 0, axis=(0, 1))
    found = {}
    for name, cells in {"doors": doors, "near": near}.items():
        for side, chosen in {"inside": cells, "outside": ~cells}.items():
            weights = occupied * chosen[:, None]
            found[f"{name} {side}"] = np.sum(beta * weights, axis=(1, 2)) / np.sum(weights, axis=(1, 2))
    return found


def rows(found: Found) -> list[Row]:
    made = []
    for label, measured in found.items():
        for text, place in WHERE.items():
            inside, outside = measured[f"{place} inside"], measured[f"{place} outside"]
            row = Row.measured(f"{label}: claim: β {text} minus β elsewhere", inside - outside, unit="runs")
            row.note = f"the paper: options end near doorways; β {inside.mean():.3f} there and "
            row.note += f"{outside.mean():.3f} elsewhere"
            made.append(row.judged("above 0"))
        for name, text in USAGE.items():
            made.append(Row.measured(f"{label}: {text}", measured[f"last {name}"], unit="runs"))
    return made


def draw(found: Found) -> dict[str, Any]:
    return {"": maps(found), "usage": usage_figure(found)}


def maps(found: Found) -> Any:
    """A row per deliberation cost, a column per option: β as colour, the policy as arrows."""
    env = FourRooms("option-critic")
    figure, axes = subplots(len(found), OPTIONS, 2.9, 2.65)
    for row, (label, measured) in zip(axes, found.items()):
        for o, ax in enumerate(row):
            look = {"values": measured["first beta"][o], "policy": measured["first policy"][o]}
            image = env.draw(ax, env.default_params, **look)
            image.set_clim(0, 1)
            ax.set_title(f"option {o + 1}: {measured['first usage'][o]:.0%} of the steps", fontsize=9.5)
        row[0].set_ylabel(label)
    figure.colorbar(image, ax=axes, shrink=0.8, label="probability β of ending")
    return figure


def usage_figure(found: Found) -> Any:
    """What the options are used for while learning; median and middle half of the runs."""
    figure, axes = subplots(1, len(CURVES), figsize=(13.5, 3.6))
    for ax, (name, title) in zip(axes[0], CURVES.items()):
        for (label, measured), color in zip(found.items(), shades(len(found))):
            low, median, high = np.nanquantile(measured[name], [0.25, 0.5, 0.75], axis=0)
            ax.fill_between(measured["episodes"], low, high, color=color, alpha=0.2, lw=0)
            ax.plot(measured["episodes"], median, color=color, lw=1.6, label=label)
        ax.set(xlabel="episodes", title=title)
    first, second, third, fourth = axes[0]
    first.set_yscale("log")
    first.set_yticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
    first.minorticks_off()
    second.set_ylim(bottom=1)
    third.set_ylim(0.25, 1.02)
    fourth.axhline(np.log(2), color="0.3", lw=0.9, ls="--", label="largest possible, ln 2")
    fourth.set_ylim(0, 0.75)
    figure.legend(*fourth.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


FIGURE = Figure(
    name="option_critic_terminations",
    paper="Bacon, Harb & Precup, The Option-Critic Architecture, AAAI 2017",
    shows="figure 3 (termination probabilities)",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=350,
    threads=2,
)
