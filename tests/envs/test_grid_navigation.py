"""Grid navigation to a hidden goal: the contract, moves and rewards, goals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.grid_navigation import (
    GOALS,
    NUM_CELLS,
    GridNavigation,
    GridNavigationParams,
    GridNavigationState,
    grid_navigation_tasks,
)


def test_conforms():
    check_env(*jaxrl_envs.make("grid-navigation"), episodes=2)


def test_moves_and_rewards():
    """Rows and columns are clipped, and only the goal pays; nothing ends an episode."""
    env, goal = GridNavigation(), 7
    step = lambda cell, action: env.step_env(
        jax.random.key(0), GridNavigationState(cell=cell, time=0), action, GridNavigationParams(goal=jnp.int32(goal))
    )
    cells, actions = (x.ravel() for x in np.indices((NUM_CELLS, 5), dtype=np.int32))
    obs, after, reward, terminated, _ = jax.jit(jax.vmap(step))(cells, actions)
    row, column = np.divmod(cells, 5)
    expected = np.clip(row + np.array([-1, 1, 0, 0, 0])[actions], 0, 4) * 5
    expected += np.clip(column + np.array([0, 0, -1, 1, 0])[actions], 0, 4)
    np.testing.assert_array_equal(obs, expected)
    np.testing.assert_array_equal(after.cell, expected)
    np.testing.assert_array_equal(reward, np.where(expected == goal, 1, -0.1).astype(np.float32))
    assert not terminated.any()


def test_goals_do_not_touch_the_corner_where_episodes_begin():
    env, tasks = jaxrl_envs.make("grid-navigation")
    assert env.reset_env(jax.random.key(0), env.default_params)[0] == 20
    assert set(range(NUM_CELLS)) - set(GOALS.tolist()) == {15, 16, 20, 21}
    drawn = jax.vmap(tasks.sample)(jax.random.split(jax.random.key(1), 4200)).goal
    count = np.bincount(drawn, minlength=NUM_CELLS)[GOALS]  # 200 each, with a standard deviation of 14
    assert count.sum() == 4200
    assert 140 < count.min() <= count.max() < 260
    np.testing.assert_array_equal(tasks.test.goal[:21], GOALS)
    with pytest.raises(ValueError, match="repeat must be at least 1, got 0"):
        grid_navigation_tasks(0)
