"""The point in HIRO's four tasks: geometry, walls that stop it, block and chasm, success, sensors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.goals import check_goal_env
from jaxrl_envs.point_tasks import BLOCK_HALF, HALF, SIGHT, WORLDS, PointGather, PointMaze, boxes, swept
from tests.close import assert_close

FREE = {  # the squares that are no wall, by their centres
    "maze": {(0, 0), (8, 0), (16, 0), (16, 8), (16, 16), (8, 16), (0, 16)},  # as published
    "push": {(0, 0), (-8, 0), (-8, 8), (0, 8), (8, 8), (0, 16)},
    "fall": {(0, 0), (8, 0), (0, 8), (8, 8), (0, 16), (8, 16), (0, 24), (8, 24)},
}


@pytest.mark.parametrize("name", ["point-maze", "point-maze-push", "point-maze-fall", "point-gather"])
def test_conforms(name):
    env, tasks = jaxrl_envs.make(name)
    short = tasks._replace(sample=lambda key: tasks.sample(key).replace(max_steps_in_episode=40))
    check_env(env, short, episodes=2)
    assert int(tasks.sample(jax.random.key(0)).max_steps_in_episode) == 500


def test_targets():
    """Training's are uniform, walls included; those of the tests are fixed."""
    env, tasks = jaxrl_envs.make("point-maze")
    check_goal_env(env, tasks, episodes=2, max_steps=40)
    goals = np.asarray(jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), 4000)).goal)
    assert goals.min() == pytest.approx(-4, abs=0.05)
    assert goals.max() == pytest.approx(20, abs=0.05)
    np.testing.assert_allclose(goals.mean(axis=0), 8.0, atol=0.4)
    for name, target in {"test": (0, 16), "push": (0, 19), "fall": (0, 27, 4.5)}.items():
        _, tasks = jaxrl_envs.make(f"point-maze-{name}")
        np.testing.assert_array_equal(tasks.sample(jax.random.key(1)).goal, target)


def free(kind, place, half):
    """Whether a square lies in squares that are no wall, but for 0.001."""
    corners = np.asarray(place)[..., None, :] + (half - 1e-3) * np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    cells = np.round(corners / 8).astype(int) * 8
    return np.isin(cells[..., 0] + 1000 * cells[..., 1], [x + 1000 * y for x, y in FREE[kind]]).all(axis=-1)


@pytest.mark.parametrize("kind", WORLDS)
def test_geometry(kind):
    walls = boxes(WORLDS[kind].rows, "#")
    lines = np.arange(-14, 34, 1.0) + 0.25
    places = np.stack(np.meshgrid(lines, lines), axis=-1).reshape(-1, 2)
    places = places[((places > walls.min((0, 1))) & (places < walls.max((0, 1)))).all(axis=1)]
    inside = ((places[:, None] > walls[:, 0]) & (places[:, None] < walls[:, 1])).all(axis=2).any(axis=1)
    np.testing.assert_array_equal(~inside, free(kind, places, 1e-3))


@pytest.mark.parametrize("kind", WORLDS)
def test_random_walks_stay_out_of_walls_and_blocks(kind):
    env = PointMaze(kind)

    def walk(key):
        key, key_reset = jax.random.split(key)
        wanted = jnp.repeat(jax.random.uniform(key, (25, 2), minval=-3, maxval=3), 20, axis=0)  # clipped: often ±1

        def step(state, action):
            _, state, *_ = env.step_env(key, state, action, env.default_params)
            return state, state

        return jax.lax.scan(step, env.reset_env(key_reset, env.default_params)[1], wanted)[1]

    seen = jax.jit(jax.vmap(walk))(jax.random.split(jax.random.key(0), 200))
    position, block = np.asarray(seen.position), np.asarray(seen.block)
    assert free(kind, position, HALF).all()
    if kind == "maze":
        assert position[..., 1].max() > 12  # some go all the way
        return
    assert free(kind, block, BLOCK_HALF).all()
    assert (np.abs(block - block[:, :1]).max(axis=(1, 2)) > 1).mean() > 0.05
    sunk = block[..., 1] == 16 if kind == "fall" else np.zeros(block.shape[:2], bool)
    overlap = (np.abs(position - block) < BLOCK_HALF + HALF - 2e-3).all(axis=-1)
    assert not overlap[sunk == seen.fallen].any()
    if kind == "fall":
        assert seen.fallen.any()
        low = position[np.asarray(seen.fallen)][:, 1]
        assert ((low >= 12 + HALF - 1e-4) & (low <= 20 - HALF + 1e-4)).all()
        assert (np.diff(np.asarray(seen.fallen).astype(int), axis=1) >= 0).all()  # nobody comes up again


def test_sweeps_never_tunnel():
    """Against small steps until something is in the way; moves are many times a wall's thickness."""
    rng = np.random.default_rng(0)
    walls = boxes(WORLDS["maze"].rows, "#")
    starts = rng.uniform(-3.4, 19.4, (300, 2)).astype(np.float32)
    starts = starts[free("maze", starts, HALF)]
    moves = rng.uniform(-40, 40, len(starts)).astype(np.float32)
    for axis in (0, 1):
        found = jax.vmap(partial(swept, axis=axis, half=HALF, obstacles=walls))(starts, moves)
        for start, move, reached in zip(starts, moves, found):
            ways = np.tile(start, (4001, 1))
            ways[:, axis] += move * np.linspace(0, 1, 4001)
            stopped = ~free("maze", ways, HALF)
            last = np.argmax(stopped) - 1 if stopped.any() else 4000
            assert reached == pytest.approx(ways[last, axis], abs=0.012)


def walked(env, waypoints, steps=130):
    """The last state, reward and success of one who goes straight from each waypoint to the next."""
    params, step = env.default_params, jax.jit(env.step_env)
    _, state = env.reset_env(jax.random.key(0), params)
    for waypoint in waypoints:
        for _ in range(steps):
            ahead = np.asarray(waypoint) - np.asarray(state.position)
            if np.abs(ahead).max() < 0.25:
                break
            action = jnp.clip(4 * ahead - 8 * state.velocity, -1, 1)
            _, state, reward, _, info = step(jax.random.key(0), state, action, params)
    return state, float(reward), bool(info["success"])


def test_the_maze_by_its_corridor_and_straight():
    env = PointMaze("maze")
    state, reward, success = walked(env, [(16, 0), (16, 16), (0, 16)])
    assert success
    assert reward == pytest.approx(-np.linalg.norm(np.asarray(state.position) - (0, 16)), abs=1e-5)
    assert 150 < int(state.time) < 250
    state, reward, success = walked(env, [(0, 16)])
    assert not success
    np.testing.assert_allclose(state.position, [0, 3.5], atol=0.1)
    state, _, success = walked(env, [(16, 0), (16, 16), (4.9, 16)])  # nearer than 5 is near enough
    assert success == bool(np.linalg.norm(np.asarray(state.position) - (0, 16)) < 5)


def test_push_straight_ahead_and_by_the_detour():
    env = PointMaze("push")
    state, reward, success = walked(env, [(0, 20)])
    np.testing.assert_allclose(state.block, [0, 16 + 4 - BLOCK_HALF], atol=1e-3)
    np.testing.assert_allclose(state.position[1], state.block[1] - BLOCK_HALF - HALF, atol=1e-3)
    assert not success
    assert reward < -7
    state, _, success = walked(env, [(-8, 0), (-8, 8), (3.4, 8), (0, 8), (0, 19)])
    assert success
    assert float(state.block[0]) > 7.5
    assert float(state.block[1]) == 8.0


def test_fall_with_and_without_the_bridge():
    env = PointMaze("fall")
    state, reward, success = walked(env, [(8, 0), (8, 24), (0, 24), (0, 27)])
    assert success
    np.testing.assert_array_equal(state.block, [8, 16])
    assert not state.fallen
    state, reward, success = walked(env, [(0, 20)])
    assert state.fallen
    assert not success
    assert float(env.get_obs(state)["achieved_goal"][2]) == 0.5
    assert reward == pytest.approx(-np.sqrt((27 - 19.5) ** 2 + 4**2), abs=1e-3)  # at the chasm's far wall
    state, _, _ = walked(env, [(0, 8), (8, 8)])
    np.testing.assert_array_equal(state.block, [8, 8])  # it does not move along x


def test_what_is_stopped_loses_its_velocity_across():
    """Glancing off the wall at x = −4: along it goes on as it would without one."""
    env = PointMaze("maze")
    start = env.reset_env(jax.random.key(0), env.default_params)[1]
    state = start.replace(position=jnp.array([-3.4, 0.0]), velocity=jnp.array([-0.2, 0.1]))
    _, after, *_ = env.step_env(jax.random.key(0), state, jnp.array([-1.0, 1.0]), env.default_params)
    np.testing.assert_allclose(after.position, [-3.5, 0.1 + (0.25 - 0.1) / 4], atol=1e-5)
    np.testing.assert_allclose(after.velocity, [0.0, 0.1 + (0.25 - 0.1) / 4], atol=1e-6)


def test_gather_by_hand():
    env = PointGather()
    far = jnp.full((8, 2), 6.0)
    objects = jnp.stack([far.at[0].set(jnp.array([2.0, 0.5])), far.at[0].set(jnp.array([-3.0, -0.1]))])
    left = jnp.zeros((2, 8), bool).at[:, 0].set(True)
    start = env.reset_env(jax.random.key(0), env.default_params)[1]
    state = start.replace(position=jnp.zeros(2), objects=objects, left=left)
    seen = np.asarray(env.get_obs(state))[4:].reshape(2, 10)
    expected = np.zeros((2, 10))
    expected[0, 0] = 1 - np.hypot(2, 0.5) / SIGHT  # just above the direction of x
    expected[1, 5] = 1 - np.hypot(3, 0.1) / SIGHT  # just below the opposite one
    assert_close(seen, expected)
    step, rewards = jax.jit(env.step_env), {}
    for direction in (1.0, -1.0):
        now = state
        for _ in range(20):
            _, now, reward, *_ = step(jax.random.key(0), now, jnp.array([direction, 0.0]), env.default_params)
            rewards[direction] = rewards.get(direction, 0.0) + float(reward)
        assert int(now.left.sum()) == 1
    assert rewards == {1.0: 1.0, -1.0: -1.0}  # each is taken once


def test_gather_draws_different_places():
    env = PointGather()
    _, state = jax.vmap(lambda key: env.reset_env(key, env.default_params))(jax.random.split(jax.random.key(0), 50))
    objects = np.asarray(state.objects).reshape(50, 16, 2)
    assert all(len(np.unique(places, axis=0)) == 16 for places in objects)
    assert (np.abs(objects).max(axis=2) >= 2).all()
    assert (objects % 2 == 0).all()


def test_pictures_and_bad_input():
    for env, tasks in (jaxrl_envs.make(name) for name in ("point-maze-fall", "point-gather")):
        params = tasks.sample(jax.random.key(0))
        picture = env.render(env.reset_env(jax.random.key(0), params)[1], params, 64)
        assert picture.shape == (64, 64, 3)
        assert picture.std() > 10
    with pytest.raises(ValueError, match="kind is one of maze, push, fall, not 'block'"):
        PointMaze("block")
