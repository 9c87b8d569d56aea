"""T-maze, non-match and water maze: who remembers is paid; moves and phases step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import NonMatch, TMaze, WaterMaze, check_env
from jaxrl_envs.memory_tasks import CHOICE, HIDDEN, SHOWN
from jaxrl_envs.water_maze import DIRECTIONS, PLATFORM, STEP_SIZE, anywhere, water_maze_tasks
from tests.close import assert_close

UP, DOWN, LEFT, RIGHT = range(4)
keys = lambda n, seed=0: jax.random.split(jax.random.key(seed), n)


@pytest.mark.parametrize(
    "name", ["t-maze", "t-maze-vector", "non-match", "non-match-vector", "water-maze", "water-maze-picture"]
)
def test_conforms(name):
    check_env(*jaxrl_envs.make(name), episodes=1)


# The T-maze


def test_t_maze_pays_who_remembers():
    env = TMaze(5)
    params, step = env.default_params, jax.jit(env.step_env)
    prizes = set()
    for key in keys(8):
        obs, state = env.reset_env(key, params)
        sign_above, sign_below = float(obs[0, 1, 1]), float(obs[2, 1, 1])
        assert sign_above + sign_below == 1
        seen = []
        for _ in range(6):
            obs, state, reward, terminated, _ = step(key, state, RIGHT, params)
            assert not terminated
            assert float(reward) == 0
            assert float(obs[..., 1].sum()) == 0  # the sign is seen once
            seen.append(np.asarray(obs[..., 0]))
        assert all((s[0] == 1).all() for s in seen[:4])  # walls of the corridor
        assert not seen[5][[0, 2], 1].any()  # the junction is open
        right, wrong = (UP, DOWN) if sign_above else (DOWN, UP)
        for action, pay in ((right, 1.0), (wrong, 0.0)):
            _, _, reward, terminated, _ = step(key, state, action, params)
            assert float(reward) == pay
            assert bool(terminated)
        prizes.add(int(state.prize))
    assert prizes == {0, 1}


def test_t_maze_vector_says_the_same():
    picture, vector = TMaze(4), TMaze(4, "vector")
    for prize in (0, 1):
        for cell in range(len(picture.cells)):
            _, state = picture.reset_env(jax.random.key(0), picture.default_params)
            state = state.replace(cell=cell, prize=prize)
            p, v = np.asarray(picture.get_obs(state)), np.asarray(vector.get_obs(state))
            np.testing.assert_array_equal(v[:4], [p[0, 1, 0], p[2, 1, 0], p[1, 0, 0], p[1, 2, 0]])
            np.testing.assert_array_equal(v[4:], [p[0, 1, 1], p[2, 1, 1]])


def test_a_guided_t_maze_pays_for_each_square_gained():
    env = TMaze(4, "vector", guided=True)
    params, step = env.default_params, jax.jit(env.step_env)
    _, state = env.reset_env(jax.random.key(0), params)
    rewards = []
    for action in (RIGHT, UP, RIGHT, LEFT, RIGHT, RIGHT, RIGHT, RIGHT, UP if int(state.prize) == 0 else DOWN):
        _, state, reward, terminated, _ = step(jax.random.key(0), state, action, params)
        rewards.append(float(reward))
    np.testing.assert_allclose(rewards, [0.2, 0, 0.2, -0.2, 0.2, 0.2, 0.2, 0.2, 1], atol=1e-6)
    assert bool(terminated)


# Non-match


@pytest.mark.parametrize("delay", [1, 4])
def test_non_match_trial_by_trial(delay):
    env = NonMatch()
    params, step = env.default_params.replace(delay=delay), jax.jit(env.step_env)
    obs, state = env.reset_env(jax.random.key(3), params)
    for trial in range(6):
        assert int(state.phase) == SHOWN
        kind = int(state.kind)
        assert float(obs[0, 2, 1 + kind]) == 1
        for _ in range(2):
            obs, state, reward, _, _ = step(jax.random.key(trial), state, UP, params)
        assert int(state.phase) == HIDDEN
        assert float(obs[2, 2, 0]) == 1  # back at the entrance
        for t in range(delay):
            assert int(state.phase) == HIDDEN
            assert float(obs[..., 1:].sum()) == 0
            obs, state, *_ = step(jax.random.key(t), state, DOWN, params)
        assert int(state.phase) == CHOICE
        assert float(obs[..., 1:].sum()) == 2
        left, right = (int(jnp.argmax(obs[0, c, 1:])) for c in (0, 4))
        assert kind in (left, right)
        assert left != right
        towards = (LEFT if left != kind else RIGHT) if trial % 2 else (LEFT if left == kind else RIGHT)
        for action in (UP, UP, towards, towards):
            assert int(state.phase) == CHOICE
            obs, state, reward, terminated, _ = step(jax.random.key(100 + trial), state, action, params)
        assert float(reward) == trial % 2  # every other trial takes the one that was shown
        assert not terminated
        assert int(state.time) == (trial + 1) * (2 + delay + 4)  # the clock goes on until the time limit


def test_non_match_draws_all_kinds_and_sides():
    env = NonMatch(3)
    _, states = jax.vmap(env.reset_env, (0, None))(keys(600), env.default_params)
    found = {(int(k), int(o), int(s)) for k, o, s in zip(states.kind, states.other, states.side)}
    assert found == {(k, o, s) for k in range(3) for o in range(3) for s in range(2) if k != o}


# The water maze


def test_water_maze_against_a_slow_loop():
    env = WaterMaze()
    params = env.default_params
    step, rng = jax.jit(env.step_env), np.random.default_rng(0)
    obs, state = env.reset_env(jax.random.key(0), params)
    platform, found, paid = np.asarray(params.platform), bool(state.found), 0
    position = np.asarray(state.position)
    for t, key in enumerate(keys(300)):
        towards = platform - position
        action = int(np.argmax(DIRECTIONS @ towards)) if t % 3 else int(rng.integers(8))
        obs, state, reward, terminated, _ = step(key, state, action, params)
        if found:
            position, now = np.asarray(anywhere(key)), False  # back into the water, wherever that is
        else:
            position = position + STEP_SIZE * DIRECTIONS[action]
            position /= max(np.linalg.norm(position), 1.0)
            now = np.linalg.norm(position - platform) <= PLATFORM
        assert_close(state.position, position, scale=1)
        assert_close(obs, [*position, now], scale=1)
        assert bool(state.found) == now
        assert float(reward) == now
        assert not terminated
        position, found, paid = np.asarray(state.position), now, paid + now
    assert paid > 10


def test_water_maze_is_uniform_and_platforms_differ():
    points = np.asarray(jax.vmap(anywhere)(keys(4000)))
    radius = np.linalg.norm(points, axis=1)
    assert radius.max() <= 1
    np.testing.assert_allclose(np.mean(radius < np.sqrt(0.5)), 0.5, atol=4 * 0.5 / 4000**0.5)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=4 * 0.5 / 4000**0.5)
    platforms = np.asarray(jax.vmap(water_maze_tasks(WaterMaze()).sample)(keys(200)).platform)
    assert np.linalg.norm(platforms, axis=1).max() <= 1 - PLATFORM
    assert len(np.unique(platforms, axis=0)) == 200
    assert water_maze_tasks(WaterMaze()).resample == "episode"


def test_water_maze_picture_is_where_the_swimmer_is():
    env = WaterMaze("picture")
    _, state = env.reset_env(jax.random.key(0), env.default_params)
    east_north = env.get_obs(state.replace(position=jnp.array([0.5, 0.75]), found=jnp.array(True)))
    assert np.unravel_index(int(jnp.argmax(east_north[..., 0])), (9, 9)) == (1, 6)  # row 0 is north
    np.testing.assert_array_equal(east_north[..., 0], east_north[..., 1])
    assert float(env.get_obs(state.replace(found=jnp.array(False)))[..., 1].sum()) == 0


# Pictures and settings


@pytest.mark.parametrize("env", [TMaze(4), NonMatch(), WaterMaze()], ids=lambda env: env.name)
def test_render_shows_the_agent(env):
    _, state = env.reset_env(jax.random.key(0), env.default_params)
    picture = env.render(state, env.default_params, size=200).astype(int)
    assert picture.shape == (200, 200, 3)
    blue = (picture[..., 2] - picture[..., 0] > 100).sum()
    assert 20 < blue < 4000


def test_bad_settings():
    with pytest.raises(ValueError, match="at least 1 square, not 0"):
        TMaze(0)
    with pytest.raises(ValueError, match="at least 2 kinds of objects, not 1"):
        NonMatch(1)
    for env in (TMaze, NonMatch, WaterMaze):
        with pytest.raises(ValueError, match="observation is "):
            env(observation="sound")
