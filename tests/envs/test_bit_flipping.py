"""Bit flipping by its rules, and the checker of goals on environments that break its contract."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.wrappers.purerl import GymnaxWrapper

import jaxrl_envs
from jaxrl_envs import check_env, check_goal_env, is_goal_env
from jaxrl_envs.bit_flipping import BitFlipping, BitFlippingParams, bit_flipping_tasks, random_pattern
from jaxrl_envs.check import EnvCheckError
from jaxrl_envs.goals import GoalSpace
from jaxrl_envs.tasks import single


@pytest.mark.parametrize("bits", [1, 5, 40])  # 40: more than a word of random bits
def test_conforms(bits):
    env, tasks = BitFlipping(bits), bit_flipping_tasks(bits)
    check_env(env, tasks)
    check_goal_env(env, tasks, episodes=6, max_steps=15)


def test_an_episode_by_hand():
    """Flip what differs, one bit after the other: the goal is reached and left again, and n steps are an episode."""
    env = BitFlipping(4)
    params = env.default_params.replace(goal=np.array([1, 0, 1, 1], np.int8))
    _, state = env.reset_env(jax.random.key(0), params)
    state = state.replace(bits=jnp.array([0, 0, 0, 1], jnp.int8))
    seen = []
    for action in (0, 2, 1, 1):
        obs, state, reward, terminated, info = env.step_env(jax.random.key(0), state, action, params)
        seen.append((obs["observation"].tolist(), float(reward), bool(info["success"])))
        assert not terminated
        np.testing.assert_array_equal(obs["achieved_goal"], obs["observation"])
        np.testing.assert_array_equal(obs["desired_goal"], params.goal)
        assert bool(env.is_truncated(state, params)) == (len(seen) == 4)
    assert seen == [
        ([1, 0, 0, 1], -1.0, False),
        ([1, 0, 1, 1], 0.0, True),
        ([1, 1, 1, 1], -1.0, False),
        ([1, 0, 1, 1], 0.0, True),
    ]


def test_states_and_goals_are_uniform_and_independent():
    draws = 20_000
    patterns = jax.jit(jax.vmap(lambda k: random_pattern(k, 40)))(jax.random.split(jax.random.key(0), draws))
    p = np.asarray(patterns, np.float64)
    assert np.abs(p.mean(axis=0) - 0.5).max() < 4.5 * 0.5 / np.sqrt(draws)
    correlation = np.corrcoef(p.T) - np.eye(40)
    assert np.abs(correlation).max() < 5 / np.sqrt(draws)
    env, tasks = jaxrl_envs.make("bit-flipping-5")

    def both(key):
        key_task, key_reset = jax.random.split(key)
        obs, _ = env.reset_env(key_reset, tasks.sample(key_task))
        return jnp.sum(obs["observation"] != obs["desired_goal"])

    distance = np.asarray(jax.jit(jax.vmap(both))(jax.random.split(jax.random.key(1), draws)))
    frequency = np.bincount(distance, minlength=6)
    expected = draws * np.array([1, 5, 10, 10, 5, 1]) / 32
    assert np.sum((frequency - expected) ** 2 / expected) < 5 + 4 * np.sqrt(10)


def test_picture_marks_what_is_wrong():
    env = BitFlipping(6)
    params = env.default_params
    _, state = env.reset_env(jax.random.key(0), params)
    share = {}
    for wrong in (0, 3, 6):
        picture = env.render(state.replace(bits=np.array([0] * wrong + [1] * (6 - wrong), np.int8)), params)
        assert picture.shape == (256, 256, 3)
        share[wrong] = np.mean((picture[..., 0] > 200) & (picture[..., 2] < 80))
    assert share[0] == 0 < share[3] < share[6]


def test_names():
    for n in (5, 8, 15, 25, 50):
        env, tasks = jaxrl_envs.make(f"bit-flipping-{n}")
        assert env.num_actions == n == int(tasks.sample(jax.random.key(0)).max_steps_in_episode)
    with pytest.raises(ValueError, match="bits must be at least 1, got 0"):
        BitFlipping(0)


# The checker of goals


class Broken(BitFlipping):
    """Every rule of the contract is broken."""

    def step_env(self, key, state, action, params):
        before = self.compute_reward(state.bits, params.goal, params)
        obs, after, _, _, _ = super().step_env(key, state, action, params)
        obs["observation"] = obs["observation"] ^ params.goal
        obs["desired_goal"] = 1 - obs["desired_goal"]
        return obs, after, before, jnp.all(after.bits == params.goal), {"success": jnp.ones(2)}


def test_checker_names_what_is_broken():
    env = Broken(2)

    def sample(key):
        key_limit, key_goal = jax.random.split(key)
        limit = jax.random.randint(key_limit, (), 5, 50)
        return BitFlippingParams(goal=random_pattern(key_goal, 2), max_steps_in_episode=limit)

    with pytest.raises(EnvCheckError) as error:
        check_goal_env(env, jaxrl_envs.Tasks(sample=sample), episodes=6)
    for problem in (
        "the tasks do not redraw the goal each episode",
        "tasks differ in more than the goal",
        "the reward is not compute_reward of the next achieved goal",
        "the desired goal changes within an episode",
        "another goal leads to another observation",
        "the goal ends the episode",
        "info['success'] is not a boolean scalar",
    ):
        assert problem in str(error.value)


def test_checker_wants_goals():
    assert is_goal_env(BitFlipping(3))
    rooms, tasks = jaxrl_envs.make("four-rooms")
    assert not is_goal_env(rooms)
    with pytest.raises(EnvCheckError, match="FourRooms has no goals: it needs compute_reward and dicts of observation"):
        check_goal_env(rooms, tasks)
    env = BitFlipping(3)
    always_the_same = single(env.default_params)._replace(resample="episode")
    with pytest.raises(EnvCheckError, match="4 tasks have the same goal"):
        check_goal_env(env, always_the_same)


def test_space_contains_what_it_samples():
    space = BitFlipping(3).observation_space()
    assert isinstance(space, GoalSpace)
    sample = space.sample(jax.random.key(0))
    assert space.contains(sample)
    assert not space.contains({**sample, "achieved_goal": sample["achieved_goal"] + 2})
    assert not space.contains({"observation": sample["observation"]})


class Bonus(GymnaxWrapper):
    """Pays otherwise at the goal; `step` is gymnax's."""

    def step(self, key, state, action, params=None):
        obs, state, reward, terminated, truncated, info = self._env.step(key, state, action, params)
        return obs, state, jnp.where(reward == 0, 10.0, reward), terminated, truncated, info


def test_the_checker_plays_a_wrapper_by_its_own_step():
    with pytest.raises(EnvCheckError, match="the reward is not compute_reward of the next achieved goal"):
        check_goal_env(Bonus(BitFlipping(1)), bit_flipping_tasks(1))


class Tuples(NamedTuple):
    """Params that are no dataclass."""

    goal: Any
    max_steps_in_episode: int = 3


class OfTuples(BitFlipping):
    name = None  # and none of its own

    @property
    def default_params(self):
        return Tuples(np.ones(self.bits, np.int8))


def test_params_may_be_of_any_kind():
    tasks = jaxrl_envs.Tasks(lambda key: Tuples(random_pattern(key, 3)), resample="episode")
    check_env(OfTuples(3), tasks, episodes=1)
    check_goal_env(OfTuples(3), tasks)
    with pytest.raises(EnvCheckError, match="OfTuples breaks the contract of goals"):
        check_goal_env(OfTuples(3), tasks._replace(resample="never"))
