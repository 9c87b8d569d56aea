"""Learning option models: Sutton, Precup & Singh (Artificial Intelligence 112, 1999), figure 9.

    python -m benchmarks.papers.options_models        # 30 runs, some minutes on two cores
    python -m benchmarks.papers.options_models --scale smoke

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

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.papers._old import GAMMA, PAPER, Arguments, snapshots
from benchmarks.papers.options_planning import pyplot
from benchmarks.results import Row, show, write_paper
from jaxrl_envs.four_rooms import NONE, FourRooms
from jaxrl_hier.engine.train import RunConfig
from jaxrl_hier.engine.types import Tasks, TrainState
from jaxrl_hier.exact import smdp
from jaxrl_hier.hierarchical.option_models import Config, NoisyParams, make, noisy_rewards
from jaxrl_hier.hierarchical.options import hallway_options
from jaxrl_hier.reports.statistics import mean

NUM_ACTIONS = 4  # the options before the hallway options
ERRORS = {
    "reward": "reward, mean over states",
    "reward_max": "reward, largest over states",
    "transition": "state prediction, mean over states",
    "transition_max": "state prediction, largest over states",
}
FRACTIONS = {0.5: "1/2", 0.25: "1/4", 0.125: "1/8", 0.0625: "1/16"}
LEARNERS = {
    f"{method}, α = {text}": Config(method=method, step_size=alpha)
    for method in ("intra-option", "smdp")
    for alpha, text in FRACTIONS.items()
} | {"smdp, α = 1/t": Config(method="smdp", sample_average=True)}
BEST = "intra-option, α = 1/4"

Curves = dict[str, np.ndarray]  # of one learner, by the name of the error: [seeds, points]


def main(arguments: Arguments) -> None:
    begun = time.perf_counter()
    executed = 1000 if arguments.scale == "smoke" else 100_000
    options = np.linspace(0, executed, 101)
    run = RunConfig(seeds=arguments.seeds)
    # single-threaded programs: two at a time
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda config: learn(config, run, options), LEARNERS.values())
        curves = dict(zip(LEARNERS, found))

    rows = [*speed_rows(curves, options), *step_size_rows(curves)]
    for label, errors in curves.items():
        for name, text in ERRORS.items():
            row_of = partial(Row.measured, unit="runs")
            rows.append(row_of(f"{label}: error of {text}, after {executed} options", errors[name][:, -1]))
            note = "the curve's mean, by which step sizes are compared"
            rows.append(row_of(f"{label}: error of {text}, mean over the time", errors[name].mean(axis=1), note=note))

    picture(curves, options, arguments.out / "options_models.png")
    path = write_paper(
        "options_models",
        PAPER,
        "figure 9 (learning option models)",
        rows,
        arguments.scale,
        arguments.out,
        wall_seconds=time.perf_counter() - begun,
    )
    show(rows)
    print(path)


def learn(config: Config, run: RunConfig, options: np.ndarray) -> Curves:
    """The errors of all runs when so many `options` have been executed."""
    rooms = FourRooms()
    hallways = hallway_options(rooms)
    # no goal and no time limit: one episode that never ends
    endless = rooms.default_params.replace(goal=np.int32(NONE), max_steps_in_episode=np.iinfo(np.int32).max)
    env, tasks = noisy_rewards(rooms, Tasks(sample=lambda key: endless))

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
        mean = lambda error: jnp.mean(jnp.mean(error, axis=1, where=hallways.initiation))
        largest = lambda error: jnp.mean(jnp.max(error, axis=1, where=hallways.initiation, initial=0.0))
        return {
            "reward": mean(reward),
            "reward_max": largest(reward),
            "transition": mean(transition),
            "transition_max": largest(transition),
            "executed": jnp.sum(state.learner),
        }

    algorithm = make(replace(config, options="both", discount=GAMMA), env, tasks)
    # an option takes 3.1 steps on average
    at = np.linspace(0, 3.25 * options[-1], 131).astype(int)
    measured, exact = [], None
    for _, state in snapshots(algorithm, run, at):
        if exact is None:
            exact = exact_models(jax.tree.map(lambda x: x[:, 0], state.world.task))  # each run's one environment
        measured.append(jax.device_get(errors(state, exact)))
    series = {name: np.stack([m[name] for m in measured], axis=1) for name in measured[0]}  # [seeds, snapshots]
    interpolated = lambda y: np.stack([np.interp(options, *xy) for xy in zip(series["executed"], y)])
    return {name: interpolated(series[name]) for name in ERRORS}


# Rows


def speed_rows(curves: dict[str, Curves], options: np.ndarray) -> list[Row]:
    """Options that the intra-option method executes until it has the final error of the SMDP method."""
    rows = []
    for rival in (label for label in curves if label.startswith("smdp")):
        for name, text in ERRORS.items():
            ours, final = curves[BEST][name], curves[rival][name][:, -1]
            reached = ours <= final[:, None]
            needed = np.where(reached.any(axis=1), options[reached.argmax(axis=1)], options[-1])
            ever, gap = reached.any(axis=1), mean(final - ours[:, -1], "runs")
            area = mean((curves[rival][name] - ours).mean(axis=1), "runs")
            note = (
                f"the paper: intra-option model learning is significantly faster. {rival} has the error "
                f"{final.mean():.3f} after {options[-1]:.0f} options; {ever.sum()} of {len(needed)} runs of {BEST} get "
                f"there, the others count as {options[-1]:.0f}. {rival} minus {BEST}: {gap.value:.3f} "
                f"{gap.bracket('.3f')} at the end, {area.value:.3f} {area.bracket('.3f')} on average "
                "over the time. Reached: fewer options, with 95 % confidence, and in every run; "
                f"counted to {options[1]:.0f}"
            )
            label = f"claim: options until {BEST} has the final error of {rival}, {text}"
            rows.append(Row.measured(label, needed, unit="runs", note=note).judged(f"below {options[-1]:.0f}"))
            if not ever.all():
                rows[-1].verdict, rows[-1].rule = "short", ""
    return rows


def step_size_rows(curves: dict[str, Curves]) -> list[Row]:
    """Which step size has the smallest mean error over the whole time."""
    rows = []
    for method in ("intra-option", "smdp"):
        labels = {alpha: f"{method}, α = {text}" for alpha, text in FRACTIONS.items()}
        for name, text in ERRORS.items():
            errors = {alpha: curves[label][name] for alpha, label in labels.items()}
            best = min(errors, key=lambda alpha: errors[alpha].mean())
            last = min(errors, key=lambda alpha: errors[alpha][:, -1].mean())
            listing = ", ".join(f"{FRACTIONS[alpha]}: {error.mean():.3f}" for alpha, error in errors.items())
            note = (
                f"the paper: 1/4 is best for all. Mean error over the time by α: {listing}. Smallest error at the "
                f"end: {FRACTIONS[last]}"
            )
            # over the runs: how often each is the best
            winners = np.array(list(errors))[np.argmin([error.mean(axis=1) for error in errors.values()], axis=0)]
            row = Row.computed(f"claim: best α for {method}, {text}", best, published=0.25, note=note)
            row.verdict = "reached" if best == 0.25 else "short"
            row.seeds, row.unit, row.method = len(winners), "runs", "no interval: a choice out of four"
            row.note += (
                f". Best in so many runs: {', '.join(f'{FRACTIONS[a]}: {np.sum(winners == a)}' for a in errors)}"
            )
            rows.append(row)
    return rows


# Picture

COLORS = {"1/2": "#c6306e", "1/4": "#1f6fb4", "1/8": "#2c9a6b", "1/16": "#e8a010", "1/t": "0.25"}


def picture(curves: dict[str, Curves], options: np.ndarray, path: Path) -> None:
    """A panel per error; colour the step size, solid intra-option and dashed SMDP, bands 95 % over runs."""
    plt = pyplot()
    from matplotlib.lines import Line2D

    from jaxrl_hier.reports.plotting import STYLE, draw_band

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11, 7.4), sharex=True)
        for ax, (name, text) in zip(axes.flat, ERRORS.items()):
            for label, errors in curves.items():
                method, alpha = label.split(", α = ")
                style = "-" if method == "intra-option" else (0, (3, 1.6))
                draw_band(ax, options / 1000, errors[name], COLORS[alpha], ls=style)
            ax.set(title=f"error of the {text}", ylim=(0, None), xlim=(0, options[-1] / 1000))
        for ax in axes[1]:
            ax.set_xlabel("options executed, thousands")
        for ax in axes[:, 0]:
            ax.set_ylabel("absolute error, mean over 8 options")
        lines = [Line2D([], [], color=color, lw=2, label=f"α = {alpha}") for alpha, color in COLORS.items()]
        lines += [
            Line2D([], [], color="0.4", lw=1.6, label="intra-option"),
            Line2D([], [], color="0.4", lw=1.6, ls=(0, (3, 1.6)), label="SMDP"),
        ]
        figure.legend(handles=lines, loc="outside lower center", ncols=7, fontsize=10)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
