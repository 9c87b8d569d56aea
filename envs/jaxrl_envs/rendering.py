"""Pictures of environments, on the host.

An environment can have a method `render(state, params)` -> uint8 [H, W, 3], a picture of one state of one task, in
NumPy. One without it whose observations are grids of channels [H, W, C], as MinAtar's, is drawn with a colour for each
channel.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrl_envs.contract import EnvCheckError, describes, name_of
from jaxrl_envs.trial import Trial


def picture(paint: Callable[..., None], size: int = 256) -> np.ndarray:
    """Run `paint(ax)` on a frameless square axis and return the pixels, uint8 [size, size, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size / 100, size / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    paint(figure.add_axes((0.0, 0.0, 1.0, 1.0)))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def renders(env: Any) -> bool:
    """Whether `frame_of` can show an environment."""
    if isinstance(env, Trial):
        return renders(env.env)
    return _has_render(env) or _is_grid(env)


def frame_of(env: Any, state: Any, params: Any, obs: Any = None) -> np.ndarray:
    """One state as a picture, uint8 [H, W, 3].

    Args:
        obs: its observation, for environments without `render`.

    Raises:
        EnvCheckError: `render` fails, or gives something else.
    """
    if isinstance(env, Trial):
        return frame_of(env.env, state.inner, params.task, obs)
    if not _has_render(env):
        return _of_channels(np.asarray(obs))
    try:
        found = np.asarray(env.render(state, params))
    except Exception as error:
        text = (str(error).strip() or "no message").splitlines()[0]
        raise EnvCheckError(f"{name_of(env)}: render raises {type(error).__name__}: {text}") from error
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3:
        raise EnvCheckError(
            f"{name_of(env)}: render must give a picture, uint8 [height, width, 3], got {found.dtype}"
            f"{list(found.shape)}"
        )
    return found


def _has_render(env: Any) -> bool:
    """Its own, or inherited from a class that is not gymnax's, whose `render` draws a figure for the screen; or that of
    an environment whose states a wrapper passes on."""
    own = next((c for c in type(env).__mro__ if "render" in vars(c)), None)
    if own is not None:
        return not own.__module__.startswith("gymnax.")
    return describes(env, "render")


def _is_grid(env: Any) -> bool:
    shape: tuple[int, ...] = getattr(env.observation_space(env.default_params), "shape", ())
    return len(shape) == 3 and shape[2] <= len(COLORS)


# of the channels, the last on top; black where all are zero
COLORS = np.array(
    [
        (78, 121, 167),
        (242, 142, 43),
        (225, 87, 89),
        (118, 183, 178),
        (89, 161, 79),
        (237, 201, 72),
        (176, 122, 161),
        (255, 157, 167),
        (156, 117, 95),
        (186, 176, 172),
    ],
    np.uint8,
)


def _of_channels(grid: np.ndarray) -> np.ndarray:
    """A grid [H, W, C] of channels that are zero or not, as uint8 [H, W, 3]."""
    pixels = np.zeros((*grid.shape[:2], 3), np.uint8)
    for channel in range(grid.shape[2]):
        pixels[grid[..., channel] != 0] = COLORS[channel]
    return pixels
