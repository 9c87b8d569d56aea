"""The rollout against a plain Python loop, and the masks over it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import boxes
from jaxrl_envs.navigation2d import NavigationParams
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.engine.loops import EpisodeLog, begin_worlds, online
from jaxrl_hier.engine.rollout import (
    begin,
    complete_episodes,
    ended,
    episode_time,
    episode_totals,
    first_episode,
    rollout,
)
from jaxrl_hier.engine.types import Agent, TrainState, Transition
from jaxrl_hier.testing import assert_equal
from tests.close import assert_close

LENGTH = 23
# counts the steps of an episode in its carry, and walks right
counter = Agent(
    init=lambda key: jnp.array(0.9),
    start=lambda params, key: jnp.zeros((), jnp.int32),
    act=lambda params, carry, inp, key, greedy: (
        jnp.stack([params, jax.random.normal(key)]),
        carry + 1,
        {"count": carry, "prev_reward": inp.prev_reward, "prev_action": inp.prev_action},
    ),
)


def short_tasks(resample):
    def sample(key):
        goal = jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5)
        return NavigationParams(goal=goal, max_steps_in_episode=7)

    return Tasks(sample=sample, resample=resample)


@pytest.fixture(scope="module", params=["never", "episode"])
def played(request, navigation):
    env, tasks = navigation[0], short_tasks(request.param)
    worlds = jax.vmap(lambda k: begin(env, counter, tasks, jnp.array(0.9), k))(jax.random.split(jax.random.key(0), 6))
    final, transitions = jax.jit(lambda w: rollout(env, counter, tasks, jnp.array(0.9), w, LENGTH))(worlds)
    return request.param, env, worlds, final, transitions


@pytest.mark.rounding
def test_against_a_python_loop(played):
    resample, env, worlds, _, transitions = played
    b = 2
    task = jax.tree.map(lambda x: x[b], worlds.task)
    state = jax.tree.map(lambda x: x[b], worlds.env_state)
    obs, since_reset, prev_reward = worlds.inp.obs[b], 0, 0.0
    for t in range(LENGTH):
        row = jax.tree.map(lambda x, t=t: x[t, b], transitions)
        assert_close(row.obs, obs, scale=1)
        assert bool(row.first) == (since_reset == 0)
        assert int(row.extras["count"]) == since_reset  # the carry lives as long as an episode
        assert float(row.extras["prev_reward"]) == pytest.approx(prev_reward)
        obs, state, reward, _, _ = env.step_env(jax.random.key(0), state, row.action, task)
        assert_close(row.next_obs, obs, scale=1)  # the true successor, at an episode's end too
        assert float(row.reward) == pytest.approx(float(reward), abs=1e-5) or resample == "episode"
        since_reset += 1
        assert bool(row.truncated) == (since_reset == 7 and not bool(row.terminated))
        prev_reward = float(row.reward)
        if row.terminated or row.truncated:
            obs, state = env.reset_env(jax.random.key(0), task)
            since_reset, prev_reward = 0, 0.0


def test_facts_of_the_environment_are_recorded_when_asked():
    env, tasks = jaxrl_envs.make("bandit-independent")
    second = Agent(lambda key: (), lambda params, key: (), lambda params, carry, *rest: (jnp.int32(1), carry, ()))
    worlds = begin_worlds(env, second, tasks, (), jax.random.key(0), 3)
    _, told = rollout(env, second, tasks, (), worlds, 4, facts=True)
    p = np.asarray(worlds.task.probabilities)
    np.testing.assert_array_equal(told.facts["regret"], np.tile(p.max(axis=1) - p[:, 1], (4, 1)))
    _, silent = rollout(env, second, tasks, (), worlds, 4)
    assert silent.facts == ()
    assert_equal(silent, told._replace(facts=()))


def test_tasks_are_redrawn_when_asked_and_only_then(played):
    resample, _, worlds, final, _ = played
    kept = np.all(np.asarray(worlds.task.goal) == np.asarray(final.task.goal), axis=1)
    assert kept.all() if resample == "never" else not kept.any()


def test_world_sums_the_running_episode(played):
    _, _, _, final, transitions = played
    done = np.asarray(ended(transitions))
    for b in range(6):
        last = np.nonzero(done[:, b])[0][-1]
        assert int(final.ep_length[b]) == LENGTH - 1 - last
        assert float(final.ep_return[b]) == pytest.approx(float(transitions.reward[last + 1 :, b].sum()), abs=1e-5)


@pytest.mark.rounding
def test_cutting_a_rollout_in_two_changes_nothing(played):
    resample, env, worlds, final, transitions = played
    tasks, params = short_tasks(resample), jnp.array(0.9)
    middle, a = rollout(env, counter, tasks, params, worlds, 9)
    end, b = rollout(env, counter, tasks, params, middle, LENGTH - 9)
    joined = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), a, b)
    assert_close(joined, transitions)
    assert (jax.random.key_data(end.key) == jax.random.key_data(final.key)).all()


def test_masks():
    t = lambda rows: jnp.array(rows, bool)[:, None]
    zeros = jnp.zeros((6, 1))
    transitions = Transition(
        obs=zeros, action=zeros, reward=zeros, next_obs=zeros, extras=(),
        terminated=t([0, 1, 0, 0, 0, 0]), truncated=t([0, 0, 0, 1, 0, 0]), first=t([1, 0, 1, 0, 1, 0]),
    )  # fmt: skip
    assert first_episode(transitions)[:, 0].tolist() == [1, 1, 0, 0, 0, 0]
    assert complete_episodes(transitions)[:, 0].tolist() == [1, 1, 1, 1, 0, 0]
    assert episode_time(transitions)[:, 0].tolist() == [0, 1, 0, 1, 0, 1]


def test_episode_totals_carry_over_from_the_rollout_before(played):
    resample, env, worlds, _, whole = played
    tasks, params = short_tasks(resample), jnp.array(0.9)
    middle, _ = rollout(env, counter, tasks, params, worlds, 10)
    _, rest = rollout(env, counter, tasks, params, middle, LENGTH - 10)
    totals, lengths = episode_totals(worlds, whole)
    later_totals, later_lengths = episode_totals(middle, rest)
    assert_close(later_totals, totals[10:])
    np.testing.assert_array_equal(lengths[10:], later_lengths)
    np.testing.assert_array_equal(lengths, episode_time(whole) + 1)


@pytest.mark.parametrize("length", [1, 5])
def test_online_counts_and_logs_episodes(navigation, length):
    env, tasks = navigation[0], short_tasks("never")
    params = jnp.array(0.9)
    update = lambda params, learner, before, transitions, key: (params, learner, {"reward": transitions.reward.mean()})
    step = jax.jit(online(env, counter, tasks, update, length=length))
    worlds = begin_worlds(env, counter, tasks, params, jax.random.key(3), 4)
    state = TrainState(params, (), worlds, EpisodeLog.empty(4, 3), jax.random.key(0), jnp.zeros((), jnp.int32))
    _, transitions = rollout(env, counter, tasks, params, worlds, 30)
    totals, lengths = episode_totals(worlds, transitions)
    done = np.asarray(ended(transitions))
    returned = steps = episodes = 0.0
    for _ in range(30 // length):
        state, metrics = step(state)
        returned += float(metrics["return"].total)
        steps += float(metrics["episode_length"].total)
        episodes += float(metrics["return"].count)
    assert episodes == done.sum()
    assert returned == pytest.approx(float((totals * done).sum()), rel=1e-5)
    assert steps == float((lengths * done).sum())
    np.testing.assert_array_equal(state.memory.count, done.sum(0))
    for b in range(4):
        np.testing.assert_array_equal(state.memory.lengths[b], np.asarray(lengths)[done[:, b], b][:3])
        assert_close(state.memory.returns[b], np.asarray(totals)[done[:, b], b][:3])


@pytest.mark.parametrize("name", ["tabular-mdp", "bandit-n10-k5", "two-colours", "point-gather"])
def test_a_rollout_does_not_depend_on_whether_resets_are_costly(name):
    """Over three episodes, in which tasks are drawn anew."""
    found = []
    for costly in (True, False):
        env, tasks = jaxrl_envs.make(name)
        assert env.costly_reset
        env.costly_reset, tasks = costly, tasks._replace(resample="episode")
        space = env.action_space(env.default_params)
        act = lambda params, carry, inp, key, greedy, space=space: (boxes.sample(space, key), carry, ())
        agent, limit = Agent(lambda key: (), lambda params, key: (), act), tasks.time_limit()

        def played(key, env=env, tasks=tasks, agent=agent, limit=limit):
            return rollout(env, agent, tasks, (), begin_worlds(env, agent, tasks, (), key, 3), 2 * limit + 3)

        found.append(jax.device_get(jax.jit(played)(jax.random.key(0))))
    assert_close(*found)
