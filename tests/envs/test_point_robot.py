"""The point robots: rewards, the disc's rim, goals, and the best return, which a planner reaches and nobody exceeds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.navigation2d import NavigationParams
from jaxrl_envs.point_robot import (
    PointRobot,
    SparsePointRobot,
    best_return,
    half_circle_goals,
    point_robot_tasks,
    square_goals,
)
from tests.close import assert_close


def played(env, goals, actions):
    """Rewards [N, 20] of `actions` [N, 20, 2] towards `goals` [N, 2], the sparse ones too, and positions after them."""

    def episode(goal, actions):
        params = NavigationParams(goal=goal, max_steps_in_episode=20)

        def step(state, action):
            obs, state, reward, terminated, _ = env.step_env(jax.random.key(0), state, action, params)
            sparse = env.sparse_reward(obs, params) if isinstance(env, SparsePointRobot) else reward
            return state, (reward, sparse, obs, terminated)

        return jax.lax.scan(step, env.reset_env(jax.random.key(0), params)[1], actions)[1]

    reward, sparse, obs, terminated = jax.jit(jax.vmap(episode))(jnp.asarray(goals, jnp.float32), actions)
    assert not terminated.any()
    return np.asarray(reward), np.asarray(sparse), np.asarray(obs)


def straight(goals):
    """Each axis at full speed, then what remains, then nothing: [N, 20, 2]."""
    gone = np.clip(goals[:, None], *(sign * 0.1 * np.arange(21)[:, None] for sign in (-1, 1)))
    return jnp.asarray(np.diff(gone, axis=1) / 0.1, jnp.float32)


@pytest.mark.parametrize("name", ["point-robot", "sparse-point-robot"])
def test_contract(name):
    check_env(*jaxrl_envs.make(name))


def test_contract_of_the_sparse_reward_alone():
    check_env(SparsePointRobot(shaped=False), point_robot_tasks(half_circle_goals()))


def test_rewards_against_a_loop():
    goals = np.concatenate([half_circle_goals()[:30], square_goals()[:30]])
    actions = 1.5 * jax.random.normal(jax.random.key(0), (60, 20, 2)) + 0.8 * jnp.asarray(goals, jnp.float32)[:, None]
    reward, sparse, obs = played(SparsePointRobot(), goals, actions)
    position = np.zeros((60, 2))
    inside = 0
    for t in range(20):
        position = position + 0.1 * np.clip(np.asarray(actions[:, t], np.float64), -1, 1)
        distance = np.hypot(*(position - goals).T)
        assert_close(obs[:, t], position)
        assert_close(reward[:, t], -distance)
        clear = np.abs(distance - 0.2) > 1e-4
        assert_close(sparse[clear, t], np.where(distance < 0.2, 1 - distance, 0)[clear], scale=1)
        inside += np.count_nonzero(distance < 0.2)
    assert inside > 20
    assert_close(played(SparsePointRobot(shaped=False), goals, actions)[0], sparse)
    assert_close(played(PointRobot(), goals, actions)[0], reward)


def test_the_rim_is_inside_whatever_the_rounding():
    goals = np.array([(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0)])  # the eighth step ends 0.2 from them
    _, sparse, _ = played(SparsePointRobot(), goals, straight(goals))
    assert_close(sparse[:, 7], 0.8)
    assert_close(sparse.sum(axis=1), 12.7)
    assert_close(best_return(goals, sparse=True), 12.7)


@pytest.mark.parametrize("sparse", [True, False])
def test_going_straight_is_best_and_the_mean_optimum_is_known(sparse):
    goals = half_circle_goals()
    best = best_return(goals, sparse)
    assert best.mean() == pytest.approx(13.375 if sparse else -3.847, abs=5e-4)
    reward, of_sparse, _ = played(SparsePointRobot(), goals, straight(goals))
    assert_close((of_sparse if sparse else reward).sum(axis=1), best, 1e-4)


def test_no_plan_exceeds_the_best_return():
    """Exhaustively, on a lattice: the best of all plans of eight directions and standing still, by dynamic programming
    over the cells that can be reached, is never above the closed form."""
    goals = np.concatenate([half_circle_goals()[::9], [(1, 0), (0, 1), (-1, 0)]])
    axis = 0.1 * np.arange(-20, 21)
    cells = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    for sparse in (True, False):
        for goal, best in zip(goals, best_return(goals, sparse), strict=True):
            distance = np.linalg.norm(cells - goal, axis=-1)
            reward = np.where(distance <= 0.2 + 1e-5, 1 - distance, 0) if sparse else -distance
            value = np.zeros((41, 41))
            for _ in range(20):
                paid = np.pad(reward + value, 1, constant_values=-np.inf)
                value = np.max([paid[1 + i : 42 + i, 1 + j : 42 + j] for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)
            assert value[20, 20] <= best + 1e-9
            if np.allclose(goal, np.round(goal)):
                assert value[20, 20] == pytest.approx(best)  # these goals lie on the lattice
    random = jax.random.uniform(jax.random.key(1), (len(goals), 20, 2), minval=-1.5, maxval=1.5)
    aimed = straight(goals) + 0.2 * random
    for actions in (random, aimed):
        reward, of_sparse, _ = played(SparsePointRobot(), goals, actions)
        assert (reward.sum(axis=1) <= best_return(goals, sparse=False) + 1e-4).all()
        assert (of_sparse.sum(axis=1) <= best_return(goals, sparse=True) + 1e-4).all()


def test_goals_are_split_as_published_and_drawn_by_tasks_alone():
    keys = jax.random.split(jax.random.key(0), 4000)
    for name, goals in (("sparse-point-robot", half_circle_goals()), ("point-robot", square_goals())):
        env, tasks = jaxrl_envs.make(name)
        trained, tested = tasks.train_batch(80, keys[0]).goal, tasks.test_batch(20, keys[0]).goal
        assert_close(np.concatenate([trained, tested]), goals)
        drawn = {tuple(goal) for goal in np.asarray(jax.vmap(tasks.sample)(keys).goal)}
        assert drawn == {tuple(goal) for goal in np.asarray(trained)}
        params = tasks.sample(keys[0])
        obs, _ = env.reset_env(keys[1], params)
        np.testing.assert_array_equal(obs, 0)
        assert tasks.resample == "never"
        assert int(params.max_steps_in_episode) == 20
        with pytest.raises(ValueError, match="81 training tasks were asked for and the task distribution holds 80"):
            tasks.train_batch(81, keys[0])
    angles = np.sort(np.arctan2(*half_circle_goals().T[::-1]))
    np.testing.assert_allclose(angles, np.linspace(0, np.pi, 100), atol=1e-9)
    assert np.abs(square_goals()).max() <= 1


@pytest.mark.parametrize("name", ["point-robot", "sparse-point-robot"])
def test_the_goal_is_in_the_picture(name):
    env, tasks = jaxrl_envs.make(name)
    params = jax.tree.map(lambda x: x[0], tasks.test_batch(1, jax.random.key(0)))
    picture = env.render(env.reset_env(jax.random.key(0), params)[1], params)
    orange = (picture[..., 0] > 200) & (picture[..., 1].astype(int) - picture[..., 2] > 60)
    rows, columns = np.nonzero(orange)
    seen = np.array([columns.mean() - 127.5, 127.5 - rows.mean()])
    np.testing.assert_allclose(seen, 128 / env.view * np.asarray(params.goal), atol=10)
