"""Model-free and model-based learners of the two-step task (Daw et al., 2011), and how they are told apart.

A trial of `jaxrl_envs.tabular_mdp.TwoStep` is a choice a, the state s it leads to and a reward r. Repeating a choice
after a reward is what a model-free learner does, whether the transition was common or rare. One that knows the
transitions takes a reward after a rare one as a reason to choose the other: the reward makes the state better that the
other choice leads to. So a reward makes staying with a choice more probable for the first, whereas for the second that
depends on the transition; the interaction reward × transition is what Wang et al. (Learning to reinforcement learn,
2016) find in their learner, which has no model built in.

In the task itself a model-free learner has some interaction too. Whoever has learned which choice is the better one
stays with it, and gets more rewards after common transitions, and fewer after rare ones, than with the other (Akam,
Costa & Dayan, 2015). Where rewards are drawn with probability ½ everywhere, `high` = `low` = ½, nothing about a choice
can be told from its reward and transition together, and the interaction of a model-free learner is zero.

    model_free      Q(a) ← Q(a) + α [r − Q(a)]                                      the trial's end alone: TD(1)
    model_based     V(s) ← V(s) + α [r − V(s)],   Q(a) = p V(s_a) + (1 − p) V(s'_a)   s_a: where a usually leads
    bayes_optimal   b = P(state 1 is the better one | all that was seen), towards the likelier one

The first two start at ½ and choose by softmax of Q / τ; the settings (α, τ) are the parameters, so that one compiled
program serves a grid of them. The third is exact: with reward probabilities that add up to one either state tells the
same about which is better, so there is nothing to explore and the myopic choice is optimal; no learner expects more.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_envs.tabular_mdp import TwoStepParams
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import ActInput, Agent, Params


class Trial(NamedTuple):
    """What a learner remembers: what it has learned, and the trial that it is in."""

    learned: jax.Array  # [2]
    choice: jax.Array  # [] int32
    state: jax.Array  # [] int32, 1 or 2, of the second stage


def model_free(learning_rate: float = 0.5, temperature: float = 0.2) -> Agent:
    """Values of choices. Parameters: learning rate α and temperature τ."""

    def learn(params: Params, q: jax.Array, choice: jax.Array, state: jax.Array, reward: jax.Array) -> jax.Array:
        return q.at[choice].add(params[0] * (reward - q[choice]))

    return _learner(_setting(learning_rate, temperature), learn, lambda params, q: q / params[1])


def model_based(learning_rate: float = 0.5, temperature: float = 0.2, common: float = 0.8) -> Agent:
    """Values of states, and the probability `common` of usual transitions. Parameters: as `model_free`."""
    if not 0 <= common <= 1:
        raise UsageError(f"common must lie in [0, 1], got {common}")

    def learn(params: Params, v: jax.Array, choice: jax.Array, state: jax.Array, reward: jax.Array) -> jax.Array:
        return v.at[state - 1].add(params[0] * (reward - v[state - 1]))

    def preference(params: Params, v: jax.Array) -> jax.Array:
        return (common * v + (1 - common) * v[::-1]) / params[1]

    return _learner(_setting(learning_rate, temperature), learn, preference)


def bayes_optimal(task: TwoStepParams) -> Agent:
    """Exact belief for a known task; at the start either choice. `learned` holds b and 1 − b. No parameters."""
    if abs(float(task.high) + float(task.low) - 1) > 1e-6 or task.common < 0.5:
        raise UsageError(
            "the myopic choice is optimal only for reward probabilities that add up to one and common transitions of "
            f"at least one half, got {float(task.high):g} + {float(task.low):g} and {float(task.common):g}"
        )
    low, high, switch = float(task.low), float(task.high), float(task.switch)

    def learn(params: Params, b: jax.Array, choice: jax.Array, state: jax.Array, reward: jax.Array) -> jax.Array:
        pays = jnp.where(jnp.arange(1, 3) == state, high, low)  # at `state`, if state 1 or 2 is the better one
        b = b * jnp.where(reward > 0, pays, 1 - pays)
        b = b / jnp.sum(b)
        return (1 - switch) * b + switch * b[::-1]

    return _learner((), learn, lambda params, b: jnp.where(b == b[::-1], 0.0, 1e6 * (b - b[::-1])))


def _setting(learning_rate: float, temperature: float) -> tuple[float, float]:
    if not 0 <= learning_rate <= 1:
        raise UsageError(f"learning_rate must lie in [0, 1], got {learning_rate}")
    if not temperature > 0:
        raise UsageError(f"temperature must be positive, got {temperature}")
    return learning_rate, temperature


def _learner(setting: Any, learn: Callable[..., jax.Array], preference: Callable[..., jax.Array]) -> Agent:
    """An agent that learns when a trial is over and draws its next choice by softmax of `preference`."""

    def init(key: jax.Array) -> Params:
        return jax.tree.map(jnp.float32, setting)

    def start(params: Params, key: jax.Array) -> Trial:
        return Trial(jnp.full(2, 0.5), jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32))

    def act(params: Params, trial: Trial, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Trial, Any]:
        choosing = inp.obs == 0
        learned = learn(params, trial.learned, trial.choice, trial.state, inp.prev_reward)
        learned = jnp.where(choosing & ~inp.first, learned, trial.learned)
        drawn = jax.random.categorical(key, preference(params, learned)).astype(jnp.int32)
        choice = jnp.where(choosing, drawn, trial.choice)
        return choice, Trial(learned, choice, jnp.where(choosing, trial.state, inp.obs)), ()

    return Agent(init=init, start=start, act=act)


def stay_probabilities(obs: jax.Array, action: jax.Array, reward: jax.Array) -> jax.Array:
    """How often a choice was repeated in the next trial, [2, 2]: without or with a reward, after a rare or a common
    transition. NaN where there was none.

    Args:
        obs, action, reward: [T, ...], whole episodes of the two-step task from their first step on.
    """
    choice, state, rewarded = action[0::2], obs[1::2], (reward[1::2] > 0).astype(int)
    common = (state == choice + 1).astype(int)
    case = (2 * rewarded + common)[:-1]
    stayed = choice[1:] == choice[:-1]
    of_case = [case == i for i in range(4)]
    return jnp.stack([jnp.sum(stayed & c) / jnp.sum(c) for c in of_case]).reshape(2, 2)


def interaction(stay: Any) -> Any:
    """Reward × transition, [...], of stay probabilities [..., 2, 2]: what a reward changes after a common transition,
    minus what it changes after a rare one."""
    change = stay[..., 1, :] - stay[..., 0, :]
    return change[..., 1] - change[..., 0]
