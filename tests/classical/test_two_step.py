"""Learners of the two-step task: against slow loops and exact beliefs, and how the two kinds are told apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs.tabular_mdp import TwoStep, TwoStepParams
from jaxrl_envs.tasks import single
from jaxrl_hier.checks import UsageError
from jaxrl_hier.classical.two_step import (
    Trial,
    bayes_optimal,
    interaction,
    model_based,
    model_free,
    stay_probabilities,
)
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.types import ActInput
from tests.close import assert_close

KEY = jax.random.key(0)
TASK = TwoStepParams(common=np.float32(0.75))
COIN = TASK.replace(high=np.float32(0.5), low=np.float32(0.5))


@pytest.fixture(scope="module")
def env():
    return TwoStep()


@pytest.fixture(scope="module")
def play(env):
    """(agent, task, episodes) -> transitions [200, episodes] of one episode each."""

    def play(agent, task, episodes):
        params, tasks = agent.init(KEY), single(task)
        worlds = begin_worlds(env, agent, tasks, params, KEY, episodes)
        return jax.jit(lambda worlds: rollout(env, agent, tasks, params, worlds, 200)[1])(worlds)

    return play


@pytest.fixture(scope="module")
def played(play):
    """By learner: transitions in the task, and with rewards by the toss of a coin."""
    agents = {"free": model_free(0.3, 0.2), "based": model_based(0.3, 0.2, 0.75), "optimal": bayes_optimal(TASK)}
    return {name: (play(agent, TASK, 400), play(agent, COIN, 400)) for name, agent in agents.items()}


def learned_by(agent, t, i):
    """What the agent had learned [trials, 2] before each choice of episode i, from what happened there."""
    setting, trial, asked = agent.init(KEY), agent.start((), KEY), []
    act = jax.jit(lambda trial, inp: agent.act(setting, trial, inp, KEY, False)[1])
    for step in range(40):
        before = max(step - 1, 0)
        first = jnp.array(step == 0)
        inp = ActInput(t.obs[step, i], t.action[before, i], jnp.where(first, 0, t.reward[before, i]), first)
        trial = act(trial, inp)
        if step % 2 == 0:
            asked.append(np.asarray(trial.learned))
            # what it would draw is not what was drawn then: go on with the choice that was made
            trial = trial._replace(choice=t.action[step, i].astype(jnp.int32))
    return np.array(asked)


def test_model_free_values_against_a_slow_loop(played):
    t = played["free"][0]
    for i in range(2):
        q, expected = np.full(2, 0.5), []
        for n in range(20):
            expected.append(q.copy())
            choice, reward = int(t.action[2 * n, i]), float(t.reward[2 * n + 1, i])
            q[choice] += 0.3 * (reward - q[choice])
        assert_close(learned_by(model_free(0.3, 0.2), t, i), expected)


def test_model_based_values_against_a_slow_loop(played):
    t = played["based"][0]
    for i in range(2):
        v, expected = np.full(2, 0.5), []
        for n in range(20):
            expected.append(v.copy())
            state, reward = int(t.obs[2 * n + 1, i]), float(t.reward[2 * n + 1, i])
            v[state - 1] += 0.3 * (reward - v[state - 1])
        assert_close(learned_by(model_based(0.3, 0.2, 0.75), t, i), expected)


def test_beliefs_against_all_histories(played):
    """Of the optimal player: Bayes' rule over every sequence of better states, for the first trials."""
    t = played["optimal"][0]
    for i in range(2):
        beliefs = learned_by(bayes_optimal(TASK), t, i)
        for n in range(8):
            weight = np.zeros(2)
            for code in range(2 ** (n + 1)):
                better = [1 + (code >> k & 1) for k in range(n + 1)]
                p = 0.5
                for k in range(n):
                    pays = 0.9 if int(t.obs[2 * k + 1, i]) == better[k] else 0.1
                    p *= pays if float(t.reward[2 * k + 1, i]) > 0 else 1 - pays
                    p *= 0.025 if better[k] != better[k + 1] else 0.975
                weight[better[n] - 1] += p
            assert_close(beliefs[n], weight / weight.sum())


@pytest.mark.parametrize("make", [model_free, lambda rate, temperature: model_based(rate, temperature, common=0.75)])
def test_choices_by_softmax(make):
    agent = make(0.3, 0.25)
    learned = jnp.array([0.8, 0.3])
    worth = np.array([0.8, 0.3]) if make is model_free else np.array([0.675, 0.425])
    inp = ActInput(jnp.int32(0), jnp.int32(0), jnp.zeros(()), jnp.array(True))
    trial = Trial(learned, jnp.int32(0), jnp.int32(1))
    draw = jax.vmap(lambda key: agent.act(agent.init(KEY), trial, inp, key, False)[0])
    share = float(jnp.mean(draw(jax.random.split(KEY, 20_000)) == 0))
    odds = np.exp(worth / 0.25)
    assert share == pytest.approx(odds[0] / odds.sum(), abs=4 * 0.5 / 20_000**0.5)


def test_nobody_beats_the_optimum(played):
    reward = {name: float(t.reward.sum(0).mean()) for name, (t, _) in played.items()}
    assert reward["free"] < reward["based"] < reward["optimal"]
    assert reward["optimal"] < 0.75 * 90 + 0.25 * 10  # always towards the better state


def test_stay_probabilities_by_hand():
    # choices 0 0 1 1; states 1 (common), 2 (rare), 2 (common); rewards 1, 0, 1
    obs = jnp.array([0, 1, 0, 2, 0, 2, 0, 1])
    action = jnp.array([0, 9, 0, 9, 1, 9, 1, 9])
    reward = jnp.array([0.0, 1, 0, 0, 0, 1, 0, 0])
    stay = np.asarray(stay_probabilities(obs, action, reward))
    np.testing.assert_array_equal(stay, [[0, np.nan], [np.nan, 1]])
    assert interaction(np.array([[0.9, 0.2], [0.4, 0.8]])) == pytest.approx((0.8 - 0.2) - (0.4 - 0.9))


def test_the_two_kinds_are_told_apart(played):
    """By the toss of a coin the model-free learner's interaction is zero; in the task it is not, see the module."""

    def estimated(name, which):
        t = played[name][which]
        parts = [
            float(interaction(stay_probabilities(*(x[:, i::20] for x in (t.obs, t.action, t.reward)))))
            for i in range(20)
        ]
        return np.mean(parts), np.std(parts, ddof=1) / 20**0.5

    mean, error = estimated("free", 1)
    assert abs(mean) < 4 * error < 0.05
    assert estimated("based", 1)[0] > 0.3
    assert estimated("optimal", 1)[0] > 0.3
    in_the_task = [estimated(name, 0)[0] for name in ("free", "based", "optimal")]
    assert 0.2 < in_the_task[0] < min(in_the_task[1:])


def test_bad_settings():
    with pytest.raises(UsageError, match=r"learning_rate must lie in \[0, 1\], got 1.5"):
        model_free(1.5)
    with pytest.raises(UsageError, match="temperature must be positive, got 0"):
        model_based(0.5, 0.0)
    with pytest.raises(UsageError, match=r"common must lie in \[0, 1\], got 2"):
        model_based(common=2)
    with pytest.raises(UsageError, match=r"add up to one .* got 0\.8 \+ 0\.1 and 0\.75"):
        bayes_optimal(TASK.replace(high=np.float32(0.8)))
