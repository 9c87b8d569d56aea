"""PEARL on the sparse point robot: Rakelly et al. (ICML 2019), section 6.3 and the ablations of 6.4.

    python -m benchmarks.papers.pearl_point_robot                 # about 35 minutes on one busy core
    python -m benchmarks.papers.pearl_point_robot --scale paper   # the authors' settings; for a GPU
    python -m benchmarks.papers.pearl_point_robot --scale smoke

A goal on a half circle that is rewarded within 0.2 of it and has to be found. The return of an episode on the 20 test
goals by the number of earlier ones in the context, over meta-training and at its end, beside the exact optimum of these
goals (the mean over all 100 is 13.375). The first episodes of a test are played with z from the prior. As in the paper
the losses of meta-training see the distance to the goal, contexts and results only the sparse reward.

With the context of another goal (its belief after all episodes) the return must fall. Ablations, at the same number of
steps: z without noise, contexts of training from the whole memory, a recurrent encoder, SAC without a value network.
The paper shows curves and no tables: published values are none, its claims are the verdicts on differences.

`cpu` has smaller networks and batches than `paper`, and fewer seeds for ablations than for PEARL itself.
"""

import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxrl_envs
from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_envs.navigation2d import NavigationParams
from jaxrl_envs.point_robot import STEPS, TRAINED, best_return, half_circle_goals
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.rollout import play_episodes
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk, make_evaluation
from jaxrl_hier.learning.distributions import DiagonalGaussian
from jaxrl_hier.meta import pearl
from jaxrl_hier.reports.statistics import mean

PAPER = (
    "Rakelly et al., Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic Context Variables, ICML 2019"
)
VARIANTS: dict[str, dict[str, Any]] = {
    "PEARL": {},
    "deterministic z": {"deterministic_latent": True},
    "off-policy context": {"context_source": "all"},
    "recurrent encoder": {"recurrent_encoder": True},
    "SAC with two critics": {"critic_target": "critics"},
}
WORSE = ("deterministic z", "off-policy context", "recurrent encoder")  # the paper's claims
COLORS = ("#1f6fb4", "#e8710a", "#2a9d5c", "#a33a8e", "0.45")
ITERATIONS = {"smoke": 2, "cpu": 250, "paper": 500}
POINTS = 25  # of a curve
REPEATS = 10  # evaluations at the end
DRAWS = 12  # samples of z in a panel of the picture


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu", "paper"] = "cpu"
    """smoke: two minutes, to see that it runs; paper: the authors' settings"""
    seeds: int = 3
    """independent meta-trainings of PEARL"""
    ablation_seeds: int = 2
    """and of each ablation"""
    ablations: tuple[str, ...] = tuple(name for name in VARIANTS if name != "PEARL")
    """which to run"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the pictures"""


def configuration(scale: str, **settings: Any) -> pearl.Config:
    config = pearl.Config(**pearl.PUBLISHED) if scale == "paper" else pearl.Config()
    if scale == "smoke":
        config = replace(
            config,
            tasks_per_iteration=2,
            posterior_steps=100,
            updates=5,
            hidden=(16,),
            encoder_hidden=(16,),
            eval_episodes=3,
        )
    return replace(config, **settings)


@dataclass
class Learned:
    """What a variant has come to; S seeds, N test goals, k = 0 … K episodes of context."""

    steps: np.ndarray  # [points], of the environment, for each seed
    curve: np.ndarray  # [S, points, K + 1], mean over the goals
    returns: np.ndarray  # [S, N, K + 1], at the end
    wrong: np.ndarray  # [S, N], with the belief of another goal after K episodes
    paths: np.ndarray  # [N, K + 1, DRAWS, 21, 2], of the first seed, with other samples of z
    seconds: float
    compile_seconds: float
    about: dict[str, Any] = field(default_factory=dict)


def learn(config: pearl.Config, iterations: int, seeds: int) -> Learned:
    env, tasks = jaxrl_envs.make("sparse-point-robot")
    algorithm = pearl.make(config, env, tasks)
    every = max(iterations // POINTS, 1)
    state, evaluate = init_seeds(algorithm, RunConfig(seeds=seeds)), make_evaluation(algorithm)
    begun = time.perf_counter()
    chunk = jit(make_chunk(algorithm, every), donate_argnums=0).lower(state).compile()
    compile_seconds, seconds = time.perf_counter() - begun, 0.0
    curve = [evaluate(state)["return"].values.mean(axis=1)]
    for _ in range(iterations // every):
        begun = time.perf_counter()
        state, _, _ = jax.block_until_ready(chunk(state))
        seconds += time.perf_counter() - begun
        curve.append(evaluate(state)["return"].values.mean(axis=1))
        print(f"{len(curve) - 1:3d}", " ".join(f"{x:.1f}" for x in curve[-1].mean(axis=0)), flush=True)
    steps = np.arange(len(curve)) * every * algorithm.env_steps + config.initial_steps * len(state.memory.recent[0])

    repeated = jax.jit(jax.vmap(jax.vmap(algorithm.evaluate, (None, 0)), (0, None)))
    seen = repeated(state, jax.random.split(jax.random.key(1), REPEATS))  # [S, repeats, N, K + 1]
    belief = DiagonalGaussian(seen["belief_mean"].values[:, 0], jnp.log(seen["belief_std"].values[:, 0]))
    test = tasks.test_batch(config.eval_tasks, jax.random.key(0))

    @jax.jit
    def played(params: Any, belief: DiagonalGaussian, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return [N] and positions [N, DRAWS, 21, 2] of episodes with samples of the beliefs [N]."""

        def one(belief: DiagonalGaussian, task: NavigationParams, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            acting = params._replace(belief=belief)
            t = play_episodes(env, algorithm.agent, task, acting, key, episodes=DRAWS, horizon=STEPS, greedy=True)
            reward = jax.vmap(jax.vmap(partial(env.sparse_reward, params=task)))(t.next_obs)
            positions = jnp.concatenate([t.obs[:1], t.next_obs])
            return jnp.mean(jnp.sum(reward, axis=0)), jnp.swapaxes(positions, 0, 1)

        return jax.vmap(one)(belief, test, jax.random.split(key, config.eval_tasks))

    at = lambda s, k: jax.tree.map(lambda x: x[s, :, k], belief)
    params = [jax.tree.map(lambda x, s=s: x[s], state.params) for s in range(seeds)]
    other = lambda s: jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), at(s, -1))
    wrong = np.stack([played(params[s], other(s), jax.random.key(2))[0] for s in range(seeds)])
    paths = [played(params[0], at(0, k), jax.random.key(3))[1] for k in range(config.eval_episodes + 1)]
    returns = np.asarray(seen["return"].values).mean(axis=1)
    return Learned(
        steps, np.stack(curve, axis=1), returns, wrong, np.stack(paths, axis=1), seconds, compile_seconds,
        {"environment_steps_of_each_seed": int(steps[-1]), "gradient_steps": iterations * config.updates},
    )  # fmt: skip


def main(arguments: Arguments) -> None:
    if unknown := set(arguments.ablations) - set(VARIANTS):
        raise SystemExit(f"no variant is called {', '.join(unknown)}; there are {'; '.join(VARIANTS)}")
    begun = time.perf_counter()
    learned: dict[str, Learned] = {}
    iterations = ITERATIONS[arguments.scale]
    for name in ("PEARL", *arguments.ablations):
        print(name, flush=True)
        seeds = arguments.seeds if name == "PEARL" else arguments.ablation_seeds
        learned[name] = learn(configuration(arguments.scale, **VARIANTS[name]), iterations, seeds)
        rows = made_rows(learned)
        show(rows)
        picture(learned, arguments.out / "pearl_point_robot.png")
        if name == "PEARL":
            paths_picture(learned[name], arguments.out / "pearl_point_robot_paths.png")
        costs = {
            name: {"train_seconds_of_all_seeds": x.seconds, "compile_seconds": x.compile_seconds} | x.about
            for name, x in learned.items()
        }
        path = write_paper(
            "pearl_point_robot",
            PAPER,
            "sparse 2-D navigation: return by context episodes, ablations",
            rows,
            arguments.scale,
            arguments.out,
            trained=costs,
            wall_seconds=time.perf_counter() - begun,
        )
    print(path)


def made_rows(learned: dict[str, Learned]) -> list[Row]:
    best = best_return(half_circle_goals()[TRAINED:], sparse=True)
    main, rows, highest_mean = learned["PEARL"], [], float(best.mean())
    inside: dict[str, Any] = {"statistic": "mean inside", "bounds": (0.0, highest_mean)}
    highest = main.returns.max(axis=0).max(axis=-1)
    if (highest > best[: len(highest)] + 1e-3).any():
        raise SystemExit("a return exceeds the exact optimum")
    last = main.returns.shape[-1] - 1
    for k in sorted({0, 1, 2, 5, 6, last} & set(range(last + 1))):
        row = Row.measured(f"PEARL, {k} episodes of context: return", main.returns[..., k].mean(1), **inside)
        row.exact, row.note = highest_mean, "exact: the best on the test goals, by a plan that knows them"
        rows.append(row.judged())
    right = main.returns[..., last].mean(axis=1)
    wrong = main.wrong.mean(axis=1)
    rows.append(Row.measured(f"PEARL, {last} episodes of another goal's context: return", wrong, **inside))
    # the same seeds with either context
    label = f"context of another goal minus its own, {last} episodes"
    row = Row.measured(label, wrong, right, statistic="paired difference", note="claim: negative")
    rows.append(row.judged("below 0"))
    for name, other in learned.items():
        if name == "PEARL":
            continue
        values = other.returns[..., last].mean(axis=1)
        row = Row.measured(f"{name}, {last} episodes of context: return", values, **inside, exact=highest_mean)
        rows.append(row.judged())
        about = inside | {"statistic": "difference inside"}
        row = Row.measured(f"{name} minus PEARL, {last} episodes of context", values, right, **about)
        if name in WORSE:
            row.judged("below 0").note = "claim: negative"
        rows.append(row)
    return rows


# Pictures


def picture(learned: dict[str, Learned], path: Path) -> None:
    """Left: meta-training, return with the longest context. Right: return by context at the end. Bands: 95 %."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE, draw_band

    best = float(best_return(half_circle_goals()[TRAINED:], sparse=True).mean())
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.0), sharey=True)
        for color, (name, x) in zip(COLORS, learned.items()):
            draw_band(left, x.steps / 1000, x.curve[..., -1], color, label=name)
            draw_band(right, np.arange(x.returns.shape[-1]), x.returns.mean(axis=1), color, marker="o", ms=3.5)
        main = learned["PEARL"]
        e = mean(main.wrong.mean(axis=1))
        error = np.abs(np.array([e.interval or (np.nan, np.nan)]).T - e.value)
        style = {"fmt": "x", "color": "black", "ms": 7, "capsize": 3}
        right.errorbar(main.returns.shape[-1] - 1, e.value, error, label="PEARL, context of another goal", **style)
        for ax in (left, right):
            ax.axhline(best, color="black", lw=1.1, ls=(0, (4, 2)))
        left.text(0.01, best - 0.2, "best possible", fontsize=9, va="top", transform=left.get_yaxis_transform())
        longest = main.returns.shape[-1] - 1
        left.set(xlabel="thousand environment steps of meta-training", ylabel="return of an episode, test goals")
        left.set_title(f"after {longest} episodes of context")
        right.set(xlabel="episodes in the context", title="at the end of meta-training", ylim=(-0.4, best + 0.8))
        left.legend(loc="upper left", bbox_to_anchor=(0.0, 0.9), fontsize=8.5)
        right.legend(loc="upper left", bbox_to_anchor=(0.0, 0.93), fontsize=8.5)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def paths_picture(x: Learned, path: Path, goals: int = 3) -> None:
    """Paths with samples of z: a row for each goal, a column for each context; the first seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE

    env, tasks = jaxrl_envs.make("sparse-point-robot")
    test = tasks.test_batch(len(x.paths), jax.random.key(0))
    angle = np.arctan2(np.asarray(test.goal)[:, 1], np.asarray(test.goal)[:, 0])
    chosen = np.argsort(angle)[np.linspace(1, len(angle) - 2, goals).astype(int)][::-1]
    last = x.paths.shape[1] - 1
    columns = sorted({0, 5, 6, 8, last} & set(range(last + 1)))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(goals, len(columns), figsize=(2.3 * len(columns), 1.75 * goals), squeeze=False)
        for row, goal in zip(axes, chosen):
            for ax, k in zip(row, columns):
                env.draw(ax, jax.tree.map(lambda leaf, i=goal: np.asarray(leaf)[i], test), list(x.paths[goal, k]))
                ax.grid(False)
                ax.set(xlim=(-1.5, 1.5), ylim=(-0.6, 1.4))
        for ax, k in zip(axes[0], columns):
            ax.set_title(
                "z from the prior" if k == 0 else f"{k} episode{'s' if k > 1 else ''} of context", fontsize=9.5
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
