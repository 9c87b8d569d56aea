"""MAML on sinusoids: Finn, Abbeel & Levine (ICML 2017), section 5.1, and five later methods.

Squared error on fresh points of 2000 test tasks for each seed, after 0 to 10 gradient steps on 5 points (and on 10):
MAML, FOMAML, ANIL, Meta-SGD and Reptile, each trained for 70000 iterations, beside the network that was pre-trained on
all tasks and the random initialisation. The pre-trained network's step size is tuned on other tasks, as in the paper.
Then Reptile's own demonstration: phases from the full turn, tanh, 10 points, 32 steps.

At a step size of .01 gradient descent on 5 points diverges once in some thousand tasks, for every method. A task whose
error exceeds 100 (the waves' own mean square is below 12.5) is left out of the mean; the note says how many were.

It is said that FOMAML is 10 times faster than MAML and loses under 5 %. The last rows hold both against measurement:
the time of one outer step of one seed, compilation apart, the methods taking turns.
"""

import dataclasses
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl_envs
from jaxrl_envs.sinusoid import SinusoidParams
from jaxrl_hier import Run
from jaxrl_hier.engine.chunk import init_seeds, make_chunk
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.learning.optimization import linear_over
from jaxrl_hier.meta.few_shot_regression import REPTILE, Config, Points, adapted_predictions, make

from ..drawing import BLUE, ORANGE, SKY, colour, curve, legend_below, subplots
from ..figure import Computation, Figure, Found, Measured, Scale, Training, evaluated
from ..results import Row

METHODS: dict[str, dict[str, Any]] = {
    "MAML": {},
    "FOMAML": {"method": "fomaml"},
    "ANIL": {"method": "anil"},
    "Meta-SGD": {"method": "meta-sgd"},
    "Reptile": {"method": "reptile", "inner_steps": 5, "outer_learning_rate": 1.0, **linear_over(70_000)},
    "pre-trained": {"method": "pretrained"},
}
COMPARED = (*METHODS, "random initialisation")
DEMONSTRATED = {"Reptile": "Reptile's demonstration", "random initialisation": "Reptile's random initialisation"}
PUBLISHED = {"MAML": {1: 0.67, 5: 0.38, 10: 0.35}, "pre-trained": {1: 2.41, 5: 2.23, 10: 2.19}}
STEP_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02)  # of the pre-trained network, at test time
DIVERGED = 100.0
CLAIM_SPEED, CLAIM_LOSS = 10.0, 1.05
TIMED = ("MAML", "FOMAML", "ANIL")
WAVE = SinusoidParams().replace(amplitude=np.float32(3.6), phase=np.float32(0.9))  # of the picture
X: Any = np.linspace(-5, 5, 120, dtype=np.float32)[:, None]
SHOWN = {5: (0, 1, 10), 10: (0, 8, 32)}  # gradient steps after which predictions are drawn, by shots


def parts(scale: Scale) -> dict[str, Any]:
    smoke = scale == "smoke"
    iterations, tasks = (20, 100) if smoke else (70_000, 2000)
    train = partial(Training, "few-shot-regression", curves=(), points=2 if smoke else 10)
    both = partial(errors, tasks=tasks, shots=(5, 10))
    found: dict[str, Any] = {
        name: train(settings, iterations, measure=partial(tuned, both) if name == "pre-trained" else both)
        for name, settings in METHODS.items()
        if not smoke or name == "pre-trained"
    }
    if smoke:
        return found
    found["random initialisation"] = train({}, measure=both)
    reptile = partial(train, vars(REPTILE), env="sinusoid-full-turn", measure=partial(errors, tasks=tasks, shots=(10,)))
    found |= {DEMONSTRATED["Reptile"]: reptile(30_000), DEMONSTRATED["random initialisation"]: reptile()}
    timed = {"iterations": 1000, "repeats": 9}
    return found | {f"speed, {k}": Computation(speed, timed | {"inner_steps": k}, seeds=0) for k in (1, 5)}


# Measured


def errors(run: Run, tasks: int, shots: tuple[int, ...]) -> dict[str, np.ndarray]:
    """For each number of shots the mean error, and the number of tasks that diverged, [seeds, steps + 1]; and the
    predictions for WAVE after the numbers of steps in SHOWN, [seeds, 3, points]."""
    found: dict[str, np.ndarray] = {"tasks": np.full(run.settings.seeds, tasks), "fit": fit(run, shots[0])}
    for k in shots:
        error = -np.asarray(evaluated(run, eval_tasks=tasks, eval_shots=k)["return"].values, np.float64)
        fine = error <= DIVERGED
        found[f"{k}-shot"] = np.mean(error, axis=1, where=fine)
        found[f"{k}-shot diverged"] = np.sum(~fine, axis=1)
    return found


def tuned(measure: Any, run: Run) -> dict[str, np.ndarray]:
    """And with the step size α at test time that has the least mean error after 1 to 10 steps on 5 points, over all
    seeds, on tasks that are not tested on."""

    def error(rate: jax.Array, state: Any) -> jax.Array:
        config = dataclasses.replace(run.config, eval_inner_learning_rate=rate)
        tested = make(config, run.env, run.tasks).evaluate(state, jax.random.fold_in(state.key, 2**32 - 1))
        return -tested["return"].values[..., 1:].mean()

    score = jax.jit(jax.vmap(jax.vmap(error, (None, 0)), (0, None)))(jnp.array(STEP_SIZES), run.state).mean(axis=1)
    best = STEP_SIZES[int(np.argmin(np.nan_to_num(score, nan=np.inf)))]
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, eval_inner_learning_rate=best))
    return measure(run) | {"step size": np.full(run.settings.seeds, best)}


def seen(shots: int) -> Points:
    """The points of WAVE that the networks of the picture adapt to."""
    return Points(*jaxrl_envs.make("sinusoid")[0].points(jax.random.key(4), WAVE, shots))


def fit(run: Run, shots: int) -> np.ndarray:
    """Predictions at X for WAVE, [seeds, 3, points]."""
    at = np.array(SHOWN[shots])
    predicted = jax.vmap(lambda params: adapted_predictions(run.config, params, seen(shots), X)[at, :, 0])
    return np.asarray(predicted(run.state.params))


def speed(inner_steps: int, iterations: int, repeats: int) -> dict[str, np.ndarray]:
    """Milliseconds [methods, repeats] of one outer step of one seed, and seconds of compilation and KiB of buffers
    [methods]; the methods take turns."""
    programs, states, compiled = [], [], []
    for name in TIMED:
        algorithm = make(Config(**METHODS[name], inner_steps=inner_steps), *jaxrl_envs.make("sinusoid"))
        state, begun = init_seeds(algorithm, RunConfig()), time.perf_counter()
        programs.append(jit(make_chunk(algorithm, iterations), donate_argnums=0).lower(state).compile())
        compiled.append(time.perf_counter() - begun)
        states.append(programs[-1](state)[0])
    times = np.empty((len(TIMED), repeats))
    for j in range(repeats):
        for i, program in enumerate(programs):
            begun = time.perf_counter()
            states[i] = jax.block_until_ready(program(states[i])[0])
            times[i, j] = (time.perf_counter() - begun) / iterations * 1e3
    memory = [program.memory_analysis().temp_size_in_bytes / 1024 for program in programs]
    return {
        "ms": times, "compiled": np.array(compiled), "KiB": np.array(memory), "iterations": np.array(iterations),
        "compile_seconds": np.sum(compiled),
    }  # fmt: skip


# Rows


def rows(found: Found) -> list[Row]:
    made: list[Row] = []
    for shots in (5, 10):
        for name in filter(found.__contains__, COMPARED):
            label = f"{shots}-shot, {name}"
            if "step size" in found[name]:
                label += f", α tuned to {found[name]['step size'][0]:g}"
            published = PUBLISHED.get(name, {}) if shots == 5 else {}
            made += [error_row(label, found[name], shots, step, published.get(step)) for step in (0, 1, 5, 10)]
    if {"MAML", "FOMAML"} <= found.keys():
        made += [loss_row(found["FOMAML"]["5-shot"], found["MAML"]["5-shot"], step) for step in (1, 5, 10)]
    for name, part in DEMONSTRATED.items():
        if part in found:
            label = f"Reptile's demonstration, {name}"
            made += [error_row(label, found[part], 10, step) for step in (0, 1, 8, 32)]
    return made + [row for k in (1, 5) if f"speed, {k}" in found for row in speed_rows(found[f"speed, {k}"], k)]


def error_row(label: str, measured: Measured, shots: int, step: int, published: float | None = None) -> Row:
    values, diverged = measured[f"{shots}-shot"][:, step], measured[f"{shots}-shot diverged"][:, step].sum()
    row = Row.measured(f"{label}: {steps_in_words(step)}", values, published=published)
    row.note = f"{diverged} of {measured['tasks'].sum()} tasks diverged"
    if published is not None:
        row.note += f"; {row.ours / published - 1:+.0%} from the published error"
    return row.judged("lower")


def loss_row(fomaml: np.ndarray, maml: np.ndarray, step: int) -> Row:
    label = f"claim: error of FOMAML / MAML, 5-shot, {steps_in_words(step)}"
    row = Row.measured(label, fomaml[:, step], maml[:, step], statistic="ratio", note="the claim: at most 1.05")
    row.exact = CLAIM_LOSS
    return row.judged("lower")


def speed_rows(measured: Measured, inner_steps: int) -> list[Row]:
    """How long an outer step takes, and how much faster it is than MAML's."""
    suffix = f"{inner_steps} inner step{'' if inner_steps == 1 else 's'}"
    repeats, times = measured["ms"].shape[1], dict(zip(TIMED, measured["ms"]))
    made = []
    for name, seconds, memory in zip(TIMED, measured["compiled"], measured["KiB"]):
        row = Row.measured(f"speed: {name}, {suffix}: ms per outer step", times[name], unit="repeats")
        row.note = (
            f"{repeats} × {measured['iterations']} steps; compiled in {seconds:.1f} s; {memory:.0f} KiB of buffers"
        )
        made.append(row)
    for name in TIMED[1:]:
        label = f"speed: claim: {name} is faster than MAML, {suffix}, times"
        row = Row.measured(label, times["MAML"], times[name], statistic="ratio", unit="repeats")
        if name == "FOMAML":
            row.exact, row.note = CLAIM_SPEED, "the claim: 10 times"
        made.append(row.judged())
    return made


def steps_in_words(step: int) -> str:
    return "before adaptation" if step == 0 else f"{step} gradient step{'' if step == 1 else 's'}"


# Pictures


def draw(found: Found) -> dict[str, Any]:
    return {"": curves(found), "fits": fits(found)}


def curves(found: Found) -> Any:
    """Error after each gradient step, with the interval over seeds; squares: published."""
    figure, axes = subplots(1, 2, width=5.2, height=4.6, sharey=True)
    for ax, shots in zip(axes[0], (5, 10)):
        for name in filter(found.__contains__, COMPARED):
            curve(ax, np.arange(11), found[name][f"{shots}-shot"], name, lw=1.8 if name in PUBLISHED else 1.4)
            if shots == 5 and name in PUBLISHED:
                look: Any = {"mfc": "white", "mec": colour(name), "mew": 1.6, "color": colour(name)}
                ax.plot(*zip(*PUBLISHED[name].items()), "s", ms=6, label=f"{name}, published", **look)
        ax.set(xlabel="gradient steps on the new task", title=f"{shots} points to adapt to", yscale="log")
        ax.set_xticks([0, 1, 2, 4, 6, 8, 10])
        ax.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
        ax.minorticks_off()
    axes[0, 0].set_ylabel("squared error on the task's other points")
    legend_below(figure, axes[0, 0], 5, fontsize=9)
    return figure


def fits(found: Found) -> Any:
    """The first seed's network on one wave, before and after adapting to the points that are shown."""
    panels = {"MAML": 5, "pre-trained": 5, DEMONSTRATED["Reptile"]: 10}
    figure, axes = subplots(1, 3, width=4.2, height=3.9, sharey=True)
    for ax, (name, shots) in zip(axes[0], panels.items()):
        if name not in found:
            continue
        points = seen(shots)
        ax.plot(X, jaxrl_envs.make("sinusoid")[0].target(X, WAVE), color="0.72", lw=4, label="the wave")
        styles = zip(SHOWN[shots], found[name]["fit"][0], ("0.45", SKY, BLUE), (":", "--", "-"))
        for step, predicted, color, style in styles:
            label = "before" if step == 0 else f"after {steps_in_words(step)}"
            ax.plot(X, predicted, color=color, ls=style, lw=1.8, label=label)
        ax.plot(points.x, points.y, "o", ms=7, color=ORANGE, mec="white", mew=0.8, zorder=5, label="points seen")
        ax.set(title=f"{name}, {shots} points", xlabel="x", ylim=(-7, 4.6), xlim=(-5, 5))
        ax.legend(fontsize=8.5, loc="lower center", ncols=2)
    axes[0, 0].set_ylabel("y")
    return figure


FIGURE = Figure(
    name="maml_sinusoid",
    paper="Finn, Abbeel & Levine, Model-Agnostic Meta-Learning, ICML 2017; Nichol, Achiam & Schulman, Reptile, 2018",
    shows="section 5.1 (5-shot sinusoid regression after 1, 5 and 10 gradient steps)",
    parts=parts,
    rows=rows,
    draw=draw,
)
