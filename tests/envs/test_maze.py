"""The maze: its layouts, what is seen and paid, and the shortest path, against slow plain versions."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.maze import DIRECTIONS, Maze, MazeState, layouts, maze_tasks, shortest_path

UP, DOWN, LEFT, RIGHT = range(4)


@pytest.fixture(scope="module")
def env():
    return Maze(5)


@pytest.fixture(scope="module")
def some(env):
    """64 tasks."""
    return jax.vmap(maze_tasks(env).sample)(jax.random.split(jax.random.key(0), 64))


def row(tree, i):
    return jax.tree.map(lambda x: np.asarray(x)[i], tree)


def steps_from(walls, start):
    """{(row, col): steps} by breadth-first search."""
    found, queue = {tuple(start): 0}, deque([tuple(start)])
    while queue:
        here = queue.popleft()
        for move in DIRECTIONS:
            ahead = (here[0] + move[0], here[1] + move[1])
            if not walls[ahead] and ahead not in found:
                found[ahead] = found[here] + 1
                queue.append(ahead)
    return found


@pytest.mark.parametrize("name", ["maze-small", "maze-large"])
def test_conforms(name):
    check_env(*jaxrl_envs.make(name), episodes=2)


@pytest.mark.parametrize("cells", [2, 3, 5])
def test_layouts_are_spanning_trees(cells):
    """Every cell is reached, and there are n² − 1 openings: exactly one path between any two squares."""
    for walls in layouts(cells, 50, seed=3):
        assert all(border.all() for border in (walls[0], walls[-1], walls[:, 0], walls[:, -1]))
        assert not walls[1::2, 1::2].any()
        assert walls[::2, ::2].all()
        free = int((~walls).sum())
        assert free == 2 * cells**2 - 1
        assert len(steps_from(walls, (1, 1))) == free


def test_layouts_differ_and_repeat():
    drawn = layouts(5, 2000, seed=0)
    assert len(np.unique(drawn.reshape(2000, -1), axis=0)) > 1990
    np.testing.assert_array_equal(drawn[:10], layouts.__wrapped__(5, 2000, seed=0)[:10])
    other = {walls.tobytes() for walls in layouts(5, 2000, seed=1)}
    assert sum(walls.tobytes() in other for walls in drawn) < 10
    # no side is favoured: each opening is there as often as its mirror image
    openings = (~drawn).mean(axis=0)
    for image in (openings[::-1], openings[:, ::-1], openings.T):
        np.testing.assert_allclose(openings, image, atol=5 * 0.5 / 2000**0.5)


def test_tasks(env):
    tasks = jax.vmap(maze_tasks(env).sample)(jax.random.split(jax.random.key(1), 5000))
    assert maze_tasks(env).resample == "episode"
    start, goal = np.asarray(tasks.start), np.asarray(tasks.goal)
    assert np.all(np.stack([start, goal]) % 2 == 1)
    assert np.all(np.any(start != goal, axis=1))
    cell = lambda at: (at[:, 0] // 2) * 5 + at[:, 1] // 2
    for at in (start, goal):  # uniform
        np.testing.assert_allclose(np.bincount(cell(at), minlength=25) / 5000, 1 / 25, atol=4 * 0.2 / 5000**0.5)
    apart = (cell(goal) - cell(start)) % 25
    np.testing.assert_allclose(np.bincount(apart, minlength=25)[1:] / 5000, 1 / 24, atol=4 * 0.2 / 5000**0.5)
    assert len(np.unique(np.asarray(tasks.walls).reshape(5000, -1), axis=0)) > 4000


def test_shortest_path_against_breadth_first_search(env, some):
    found = jax.jit(jax.vmap(shortest_path))(some)
    for i in range(64):
        task = row(some, i)
        assert found[i] == steps_from(task.walls, task.start)[tuple(task.goal)]
    neighbour = env.default_params.replace(goal=env.default_params.start)
    assert shortest_path(neighbour) == 0


def view_by_hand(walls, goal, position, view):
    seen = np.zeros((view, view, 2))
    for i in range(view):
        for j in range(view):
            at = (position[0] + i - view // 2, position[1] + j - view // 2)
            inside = 0 <= at[0] < len(walls) and 0 <= at[1] < len(walls)
            seen[i, j] = (walls[at] if inside else 1, at == tuple(goal))
    return seen


@pytest.mark.parametrize("view", [1, 5, 7])
def test_view(some, view):
    env = Maze(5, view)
    observe = jax.jit(env.get_obs)
    for i in range(8):
        task = row(some, i)
        for position in [task.goal, task.start, *np.argwhere(~task.walls)[:: 9 + i]]:
            state = MazeState(position=np.asarray(position, np.int32), time=np.int32(0))
            np.testing.assert_array_equal(
                observe(state, task), view_by_hand(task.walls, task.goal, tuple(position), view)
            )


def test_walks_against_a_slow_loop(env, some):
    """Random walks: moves, rewards and ends, step by step."""
    step, rng = jax.jit(env.step_env), np.random.default_rng(0)
    found = 0
    for i in range(12):
        task = row(some, i)
        _, state = env.reset_env(jax.random.key(0), task)
        position = tuple(task.start)
        for t in range(1, 101):
            action = int(rng.integers(4))
            ahead = (position[0] + DIRECTIONS[action][0], position[1] + DIRECTIONS[action][1])
            bump = task.walls[ahead]
            position = position if bump else ahead
            _, state, reward, terminated, _ = step(jax.random.key(0), state, action, task)
            assert tuple(np.asarray(state.position)) == position
            at_goal = position == tuple(task.goal)
            assert float(reward) == pytest.approx(-0.04 - 0.001 * bump + at_goal, abs=1e-6)
            assert bool(terminated) == at_goal
            assert bool(env.is_truncated(state, task)) == (t == 100)
            if at_goal:
                found += 1
                break
    assert 0 < found < 12


def test_the_shortest_path_walked(env):
    """From one corner to the other by the moves that breadth-first search gives: its length, and the return it pays."""
    task = env.default_params
    left = steps_from(task.walls, task.goal)
    _, state = env.reset_env(jax.random.key(0), task)
    total, terminated = 0.0, False
    for _ in range(int(shortest_path(task))):
        assert not terminated
        here = tuple(np.asarray(state.position))
        action = min(range(4), key=lambda a: left.get((here[0] + DIRECTIONS[a][0], here[1] + DIRECTIONS[a][1]), 99))
        _, state, reward, terminated, _ = env.step_env(jax.random.key(0), state, action, task)
        total += float(reward)
    assert terminated
    assert total == pytest.approx(1 - 0.04 * left[tuple(task.start)], abs=1e-5)


def test_render_shows_agent_and_target_where_they_are(env):
    task = env.default_params
    picture = env.render(MazeState(position=jnp.array([1, 1]), time=jnp.int32(0)), task, size=330)
    assert picture.shape == (330, 330, 3)
    square = lambda r, c: picture[30 * r : 30 * (r + 1), 30 * c : 30 * (c + 1)].reshape(-1, 3).astype(int)
    assert np.any(square(1, 1)[:, 2] - square(1, 1)[:, 0] > 100)  # blue
    assert np.any(square(9, 9)[:, 0] - square(9, 9)[:, 2] > 150)  # orange
    assert square(6, 0).std() == 0  # a wall
    assert square(6, 0)[0, 0] < 100


def test_bad_settings():
    with pytest.raises(ValueError, match="at least 2 cells along a side, not 1"):
        Maze(1)
    with pytest.raises(ValueError, match=r"view must be odd, .* got 4"):
        Maze(3, view=4)
