"""Writes frames as a small GIF."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_hier.reports.plotting import evenly

MOST = 60  # frames
WIDEST = 320  # pixels
LARGEST = 300_000  # bytes
MANY = 2000  # colours


def save_gif(path: Path, frames: Sequence[np.ndarray], milliseconds: int = 120) -> None:
    """Write frames, uint8 [H, W, 3] each; the last is shown ten times as long.

    While the file is larger than 300 kB, as with many colours, every second frame is dropped and the others are shown
    longer.
    """
    frames = [_small(frame) for frame in frames]
    if len(np.unique(np.concatenate([frame.reshape(-1, 3)[::7] for frame in frames]), axis=0)) > MANY:
        frames = [frame & 0xF8 for frame in frames]  # photographs, and not plain colours
    while True:
        save_images(path, frames, [milliseconds] * (len(frames) - 1) + [10 * milliseconds])
        if path.stat().st_size <= LARGEST or len(frames) < 4:
            return
        frames, milliseconds = [frames[i] for i in evenly(len(frames), len(frames) // 2)], 2 * milliseconds


def save_images(path: Path, frames: Sequence[np.ndarray], milliseconds: Sequence[int]) -> None:
    """Write frames, uint8 [H, W, 3] each, as they are, each shown for so many milliseconds."""
    images = with_one_palette(frames)
    images[0].save(path, save_all=True, append_images=images[1:], duration=list(milliseconds), loop=0, optimize=True)


def _small(frame: np.ndarray) -> np.ndarray:
    """Scale a wide picture down by dropping pixels, and a tiny one up by repeating them."""
    height, width = frame.shape[:2]
    every = -(-max(height, width) // WIDEST)
    times = max(1, WIDEST // 2 // max(height, width))
    return np.repeat(np.repeat(frame[::every, ::every], times, axis=0), times, axis=1)


def with_one_palette(frames: Sequence[np.ndarray]) -> list[Any]:
    """The frames as images with indexed colours.

    They share one palette, so that unchanged pixels cost nothing. It holds their 256 most frequent colours exactly; the
    others, shades of edges, become the nearest of those. (Pillow's own quantisers tint plain white.)
    """
    from PIL import Image

    codes = [frame.reshape(-1, 3) @ np.array([1 << 16, 1 << 8, 1]) for frame in frames]
    found = [np.unique(code, return_counts=True) for code in codes]
    colors, where = np.unique(np.concatenate([color for color, _ in found]), return_inverse=True)
    pixels = np.bincount(where, weights=np.concatenate([count for _, count in found]))
    rgb = np.stack([colors >> 16, colors >> 8 & 255, colors & 255], axis=1)  # [colors, 3]
    palette = rgb[np.argsort(-pixels, kind="stable")[:256]]
    nearest = np.array([np.argmin(np.sum(np.square(palette - color), axis=1)) for color in rgb], np.uint8)
    images = []
    for frame, code in zip(frames, codes):
        image = Image.fromarray(nearest[np.searchsorted(colors, code)].reshape(frame.shape[:2]), mode="P")
        image.putpalette(palette.astype(np.uint8).tobytes())
        images.append(image)
    return images
