"""Grid worlds as tables."""

import numpy as np

DIRECTIONS = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)], np.int32)  # [4, 2] row and column of up, down, left, right


def grid_moves(free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the free cells of a map [H, W] bool, [S, 2] int32, in reading order; and the cell that each
    move leads to, [S, 4] int32, the same one if the move is blocked."""
    cells = np.argwhere(free).astype(np.int32)
    number = np.full(np.array(free.shape) + 2, -1, np.int32)
    number[tuple(cells.T + 1)] = np.arange(len(cells))
    ahead = number[tuple((cells[:, None] + 1 + DIRECTIONS).transpose(2, 0, 1))]
    return cells, np.where(ahead < 0, np.arange(len(cells))[:, None], ahead).astype(np.int32)
