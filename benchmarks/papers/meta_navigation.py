"""Gradient-based meta-RL on 2-D navigation: what each switch of `jaxrl_hier.meta.maml` buys, at one budget.

    python -m benchmarks.papers.meta_navigation                 # 5 seeds, about a quarter of an hour on two cores
    python -m benchmarks.papers.meta_navigation --scale paper   # the paper's batches, about an hour and a half
    python -m benchmarks.papers.meta_navigation --scale smoke

Return on the paper's 40 test goals after 0 to 3 gradient steps, and seconds and memory of an outer step. Every variant
sees the same environment steps: 100 iterations of 10 tasks × 2 batches × 10 environments × 100 steps, a quarter of the
paper's; one with more adaptation steps has fewer environments to each, the pre-trained policy twice as many in its one
batch. An outer step is timed at the paper's size, 20 tasks × 2 batches × 20 environments.

The inner rate α = .5, the network and everything not named in a label are those of MAML's experiment. Adam's learning
rate was chosen from .001, .003 and .01 by the return of MAML with Adam after one step on fresh goals (two seeds that
are not among those reported), and is the same for every variant with Adam or PPO; Reptile, whose "gradient" has another
scale, was tuned by itself over .003 and .01. At test time α of every variant but Meta-SGD, whose rates are learned, is
the best of .05, .1, .2 and .5 on fresh goals, and falls to 35 % after the first step.

It also answers a claim that is often repeated, that leaving second derivatives out makes MAML ten times as fast and
costs less than 5 %. The cost is the share of MAML's gain, from 0 to k gradient steps, that the first-order variant
misses: not everywhere nothing, with TRPO outside it loses 2 to 3 % after two and three steps.

What a variant learned is kept in `--cache`, a file each, so that an interrupted run goes on where it was.
"""

import dataclasses
import json
import statistics
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
from jaxrl_hier.engine.train import RunConfig, train
from jaxrl_hier.meta import maml
from jaxrl_hier.reports.statistics import band

ADAM: dict[str, Any] = {"outer": "adam", "outer_learning_rate": 3e-3}
PPO: dict[str, Any] = {"outer": "ppo", "outer_learning_rate": 3e-3}
VARIANTS: dict[str, dict[str, Any]] = {
    "MAML": ADAM,
    "FOMAML": ADAM | {"first_order": True},
    "Reptile": ADAM | {"reptile": True},
    "pre-trained": ADAM | {"inner_steps": 0},
    "LVC": ADAM | {"estimator": "lvc"},
    "DiCE": ADAM | {"estimator": "dice"},
    "loaded DiCE": ADAM | {"estimator": "loaded-dice"},
    "ANIL": ADAM | {"head_only": True},
    "Meta-SGD": ADAM | {"learn_inner_rates": True},
    "E-MAML": ADAM | {"credit_exploration": True},
    "MAML, K = 3": ADAM | {"inner_steps": 3},
    "MAML, PPO": PPO,
    "ProMP": PPO | {"estimator": "lvc", "kl_weight": 5e-4},
    "MAML, TRPO": {},
    "FOMAML, TRPO": {"first_order": True},
}
PANELS = {
    "first order": ("MAML", "FOMAML", "Reptile", "pre-trained"),
    "estimator of the inner Hessian": ("MAML", "LVC", "DiCE", "loaded DiCE"),
    "what adapts, and how often": ("MAML", "ANIL", "Meta-SGD", "E-MAML", "MAML, K = 3"),
    "outer optimiser": ("MAML", "MAML, PPO", "ProMP", "MAML, TRPO", "FOMAML, TRPO"),
}
CLAIM = {"Adam": ("MAML", "FOMAML"), "TRPO": ("MAML, TRPO", "FOMAML, TRPO")}
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"meta_batch_size": 4, "episodes_per_task": 4, "horizon": 50, "eval_episodes": 4},
    "cpu": {"meta_batch_size": 10, "episodes_per_task": 10},
    "paper": {},
}
STEP_SIZES = (0.05, 0.1, 0.2, 0.5)
COLORS = ("0.35", "#1f6fb4", "#e8710a", "#2a9d5c", "#a33a8e")


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu", "paper"] = "cpu"
    """smoke: minutes, to see that it runs; paper: the published batches"""
    seeds: int = 5
    """independent meta-trainings"""
    only: tuple[str, ...] = ()
    """train just these variants, into the cache, and write nothing else"""
    cache: Path = Path("runs/meta_navigation")
    """folder of what has been learned so far"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


@dataclass
class Learned:
    """What is kept of a variant."""

    returns: np.ndarray  # [seeds, steps + 1], test goals
    curve: np.ndarray  # [seeds, iterations], return after adaptation in training
    test_lr: float  # α at test time, nan where it is learned
    seconds: float
    compile_seconds: float


def configuration(label: str, scale: str) -> maml.Config:
    """The settings of a variant: as many environment steps as with one adaptation step."""
    config = maml.Config(**SIZES[scale], **VARIANTS[label])
    return dataclasses.replace(config, episodes_per_task=2 * config.episodes_per_task // (config.inner_steps + 1))


def learn(label: str, arguments: Arguments) -> Learned:
    """Train, tune α on fresh goals and test; or what the cache holds of the same settings."""
    config = configuration(label, arguments.scale)
    iterations = 2 if arguments.scale == "smoke" else 100
    about = {"config": dataclasses.asdict(config), "iterations": iterations, "seeds": arguments.seeds}
    path = arguments.cache / f"{label.lower().replace(', ', '-').replace(' = ', '').replace(' ', '-')}.json"
    if path.is_file():
        kept = json.loads(path.read_text())
        if kept.pop("about") == json.loads(json.dumps(about)):
            return Learned(np.array(kept.pop("returns")), np.array(kept.pop("curve")), **kept)
    env, tasks = jaxrl_envs.make("navigation2d")
    run = RunConfig(iterations=iterations, seeds=arguments.seeds, checkpoint_every=iterations, quiet=True)
    result = train(maml.make(config, env, tasks), run)

    def tester(goals: Any, **changes: Any) -> Any:  # α -> return [seeds, steps + 1]
        def returns(state: Any, lr: float) -> jax.Array:
            tested = maml.make(dataclasses.replace(config, inner_learning_rate=lr, **changes), env, goals)
            return jnp.mean(tested.evaluate(state, jax.random.key(arguments.seeds))["return"].values, axis=0)

        compiled = jax.jit(jax.vmap(returns, (0, None)))
        return lambda lr: np.asarray(compiled(result.state, lr))

    tuned = tester(tasks._replace(test=None), eval_tasks=20, eval_episodes=min(20, config.eval_episodes))
    test_lr = float("nan") if config.learn_inner_rates else max(STEP_SIZES, key=lambda lr: tuned(lr)[:, 1:].mean())
    returns = tester(tasks)(test_lr)
    curve = np.array([row["return"] for row in result.rows]).reshape(iterations, -1).T
    learned = Learned(returns, curve, test_lr, result.seconds, result.compile_seconds)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    kept = dataclasses.asdict(learned) | {"returns": returns.tolist(), "curve": curve.tolist(), "about": about}
    path.write_text(json.dumps(kept))
    return learned


def outer_step(label: str, scale: str, repeats: int = 7) -> dict[str, float]:
    """Median seconds of an iteration of one seed, rollouts included, and the compiled program's temporary memory."""
    env, tasks = jaxrl_envs.make("navigation2d")
    algorithm = maml.make(configuration(label, scale), env, tasks)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    step = jax.jit(algorithm.step).lower(state).compile()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        state, _ = step(state)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - begun)
    memory = step.memory_analysis()
    assert memory is not None
    return {
        "seconds": statistics.median(seconds[1:]),
        "temporary_mib": memory.temp_size_in_bytes / 2**20,
        "env_steps": algorithm.env_steps,
    }


def main(arguments: Arguments) -> None:
    if unknown := set(arguments.only) - set(VARIANTS):
        raise SystemExit(f"no variant is called {', '.join(unknown)}; there are {'; '.join(VARIANTS)}")
    learned = {}
    for label in arguments.only or VARIANTS:
        learned[label] = learn(label, arguments)
        print(f"{label:<16}", learned[label].returns.mean(axis=0).round(2), f"α = {learned[label].test_lr}", flush=True)
    if arguments.only:
        return

    size = "smoke" if arguments.scale == "smoke" else "paper"
    costs = {label: outer_step(label, size) for label in VARIANTS}
    rows: list[Row] = []
    for label, variant in learned.items():
        as_published = label == "MAML, TRPO" and arguments.scale == "paper"
        published = maml.published(maml.Config(), "navigation2d") if as_published else None
        for k, values in enumerate(variant.returns.T):
            row = Row.measured(f"{label}: {k} gradient step{'' if k == 1 else 's'}", values)
            row.note = f"test α {variant.test_lr:g}"
            if published:
                value, half = published.values[k], published.half_widths[k]
                row.published = value
                row.published_interval = None if half is None else (value - half, value + half)
            rows.append(row.judged())
    for outer, (second, first) in CLAIM.items():
        speedup = costs[second]["seconds"] / costs[first]["seconds"]
        note = "seconds of an outer step, second over first order; one process, medians"
        name = f"FOMAML against MAML, {outer}: times as fast"
        method = "no interval: medians of one process"
        rows.append(
            Row.computed(name, speedup, published=10.0, note=note, seeds=1, unit="process", method=method).judged()
        )
        for k in (1, 2, 3):
            rows.append(shortfall(f"FOMAML against MAML, {outer}", learned[second], learned[first], k))

    picture(learned, arguments.out / "meta_navigation.png")
    path = write_paper(
        "meta_navigation",
        "Finn et al., 2017; Nichol et al., 2018; Raghu et al., 2020; Li et al., 2017; Stadie et al., 2018; Foerster et "
        "al., 2018; Farquhar et al., 2019; Rothfuss et al., 2019",
        "2-D navigation, every variant at one budget; a claim about first-order MAML",
        rows,
        arguments.scale,
        arguments.out,
        wall_seconds=sum(variant.seconds for variant in learned.values()),
        compile_seconds=sum(variant.compile_seconds for variant in learned.values()),
        outer_steps=costs,
    )
    print(f"{'':<16}{'0 steps':>9}{'1':>9}{'2':>9}{'3':>9}{'s/step':>9}{'MiB':>7}")
    for label, variant in learned.items():
        returns = "".join(f"{x:9.2f}" for x in variant.returns.mean(axis=0))
        print(f"{label:<16}{returns}{costs[label]['seconds']:9.3f}{costs[label]['temporary_mib']:7.0f}")
    show(rows[-8:])
    print(path)


def shortfall(label: str, second: Learned, first: Learned, k: int) -> Row:
    """The share of second-order MAML's gain in k steps that first order misses; the claim is: less than 5 %."""
    gain = lambda learned: learned.returns[:, k] - learned.returns[:, 0]
    label = f"{label}: share of the gain in {k} steps that is missed"
    row = Row.measured(label, gain(first), gain(second), statistic="shortfall", published=0.05)
    row.note = "gain: mean return after k steps less that after none; negative: first order gains more"
    return row.judged("lower")


def picture(learned: dict[str, Learned], path: Path) -> None:
    """Above, return after adaptation in training; below, on the test goals after each gradient step. Bands and bars:
    95 % over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE, draw_band

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, len(PANELS), figsize=(15, 7), sharey="row")
        for (above, below), (title, labels) in zip(axes.T, PANELS.items()):
            for color, label in zip(COLORS, labels):
                curve = learned[label].curve
                draw_band(above, np.arange(1, curve.shape[1] + 1), curve, color, lw=1.5)
                returns = learned[label].returns
                middle = returns.mean(axis=0)
                error = np.abs(np.array(band(returns)) - middle)
                shift = 0.05 * (labels.index(label) - len(labels) / 2)
                below.errorbar(
                    np.arange(len(middle)) + shift,
                    middle,
                    error,
                    fmt="o-",
                    color=color,
                    ms=4,
                    lw=1.5,
                    capsize=3,
                    label=label,
                )
            above.set(title=title, xlabel="iteration")
            below.set(xlabel="gradient steps on a test goal", xticks=range(4))
            below.legend(loc="lower right", fontsize=9)
        axes[0, 0].set_ylabel("return after adaptation, training goals")
        axes[1, 0].set_ylabel("mean return, the 40 test goals")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
