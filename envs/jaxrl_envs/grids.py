"""Grid worlds as tables."""

import numpy as np

DIRECTIONS = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)], np.int32)  # [4, 2] row and column of up, down, left, right


def grid_moves(free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a map [H, W] bool: row and column of the free cells, [S, 2] int32, in the order of reading; and the cell that
    each move leads to, [S, 4] int32, the same one where something is in the way."""
    cells = np.argwhere(free).astype(np.int32)
    number = np.full(np.array(free.shape) + 2, -1, np.int32)
    number[tuple(cells.T + 1)] = np.arange(len(cells))
    ahead = number[tuple((cells[:, None] + 1 + DIRECTIONS).transpose(2, 0, 1))]
    return cells, np.where(ahead < 0, np.arange(len(cells))[:, None], ahead).astype(np.int32)
