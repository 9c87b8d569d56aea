"""Navigation2D against the numbers that its specification fixes."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.navigation2d import (
    CORNERS,
    Navigation2D,
    NavigationCorners,
    NavigationOracle,
    NavigationParams,
    NavigationSparse,
    NavigationUnnormalised,
    navigation_tasks,
    paper_goals,
)
from tests.close import assert_close


def episode_return(goal, policy):
    env, params = Navigation2D(), NavigationParams(goal=goal)

    def step(carry, _):
        state, alive = carry
        _, state, reward, terminated, _ = env.step_env(jax.random.key(0), state, policy(state.position, goal), params)
        return (state, alive & ~terminated), reward * alive

    _, state = env.reset_env(jax.random.key(0), params)
    return jnp.sum(jax.lax.scan(step, (state, jnp.array(True)), length=100)[1])


def test_conforms(navigation):
    check_env(*navigation)


def test_zero_policy_on_the_paper_goals():
    returns = jax.vmap(lambda goal: episode_return(goal, lambda position, goal: jnp.zeros(2)))(paper_goals())
    assert float(returns.mean()) == pytest.approx(-40.08, abs=0.005)


def test_noiseless_oracle_on_the_paper_goals():
    oracle = lambda position, goal: 10.0 * (goal - position)
    returns = jax.vmap(lambda goal: episode_return(goal, oracle))(paper_goals())
    assert float(returns.mean()) == pytest.approx(-0.54, abs=0.005)


def test_step_by_hand():
    env = Navigation2D()
    params = NavigationParams(goal=jnp.array([0.3, -0.4]))
    _, state = env.reset_env(jax.random.key(0), params)
    obs, state, reward, terminated, _ = env.step_env(jax.random.key(0), state, jnp.array([5.0, -0.5]), params)
    assert_close(obs, [0.1, -0.05])  # clipped to 1, scaled by 0.1
    assert float(reward) == pytest.approx(-np.hypot(0.2, 0.35), rel=1e-5)  # the distance after the move, not squared
    assert not terminated


def test_terminates_in_the_box_and_not_beside_it():
    env, params = Navigation2D(), NavigationParams(goal=jnp.array([0.1, 0.0]))
    _, state = env.reset_env(jax.random.key(0), params)
    for push, inside in ((0.92, True), (0.88, False)):
        assert bool(env.step_env(jax.random.key(0), state, jnp.array([push, 0.05]), params)[3]) is inside
    assert not bool(env.step_env(jax.random.key(0), state, jnp.array([1.0, 0.2]), params)[3])


def test_paper_goals_and_task_distribution():
    assert_close(paper_goals()[0], [-0.082978, 0.220324])
    tasks = navigation_tasks()
    goals = jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), 4000)).goal
    assert np.abs(goals).max() <= 0.5
    np.testing.assert_allclose(goals.mean(0), 0.0, atol=4 * 0.2887 / 4000**0.5)
    assert_close(tasks.test_batch(40, jax.random.key(0)).goal, paper_goals())
    np.testing.assert_allclose(np.cov(goals.T), np.eye(2) / 12, atol=0.006)
    with pytest.raises(ValueError, match="41 test tasks were asked for and the task distribution holds 40"):
        tasks.test_batch(41, jax.random.key(0))


def test_render_shows_start_goal_and_point():
    env = Navigation2D()
    _, state = env.reset_env(jax.random.key(0), env.default_params)
    params = NavigationParams(goal=np.array([0.4, 0.4], np.float32))
    picture = env.render(state.replace(position=np.array([-0.4, -0.4], np.float32)), params)
    assert picture.shape == (256, 256, 3)
    assert picture.dtype == np.uint8
    orange = (picture[..., 0] > 200) & (picture[..., 1].astype(int) - picture[..., 2] > 60)
    blue = (picture[..., 2] > 150) & (picture[..., 0] < 80)
    rows, columns = np.nonzero(orange)
    assert rows.mean() < 128 < columns.mean()  # goal: up and right
    rows, columns = np.nonzero(blue)
    assert columns.mean() < 128 < rows.mean()  # point: down and left


# --- the tasks of other code ---------------------------------------------------------------------------------------


def walk(env, params, actions):
    """Positions [T + 1, 2] and rewards [T] of an episode; nothing may end before the last action."""

    def step(state, action):
        _, state, reward, terminated, _ = env.step_env(jax.random.key(0), state, action, params)
        return state, (state.position, reward, terminated)

    _, start = env.reset_env(jax.random.key(1), params)
    positions, rewards, terminated = jax.lax.scan(step, start, actions)[1]
    assert not terminated.any()
    return np.concatenate([start.position[None], positions]), np.asarray(rewards)


@pytest.mark.parametrize("name", ["navigation2d-unnormalised", "navigation2d-corners", "navigation2d-sparse"])
def test_other_tasks_conform(name):
    check_env(*jaxrl_envs.make(name))


def test_unnormalised_is_the_same_task_in_other_units():
    params = NavigationParams(goal=jnp.array([0.4, 0.3]))
    actions = jax.random.normal(jax.random.key(2), (50, 2)) * 0.1
    plain, unnormalised = walk(Navigation2D(), params, 10 * actions), walk(NavigationUnnormalised(), params, actions)
    assert_close(unnormalised, plain)
    moves = np.diff(walk(NavigationUnnormalised(), params, 100 * actions)[0], axis=0)
    assert_close(np.abs(moves), 0.1, 1e-4)  # with a standard deviation of 10, only its bounds


def corner_reward(before, after, goal):
    if abs(after[0]) + abs(after[1]) < 0.5:
        return 0.0
    distances = [np.hypot(*(after - corner)) for corner in ((-2, -2), (2, -2), (-2, 2), (2, 2))]
    if np.hypot(*(after - goal)) > min(distances) + 1e-6:
        return 0.0
    return np.hypot(*(before - goal)) - np.hypot(*(after - goal))


def test_corners_against_a_loop():
    env, params = NavigationCorners(), NavigationParams(goal=CORNERS[1])
    positions, rewards = walk(env, params, 20 * jax.random.normal(jax.random.key(3), (90, 2)))
    assert np.abs(positions[0]).max() < 0.2
    assert np.abs(np.diff(positions, axis=0)).max() <= 0.2 + 1e-6
    expected = [corner_reward(a, b, CORNERS[1]) for a, b in pairwise(positions)]
    assert_close(rewards, expected, scale=1)
    assert 0 < np.count_nonzero(rewards) < 90


def test_corners_oracle_earns_the_way_from_the_edge_of_silence():
    env = NavigationCorners()
    for corner in CORNERS:
        actions = jnp.tile(10.0 * jnp.sign(corner), (9, 1))
        positions, rewards = walk(env, NavigationParams(goal=jnp.array(corner)), actions)
        silent = np.abs(positions[1:]).sum(axis=1) < 0.5
        last = positions[np.argmin(silent)]  # where the first rewarded step began
        distance = lambda position, corner=corner: np.hypot(*(position - corner))
        assert rewards.sum() == pytest.approx(distance(last) - distance(positions[-1]), abs=1e-5)


def test_sparse_rewards_nearness_only():
    params = NavigationParams(goal=jnp.array([0.0, 1.0]), max_steps_in_episode=20)
    _, rewards = walk(NavigationSparse(), params, jnp.tile(jnp.array([0.0, 0.95]), (19, 1)))
    assert_close(rewards[8:12], [0.855, 0.95, 0.955, 0.86])
    assert np.count_nonzero(rewards) == 4
    _, nothing = walk(NavigationSparse(), params, jnp.zeros((19, 2)))
    assert not nothing.any()


def test_tasks_of_other_code():
    keys = jax.random.split(jax.random.key(0), 4000)
    _, tasks = jaxrl_envs.make("navigation2d-corners")
    goals, counts = np.unique(jax.vmap(tasks.sample)(keys).goal, axis=0, return_counts=True)
    assert {tuple(goal) for goal in goals} == {(-2, -2), (2, -2), (-2, 2), (2, 2)}
    assert ((counts - 1000) ** 2 / 1000).sum() < 16.3  # χ², 3 degrees of freedom, p = 0.001
    assert np.unique(tasks.test_batch(40, keys[0]).goal, axis=0, return_counts=True)[1].tolist() == [10] * 4

    _, tasks = jaxrl_envs.make("navigation2d-sparse")
    trained = {tuple(goal) for goal in np.asarray(jax.vmap(tasks.sample)(keys).goal)}
    tested = {tuple(goal) for goal in np.asarray(tasks.test_batch(40, keys[0]).goal)}
    assert (len(trained), len(tested), len(trained & tested)) == (80, 20, 0)
    goals = np.array(sorted(trained | tested))
    assert_close(np.hypot(*goals.T), 1.0)
    np.testing.assert_allclose(np.sort(np.arctan2(*goals.T[::-1])), np.linspace(0, np.pi, 100), atol=1e-3)
    assert int(tasks.sample(keys[0]).max_steps_in_episode) == 20


@pytest.mark.parametrize("name", ["navigation2d", "navigation2d-corners", "navigation2d-sparse"])
def test_the_goal_is_in_the_picture(name):
    env, tasks = jaxrl_envs.make(name)
    params = jax.tree.map(lambda x: x[0], tasks.test_batch(1, jax.random.key(0)))
    picture = env.render(env.reset_env(jax.random.key(0), params)[1], params)
    orange = (picture[..., 0] > 200) & (picture[..., 1].astype(int) - picture[..., 2] > 60)
    rows, columns = np.nonzero(orange)
    seen = np.array([columns.mean() - 127.5, 127.5 - rows.mean()])
    np.testing.assert_allclose(seen, 128 / env.view * np.asarray(params.goal), atol=10)


def test_the_oracle_sees_the_goal_and_plays_the_same_task():
    env, params = NavigationOracle(), NavigationParams(goal=jnp.array([0.4, 0.3]))
    check_env(env, navigation_tasks())
    actions = jax.random.normal(jax.random.key(2), (20, 2))
    assert_close(walk(env, params, actions), walk(Navigation2D(), params, actions))
    obs, state = env.reset_env(jax.random.key(0), params)
    np.testing.assert_allclose(obs, [0, 0, 0.4, 0.3])
    obs, state, *_ = env.step_env(jax.random.key(0), state, jnp.array([1.0, -0.5]), params)
    np.testing.assert_allclose(obs, [*state.position, 0.4, 0.3])
