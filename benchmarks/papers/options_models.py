"""Learning option models: Sutton, Precup & Singh (Artificial Intelligence 112, 1999), figure 9.

Four rooms without a goal, γ = .9. Each action pays N(mean, .1) with a mean drawn from U[−1, 0] for each run, state and
action. Behaviour: uniformly random among the options that may start, two hallway options and four actions. Intra-option
and SMDP model learning see the same steps. Step sizes 1/2, 1/4, 1/8 and 1/16, and for the SMDP method also 1/t.

Measured are the absolute errors of the reward and the state prediction against the exact model of each run's task,
their mean and largest over the states that an option may start in, averaged over the eight hallway options. The error
of a state's prediction is that of the outcome that is worst predicted. The paper shows curves and prints no number:
there is nothing to compare the errors with. Its two claims are tested: that the intra-option method is significantly
faster, by the options executed until it has the SMDP method's final error, and that α = 1/4 is best for both, by the
mean error over the whole time (the paper does not say by what).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.four_rooms import FourRooms
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.engine.types import TrainState
from jaxrl_hier.exact import smdp
from jaxrl_hier.hierarchical.option_models import Config, NoisyParams, make, noisy_rewards
from jaxrl_hier.hierarchical.options import hallway_options
from jaxrl_hier.reports.statistics import mean

from ..drawing import GREY, curve, shades, subplots
from ..figure import Computation, Figure, Found, Scale
from ..results import Row
from ._options import GAMMA, SPS, Runs, endless

NUM_ACTIONS = 4  # the options before the hallway options
ERRORS = {
    "reward": "reward, mean over states",
    "reward_max": "reward, largest over states",
    "transition": "state prediction, mean over states",
    "transition_max": "state prediction, largest over states",
}
FRACTIONS = {0.5: "1/2", 0.25: "1/4", 0.125: "1/8", 0.0625: "1/16"}
LEARNERS = {
    f"{method}, α = {text}": Config(method=method, step_size=alpha, discount=GAMMA)
    for method in ("intra-option", "smdp")
    for alpha, text in FRACTIONS.items()
} | {"smdp, α = 1/t": Config(method="smdp", sample_average=True, discount=GAMMA)}
BEST = "intra-option, α = 1/4"


def parts(scale: Scale) -> dict[str, Computation]:
    names, executed = ([BEST, "smdp, α = 1/4"], 200) if scale == "smoke" else ([*LEARNERS], 100_000)
    about = {"executed": executed}
    return {name: Computation(learn, {"config": LEARNERS[name]} | about, shared=("options",)) for name in names}


def learn(seeds: Sequence[int], config: Config, executed: int) -> dict[str, Any]:
    """The errors [seeds, points] when so many "options" [points] have been executed."""
    rooms = FourRooms()
    hallways = hallway_options(rooms)
    env, tasks = noisy_rewards(rooms, Tasks(sample=lambda key: endless(rooms)))

    @jax.jit
    @jax.vmap
    def exact_models(task: NoisyParams) -> smdp.OptionModels:
        return smdp.option_models(*env.model(task), hallways, GAMMA)

    @jax.jit
    @jax.vmap
    def errors(state: TrainState, exact: smdp.OptionModels) -> dict[str, jax.Array]:
        learned = jax.tree.map(lambda x: x[NUM_ACTIONS:], state.params)
        reward = jnp.abs(learned.reward - exact.reward)
        transition = jnp.max(jnp.abs(learned.transition - exact.transition), axis=2)
        over_states = lambda error: jnp.mean(jnp.mean(error, axis=1, where=hallways.initiation))
        largest = lambda error: jnp.mean(jnp.max(error, axis=1, where=hallways.initiation, initial=0.0))
        return {
            "reward": over_states(reward),
            "reward_max": largest(reward),
            "transition": over_states(transition),
            "transition_max": largest(transition),
            "executed": jnp.sum(state.learner),
        }

    runs = Runs(lambda: make(config, env, tasks), [{}], seeds)
    exact = exact_models(jax.tree.map(lambda x: x[:, 0], runs.state.world.task))  # each run's one environment
    looks = np.linspace(0, 3.25 * executed, 131).astype(int)  # an option takes 3.1 steps on average
    measured = [jax.device_get(errors(runs.advance(steps), exact)) for steps in np.diff(looks, prepend=0)]
    series = {name: np.stack([m[name] for m in measured], axis=1) for name in measured[0]}  # [seeds, looks]
    options = np.linspace(0, executed, 101)
    interpolated = lambda y: np.stack([np.interp(options, *xy) for xy in zip(series["executed"], y)])
    found = {name: interpolated(series[name]) for name in ERRORS}
    return found | {"options": options, "compile_seconds": runs.compile_seconds}


def rows(found: Found) -> list[Row]:
    made = [*speed_rows(found), *step_size_rows(found)]
    row_of, note = partial(Row.measured, unit="runs"), "the curve's mean, by which step sizes are compared"
    for label, errors in found.items():
        for name, text in ERRORS.items():
            after = f"after {errors['options'][-1]:.0f} options"
            made.append(row_of(f"{label}: error of {text}, {after}", errors[name][:, -1]))
            made.append(row_of(f"{label}: error of {text}, mean over the time", errors[name].mean(axis=1), note=note))
    return made


def speed_rows(found: Found) -> list[Row]:
    """Options that the intra-option method executes until it has the final error of the SMDP method."""
    made = []
    for rival in (label for label in found if label.startswith("smdp") and BEST in found):
        options = found[BEST]["options"]
        for name, text in ERRORS.items():
            ours, theirs = found[BEST][name], found[rival][name]
            final = theirs[:, -1]
            reached = ours <= final[:, None]
            ever = reached.any(axis=1)
            needed = np.where(ever, options[reached.argmax(axis=1)], options[-1])
            gap, area = mean(final - ours[:, -1], "runs"), mean((theirs - ours).mean(axis=1), "runs")
            note = (
                f"the paper: intra-option model learning is significantly faster. {rival} has the error "
                f"{final.mean():.3f} after {options[-1]:.0f} options; {ever.sum()} of {len(needed)} runs of {BEST} get "
                f"there, the others count as {options[-1]:.0f}. {rival} minus {BEST}: {gap.value:.3f} "
                f"{gap.bracket('.3f')} at the end, {area.value:.3f} {area.bracket('.3f')} on average "
                "over the time. Reached: fewer options, with 95 % confidence, and in every run; "
                f"counted to {options[1]:.0f}"
            )
            label = f"claim: options until {BEST} has the final error of {rival}, {text}"
            made.append(Row.measured(label, needed, unit="runs", note=note).judged(f"below {options[-1]:.0f}"))
            if not ever.all():
                made[-1].verdict, made[-1].rule = "short", ""
    return made


def step_size_rows(found: Found) -> list[Row]:
    """Which step size has the smallest mean error over the whole time."""
    made = []
    for method in ("intra-option", "smdp"):
        labels = {alpha: f"{method}, α = {text}" for alpha, text in FRACTIONS.items()}
        if not set(labels.values()) <= found.keys():
            continue
        for name, text in ERRORS.items():
            errors = {alpha: found[label][name] for alpha, label in labels.items()}
            best = min(errors, key=lambda alpha: errors[alpha].mean())
            last = min(errors, key=lambda alpha: errors[alpha][:, -1].mean())
            # over the runs: how often each is the best
            winners = np.array(list(errors))[np.argmin([error.mean(axis=1) for error in errors.values()], axis=0)]
            listing = ", ".join(f"{FRACTIONS[alpha]}: {error.mean():.3f}" for alpha, error in errors.items())
            note = (
                f"the paper: 1/4 is best for all. Mean error over the time by α: {listing}. Smallest error at the "
                f"end: {FRACTIONS[last]}. Best in so many runs: "
                f"{', '.join(f'{FRACTIONS[a]}: {np.sum(winners == a)}' for a in errors)}"
            )
            row = Row.computed(f"claim: best α for {method}, {text}", best, published=0.25, note=note)
            row.verdict = "reached" if best == 0.25 else "short"
            row.seeds, row.unit, row.method = len(winners), "runs", "no interval: a choice out of four"
            made.append(row)
    return made


def draw(found: Found) -> dict[str, Any]:
    """A panel per error; colour the step size, solid intra-option and dashed SMDP, bands 95 % over runs."""
    from matplotlib.lines import Line2D

    colours = dict(zip(FRACTIONS.values(), shades(len(FRACTIONS)))) | {"1/t": GREY}
    styles: dict[str, Any] = {"intra-option": "-", "smdp": (0, (3, 1.6))}
    figure, axes = subplots(2, 2, figsize=(11, 7.4), sharex=True)
    for ax, (name, text) in zip(axes.flat, ERRORS.items()):
        for label, errors in found.items():
            method, alpha = label.split(", α = ")
            curve(ax, errors["options"] / 1000, errors[name], label, color=colours[alpha], ls=styles[method])
        ax.set(title=f"error of the {text}", ylim=(0, None), xlim=(0, errors["options"][-1] / 1000))
    for ax in axes[1]:
        ax.set_xlabel("options executed, thousands")
    for ax in axes[:, 0]:
        ax.set_ylabel("absolute error, mean over 8 options")
    lines = [Line2D([], [], color=color, lw=2, label=f"α = {alpha}") for alpha, color in colours.items()]
    names = {"intra-option": "intra-option", "smdp": "SMDP"}
    lines += [Line2D([], [], color="0.4", lw=1.6, ls=styles[method], label=text) for method, text in names.items()]
    figure.legend(handles=lines, loc="outside lower center", ncols=7, fontsize=10)
    return {"": figure}


FIGURE = Figure(
    name="options_models",
    paper=SPS,
    shows="figure 9 (learning option models)",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=30,
    threads=2,
    minutes=13,
)
