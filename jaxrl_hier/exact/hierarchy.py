"""Exact values of a task graph on a finite Markov decision process (Dietterich, JAIR 13, 2000).

A task graph restricts the set of policies. There are several notions of optimality under this restriction:

- `recursively_optimal`: each subtask is optimal given its children's policies. MAXQ learns this policy.
- `hierarchically_optimal`: the best of all policies consistent with the graph. A subtask may act differently for
  different callers: its choices depend on the whole stack and the state.
- `polled_policy`: the greedy policy of the graph, restarted at the root in every step. It abandons subtasks whenever
  the root would call others, so it is not consistent with the graph, and it is at least as good as the original policy.

As elsewhere in `exact`, a process is P [S, A, S'] and R [S, A]; episodes end in an absorbing state, where every subtask
ends. Graphs are defined on observations: `observed` [S] is the observation number of each state (None: its own number).
Policies here may depend on the state of the process; those that MAXQ learns depend on observations. Only the subtask on
top of the stack is tested for termination: the end of a caller does not interrupt it.

Without discount, subtasks must be certain to end under their optimal policies, as they are if every step has a cost.

Axes in shapes: S states of the process, A actions, M subtasks, N = A + M nodes, K children (`TaskGraph`).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_hier.abstractions.task_graph import TaskGraph
from jaxrl_hier.exact.tabular import absorbing, einsum, fixed_point, solve_chain

_TIE = 1e-5  # smaller differences, relative to the largest reward, are ties, and the first child is chosen


class Decomposition(NamedTuple):
    """MAXQ's value decomposition of a policy for every subtask: Q(i, s, a) = V(a, s) + C(i, s, a)."""

    value: jax.Array  # [N, S] V(a, s): an action's reward; a subtask's return until it ends, 0 where it is over
    completion: jax.Array  # [M, K, S] C(i, s, a), the return of i after a; 0 where a cannot be called
    inside: jax.Array  # [M, K, S] C̃(i, s, a), the same with pseudo-rewards, which determine the choices of i
    choice: jax.Array  # [M, S] int32, the child that each subtask calls


def recursively_optimal(
    P: jax.Array,
    R: jax.Array,
    graph: TaskGraph,
    gamma: float = 1.0,
    observed: np.ndarray | None = None,
    *,
    tolerance: float = 1e-6,
    max_sweeps: int = 10_000,
) -> Decomposition:
    """Each subtask's optimal policy given its children's, solved bottom-up.

    Subtasks choose by pseudo-rewards; values contain rewards only. Value iteration in each subtask stops when no value
    changes by more than `tolerance`, times a child's largest reward, in a sweep. P is [S, A, S'] and R [S, A].
    """
    return _from_below(P, R, graph, gamma, observed, None, tolerance, max_sweeps)


def hierarchical_values(
    P: jax.Array,
    R: jax.Array,
    graph: TaskGraph,
    choice: jax.Array,
    gamma: float = 1.0,
    observed: np.ndarray | None = None,
) -> Decomposition:
    """The values of the policy that calls child `choice` [M, S] in each subtask and state."""
    return _from_below(P, R, graph, gamma, observed, choice, 1e-6, 10_000)


def hierarchically_optimal(
    P: jax.Array,
    R: jax.Array,
    graph: TaskGraph,
    gamma: float = 1.0,
    observed: np.ndarray | None = None,
    *,
    tolerance: float = 1e-6,
    max_sweeps: int = 10_000,
) -> jax.Array:
    """The optimal root values [S] over all policies consistent with the graph, by value iteration over stack and state.

    Stops when no value changes by more than `tolerance`, times the largest reward, in a sweep.
    """
    child, over, _ = _of_process(P, graph, observed)
    actions, root = graph.num_actions, len(graph.slots) - 1
    stacks = stacks_of(child, actions, root)
    number = {stack: x for x, stack in enumerate(stacks)}
    # [X, S] the stack that remains after popping terminated subtasks; -1: none
    left = np.empty((len(stacks), len(child)), int)
    for x, stack in enumerate(stacks):
        left[x] = np.where(over[:, stack[-1]], left[number[stack[:-1]]] if len(stack) > 1 else -1, x)
    states = jnp.arange(len(child))

    def sweep(values: jax.Array) -> jax.Array:  # [X, S]
        following = jnp.where(left < 0, 0.0, values[left, states])
        acted = R.T + gamma * einsum("sat,xt->xas", P, following)
        rows: dict[tuple[int, ...], jax.Array] = {}
        nothing = jnp.zeros(len(child), R.dtype)
        for x, stack in reversed([*enumerate(stacks)]):  # longer stacks first: a call takes no time
            called = jnp.stack([rows.get((*stack, i), nothing) for i in range(root + 1)])
            nodes, available = jnp.concatenate([acted[x], called]), child[:, stack[-1]].T  # [N, S], [K, S]
            best = jnp.max(jnp.where(available >= 0, nodes[available, states], -jnp.inf), axis=0)
            rows[stack] = jnp.where(over[:, stack[-1]], 0.0, best)
        return jnp.stack([rows[stack] for stack in stacks])

    start = jnp.zeros(left.shape, R.dtype)
    return jax.jit(lambda: fixed_point(sweep, start, tolerance * jnp.max(jnp.abs(R)), max_sweeps)[0])()


def polled_policy(graph: TaskGraph, choice: jax.Array, observed: np.ndarray | None = None) -> jax.Array:
    """The action [S] reached from the root by following each subtask's `choice` [M, S]."""
    seen = np.arange(len(graph.child)) if observed is None else np.asarray(observed)
    child, states = jnp.asarray(graph.child[seen]), jnp.arange(len(seen))
    node = jnp.full(len(seen), len(graph.nodes) - 1)
    for _ in range(graph.height):
        i = jnp.maximum(node - graph.num_actions, 0)
        node = jnp.where(node < graph.num_actions, node, child[states, i, choice[i, states]])
    return node


def polled_values(
    P: jax.Array,
    R: jax.Array,
    graph: TaskGraph,
    choice: jax.Array,
    gamma: float = 1.0,
    observed: np.ndarray | None = None,
) -> jax.Array:
    """The values [S] of `polled_policy`, which must be certain to terminate if there is no discount."""
    return _policy_values(P, R, polled_policy(graph, choice, observed), gamma)


@jax.jit
def _policy_values(P: jax.Array, R: jax.Array, action: jax.Array, gamma: float) -> jax.Array:
    states, end = jnp.arange(len(P)), absorbing(P)
    chain = jnp.where(end, 0.0, P[states, action])
    return jnp.where(end, 0.0, solve_chain(gamma * chain, R[states, action][:, None])[:, 0])


def _of_process(P: jax.Array, graph: TaskGraph, observed: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """For each state of the process: children [S, M, K], terminated subtasks [S, M] and pseudo-rewards R̃ [S, M]."""
    seen = np.arange(len(graph.child)) if observed is None else np.asarray(observed)
    end = np.asarray(absorbing(P))[:, None]
    over = graph.terminal[seen] | end
    pseudo_reward = graph.pseudo_reward[seen]
    return np.where(end[..., None], -1, graph.child[seen]), over, pseudo_reward


def _from_below(
    P: jax.Array,
    R: jax.Array,
    graph: TaskGraph,
    gamma: float,
    observed: np.ndarray | None,
    choice: jax.Array | None,
    tolerance: float,
    max_sweeps: int,
) -> Decomposition:
    child, over, pseudo_reward = _of_process(P, graph, observed)
    states = np.arange(len(child))
    # for each node: V(a, s), and Σ_k gamma^k Pr(it ends in s' after k steps)
    values, moves = R.T, gamma * jnp.swapaxes(P, 0, 1)
    solved = []
    for i in range(len(graph.slots)):
        called = child[:, i].T  # [K, S]
        solved.append(
            _subtask(
                values[called, states],
                moves[called, states],
                called >= 0,
                over[:, i],
                pseudo_reward[:, i],
                None if choice is None else choice[i],
                tolerance,
                max_sweeps,
            )
        )
        values = jnp.concatenate([values, solved[-1].value[None]])
        moves = jnp.concatenate([moves, solved[-1].moves[None]])
    stack = lambda name: jnp.stack([getattr(s, name) for s in solved])
    return Decomposition(values, stack("completion"), stack("inside"), stack("choice"))


class _Subtask(NamedTuple):
    value: jax.Array  # [S]
    moves: jax.Array  # [S, S']
    completion: jax.Array  # [K, S]
    inside: jax.Array  # [K, S]
    choice: jax.Array  # [S]


@partial(jax.jit, static_argnames="max_sweeps")
def _subtask(
    values: jax.Array,
    moves: jax.Array,
    available: jax.Array,
    over: jax.Array,
    pseudo_reward: jax.Array,
    choice: jax.Array | None,
    tolerance: float,
    max_sweeps: int,
) -> _Subtask:
    """One subtask as a semi-Markov decision process over its children's `values` [K, S] and `moves` [K, S, S']."""
    pseudo_reward = pseudo_reward.astype(values.dtype)  # float32 in the graph; P and R may be float64
    after = lambda worth: jnp.where(available, einsum("kst,t->ks", moves, worth), 0.0)
    q = lambda worth: jnp.where(available, values + after(worth), -jnp.inf)
    update = lambda worth: jnp.where(over, pseudo_reward, jnp.max(q(worth), axis=0))
    if choice is None:
        scale = jnp.max(jnp.abs(values), where=available, initial=0.0)
        worth = fixed_point(update, jnp.where(over, pseudo_reward, 0.0), tolerance * scale, max_sweeps)
        choice = jnp.argmax(q(worth) >= jnp.max(q(worth), axis=0) - _TIE * scale, axis=0)
    states = jnp.arange(len(over))
    chain = jnp.where(over[:, None], 0.0, moves[choice, states])
    inner, exits = jnp.where(over, 0.0, chain), jnp.where(over, chain, 0.0)
    reward = jnp.where(over, 0.0, values[choice, states])
    solved = solve_chain(inner, jnp.concatenate([reward[:, None], (exits @ pseudo_reward)[:, None], exits], axis=1))
    value, moves_ = solved[:, 0], solved[:, 2:]
    inside = jnp.where(over, pseudo_reward, value + solved[:, 1])
    return _Subtask(value, moves_, after(value), after(inside), choice.astype(jnp.int32))


def stacks_of(child: np.ndarray, actions: int, root: int) -> list[tuple[int, ...]]:
    """All stacks of subtasks that calls can build, the root's first, each after the one that it extends.

    Args:
        child: [S, M, K] nodes that a subtask may call; those from `actions` on are subtasks.
    """
    stacks: list[tuple[int, ...]] = [(root,)]
    for stack in stacks:  # grows meanwhile
        called = np.unique(child[:, stack[-1]])
        stacks += [(*stack, n - actions) for n in called if n >= actions]
    return stacks
