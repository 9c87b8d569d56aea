"""Model-free and model-based learners for the two-step task (Daw et al., 2011), and a test that distinguishes them.

A trial of `jaxrl_envs.tabular_mdp.TwoStep` is a choice a, the state s it leads to and a reward r. A model-free learner
tends to repeat a rewarded choice, whether its transition was common or rare. A model-based learner switches after a
rewarded rare transition, because the other choice usually leads to the rewarded state. So rewards increase the
probability of staying for the first, while for the second the effect depends on the transition. Wang et al. (Learning
to reinforcement learn, 2016) find this interaction reward × transition in their learner, which has no built-in model.

In the task itself a model-free learner shows some interaction too. A learner that knows the better choice stays with
it, and so gets more rewards after common transitions and fewer after rare ones than with the other choice (Akam, Costa
& Dayan, 2015). If all reward probabilities are ½ (`high` = `low` = ½), reward and transition together carry no
information about the choice, and the interaction of a model-free learner is zero.

    model_free      Q(a) ← Q(a) + α [r − Q(a)]                                      a Monte Carlo update, TD(1)
    model_based     V(s) ← V(s) + α [r − V(s)],   Q(a) = p V(s_a) + (1 − p) V(s'_a)   s_a: the usual successor of a
    bayes_optimal   b = P(state 1 is the better one | history), chooses the likelier one

The first two start at ½ and choose by softmax of Q / τ; their settings (α, τ) are parameters, so that one compiled
program serves a grid of settings. The third is exact: if the reward probabilities add up to one, both states are
equally informative, exploration has no value and the myopic choice is optimal. No learner has a higher expected return.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_envs.tabular_mdp import TwoStepParams
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import ActInput, Agent, Params


class Trial(NamedTuple):
    """A learner's carry: what it has learned, and the current trial."""

    learned: jax.Array  # [2]
    choice: jax.Array  # [] int32
    state: jax.Array  # [] int32, 1 or 2: the second-stage state


def model_free(learning_rate: float = 0.5, temperature: float = 0.2) -> Agent:
    """Learns values of choices. Parameters: learning rate α and temperature τ."""

    def learn(params: Params, q: jax.Array, choice: jax.Array, state: jax.Array, reward: jax.Array) -> jax.Array:
        return q.at[choice].add(params[0] * (reward - q[choice]))

    return _learner(_setting(learning_rate, temperature), learn, lambda params, q: q / params[1])


def model_based(learning_rate: float = 0.5, temperature: float = 0.2, common: float = 0.8) -> Agent:
    """Learns values of states; knows the probability `common` of usual transitions. Parameters as in `model_free`."""
    if not 0 <= common <= 1:
        raise UsageError(f"common must lie in [0, 1], got {common}")

    def learn(params: Params, v: jax.Array, choice: jax.Array, state: jax.Array, reward: jax.Array) -> jax.Array:
        return v.at[state - 1].add(params[0] * (reward - v[state - 1]))

    def preference(params: Params, v: jax.Array) -> jax.Array:
        return (common * v + (1 - common) * v[::-1]) / params[1]

    return _learner(_setting(learning_rate, temperature), learn, preference)


def bayes_optimal(task: TwoStepParams) -> Agent:
    """Exact belief for a known task; ties are broken at random. `learned` holds b and 1 − b. No parameters."""
    if abs(float(task.high) + float(task.low) - 1) > 1e-6 or task.common < 0.5:
        raise UsageError(
            "the myopic choice is optimal only for reward probabilities that add up to one and common transitions of "
            f"at least one half, got {float(task.high):g} + {float(task.low):g} and {float(task.common):g}"
        )
    low, high, switch = float(task.low), float(task.high), float(task.switch)

    def learn(params: Params, b: jax.Array, choice: jax.Array, state: jax.Array, reward: jax.Array) -> jax.Array:
        likelihood = jnp.where(jnp.arange(1, 3) == state, high, low)  # of a reward at `state`, if 1 or 2 is better
        b = b * jnp.where(reward > 0, likelihood, 1 - likelihood)
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
    """An agent that learns at the end of each trial and samples its next choice by softmax of `preference`."""

    def init(key: jax.Array) -> Params:
        return jax.tree.map(jnp.float32, setting)

    def start(params: Params, key: jax.Array) -> Trial:
        return Trial(jnp.full(2, 0.5), jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32))

    def act(params: Params, trial: Trial, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Trial, Any]:
        choosing = inp.obs == 0
        learned = learn(params, trial.learned, trial.choice, trial.state, inp.prev_reward)
        learned = jnp.where(choosing & ~inp.first, learned, trial.learned)
        sampled = jax.random.categorical(key, preference(params, learned)).astype(jnp.int32)
        choice = jnp.where(choosing, sampled, trial.choice)
        return choice, Trial(learned, choice, jnp.where(choosing, trial.state, inp.obs)), ()

    return Agent(init=init, start=start, act=act)


def stay_probabilities(obs: jax.Array, action: jax.Array, reward: jax.Array) -> jax.Array:
    """Frequency of repeating a choice in the next trial, [2, 2]: without or with a reward, after a rare or a common
    transition; NaN where a case did not occur.

    Args:
        obs, action, reward: [T, ...], complete episodes of the two-step task from their first steps.
    """
    choice, state, rewarded = action[0::2], obs[1::2], (reward[1::2] > 0).astype(int)
    common = (state == choice + 1).astype(int)
    case = (2 * rewarded + common)[:-1]
    stayed = choice[1:] == choice[:-1]
    of_case = [case == i for i in range(4)]
    return jnp.stack([jnp.sum(stayed & c) / jnp.sum(c) for c in of_case]).reshape(2, 2)


def interaction(stay: Any) -> Any:
    """The interaction reward × transition [...] of stay probabilities [..., 2, 2]: the effect of a reward after a
    common transition minus its effect after a rare one."""
    change = stay[..., 1, :] - stay[..., 0, :]
    return change[..., 1] - change[..., 0]
