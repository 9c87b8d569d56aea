"""Planning with options in four rooms: Sutton, Precup & Singh (Artificial Intelligence 112, 1999), figures 4 and 5.

Synchronous value iteration over the four primitive actions (A), the eight hallway options (H) and both (A ∪ H), with
exact option models and γ = .9, to the goals G1 (the east hallway) and G2 (in the lower right room, two cells below it).
Nothing is sampled: every number is exact for the paper's specification, and there are no intervals.

The paper plans with option models that assume no goal (section 5.1): an option runs through G2, and the goal only
counts after the option has ended. An option that is run does end at the goal, and so do the models that the expected
steps and best values belong to. For H and A ∪ H at G2, where the two differ, the sweeps are published for both; the
picture has the paper's. After sweep k each value is compared with the fixed point of the same options and models.

The `exact` values were computed from the paper's specification by another program, to the digits that are given;
"reached" means the same digits. The paper prints no numbers for these figures but says in words how good the values are
after so many sweeps. That is measured here: "reached" would be no error above .001.

Convention: entering the goal pays 1. The paper gives the goal the value 1 instead, so that its values in the other
cells are .9 times ours, after every sweep; no number of steps differs.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.four_rooms import G1, G2, NONE, NUM_CELLS, FourRooms, cell_index
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.hierarchical.options import hallway_options

from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row
from ._options import GAMMA, OPTIONS, SPS, START, option_panels, options_of

SWEEPS = 6  # published
GOALS = {"G1": G1, "G2": G2}
TIMES_9 = ".9 times this in the paper's convention"
UNIFORM = "choosing uniformly among the options that can start, as Q-learning does before its first reward"
BEST = "maximises the discounted return, which is not quite the same as the fewest steps"
BEST_VALUE = f"the best that these options allow; {TIMES_9}"
NOTES = {
    "V*(1,1)": TIMES_9,
    "mean of V*": f"over the {NUM_CELLS - 1} other cells; {TIMES_9}",
    "fewest expected steps": "of any policy, without discount",
    "fewest expected steps, mean over starts": "of any policy, without discount",
    **{f"first episode, {name}": UNIFORM for name in OPTIONS},
} | {
    label: note
    for name in OPTIONS
    for label, note in ((f"V*(1,1), {name}", BEST_VALUE), (f"steps of the best policy, {name}", BEST))
}

# From the specification, by another program; the digits given here are those that are compared.
EXACT = {
    "G1": {
        "V*(1,1)": ".0931",
        "mean of V*": ".3294",
        "fewest expected steps": "25.80",
        "fewest expected steps, mean over starts": "15.01",
        "first episode, A": "697.7",
        "first episode, H": "58.6",
        "first episode, A ∪ H": "76.3",
        "V*(1,1), H": ".0927",
        "V*(1,1), A ∪ H": ".0931",
        "steps of the best policy, H": "25.93",
        "steps of the best policy, A ∪ H": "25.86",
    },
    "G2": {
        "V*(1,1)": ".0625",
        "mean of V*": ".326",
        "fewest expected steps": "30.03",
        "first episode, A": "805.7",
        "first episode, H": "204.2",
        "first episode, A ∪ H": "199.1",
        "V*(1,1), H": ".0225",
        "V*(1,1), A ∪ H": ".0625",
        "steps of the best policy, H": "56.96",
        "steps of the best policy, A ∪ H": "30.08",
    },
}


def parts(scale: Scale) -> dict[str, Computation]:
    found = {f"references, {goal}": Computation(references, {"goal": goal}, seeds=0) for goal in GOALS}
    for goal in GOALS:
        for name in OPTIONS:
            about: dict[str, Any] = {"options": name, "goal": goal}
            found[f"{name} to {goal}"] = Computation(plan, about | {"ends_at_goal": False}, seeds=0)
            if goal == "G2" and name != "A":
                ending = Computation(plan, about | {"ends_at_goal": True}, seeds=0)
                found[f"{name} to {goal}, models that end there"] = ending
    return {name: found[name] for name in ("A to G1", "H to G1")} if scale == "smoke" else found


def references(goal: str) -> dict[str, np.ndarray]:
    """Values and expected steps, from (1,1) unless another start is named; options end at the goal."""
    with jax.enable_x64(True):
        env = FourRooms()
        params = env.default_params.replace(goal=cell_index(*GOALS[goal]))
        P, R = env.model(params)
        best = tabular.value_iteration(P, R, GAMMA, tolerance=1e-12)
        fewest = tabular.minimal_expected_steps(P)
        others = np.arange(NUM_CELLS) != params.goal
        found = {
            "V*(1,1)": best[START],
            "mean of V*": best[others].mean(),
            "fewest expected steps": fewest[START],
            "fewest expected steps, mean over starts": fewest[others].mean(),
        }
        for name in OPTIONS:
            options = options_of(name)
            steps = lambda policy, options=options: smdp.option_expected_steps(P, options, policy)[START]
            models = smdp.option_models(P, R, options, GAMMA)
            values = smdp.smdp_optimal_values(models, options.initiation, tolerance=1e-12)
            found[f"first episode, {name}"] = steps(smdp.uniform_over_available(options.initiation))
            found[f"V*(1,1), {name}"] = values[START].max()
            found[f"steps of the best policy, {name}"] = steps(tabular.greedy_policy(values, options.initiation.T))
        return {name: np.asarray(x) for name, x in found.items()}


def plan(options: str, goal: str, ends_at_goal: bool) -> dict[str, np.ndarray]:
    """Value iteration over one set of options to one goal.

    Returns:
        "values" [sweeps, S] after each sweep and "limit" [S]. Without the goal's own cell: "error" [41, S - 1], the
        distance from the limit after each sweep; "loss" [41], what the greedy policy after each sweep is worth less
        than the limit, at most; "valued" [41], how many cells have a value above 0.
    """
    with jax.enable_x64(True):
        env, chosen = FourRooms(), options_of(options)
        params, start = env.default_params.replace(goal=cell_index(*GOALS[goal])), chosen.initiation
        if ends_at_goal:
            models = smdp.option_models(*env.model(params), chosen, GAMMA)
            history = smdp.option_value_sweeps(models, start, 40)
        else:
            blind = smdp.option_models(*env.model(params.replace(goal=NONE)), chosen, GAMMA)
            # the episode ends on leaving the goal, which pays so much that entering it is worth 1
            models = smdp.OptionModels(
                reward=blind.reward.at[:, params.goal].set(1 / GAMMA),
                transition=blind.transition.at[:, params.goal].set(0),
            )
            history = smdp.option_value_sweeps(models, start, 41)[1:]  # a first sweep gives the goal its value
        limit = jnp.max(smdp.smdp_optimal_values(models, start, tolerance=1e-12), axis=1)
        greedy = lambda values: tabular.greedy_policy(smdp.option_values(models, values), start.T, 1e-9)
        worth = jax.lax.map(lambda values: smdp.option_policy_evaluation(models, greedy(values)), history)
        others = np.arange(NUM_CELLS) != params.goal
        return {
            "values": np.asarray(history[:SWEEPS]),
            "limit": np.asarray(limit),
            "error": np.abs(np.asarray(history - limit))[:, others],
            "loss": np.asarray(limit - worth)[:, others].max(axis=1),
            "valued": np.sum(np.asarray(history)[:, others] > 0, axis=1),
        }


def rows(found: Found) -> list[Row]:
    plans = {name: measured for name, measured in found.items() if not name.startswith("references")}
    made = [
        exact_row(f"{what}, {goal}", float(found[f"references, {goal}"][what]), EXACT[goal].get(what), note)
        for goal in GOALS
        if f"references, {goal}" in found
        for what, note in NOTES.items()
    ]
    return made + claim_rows(plans) + [row for name, planned in plans.items() for row in error_rows(name, planned)]


def exact_row(label: str, ours: float, exact: str | None, note: str) -> Row:
    """A number beside the printed digits of its reference; "reached" where it rounds to them."""
    row = Row.computed(label, ours, exact=None if exact is None else float(exact), note=note)
    if exact is not None:
        digits = len(exact.split(".")[1])
        row.verdict = "reached" if round(ours, digits) == row.exact else "short"
    return row


def claim_rows(plans: Found) -> list[Row]:
    """What the paper says in words, in numbers."""
    claims = {
        ("H to G1", 2): "all values are accurate after the second iteration, and later change by small amounts",
        ("A ∪ H to G2", 4): "the values are close to the correct ones everywhere by the fourth iteration",
    }
    made = []
    for (name, sweep), claim in claims.items():
        planned, flat = plans.get(name), plans.get(f"A to {name[-2:]}")
        if planned is None or flat is None:
            continue
        largest, error, alone = planned["error"].max(axis=1), planned["error"][sweep], flat["error"][sweep]
        needed = [f"within {x} after {np.argmax(largest < x)}" for x in (0.2, 0.1, 0.05, 0.01, 0.001)]
        note = (
            f"the paper: {claim}. To .001 that does not hold: {np.sum(error < 1e-3)} of {error.size} cells are within "
            f".001, {np.sum(error < 0.05)} within .05; the largest error is {error.max():.3f}, the mean "
            f"{error.mean():.3f}, the largest loss of the greedy policy {planned['loss'][sweep]:.3f}. Sweeps until "
            f"all cells are good: {', '.join(needed)}. With primitive actions alone the largest error after {sweep} "
            f"sweeps is {alone.max():.3f}, the mean {alone.mean():.3f}. {TIMES_9}"
        )
        label = f"claim: {name}, largest error after {sweep} sweeps"
        made.append(claim_row(label, error.max(), error.max() < 1e-3, note))
    if "H to G1" in plans:
        loss = plans["H to G1"]["loss"]
        note = (
            "the paper: an optimal policy over H is known everywhere after the second iteration. How much less the "
            f"greedy policy is worth, at most, after 0, 1, 2 sweeps: {', '.join(f'{x:.3f}' for x in loss[:3])}"
        )
        label = "claim: H to G1, largest loss of the greedy policy after 2 sweeps"
        made.append(claim_row(label, loss[2], loss[2] < 1e-6, note))
    if "H to G2" in plans:
        valued = plans["H to G2"]["valued"][-1]
        note = "the paper: planning with models of H alone, which assume no goal, can not solve G2"
        made.append(claim_row("claim: H to G2, other cells with a value after 40 sweeps", valued, valued == 0, note))
    return made


def claim_row(label: str, value: float, holds: bool, note: str) -> Row:
    return Row.computed(label, value, verdict="reached" if holds else "short", note=note)


def error_rows(name: str, planned: Measured) -> list[Row]:
    """Largest and mean distance from the limit after each sweep."""
    made = []
    for sweep, error in enumerate(planned["error"][: SWEEPS + 1]):
        cells, within = planned["valued"][sweep], np.sum(error < 1e-3)
        note = f"{cells} of {error.size} cells have a value, {within} are within .001; {TIMES_9}"
        for kind, x in (("largest", error.max()), ("mean", error.mean())):
            made.append(Row.computed(f"{name}, {kind} error after {count(sweep)}", x, note=note))
    return made


def count(sweeps: int) -> str:
    return f"{sweeps} sweep{'' if sweeps == 1 else 's'}"


PANELS = {"A to G1": "primitive actions\nto G1", "H to G1": "hallway options\nto G1", "A ∪ H to G2": "both\nto G2"}


def draw(found: Found) -> dict[str, Any]:
    plans = {title: (name, found[name]) for name, title in PANELS.items() if name in found}
    return ({"": planning_figure(plans)} if plans else {}) | {"options": options_figure()}


def planning_figure(plans: dict[str, tuple[str, Measured]]) -> Any:
    """A row per set of options, a column per sweep, and the limit."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import PowerNorm

    env = FourRooms()
    norm = PowerNorm(0.5, 0.0, 1.0)  # on a linear scale the far rooms, around .1, would be as good as white
    figure, axes = plt.subplots(len(plans), SWEEPS + 1, figsize=(14.2, 2.2 * len(plans)), squeeze=False)
    for row, (title, (name, planned)) in zip(axes, plans.items()):
        params = env.default_params.replace(goal=cell_index(*GOALS[name[-2:]]), start=NONE)
        for sweep, (ax, values) in enumerate(zip(row, [*planned["values"], planned["limit"]])):
            image = env.draw(ax, params, values=np.where(values > 0, values, np.nan))
            image.set_norm(norm)
            if sweep < SWEEPS:
                ax.set_xlabel(f"largest error {planned['error'][sweep].max():.2f}", color="0.3", fontsize=9)
        row[0].set_ylabel(title, fontsize=11)
    for sweep, ax in enumerate(axes[0]):
        ax.set_title("before" if sweep == 0 else count(sweep) if sweep < SWEEPS else "limit")
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=32, pad=0.015, ticks=[0, 0.05, 0.1, 0.2, 0.4, 0.7, 1])
    bar.set_label("value (blank: none yet)")
    bar.outline.set_visible(False)
    return figure


def options_figure() -> Any:
    """The eight hallway options: where each may start, what it does there, where it stops."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(12.6, 7.1))
    option_panels(figure, hallway_options(FourRooms()), action="its action")
    return figure


FIGURE = Figure(
    name="options_planning",
    paper=SPS,
    shows="figures 4 and 5 (planning with hallway options)",
    parts=parts,
    rows=rows,
    draw=draw,
)
