"""XLand-MiniGrid behind the contract; skipped where it is not installed, but for what is said then."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.xland import XLand, hidden_objects, xland_tasks
from tests.close import assert_close

NAME = "XLand-MiniGrid-R1-9x9"


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "xminigrid", None)
    with pytest.raises(ValueError, match=r"not installed .*: pip install 'jaxrl-hier\[xland\]'"):
        jaxrl_envs.make(NAME)


@pytest.fixture(scope="module")
def xminigrid():
    return pytest.importorskip("xminigrid")


@pytest.fixture(scope="module")
def env(xminigrid):
    return XLand(NAME, max_steps=30)


@pytest.fixture(scope="module")
def tasks(env):
    return xland_tasks(env, hidden_objects(env, count=512))


def test_conforms(env, tasks):
    check_env(env, tasks, episodes=2)


@pytest.mark.parametrize("name", ["MiniGrid-DoorKey-6x6", NAME])
def test_by_name(xminigrid, name):
    env, tasks = jaxrl_envs.make(name)
    assert env.name == name
    task = tasks.sample(jax.random.key(0))
    assert task.max_steps_in_episode == task.inner.max_steps
    obs, _ = env.reset_env(jax.random.key(1), task)
    assert obs.shape == env.observation_space(task).shape


def test_steps_are_the_packages_own(env, tasks):
    """The same key and actions give what XLand-MiniGrid gives by itself; episodes end apart from time limits."""
    task = tasks.sample(jax.random.key(0))
    step, peer_step = jax.jit(env.step_env), jax.jit(env.inner.step)
    rng, ends = np.random.default_rng(0), []
    for episode in range(12):
        key = jax.random.key(episode)
        obs, state = env.reset_env(key, task)
        peer = env.inner.reset(task.inner, jax.random.key_data(key))
        np.testing.assert_array_equal(obs, env.get_obs(state, task))
        for _ in range(30):
            np.testing.assert_array_equal(obs, peer.observation)
            action = jnp.int32(rng.choice(6, p=[0.6, 0.15, 0.15, 0.04, 0.03, 0.03]))
            obs, state, reward, terminated, _ = step(key, state, action, task)
            peer = peer_step(task.inner, peer, action)
            assert_close(reward, peer.reward)
            truncated = env.is_truncated(state, task) & ~terminated
            assert bool(terminated | truncated) == bool(peer.last())
            if terminated | truncated:
                break
        assert bool(terminated) == (float(reward) > 0)
        ends.append(bool(terminated))
    assert 0 < sum(ends) < len(ends)  # both kinds of end were seen


def test_the_goal_is_one_of_the_objects(env):
    benchmark = hidden_objects(env, objects=3, count=200)
    tiles, goals = np.asarray(benchmark.init_tiles), np.asarray(benchmark.goals)
    np.testing.assert_array_equal(goals[:, 1:3], tiles[:, 0])
    assert all(len(np.unique(row, axis=0)) == 3 for row in tiles)
    assert len(np.unique(tiles[:, 0], axis=0)) == 36
    with pytest.raises(ValueError, match="1 to 36 different objects, not 40"):
        hidden_objects(env, objects=40)


def test_a_task_is_data(env, tasks):
    batch = jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), 3))
    assert batch.inner.ruleset.init_tiles.shape == (3, 4, 2)
    keys = jax.random.split(jax.random.key(1), 3)
    _, states = jax.vmap(env.reset_env)(keys, batch)
    for i in range(3):
        lying = np.asarray(states.inner.grid)[i].reshape(-1, 2).tolist()
        assert all(tile in lying for tile in np.asarray(batch.inner.ruleset.init_tiles)[i].tolist())


def test_render(env, tasks):
    task = tasks.sample(jax.random.key(0))
    _, state = env.reset_env(jax.random.key(0), task)
    picture = env.render(state, task)
    assert picture.dtype == np.uint8
    assert picture.shape[0] == picture.shape[1]
    assert len(np.unique(picture)) > 4


def test_unknown_name(xminigrid):
    with pytest.raises(ValueError, match="has no environment 'XLand-MiniGrid-R5-9x9'; it has XLand-MiniGrid-R1"):
        XLand("XLand-MiniGrid-R5-9x9")
