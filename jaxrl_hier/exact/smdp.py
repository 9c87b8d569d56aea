"""Exact solutions of finite Markov decision processes with options (Sutton, Precup & Singh, AI 112, 1999).

A process is P [S, A, S'] and R [S, A], as in `exact.tabular`; entering an absorbing state ends every option. S counts
states, A actions, O options. Values over options are [S, O], as values over actions are [S, A].
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.exact.tabular import absorbing, einsum, fixed_point, iterates, solve_chain, until_absorbed, until_exit


class OptionModels(NamedTuple):
    """Multi-time models: the outcome of running an option from a state until it terminates."""

    reward: jax.Array  # [O, S] expected discounted reward until termination
    transition: jax.Array  # [O, S, S'] Σ_k gamma^k Pr(it terminates in s' after k steps); rows sum to less than 1


@jax.jit
def option_models(P: jax.Array, R: jax.Array, options: Options, gamma: float) -> OptionModels:
    """The models of all options, by a linear solve each; gamma < 1, or gamma = 1 for options sure to terminate.

    P is [S, A, S'] and R [S, A]. Rows of states where an option cannot run (its policy there is zero) are zero.
    """

    def solve(policy: jax.Array, termination: jax.Array) -> OptionModels:
        going_on, stopping = _one_step(P, policy, termination)
        right = jnp.concatenate([jnp.sum(policy * R, axis=1, keepdims=True), gamma * stopping], axis=1)
        solved = solve_chain(gamma * going_on, right)
        return OptionModels(solved[:, 0], solved[:, 1:])

    return jax.vmap(solve)(options.policy, options.termination)


@jax.jit
def option_values(models: OptionModels, values: jax.Array) -> jax.Array:
    """Q(s, o) [S, O]: run option o in s until it terminates, then collect `values` [S].

    Outside an option's initiation set this is the value of continuing with it. With the values of a policy over options
    these are its option values; with the optimal values they are the fixed point of intra-option Q-learning.
    """
    return models.reward.T + einsum("ost,t->so", models.transition, values)


@partial(jax.jit, static_argnames="sweeps")
def option_value_sweeps(models: OptionModels, initiation: jax.Array, sweeps: int) -> jax.Array:
    """V_0 = 0 and the values after each of `sweeps` synchronous sweeps of value iteration over options.

    Args:
        initiation: [O, S] bool. States in which no option can start have value 0.

    Returns:
        [sweeps + 1, S].
    """
    return iterates(_best_option(models, initiation), jnp.zeros(initiation.shape[1], models.reward.dtype), sweeps)


@partial(jax.jit, static_argnames="max_sweeps")
def smdp_optimal_values(
    models: OptionModels, initiation: jax.Array, tolerance: float = 1e-7, max_sweeps: int = 10_000
) -> jax.Array:
    """Q*(s, o) [S, O], the optimal values over these options; -inf where o cannot start in s.

    Stops when no value changes by more than `tolerance` in a sweep, or after `max_sweeps`.
    """
    start = jnp.zeros(initiation.shape[1], models.reward.dtype)
    values = fixed_point(_best_option(models, initiation), start, tolerance, max_sweeps)
    return jnp.where(initiation.T, option_values(models, values), -jnp.inf)


@jax.jit
def option_policy_evaluation(models: OptionModels, policy: jax.Array) -> jax.Array:
    """The values V [S] of a `policy` over options [S, O], which chooses an option whenever one terminates."""
    transition = einsum("so,ost->st", policy, models.transition)
    reward = jnp.sum(policy * models.reward.T, axis=1)
    return solve_chain(transition, reward[:, None])[:, 0]


@jax.jit
def uniform_over_available(initiation: jax.Array) -> jax.Array:
    """The policy over options [S, O] that chooses uniformly among those that can start, given `initiation` [O, S]."""
    return initiation.T / jnp.maximum(jnp.sum(initiation, axis=0)[:, None], 1)


@jax.jit
def option_durations(P: jax.Array, options: Options) -> jax.Array:
    """Expected duration [O, S] of each option, in steps; inf where it is not certain to terminate."""
    return run_options(P, options)[0]


@jax.jit
def option_expected_steps(P: jax.Array, options: Options, policy: jax.Array) -> jax.Array:
    """Expected primitive steps [S] until a `policy` over options [S, O] enters an absorbing state; inf where that is
    not certain. A running option is not interrupted."""
    durations, stops_in = run_options(P, options)
    cost = jnp.sum(jnp.where(policy > 0, policy * durations.T, 0.0), axis=1)
    return until_absorbed(einsum("so,ost->st", policy, stops_in), cost, absorbing(P))


@jax.jit
def steps_and_values(
    P: jax.Array, R: jax.Array, options: Options, policy: jax.Array, gamma: float
) -> tuple[jax.Array, jax.Array]:
    """`option_expected_steps` [S] and the values [S] of a `policy` over options [S, O] whose absorbing states are worth
    0, which makes gamma = 1 solvable for policies that are certain to end."""
    models = option_models(P, R, options, gamma)
    models = models._replace(transition=jnp.where(absorbing(P), 0.0, models.transition))
    return option_expected_steps(P, options, policy), option_policy_evaluation(models, policy)


@jax.jit
def interrupt(options: Options, models: OptionModels, values: jax.Array, margin: float = 1e-6) -> Options:
    """Terminate an option wherever continuing has a lower value than choosing again (the paper's interruption, or
    termination improvement).

    Given the `values` [S] of a policy over these options, the same policy over the interrupted options is at least as
    good in every state. Differences up to `margin` count as rounding and do not interrupt.
    """
    going_on = option_values(models, values).T
    return options._replace(termination=jnp.where(going_on < values - margin, 1.0, options.termination))


def _best_option(models: OptionModels, initiation: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """One sweep of value iteration over options, [S] -> [S]."""

    def update(values: jax.Array) -> jax.Array:
        best = jnp.max(jnp.where(initiation.T, option_values(models, values), -jnp.inf), axis=1)
        return jnp.where(jnp.any(initiation, axis=0), best, 0.0)

    return update


def _one_step(P: jax.Array, policy: jax.Array, termination: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Probabilities [S, S'] that one option moves to s' and continues, and that it moves to s' and terminates."""
    transition = einsum("sa,sat->st", policy, P)
    stop = jnp.where(absorbing(P), 1.0, termination)
    return transition * (1 - stop), transition * stop


def run_options(P: jax.Array, options: Options) -> tuple[jax.Array, jax.Array]:
    """Expected duration [O, S] of each option, and the probability [O, S, S'] that it terminates in s'."""
    cost = 1.0 - absorbing(P)
    run = lambda policy, termination: until_exit(*_one_step(P, policy, termination), cost)
    return jax.vmap(run)(options.policy, options.termination)
