"""FuN, its ablations and a recurrent actor-critic where the reward is far away: rooms with keys, doors and a treasure.

Vezhnevets et al. (2017) report that FuN learns Montezuma's Revenge where a recurrent actor-critic does not get far, and
that it needs each of its parts. Here is the same question where a CPU can answer it, on `treasure-vector`: four rooms,
a key, a door and a treasure, each worth 1; 36 steps for who knows the way, of which the first 14 pay nothing, and at
most 200. What can be compared is the claim that it is better, and that it needs each part; no number is published.

- FuN as in the paper, c = r = 10; without dilation (r = 1); with goals for one step (c = 1); with absolute goals;
  purely feudal (the worker gets the inner reward alone).
- The recurrent actor-critic is `rl2` with one episode per trial: an LSTM with as many parameters as FuN has in all. Its
  input also has the previous action and reward, which FuN's has not. It takes a time limit for an end.

All have the same steps, environments, length of unrolls and optimiser. For each of them the same random settings
(learning rate, entropy bonus, discount, and α for those that have one) train one seed each for half as long; the one
with the highest mean return over that training is trained again from as many new seeds, and all of those are reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl_envs
from jaxrl_envs.treasure import KeyDoorTreasure, fewest_steps
from jaxrl_hier import jit
from jaxrl_hier.engine.rollout import play_episodes
from jaxrl_hier.engine.types import Algorithm, TrainState
from jaxrl_hier.hierarchical import fun
from jaxrl_hier.meta import rl2

from ..drawing import seeds_and_mean, subplots
from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row

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
TRIED = 6  # settings
STEPS = EVERY * SETTINGS.environments * SETTINGS.rollout_length  # per point


def parts(scale: Scale) -> dict[str, Computation]:
    points, arms = (2, ("FuN", A2C)) if scale == "smoke" else (POINTS, tuple(ARMS))
    every, tried = (2, 2) if scale == "smoke" else (EVERY, TRIED)
    about: dict[str, Any] = {"points": points, "every": every, "tried": tried}
    shared = ("search", "chosen", "parameters", "env_steps", "cells", "flags", "toward")
    return {arm: Computation(tuned_and_learned, {"arm": arm} | about, shared=shared) for arm in arms}


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


# Learning


def tuned_and_learned(seeds: Sequence[int], arm: str, points: int, every: int, tried: int) -> Mapping[str, np.ndarray]:
    """One seed with each of the settings that are tried, for half as long; then all seeds with the best of them."""
    settings = draws(tried)
    search = learn(arm, settings, range(1000, 1000 + tried), max(1, points // 2), every)[1]["return"].mean(axis=1)
    best = int(np.argmax(search))
    setting = Setting(*(np.full(len(seeds), x[best]) for x in settings))
    state, curves = learn(arm, setting, seeds, points, every)
    found = {name: curves[name] for name in ("return", "episode_length")}
    found |= {"search": search, "chosen": np.array([x[best] for x in settings])}
    shapes = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], state.params))
    found["parameters"] = np.array(sum(x.size for x in jax.tree.leaves(shapes)))
    found["env_steps"] = np.arange(1, points + 1) * every * SETTINGS.environments * SETTINGS.rollout_length
    return found | (episode(jax.tree.map(lambda x: x[0], state.params)) if arm == "FuN" else {})


def learn(
    arm: str, setting: Setting, seeds: Sequence[int], points: int, every: int
) -> tuple[TrainState, dict[str, np.ndarray]]:
    """The state of all seeds in the end, and the mean of each metric between points, [seeds, points]."""
    env, tasks = jaxrl_envs.make(ENV)
    setting = jax.tree.map(jnp.asarray, setting)

    def chunk(state: TrainState, setting: Setting) -> tuple[TrainState, dict[str, Any]]:
        step = build(arm, env, tasks, setting).step
        zeros = jax.tree.map(lambda m: jnp.zeros(m.shape), jax.eval_shape(step, state)[1])

        def one(_: Any, carry: Any) -> Any:
            state, metrics = step(carry[0])
            return state, jax.tree.map(jnp.add, carry[1], metrics)

        return jax.lax.fori_loop(0, every, one, (state, zeros))

    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    state = jit(jax.vmap(lambda key, setting: build(arm, env, tasks, setting).init(key)))(keys, setting)
    program, sums = jit(jax.vmap(chunk), donate_argnums=0), []
    for _ in range(points):
        state, metrics = program(state, setting)
        sums.append(jax.device_get(metrics))
    mean = lambda m: m.total / np.maximum(m.count, 1) if hasattr(m, "total") else m / every
    return state, {name: np.stack([mean(row[name]) for row in sums], axis=1) for name in sums[0]}


def episode(params: Any) -> dict[str, np.ndarray]:
    """An episode of FuN for the animation: cells [T], what has been taken and opened [T, flags], and the cosine of the
    manager's goal with the direction from here to each cell, in the manager's space, as if the agent stood there with
    what it has [T, cells]."""
    env, tasks = jaxrl_envs.make(ENV)
    agent, task = build("FuN", env, tasks, Setting(1e-3, 1e-2, 0.99, 0.5)).agent, env.default_params
    horizon = int(task.max_steps_in_episode)
    seen = jit(partial(play_episodes, env, agent, task, episodes=1, horizon=horizon))(params, jax.random.key(1))
    length = int(np.argmax(np.asarray(seen.terminated | seen.truncated)[:, 0])) + 1
    obs, goals = np.asarray(seen.obs)[:length, 0], np.asarray(seen.extras.goal)[:length, 0]
    net, count, toward = fun.network_of(SETTINGS, env), len(env.cells), []
    for t in range(length):
        everywhere = np.concatenate([np.eye(count), np.tile(obs[t, count:], (count, 1))], axis=1).astype(np.float32)
        _, s = fun.perceive(net, params, everywhere)
        toward.append(np.asarray(fun.cosine(s - s[int(obs[t, :count].argmax())], jnp.asarray(goals[t]))))
    return {"cells": obs[:, :count].argmax(axis=1), "flags": obs[:, count:] > 0, "toward": np.stack(toward)}


# Rows


def rows(found: Found) -> list[Row]:
    env, _ = jaxrl_envs.make(ENV)
    made = [row for arm, measured in found.items() for row in arm_rows(arm, measured, env)]
    others = [arm for arm in found if arm != "FuN"] if "FuN" in found else []
    # of the mean returns over the training, over the independent seeds of either
    over = {arm: measured["return"].mean(axis=1) for arm, measured in found.items()}
    return made + [
        Row.measured(f"mean return over the training, FuN less {arm}", over["FuN"], over[arm]).judged("above 0")
        for arm in others
    ]


def arm_rows(arm: str, measured: Measured, env: KeyDoorTreasure) -> list[Row]:
    returns, best = measured["return"], float(env.best_return)
    speed = len(returns) * measured["env_steps"][-1] / measured.seconds
    note = f"{measured['parameters']} parameters; {speed:.0f} steps per second, all seeds, with search and compilation"
    last, lengths = returns[:, -max(1, POINTS // 8) :].mean(axis=1), measured["episode_length"][:, -1]
    inside, limit = (0.0, best), (0.0, float(env.default_params.max_steps_in_episode))
    labels = [f"{arm}: {what}" for what in ("return in the last eighth of training", "mean return over the training")]
    return [
        Row.measured(labels[0], last, bounds=inside, exact=best, note=note).judged(),
        Row.measured(labels[1], returns.mean(axis=1)),
        Row.measured(f"{arm}: steps of an episode in the end", lengths, bounds=limit, exact=fewest_steps(env)).judged(
            "lower"
        ),
    ]


# Pictures


def draw(found: Found) -> dict[str, Any]:
    """Learning curves, seeds thin and their mean thick: FuN beside the actor-critic, and FuN beside its ablations."""
    best = float(jaxrl_envs.make(ENV)[0].best_return)
    figure, (axes,) = subplots(1, 2, width=5.25, sharey=True)
    for arm, measured in found.items():
        for ax in axes if arm == "FuN" else axes[:1] if arm == A2C else axes[1:]:
            seeds_and_mean(ax, measured["env_steps"] / 1e6, measured["return"], arm)
    for ax, title in zip(axes, ("beside a recurrent actor-critic", "beside itself without a part")):
        ax.axhline(best, color="0.2", ls="--", lw=1, label="all that can be had")
        ax.set(title=title, xlabel="million steps of a seed", ylim=(0, best * 1.4))
        ax.legend(loc="upper left", fontsize=8, ncols=2)
    axes[0].set_ylabel("return of an episode")
    return {"": figure}


def animate(found: Found, folder: Path) -> None:
    """One episode of FuN's first seed. Blue is where the manager's goal points."""
    from jaxrl_hier.pictures.animation import save_gif

    if "FuN" not in found:
        return
    env, _ = jaxrl_envs.make(ENV)
    seen = found["FuN"]
    frames = [
        frame(env, seen["cells"][: t + 1], seen["flags"][t], seen["toward"][t], t + 1)
        for t in range(len(seen["cells"]))
    ]
    save_gif(folder / f"{FIGURE.name}.gif", frames, 180)


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


FIGURE = Figure(
    name="fun_treasure",
    paper="Vezhnevets et al., FeUdal Networks for Hierarchical Reinforcement Learning, ICML 2017",
    shows="the question of figures 3 and 7, in small: rooms with keys, doors and a treasure instead of Atari",
    parts=parts,
    rows=rows,
    draw=draw,
    animate=animate,
    seeds=10,
)
