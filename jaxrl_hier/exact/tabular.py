"""Exact solutions of finite Markov decision processes; those with options are in `exact.smdp`.

A process is two arrays, transition probabilities `P` [S, A, S'] and expected rewards `R` [S, A]; episodes end in an
absorbing state, in which every action stays with reward 0. S counts states, A actions.

Everything is jitted and can be vmapped, over the goals of one environment for instance:

    models = jax.vmap(lambda goal: env.model(params.replace(goal=goal)))(goals)
    values = jax.vmap(value_iteration, in_axes=(0, 0, None))(*models, 0.9)     # [goals, S]

Arrays are float32, or float64 if jax has x64 enabled. For the theory see Sutton, Precup & Singh (Artificial
Intelligence 112, 1999).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

# A GPU's default is TF32, which keeps 10 bits of a float32's mantissa.
einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)

# Smaller probabilities in solutions count as rounding errors of zero.
_NEGLIGIBLE = 1e-6


@jax.jit
def action_values(P: jax.Array, R: jax.Array, values: jax.Array, gamma: float) -> jax.Array:
    """Q(s, a) = R(s, a) + gamma Σ P(s'|s, a) V(s'), [S, A]."""
    return R + gamma * einsum("sat,t->sa", P, values)


@partial(jax.jit, static_argnames="max_sweeps")
def value_iteration(
    P: jax.Array, R: jax.Array, gamma: float, tolerance: float = 1e-6, max_sweeps: int = 10_000
) -> jax.Array:
    """The optimal values V* [S], each within `tolerance` of the true value unless `max_sweeps` is reached first."""
    update = lambda values: jnp.max(action_values(P, R, values, gamma), axis=1)
    change = tolerance * (1 - gamma) / jnp.maximum(gamma, tolerance)  # finite: one sweep without discount
    return fixed_point(update, jnp.zeros(P.shape[0], R.dtype), change, max_sweeps)


@partial(jax.jit, static_argnames="sweeps")
def value_sweeps(P: jax.Array, R: jax.Array, gamma: float, sweeps: int) -> jax.Array:
    """V_0 = 0 and the values after each of `sweeps` synchronous sweeps of value iteration, [sweeps + 1, S]."""
    update = lambda values: jnp.max(action_values(P, R, values, gamma), axis=1)
    return iterates(update, jnp.zeros(P.shape[0], R.dtype), sweeps)


@jax.jit
def policy_evaluation(P: jax.Array, R: jax.Array, policy: jax.Array, gamma: float) -> jax.Array:
    """The values V [S] of `policy` [S, A], by a linear solve; gamma < 1."""
    transition = einsum("sa,sat->st", policy, P)
    return solve_chain(gamma * transition, jnp.sum(policy * R, axis=1)[:, None])[:, 0]


@jax.jit
def greedy_policy(values: jax.Array, available: jax.Array | None = None, tolerance: float = 1e-6) -> jax.Array:
    """The policy [S, N] that is uniform over the entries of `values` [S, N] within `tolerance` of their row's maximum.

    Args:
        values: of actions, or of options.
        available: [S, N] bool, the permitted choices; None: all. Rows without any choice are zero.
    """
    if available is not None:
        values = jnp.where(available, values, -jnp.inf)
    best = jnp.max(values, axis=1, keepdims=True)
    ties = (values >= best - tolerance) & (best > -jnp.inf)
    return ties / jnp.maximum(jnp.sum(ties, axis=1, keepdims=True), 1)


@jax.jit
def expected_steps(P: jax.Array, policy: jax.Array) -> jax.Array:
    """Expected steps [S] until `policy` [S, A] enters an absorbing state; inf where it is not certain to."""
    end = absorbing(P)
    return until_absorbed(einsum("sa,sat->st", policy, P), 1.0 - end, end)


@jax.jit
def steps_and_values(P: jax.Array, R: jax.Array, policy: jax.Array, gamma: float) -> tuple[jax.Array, jax.Array]:
    """`expected_steps` [S] and the values [S] of `policy` [S, A] where absorbing states are worth 0, which makes
    gamma = 1 solvable for policies that are certain to end."""
    continuing = jnp.where(absorbing(P), 0.0, P)
    return expected_steps(P, policy), policy_evaluation(continuing, R, policy, gamma)


@partial(jax.jit, static_argnames="max_sweeps")
def minimal_expected_steps(P: jax.Array, tolerance: float = 1e-6, max_sweeps: int = 100_000) -> jax.Array:
    """The fewest expected steps [S] to an absorbing state over all policies; inf where none is certain to reach one.

    Undiscounted value iteration, until no entry changes by more than `tolerance` in a sweep.
    """
    certain, safe = _certain_arrival(P, absorbing(P))
    cost = jnp.where(absorbing(P)[:, None], 0.0, jnp.where(safe, 1.0, jnp.inf))
    update = lambda steps: jnp.where(certain, jnp.min(action_values(P, cost, steps, 1.0), axis=1), 0.0)
    steps = fixed_point(update, jnp.zeros(P.shape[0], P.dtype), tolerance, max_sweeps)
    return jnp.where(certain, steps, jnp.inf)


def absorbing(P: jax.Array) -> jax.Array:
    """The states that every action stays in, [S] bool."""
    return jnp.all(jnp.diagonal(P, axis1=0, axis2=2) >= 1 - _NEGLIGIBLE, axis=0)


# Solvers


def solve_chain(chain: jax.Array, right: jax.Array) -> jax.Array:
    """Solve x = right + chain x for x [S, X], as Σ_k chain^k right, doubling the number of terms until it converges.

    Args:
        chain: [S, S'], nonnegative and transient: chain^k goes to zero.

    We avoid LU because jaxlib 0.10 can deadlock on two cores when two batched solves of one program run at once.
    Batched products are as fast on any device.
    """

    def unfinished(carry: tuple) -> jax.Array:
        return (jnp.max(jnp.sum(carry[1], axis=1)) > jnp.finfo(chain.dtype).eps) & (carry[2] < 60)

    def double(carry: tuple) -> tuple:
        total, power, doublings = carry
        return total + einsum("st,tx->sx", power, total), einsum("st,tu->su", power, power), doublings + 1

    return jax.lax.while_loop(unfinished, double, (right, chain, jnp.zeros((), jnp.int32)))[0]


def fixed_point(
    update: Callable[[jax.Array], jax.Array], start: jax.Array, change: float | jax.Array, max_sweeps: int
) -> jax.Array:
    """Apply `update` to `start` [...] until no entry changes by more than `change`, at most `max_sweeps` times. Entries
    may stay infinite."""

    def moving(carry: tuple) -> jax.Array:
        _, moved, sweep = carry
        return (moved > change) & (sweep < max_sweeps)

    def sweep_once(carry: tuple) -> tuple:
        values, _, sweep = carry
        new = update(values)
        moved = jnp.where(new == values, 0.0, jnp.abs(new - values))
        return new, jnp.max(moved), sweep + 1

    infinite = jnp.array(jnp.inf, start.dtype)
    return jax.lax.while_loop(moving, sweep_once, (start, infinite, jnp.zeros((), jnp.int32)))[0]


def iterates(update: Callable[[jax.Array], jax.Array], start: jax.Array, count: int) -> jax.Array:
    """`start` and the results of `count` successive updates, [count + 1, S]."""

    def sweep(values: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        values = update(values)
        return values, values

    _, history = jax.lax.scan(sweep, start, length=count)
    return jnp.concatenate([start[None], history])


def until_absorbed(transition: jax.Array, cost: jax.Array, end: jax.Array) -> jax.Array:
    """Expected total of `cost` [S] along the chain `transition` [S, S'] until it enters a state of `end` [S]."""
    inner = jnp.where(end[:, None] | end, 0, transition)
    exits = jnp.where(end, 1.0, jnp.sum(transition * end, axis=1))
    return until_exit(inner, exits[:, None], cost)[0]


def until_exit(inner: jax.Array, exits: jax.Array, cost: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Run a Markov chain until it exits.

    Args:
        inner: [S, S'] probabilities of continuing.
        exits: [S, X] probabilities of leaving by each exit.
        cost: [S] paid in each state before the transition.

    Returns:
        Expected total cost [S], inf where an exit is not certain; probability of each exit [S, X], zero there.
    """
    # Without this, a single state that can never leave would make the whole system singular.
    reachable = _reachable(inner > _NEGLIGIBLE)
    leaves = reachable @ jnp.any(exits > _NEGLIGIBLE, axis=1).astype(inner.dtype) > 0
    stuck = ~leaves | jnp.isinf(cost)
    uncertain = reachable @ stuck.astype(inner.dtype) > 0

    right = jnp.where(uncertain[:, None], 0, jnp.concatenate([cost[:, None], exits], axis=1))
    solved = solve_chain(jnp.where(uncertain[:, None], 0, inner), right)
    return jnp.where(uncertain, jnp.inf, solved[:, 0]), solved[:, 1:]


def _certain_arrival(P: jax.Array, end: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The states [S] from which some policy is certain to reach `end` [S], and the actions [S, A] that stay among them.

    By elimination: drop states that cannot reach the end and actions that may lead to a dropped state, and repeat.
    """

    def safe_actions(kept: jax.Array) -> jax.Array:
        return kept[:, None] & ~jnp.any((P > 0) & ~kept, axis=2)

    def eliminate(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        kept, _ = carry
        edges = jnp.any((P > 0) & safe_actions(kept)[:, :, None], axis=1)
        left = _reachable(edges) @ end.astype(jnp.float32) > 0
        return left, jnp.any(left != kept)

    kept, _ = jax.lax.while_loop(lambda carry: carry[1], eliminate, (jnp.ones_like(end), jnp.array(True)))
    return kept, safe_actions(kept)


def _reachable(edges: jax.Array) -> jax.Array:
    """Ones [S, S'] where s' can be reached from s along `edges` [S, S'] in any number of steps, including zero."""
    count = len(edges)
    reach = edges.astype(jnp.float32) + jnp.eye(count, dtype=jnp.float32)
    for _ in range(max(1, (count - 1).bit_length())):  # each product doubles the length of the paths
        reach = (reach @ reach > 0).astype(jnp.float32)
    return reach
