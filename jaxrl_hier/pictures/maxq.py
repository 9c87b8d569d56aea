"""MAXQ's task graph, with the learned values and the calls of greedy episodes."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_hier.abstractions.task_graph import TaskGraph
from jaxrl_hier.engine.rollout import first_episode, play_episodes
from jaxrl_hier.hierarchical.maxq import Stack, Values, evaluate_subtask, graph_of
from jaxrl_hier.pictures import Trained
from jaxrl_hier.reports.plotting import BLUE, GREY, save, style

EPISODES = 16


class Usage(NamedTuple):
    """How greedy episodes use a graph of M subtasks and N = A + M nodes."""

    calls: np.ndarray  # [M, N] calls of a node by a subtask, per episode
    value: np.ndarray  # [M] mean V of a subtask over the states in which it was called; NaN if it never was
    episodes: int


def draw(trained: Trained, folder: Path) -> list[Path]:
    """Draw <folder>/task_graph.png; returns the paths written."""
    graph = graph_of(trained.config, trained.env, trained.tasks)
    used = usage(trained, graph)
    with style() as plt:
        return save({"task_graph": figure_of(graph, used, plt)}, folder, plt)


def usage(trained: Trained, graph: TaskGraph, episodes: int = EPISODES) -> Usage:
    """The usage of a graph by greedy episodes in the task of the first environment."""
    config, params = trained.config, trained.state.params
    task = jax.tree.map(lambda x: x[0], trained.state.world.task)
    key = jax.random.fold_in(trained.state.key, trained.state.iteration)
    sizes = {"episodes": episodes, "horizon": config.eval_horizon}
    agent = trained.algorithm.agent
    play = lambda params, task, key: play_episodes(trained.env, agent, task, params, key, greedy=True, **sizes)
    seen = jax.jit(play)(params, task, key)
    on = np.asarray(first_episode(seen)) > 0  # [T, E]
    stack, obs = jax.tree.map(lambda x: np.asarray(x)[on], (seen.extras, seen.obs))  # [steps, ...]
    calls = calls_of(stack, len(graph.slots), len(graph.nodes)) / episodes
    return Usage(calls, values_of(graph, params, stack, obs), episodes)


def begun(stack: Stack) -> np.ndarray:
    """Whether the subtask at a place of the stack called its child in a step, [steps, D] bool."""
    place = np.arange(stack.task.shape[1])
    return (place < stack.depth[:, None]) & (stack.start == stack.time[:, None])


def calls_of(stack: Stack, subtasks: int, nodes: int) -> np.ndarray:
    """The number of calls of each node by each subtask, [M, N], in the steps of `stack` [steps, ...]."""
    new = begun(stack)
    counts = np.zeros((subtasks, nodes), int)
    np.add.at(counts, (stack.task[new], stack.child[new]), 1)
    return counts


def values_of(graph: TaskGraph, params: Values, stack: Stack, obs: np.ndarray) -> np.ndarray:
    """V(i, s) [M], the mean over the states in which subtask i was called; for the root, an episode's first state."""
    begins, subtasks = begun(stack), np.arange(len(graph.slots))
    called = np.zeros((len(obs), len(subtasks)), bool)  # [steps, M]
    at, place = np.nonzero(begins & (stack.child >= graph.num_actions))
    called[at, stack.child[at, place] - graph.num_actions] = True
    called[stack.time == 0, -1] = True
    states = np.unique(obs)
    place_of_value = graph.num_actions + 1 + graph.rows.own
    each = lambda s, i: evaluate_subtask(graph, params, s, i).value[jnp.asarray(place_of_value)[i]]
    table = jax.jit(jax.vmap(jax.vmap(each, (None, 0)), (0, None)))(jnp.asarray(states), jnp.asarray(subtasks))
    values = np.asarray(table)[np.searchsorted(states, obs)]  # [steps, M]
    return np.array([values[called[:, i], i].mean() if called[:, i].any() else np.nan for i in subtasks])


def layout(graph: TaskGraph) -> np.ndarray:
    """The positions of the nodes, [N, 2]: their heights over the actions, evenly spaced side by side."""
    heights = np.concatenate(
        [np.zeros(graph.num_actions, int), np.repeat(np.arange(1, graph.height + 1), graph.levels)]
    )
    counts = np.bincount(heights)
    beside = np.concatenate([(np.arange(n) + 0.5) / n for n in counts])
    return np.stack([beside, heights], axis=1)


def figure_of(graph: TaskGraph, used: Usage, plt: Any) -> Any:
    """Boxes joined by lines whose width and label give the number of calls; dotted where there was none."""
    at, actions = layout(graph), graph.num_actions
    widest = np.bincount(at[:, 1].astype(int)).max()
    figure, ax = plt.subplots(figsize=(max(6.0, 1.35 * widest), 1.5 * (graph.height + 1)))
    most = max(used.calls.max(), 1e-9)
    for i in range(len(graph.slots)):
        children = np.unique(graph.child[:, i][graph.child[:, i] >= 0])
        for n, child in enumerate(children.tolist()):
            (x0, y0), (x1, y1) = at[actions + i], at[child]
            count = used.calls[i, child]
            if count == 0:
                ax.plot([x0, x1], [y0, y1], color="0.8", lw=0.8, ls=":", zorder=1)
                continue
            ax.plot([x0, x1], [y0, y1], color=BLUE, lw=0.8 + 4 * count / most, alpha=0.55, zorder=2)
            where = 0.3 + 0.4 * (n + 0.5) / len(children)  # numbers of one subtask's calls at different heights
            box = {"fc": "white", "ec": "none", "pad": 0.8, "alpha": 0.85}
            place = (x0 + where * (x1 - x0), y0 + where * (y1 - y0))
            ax.text(*place, f"{count:.2g}", fontsize=7.5, ha="center", va="center", bbox=box, zorder=3)
    for n, name in enumerate(graph.nodes):
        text, subtask = name, n >= actions
        if subtask and np.isfinite(used.value[n - actions]):
            text += f"\nV = {used.value[n - actions]:.3g}"
        box = {"boxstyle": "round,pad=0.35", "fc": "#e6eff8" if subtask else "white", "ec": BLUE if subtask else GREY}
        ax.text(*at[n], text, fontsize=8.5, ha="center", va="center", bbox=box, zorder=4)
    ax.set(xlim=(0, 1), ylim=(-0.4, graph.height + 0.4))
    ax.axis("off")
    ax.set_title(
        f"calls per greedy episode ({used.episodes} episodes), and the learned value V of a subtask where it is called",
        fontsize=9,
    )
    return figure
