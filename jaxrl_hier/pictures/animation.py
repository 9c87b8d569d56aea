"""Frames as a GIF: few of them, and small."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxrl_hier.hierarchical.animation import with_one_palette
from jaxrl_hier.reports.plotting import evenly

MOST = 60  # frames
WIDEST = 320  # pixels
LARGEST = 300_000  # bytes
MANY = 2000  # colours


def save_gif(path: Path, frames: Sequence[np.ndarray], milliseconds: int = 120) -> None:
    """Write frames, uint8 [H, W, 3] each; the last stays ten times as long.

    Where the file would be larger than 300 kB, as pictures with many colours are, every second frame is left out, and
    again, and the others stay longer.
    """
    frames = [_small(frame) for frame in frames]
    if len(np.unique(np.concatenate([frame.reshape(-1, 3)[::7] for frame in frames]), axis=0)) > MANY:
        frames = [frame & 0xF8 for frame in frames]  # photographs, and not plain colours
    while True:
        images = with_one_palette(frames)
        durations = [milliseconds] * (len(images) - 1) + [10 * milliseconds]
        images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True)
        if path.stat().st_size <= LARGEST or len(frames) < 4:
            return
        frames, milliseconds = [frames[i] for i in evenly(len(frames), len(frames) // 2)], 2 * milliseconds


def _small(frame: np.ndarray) -> np.ndarray:
    """Every n-th pixel of a wide picture, and each several times of a tiny one."""
    height, width = frame.shape[:2]
    every = -(-max(height, width) // WIDEST)
    times = max(1, WIDEST // 2 // max(height, width))
    return np.repeat(np.repeat(frame[::every, ::every], times, axis=0), times, axis=1)
