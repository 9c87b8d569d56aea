"""Harlow's task: an episode by hand, what players earn, and which objects are held out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.harlow import CROSS_REWARD, LEFT, LIMIT, MIDDLE, RIGHT, TRIALS, harlow_tasks


def test_conforms():
    check_env(*jaxrl_envs.make("harlow"), episodes=2)


def test_a_trial_by_hand():
    env, tasks = jaxrl_envs.make("harlow")
    task = tasks.sample(jax.random.key(0))
    obs, state = env.reset_env(jax.random.key(1), task)
    cross = np.zeros((3, 9))
    cross[MIDDLE, -1] = 1
    np.testing.assert_array_equal(obs, cross)

    def look(action, key=2):
        nonlocal obs, state
        obs, state, reward, over, _ = env.step_env(jax.random.key(key), state, jnp.int32(action), task)
        return float(reward), bool(over)

    assert look(LEFT) == (0, False)
    np.testing.assert_array_equal(obs, cross)
    assert look(MIDDLE) == (pytest.approx(CROSS_REWARD), False)
    objects = np.zeros((3, 9))
    objects[[LEFT, RIGHT], :-1] = task.objects[::-1] if state.swapped else task.objects
    np.testing.assert_array_equal(obs, objects)
    before = obs
    assert look(MIDDLE, key=3) == (0, False)  # no choice yet, and the objects stay where they are
    np.testing.assert_array_equal(obs, before)
    pays = RIGHT if state.swapped else LEFT
    assert look(pays) == (1, False)
    np.testing.assert_array_equal(obs, cross)
    look(MIDDLE, key=4)
    assert look(LEFT if state.swapped else RIGHT) == (-1, False)


def played(player, episodes=500):
    """Rewards [episodes, LIMIT] and whether an episode is over before each step, of `player(obs, remembered object)`,
    which remembers the object that pays once it has chosen; nothing yet: NaN."""
    env, tasks = jaxrl_envs.make("harlow")

    def episode(key):
        task = tasks.sample(key)
        obs, state = env.reset_env(key, task)

        def step(carry, key):
            obs, state, pays, over = carry
            action = player(obs, pays)
            after, state, reward, ended, _ = env.step_env(key, state, action, task)
            left, right = obs[LEFT, :-1], obs[RIGHT, :-1]
            chosen, other = jnp.where(action == LEFT, left, right), jnp.where(action == LEFT, right, left)
            pays = jnp.where(reward == 1, chosen, jnp.where(reward == -1, other, pays))
            return (after, state, pays, over | ended), (jnp.where(over, 0, reward), over)

        nothing = jnp.full(obs.shape[1] - 1, jnp.nan)
        return jax.lax.scan(step, (obs, state, nothing, False), jax.random.split(key, LIMIT))[1]

    return jax.device_get(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), episodes)))


def test_who_remembers_guesses_once():
    looks = lambda obs, pays: jnp.where((obs[RIGHT, :-1] == pays).all(), RIGHT, LEFT)
    rewards, over = played(lambda obs, pays: jnp.where(obs[MIDDLE, -1] == 1, MIDDLE, looks(obs, pays)))
    assert over[:, 2 * TRIALS :].all()
    assert not over[:, : 2 * TRIALS].any()
    np.testing.assert_allclose(rewards[:, 0 : 2 * TRIALS : 2], CROSS_REWARD)
    choices = rewards[:, 1 : 2 * TRIALS : 2]
    np.testing.assert_array_equal(choices[:, 1:], 1)
    assert abs(choices[:, 0].mean()) < 4 / np.sqrt(500)


def test_who_does_not_remember_earns_the_crosses():
    rewards, _ = played(lambda obs, pays: jnp.where(obs[MIDDLE, -1] == 1, MIDDLE, LEFT))
    assert abs(rewards.sum(axis=1).mean() - 10 * CROSS_REWARD) < 4 * np.sqrt(10 / 500)


def test_who_never_looks_at_the_cross_runs_out_of_time():
    rewards, over = played(lambda obs, pays: LEFT, episodes=2)
    assert not over.any()
    assert not rewards.any()
    assert harlow_tasks().time_limit() == LIMIT


def test_two_different_objects_and_held_out_ones():
    tasks = harlow_tasks()
    drawn = np.asarray(jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), 5000)).objects)
    assert (drawn[:, 0] != drawn[:, 1]).any(axis=1).all()
    rows = lambda objects: {tuple(x) for x in np.asarray(objects).reshape(-1, objects.shape[-1]).tolist()}
    assert len(rows(drawn)) == 1000
    assert 190 < len(rows(tasks.test.objects)) <= 200
    assert not rows(drawn) & rows(tasks.test.objects)
