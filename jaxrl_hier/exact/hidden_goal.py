"""Bayes-optimal search for a hidden goal, over a trial of several episodes.

The goal is one of n cells, each equally likely. An episode begins at the start and ends on entering the goal, which
pays 1, or at its time limit; nothing else tells where the goal is. The belief is then uniform over the cells that have
not been entered, so that cell and set m of remaining cells are the state of a process that can be solved backwards,
from the last step of the last episode e = E. Once found, the goal g is entered in each later episode with the largest
probability K(g) that the time limit allows.

    W(m, s') = V_{t+1}(m, s')                                                                s' not in m
             = (1 + (E − e) K(s')) / |m| + (1 − 1 / |m|) V_{t+1}(m \\ {s'}, s')               s' in m
    V_t(m, s) = max_a Σ_s' P(s'|s, a) W(m, s'),   V_limit(m, s) of episode e = V_0(m, start) of episode e + 1

There are 2^n sets. The player is taken to see in which cell an episode ends. Trials do not show it
(`jaxrl_envs.trial`), which matters where two goals are neighbours of one cell, and in the last step before the limit:
there this value is an upper bound. With one cell it is optimal play that knows the goal.

Axes in shapes: S cells, A actions, M = 2^n sets, E episodes.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_hier.checks import UsageError
from jaxrl_hier.exact.tabular import einsum

MOST = 16  # cells: 65 536 sets


def search_values(
    P: jax.Array | np.ndarray, goals: jax.Array | np.ndarray, start: int, limit: int, episodes: int = 1
) -> jax.Array:
    """The probability to enter the goal in each episode, [E], of play that maximises their sum.

    Args:
        P: [S, A, S'] transition probabilities without a goal.
        goals: [n] int, the cells that may be the goal; `start` is not among them.
        limit: steps of an episode.

    Raises:
        UsageError: no goal, too many, one twice, or the start among them.
    """
    cells = np.asarray(goals)
    if not 1 <= len(cells) <= MOST or len(np.unique(cells)) < len(cells) or start in cells:
        raise UsageError(f"goals must be 1 to {MOST} different cells without the start {start}, got {cells.tolist()}")
    P = jnp.asarray(P)
    alone = jax.lax.map(lambda goal: _search(P, goal[None], start, limit, jnp.zeros(1), 1)[0], jnp.asarray(cells))
    return _search(P, jnp.asarray(cells), start, limit, alone, episodes)


@partial(jax.jit, static_argnames="episodes")
def _search(
    P: jax.Array, goals: jax.Array, start: jax.Array, limit: jax.Array, known: jax.Array, episodes: int
) -> jax.Array:
    """`known` [n]: the largest probability to enter each goal in an episode, once it has been found."""
    n = len(goals)
    sets = jnp.arange(2**n)
    inside = ((sets[:, None] >> jnp.arange(n)) & 1)[..., None]  # [M, n, 1]
    without = sets[:, None] & ~(1 << jnp.arange(n))  # [M, n], the set that is left when the goal was not there
    found = 1.0 / jnp.maximum(jnp.sum(inside, axis=1, keepdims=True), 1)  # [M, 1, 1]
    after = jnp.zeros((2**n, episodes), P.dtype)  # [M, E] the returns of later episodes, when the goal is not found
    for episode in reversed(range(episodes)):
        now, later = jnp.arange(episodes) == episode, jnp.arange(episodes) > episode
        paid = now + later * known[:, None]  # [n, E]

        def earlier(_: Any, values: jax.Array, paid: jax.Array = paid) -> jax.Array:
            """[M, S, E], the return of each episode from a step on, under the policy that is best for their sum."""
            entered = jnp.where(inside == 1, found * paid + (1 - found) * values[without, goals], values[:, goals])
            entering = values.at[:, goals].set(entered)
            each = einsum("sat,mte->msae", P, entering)
            best = jnp.argmax(jnp.sum(each, axis=3), axis=2)
            return jnp.take_along_axis(each, best[..., None, None], axis=2)[:, :, 0]

        values = jnp.broadcast_to(after[:, None], (2**n, len(P), episodes))
        after = jax.lax.fori_loop(0, limit, earlier, values)[:, start]
    return after[-1]
