"""The grid with start and goal anywhere: the contract, starts and goals, moves, and the model of one goal."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs import check_env
from jaxrl_envs.goal_grid import NUM_CELLS, SIZE, GoalGrid, GoalGridParams, GoalGridState, encode

ENV = GoalGrid()


def test_contract():
    check_env(ENV, episodes=2, max_steps=200)


def test_starts_and_goals_are_any_two_different_cells():
    keys = jax.random.split(jax.random.key(0), 40_000)
    obs, state = jax.jit(jax.vmap(lambda key: ENV.reset_env(key, ENV.default_params)))(keys)
    cell, goal = np.asarray(state.cell), np.asarray(state.goal)
    np.testing.assert_array_equal(obs, encode(cell, goal))
    assert (cell != goal).all()
    for drawn in (cell, goal):  # 400 of each on average, with a standard deviation of 20
        count = np.bincount(drawn, minlength=NUM_CELLS)
        assert 300 < count.min() <= count.max() < 500
    _, state = ENV.reset_env(keys[0], GoalGridParams(goal=jnp.int32(7)))
    assert state.goal == 7


def test_moves_and_the_model_of_one_goal():
    goal = 34
    P, R = ENV.goal_model(goal)
    move = jax.jit(
        jax.vmap(lambda cell, action: ENV.step_env(jax.random.key(0), state(cell), action, ENV.default_params))
    )

    def state(cell):
        return GoalGridState(cell=cell, goal=jnp.int32(goal), time=jnp.int32(0))

    cells, actions = (x.ravel() for x in np.indices((NUM_CELLS, 4), dtype=np.int32))
    _, after, reward, terminated, _ = move(cells, actions)
    row, column = np.divmod(cells, SIZE)
    expected = np.clip(row + np.array([-1, 1, 0, 0])[actions], 0, 9) * SIZE
    expected += np.clip(column + np.array([0, 0, -1, 1])[actions], 0, 9)
    np.testing.assert_array_equal(after.cell, expected)
    np.testing.assert_array_equal(terminated, expected == goal)
    np.testing.assert_array_equal(reward, -1)
    live = cells != goal
    np.testing.assert_array_equal(P[cells, actions, expected][live], 1)
    np.testing.assert_array_equal(R, np.where(np.arange(NUM_CELLS) == goal, 0, -1)[:, None] * np.ones(4))
    np.testing.assert_array_equal(P[goal, :, goal], 1)
