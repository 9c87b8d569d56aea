"""HIRO's ant: the worlds by rays from above, blocks that slide and fall, rewards, and episodes as a plain simulator has
them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.goals import check_goal_env
from jaxrl_envs.point_tasks import ARENA, SIZE, PointMaze
from tests.close import assert_close

pytest.importorskip("gymnasium")
mujoco = pytest.importorskip("mujoco")

from jaxrl_envs.adapters.ant_maze import (  # noqa: E402
    HEIGHT,
    KINDS,
    AntMaze,
    heading,
    simulated,
    square,
    world,
)


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
    env, rows = simulated(world(kind)), PointMaze(kind).world.rows
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
    env = simulated(world("maze"))
    assert env.dt == pytest.approx(0.1)
    np.testing.assert_array_equal(env.model.actuator_gear[:, 0], 30.0)
    np.testing.assert_array_equal(env.model.actuator_ctrlrange, [[-1.0, 1.0]] * 8)
    np.testing.assert_array_equal(env.model.geom_solimp[:, :3], [[0.8, 0.8, 0.01]] * env.model.ngeom)


def pushed(kind, force):
    """Positions of the block's joints after a force on them for two seconds and two without, with the ant far away."""
    env = simulated(world(kind))
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
    theirs = [simulated(world(kind)) for _ in keys]
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


@pytest.fixture(scope="module")
def gather():
    return jaxrl_envs.make("mujoco:ant-gather")


def test_gathering_conforms(gather):
    env, tasks = gather
    assert tasks.time_limit() == 500
    check_env(env, tasks, episodes=2, max_steps=60)
    assert env.observation_space().shape == (50,)


def test_the_square_is_closed_by_walls():
    env = simulated(square())
    env.reset(seed=0)
    env.set_state(np.r_[200.0, 0.0, 10.0, env.init_qpos[3:]], np.zeros(env.model.nv))
    lines = np.arange(-9.0, 9.1, 0.25)
    for x in lines:
        for y in lines:
            far = max(abs(x), abs(y))
            hit, down = np.zeros(1, np.int32), np.array([0.0, 0.0, -1.0])
            top = 50.0 - mujoco.mj_ray(env.model, env.data, np.r_[x, y, 50.0], down, None, 1, -1, hit)
            if far not in (ARENA, ARENA + 1):
                assert top == pytest.approx(HEIGHT if ARENA < far < ARENA + 1 else 0.0, abs=1e-3)


def placed(env, state, x, y, z=0.75, turn=0.0):
    """A state of gathering with the ant at rest elsewhere, turned in the plane."""
    one = env.robot.simulators.made[0].env
    one.reset(seed=0)
    quaternion = [np.cos(turn / 2), 0.0, 0.0, np.sin(turn / 2)]
    one.set_state(np.r_[x, y, z, quaternion, one.init_qpos[7:]], np.zeros(one.model.nv))
    ant = env.robot.simulators.made[0].get().view(np.uint32)
    return state.replace(inner=state.inner._replace(ant=jnp.asarray(ant), position=jnp.array([x, y])))


def test_what_is_near_is_taken_once_and_bombs_cost(gather):
    env, _ = gather
    params = env.default_params
    _, state = env.reset_env(jax.random.key(0), params)
    objects = jnp.full((2, 8, 2), 6.0).at[0, 0].set(jnp.array([2.0, 0.0])).at[1, 3].set(jnp.array([0.0, -2.0]))
    state = state.replace(inner=state.inner._replace(objects=objects))
    pays = lambda state: env.step_env(jax.random.key(1), state, jnp.zeros(8), params)
    for place, expected in (((2.0, 0.5), 1.0), ((0.0, -1.5), -1.0), ((-3.0, 0.0), 0.0)):
        _, state, reward, terminated, _ = pays(placed(env, state, *place))
        assert (float(reward), bool(terminated)) == (expected, False)
    assert state.inner.left.sum() == 14
    _, _, again, _, _ = pays(placed(env, state, 2.0, 0.5))
    assert float(again) == 0.0


def test_a_fall_ends_the_episode_and_costs_ten(gather):
    env, _ = gather
    _, state = env.reset_env(jax.random.key(0), env.default_params)
    _, _, reward, terminated, _ = env.step_env(
        jax.random.key(1), placed(env, state, 0.0, 0.0, z=3.0), jnp.zeros(8), env.default_params
    )
    assert (float(reward), bool(terminated)) == (-10.0, True)


@pytest.mark.parametrize("turn", [0.0, 0.7, -2.5, 3.0])
def test_sensors_turn_with_the_ant(gather, turn):
    """An apple straight to the left of the ant's nose is seen in the sector that holds a quarter turn."""
    env, _ = gather
    np.testing.assert_allclose(heading(jnp.array([np.cos(turn / 2), 0.0, 0.0, np.sin(turn / 2)])), turn, atol=1e-6)
    _, state = env.reset_env(jax.random.key(0), env.default_params)
    left_of = 3.0 * np.array([np.cos(turn + np.pi / 2 + 0.1), np.sin(turn + np.pi / 2 + 0.1)])
    objects = jnp.full((2, 8, 2), 50.0).at[0, 0].set(jnp.asarray(left_of))
    state = placed(env, state.replace(inner=state.inner._replace(objects=objects)), 0.0, 0.0, turn=turn)
    obs, *_ = env.step_env(jax.random.key(1), state, jnp.zeros(8), env.default_params)
    apples, bombs = np.asarray(obs[30:40]), np.asarray(obs[40:])
    assert np.flatnonzero(apples).tolist() == [2]  # of ten, from a fifth to three tenths of a turn
    assert apples[2] == pytest.approx(0.7, abs=0.03)
    assert not bombs.any()
