"""HIRO's ant: the worlds by rays from above, blocks that slide and fall, rewards, and episodes as a plain simulator has
them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.goals import check_goal_env
from jaxrl_envs.point_tasks import SIZE, PointMaze
from tests.close import assert_close

pytest.importorskip("gymnasium")
mujoco = pytest.importorskip("mujoco")

from jaxrl_envs.adapters.ant_maze import HEIGHT, KINDS, AntMaze, simulated  # noqa: E402


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def made(kind):
    return jaxrl_envs.make(f"mujoco:ant-{kind}")


def test_conforms(made, kind):
    env, tasks = made
    assert env.name == f"mujoco:ant-{kind}"
    assert tasks.time_limit() == 500
    check_env(env, tasks, episodes=1, max_steps=20)
    if kind == "maze":
        check_goal_env(env, tasks, episodes=2, max_steps=10)


def test_heights_are_those_of_the_map(kind):
    """Wherever a ray from above meets the world; the ant stands aside."""
    env, rows = simulated(kind), PointMaze(kind).world.rows
    env.reset(seed=0)
    env.set_state(np.r_[200.0, 0.0, 10.0, env.init_qpos[3:]], np.zeros(env.model.nv))
    floor = HEIGHT if kind == "fall" else 0.0
    tops = {"#": floor + HEIGHT, "B": floor + HEIGHT, " ": floor, "S": floor, "~": 0.0}
    start = next((x, y) for y, row in enumerate(rows[::-1]) for x, char in enumerate(row) if char == "S")
    for y, row in enumerate(rows[::-1]):
        for x, char in enumerate(row):
            for dx, dy in ((0, 0), (3.8, 3.8), (-3.8, 3.8), (3.8, -3.8), (-3.8, -3.8)):
                place = SIZE * (np.array([x, y]) - start) + (dx, dy)
                hit, down = np.zeros(1, np.int32), np.array([0.0, 0.0, -1.0])
                far = mujoco.mj_ray(env.model, env.data, np.r_[place, 50.0], down, None, 1, -1, hit)
                np.testing.assert_allclose(50.0 - far, tops[char], atol=1e-3)


def test_the_ant_is_the_authors():
    env = simulated("maze")
    assert env.dt == pytest.approx(0.1)
    np.testing.assert_array_equal(env.model.actuator_gear[:, 0], 30.0)
    np.testing.assert_array_equal(env.model.actuator_ctrlrange, [[-1.0, 1.0]] * 8)
    np.testing.assert_array_equal(env.model.geom_solimp[:, :3], [[0.8, 0.8, 0.01]] * env.model.ngeom)


def pushed(kind, force):
    """Positions of the block's joints after a force on them for two seconds and two without, with the ant far away."""
    env = simulated(kind)
    env.reset(seed=0)
    assert not env.data.qpos[15:].any()
    assert not env.data.qvel[14:].any()
    env.set_state(np.r_[200.0, 0.0, 10.0, env.data.qpos[3:]], np.zeros(env.model.nv))
    for now in (force, 0.0):
        env.data.qfrc_applied[14:] = now
        env.do_simulation(np.zeros(8), 100)
    return env.data.qpos[15:]


def test_a_block_slides_to_the_wall_and_falls_into_the_chasm():
    np.testing.assert_allclose(pushed("push", (-10.0, 0.0)), (-SIZE, 0.0), atol=0.1)
    np.testing.assert_allclose(pushed("fall", (0.0, 0.0)), (0.0, 0.0), atol=0.05)  # it stands on the floor
    np.testing.assert_allclose(pushed("fall", (1.0, 0.0)), (SIZE, -HEIGHT), atol=0.1)


def test_episodes_are_the_simulators_and_pay_by_distance(made, kind):
    """Two at a time in one simulator, bit for bit."""
    env, tasks = made
    keys, task = jax.random.split(jax.random.key(0), 2), tasks.sample(jax.random.key(1))
    obs, state = jax.vmap(env.reset_env, (0, None))(keys, task)
    step, actions = jax.jit(jax.vmap(env.step_env, (0, 0, 0, None))), np.random.default_rng(0)
    theirs = [simulated(kind) for _ in keys]
    for key, own in zip(keys, theirs):
        high, low = map(int, jax.random.key_data(key))
        own.reset(seed=high << 32 | low)
    for t in range(1, 31):
        action = actions.uniform(-1, 1, (2, 8)).astype(np.float32)
        obs, state, reward, terminated, info = step(keys, state, action, task)
        for i, own in enumerate(theirs):
            expected = own.step(action[i])[0].astype(np.float32)
            np.testing.assert_array_equal(obs["observation"][i], expected)
            assert expected[-1] == np.float32(1e-3 * t)
            place = expected[: len(task.goal)]
            assert_close(reward[i], -np.linalg.norm(place - np.asarray(task.goal)))
            assert info["success"][i] == (-reward[i] < 5)
        assert not terminated.any()


def test_no_such_world():
    with pytest.raises(ValueError, match="kind is one of maze, push, fall, not 'gather'"):
        AntMaze("gather")
    with pytest.raises(ValueError, match="nearest: ant-maze"):
        jaxrl_envs.make("mujoco:ant-mazes")
    assert jnp.shape(AntMaze("fall").default_params.goal) == (3,)
