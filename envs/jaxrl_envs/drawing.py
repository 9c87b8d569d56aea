"""Drawing grid worlds with matplotlib. Rows go down and columns to the right; coordinates are (row, col) of a cell."""

from typing import Any

import numpy as np

from jaxrl_envs.grids import DIRECTIONS, grid_moves

DARK, TINT = 0.33, (0.84, 0.91, 0.97)  # walls; the cells of an initiation set


def draw_grid(
    ax: Any,
    free: np.ndarray,
    *,
    goal: int | None = None,
    start: int | None = None,
    cell: int | None = None,
    values: Any = None,
    policy: Any = None,
    initiation: Any = None,
    termination: Any = None,
) -> Any:
    """Draw a map and layers over its S free cells, which have the numbers 0 to S − 1 in reading order.

    Args:
        free: [H, W] bool, False for a wall.
        goal, start, cell: a star, a square, and a disc for the agent, each in the cell of this number.
        values: [S] colours the cells; the goal and cells that are not finite stay blank.
        policy: [S, 4] probabilities of up, down, left and right, drawn as arrows; none in a cell whose row is zero.
        initiation: [S] bool tints these cells and leaves the arrows out elsewhere.
        termination: [S] rings whose area is the probability.

    Returns:
        The image of the values, for a colour bar; None without `values`.
    """
    cells, _ = grid_moves(free)
    height, width = free.shape
    background = np.full((height, width, 3), DARK)
    background[free] = 1.0
    if initiation is not None:
        background[tuple(cells[np.asarray(initiation, bool)].T)] = TINT
    ax.imshow(background, interpolation="nearest")
    image = None
    if values is not None:
        shown = np.full((height, width), np.nan)
        shown[free] = np.asarray(values, float)
        if goal is not None:
            shown[tuple(cells[goal])] = np.nan
        image = ax.imshow(np.ma.masked_invalid(shown), cmap=light_blues(), interpolation="nearest")
    ax.add_collection(_outlines(cells))
    if termination is not None:
        for s in np.flatnonzero(termination):
            radius = 0.42 * np.sqrt(termination[s])
            ax.add_patch(disc(cells[s], radius, fill=False, ec="tab:red", lw=1.4))
    if policy is not None:
        hidden = np.zeros(len(cells), bool) if initiation is None else ~np.asarray(initiation, bool)
        if goal is not None:
            hidden[goal] = True
        _draw_policy(ax, cells, np.where(hidden[:, None], 0.0, np.asarray(policy, float)))
    if start is not None:
        ax.add_patch(_square(cells[start], margin=0.1, ec="black", lw=1.4, zorder=2.5))
    if goal is not None:
        ax.add_patch(star(cells[goal], (0.19, 0.46)))
    if cell is not None:
        ax.add_patch(disc(cells[cell], 0.34, fc="tab:blue", ec="white", lw=0.8, zorder=4))
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[], aspect="equal")
    ax.set_frame_on(False)
    return image


def _draw_policy(ax: Any, cells: np.ndarray, probability: np.ndarray) -> None:
    """Arrows whose lengths within a cell are as the probabilities [S, 4] of its moves."""
    # a single arrow is centred in its cell; several share a tail, which moves to the middle as they balance
    mean = probability @ DIRECTIONS
    length = 0.36 * (1 + np.linalg.norm(mean, axis=1)) / np.maximum(probability.max(axis=1), 1e-9)
    of, action = np.nonzero(probability > 0.02)
    tail = cells[of] - 0.36 * mean[of]
    arrow = (length[of] * probability[of, action])[:, None] * DIRECTIONS[action]
    ax.quiver(
        *tail.T[::-1],
        *arrow.T[::-1],
        angles="xy",
        scale_units="xy",
        scale=1,
        units="xy",
        width=0.07,
        headwidth=4.5,
        headlength=4.5,
        headaxislength=4,
        minshaft=1.5,
        color="0.15",
        zorder=3,
    )


def light_blues() -> Any:
    """A colour map from white to mid blue: dark arrows stay readable on every value."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["YlGnBu"](np.linspace(0.0, 0.62, 256)))


def _outlines(cells: np.ndarray) -> Any:
    """The outlines of all cells as one object: a patch for each takes ten times as long."""
    from matplotlib.collections import PolyCollection

    corners = cells[:, None, ::-1] + np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    return PolyCollection(corners, facecolors="none", edgecolors="0.8", linewidths=0.5)


def _square(place: Any, margin: float, **style: Any) -> Any:
    from matplotlib.patches import Rectangle

    row, col = place
    style = {"fill": False, **style}
    return Rectangle((col - 0.5 + margin, row - 0.5 + margin), 1 - 2 * margin, 1 - 2 * margin, **style)


def disc(place: Any, radius: float, **style: Any) -> Any:
    """A circle around `place`, (row, col)."""
    from matplotlib.patches import Circle

    return Circle((place[1], place[0]), radius, **style)


def star(place: Any, radii: tuple[float, float]) -> Any:
    """A star with five points around `place`, (row, col): the mark of a goal.

    Args:
        radii: inner and outer radius.
    """
    from matplotlib.patches import Polygon

    row, col = place
    angle = -np.pi / 2 + np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2, *radii)
    points = np.stack([col + radius * np.cos(angle), row + radius * np.sin(angle)], axis=1)
    return Polygon(points, fc="tab:orange", ec="black", lw=0.6, zorder=3.5)


# The taxi


def draw_taxi(
    ax: Any,
    size: int,
    sites: dict[str, tuple[int, int]],
    colours: tuple[str, ...],
    walls: Any,
    *,
    taxi: tuple[int, int] | None = None,
    passenger: int | None = None,
    destination: int | None = None,
) -> None:
    """Draw the map of Taxi, and with `taxi` one of its states.

    Args:
        size: cells along each side.
        sites: the name and cell of each site, `colours` their colours.
        walls: cells with a wall on their right.
        taxi: its cell.
        passenger: number of the site where he waits (disc); None: he is in the taxi.
        destination: number of the site that he wants to go to (star).
    """
    from matplotlib.patches import Rectangle

    for row, col in np.ndindex(size, size):
        ax.add_patch(Rectangle((col - 0.5, row - 0.5), 1, 1, fc="white", ec="0.85", lw=0.6))
    for (name, (row, col)), colour in zip(sites.items(), colours):
        ax.add_patch(Rectangle((col - 0.5, row - 0.5), 1, 1, fc=colour, alpha=0.22, lw=0))
        ax.add_patch(_letter(name, col - 0.42, row - 0.12, fc=colour, lw=0))
    for row, col in walls:
        ax.plot([col + 0.5] * 2, [row - 0.5, row + 0.5], color="0.15", lw=3, solid_capstyle="projecting")
    ax.add_patch(Rectangle((-0.5, -0.5), size, size, fill=False, ec="0.15", lw=3, clip_on=False))
    if taxi is not None:
        cells = list(sites.values())
        if destination is not None:
            ax.add_patch(star(np.add(cells[destination], (-0.28, 0.3)), (0.07, 0.17)))
        for patch in _cab(*taxi):
            ax.add_patch(patch)
        place = np.add(taxi, (-0.04, 0.11)) if passenger is None else np.add(cells[passenger], (0.3, -0.36))
        ax.add_patch(disc(place, 0.1, fc="tab:purple", ec="white", lw=0.8, zorder=5))
    ax.set(xlim=(-0.55, size - 0.45), ylim=(size - 0.45, -0.55), xticks=[], yticks=[], aspect="equal")
    ax.set_frame_on(False)


def _cab(row: float, col: float) -> list[Any]:
    """Cab, body and two wheels."""
    from matplotlib.patches import FancyBboxPatch

    style: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.06", "ec": "0.15", "lw": 0.8, "zorder": 4}
    return [
        FancyBboxPatch((col - 0.08, row - 0.14), 0.38, 0.22, fc="0.92", **style),
        FancyBboxPatch((col - 0.22, row + 0.02), 0.66, 0.2, fc="gold", **style),
        disc((row + 0.23, col - 0.05), 0.075, fc="0.15", zorder=4),
        disc((row + 0.23, col + 0.27), 0.075, fc="0.15", zorder=4),
    ]


def _letter(letter: str, x: float, y: float, **style: Any) -> Any:
    """A letter as a shape, so that it grows with the picture; `x`, `y` its lower left corner."""
    from matplotlib.patches import PathPatch
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    return PathPatch(TextPath((0, 0), letter, size=0.4).transformed(Affine2D().scale(1, -1).translate(x, y)), **style)
