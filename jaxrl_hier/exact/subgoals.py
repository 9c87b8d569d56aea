"""Planning to subgoals with models of options that were learned without them (Sutton, Precup & Singh, UMass technical
report 98-74, section 9, figure 13).

Subgoals are states in which an episode ends and has a value of its own, g(s), instead of the values of what follows.
An option whose model knows nothing of them is promised to run through them; in fact it ends there. So a plan may
promise more than it keeps:

    promised   V(s) = max_o [r(s, o) + Σ_s' p(s'|s, o) V(s')]   with the old models, V(s) = g(s) in the subgoals
    kept       what the same policy is worth when every option ends in the subgoals

Where all subgoals have one value that is not negative, and nothing else is paid, no plan promises more than it keeps:
ending earlier is never worse. S states, A actions, O options; P is [S, A, S'] without the subgoals.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.exact.smdp import OptionModels, option_models, option_values
from jaxrl_hier.exact.tabular import einsum, fixed_point, solve_chain


@jax.jit
def promised_values(
    models: OptionModels, initiation: jax.Array, subgoal: jax.Array, value: jax.Array, tolerance: float = 1e-10
) -> jax.Array:
    """Q(s, o) [S, O] of planning with these models, −inf where o may not start.

    Args:
        initiation: [O, S] bool.
        subgoal: [S] bool.
        value: [S] g, of the subgoals.
    """
    chosen = lambda q: jnp.where(initiation.T, q, -jnp.inf)
    values = _solve(lambda v: jnp.max(chosen(option_values(models, v)), axis=1), subgoal, value, tolerance)
    return chosen(option_values(models, values))


@jax.jit
def optional_values(
    models: OptionModels, initiation: jax.Array, subgoal: jax.Array, value: jax.Array, tolerance: float = 1e-10
) -> jax.Array:
    """The values V [S] where a subgoal may be passed: ending there is a choice. Plans with old models keep these."""

    def update(values: jax.Array) -> jax.Array:
        best = jnp.max(jnp.where(initiation.T, option_values(models, values), -jnp.inf), axis=1)
        return jnp.where(subgoal, jnp.maximum(best, value), best)

    return fixed_point(update, jnp.where(subgoal, value, 0.0), tolerance, 10_000)


@jax.jit
def kept_values(
    P: jax.Array, R: jax.Array, options: Options, policy: jax.Array, subgoal: jax.Array, value: jax.Array, gamma: float
) -> jax.Array:
    """V [S] of a policy over options [S, O] when options end in the subgoals; g there."""
    models = ending_models(P, R, options, subgoal, gamma)
    chain = jnp.where(subgoal[:, None], 0.0, einsum("so,ost->st", policy, models.transition))
    reward = jnp.where(subgoal, 0.0, jnp.sum(policy * models.reward.T, axis=1))
    right = reward + chain @ jnp.where(subgoal, value, 0.0)
    return jnp.where(subgoal, value, solve_chain(jnp.where(subgoal, 0.0, chain), right[:, None])[:, 0])


def ending_models(P: jax.Array, R: jax.Array, options: Options, subgoal: jax.Array, gamma: float) -> OptionModels:
    """The models of options that end in the subgoals [S] bool."""
    stays = jnp.where(subgoal[:, None, None], jnp.eye(len(P))[:, None], P)
    return option_models(stays, jnp.where(subgoal[:, None], 0.0, R), options, gamma)


def unaffected(old: OptionModels, ending: OptionModels, subgoal: jax.Array, tolerance: float = 1e-9) -> jax.Array:
    """Which options [O, S] never run through a subgoal: those whose model is the same if they end there."""
    same = jnp.all(jnp.abs(old.transition - ending.transition) <= tolerance, axis=2)
    return same & (jnp.abs(old.reward - ending.reward) <= tolerance) & ~subgoal


def _solve(
    update: Callable[[jax.Array], jax.Array], subgoal: jax.Array, value: jax.Array, tolerance: float
) -> jax.Array:
    """The fixed point of `update` [S] -> [S] with the subgoals' values held."""
    held = lambda values: jnp.where(subgoal, value, values)
    return fixed_point(lambda values: held(update(values)), held(jnp.zeros_like(value)), tolerance, 10_000)
