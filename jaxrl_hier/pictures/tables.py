"""Tables of action values on the map of four rooms."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.four_rooms import FourRooms
from jaxrl_hier.exact import tabular
from jaxrl_hier.pictures import Trained
from jaxrl_hier.reports.plotting import save, style


def values_and_policy(q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """max_a Q [..., S] of Q [..., S, A], and the greedy policy [..., S, A], which splits ties evenly; zero in a state
    whose actions all have equal values, since nothing is learned there."""
    best = jnp.max(q, axis=-1)
    tied = q == best[..., None]
    policy = tied / jnp.sum(tied, axis=-1, keepdims=True)
    return best, jnp.where(jnp.all(tied, axis=-1)[..., None], 0.0, policy)


def draw(trained: Trained, folder: Path) -> list[Path]:
    """<folder>/values.png of a learner whose parameters are Q [S, A], beside the exact values, in the task of its first
    environment; nothing outside four rooms."""
    env = trained.env
    if not isinstance(env, FourRooms):
        return []
    task = jax.tree.map(lambda x: np.asarray(x)[0], trained.state.world.task)
    exact = tabular.value_iteration(*env.model(task), trained.config.discount)
    learned, policy = values_and_policy(trained.state.params)
    with style() as plt:
        figure, axes = plt.subplots(1, 2, figsize=(8.6, 4.0))
        top = float(max(np.max(learned), np.max(exact)))
        image: Any = None
        for ax, values, arrows, title in (
            (axes[0], learned, policy, "learned: max Q(s, a), and the greedy actions"),
            (axes[1], exact, None, "best possible"),
        ):
            image = env.draw(ax, task, values=values, policy=arrows)
            image.set_clim(0.0, top)
            ax.set_title(title)
        figure.colorbar(image, ax=axes, shrink=0.85, label="discounted value")
        return save({"values": figure}, folder, plt)
