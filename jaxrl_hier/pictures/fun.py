"""FuN's goals during an episode: the path through the manager's space, and how well it follows the goals."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_hier.hierarchical.fun import Config, network_of, perceive
from jaxrl_hier.learning.normalization import as_seen, learned
from jaxrl_hier.learning.vectors import cosine
from jaxrl_hier.pictures import Trained, episode
from jaxrl_hier.reports.plotting import BLUE, GREY, ORANGE, save, style

ARROWS = 25  # most goals to draw


class Directions(NamedTuple):
    """An episode of T steps in the manager's space."""

    space: np.ndarray  # [T + 1, d] s_t, the last after the last step
    goals: np.ndarray  # [T, d] g_t
    cosines: np.ndarray  # [T + 1 − c] cos(s_{t+c} − s_t, g_t), or cos(s_{t+c}, g_t) where goals are places
    rewards: np.ndarray  # [T]


def draw(trained: Trained, folder: Path) -> list[Path]:
    """Draw an episode as in training, <folder>/directions.png; returns the paths written."""
    with style() as plt:
        return save({"directions": figure_of(directions(trained), trained.config, plt)}, folder, plt)


def directions(trained: Trained) -> Directions:
    """An episode as the manager sees it, with actions drawn as in training."""
    steps = episode.play(trained, greedy=False).steps
    obs = np.concatenate([steps.obs, steps.next_obs[-1:]])
    network, params = network_of(trained.config, trained.env), trained.state.params
    perceived = lambda obs: perceive(network, learned(params), as_seen(params, obs))[1]
    space = np.asarray(jax.jit(jax.vmap(perceived))(jnp.asarray(obs)))
    goals = np.asarray(steps.extras.goal)
    return Directions(space, goals, cosines(trained.config, space, goals), np.asarray(steps.reward))


def cosines(config: Config, space: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Cosines between the moves over c steps and the goals of their first steps, [T + 1 − c]; empty if T < c."""
    count = max(len(space) - config.goal_horizon, 0)
    way = space[config.goal_horizon :] - (space[:count] if config.directional_goals else 0.0)
    return np.asarray(cosine(jnp.asarray(way), jnp.asarray(goals[:count])))


def principal(space: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components [2, d] of points [T, d], and their shares [2] of the variance."""
    centred = space - space.mean(axis=0)
    _, size, right = np.linalg.svd(centred, full_matrices=False)
    shares = size**2 / max(np.sum(size**2), 1e-12)
    pad = max(0, 2 - len(right))
    return np.pad(right, ((0, pad), (0, 0)))[:2], np.pad(shares, (0, pad))[:2]


def figure_of(found: Directions, config: Config, plt: Any) -> Any:
    """Left: the path in the plane of its principal components, with goals as arrows. Right: the cosines over time."""
    axes_2d, shares = principal(found.space)
    way, goals = (found.space - found.space.mean(axis=0)) @ axes_2d.T, found.goals @ axes_2d.T
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 4.2))
    left.plot(*way.T, color=GREY, lw=1.0, zorder=1)
    points = left.scatter(*way.T, c=np.arange(len(way)), cmap="viridis", s=14, zorder=2)
    each = np.arange(0, len(goals), -(-len(goals) // ARROWS))
    reach = np.ptp(way, axis=0).max() or 1.0
    arrows: Any = {"angles": "xy", "scale_units": "xy", "scale": 6.0 / reach, "color": ORANGE, "width": 0.005}
    left.quiver(*way[each].T, *goals[each].T, zorder=3, **arrows)
    left.margins(0.15)
    figure.colorbar(points, ax=left, label="step")
    left.set(
        xlabel=f"first principal component of s ({shares[0]:.0%} of the variance)",
        ylabel=f"second ({shares[1]:.0%})",
    )
    left.set_title("the path in the manager's space, goals g as arrows", fontsize=10)
    right.axhline(0.0, color="0.6", lw=0.8)
    right.plot(found.cosines, color=BLUE, lw=1.5)
    paid = np.flatnonzero(found.rewards)
    if 0 < len(paid) <= len(found.rewards) // 2:
        right.plot(paid, np.ones(len(paid)), "v", color=ORANGE, ms=6, clip_on=False, label="reward")
        right.legend(loc="lower right")
    what = "s(t + c) − s(t)" if config.directional_goals else "s(t + c)"
    right.set_title("does the worker go where the manager points?", fontsize=10)
    if len(found.cosines):
        mean = f"mean {found.cosines.mean():.2f}"
        right.text(0.98, 0.96, mean, transform=right.transAxes, ha="right", va="top", fontsize=9, color=BLUE)
    right.set(
        xlabel="step t",
        ylabel=f"cos({what}, g(t)), c = {config.goal_horizon}",
        ylim=(-1.05, 1.05),
        xlim=(0, len(found.rewards)),
    )
    return figure
