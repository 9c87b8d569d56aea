"""HIRO's goals: the direction in which the manager points from everywhere, and its goals during an episode."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.contract import Played
from jaxrl_envs.rendering import picture
from jaxrl_hier.engine.types import ActInput, Agent
from jaxrl_hier.hierarchical.hiro import Levels
from jaxrl_hier.pictures import Trained
from jaxrl_hier.pictures.animation import save_gif
from jaxrl_hier.reports.plotting import save, style


def draw(trained: Trained, folder: Path) -> list[Path]:
    """Draw <folder>/goals.png, the manager's goals from a grid of places, and <folder>/goals.gif, an episode with the
    goal of each moment; both greedy and in the environment's default task.

    Only for goals whose first two dimensions are 0 and 1, in environments with `places`. Returns the paths written.
    """
    env, agent, params = trained.env, trained.algorithm.agent, trained.state.params
    if not hasattr(env, "places") or tuple(trained.config.goal_dimensions[:2]) != (0, 1):
        return []
    task = env.default_params
    states, goals = _walk(env, agent, task, params)
    _draw_goals(folder / "goals.png", env, agent, task, params, states)
    _animate(folder / "goals.gif", env, task, states, goals)
    return [folder / "goals.png", folder / "goals.gif"]


def _walk(env: Any, agent: Agent, task: Any, params: Levels) -> tuple[Any, np.ndarray]:
    """States and goals [T, ...] of a greedy episode."""
    played = Played(env)

    def step(carry: Any, key: jax.Array) -> Any:
        state, memory, inp = carry
        action, memory, acted = agent.act(params, memory, inp, key, True)
        seen = played.step(key, state, action, task)
        return (seen.state, memory, ActInput(seen.obs, action, seen.reward, jnp.zeros((), bool))), (state, acted.goal)

    @jax.jit
    def play(key: jax.Array) -> Any:
        key, key_reset = jax.random.split(key)
        obs, state = played.reset(key_reset, task)
        begin = ActInput(obs, jnp.zeros(env.action_space(task).shape), jnp.zeros(()), jnp.ones((), bool))
        keys = jax.random.split(key, env.default_params.max_steps_in_episode)
        return jax.lax.scan(step, (state, agent.start(params, key), begin), keys)[1]

    return jax.tree.map(np.asarray, play(jax.random.key(0)))


def _draw_goals(path: Path, env: Any, agent: Agent, task: Any, params: Levels, states: Any) -> None:
    """The manager's goals from a grid of places, everything else as at the episode's start, and the path of the
    episode."""
    first, places = jax.tree.map(lambda x: x[0], states), env.places()

    def goal(place: jax.Array) -> jax.Array:
        obs = env.get_obs(first.replace(position=place), task)
        inp = ActInput(obs, jnp.zeros(env.action_space(task).shape), jnp.zeros(()), jnp.ones((), bool))
        return agent.act(params, agent.start(params, jax.random.key(0)), inp, jax.random.key(0), True)[2].goal[:2]

    goals = np.asarray(jax.jit(jax.vmap(goal))(places))
    with style() as plt:
        figure, ax = plt.subplots(figsize=(4.6, 5.0))
        env.paint(ax, first, task)
        ax.plot(*states.position.T, color="tab:blue", lw=1.6, label="path of an episode")
        arrows: Any = {"angles": "xy", "color": "0.25", "width": 0.005, "zorder": 3}
        ax.quiver(*places.T, *goals.T / np.maximum(np.linalg.norm(goals, axis=1), 1e-6), scale=20, **arrows)
        ax.plot([], [], color="0.25", marker=r"$\rightarrow$", ms=14, ls="none", label="direction of the goal there")
        ax.set_title("the map as at the start", fontsize=9)
        ax.grid(False)
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
        save({"goals": figure}, path.parent, plt)


def _animate(path: Path, env: Any, task: Any, states: Any, goals: np.ndarray) -> None:
    """The episode, a frame for every fourth step, with a line from the point to where the manager wants it."""

    def frame(t: int) -> np.ndarray:
        state = jax.tree.map(lambda x: x[t], states)
        here, there = state.position, state.position + goals[t, :2]

        def paint(ax: Any) -> None:
            env.paint(ax, state, task)
            ax.plot(*states.position[: t + 1].T, color="tab:blue", lw=1.2, alpha=0.5)
            ax.plot(*np.stack([here, there]).T, color="tab:red", lw=1.4, zorder=5)
            ax.plot(*there, "o", ms=7, mfc="none", mec="tab:red", mew=1.6, zorder=5)
            box = {"fc": "white", "ec": "none", "pad": 2}
            ax.text(0.97, 0.965, f"step {t}", transform=ax.transAxes, ha="right", va="top", fontsize=9, bbox=box)

        return picture(paint, 320)

    away = np.linalg.norm(states.position - states.position[-1], axis=1)
    end = min(len(away), int(np.argmax(away < 1.0)) + 20)  # after arriving, it stays there
    save_gif(path, [frame(t) for t in range(0, end, 4)], 90)
