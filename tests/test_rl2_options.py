"""RL² over options: the decision process over options is the right one, and with each action as an option it is RL²."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_hier
from jaxrl_envs.four_rooms import FourRooms, hidden_goal_tasks
from jaxrl_envs.trial import Trial
from jaxrl_hier import UsageError
from jaxrl_hier.abstractions.options import Options, concatenate, primitive_options
from jaxrl_hier.combined import rl2_options
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.hierarchical.options import hallway_options
from jaxrl_hier.learning.advantages import rollout_advantage
from jaxrl_hier.learning.distributions import Categorical
from jaxrl_hier.meta import rl2
from tests.close import assert_close
from tests.compiling import quick_jit

SMALL = {
    "environments": 8,
    "minibatch_size": 4,
    "memory_size": 8,
    "epochs": 2,
    "eval_tasks": 8,
    "episodes_per_trial": 2,
}
LIMIT = 20


@pytest.fixture(scope="module")
def rooms():
    env = FourRooms()
    return env, hidden_goal_tasks(env, limit=LIMIT)


@pytest.fixture(scope="module")
def both(rooms):
    return concatenate(primitive_options(104, 4), hallway_options(rooms[0]))


@pytest.fixture(scope="module")
def trials(rooms, both):
    """Trials, their network, and of an untrained policy over primitive and hallway options: parameters, the worlds [B]
    before a rollout and its transitions [T, B, ...]."""
    env, tasks = rooms
    trial = Trial(env, 3)
    net = rl2_options.network_of(rl2_options.Config(**SMALL), trial, both)
    agent = rl2_options.agent_of(net, trial, both)

    def play(key):
        params = agent.init(key)
        worlds = begin_worlds(trial, agent, trial.tasks_of(tasks), params, key, 16)
        return params, worlds, rollout(trial, agent, trial.tasks_of(tasks), params, worlds, 3 * LIMIT)[1]

    return trial, net, *quick_jit(play)(jax.random.key(0))


def test_options_run_until_they_stop(trials, both):
    trial, _, _, _, t = trials
    chosen, drawn = np.asarray(t.extras.chosen), np.asarray(t.extras.option)
    state = np.asarray(rl2_options.state_in(both, t.obs))
    begins = np.asarray(trial.first_of_episode(t.obs) | t.first)
    initiation, policy, termination = map(np.asarray, both)
    long = 0
    for b in range(state.shape[1]):
        running = None
        for i in range(len(state)):
            assert initiation[drawn[i, b], state[i, b]]  # whatever is drawn may start
            if begins[i, b] or termination[running, state[i, b]] == 1:
                assert chosen[i, b]
            elif termination[running, state[i, b]] == 0:
                assert not chosen[i, b]
                long += 1
            running = drawn[i, b] if chosen[i, b] else running
            assert policy[running, state[i, b], t.action[i, b]] > 0
    assert long > 50
    assert 0.1 < chosen.mean() < 0.95


def test_advantages_are_those_of_the_process_over_options():
    """Against sums over options written out: reward Σ γ^i r_i and discount γ^k, values where one is chosen alone."""
    rng, steps, discount, lam = np.random.default_rng(0), 40, 0.9, 0.7
    reward, value = rng.normal(size=(steps, 2)), rng.normal(size=(steps, 2))
    terminated = rng.random((steps, 2)) < 0.08
    chosen = rng.random((steps, 2)) < 0.4
    chosen[0], chosen[1:][terminated[:-1]] = True, True
    terminated[-1] = True
    per_step = rl2_options.between_choices(lam, jnp.asarray(chosen))
    found, _ = rollout_advantage(jnp.asarray(reward), jnp.asarray(value), jnp.asarray(terminated), discount, per_step)
    for b in range(2):
        advantage = 0.0
        for i in reversed(np.flatnonzero(chosen[:, b])):
            k = 1
            while not terminated[i + k - 1, b] and not chosen[i + k, b]:
                k += 1
            total = sum(discount**j * reward[i + j, b] for j in range(k))
            if terminated[i + k - 1, b]:
                advantage = total - value[i, b]
            else:
                error = total + discount**k * value[i + k, b] - value[i, b]
                advantage = error + discount**k * lam * advantage
            assert_close(found[i, b], advantage)


@pytest.mark.parametrize("learner", ["ppo", "a2c"])
def test_only_decisions_are_learned_from(trials, learner):
    """What was drawn while an option ran, and how probable it was, changes no loss; what was chosen does."""
    _, net, params, before, t = trials
    config = rl2.Config(**SMALL, learner=learner)
    loss = quick_jit(lambda batch: rl2.batch_loss(config, net, params, batch, 0.1)[0])
    batch = rl2_options.batch_of(config, before, t)
    running, last = ~np.asarray(t.extras.chosen), np.arange(len(t.reward))[:, None] == len(t.reward) - 1
    np.testing.assert_array_equal(batch.weight == 0, running | (last & ~np.asarray(t.terminated)))
    elsewhere = lambda x, where: jnp.where(where, jnp.roll(x, 1, axis=1), x)
    changed = lambda where: batch._replace(
        action=elsewhere(batch.action, where),
        log_prob=elsewhere(batch.log_prob, where),
        advantage=elsewhere(batch.advantage, where),
        target=elsewhere(batch.target, where),
    )
    assert float(loss(changed(running))) == float(loss(batch))
    assert float(loss(changed(~running))) != float(loss(batch))


def test_options_that_may_not_start_have_no_probability(both):
    equal = Categorical(jnp.zeros((104, 12)))
    distribution = rl2_options.that_may_start(both, equal, jax.nn.one_hot(jnp.arange(104), 104))
    probability = np.asarray(jax.nn.softmax(distribution.logits))
    available = np.asarray(both.initiation.T)
    np.testing.assert_array_equal(probability > 0, available)
    assert_close(distribution.entropy(), np.log(available.sum(1)))
    assert np.isfinite(distribution.kl(distribution)).all()


def test_with_each_action_as_an_option_it_is_rl2(rooms):
    """After two iterations, parameters and returns are those of RL²: the draws of options are those of actions."""
    plain = jaxrl_hier.make("rl2", *rooms, **SMALL)
    by_options = jaxrl_hier.make("rl2-options", *rooms, **SMALL, gae_lambda=0.3, options="primitive")
    states = [quick_jit(algorithm.init)(jax.random.key(0)) for algorithm in (plain, by_options)]
    for _ in range(2):
        states, metrics = zip(*(quick_jit(a.step)(s) for a, s in zip((plain, by_options), states)))
        assert_close(metrics[0]["grad_norm"], metrics[1]["grad_norm"])
        assert_close(metrics[0]["return"].mean(), metrics[1]["return"].mean())
    jax.tree.map(assert_close, states[0].params, states[1].params)


def test_what_cannot_work_is_said(rooms, both):
    env, tasks = rooms
    with pytest.raises(UsageError, match="normalize_observations must be off with options"):
        jaxrl_hier.make("rl2-options", env, tasks, **SMALL, normalize_observations=True)
    with pytest.raises(UsageError, match=r"hallways exist in four rooms only, not in Taxi.*"):
        jaxrl_hier.make("rl2-options", "taxi", **SMALL)
    with pytest.raises(UsageError, match=r"the options' policy must be \[options, states, actions\]"):
        rl2_options.make(rl2_options.Config(**SMALL), env, tasks, Options(*(x[:, :50] for x in both)))
