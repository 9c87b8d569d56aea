"""Navigation2D against the numbers that its specification fixes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs import check_env
from jaxrl_envs.navigation2d import Navigation2D, NavigationParams, navigation_tasks, paper_goals


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
    np.testing.assert_allclose(obs, [0.1, -0.05], atol=1e-7)  # clipped to 1, scaled by 0.1
    assert float(reward) == pytest.approx(-np.hypot(0.2, 0.35))  # the distance after the move, not squared
    assert not terminated


def test_terminates_in_the_box_and_not_beside_it():
    env, params = Navigation2D(), NavigationParams(goal=jnp.array([0.1, 0.0]))
    _, state = env.reset_env(jax.random.key(0), params)
    for push, inside in ((0.92, True), (0.88, False)):
        assert bool(env.step_env(jax.random.key(0), state, jnp.array([push, 0.05]), params)[3]) is inside
    assert not bool(env.step_env(jax.random.key(0), state, jnp.array([1.0, 0.2]), params)[3])


def test_paper_goals_and_task_distribution():
    np.testing.assert_allclose(paper_goals()[0], [-0.082978, 0.220324], atol=1e-6)
    tasks = navigation_tasks()
    goals = jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), 4000)).goal
    assert np.abs(goals).max() <= 0.5
    np.testing.assert_allclose(goals.mean(0), 0.0, atol=4 * 0.2887 / 4000**0.5)
    np.testing.assert_allclose(tasks.test_batch(40, jax.random.key(0)).goal, paper_goals())
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
