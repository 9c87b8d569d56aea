"""FuN, its ablations and a recurrent actor-critic where the reward is far away: rooms with keys, doors and a treasure.

    python -m benchmarks.papers.fun_treasure                 # 6 seeds, about a quarter of an hour on one core
    python -m benchmarks.papers.fun_treasure --scale smoke

Vezhnevets et al. (2017) report that FuN learns Montezuma's Revenge where a recurrent actor-critic does not get far, and
that it needs each of its parts. Here is the same question where a CPU can answer it, on `treasure-vector`: four rooms,
a key, a door and a treasure, each worth 1; 36 steps for who knows the way, of which the first 14 pay nothing, and at
most 200. Nothing of it can be compared with a published number.

- FuN as in the paper, c = r = 10; without dilation (r = 1); with goals for one step (c = 1); with absolute goals;
  purely feudal (the worker gets the inner reward alone).
- The recurrent actor-critic is `rl2` with one episode per trial: an LSTM with as many parameters as FuN has in all. Its
  input also has the previous action and reward, which FuN's has not. It takes a time limit for an end.

All have the same steps, environments, length of unrolls and optimiser. For each of them the same random settings
(learning rate, entropy bonus, discount, and α for those that have one) train one seed each for half as long; the one
with the highest mean return over that training is trained again from as many new seeds, and all of those are reported.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxrl_envs
from benchmarks.papers.options_planning import pyplot
from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_envs.treasure import KeyDoorTreasure, fewest_steps
from jaxrl_hier.engine.types import Algorithm, TrainState
from jaxrl_hier.hierarchical import fun
from jaxrl_hier.meta import rl2

ENV = "treasure-vector"
SETTINGS = fun.Config(environments=32, rollout_length=40, hidden=(64,), goal_size=32, worker_size=64, eval_episodes=64)
A2C = "recurrent A2C"
ARMS: dict[str, dict[str, Any]] = {
    "FuN": {},
    A2C: {},
    "no dilation": {"dilation": 1},
    "c = 1": {"goal_horizon": 1},
    "absolute goals": {"directional_goals": False},
    "purely feudal": {"extrinsic_weight": 0.0},
}
EVERY = 25  # iterations per point of a curve
POINTS = 20  # of a whole training
COLORS = ("#1f6fb4", "#e8710a", "#5b9e5b", "#b04f8f", "#8a6d3b", "0.55")


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: a minute, to see that it runs"""
    seeds: int = 6
    """independent runs of each, and settings that are tried for each"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the pictures"""


class Setting(NamedTuple):
    """What is tuned; each leaf [lanes] or a number."""

    learning_rate: Any
    entropy: Any
    discount: Any  # of the worker, or of the actor-critic; the manager's is 0.99 or, if that is higher, 0.995
    intrinsic: Any  # α


def draws(count: int) -> Setting:
    """Random settings, the same for all that are compared."""
    rng = np.random.default_rng(0)
    log_uniform = lambda low, high: np.exp(rng.uniform(np.log(low), np.log(high), count)).astype(np.float32)
    return Setting(
        learning_rate=log_uniform(3e-4, 5e-3),
        entropy=log_uniform(3e-3, 5e-2),
        discount=rng.choice(np.array([0.95, 0.99], np.float32), count),
        intrinsic=rng.uniform(0, 1, count).astype(np.float32),
    )


def build(arm: str, env: Any, tasks: Any, setting: Setting) -> Algorithm:
    if arm == A2C:
        config: Any = rl2.Config(
            learner="a2c",
            memory="lstm",
            memory_size=lstm_size(),
            separate_critic=False,
            encoder_hidden=SETTINGS.hidden,
            environments=SETTINGS.environments,
            rollout_length=SETTINGS.rollout_length,
            gae_lambda=SETTINGS.gae_lambda,
            critic_weight=SETTINGS.critic_weight,
            max_grad_norm=SETTINGS.max_grad_norm,
            discount=setting.discount,
            learning_rate=setting.learning_rate,
            entropy_weight=setting.entropy,
            eval_tasks=SETTINGS.eval_episodes,
        )
        return rl2.make(config, env, tasks)
    manager = jnp.where(setting.discount < 0.98, 0.99, 0.995)
    tuned = {
        "learning_rate": setting.learning_rate,
        "entropy_weight": setting.entropy,
        "worker_discount": setting.discount,
        "manager_discount": manager,
        "intrinsic_weight": setting.intrinsic,
    }
    return fun.make(replace(SETTINGS, **tuned, **ARMS[arm]), env, tasks)


def parameters(algorithm: Algorithm) -> int:
    shapes = jax.eval_shape(algorithm.agent.init, jax.random.key(0))
    return sum(x.size for x in jax.tree.leaves(shapes))


def lstm_size() -> int:
    """Of the actor-critic's LSTM, so that it has as many parameters as FuN."""
    env, _ = jaxrl_envs.make(ENV)
    features, actions = env.observation_space().shape[0] + env.num_actions + 2, env.num_actions
    begin = partial(fun.init_params, SETTINGS, fun.network_of(SETTINGS, env))
    wanted = sum(x.size for x in jax.tree.leaves(jax.eval_shape(begin, jax.random.key(0))))
    (encoder,) = SETTINGS.hidden
    count = lambda n: (features + 1) * encoder + 4 * n * (encoder + n + 1) + (n + 1) * (actions + 1)
    return min(range(8, 512), key=lambda n: abs(count(n) - wanted))


class Trained(NamedTuple):
    state: TrainState  # [lanes]
    curves: dict[str, np.ndarray]  # [lanes, points]
    seconds: float


class Program:
    """`EVERY` iterations of all lanes, each with its own setting and seed; compiled once."""

    def __init__(self, arm: str, lanes: int):
        env, tasks = jaxrl_envs.make(ENV)

        def chunk(state: TrainState, setting: Setting) -> tuple[TrainState, dict[str, Any]]:
            step = build(arm, env, tasks, setting).step
            shapes = jax.eval_shape(step, state)[1]
            nothing = jax.tree.map(lambda m: jnp.zeros(m.shape), shapes)

            def one(_: Any, carry: Any) -> Any:
                state, metrics = step(carry[0])
                return state, jax.tree.map(jnp.add, carry[1], metrics)

            return jax.lax.fori_loop(0, EVERY, one, (state, nothing))

        self.lanes = lanes
        self.init = jax.jit(jax.vmap(lambda key, setting: build(arm, env, tasks, setting).init(key)))
        example = jax.tree.map(jnp.asarray, draws(lanes))
        state = jax.eval_shape(self.init, jax.random.split(jax.random.key(0), lanes), example)
        begun = time.perf_counter()
        self.chunk = jax.jit(jax.vmap(chunk), donate_argnums=0).lower(state, example).compile()
        self.compile_seconds = time.perf_counter() - begun
        self.parameters = parameters(build(arm, env, tasks, Setting(1e-3, 1e-2, 0.95, 0.5)))

    def train(self, setting: Setting, seed: int, points: int) -> Trained:
        keys = jnp.stack([jax.random.key(seed + i) for i in range(self.lanes)])
        setting = jax.tree.map(jnp.asarray, setting)
        state, rows = self.init(keys, setting), []
        begun = time.perf_counter()
        for _ in range(points):
            state, sums = self.chunk(state, setting)
            rows.append(jax.device_get(sums))
        seconds = time.perf_counter() - begun
        mean = lambda m: m.total / np.maximum(m.count, 1) if hasattr(m, "total") else m / EVERY
        curves = {name: np.stack([mean(row[name]) for row in rows], axis=1) for name in rows[0]}
        return Trained(state, curves, seconds)


def main(arguments: Arguments) -> None:
    begun = time.perf_counter()
    points = 2 if arguments.scale == "smoke" else POINTS
    found: dict[str, Trained] = {}
    chosen, search, programs = {}, {}, {}
    for arm in ARMS:
        programs[arm] = program = Program(arm, arguments.seeds)
        tried = draws(arguments.seeds)
        search[arm] = program.train(tried, 1000, max(1, points // 2)).curves["return"].mean(axis=1)
        best = int(np.argmax(search[arm]))
        chosen[arm] = {name: float(x[best]) for name, x in tried._asdict().items()}
        setting = Setting(*(np.full(arguments.seeds, x[best]) for x in tried))
        found[arm] = program.train(setting, 0, points)
        final = found[arm].curves["return"][:, -1]
        print(f"{arm:<16}{program.parameters:>8} parameters, {found[arm].seconds:6.1f} s, return {final.round(2)}")

    env, _ = jaxrl_envs.make(ENV)
    rows = [row for arm, run in found.items() for row in arm_rows(arm, run, env, programs[arm])]
    for arm in list(ARMS)[1:]:
        rows.append(difference(arm, found["FuN"], found[arm]))
    picture(found, env, arguments.out / "fun_treasure.png")
    steps = animate(found["FuN"], chosen["FuN"]["discount"], env, arguments.out / "fun_treasure.gif")
    path = write_paper(
        "fun_treasure",
        "Vezhnevets et al., FeUdal Networks for Hierarchical Reinforcement Learning, ICML 2017",
        "the question of figures 3 and 7, in small: rooms with keys, doors and a treasure instead of Atari",
        rows,
        arguments.scale,
        arguments.out,
        wall_seconds=time.perf_counter() - begun,
        compile_seconds=sum(program.compile_seconds for program in programs.values()),
        settings_tried={name: x.tolist() for name, x in draws(arguments.seeds)._asdict().items()},
        mean_return_of_each=({arm: x.tolist() for arm, x in search.items()}),
        settings_chosen=chosen,
        environment_steps_of_each_seed=points * EVERY * SETTINGS.environments * SETTINGS.rollout_length,
        animation=f"the first seed of FuN, {steps} steps",
    )
    show(rows)
    print(path)


# Rows


def arm_rows(arm: str, run: Trained, env: KeyDoorTreasure, program: Program) -> list[Row]:
    returns, best = run.curves["return"], float(env.best_return)
    speed = returns.size * EVERY * SETTINGS.environments * SETTINGS.rollout_length / run.seconds
    note = f"{program.parameters} parameters; {speed:.0f} steps per second, all seeds"
    last, lengths = returns[:, -(POINTS // 8) :].mean(axis=1), run.curves["episode_length"][:, -1]
    reach, limit = (0.0, best), (0.0, float(env.default_params.max_steps_in_episode))
    return [
        Row.measured(
            f"{arm}: return in the last eighth of training", last, bounds=reach, exact=best, note=note
        ).judged(),
        Row.measured(f"{arm}: mean return over the training", returns.mean(axis=1)),
        Row.measured(f"{arm}: steps of an episode in the end", lengths, bounds=limit, exact=fewest_steps(env)).judged(
            "lower"
        ),
    ]


def difference(arm: str, ours: Trained, other: Trained) -> Row:
    """Of the mean returns over the training, over the independent seeds of either."""
    a, b = (run.curves["return"].mean(axis=1) for run in (ours, other))
    return Row.measured(f"mean return over the training, FuN less {arm}", a, b)


# Pictures


def picture(found: dict[str, Trained], env: KeyDoorTreasure, path: Path) -> None:
    """Learning curves with 95 % over the seeds: FuN beside the actor-critic, and FuN beside its ablations."""
    plt = pyplot()
    from jaxrl_hier.reports.plotting import STYLE, draw_band

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.0), sharey=True)
        for i, (arm, run) in enumerate(found.items()):
            returns = run.curves["return"]
            x = (1 + np.arange(returns.shape[1])) * EVERY * SETTINGS.environments * SETTINGS.rollout_length / 1e6
            for ax in axes if arm == "FuN" else axes[:1] if arm == A2C else axes[1:]:
                draw_band(ax, x, returns, COLORS[i], (0.0, float(env.best_return)), lw=1.8, label=arm)
        for ax, title in zip(axes, ("beside a recurrent actor-critic", "beside itself without a part")):
            ax.axhline(env.best_return, color="0.2", ls="--", lw=1)
            ax.set(title=title, xlabel="million steps of a seed", ylim=(0, env.best_return * 1.4))
            ax.legend(loc="upper left", fontsize=8, ncols=2)
        axes[0].set_ylabel("return of an episode")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def animate(run: Trained, discount: float, env: KeyDoorTreasure, path: Path) -> int:
    """One episode of the first seed as a GIF; returns its steps.

    Blue is where the manager's goal points: the cosine of the goal with the direction from here to each cell, in the
    manager's space, as if the agent stood there with what it has.
    """
    from jaxrl_hier.engine.rollout import play_episodes
    from jaxrl_hier.pictures.animation import with_one_palette

    params = jax.tree.map(lambda x: x[0], run.state.params)
    task = env.default_params
    agent = build("FuN", env, jaxrl_envs.make(ENV)[1], Setting(1e-3, 1e-2, discount, 0.5)).agent
    net = fun.network_of(SETTINGS, env)
    horizon = int(task.max_steps_in_episode)
    seen = jax.jit(partial(play_episodes, env, agent, task, episodes=1, horizon=horizon))(params, jax.random.key(1))
    over = np.asarray(seen.terminated | seen.truncated)[:, 0]
    length = int(np.argmax(over)) + 1
    obs, goals = np.asarray(seen.obs)[:length, 0], np.asarray(seen.extras.goal)[:length, 0]
    count = len(env.cells)
    frames = []
    for t in range(length):
        everywhere = np.concatenate([np.eye(count), np.tile(obs[t, count:], (count, 1))], axis=1).astype(np.float32)
        _, s = fun.perceive(net, params, everywhere)
        cell = int(obs[t, :count].argmax())
        toward = np.asarray(fun.cosine(s - s[cell], jnp.asarray(goals[t])))
        frames.append(frame(env, obs[: t + 1, :count].argmax(axis=1), obs[t, count:] > 0, toward, t + 1))
    images = with_one_palette(frames)
    durations = [180] * (length - 1) + [1500]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True)
    return length


def frame(env: KeyDoorTreasure, path: np.ndarray, flags: np.ndarray, toward: np.ndarray, step: int) -> np.ndarray:
    from jaxrl_envs.rendering import picture as pixels

    keys = len(env.keys)
    state = env.reset_env(jax.random.key(0), env.default_params)[1].replace(
        cell=path[-1], taken=flags[:keys], opened=flags[keys:]
    )

    def paint(ax: Any) -> None:
        env.draw(ax, env.default_params, state, path[-12:])
        shown = np.full(env.letters.shape, np.nan)
        shown[tuple(env.cells.T)] = np.maximum(toward, 0)
        ax.imshow(np.ma.masked_invalid(shown), cmap="Blues", vmin=0, vmax=1.2, zorder=0.5)
        row, col = env.cells[path[-1]]
        drow, dcol = env.cells[np.argmax(toward)] - env.cells[path[-1]]
        ax.annotate(
            "",
            (col + dcol, row + drow),
            (col, row),
            arrowprops={"arrowstyle": "-|>", "color": "0.15", "lw": 1.4, "shrinkA": 6, "shrinkB": 2},
            zorder=5,
        )
        ax.text(0, 0, f"step {step}", color="white", va="center", ha="left", fontsize=9)

    return pixels(paint, 360)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
