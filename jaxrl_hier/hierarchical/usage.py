"""Metrics of how learned options are used. Options may collapse without a change of the return.

One option may take all steps (its share goes to 1), or every option may stop after each step (β and lengths go to 1):
in both cases the policy is flat. Shapes: T time steps, B environments, O options.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from jaxrl_hier.engine.types import Average, Metrics


class Executed(NamedTuple):
    """The extras of a transition: which option acted, and how it came to act."""

    option: jax.Array  # [] int32, the one that acts
    previous: jax.Array  # [] int32, the one that acted in the step before; arbitrary on a first step
    chosen: jax.Array  # [] bool, whether it was chosen in this step
    beta: jax.Array  # [] float32, the probability with which the previous one ended here


def usage_metrics(
    option: jax.Array,
    chosen: jax.Array,
    beta: jax.Array,
    num_options: int,
    *,
    previous: jax.Array,
    first: jax.Array,
) -> Metrics:
    """Metrics of the use of options in a rollout.

    Args:
        option: [T, B] int32, the option that acts.
        chosen: [T, B] bool, whether it was chosen in this state: at an episode's start, or after a termination.
        beta: [T, B], the probability with which the previous option terminated on entering this state.
        previous: [T, B] int32, the option of the step before; it and `beta` are arbitrary on first steps.
        first: [T, B] bool, an episode's first step.

    Returns:
        "option_length": steps from one choice of an option to the next, even if the same option is chosen again.
        "option_run": steps until another option acts or the episode ends.
        "termination": mean β. "termination_entropy": mean entropy of β in nats, at most log 2 = 0.69; near 0 where
        terminations have become deterministic.
        "option_usage_<i>": share of the steps that option i takes, for i < O.
    """
    steps = jnp.asarray(option.size, jnp.float32)
    arrivals = ~first  # no option terminates at an episode's start
    over_arrivals = lambda x: Average(jnp.sum(jnp.where(arrivals, x, 0.0)), jnp.sum(arrivals))
    shares = jnp.mean(option[..., None] == jnp.arange(num_options), axis=(0, 1))  # [O]
    return {
        "option_length": Average(steps, jnp.sum(chosen)),
        "option_run": Average(steps, jnp.sum(first | (option != previous))),
        "termination": over_arrivals(beta),
        "termination_entropy": over_arrivals(entr(beta) + entr(1 - beta)),
        **{f"option_usage_{i}": shares[i] for i in range(num_options)},
    }
