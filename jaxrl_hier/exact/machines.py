"""Exact solutions of abstract machines on processes with few successors, without discount (`abstractions.machines`).

The machines restrict the policies of the process. `best_values` has, for each node and state, the largest expected sum
of rewards of any way to make their choices: the hierarchical optimum, which HAMQ-learning converges to. A task graph is
a hierarchy of machines that choose in every step (`graph_machines`), so that its optima can be found where states are
too many for `exact.hierarchy`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_hier.abstractions.machines import Machines, Process
from jaxrl_hier.abstractions.task_graph import TaskGraph
from jaxrl_hier.exact.hierarchy import stacks_of
from jaxrl_hier.exact.tabular import fixed_point


def flat_values(process: Process, tolerance: float = 1e-9, max_sweeps: int = 20_000) -> jax.Array:
    """The optimal values [S] of any policy, by value iteration."""
    end = jnp.asarray(process.end)
    update = lambda values: jnp.where(end, 0.0, jnp.max(_action_values(process, values), axis=1))
    return jax.jit(lambda: fixed_point(update, jnp.zeros(len(end)), tolerance, max_sweeps))()


def best_values(machines: Machines, process: Process, tolerance: float = 1e-9, max_sweeps: int = 20_000) -> jax.Array:
    """The values [X, S] of making all choices at best, by value iteration; −∞ where a choice node has no choice."""
    acting, choosing = (np.flatnonzero(which) for which in (machines.action >= 0, machines.action < 0))
    following, choices = jnp.asarray(machines.following[acting]), jnp.asarray(machines.choices[choosing])
    successor, probability, end = map(jnp.asarray, process)
    weights = jnp.moveaxis(probability, 1, 0)[machines.action[acting]]  # [acting, S, K]
    states = jnp.arange(len(end))

    def update(values: jax.Array) -> jax.Array:
        after = jnp.where(end[successor], 0.0, values[following, successor])  # [acting, S, K]
        reached = jnp.where(weights > 0, after, 0.0)  # what cannot happen counts nothing, not 0 times −∞
        values = values.at[acting].set(-1.0 + jnp.sum(weights * reached, axis=2))
        for _ in range(machines.depth):  # a choice takes no time
            chosen = jnp.where(choices >= 0, values[choices, states[:, None]], -jnp.inf)
            values = values.at[choosing].set(jnp.max(chosen, axis=2))
        return jnp.where(end, 0.0, values)

    start = jnp.zeros(machines.following.shape[:2])
    return jax.jit(lambda: fixed_point(update, start, tolerance, max_sweeps))()


def graph_machines(graph: TaskGraph, process: Process, choice: np.ndarray | None = None) -> Machines:
    """A task graph on a process of its own states: a choice node for each stack of subtasks, action nodes below.

    A subtask that is over leaves the stack when it is on top, as in `exact.hierarchy`.

    Args:
        choice: [M, S] the child that each subtask calls, −1: any. None: any in all of them.
    """
    actions, root = graph.num_actions, len(graph.slots) - 1
    states = np.arange(len(process.end))
    stacks = stacks_of(graph.child, actions, root)
    place = {stack: x for x, stack in enumerate(stacks)}
    count = len(stacks)
    width = graph.child.shape[2]
    node = lambda x, action: count + x * actions + action
    remaining = np.zeros((count, len(states)), np.int32)
    for x, stack in enumerate(stacks):
        shorter = remaining[place[stack[:-1]]] if len(stack) > 1 else 0
        remaining[x] = np.where(graph.terminal[:, stack[-1]] & (len(stack) > 1), shorter, x)
    total = count * (1 + actions)
    action = np.full(total, -1, np.int32)
    choices = np.full((total, len(states), width), -1, np.int32)
    following = np.zeros((total, len(states), process.successor.shape[1]), np.int32)
    for x, stack in enumerate(stacks):
        task = stack[-1]
        for k in range(width):
            child = graph.child[:, task, k]
            below = np.array([place.get((*stack, n - actions), -1) for n in range(len(graph.nodes))])
            to = np.where(child < 0, -1, np.where(child < actions, node(x, child), below[child]))
            if choice is not None:
                to = np.where((choice[task] == -1) | (choice[task] == k), to, -1)
            choices[x, :, k] = to
        for a in range(actions):
            action[node(x, a)] = a
            following[node(x, a)] = remaining[x][process.successor]
    names = [" ".join(graph.nodes[actions + i] for i in stack) for stack in stacks]
    names += [f"{name} {graph.nodes[a]}" for name in names for a in range(actions)]
    return Machines(action, following, choices, tuple(names), depth=graph.height)


def recursive_choices(graph: TaskGraph, process: Process, tolerance: float = 1e-9) -> np.ndarray:
    """The child [M, S] that each subtask over actions alone calls at best by its own pseudo-rewards.

    It is −1 where the subtask is over and in the other subtasks, and of equals the first. With `graph_machines` and
    `best_values` this gives the recursive optimum of a graph of two levels.
    """
    lowest = range(graph.levels[0])
    found = np.full((len(graph.slots), len(process.end)), -1, np.int32)
    child, terminal, pseudo = (np.moveaxis(x, 1, 0)[lowest] for x in (graph.child, graph.terminal, graph.pseudo_reward))
    children = jax.jit(jax.vmap(partial(_best_children, process, tolerance=tolerance)))
    found[lowest] = children(child, terminal | process.end, jnp.asarray(pseudo, float))
    return found


def _best_children(
    process: Process, child: jax.Array, over: jax.Array, pseudo_reward: jax.Array, tolerance: float
) -> jax.Array:
    """The child [S] that a subtask over actions calls at best, −1 where it is over; of equals the first.

    Args:
        child: [S, K] actions, −1: none. over: [S] bool. pseudo_reward: [S], due where it is over.
    """

    def q(values: jax.Array) -> jax.Array:  # [S, K]
        worth = jnp.take_along_axis(_action_values(process, values), jnp.maximum(child, 0), axis=1)
        return jnp.where(child >= 0, worth, -jnp.inf)

    update = lambda values: jnp.where(over, pseudo_reward, jnp.max(q(values), axis=1))
    best = q(fixed_point(update, jnp.where(over, pseudo_reward, 0.0), tolerance, 20_000))
    return jnp.where(over, -1, jnp.argmax(best >= jnp.max(best, axis=1, keepdims=True) - 1e-6, axis=1))


def _action_values(process: Process, values: jax.Array) -> jax.Array:
    """Q [S, A] of one action and then `values` [S]."""
    return -1.0 + jnp.sum(jnp.asarray(process.probability) * values[process.successor][:, None], axis=2)


def reachable(machines: Machines, process: Process, state: int) -> np.ndarray:
    """[X, S] bool, where the machines can get from their root in one state, whatever they choose."""
    found = np.zeros(machines.following.shape[:2], bool)
    found[0, state] = True
    new = found.copy()
    while new.any():
        node, here = np.nonzero(new)
        acts, more = machines.action[node] >= 0, np.zeros_like(found)
        x, s = node[acts], here[acts]
        after = process.successor[s]
        possible = (process.probability[s, machines.action[x]] > 0) & ~process.end[after]
        more[machines.following[x, s][possible], after[possible]] = True
        s = here[~acts]
        chosen = machines.choices[node[~acts], s]
        more[chosen[chosen >= 0], np.broadcast_to(s[:, None], chosen.shape)[chosen >= 0]] = True
        new = more & ~found
        found |= new
    return found
