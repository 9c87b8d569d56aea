"""MAML on 2-D navigation: Finn, Abbeel & Levine (ICML 2017), table 4 and the authors' result files.

    python -m benchmarks.papers.maml_navigation            # 5 seeds, about half an hour on two cores
    python -m benchmarks.papers.maml_navigation --scale smoke

Return on the paper's 40 test goals after 0 to 3 gradient steps: MAML, the policy pre-trained on all tasks, and the
random initialisation. Each gradient step at test time sees 40 environments × 100 steps, as in the authors' code.

Three things are reported for each: the mean over one episode per environment with our test-time step sizes (.5, then
.175), the same with the paper's (.5, then .25), and with the paper's sizes also the mean as the authors' sampler takes
it, over all episodes that fit the budget, which counts short episodes more often. For the pre-trained policy, whose
standard deviation is small and its gradient therefore large, the step size is also tuned, on fresh goals.

Verdicts compare with the published interval over the 40 tasks of one trained model; ours is over seeds.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

import jaxrl_envs
from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_evaluation, train
from jaxrl_hier.meta import maml

STEP_SIZES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
OURS, PAPERS = maml.Config().eval_inner_rate_decay, 0.5
RANDOM = maml.Published("random initialisation, published", (-82.66, -57.96, -53.84, -46.81), (None,) * 4)


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: minutes, to see that it runs"""
    seeds: int = 5
    """independent meta-trainings"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


def main(arguments: Arguments) -> None:
    env, tasks = jaxrl_envs.make("navigation2d")
    sizes: dict[str, Any] = (
        {"meta_batch_size": 4, "episodes_per_task": 4, "eval_episodes": 4} if arguments.scale == "smoke" else {}
    )
    iterations = 2 if arguments.scale == "smoke" else 100
    run = RunConfig(iterations=iterations, seeds=arguments.seeds)
    rows: list[Row] = []
    seconds = compile_seconds = 0.0
    learned = maml.Config(**sizes)
    settings = {
        "MAML": (learned, iterations),
        "pre-trained": (dataclasses.replace(learned, inner_steps=0), iterations),
        # the authors' script leaves the activation of this policy at its default, tanh
        "random initialisation": (dataclasses.replace(learned, activation="tanh"), 0),
    }
    for label, (config, length) in settings.items():
        algorithm = maml.make(config, env, tasks)
        published = maml.published(config, "navigation2d") if length else RANDOM
        if published is None:
            raise ValueError(f"the paper has no result of {label}")
        state = init_seeds(algorithm, run)
        if length:
            result = train(algorithm, run)
            state = result.state
            seconds += result.seconds
            compile_seconds += result.compile_seconds
        if label == "pre-trained":
            tuned = tuned_step_size(config, env, tasks, state)
            measured = make_evaluation(maml.make(dataclasses.replace(config, inner_learning_rate=tuned), env, tasks))(
                state
            )
            name = f"{label}, α tuned to {tuned:g} then {tuned * OURS:.3g}"
            rows += compare(name, measured["return"], published)
        for decay in (OURS, PAPERS):
            tested = maml.make(dataclasses.replace(config, eval_inner_rate_decay=decay), env, tasks)
            measured = make_evaluation(tested)(state)
            rows += compare(f"{label}, α = .5 then {0.5 * decay:.3g}", measured["return"], published)
            if decay == PAPERS:
                name = f"{label}, α = .5 then .25, authors' average"
                rows += compare(name, measured["return_completed"], published)

    picture(rows, arguments.out / "maml_navigation.png")
    path = write_paper(
        "maml_navigation",
        "Finn, Abbeel & Levine, Model-Agnostic Meta-Learning, ICML 2017",
        "table 4 (2-D navigation) and the authors' result files",
        rows,
        arguments.scale,
        arguments.out,
        wall_seconds=seconds,
        compile_seconds=compile_seconds,
    )
    show(rows)
    print(path)


def tuned_step_size(config: maml.Config, env: Any, tasks: Any, state: Any) -> float:
    """The α with the best mean return after 1 to 3 steps, on goals that are neither trained nor tested on."""
    fresh = tasks._replace(test=None)

    def score(lr: float) -> float:
        measured = make_evaluation(maml.make(dataclasses.replace(config, inner_learning_rate=lr), env, fresh))(state)
        return float(measured["return"].values[..., 1:].mean())

    return max(STEP_SIZES, key=score)


def compare(label: str, measured: Any, published: maml.Published) -> list[Row]:
    """A row for each number of gradient steps."""
    rows = []
    for k, column in enumerate(np.asarray(measured.values).mean(axis=1).T):
        value, half = published.values[k], published.half_widths[k]
        theirs = None if half is None else (value - half, value + half)
        name = f"{label}: {k} gradient step{'' if k == 1 else 's'}"
        rows.append(Row.measured(name, column, published=value, published_interval=theirs).judged())
    return rows


def picture(rows: list[Row], path: Path) -> None:
    """Return on the test goals after each gradient step: ours solid with its interval over seeds, published dashed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE

    curves = {
        "MAML": (f"MAML, α = .5 then {0.5 * OURS:.3g}:", "#1f6fb4"),
        "pre-trained, α tuned": ("pre-trained, α tuned", "#e8710a"),
        "random initialisation": (f"random initialisation, α = .5 then {0.5 * OURS:.3g}:", "0.45"),
    }
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(7.6, 4.4))
        for name, (prefix, color) in curves.items():
            chosen = [row for row in rows if row.label.startswith(prefix)]
            steps, mean = np.arange(len(chosen)), np.array([row.ours for row in chosen])
            error = np.abs(np.array([row.interval or (np.nan, np.nan) for row in chosen]).T - mean)
            ax.errorbar(steps - 0.03, mean, error, fmt="o-", color=color, lw=1.8, capsize=4, label=f"{name}, ours")
            published = np.array([row.published for row in chosen])
            low = [row.published_interval[0] if row.published_interval else row.published for row in chosen]
            style: dict[str, Any] = {"fmt": "s--", "ms": 4, "lw": 1, "capsize": 3, "alpha": 0.85, "color": color}
            ax.errorbar(
                steps + 0.03, published, published - np.array(low), label=f"{name.split(',')[0]}, published", **style
            )
        ax.set(xticks=steps, xlabel="gradient steps on the new task", ylabel="mean return of an episode")
        ax.set_title("2-D navigation, the 40 test goals")
        ax.legend(loc="lower right", fontsize=9)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
