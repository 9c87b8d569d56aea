"""Intra-option value learning: Sutton, Precup & Singh (Artificial Intelligence 112, 1999), figure 10.

Four rooms with the goal G1, γ = .9, from the upper left corner. Behaviour: uniformly random actions; no hallway option
is ever executed, and the values of all eight are learned, beside those of the four actions. Each action pays
N(mean, .1) with a mean drawn from U[−1, 0] for each run, state and action; entering the goal pays 1 on top.

Left, the value of the greedy policy over options, exactly evaluated in each run's task and averaged over the cells.
Right, the learned values of the two hallway options at G2, (9,9), over 6000 episodes. The exact values, from option
models of each run's task, stand beside both.

The theorem is about step sizes that decrease. A constant one leaves noise, and a maximum over noisy values is too high,
so the error must vanish with α: "reached" is a mean error below α, for α = 1/8, 1/32 and 1/128. The paper prints no
numbers for this figure, and the step size of it is not known to us.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.four_rooms import G1, G2, NUM_CELLS, FourRooms, cell_index, four_rooms_tasks
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.hierarchical.intra_option_q import Config, make
from jaxrl_hier.hierarchical.option_models import NoisyParams, noisy_rewards
from jaxrl_hier.hierarchical.options import HALLWAY_OPTIONS

from ..drawing import curve, shades, subplots
from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row
from ._options import GAMMA, SPS, Runs, after, options_of

STEP_SIZES = {"α = 1/8": 1 / 8, "α = 1/32": 1 / 32, "α = 1/128": 1 / 128}
AT_G2 = {"upper": ("SE to E", "upper hallway"), "left": ("SE to S", "left hallway")}
PLACE = {name: 4 + HALLWAY_OPTIONS.index(option) for name, (option, _) in AT_G2.items()}  # after the four actions
EPISODE = 697.7  # steps of a random walk from the corner to G1, exactly
SHOWN = (1, 10, 100, 1000)  # episodes of the rows about the greedy policy


def parts(scale: Scale) -> dict[str, Computation]:
    names, episodes = (["α = 1/8"], 10) if scale == "smoke" else ([*STEP_SIZES], 6000)
    return {
        name: Computation(learn, {"alpha": STEP_SIZES[name], "episodes": episodes}, shared=("few", "many"))
        for name in names
    }


def learn(seeds: Sequence[int], alpha: float, episodes: int) -> dict[str, Any]:
    """Learned and exact values of all runs.

    Returns:
        "greedy" [seeds, few], value of the greedy policy after "few" [few] episodes; "upper" and "left" [seeds, many],
        values of these options at G2 after "many" [many] episodes; "error" and "bias" [seeds], mean absolute and mean
        error of all values at the end; "exact …" [seeds] for the first three.
    """
    rooms, both = FourRooms(), options_of("A ∪ H")
    available = both.initiation.T
    others = jnp.arange(NUM_CELLS) != cell_index(*G1)
    over_cells = lambda values: jnp.mean(values, where=others)
    env, tasks = noisy_rewards(rooms, four_rooms_tasks(rooms, [G1]))

    @jax.jit
    @jax.vmap
    def solve(task: NoisyParams) -> tuple[smdp.OptionModels, jax.Array]:
        models = smdp.option_models(*env.model(task), both, GAMMA)
        return models, smdp.smdp_optimal_values(models, both.initiation)

    @jax.jit
    @jax.vmap
    def measure(q: jax.Array, models: smdp.OptionModels, best: jax.Array) -> dict[str, jax.Array]:
        worth = smdp.option_policy_evaluation(models, tabular.greedy_policy(q, available, tolerance=0.0))
        learned = available & others[:, None]
        error = jnp.where(learned, q - best, 0.0)
        at_g2 = {name: q[cell_index(*G2), place] for name, place in PLACE.items()}
        count = jnp.sum(learned)
        errors = {"bias": jnp.sum(error) / count, "error": jnp.sum(jnp.abs(error)) / count}
        return at_g2 | errors | {"greedy": over_cells(worth)}

    config = Config(behaviour="random", step_size=alpha, discount=GAMMA, recorded_episodes=1)
    runs = Runs(lambda: make(config, env, tasks), [{}], seeds)
    models, best = solve(jax.tree.map(lambda x: x[:, 0], runs.state.world.task))  # each run's one environment
    # the slowest of the runs is a few percent behind the mean
    steps = EPISODE * episodes * (1.06 if episodes > 1000 else 2.5)
    looks = np.unique(np.concatenate([np.geomspace(50, steps / 5, 60), np.linspace(0, steps, 121)]).astype(int))
    measured, ended = [], []
    for length in np.diff(looks, prepend=0):
        state = runs.advance(length)
        measured.append(jax.device_get(measure(state.params, models, best)))
        ended.append(np.asarray(state.memory.count[:, 0]))
    series = {name: np.stack([m[name] for m in measured], axis=1) for name in measured[0]}  # [seeds, looks]

    few = np.unique([*np.geomspace(1, min(1000, episodes), 40).round(), *(n for n in SHOWN if n <= episodes)])
    points = {"few": few.astype(int), "many": np.linspace(0, episodes, 121)}
    at = lambda name, episodes: after(np.atleast_1d(episodes), np.stack(ended, axis=1), series[name])
    found: dict[str, Any] = {"greedy": at("greedy", points["few"])} | {name: at(name, points["many"]) for name in AT_G2}
    found |= {name: at(name, episodes)[:, 0] for name in ("error", "bias")}
    found |= {f"exact {name}": best[:, cell_index(*G2), place] for name, place in PLACE.items()}
    found["exact greedy"] = jax.vmap(over_cells)(jnp.max(best, axis=2))
    return found | points | {"compile_seconds": runs.compile_seconds}


def rows(found: Found) -> list[Row]:
    return [row for label, measured in found.items() for row in value_rows(label, STEP_SIZES[label], measured)]


def value_rows(label: str, alpha: float, measured: Measured) -> list[Row]:
    """Differences from the exact values of each run's task."""
    made, episodes = [], round(measured["many"][-1])
    for name, (option, _) in AT_G2.items():
        what = f"{label}: value of the {name} option ({option}) at G2 after {episodes} episodes"
        made.append(paired_row(what, measured[name][:, -1], measured[f"exact {name}"], alpha))
    for n in SHOWN:
        if n not in measured["few"]:
            continue
        values = measured["greedy"][:, [*measured["few"]].index(n)]
        what = f"{label}: value of the greedy policy after {n} episode{'' if n == 1 else 's'}, mean over cells"
        row = paired_row(what, values, measured["exact greedy"], alpha)
        if n < 1000:
            row.verdict, row.rule = "not comparable", ""
            row.note += "; exact: of the best policy over these options, which learning is on the way to"
        made.append(row)
    for name, what in (("error", "mean |Q − exact|"), ("bias", "mean of Q − exact")):
        row = Row.measured(f"{label}: {what} after {episodes} episodes", measured[name], unit="runs", exact=0.0)
        row.note = "over all cells and the options that may start there; tolerance α"
        made.append(row.judged(f"within {alpha}"))
    return made


def paired_row(label: str, values: np.ndarray, exact: np.ndarray, tolerance: float) -> Row:
    label = f"{label}: learned minus exact"
    row = Row.measured(label, values, exact, statistic="paired difference", unit="runs", exact=0.0)
    row.note = f"means {values.mean():.4f} and {exact.mean():.4f}; tolerance α = {tolerance:.4g}"
    return row.judged(f"within {tolerance}")


def draw(found: Found) -> dict[str, Any]:
    """Left: the greedy policy. Right: the two hallway options at G2. Dashed: exact. Bands: 95 % over runs."""
    figure, ((left, right),) = subplots(1, 2, figsize=(11, 4.4))
    for (label, measured), color in zip(found.items(), shades(len(found))):
        curve(left, measured["few"], measured["greedy"], label, color=color)
        for name in AT_G2:
            curve(right, measured["many"], measured[name], label, color=color)
    exact = {name: float(measured[f"exact {name}"].mean()) for name in ("greedy", *AT_G2)}
    dashed: dict[str, Any] = {"color": "0.2", "ls": "--", "lw": 1.1}
    left.axhline(exact["greedy"], **dashed, label="best policy over these options, exact")
    left.set(xscale="log", xlabel="episodes", ylabel="value of the greedy policy, mean over cells")
    left.set(title="the greedy policy over options", ylim=(None, exact["greedy"] + 0.25))
    left.xaxis.set_major_formatter("{x:.0f}")
    left.legend(loc="lower right")
    for (name, (_, text)), away in zip(AT_G2.items(), (0.28, -0.42)):  # above or below the bands
        right.axhline(exact[name], **dashed)
        where = (measured["many"][-1], exact[name] + away)
        note = f"option to the {text}; dashed: exact"
        right.annotate(note, where, (-2, 0), textcoords="offset points", ha="right", color="0.2", fontsize=10)
    right.set(xlabel="episodes", ylabel="value of the option at G2", title="two options that are never executed")
    right.set(ylim=(exact["left"] - 0.6, 0.1), xlim=(0, measured["many"][-1]))
    return {"": figure}


FIGURE = Figure(
    name="options_values",
    paper=SPS,
    shows="figure 10 (intra-option value learning)",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=30,
    threads=2,
    minutes=20,
)
