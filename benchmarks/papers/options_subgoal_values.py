"""Other subgoal values, and a subgoal to which options do not transfer: Sutton, Precup & Singh, figures 12 and 13 of
the technical report UMass 98-74 (1998). The article of 1999 left them out.

Figure 12: four rooms in which every action pays a mean reward drawn from U[−1, 0]. The policy of a hallway option
that is optimal for a subgoal value of 10 in its target goes there directly; for a value of 1 it may take a
roundabout way, head for the other hallway or stay away from both. The paper draws one option for one draw. Here all
eight options in 30 draws, exactly, for values from 0.5 to 20: how many of their actions are those of the shortest
way (optimal without rewards), how often they end in their target, how long they take. Then the options of values 1
and 10 are learned as in figure 11, from 100 000 random steps with α = .1.

Figure 13: options and models were learned without subgoals. Then a cell of the lower right room gets the value 10,
and a cell that must be passed to enter that room from the lower left one gets −1; an episode ends in both. Planning
with the old models promises to run through the −1. The paper gives no coordinates: ours are (9,9), the paper's G2,
and (10,5), the last cell of the lower left room before the hallway. The paper's remedies, and its remark that
nothing is promised too much where all subgoals have one value, are tested. Nothing is sampled but the pairs of cells
of that test.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.four_rooms import CELLS, NUM_CELLS, ROOMS, FourRooms, cell_index, room_cells
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.exact import subgoals as transfer
from jaxrl_hier.hierarchical.option_models import noisy_rewards
from jaxrl_hier.hierarchical.options import HALLWAY_OPTIONS
from jaxrl_hier.hierarchical.subgoals import (
    Config,
    exact_values,
    hallway_subgoals,
    learned_options,
    make,
    option_errors,
)
from jaxrl_hier.reports.statistics import FRACTION

from ..drawing import BLUE, GREEN, ORANGE, VERMILION, legend_below, subplots, with_intervals
from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row
from ._options import GAMMA, Runs, endless, options_of

PAPER = (
    "Sutton, Precup & Singh, Between MDPs and semi-MDPs: learning, planning, and representing knowledge at multiple "
    "temporal scales, technical report 98-74, University of Massachusetts, 1998"
)
VALUES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)  # of the target hallway
SHOWN = HALLWAY_OPTIONS.index("NW to N")
LOW, HIGH = int(cell_index(10, 5)), int(cell_index(9, 9))
SUBGOALS = {LOW: -1.0, HIGH: 10.0}
TIE = 1e-9  # actions whose exact values are this close are equally good
MEASURES = ("direct", "in the target", "elsewhere", "steps")


def parts(scale: Scale) -> dict[str, Computation]:
    smoke = scale == "smoke"
    about: dict[str, Any] = {"steps": 2000 if smoke else 100_000}
    found = {"figure 12": Computation(options_by_value, shared=("policies", "rewards"))}
    for value in VALUES[1:2] if smoke else (1.0, 10.0):
        found[f"learned, {value:g}"] = Computation(learn, about | {"value": value})
    found["figure 13"] = Computation(transferred, seeds=0)
    found["one value"] = Computation(pairs, {"count": 5 if smoke else 500}, seeds=1)
    return found


# Figure 12


def options_by_value(seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Exactly optimal options for each draw of rewards.

    Returns:
        MEASURES [seeds, V], means over all options and the states they may start in: share of actions that are those of
        a shortest way, probability to end in the target, share of states from where another end is likelier; of "steps"
        the median. "without rewards" [seeds, 3], the same of the options that are optimal without rewards. Of the first
        draw "policies" [V, O, S, A] and "rewards" [S].
    """
    with jax.enable_x64(True):
        env = FourRooms()
        P, _ = (x.astype(float) for x in env.model(endless(env)))
        shape = P.shape[:2]

        def options_for(value: Any, R: jax.Array) -> Any:
            subgoals = hallway_subgoals(env, value)
            return learned_options(exact_values(P, R, subgoals, GAMMA), subgoals)

        subgoals, nothing = hallway_subgoals(env), jnp.zeros(shape)
        plain = exact_values(P, nothing, subgoals, GAMMA)  # [O, S, A]
        shortest = plain >= jnp.max(plain, axis=2, keepdims=True) - TIE
        target, states = jnp.argmax(subgoals.value, axis=1), subgoals.initiation

        def measure(options: Any) -> list[jax.Array]:
            ends = smdp.option_models(P, nothing, options, 1.0).transition  # probabilities of the end
            there = jnp.take_along_axis(ends, target[:, None, None], axis=2)[..., 0]  # [O, S]
            steps = jnp.where(states, smdp.option_durations(P, options), jnp.nan)
            mean = lambda x: jnp.mean(x, where=states)
            direct = jnp.sum(options.policy * shortest, axis=2)
            return [mean(direct), mean(there), mean(there < 0.5), jnp.nanmedian(steps)]

        def of_draw(seed: jax.Array) -> jax.Array:  # [V, 4]
            R = jax.random.uniform(jax.random.key(seed), shape, minval=-1.0, maxval=0.0)
            return jnp.stack([jnp.stack(measure(options_for(value, R))) for value in VALUES])

        found = np.asarray(jax.jit(lambda seeds: jax.lax.map(of_draw, seeds))(jnp.asarray(seeds)))
        alone = np.broadcast_to(np.asarray(jnp.stack(measure(options_for(1.0, nothing)))), (len(seeds), 4))
        R = jax.random.uniform(jax.random.key(seeds[0]), shape, minval=-1.0, maxval=0.0)
        policies = np.stack([options_for(value, R).policy for value in VALUES])
        measured = {name: found[..., i] for i, name in enumerate(MEASURES)}
        return measured | {"without rewards": alone, "policies": policies, "rewards": np.asarray(R.mean(axis=1))}


def learn(seeds: Sequence[int], steps: int, value: float) -> dict[str, Any]:
    """The options of one subgoal value learned from random actions: `option_errors` [seeds], mean over options, and the
    mean size of the optimal values, "scale"."""
    env = FourRooms()
    noisy, tasks = noisy_rewards(env, Tasks(sample=lambda key: endless(env)))
    config = Config(subgoal_value=value, step_size=0.1, discount=GAMMA)
    runs = Runs(lambda: make(config, noisy, tasks), [{}], seeds)
    state = runs.advance(steps)
    subgoals = hallway_subgoals(env, value)

    def errors(q: jax.Array, task: Any) -> dict[str, jax.Array]:
        P, R = noisy.model(jax.tree.map(lambda x: x[0], task))
        best = jnp.max(exact_values(P, R, subgoals, GAMMA), axis=2)
        found = option_errors(config, subgoals, q, P, R)
        return {name: x.mean() for name, x in found.items()} | {
            "scale": jnp.mean(jnp.abs(best), where=subgoals.initiation)
        }

    found = jax.device_get(jax.jit(jax.vmap(errors))(state.params, state.world.task))
    return found | {"compile_seconds": runs.compile_seconds}


# Figure 13


def transferred() -> dict[str, np.ndarray]:
    """Values [S]: "promised" by the old models, "kept" by the plan, "best" with models that end in the subgoals; with
    options and models left out that may run through a subgoal, "invalidated promised" and "invalidated kept"; and
    "optional", where a subgoal may be passed."""
    with jax.enable_x64(True):
        P, R, options, old = rooms_with_options()
        subgoal = jnp.zeros(NUM_CELLS, bool).at[jnp.array([*SUBGOALS])].set(True)
        value = jnp.zeros(NUM_CELLS).at[jnp.array([*SUBGOALS])].set(jnp.array([*SUBGOALS.values()]))
        ending = transfer.ending_models(P, R, options, subgoal, GAMMA)
        valid = options.initiation & transfer.unaffected(old, ending, subgoal)

        def plan(models: Any, initiation: jax.Array) -> tuple[jax.Array, jax.Array]:
            q = transfer.promised_values(models, initiation, subgoal, value)
            policy = tabular.greedy_policy(q, initiation.T, TIE)
            promised = jnp.where(subgoal, value, jnp.max(q, axis=1))
            return promised, transfer.kept_values(P, R, options, policy, subgoal, value, GAMMA)

        promised, kept = plan(old, options.initiation)
        found = {"promised": promised, "kept": kept, "best": plan(ending, options.initiation)[1]}
        found["invalidated promised"], found["invalidated kept"] = plan(old, valid)
        found["optional"] = transfer.optional_values(old, options.initiation, subgoal, value)
        return {name: np.asarray(x) for name, x in found.items()}


def pairs(seeds: Sequence[int], count: int) -> dict[str, np.ndarray]:
    """The most that a plan with the old models promises above what it keeps, where all subgoals are worth 10: "single"
    [1, S] for each cell alone, "pair" [1, count] for random pairs."""
    with jax.enable_x64(True):
        P, R, options, old = rooms_with_options()

        def excess(cells: jax.Array) -> jax.Array:
            subgoal = jnp.zeros(NUM_CELLS, bool).at[cells].set(True)
            value = jnp.where(subgoal, 10.0, 0.0)
            q = transfer.promised_values(old, options.initiation, subgoal, value)
            policy = tabular.greedy_policy(q, options.initiation.T, TIE)
            kept = transfer.kept_values(P, R, options, policy, subgoal, value, GAMMA)
            return jnp.max(jnp.where(subgoal, 0.0, jnp.max(q, axis=1) - kept))

        random = np.random.default_rng(seeds[0])
        drawn = jnp.array([random.choice(NUM_CELLS, 2, replace=False) for _ in range(count)])
        run = jax.jit(lambda cells: jax.lax.map(excess, cells))
        found = {"single": run(jnp.arange(NUM_CELLS)[:, None]), "pair": run(drawn)}
        return {name: np.asarray(x)[None] for name, x in found.items()}


def rooms_with_options() -> tuple[jax.Array, jax.Array, Any, smdp.OptionModels]:
    """P and R of four rooms without a goal, actions and hallway options, and their models."""
    env = FourRooms()
    P, R = (x.astype(float) for x in env.model(endless(env)))
    options = options_of("A ∪ H")
    return P, R, options, smdp.option_models(P, R, options, GAMMA)


# Rows


def rows(found: Found) -> list[Row]:
    made = value_rows(found["figure 12"]) if "figure 12" in found else []
    for name in (name for name in found if name.startswith("learned")):
        measured = found[name]
        label = f"{name.replace(',', ', subgoal value')}: loss of the learned policies, share of the optimal values"
        row = Row.measured(label, measured["policy_loss"] / measured["scale"], unit="runs")
        row.note = (
            "mean over options and states of the optimal value minus that of the greedy policy, divided by the mean "
            f"size of the optimal values; root mean square error of the values {measured['value_error'].mean():.2f}"
        )
        made.append(row)
    made += transfer_rows(found["figure 13"]) if "figure 13" in found else []
    return made + (pair_rows(found["one value"]) if "one value" in found else [])


LABELS = {
    "direct": "share of actions on a shortest way",
    "in the target": "probability to end in the target",
    "elsewhere": "share of states from where another end is likelier",
    "steps": "median of the expected steps",
}


def value_rows(measured: Measured) -> list[Row]:
    made = []
    alone = dict(zip(MEASURES, measured["without rewards"][0]))
    for name, text in LABELS.items():
        for value, column in zip(VALUES, measured[name].T):
            bounds = None if name == "steps" else FRACTION
            statistic = "mean" if name == "steps" else "mean inside"
            row = Row.measured(
                f"subgoal value {value:g}: {text}", column, statistic=statistic, bounds=bounds, unit="draws"
            )
            row.note = f"without rewards {alone[name]:.3g}"
            made.append(row)
    low, high = VALUES.index(1.0), VALUES.index(10.0)
    of = lambda name, i: measured[name][:, i]
    claims = (
        ("10 is more direct than 1", of("direct", high), of("direct", low), "above 0"),
        ("10 ends more often in the target than 1", of("in the target", high), of("in the target", low), "above 0"),
        ("10 takes fewer steps than 1", of("steps", high), of("steps", low), "below 0"),
    )
    for text, ours, other, rule in claims:
        made.append(Row.measured(f"claim: a subgoal value of {text}", ours, other, unit="draws").judged(rule))
    heads = Row.measured("claim: with 1 some options head for another end", of("elsewhere", low), unit="draws")
    heads.note = "share of states; in every draw above 0" if (of("elsewhere", low) > 0).all() else "share of states"
    return [*made, heads.judged("above 0")]


def transfer_rows(found: Measured) -> list[Row]:
    made = []
    for room in ROOMS:
        inside = room_cells(room) & ~np.isin(np.arange(NUM_CELLS), [*SUBGOALS])
        for name in ("promised", "kept", "best", "optional"):
            label = f"room {room}: {name}"
            made.append(Row.computed(label, float(found[name][inside].mean()), note="mean value of the room's cells"))
    cells = room_cells("SW") & (np.arange(NUM_CELLS) != LOW)
    excess = (found["promised"] - found["kept"])[cells]
    lost = (found["best"] - found["kept"])[cells]
    made += [
        holds("the old models promise too much in the lower left room", excess.min(), excess.min() > 1e-6),
        holds("the plan with the old models is poor in the lower left room", lost.max(), lost.max() > 1e-6),
    ]
    made[-2].note = f"least of promised − kept over the room's cells; the largest {excess.max():.2f}"
    made[-1].note = "largest loss against planning with models that end in the subgoals"
    valid = (found["invalidated promised"] - found["invalidated kept"]).max()
    loss = (found["best"] - found["invalidated kept"]).max()
    made.append(
        holds("without options that may run through a subgoal nothing is promised too much", valid, valid < TIE)
    )
    made[-1].note = f"the plan then loses {max(loss, 0.0):.1g} at most against the best over all options that end there"
    better = (found["optional"] - found["best"]).min()
    made.append(holds("where subgoals may be passed, all values are at least as good", better, better > -1e-6))
    return made


def pair_rows(found: Measured) -> list[Row]:
    texts = {"single": "for each cell as the only subgoal", "pair": "for random pairs of subgoals of one value"}
    made = []
    for name, text in texts.items():
        most = found[name].max()
        made.append(holds(f"nothing is promised too much {text}", most, most < TIE))
        made[-1].note = f"the largest promised − kept of {found[name].size} plans"
    return made


def holds(text: str, value: Any, so: Any) -> Row:
    shown = 0.0 if abs(value) < TIE else float(value)  # rounding
    return Row.computed(f"claim: {text}", shown, verdict="reached" if so else "short")


# Pictures


def draw(found: Found) -> dict[str, Any]:
    pictures = {}
    if "figure 12" in found:
        pictures[""] = policies_figure(found["figure 12"])
    if "figure 13" in found:
        pictures["transfer"] = transfer_figure(found["figure 13"])
    return pictures


def policies_figure(measured: Measured) -> Any:
    """One option in the first draw for both values, and the measures by value."""
    figure, ((left, middle, right),) = subplots(1, 3, 4.8, 4.6)
    env, subgoals = FourRooms(), hallway_subgoals(FourRooms())
    starts, stops = subgoals.initiation[SHOWN], subgoals.termination[SHOWN]
    for ax, value in ((left, 10.0), (middle, 1.0)):
        policy = measured["policies"][VALUES.index(value)][SHOWN]
        env.draw(ax, policy=policy, initiation=starts, termination=stops)
        ax.set_title(f"{HALLWAY_OPTIONS[SHOWN]}, subgoal value {value:g}")
        ax.set(xlim=(-0.5, 7.5), ylim=(7.5, -0.5))
    for name, color in zip(("direct", "in the target", "elsewhere"), (BLUE, GREEN, VERMILION)):
        points = [
            Row.measured("", column, statistic="mean inside", bounds=FRACTION, unit="draws")
            for column in measured[name].T
        ]
        with_intervals(right, VALUES, points, color, LABELS[name])
        right.axhline(measured["without rewards"][0][MEASURES.index(name)], color=color, lw=0.8, ls=":")
    right.set(
        xscale="log", xlabel="subgoal value", ylim=(-0.02, 1.02), title=f"{len(measured['direct'])} draws of rewards"
    )
    right.set_xticks(VALUES, [f"{value:g}" for value in VALUES])
    right.minorticks_off()
    right.set_ylabel("dotted: without rewards", fontsize=9)
    legend_below(figure, right)
    return figure


def transfer_figure(found: Measured) -> Any:
    """What the plan promises and keeps, and what is best."""
    from matplotlib.colors import TwoSlopeNorm

    figure, axes = subplots(1, 3, 4.6, 4.6)
    env = FourRooms()
    norm = TwoSlopeNorm(0.0, -1.0, 10.0)
    titles = {
        "promised": "promised by the old models",
        "kept": "kept by that plan",
        "best": "best with models that end",
    }
    for ax, (name, title) in zip(axes[0], titles.items()):
        image = env.draw(ax, values=found[name])
        image.set(norm=norm, cmap="PuOr_r")
        for cell, value in SUBGOALS.items():
            row, col = CELLS[cell]
            ax.text(
                col, row, f"{value:g}", ha="center", va="center", weight="bold", color=ORANGE if value < 0 else "white"
            )
        mean = found[name][room_cells("SW") & (np.arange(NUM_CELLS) != LOW)].mean()
        ax.set_title(f"{title}\nmean of the lower left room {mean:.2f}", fontsize=11)
    figure.colorbar(image, ax=axes, shrink=0.75, label="value")
    return figure


FIGURE = Figure(
    name="options_subgoal_values",
    paper=PAPER,
    shows="figures 12 and 13 (other subgoal values, and a subgoal to which options do not transfer)",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=30,
)
