"""Options: courses of action with a start, a policy and an end (Sutton, Precup & Singh, AI 112, 1999).

An option may start in the states of its initiation set, acts by its own policy, and stops on entering s' with
probability β(s'). O options over S states and A actions are three arrays: learning about all of them in all states
takes a few array operations, and your own options need no class.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxrl_hier.checks import UsageError

# sets of options that have a name, see `hierarchical.options.option_set`
OptionSet = Literal["primitive", "hallway", "both", "repeats"]
OPTION_SETS = get_args(OptionSet)


class Options(NamedTuple):
    """O options over S states and A actions."""

    initiation: jax.Array  # [O, S] bool, where each option may start
    policy: jax.Array  # [O, S, A] probabilities; rows may be zero where the option cannot run
    termination: jax.Array  # [O, S] probability β of stopping on entering a state


def primitive_options(num_states: int, num_actions: int) -> Options:
    """Each action as an option that may start anywhere and stops after one step."""
    return Options(
        initiation=jnp.ones((num_actions, num_states), bool),
        policy=jnp.broadcast_to(jnp.eye(num_actions)[:, None], (num_actions, num_states, num_actions)),
        termination=jnp.ones((num_actions, num_states)),
    )


def repeated_actions(num_states: int, num_actions: int, steps: float = 4.0) -> Options:
    """Each action as an option that may start anywhere and goes on with it for `steps` steps on average: it stops after
    each of them with probability 1 / steps. Knows nothing of the environment."""
    once = primitive_options(num_states, num_actions)
    return once._replace(termination=once.termination / steps)


def concatenate(*options: Options) -> Options:
    """All options of several sets, in order; UsageError where they differ in the number of states or actions."""
    sizes = {o.policy.shape[1:] for o in options}
    if len(sizes) != 1:
        listing = ", ".join(f"{S} states and {A} actions" for S, A in sorted(sizes)) or "none given"
        raise UsageError(f"options can be concatenated over the same states and actions only, got {listing}")
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *options)
