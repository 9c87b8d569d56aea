"""Task graphs: a task decomposed into subtasks that call each other, as data (Dietterich, JAIR 13, 2000).

A subtask calls its children, which are subtasks or primitive actions, until it terminates. MAXQ learns the completion
function C(i, s, a) of each child, what subtask i still earns after its child a has ended, and the expected reward V(a,
s) of each primitive action. The graph says what such a function depends on: states that agree in the variables that it
sees share one value. `task_graph` builds the arrays from names and checks them:

    task_graph(
        num_states,
        actions=("left", "right"),
        subtasks={
            "Root": Subtask({"Door": Child("Door"), "right": Child("right")}, terminal=at_goal),
            "Door": Subtask({"left": Child("left", sees=["x"]), "right": Child("right", sees=["x"])}, terminal=at_door),
        },
        variables={"x": x, "light": light},
    )

A parameter is bound when the child is called: the child "Navigate" of Get is Navigate(R), Navigate(G), …, depending on
the state, and stays the same until it ends, whatever happens meanwhile. A subtask cannot be called where it is
terminal.

Axes in shapes: S observed states, A actions, M subtasks, N = A + M nodes (actions first, then subtasks in order of
their height over the actions, the root last), K children of a subtask.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_hier.checks import UsageError, unknown

OverStates = Any  # an array [S], a function from the state indices [S] to one, or a single value for all states
# names of variables; or a number for each state [S]; None: the whole state. With (), which sees nothing, an action has
# one expected reward in all states, and a completion function is 0: when the child ends, so does the parent
Sees = Sequence[str] | np.ndarray | None


class Child(NamedTuple):
    """One thing that a subtask may do."""

    task: str | Sequence[str]  # an action or a subtask; or several, one of which is bound in each state
    sees: Sees = None  # what C(i, s, this child) depends on
    binding: OverStates = None  # [S] index into several tasks, -1 for none; None: the first


class Subtask(NamedTuple):
    """A subtask: its children, where it ends, and what it is paid there. Subtasks whose names differ only in a bracket,
    Navigate(R) and Navigate(G), share one exploration temperature."""

    children: Mapping[str, Child]  # by the name of the slot
    terminal: OverStates  # [S] bool, where it ends
    goal: OverStates = None  # [S] bool, which of these states are goals; None: all of them
    pseudo_reward: OverStates = -100.0  # [S] or a number, R̃ in terminal states that are not goals
    cooling: float = 0.99  # factor on the temperature each time it ends in a goal state, in (0, 1]
    # [S] bool, terminal states in which an episode that ends there interrupts it: its values do not see that the
    # episode ends there, and neither it nor its callers learn from this
    interrupted: OverStates = False


class Rows(NamedTuple):
    """What it takes to evaluate subtask i in state s: i and all subtasks that it may come to call there, a row each.

    Rows are in order of height. There are as many of each height as any subtask needs in any state, R in all; unused
    rows hold arbitrary values. R is usually smaller than M: in each state of Taxi one Navigate, Get or Put, and Root.
    """

    task: np.ndarray  # [S, M, R] int32, the subtask of a row
    entry: np.ndarray  # [S, M, R, K] int32, as `TaskGraph.entry`
    below: np.ndarray  # [S, M, R, K] int32, index of the child's value in [A actions, none, R rows]
    own: np.ndarray  # [M] int32, the row of i itself
    levels: tuple[int, ...]  # number of rows of each height


class TaskGraph(NamedTuple):
    """A checked task graph as arrays, with states as the leading axis."""

    child: np.ndarray  # [S, M, K] int32, the node of a subtask's child in a state; -1: it cannot be called
    entry: np.ndarray  # [S, M, K] int32, index of C(i, s, a) among all values of C; `completions`: it is 0
    reward_entry: np.ndarray  # [S, A] int32, index of V(a, s) among all values of V
    terminal: np.ndarray  # [S, M] bool
    goal: np.ndarray  # [S, M] bool, a subset of the terminal states
    pseudo_reward: np.ndarray  # [S, M] float32, R̃; 0 but in terminal states that are no goals and interrupt nothing
    interrupted: np.ndarray | None  # [S, M] bool, a subset of the terminal states that are no goals; None: nowhere
    family: np.ndarray  # [M] int32, index of the subtask's temperature
    cooling: np.ndarray  # [M] float32
    completions: int  # number of values of C
    rewards: int  # number of values of V
    levels: tuple[int, ...]  # number of subtasks of each height over the actions, from 1 up
    nodes: tuple[str, ...]  # [N] names
    slots: tuple[tuple[str, ...], ...]  # [M] names of each subtask's children
    rows: Rows  # how its values are evaluated

    @property
    def height(self) -> int:
        """Height of the root over the actions, which is the depth that a stack of subtasks needs."""
        return len(self.levels)

    @property
    def num_actions(self) -> int:
        """A, the number of primitive actions."""
        return self.reward_entry.shape[1]

    @property
    def num_values(self) -> int:
        """Number of values to learn, without the second set of C that pseudo-rewards need."""
        return self.completions + self.rewards

    def subtask(self, name: str) -> int:
        """Index of a subtask among the M; UsageError for an unknown name."""
        names = self.nodes[self.num_actions :]
        if name not in names:
            raise unknown("subtask", name, names)
        return names.index(name)

    def slot(self, subtask: str, child: str) -> tuple[int, int]:
        """Indices of a subtask and of one of its children, for `child` and `entry`; UsageError for an unknown name."""
        i = self.subtask(subtask)
        if child not in self.slots[i]:
            raise unknown(f"child of {subtask}", child, self.slots[i])
        return i, self.slots[i].index(child)


def task_graph(
    num_states: int,
    actions: Sequence[str],
    subtasks: Mapping[str, Subtask],
    *,
    rewards_see: Mapping[str, Sees] | None = None,
    variables: Mapping[str, OverStates] | None = None,
    possible: np.ndarray | None = None,
) -> TaskGraph:
    """A checked task graph.

    Args:
        num_states: S.
        actions: [A] names of the environment's actions.
        subtasks: by name; the root is the one that no other calls.
        rewards_see: what V(a, s) depends on, by action; the whole state for actions that are not listed.
        variables: the variables that make up a state, each [S] integers from 0 on, by name.
        possible: [S, A, S'] bool, the transitions that can happen. With it the check also finds subtasks that can
            never end; without it only those that are terminal nowhere.

    Raises:
        UsageError: one line that names the first thing wrong, and what would be right.
    """
    states = np.arange(num_states)
    seen = _variables(states, variables or {})
    if clash := [name for name in subtasks if name in actions]:
        raise UsageError(f"{clash[0]} names an action and a subtask: give one of them another name")
    order, levels = _by_height(actions, subtasks)
    terminal, goal, pseudo_reward, interrupted = _ends(states, order, subtasks)
    child, entry, completions = _children(states, actions, order, subtasks, terminal, goal, seen)
    reward_entry, rewards = _rewards(states, actions, rewards_see or {}, seen)
    families = list(dict.fromkeys(name.split("(")[0] for name in order))
    graph = TaskGraph(
        child=child,
        entry=entry,
        reward_entry=reward_entry,
        terminal=terminal,
        goal=goal,
        pseudo_reward=pseudo_reward,
        interrupted=interrupted,
        family=np.array([families.index(name.split("(")[0]) for name in order], np.int32),
        cooling=np.array([subtasks[name].cooling for name in order], np.float32),
        completions=completions,
        rewards=rewards,
        levels=levels,
        nodes=(*actions, *order),
        slots=tuple(tuple(subtasks[name].children) for name in order),
        rows=_rows(child, entry, len(actions), levels),
    )
    if possible is not None:
        _check_ends(graph, np.asarray(possible))
    return graph


def _variables(states: np.ndarray, variables: Mapping[str, OverStates]) -> dict[str, np.ndarray]:
    """The variables as integers [S] from 0 on."""
    seen = {name: _over(states, values, f"variable {name}").astype(int) for name, values in variables.items()}
    for name, values in seen.items():
        if values.min() < 0:
            raise UsageError(f"variable {name} must count from 0, got {values.min()}")
    return seen


def _ends(
    states: np.ndarray, order: Sequence[str], subtasks: Mapping[str, Subtask]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`terminal`, `goal`, `pseudo_reward` and `interrupted` [S, M] of the graph."""
    shape = (len(states), len(order))
    terminal, goal, interrupted = (np.zeros(shape, bool) for _ in range(3))
    pseudo_reward = np.zeros(shape, np.float32)
    for i, name in enumerate(order):
        task = subtasks[name]
        terminal[:, i] = _over(states, task.terminal, f"terminal of {name}")
        goal[:, i] = terminal[:, i] if task.goal is None else _over(states, task.goal, f"goal of {name}")
        if (goal[:, i] & ~terminal[:, i]).any():
            s = np.flatnonzero(goal[:, i] & ~terminal[:, i])[0]
            raise UsageError(f"{name} has its goal in state {s} and does not end there: a goal must be terminal")
        if not terminal[:, i].any():
            raise UsageError(f"{name} cannot end: it is terminal in no state")
        interrupted[:, i] = _over(states, task.interrupted, f"interrupted of {name}")
        if (wrong := interrupted[:, i] & (goal[:, i] | ~terminal[:, i])).any():
            s = np.flatnonzero(wrong)[0]
            raise UsageError(f"{name} is interrupted in state {s}: that must be a terminal state and no goal of it")
        penalty = _over(states, task.pseudo_reward, f"pseudo_reward of {name}")
        pseudo_reward[:, i] = np.where(terminal[:, i] & ~goal[:, i] & ~interrupted[:, i], penalty, 0.0)
        if not 0 < task.cooling <= 1:
            raise UsageError(f"cooling of {name} must lie in (0, 1], got {task.cooling}")
    return terminal, goal, pseudo_reward, interrupted


def _children(
    states: np.ndarray,
    actions: Sequence[str],
    order: Sequence[str],
    subtasks: Mapping[str, Subtask],
    terminal: np.ndarray,
    goal: np.ndarray,
    variables: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, int]:
    """`child` and `entry` [S, M, K] and `completions` of the graph, with the abstractions checked."""
    nodes = (*actions, *order)
    shape = (*terminal.shape, max(len(subtasks[name].children) for name in order))
    child, entry = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
    completions, without_values = 0, []
    for i, name in enumerate(order):
        for k, (slot, called) in enumerate(subtasks[name].children.items()):
            node = _bound(states, called, nodes, f"{slot} in {name}")
            below = node - len(actions)
            ended = (below >= 0) & terminal[states, np.maximum(below, 0)]
            child[:, i, k] = np.where(terminal[:, i] | ended, -1, node)
            places, size = _places(called.sees, variables, states, f"{slot} in {name}")
            if size:
                _check_abstraction(name, slot, places, child[:, i, k], terminal[:, i], nodes, variables)
            else:
                _check_zero(name, slot, child[:, i, k], terminal, goal, i, len(actions))
                without_values.append((i, k))
            entry[:, i, k] = completions + places
            completions += size
        stuck = ~terminal[:, i] & (child[:, i] < 0).all(1)
        if stuck.any():
            raise UsageError(
                f"{name} has no child that it may call in state {np.flatnonzero(stuck)[0]} and is not over"
            )
    for i, k in without_values:
        entry[:, i, k] = completions
    return child, entry, completions


def _bound(states: np.ndarray, called: Child, nodes: Sequence[str], what: str) -> np.ndarray:
    """[S] the node that a child is in each state, -1 where it is none."""
    names, bound = _names(called), np.zeros(len(states), int)
    if called.binding is not None:
        bound = _over(states, called.binding, f"binding of {what}").astype(int)
    if not ((bound >= -1) & (bound < len(names))).all():
        raise UsageError(f"the binding of {what} must lie between -1 and {len(names) - 1}")
    return np.where(bound >= 0, np.array([nodes.index(name) for name in names])[bound], -1)


def _rewards(
    states: np.ndarray, actions: Sequence[str], sees: Mapping[str, Sees], variables: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, int]:
    """`reward_entry` [S, A] and `rewards` of the graph."""
    for name in sees:
        if name not in actions:
            raise unknown("action", name, actions)
    entry, rewards = np.zeros((len(states), len(actions)), np.int32), 0
    for a, name in enumerate(actions):
        places, size = _places(sees.get(name), variables, states, f"the reward of {name}")
        entry[:, a], rewards = rewards + places, rewards + max(size, 1)
    return entry, rewards


def _rows(child: np.ndarray, entry: np.ndarray, num_actions: int, levels: tuple[int, ...]) -> Rows:
    """The `Rows` of a graph with these children [S, M, K], and this many subtasks of each height."""
    states, tasks, width = child.shape
    reached = np.broadcast_to(
        np.eye(tasks, dtype=bool), (states, tasks, tasks)
    ).copy()  # [S, i, j] i may come to call j
    for j in reversed(range(tasks)):  # parents before their children
        for k in range(width):
            calls = np.flatnonzero(child[:, j, k] >= num_actions)
            reached[calls, :, child[calls, j, k] - num_actions] |= reached[calls, :, j]
    of_height = np.split(reached, np.cumsum(levels)[:-1], axis=2)
    counts = tuple(int(r.sum(2).max()) for r in of_height)
    first = np.cumsum((0, *counts))
    row = np.concatenate([n + np.cumsum(r, 2) - 1 for n, r in zip(first, of_height)], axis=2)  # [S, i, j]

    task = np.zeros((states, tasks, first[-1]), np.int32)
    below = np.full((*task.shape, width), num_actions, np.int32)
    at, i, of = np.nonzero(reached)
    called = child[at, of]
    subtask = row[at[:, None], i[:, None], np.maximum(called - num_actions, 0)]
    place = np.select([called < 0, called < num_actions], [num_actions, called], num_actions + 1 + subtask)
    task[at, i, row[at, i, of]], below[at, i, row[at, i, of]] = of, place
    own = np.repeat(first[:-1], levels).astype(np.int32)
    return Rows(task, entry[np.arange(states)[:, None, None], task], below, own, counts)


def _names(child: Child) -> Sequence[str]:
    return [child.task] if isinstance(child.task, str) else list(child.task)


def _over(states: np.ndarray, values: OverStates, what: str) -> np.ndarray:
    """An array [S] from an array, a function or one value for all states."""
    array = np.asarray(values(states) if callable(values) else values)
    if array.ndim == 0:
        array = np.broadcast_to(array, states.shape)
    if array.shape != states.shape:
        raise UsageError(f"{what} must have one value for each of the {len(states)} states, got shape {array.shape}")
    return array


def _by_height(actions: Sequence[str], subtasks: Mapping[str, Subtask]) -> tuple[list[str], tuple[int, ...]]:
    """The subtasks in order of their height over the actions, and their number of each height."""
    calls: dict[str, list[str]] = {}
    for name, task in subtasks.items():
        if not task.children:
            raise UsageError(f"{name} has no children: give it a subtask or an action to call")
        calls[name] = [n for child in task.children.values() for n in _names(child)]
        for called in calls[name]:
            if called not in subtasks and called not in actions:
                raise unknown(f"child of {name}", called, [*subtasks, *actions])
    height = dict.fromkeys(actions, 0)

    def visit(name: str, path: list[str]) -> int:
        if name in path:
            cycle = " -> ".join([*path[path.index(name) :], name])
            raise UsageError(f"subtasks must not call themselves, directly or through others: {cycle}")
        if name not in height:
            height[name] = 1 + max(visit(called, [*path, name]) for called in calls[name])
        return height[name]

    for name in subtasks:
        visit(name, [])
    roots = [name for name in subtasks if not any(name in called for called in calls.values())]
    if len(roots) != 1:
        raise UsageError(f"one subtask must be the root, which no other calls; got {', '.join(roots) or 'none'}")
    order = sorted(subtasks, key=lambda name: height[name])
    return order, tuple(sum(height[n] == h for n in order) for h in range(1, height[roots[0]] + 1))


def _places(sees: Sees, variables: Mapping[str, np.ndarray], states: np.ndarray, what: str) -> tuple[np.ndarray, int]:
    """The index [S] of the value that each state uses, and the number of values: 0 where nothing is seen."""
    if sees is None:
        return states, len(states)
    if isinstance(sees, np.ndarray):
        places = _over(states, sees, f"what {what} sees").astype(int)
        if places.min() < 0:
            raise UsageError(f"what {what} sees must count from 0, got {places.min()}")
        return places, int(places.max()) + 1
    places, size = np.zeros(len(states), int), 1
    for name in sees:
        if name not in variables:
            raise unknown(f"variable, seen by {what},", name, variables)
        count = int(variables[name].max()) + 1
        places, size = places * count + variables[name], size * count
    return places, size if len(sees) else 0


def _check_abstraction(
    subtask: str,
    slot: str,
    places: np.ndarray,
    child: np.ndarray,
    terminal: np.ndarray,
    nodes: Sequence[str],
    variables: Mapping[str, np.ndarray],
) -> None:
    """States that share a value of C(i, s, a) must bind the same child and agree in all variables that decide where i
    ends."""
    used = child >= 0

    def shared_by_different(values: np.ndarray) -> bool:
        pairs = np.unique(np.stack([places[used], values[used]]), axis=1)
        return len(np.unique(pairs[0])) < pairs.shape[1]

    if shared_by_different(child):
        bound = ", ".join(nodes[n] for n in np.unique(child[used]))
        raise UsageError(f"the abstraction of {slot} in {subtask} hides which of {bound} is called")
    for name in variables:
        if shared_by_different(variables[name]) and _depends(terminal, name, variables):
            raise UsageError(
                f"the abstraction of {slot} in {subtask} hides {name}, which the termination of {subtask} needs: "
                f"add {name!r} to what it sees"
            )


def _check_zero(
    subtask: str, slot: str, child: np.ndarray, terminal: np.ndarray, goal: np.ndarray, i: int, actions: int
) -> None:
    """A completion function without values is 0, so the parent must end wherever the child reaches its goal."""
    for n in np.unique(child[child >= 0]):
        goes_on = ~terminal[:, i] & (goal[:, n - actions] if n >= actions else True)
        if goes_on.any():
            raise UsageError(
                f"the abstraction of {slot} in {subtask} hides everything, so nothing may remain to be completed, but "
                f"{subtask} goes on in state {np.flatnonzero(goes_on)[0]} after it"
            )


def _depends(values: np.ndarray, name: str, variables: Mapping[str, np.ndarray]) -> bool:
    """Whether `values` [S] differ between two states that differ in this variable alone."""
    others = np.stack([v for other, v in variables.items() if other != name] or [np.zeros(len(values), int)])
    alike = np.unique(others, axis=1, return_inverse=True)[1].ravel()
    count, total = np.bincount(alike), np.bincount(alike, weights=values)
    return bool(((total > 0) & (total < count)).any())


def _check_ends(graph: TaskGraph, possible: np.ndarray) -> None:
    """Checks that the root ends only with the episode, and that every subtask can reach its end by its own actions."""
    states, actions = graph.reward_entry.shape
    if possible.shape != (states, actions, states):
        raise UsageError(f"possible must be [{states}, {actions}, {states}], got {list(possible.shape)}")
    stays = np.eye(states, dtype=bool)[:, None]
    end = (possible == stays).all((1, 2))  # the end of the episode
    too_early = graph.terminal[:, -1] & ~end
    if too_early.any():
        raise UsageError(
            f"{graph.nodes[-1]} is over in state {np.flatnonzero(too_early)[0]}, where the episode goes on: the root "
            "must have something to do until the end"
        )
    below: list[np.ndarray] = []  # [A] bool for each subtask: the actions that it may come to take
    for i, name in enumerate(graph.nodes[actions:]):
        called = np.unique(graph.child[:, i])
        may = np.isin(np.arange(actions), called)
        for n in called[called >= actions]:
            may |= below[n - actions]
        below.append(may)
        edges = possible[:, may].any(1)
        ends = graph.terminal[:, i] | end
        while (more := ends | (edges & ends).any(1)).sum() > ends.sum():
            ends = more
        if not ends.all():
            raise UsageError(
                f"{name} cannot end once it is in state {np.flatnonzero(~ends)[0]}: no action that it may come to "
                "leads to a terminal state"
            )
