"""The value of every cell of four rooms for a few goals, some trained on and some held out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.four_rooms import NUM_CELLS, FourRoomsGoals
from jaxrl_hier.goals.uvfa import exact_values, value_function
from jaxrl_hier.pictures import Trained
from jaxrl_hier.pictures.tables import values_and_policy
from jaxrl_hier.reports.plotting import evenly, save, style

GOALS = 3  # of each kind


def maps(
    values: Callable[[Any, Any, Any], jax.Array], params: Any, env: FourRoomsGoals, goals: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """V(s, g) [G, S] of every cell and the greedy policy [G, S, A], for goal cells [G].

    Args:
        values: params, observations, goals -> Q [..., A], as of `uvfa.value_function`.
    """
    here, there = env.encode(jnp.arange(NUM_CELLS)), env.encode(goals)
    of_goal = lambda goal: values(params, {"observation": here}, jnp.broadcast_to(goal, here.shape))
    return values_and_policy(jax.vmap(of_goal)(there))


def goals_of(trained: Trained, count: int = GOALS) -> tuple[np.ndarray, np.ndarray]:
    """Goal cells that are trained on and goal cells that are held out, at most `count` of each, spread over the map."""
    drawn = jax.vmap(trained.tasks.sample)(jax.random.split(jax.random.key(0), 1000)).goal
    known = np.unique(np.asarray(drawn))
    held_out = np.zeros(0, int) if trained.tasks.test is None else np.unique(np.asarray(trained.tasks.test.goal))
    spread = lambda cells: cells[evenly(len(cells), count)] if len(cells) else cells
    return spread(known), spread(held_out)


def draw(trained: Trained, folder: Path) -> list[Path]:
    """Draw <folder>/values.png; nothing outside four rooms with goals. Returns the paths written."""
    env = trained.env
    if not isinstance(env, FourRoomsGoals):
        return []
    _, values = value_function(trained.config, env)
    groups = [group for group in zip(("trained on", "held out"), goals_of(trained)) if len(group[1])]
    exact = exact_values(jnp.asarray(env.transitions), trained.config.discount)
    columns = max(len(goals) for _, goals in groups)
    with style() as plt:
        size = (3.0 * columns + 0.9, 3.2 * len(groups))
        figure, axes = plt.subplots(len(groups), columns, figsize=size, squeeze=False)
        image: Any = None
        for row, (kind, goals) in zip(axes, groups):
            learned, policy = maps(values, trained.state.params, env, jnp.asarray(goals))
            for ax in row[len(goals) :]:
                ax.set_visible(False)
            for ax, goal, v, pi in zip(row, goals, learned, policy):
                image = env.draw(ax, env.default_params.replace(goal=goal), values=v, policy=pi)
                image.set_clim(0.0, 1.0)
                error = np.delete(np.abs(np.asarray(v) - np.asarray(exact[:, goal])), goal)
                ax.set_title(f"goal {kind}\nmean error {error.mean():.3f}", fontsize=9)
        figure.colorbar(image, ax=axes, shrink=0.8, label="learned V(s, g), and greedy actions")
        return save({"values": figure}, folder, plt)
