"""Trials: several episodes of one task as one, against the inner environment played by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import spaces
from hypothesis import example, given, settings
from hypothesis import strategies as st

import jaxrl_envs
from jaxrl_envs import Trial, check_env
from jaxrl_envs.estimating_trial import EstimatingTrial
from jaxrl_envs.tabular_mdp import TabularMDP
from jaxrl_envs.tasks import from_batch
from jaxrl_envs.trial import TrialParams
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk
from jaxrl_hier.engine.types import Agent
from jaxrl_hier.meta import rl2
from tests.close import assert_close
from tests.line import Line, Params
from tests.probes import Lottery


@pytest.mark.parametrize("name", ["bandit-n10-k5", "tabular-mdp", "navigation2d", "CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("trial_number", [False, True])
def test_conforms(name, trial_number):
    env, tasks = jaxrl_envs.make(name)
    trial = Trial(env, 2, trial_number)
    check_env(trial, trial.tasks_of(tasks), episodes=2)


def played(trial, params, actions):
    """Observations [T + 1, F], rewards [T], terminated [T] of a trial with these actions [T]."""
    obs, state = jax.jit(trial.reset_env)(jax.random.key(0), params)
    step = jax.jit(trial.step_env)
    seen, rewards, ends = [obs], [], []
    for t, action in enumerate(actions):
        obs, state, reward, terminated, _ = step(jax.random.key(t + 1), state, action, params)
        seen.append(obs)
        rewards.append(reward)
        ends.append(terminated)
        assert not (trial.is_truncated(state, params) and not terminated)
    return np.array(seen), np.array(rewards), np.array(ends)


def test_what_the_agent_sees_of_a_trial():
    env, tasks = jaxrl_envs.make("tabular-mdp")  # 10 states, 5 actions, 10 steps
    trial = Trial(env, 3, trial_number=True)
    params = trial.tasks_of(tasks).sample(jax.random.key(3))
    actions = jax.random.randint(jax.random.key(4), (30,), 0, 5)
    obs, rewards, ends = played(trial, params, actions)
    state, action, reward, first, number = np.split(obs, np.cumsum([10, 5, 1, 1]), axis=1)
    assert (state.sum(1) == 1).all()
    assert (state[:30:10, 0] == 1).all()  # each inner episode begins in state 0
    np.testing.assert_array_equal(action[0], 0)
    np.testing.assert_array_equal(action[1:], np.eye(5)[np.asarray(actions)])
    assert_close(reward[:, 0], [0, *rewards])  # of the episode before, too
    np.testing.assert_array_equal(first[:, 0], [*([1, *[0] * 9] * 3), 0])  # not after the end: nothing begins there
    assert_close(number[:, 0], np.arange(31) / 30)
    np.testing.assert_array_equal(ends, np.arange(30) == 29)
    np.testing.assert_array_equal(trial.first_of_episode(obs), first[:, 0] == 1)
    means = np.asarray(params.task.rewards)[state[:30].argmax(1), np.asarray(actions)]
    assert abs((rewards - means).mean()) < 4 / 30**0.5  # unit noise around this task's means, in every episode


@struct.dataclass
class Count:
    """Steps since the reset, and what the reset drew."""

    time: jax.Array
    drawn: jax.Array


class Leave:
    """Action 1 ends an episode, and four steps do; what is seen and paid tells the step and the action."""

    name = "Leave"
    default_params = TrialParams(max_steps_in_episode=4)

    def reset_env(self, key, params):
        state = Count(jnp.int32(0), jax.random.uniform(key))
        return self.look(state), state

    def step_env(self, key, state, action, params):
        state = Count(state.time + 1, state.drawn)
        return self.look(state), state, 10.0 * state.time + action, action == 1, {}

    def is_truncated(self, state, params):
        return state.time >= params.max_steps_in_episode

    def look(self, state):
        return jnp.stack([state.time.astype(jnp.float32), state.drawn])

    def observation_space(self, params):
        return spaces.Box(0, 10, (2,), jnp.float32)

    def action_space(self, params=None):
        return spaces.Discrete(3)


ENDING = [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]  # a trial of three episodes has 12 steps at most
TRIALS = {number: Trial(Leave(), number, trial_number=True) for number in (1, 3)}


@jax.jit
def seen_of_trials(actions):
    """For each trial: observations [T + 1, F], rewards [T] and ends [T]."""

    def of(trial):
        params, keys = trial.default_params, jax.random.split(jax.random.key(0), len(ENDING) + 1)
        obs, state = trial.reset_env(keys[0], params)

        def step(state, now):
            key, action = now
            obs, state, reward, over, _ = trial.step_env(key, state, action, params)
            return state, (obs, reward, over)

        _, (later, rewards, ends) = jax.lax.scan(step, state, (keys[1:], actions))
        return jnp.concatenate([obs[None], later]), rewards, ends

    return {number: of(trial) for number, trial in TRIALS.items()}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=len(ENDING), max_size=len(ENDING)))
@example(ENDING)
def test_trials_against_a_slow_version(actions):
    for number, (obs, rewards, ends) in jax.device_get(seen_of_trials(jnp.array(actions))).items():
        time, left, drawn = 0, number, {obs[0, 1]}
        np.testing.assert_array_equal(obs[0, [0, 2, 3, 4, 5, 6, 7]], [0, 0, 0, 0, 0, 1, 0])
        for t, action in enumerate(actions):
            time += 1
            reward, ended = 10 * time + action, action == 1 or time == 4
            left -= ended
            again = ended and left > 0
            time = 0 if again else time
            shown = [time, *np.eye(3)[action], reward, again]
            np.testing.assert_array_equal(obs[t + 1, [0, 2, 3, 4, 5, 6]], shown)
            assert obs[t + 1, 7] == pytest.approx((t + 1) / (4 * number))
            assert (rewards[t], ends[t]) == (reward, left == 0)
            assert (obs[t + 1, 1] == obs[t, 1]) != again
            drawn.add(obs[t + 1, 1])
            if left == 0:
                break
        assert len(drawn) == number - left  # each episode begins anew


def test_estimates_against_a_slow_version():
    """Counts, and values of the counted process by recursion over its steps; and the same from what a player knows."""
    env = TabularMDP(horizon=4)
    trial, sweeps, steps = EstimatingTrial(env, 3, sweeps=3), 3, 12
    actions = np.random.default_rng(0).integers(0, 2, steps)
    obs, rewards, _ = played(trial, trial.default_params, actions)
    plain = played(Trial(env, 3), trial.default_params, actions)[0]
    np.testing.assert_array_equal(np.delete(obs, range(10, 20), axis=1), plain)
    state, first = obs[:, :10].argmax(1), obs[:, -1] > 0
    went, visits, total = np.zeros((10, 5, 10)), np.zeros((10, 5)), np.zeros((10, 5))

    def value(s, a, k):
        if not k or not visits[s, a]:
            return 0.0
        later = sum(went[s, a, t] * max(value(t, b, k - 1) for b in range(5)) for t in np.flatnonzero(went[s, a]))
        return (total[s, a] + later) / visits[s, a]

    notes, note = trial.begun(jnp.int32(state[0])), jax.jit(trial.noted)
    for t in range(steps):
        s, a = state[t], actions[t]
        assert_close(obs[t, 10:15], [value(s, b, sweeps) / sweeps for b in range(5)])
        assert_close(obs[t, 15:20], np.log1p(visits[s]))
        assert_close(np.concatenate(trial.shown(notes)), obs[t, 10:20])
        visits[s, a], total[s, a] = visits[s, a] + 1, total[s, a] + rewards[t]
        went[s, a, state[t + 1]] += not first[t + 1]
        notes = note(notes, a, jnp.float32(rewards[t]), jnp.int32(state[t + 1]), jnp.asarray(first[t + 1]))
    assert visits.max() > 1
    with pytest.raises(ValueError, match="estimates of action values need at least one sweep, and Discrete"):
        EstimatingTrial(env, 3, sweeps=0)


def test_inner_episodes_that_end_early_make_the_trial_short():
    env, _ = jaxrl_envs.make("CartPole-v1")
    trial = Trial(env, 3)
    obs, rewards, ends = played(trial, trial.default_params, [1] * 40)  # the pole falls after about ten steps
    first = np.flatnonzero(trial.first_of_episode(obs))
    over = int(np.argmax(ends))  # the last step
    assert len(first[first <= over]) == 3
    lengths = np.diff([*first[:3], over + 1])
    assert ((lengths >= 8) & (lengths <= 12)).all()
    assert (np.abs(obs[first[:3], :4]) <= 0.05).all()  # fresh states
    assert abs(obs[over + 1, 2]) > 0.2  # the true successor at the end: the pole has fallen
    assert (rewards[: over + 1] == 1).all()


def test_a_time_limit_of_an_inner_episode_does_not_end_the_trial():
    env, tasks = jaxrl_envs.make("navigation2d")
    trial = Trial(env, 2)
    params = trial.tasks_of(tasks).sample(jax.random.key(0))
    obs, _, ends = played(trial, params, jnp.full((200, 2), 0.3))
    np.testing.assert_array_equal(np.flatnonzero(ends), [199])
    np.testing.assert_array_equal(np.flatnonzero(trial.first_of_episode(obs)), [0, 100])
    np.testing.assert_array_equal(obs[100, :2], 0)  # back at the start
    assert_close(obs[100, 2:4], 0.3)  # and the last action is known


def test_the_task_stays_within_a_trial_and_changes_between_trials():
    env, tasks = jaxrl_envs.make("tabular-mdp")
    trial = Trial(env, 2)
    agent = Agent(
        init=None, start=lambda params, key: (), act=lambda p, carry, inp, key, greedy: (jnp.int32(0), carry, ())
    )
    tasks = trial.tasks_of(tasks)
    world = begin_worlds(trial, agent, tasks, (), jax.random.key(0), 3)
    five = jax.jit(lambda world: rollout(trial, agent, tasks, (), world, 5)[0])
    means = [np.asarray(world.task.task.rewards)]
    for _ in range(8):
        world = five(world)
        means.append(np.asarray(world.task.task.rewards))
    for earlier, later in ((0, 1), (1, 2), (2, 3), (4, 5), (6, 7)):
        np.testing.assert_array_equal(means[earlier], means[later])
    for earlier, later in ((3, 4), (7, 8)):
        assert (means[earlier] != means[later]).all()


@pytest.mark.rounding
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_costly_reset_changes_nothing_but_when_it_is_computed(seeds):
    """Inner episodes of uneven lengths: most steps have no end in any world, some have, of episodes and of trials."""
    env, tasks = jaxrl_envs.make("CartPole-v1")
    push = lambda p, carry, inp, key, greedy: (jax.random.bernoulli(key, p).astype(jnp.int32), carry, ())
    agent = Agent(init=None, start=lambda params, key: (), act=push)

    def run(costly):
        trial = Trial(env, 2)
        trial.costly_reset = trial.env.costly_reset = costly
        tasks_of_trials = trial.tasks_of(tasks)

        def one(key, p):
            world = begin_worlds(trial, agent, tasks_of_trials, p, key, 3)
            world, seen = rollout(trial, agent, tasks_of_trials, p, world, 120)
            return replace(world, key=jax.random.key_data(world.key)), seen

        traced = jax.jit(jax.vmap(one))
        inputs = jax.random.split(jax.random.key(0), seeds), jnp.linspace(0.7, 0.9, seeds)
        return traced(*inputs), "cond[" in str(jax.make_jaxpr(traced)(*inputs))

    (plain, unconditional), (costly, conditional) = run(False), run(True)
    assert (conditional, unconditional) == (True, False)
    assert_close(costly, plain)  # equal but for the rounding of two programs
    assert 4 <= np.asarray(plain[1].terminated[0]).sum() <= 40


@pytest.mark.parametrize("seeds", [1, 2])
def test_training_spares_the_costly_resets(seeds):
    env, tasks = jaxrl_envs.make("CartPole-v1")
    env.costly_reset = True
    config = rl2.Config(
        episodes_per_trial=2, memory_size=4, environments=2, minibatch_size=2, rollout_length=4, epochs=1
    )
    algorithm = rl2.make(config, env, tasks)
    states = jax.eval_shape(lambda: init_seeds(algorithm, RunConfig(seeds=seeds)))
    assert "cond[" in str(jax.make_jaxpr(make_chunk(algorithm, 1))(states))


def test_test_tasks_are_those_of_the_inner_distribution():
    env, tasks = jaxrl_envs.make("navigation2d")
    trial = Trial(env, 2)
    batch = trial.tasks_of(tasks).test_batch(4, jax.random.key(0))
    np.testing.assert_array_equal(batch.task.goal, tasks.test.goal[:4])
    np.testing.assert_array_equal(batch.max_steps_in_episode, [200] * 4)


class Drawn(Lottery):
    """What is seen first is drawn, as what is paid."""

    def reset_env(self, key, params):
        return jax.random.uniform(key, (2,), minval=0.01, maxval=0.99), super().reset_env(key, params)[1]


def test_steps_and_resets_of_a_trial_are_drawn_apart():
    """An episode's reward says nothing about where the next one begins, and each begins elsewhere."""
    trial = Trial(Drawn(), 40)
    obs, rewards, _ = played(trial, trial.default_params, [0] * 39)
    assert len(np.unique(obs[:, 0].round(5))) == 40
    assert not np.intersect1d(rewards.round(5), obs[:, :2].round(5)).size


def test_one_episode_adds_only_what_came_before():
    """A bandit's pulls in one episode: the same rewards as without a trial."""
    env, tasks = jaxrl_envs.make("bandit-n10-k5")
    trial, params = Trial(env), tasks.sample(jax.random.key(0))
    obs, rewards, ends = played(trial, trial.params_of(params), [0, 1, 2, 3, 4] * 2)
    np.testing.assert_array_equal(trial.first_of_episode(obs), np.arange(11) == 0)
    np.testing.assert_array_equal(ends, np.arange(10) == 9)
    assert set(rewards) <= {0.0, 1.0}


def test_what_cannot_be_a_trial():
    env, _ = jaxrl_envs.make("bandit-n10-k5")
    with pytest.raises(ValueError, match="at least one episode"):
        Trial(env, 0)

    class Endless:
        name = "Endless"
        default_params = ()
        observation_space = action_space = staticmethod(env.action_space)

    with pytest.raises(ValueError, match="Endless states no time limit"):
        Trial(Endless(), 2)

    class Odd(Endless):
        observation_space = staticmethod(lambda params: object())

    with pytest.raises(ValueError, match="object observations"):
        Trial(Odd(), 2)


class Costly(Line):
    """Sees to its actions itself, and tells the effort of each."""

    clips_actions = True
    facts = ("effort",)

    def step_env(self, key, state, action, params):
        obs, state, _, terminated, _ = super().step_env(key, state, action, params)
        effort = jnp.sum(action**2)
        return obs, state, -effort, terminated, {"effort": effort}


def test_a_trial_hands_on_what_the_environment_sees_to_and_declares():
    """Actions as they are, facts, and the training tasks."""
    env = Costly(discrete=False)
    tasks = from_batch(Params(target=jnp.arange(3.0), max_steps_in_episode=jnp.full(3, 4)))
    trial = Trial(env, episodes=2)
    of_trials = trial.tasks_of(tasks)
    agent = Agent(lambda key: (), lambda params, key: (), lambda *_: (jnp.full(1, 3.0), (), ()))
    worlds = begin_worlds(trial, agent, of_trials, (), jax.random.key(0), 2)
    _, seen = rollout(trial, agent, of_trials, (), worlds, 5, facts=True)
    np.testing.assert_array_equal(seen.facts["effort"], np.full((5, 2), 9.0))
    np.testing.assert_array_equal(seen.reward, np.full((5, 2), -9.0))
    np.testing.assert_array_equal(of_trials.train.task.target, [0, 1, 2])
    assert of_trials.time_limit() == 8


def test_the_step_is_a_share_of_the_longest_trial_where_it_is_given():
    """Of the own task's without: where limits differ, it then tells that of the task."""
    for limit, share in ((None, 1 / 8), (20, 1 / 20)):
        trial = Trial(Line(), 2, trial_number=True, limit=limit)
        params = trial.params_of(Line().default_params.replace(max_steps_in_episode=4))
        _, state = trial.reset_env(jax.random.key(0), params)
        obs = trial.step_env(jax.random.key(1), state, jnp.zeros(()), params)[0]
        assert float(obs[-1]) == pytest.approx(share)
