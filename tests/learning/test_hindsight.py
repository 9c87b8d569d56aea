"""Hindsight against a slow Python version, and the distribution of its goals."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.wrappers.purerl import GymnaxWrapper, LogWrapper
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs.bit_flipping import BitFlipping
from jaxrl_envs.four_rooms import FourRoomsGoals
from jaxrl_envs.point_goals import PointReach
from jaxrl_envs.tasks import Tasks, single
from jaxrl_hier.building import config_of, fitted
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine import replay as memory
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.types import Transition
from jaxrl_hier.flat import dqn
from jaxrl_hier.learning.hindsight import STRATEGIES, goal_places, hindsight
from tests.sizes import SIZES

B, C, N = 2, 13, 40


class Numbers:
    """States are numbers that count on: every state, and so every goal, can be told from every other."""

    name = "Numbers"
    default_params = jaxrl_envs.BitFlipping(1).default_params

    def observation_space(self, params):
        return jaxrl_envs.BitFlipping(1).observation_space(params)

    def compute_reward(self, achieved_goal, desired_goal, params):
        return -jnp.any(achieved_goal != desired_goal).astype(jnp.float32)


TASKS = single(Numbers.default_params)
add = jax.jit(memory.add)
relabels = {s: jax.jit(hindsight(Numbers(), TASKS, s, 4)) for s in STRATEGIES}
always = jax.jit(hindsight(Numbers(), TASKS, "future", 10**9))
chosen = {s: jax.jit(lambda ring, places, bits, s=s: goal_places(ring, places, bits, s)) for s in STRATEGIES}


def numbered(lengths):
    """Steps [T] of one environment: episodes of `lengths`; (100 e + t) is the state of episode e at time t.

    The goal of an episode is −e, which no state is.
    """
    state = np.concatenate([100 * e + np.arange(n) for e, n in enumerate(lengths, 1)])
    goal = np.concatenate([np.full(n, -e) for e, n in enumerate(lengths, 1)])
    first = np.concatenate([np.arange(n) == 0 for n in lengths])
    return state, goal, first


def ring_of(histories, total):
    """A ring that the first `total` steps of each environment went through one by one, and what it should hold."""
    columns = [numbered(lengths) for lengths in histories]
    state, goal, first = (np.stack([column[i][:total] for column in columns], axis=1) for i in range(3))
    column = lambda x: jnp.asarray(x, jnp.float32)[..., None]
    obs = lambda s: {"observation": column(s), "achieved_goal": column(s), "desired_goal": column(goal)}
    nothing = jnp.zeros(state.shape)
    false = jnp.zeros(state.shape, bool)
    t = Transition(obs(state), nothing, nothing - 1, false, false, obs(state + 1), jnp.asarray(first), ())
    ring = memory.Ring.empty(jax.tree.map(lambda x: x[0, 0], t), B, C)
    for i in range(total):
        ring = add(ring, jax.tree.map(lambda x, i=i: x[i : i + 1], t))
    return ring, state[-C:], goal[-C:]


episodes = st.lists(st.integers(1, C), min_size=20, max_size=20)


@settings(max_examples=40, deadline=None)
@given(st.tuples(episodes, episodes), st.integers(1, 20), st.integers(0, 10**6))
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_against_a_slow_version(strategy, histories, total, seed):
    ring, state, goal = ring_of(histories, total)
    places = memory.draw(ring, jax.random.key(seed), N)
    t = jax.device_get(relabels[strategy](None, ring, places, jax.random.key(seed + 1)))
    wanted = t.obs["desired_goal"][:, 0]
    achieved = t.next_obs["achieved_goal"][:, 0]
    here = t.obs["observation"][:, 0]
    np.testing.assert_array_equal(t.next_obs["desired_goal"], t.obs["desired_goal"])
    np.testing.assert_array_equal(t.reward, np.where(achieved == wanted, 0.0, -1.0))
    for i in range(N):
        b = int(places.env[i])
        (row,) = np.flatnonzero(state[:, b] == here[i])
        episode = [s for s in state[:, b] if s // 100 == here[i] // 100]  # what the ring still holds of it
        allowed = {
            "future": [s + 1 for s in episode if s >= here[i]],
            "final": [episode[-1] + 1],
            "episode": [s + 1 for s in episode],
            "random": list((state + 1).ravel()),
        }[strategy]
        assert wanted[i] in allowed or wanted[i] == goal[row, b]


def chi_square(values, support):
    frequency = np.array([np.sum(values == s) for s in support])
    assert frequency.sum() == len(values)
    mean = len(values) / len(support)
    return np.sum((frequency - mean) ** 2 / mean), len(support) - 1


@pytest.fixture(scope="module")
def known():
    """One episode of 9 and one of 4 that goes on, in a ring that has lost the first 3 steps of the former."""
    ring, state, _ = ring_of(([3, 9, 9], [5, 9, 9]), 16)
    assert state[:, 0].tolist() == [*range(200, 209), *range(300, 304)]
    return ring


@pytest.mark.parametrize(
    ("strategy", "row", "support"),
    [
        ("future", 0, range(201, 210)),  # t = 0 of 9: t + 1 … T
        ("future", 6, range(207, 210)),
        ("future", 8, [209]),  # the last step: its own next state
        ("future", 10, range(302, 305)),  # of the unfinished one: up to the newest
        ("episode", 4, range(201, 210)),
        ("final", 2, [209]),
        ("final", 9, [304]),
        ("random", 3, [*range(201, 210), *range(301, 305)]),
    ],
)
def test_later_states_are_uniform(known, strategy, row, support):
    count = 40_000
    oldest = int(known.slot[0])
    places = memory.Places(jnp.zeros(count, jnp.int32), jnp.full(count, (oldest + row) % C))
    source = chosen[strategy](known, places, jax.random.bits(jax.random.key(1), (2, count)))
    goals = np.asarray(memory.next_obs(known, source)["achieved_goal"])[:, 0]
    if strategy == "random":
        goals = goals[np.asarray(source.env) == 0]
    chi2, freedom = chi_square(goals, list(support))
    assert chi2 < freedom + 4 * np.sqrt(2 * max(freedom, 1))


@pytest.mark.parametrize("k", [0, 1, 4, 8])
def test_share_in_hindsight(known, k):
    relabel = jax.jit(hindsight(Numbers(), TASKS, "future", k))
    count = 40_000
    places = memory.draw(known, jax.random.key(2), count)
    t = relabel(None, known, places, jax.random.key(3))
    share = float(np.mean(np.asarray(t.obs["desired_goal"]) >= 0))  # original goals are negative
    p = k / (k + 1)
    assert abs(share - p) <= 4 * np.sqrt(p * (1 - p) / count)


def test_everything_but_goal_and_reward_stays(known):
    places = memory.draw(known, jax.random.key(2), N)
    before, t = memory.read(known, places), always(None, known, places, jax.random.key(3))
    for name in ("observation", "achieved_goal"):
        np.testing.assert_array_equal(before.obs[name], t.obs[name])
        np.testing.assert_array_equal(before.next_obs[name], t.next_obs[name])
    for name in ("action", "terminated", "truncated", "first"):
        np.testing.assert_array_equal(getattr(before, name), getattr(t, name))
    assert (t.obs["desired_goal"] > t.obs["observation"]).all()  # k → ∞: all in hindsight, and all later


class Paid(BitFlipping):
    """Rewards of 0 and 1, where the presets of hindsight expect −1 and 0."""

    def compute_reward(self, *goals):
        return super().compute_reward(*goals) + 1.0


def test_a_range_that_rewards_leave_gives_way_or_is_refused():
    """Targets would be clipped to at most 0."""
    plain, tasks = jaxrl_envs.make("bit-flipping-5")
    config = config_of("her-dqn", {})
    of = lambda env: fitted(config, RunConfig(), env, tasks, ())[0].reward_range
    assert of(plain) == (-1.0, 0.0)
    assert of(Paid(5)) is None
    refused = "reward_range must hold all rewards, got -1 and 0; .* has rewards from 0 to 1$"
    with pytest.raises(UsageError, match=refused):
        jaxrl_hier.make("her-dqn", Paid(5), tasks, reward_range=(-1.0, 0.0))
    jaxrl_hier.make("her-dqn", Paid(5), tasks, reward_range=(0.0, 1.0))


class Leaving(PointReach):
    """Rewards that leave the range only where random steps lead."""

    def compute_reward(self, achieved_goal, desired_goal, params):
        far = jnp.linalg.norm(achieved_goal) > 0.3
        return super().compute_reward(achieved_goal, desired_goal, params) - 5.0 * far


def test_rewards_of_later_steps_count_for_the_range():
    env, tasks = Leaving(), jaxrl_envs.make("point-reach")[1]
    assert fitted(config_of("her-ddpg", {}), RunConfig(), env, tasks, ())[0].reward_range is None


def test_rewards_that_were_paid_are_computed_again():
    """On real episodes of bit flipping, with k = 0: nothing changes."""
    env, tasks = jaxrl_envs.make("bit-flipping-5")
    algorithm = dqn.make(
        dqn.Config(hidden=(8,), capacity=300, warmup_steps=300, environments=4, batch_size=8), env, tasks
    )
    ring = jax.jit(algorithm.init)(jax.random.key(0)).memory
    places = memory.draw(ring, jax.random.key(1), 500)
    before = memory.read(ring, places)
    after = jax.jit(hindsight(env, tasks, "future", 0))(None, ring, places, jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert (np.asarray(before.reward) == 0).any()


def test_wants_goals_and_a_strategy():
    env, tasks = jaxrl_envs.make("four-rooms")
    with pytest.raises(UsageError, match="needs an environment with goals, such as bit-flipping-15"):
        hindsight(env, tasks, "future", 4)
    env, tasks = jaxrl_envs.make("bit-flipping-5")
    with pytest.raises(UsageError, match="strategies of hindsight are future, final, episode, random; got 'past'"):
        hindsight(env, tasks, "past", 4)


class Variant(FourRoomsGoals):
    """Four rooms with something else told or paid, or other ends."""

    def __init__(self, paid=None, ends=False, told=True):
        super().__init__()
        self.paid, self.ends, self.told = paid, ends, told

    def compute_reward(self, achieved, desired, params):
        reward = super().compute_reward(achieved, desired, params)
        return reward if self.paid is None else jnp.where(reward == 0, *self.paid)

    def step_env(self, key, state, action, params):
        obs, after, reward, terminated, info = super().step_env(key, state, action, params)
        reward = self.compute_reward(obs["achieved_goal"], obs["desired_goal"], params)
        return obs, after, reward, terminated | (self.ends & (reward == 0)), info if self.told else {}


@pytest.mark.parametrize("name", ["her-dqn", "uvfa"])
def test_goals_that_end_episodes_are_refused(name):
    _, tasks = jaxrl_envs.make("four-rooms-goals")
    with pytest.raises(UsageError, match=r"the goal decides where episodes of .* end"):
        jaxrl_hier.make(name, Variant(ends=True), tasks, **SIZES[name])


class Bonus(GymnaxWrapper):
    """Pays otherwise where the goal is achieved, which random steps hardly ever do."""

    def step(self, key, state, action, params=None):
        obs, state, reward, terminated, truncated, info = self._env.step(key, state, action, params)
        return obs, state, jnp.where(reward == 0, 10.0, reward), terminated, truncated, info


class OwnRewards(Bonus):
    def compute_reward(self, *goals_and_params):
        reward = self._env.compute_reward(*goals_and_params)
        return jnp.where(reward == 0, 10.0, reward)


@pytest.mark.parametrize("name", ["bit-flipping-25", "four-rooms-goals"])
def test_other_rewards_at_the_goal_alone_are_refused(name):
    """They are noticed where steps achieve a goal in hindsight."""
    env, tasks = jaxrl_envs.make(name)
    jaxrl_hier.make("her-dqn", LogWrapper(env), tasks, **SIZES["her-dqn"])
    jaxrl_hier.make("her-dqn", OwnRewards(env), tasks, **SIZES["her-dqn"])
    with pytest.raises(UsageError, match="so hindsight would learn from wrong rewards"):
        jaxrl_hier.make("her-dqn", Bonus(env), tasks, **SIZES["her-dqn"])


class Pair(NamedTuple):
    goal: Any
    max_steps_in_episode: int = 5


class OfPairs(jaxrl_envs.BitFlipping):
    """Params that are no dataclass, and no name."""

    name = None

    @property
    def default_params(self):
        return Pair(np.ones(self.bits, np.int8))


def test_params_may_be_named_tuples():
    _, tasks = jaxrl_envs.make("bit-flipping-5")
    pairs = Tasks(lambda key: Pair(tasks.sample(key).goal), resample="episode")
    jaxrl_hier.make("her-dqn", OfPairs(5), pairs, **SIZES["her-dqn"])
    ends = lambda self, key, state, action, params: (lambda o, s, r, _, i: (o, s, r, r == 0, i))(
        *jaxrl_envs.BitFlipping.step_env(self, key, state, action, params)
    )
    with pytest.raises(UsageError, match="the goal decides where episodes of Ending end"):
        jaxrl_hier.make("her-dqn", type("Ending", (OfPairs,), {"step_env": ends})(5), pairs, **SIZES["her-dqn"])


@pytest.mark.parametrize("paid", [(1.0, 0.0), (0.0, 1.0), (-1.0, -2.0), (0.0, 0.0)])
def test_uvfa_needs_0_at_the_goal_and_less_elsewhere(paid):
    _, tasks = jaxrl_envs.make("four-rooms-goals")
    with pytest.raises(UsageError, match="uvfa needs rewards of 0 at the goal and below 0 elsewhere; those of"):
        jaxrl_hier.make("uvfa", Variant(paid), tasks, **SIZES["uvfa"])


def test_success_that_is_not_told_is_not_measured():
    """It was 0 in every episode."""
    _, tasks = jaxrl_envs.make("four-rooms-goals")
    measured = {}
    for told in (True, False):
        algorithm = jaxrl_hier.make("her-dqn", Variant(told=told), tasks, **SIZES["her-dqn"])
        measured[told] = jax.eval_shape(lambda a=algorithm: a.evaluate(a.init(KEY), KEY))
    assert measured[True].keys() - measured[False].keys() == {"success", "success_at_end"}


KEY = jax.random.key(0)
