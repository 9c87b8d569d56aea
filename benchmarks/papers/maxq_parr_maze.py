"""Parr and Russell's maze with its abstract machines, and as a task graph: Dietterich (JAIR 13, 2000, section 7.3).

Exact expected steps from the upper left corner to the goal room: of any policy; of the best choices that Parr's
machines allow (`hierarchical.maze_machines`), the hierarchical optimum that HAMQ-learning converges to; and of a
task graph whose subtasks leave intersections and hallways by single moves, hierarchically and recursively optimal.

Departures. The paper's graph has Sniff and Back as subtasks with the place where they began as parameters; ours has
moves in their place, and no Go, so that it restricts less. The paper's figure 15, learning curves of MAXQ-Q with
counter-based exploration and of flat Q-learning, is not made: it prints no numbers but that MAXQ-Q learns about ten
times as fast. Nothing is sampled.
"""

from typing import Any

import jax
import numpy as np

from jaxrl_envs.parr_maze import CELLS, FREE, GOAL, NUM_CELLS, regions
from jaxrl_hier.exact.machines import best_values, flat_values, graph_machines, reachable, recursive_choices
from jaxrl_hier.hierarchical.maze_machines import maze_graph, maze_machines, maze_process

from ..drawing import subplots
from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row
from .maxq_taxi import FIGURE as TAXI

PUBLISHED = {"flat Q": 16_704, "machines": 4300, "task graph": 52_043}


def parts(scale: Scale) -> dict[str, Computation]:
    return {"exact": Computation(solve, seeds=0)}


def solve() -> dict[str, np.ndarray]:
    """Exact solutions.

    Returns:
        Steps to the goal from each cell, [S]: "flat"; of "machines" with the best of what they may be doing there; of
        the task graph "hierarchical" and "recursive". Numbers of "values" [3] to learn, of flat Q, machines and graph,
        and how many "choices" the machines may come to.
    """
    with jax.enable_x64(True):
        process, machines, graph = maze_process(), maze_machines(), maze_graph()
        steps = lambda values, nodes: -np.asarray(values)[:nodes].max(axis=0)
        own, every = best_values(machines, process), graph_machines(graph, process)
        recursive = graph_machines(graph, process, recursive_choices(graph, process))
        found = {
            "flat": -np.asarray(flat_values(process)),
            "machines": steps(own, 5),
            "hierarchical": steps(best_values(every, process), 1),
            "recursive": steps(best_values(recursive, process), 1),
        }
    choosing = reachable(machines, process, 0) & (machines.action < 0)[:, None]
    values = [4 * (NUM_CELLS - GOAL.sum()), (machines.choices[choosing] >= 0).sum(), graph.num_values]
    return found | {"values": np.array(values), "choices": np.array(choosing.sum())}


def rows(found: Found) -> list[Row]:
    solved = found["exact"]
    texts = {
        "flat": "any policy",
        "machines": "Parr's machines",
        "hierarchical": "task graph, hierarchically optimal",
        "recursive": "task graph, recursively optimal",
    }
    made = [
        Row.computed(f"exact: {text}, steps from the corner", float(solved[name][0])) for name, text in texts.items()
    ]
    made[1].note = "the least that the machines allow, in all of their choices"
    made[2].note = "as good as any policy, since its subtasks can take any action"
    more = solved["recursive"][0] - solved["hierarchical"][0]
    claim = Row.computed("claim: the recursive optimum is worse than the hierarchical one, steps", float(more))
    claim.verdict = "reached" if more > 1e-6 else "short"
    claim.note = "each subtask leaves by the nearest way, which is not where the next one begins best"
    made.append(claim)
    return made + size_rows(solved)


def size_rows(solved: Measured) -> list[Row]:
    flat, machines, graph = (int(number) for number in solved["values"])
    made = [Row.computed("values: flat Q", flat, published=PUBLISHED["flat Q"]).judged("lower")]
    made[0].note = "published: fewer than this"
    made.append(Row.computed("values: Parr's machines", machines))
    made[1].note = (
        f"the choices in {solved['choices']} pairs of a node and a cell that can be reached: moves go astray, so that "
        f"a choice may come up nearly everywhere. Parr states {PUBLISHED['machines']}, and not how they were counted"
    )
    made.append(Row.computed("values: task graph", graph, published=PUBLISHED["task graph"]).judged("lower"))
    made[2].note = "reached: no more; the paper's graph has more subtasks than ours"
    return made


def draw(found: Found) -> dict[str, Any]:
    """Steps to the goal of any policy, and what the others take more."""
    solved = found["exact"]
    figure, axes = subplots(1, 3, 4.9, 4.7)
    _, crossing = regions()
    panels = (
        ("fewest steps to the goal", solved["flat"]),
        ("steps more by Parr's machines", solved["machines"] - solved["flat"]),
        ("steps more, recursively optimal graph", solved["recursive"] - solved["flat"]),
    )
    for ax, (title, values) in zip(axes[0], panels):
        shown = np.full(FREE.shape, np.nan)
        shown[tuple(CELLS.T)] = values
        ax.imshow(np.where(FREE, np.nan, 0.0), cmap="gray", vmin=-1, vmax=2)
        image = ax.imshow(shown, cmap="viridis_r")
        ax.set(
            title=title, xticks=np.arange(11.5, 83, 12), yticks=np.arange(11.5, 83, 12), xticklabels=[], yticklabels=[]
        )
        ax.grid(visible=True, color="white", lw=0.4)
        figure.colorbar(image, ax=ax, shrink=0.75)
        for name, cell in (("S", 0), ("G", int(np.flatnonzero(GOAL)[GOAL.sum() // 2]))):
            row, column = CELLS[cell]
            ax.text(column, row, name, weight="bold", ha="center", va="center")
    figure.suptitle(
        f"{NUM_CELLS} cells, {crossing.sum()} of them in intersections; moves go astray", fontsize=10, color="0.3"
    )
    return {"": figure}


FIGURE = Figure(
    name="maxq_parr_maze",
    paper=TAXI.paper,
    shows="Parr and Russell's maze: abstract machines and a task graph, exactly",
    parts=parts,
    rows=rows,
    draw=draw,
)
