"""MAML on sinusoids: Finn, Abbeel & Levine (ICML 2017), section 5.1, and what became of it.

    python -m benchmarks.papers.maml_sinusoid                    # 5 seeds, about half an hour on one core
    python -m benchmarks.papers.maml_sinusoid --scale smoke
    python -m benchmarks.papers.maml_sinusoid --only-speed       # the timings again; the other rows stay

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
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxrl_envs
from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_envs.sinusoid import SinusoidParams
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk, make_evaluation, train
from jaxrl_hier.engine.types import TrainState
from jaxrl_hier.learning.optimization import linear_over
from jaxrl_hier.meta.few_shot_regression import REPTILE, Config, Points, adapted_predictions, make

PUBLISHED = {"MAML": {1: 0.67, 5: 0.38, 10: 0.35}, "pre-trained": {1: 2.41, 5: 2.23, 10: 2.19}}
STEP_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02)  # of the pre-trained network, at test time
DIVERGED = 100.0
CLAIM_SPEED, CLAIM_LOSS = 10.0, 1.05

METHODS = {
    "MAML": Config(),
    "FOMAML": Config(method="fomaml"),
    "ANIL": Config(method="anil"),
    "Meta-SGD": Config(method="meta-sgd"),
    "Reptile": Config(method="reptile", inner_steps=5, outer_learning_rate=1.0, **linear_over(70_000)),
    "pre-trained": Config(method="pretrained"),
}
COLORS = {
    "MAML": "#1f6fb4",
    "FOMAML": "#63a6dc",
    "ANIL": "#7a4fa3",
    "Meta-SGD": "#2a9d6f",
    "Reptile": "#c23b6b",
    "pre-trained": "#e8710a",
    "random initialisation": "0.5",
}


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: a minute, to see that it runs"""
    seeds: int = 5
    """independent meta-trainings, in one program"""
    only_speed: bool = False
    """measure the times alone, and keep the other rows of the file"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the pictures"""


@dataclass
class Measured:
    """A meta-trained method, and its errors on test tasks."""

    config: Config
    state: TrainState  # [seeds, ...]
    errors: dict[int, np.ndarray]  # shots -> [seeds, tasks, steps + 1]


def main(arguments: Arguments) -> None:
    smoke = arguments.scale == "smoke"
    path = arguments.out / "maml_sinusoid.json"
    if arguments.only_speed:
        old = json.loads(path.read_text())
        rows = [Row.from_json(row) for row in old["rows"] if not row["label"].startswith("speed:")]
        about = {k: old[k] for k in ("iterations", "wall_seconds", "compile_seconds")}
    else:
        rows, about = learning(arguments, smoke)
    rows += speed(smoke)
    path = write_paper(
        "maml_sinusoid",
        "Finn, Abbeel & Levine, Model-Agnostic Meta-Learning, ICML 2017; Nichol, Achiam & Schulman, Reptile, 2018",
        "section 5.1 (5-shot sinusoid regression after 1, 5 and 10 gradient steps)",
        rows,
        arguments.scale,
        arguments.out,
        **about,
    )
    show(rows)
    print(path)


# Errors


def learning(arguments: Arguments, smoke: bool) -> tuple[list[Row], dict[str, Any]]:
    """Train every method; rows of the errors, and the pictures."""
    iterations, demo_iterations = (200, 200) if smoke else (70_000, 30_000)
    seeds, seconds, compile_seconds = arguments.seeds, {}, 0.0
    env, tasks = jaxrl_envs.make("sinusoid")
    full = jaxrl_envs.make("sinusoid-full-turn")

    def trained(name: str, config: Config, where: Any, iterations: int) -> TrainState:
        nonlocal compile_seconds
        run = RunConfig(iterations=iterations, seeds=seeds, log_every=iterations // 10, checkpoint_every=iterations)
        result = train(make(config, *where), dataclasses.replace(run, quiet=True))
        seconds[name] = result.seconds
        compile_seconds += result.compile_seconds
        return result.state

    def errors(config: Config, where: Any, state: TrainState, shots: int) -> np.ndarray:
        tested = dataclasses.replace(config, eval_tasks=100 if smoke else 2000, eval_shots=shots)
        return -np.asarray(make_evaluation(make(tested, *where))(state)["return"].values, np.float64)

    measured: dict[str, Measured] = {}
    rows: list[Row] = []
    untrained = init_seeds(make(Config(), env, tasks), RunConfig(seeds=seeds))
    for name, config in METHODS.items():
        state = trained(name, config, (env, tasks), iterations)
        if name == "pre-trained":
            config = dataclasses.replace(config, eval_inner_learning_rate=tuned_step_size(config, env, tasks, state))
        measured[name] = Measured(config, state, {k: errors(config, (env, tasks), state, k) for k in (5, 10)})
    measured["random initialisation"] = Measured(
        Config(), untrained, {k: errors(Config(), (env, tasks), untrained, k) for k in (5, 10)}
    )
    for shots in (5, 10):
        for name, m in measured.items():
            label = f"{shots}-shot, {name}"
            if name == "pre-trained":
                label += f", α tuned to {m.config.eval_inner_learning_rate:g}"
            rows += error_rows(label, m.errors[shots], (0, 1, 5, 10), PUBLISHED.get(name, {}) if shots == 5 else {})
    for step in (1, 5, 10):
        maml, fomaml = (mean_error(measured[name].errors[5][..., step])[0] for name in ("MAML", "FOMAML"))
        row = Row.measured(f"claim: error of FOMAML / MAML, 5-shot, {_steps(step)}", fomaml, maml, statistic="ratio")
        row.exact, row.note = CLAIM_LOSS, "the claim: at most 1.05"
        rows.append(row.judged("lower"))

    demo = trained("Reptile's demonstration", REPTILE, full, demo_iterations)
    start = init_seeds(make(REPTILE, *full), RunConfig(seeds=seeds))
    for name, state in (("Reptile", demo), ("random initialisation", start)):
        rows += error_rows(f"Reptile's demonstration, {name}", errors(REPTILE, full, state, 10), (0, 1, 8, 32), {})

    arguments.out.mkdir(parents=True, exist_ok=True)
    curves(measured, arguments.out / "maml_sinusoid.png")
    fits({name: measured[name] for name in ("MAML", "pre-trained")}, demo, arguments.out / "maml_sinusoid_fits.png")
    about = {"iterations": iterations, "wall_seconds": sum(seconds.values()), "compile_seconds": compile_seconds}
    return rows, about


def tuned_step_size(config: Config, env: Any, tasks: Any, state: TrainState) -> float:
    """The α with the least mean error after 1 to 10 steps on 5 points, on tasks that are not tested on."""

    def errors(lr: float, state: TrainState) -> jax.Array:
        tested = make(dataclasses.replace(config, eval_inner_learning_rate=lr), env, tasks)
        return -tested.evaluate(state, jax.random.fold_in(state.key, 2**32 - 1))["return"].values[..., 1:].mean()

    score = jax.jit(jax.vmap(jax.vmap(errors, (None, 0)), (0, None)))(jnp.array(STEP_SIZES), state).mean(axis=1)
    return STEP_SIZES[int(jnp.argmin(jnp.nan_to_num(score, nan=jnp.inf)))]


def mean_error(errors: np.ndarray) -> tuple[np.ndarray, int]:
    """Of errors [seeds, tasks] the mean over tasks [seeds] without those that diverged, and how many did."""
    fine = errors <= DIVERGED
    return np.array([e[f].mean() for e, f in zip(errors, fine)]), int((~fine).sum())


def error_rows(label: str, errors: np.ndarray, steps: tuple[int, ...], published: dict[int, float]) -> list[Row]:
    """A row for each number of gradient steps."""
    rows = []
    for step in steps:
        by_seed, diverged = mean_error(errors[..., step])
        row = Row.measured(f"{label}: {_steps(step)}", by_seed, published=published.get(step))
        row.note = f"{diverged} of {errors[..., 0].size} tasks diverged"
        if row.published is not None:
            row.note += f"; {row.ours / row.published - 1:+.0%} from the published error"
        rows.append(row.judged("lower"))
    return rows


def _steps(step: int) -> str:
    return "before adaptation" if step == 0 else f"{step} gradient step{'' if step == 1 else 's'}"


# Speed


def speed(smoke: bool) -> list[Row]:
    """Milliseconds of one outer step of one seed, and how much faster first order is; 1 and 5 inner steps."""
    env, tasks = jaxrl_envs.make("sinusoid")
    iterations, repeats = (20, 3) if smoke else (1000, 9)
    rows: list[Row] = []
    for inner_steps in (1, 5):
        compiled, state = {}, {}
        times: dict[str, tuple[float, list[float]]] = {}  # of compiling, and of a step
        for name in ("MAML", "FOMAML", "ANIL"):
            config = dataclasses.replace(METHODS[name], inner_steps=inner_steps)
            algorithm = make(config, env, tasks)
            begin = init_seeds(algorithm, RunConfig())
            begun = time.perf_counter()
            compiled[name] = jit(make_chunk(algorithm, iterations), donate_argnums=0).lower(begin).compile()
            compile_seconds = time.perf_counter() - begun
            state[name] = compiled[name](begin)[0]
            times[name] = (compile_seconds, [])
        for _ in range(repeats):
            for name, program in compiled.items():
                begun = time.perf_counter()
                state[name] = jax.block_until_ready(program(state[name])[0])
                times[name][1].append((time.perf_counter() - begun) / iterations * 1e3)
        suffix = f"{inner_steps} inner step{'' if inner_steps == 1 else 's'}"
        for name, (compile_seconds, taken) in times.items():
            row = Row.measured(f"speed: {name}, {suffix}: ms per outer step", taken, unit="repeats")
            memory = compiled[name].memory_analysis().temp_size_in_bytes / 1024
            row.note = (
                f"{repeats} × {iterations} steps; compiled in {compile_seconds:.1f} s; {memory:.0f} KiB of buffers"
            )
            rows.append(row)
        for name in ("FOMAML", "ANIL"):
            label = f"speed: claim: {name} is faster than MAML, {suffix}, times"
            row = Row.measured(label, times["MAML"][1], times[name][1], statistic="ratio", unit="repeats")
            if name == "FOMAML":
                row.exact, row.note = CLAIM_SPEED, "the claim: 10 times"
            rows.append(row.judged())
    return rows


# Pictures


def curves(measured: dict[str, Measured], path: Path) -> None:
    """Error after each gradient step, with the interval over seeds; squares: published."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE, draw_band

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(10.4, 4.4), sharey=True)
        for ax, shots in zip(axes, (5, 10)):
            for name, m in measured.items():
                by_seed = np.stack([mean_error(m.errors[shots][..., k])[0] for k in range(11)], axis=1)
                draw_band(ax, np.arange(11), by_seed, COLORS[name], label=name, lw=1.8 if name in PUBLISHED else 1.4)
                if shots == 5 and name in PUBLISHED:
                    at = PUBLISHED[name]
                    ax.plot(list(at), list(at.values()), "s", ms=6, mfc="white", mec=COLORS[name], mew=1.6)
            ax.set(xlabel="gradient steps on the new task", title=f"{shots} points to adapt to", yscale="log")
            ax.set(xticks=[0, 1, 2, 4, 6, 8, 10], ylim=(0.09, 14))
            ax.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
            ax.minorticks_off()
        axes[0].set_ylabel("squared error on the task's other points")
        handles, labels = axes[0].get_legend_handles_labels()
        handles.append(plt.Line2D([], [], marker="s", ls="", ms=6, mfc="white", mec="0.3", mew=1.6))
        axes[1].legend(handles, [*labels, "published"], fontsize=8.5, loc="upper right", ncols=2)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def fits(measured: dict[str, Measured], demo: TrainState, path: Path) -> None:
    """The first seed's network on one wave, before and after adapting to the points that are shown."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE

    env, _ = jaxrl_envs.make("sinusoid")
    wave = SinusoidParams(amplitude=jnp.float32(3.6), phase=jnp.float32(0.9))
    x = jnp.linspace(-5, 5, 300)[:, None]
    first = lambda state: jax.tree.map(lambda leaf: leaf[0], state.params)
    panels = [(f"{name}, 5 points", m.config, first(m.state), 5, (0, 1, 10)) for name, m in measured.items()]
    panels.append(("Reptile's demonstration, 10 points", REPTILE, first(demo), 10, (0, 8, 32)))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(12.6, 3.9), sharey=True)
        for ax, (title, config, learned, shots, steps) in zip(axes, panels):
            points = Points(*env.points(jax.random.key(4), wave, shots))
            predicted = np.asarray(adapted_predictions(config, learned, points, x))[..., 0]
            ax.plot(x, env.target(x, wave), color="0.72", lw=4, solid_capstyle="round", label="the wave")
            for step, color, style in zip(steps, ("0.45", "#63a6dc", "#1f6fb4"), (":", "--", "-")):
                label = "before" if step == 0 else f"after {_steps(step)}"
                ax.plot(x, predicted[step], color=color, ls=style, lw=1.8, label=label)
            ax.plot(points.x, points.y, "o", ms=7, color="#e8710a", mec="white", mew=0.8, zorder=5)
            ax.set(title=title, xlabel="x", ylim=(-6.3, 4.6), xlim=(-5, 5))
            ax.legend(fontsize=8.5, loc="lower center", ncols=2)
        axes[0].set_ylabel("y")
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
