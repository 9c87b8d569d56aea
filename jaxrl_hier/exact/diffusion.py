"""How far random options carry: the diffusion time of Machado, Bellemare & Bowling (ICML 2017), exactly.

From a state the agent chooses uniformly among the options that may start, follows it to its end, and so on, until it
enters a goal. The diffusion time is the expected effort, mean over all pairs of a start and another state as the
goal. Effort is counted in steps and in decisions. A goal that an option passes ends it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.exact import smdp
from jaxrl_hier.exact.tabular import einsum, until_absorbed


class Diffusion(NamedTuple):
    """Expected effort until a goal is entered."""

    steps: jax.Array  # [S goals, S]
    decisions: jax.Array  # [S goals, S]

    def mean(self) -> tuple[jax.Array, jax.Array]:
        """Mean steps and decisions over all pairs of different states."""
        count = len(self.steps)
        return jnp.sum(self.steps) / (count * (count - 1)), jnp.sum(self.decisions) / (count * (count - 1))


@jax.jit
def diffusion(P: jax.Array, options: Options) -> Diffusion:
    """The diffusion of random options on P [S, A, S'] without a goal, goal after goal."""
    states = jnp.arange(len(P))
    policy = smdp.uniform_over_available(options.initiation)

    def to(goal: jax.Array) -> tuple[jax.Array, jax.Array]:
        ends = states == goal
        stays = jnp.where(ends[:, None, None], jnp.eye(len(P))[:, None], P)
        durations, stops_in = smdp.run_options(stays, options)
        chain = einsum("so,ost->st", policy, stops_in)
        cost = jnp.sum(jnp.where(policy > 0, policy * durations.T, 0.0), axis=1)
        return until_absorbed(chain, cost, ends), until_absorbed(chain, 1.0 - ends, ends)

    return Diffusion(*jax.lax.map(to, states))
