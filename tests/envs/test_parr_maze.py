"""Parr and Russell's maze: the contract, its size, its intersections and hallways, and how moves go astray."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs import check_env
from jaxrl_envs.parr_maze import (
    CELLS,
    FREE,
    GOAL,
    MOVES,
    NUM_CELLS,
    ROOM_OF,
    ParrMaze,
    ParrMazeState,
    openings,
    regions,
)

ENV = ParrMaze()


def test_contract():
    check_env(ENV, episodes=1, max_steps=100)


def test_size_and_ends():
    assert FREE.shape == (84, 84)
    assert NUM_CELLS == 3710
    assert GOAL.sum() == 143
    assert tuple(CELLS[0]) == (0, 0)
    assert (CELLS[GOAL] >= 72).all()
    reached = np.zeros(NUM_CELLS, bool)
    reached[0] = True
    while (more := reached | np.isin(np.arange(NUM_CELLS), MOVES[reached])).sum() > reached.sum():
        reached = more
    assert reached.all()


def test_intersections_and_hallways():
    """Ten rooms are corners, crossings or the goal; the others make twelve hallways, of which no two meet."""
    region, crossing = regions()
    assert len(np.unique(region[crossing])) == 10
    assert len(np.unique(region[~crossing])) == 12
    assert openings().sum() == 2 * (30 + 2)  # 31 rooms in a plan with two loops
    for number in np.unique(region[~crossing]):
        rooms = np.unique(ROOM_OF[region == number], axis=0)
        assert (np.ptp(rooms, axis=0) == 0).any()
    steps = region[MOVES] != region[:, None]
    assert (crossing[:, None] != crossing[MOVES])[steps].all()


def test_moves_go_astray_to_the_sides():
    cell = 500
    state = ParrMazeState(cell=jnp.int32(cell), time=jnp.int32(0))
    after_move = lambda key, action: ENV.step_env(key, state, action, ENV.default_params)[1].cell
    move = jax.jit(jax.vmap(after_move, (0, None)))
    keys = jax.random.split(jax.random.key(0), 20_000)
    for action, sides in enumerate([(2, 3), (2, 3), (0, 1), (0, 1)]):
        after = np.asarray(move(keys, action))
        expected = np.zeros(NUM_CELLS)
        np.add.at(expected, MOVES[cell, [action, *sides]], [0.8, 0.1, 0.1])
        np.testing.assert_allclose(np.bincount(after, minlength=NUM_CELLS) / len(keys), expected, atol=0.015)
