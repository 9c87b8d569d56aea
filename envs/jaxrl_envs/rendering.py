"""Pictures of environments, on the host."""

from collections.abc import Callable

import numpy as np


def picture(paint: Callable[..., None], size: int = 256) -> np.ndarray:
    """Run `paint(ax)` on a frameless square axis and return the pixels, uint8 [size, size, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size / 100, size / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    paint(figure.add_axes((0.0, 0.0, 1.0, 1.0)))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
