"""Options from the graph of four rooms: eigenoptions (Machado, Bellemare & Bowling, ICML 2017) and covering options
(Jinnai, Park, Abel & Konidaris, ICML 2019), and how far random walks over them carry, exactly.

Four rooms of 104 cells with moves that do not go astray. The agent chooses uniformly among the actions and the
options that may start. The diffusion time is the expected effort to get from one cell to another, mean over all
pairs, by linear solves; in decisions, where an option counts once, and in steps. Beside them: actions alone, the
eight hallway options, and as many pairs of options between two random cells as there are covering pairs, for ten
draws.

The first paper shows diffusion times of its own rooms in a picture and prints no numbers: few eigenoptions make the
walk slower, since all of them lead to the same few cells, and many make it faster. The second bounds cover times by
the algebraic connectivity of the graph with the options as edges, which is compared with the graph without them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.drawing import draw_grid
from jaxrl_envs.four_rooms import CELLS, FREE, MOVES, NUM_CELLS, FourRooms
from jaxrl_hier.abstractions.options import Options, concatenate, primitive_options
from jaxrl_hier.exact.diffusion import diffusion
from jaxrl_hier.hierarchical.graph_options import adjacency, covering_options, eigenoptions, point_option, spectrum
from jaxrl_hier.hierarchical.options import hallway_options

from ..drawing import BLUE, GREEN, GREY, ORANGE, VERMILION, subplots, with_intervals
from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row

PAIRS = (1, 2, 4, 8, 16)  # pairs of options
METHODS = {"eigenoptions": BLUE, "covering options": VERMILION, "random pairs": ORANGE}
PAPER = (
    "Machado, Bellemare & Bowling, A Laplacian framework for option discovery in reinforcement learning, ICML 2017; "
    "Jinnai, Park, Abel & Konidaris, Discovering options for exploration by minimizing cover time, ICML 2019"
)


def parts(scale: Scale) -> dict[str, Computation]:
    pairs = {"pairs": (1,) if scale == "smoke" else PAIRS}
    return {
        "references": Computation(references, seeds=0),
        "eigenoptions": Computation(graph_options, pairs | {"method": "eigenoptions"}, seeds=0),
        "covering options": Computation(graph_options, pairs | {"method": "covering options"}, seeds=0),
        "random pairs": Computation(random_pairs, {"pairs": pairs["pairs"][:3]}),  # four times the time for two more
    }


def moves() -> jax.Array:
    """P [S, A, S'] of moves that do not go astray."""
    return jax.nn.one_hot(jnp.asarray(MOVES), NUM_CELLS, dtype=float)


def effort(options: Options | None) -> np.ndarray:
    """Mean steps and decisions [2] of random walks over actions and these options."""
    actions = primitive_options(NUM_CELLS, 4)
    both = actions if options is None else concatenate(actions, options)
    return np.asarray(jnp.stack(diffusion(moves(), both).mean()))


def references() -> dict[str, np.ndarray]:
    """`effort` [2] of "actions" alone and with the "hallways" options."""
    with jax.enable_x64(True):
        return {"actions": effort(None), "hallways": effort(hallway_options(FourRooms()))}


def graph_options(method: str, pairs: Sequence[int]) -> dict[str, np.ndarray]:
    """With the first so many pairs of options "effort" [N, 2]; and of covering options the "cells" [most, 2] that they
    join, and the "connectivity" [N] of the graph that has them as edges, its second smallest eigenvalue."""
    with jax.enable_x64(True):
        P, most = moves(), max(pairs)
        first = lambda options, count: jax.tree.map(lambda x: x[:count], options)
        if method == "eigenoptions":
            return {"effort": np.stack([effort(eigenoptions(P, count)) for count in pairs])}
        options, cells = covering_options(P, most)
        connectivity = []
        for count in pairs:
            edges = adjacency(P)
            edges[tuple(cells[:count].T)] = edges[tuple(cells[:count, ::-1].T)] = True
            connectivity.append(spectrum(edges).values[1])
        efforts = np.stack([effort(first(options, 2 * count)) for count in pairs])
        return {"effort": efforts, "cells": cells, "connectivity": np.array(connectivity)}


def random_pairs(seeds: Sequence[int], pairs: Sequence[int]) -> dict[str, np.ndarray]:
    """ "effort" [seeds, N, 2] with pairs of options between random cells."""
    found = []
    with jax.enable_x64(True):
        P = moves()
        for seed in seeds:
            random = np.random.default_rng(seed)
            drawn = np.array([random.choice(NUM_CELLS, 2, replace=False) for _ in range(max(pairs))])
            ways = np.stack([drawn, drawn[:, ::-1]], axis=1).reshape(-1, 2)
            options = jax.vmap(lambda way: point_option(P, way[0], way[1]))(jnp.asarray(ways))
            first = [jax.tree.map(lambda x, count=count: x[: 2 * count], options) for count in pairs]
            found.append(np.stack([effort(some) for some in first]))
    return {"effort": np.stack(found)}


def rows(found: Found) -> list[Row]:
    made = []
    unit = ("steps", "decisions")
    for name, label in (("actions", "actions alone"), ("hallways", "hallway options")):
        for i, kind in enumerate(unit):
            made.append(Row.computed(f"{label}: diffusion time in {kind}", float(found["references"][name][i])))
    for method in ("eigenoptions", "covering options"):
        for count, pair in zip(PAIRS, found[method]["effort"]):
            for kind, value in zip(unit, pair):
                made.append(Row.computed(f"{method}, {count_of(count)}: diffusion time in {kind}", float(value)))
    for count, column in zip(PAIRS, np.moveaxis(found["random pairs"]["effort"], 1, 0)):
        for kind, values in zip(unit, column.T):
            made.append(
                Row.measured(f"random pairs, {count_of(count)}: diffusion time in {kind}", values, unit="draws")
            )
    return made + claim_rows(found)


def count_of(pairs: int) -> str:
    return f"{pairs} pair{'' if pairs == 1 else 's'}"


def claim_rows(found: Found) -> list[Row]:
    alone = found["references"]["actions"]
    eigen, covering = found["eigenoptions"]["effort"], found["covering options"]["effort"]
    claims = [
        ("one pair of eigenoptions makes the walk slower, times as many decisions", eigen[0, 1] / alone[1], "above"),
        ("the most eigenoptions make it faster, times as many decisions", eigen[-1, 1] / alone[1], "below"),
        ("the most eigenoptions make it faster, times as many steps", eigen[-1, 0] / alone[0], "below"),
        ("one pair of covering options makes the walk faster, times as many steps", covering[0, 0] / alone[0], "below"),
    ]
    made = []
    for text, value, side in claims:
        holds = value > 1 if side == "above" else value < 1
        made.append(Row.computed(f"claim: {text}", float(value), verdict="reached" if holds else "short"))
        made[-1].note = f"of actions alone; reached: {side} 1"
    for count, others, ours in zip(PAIRS, np.moveaxis(found["random pairs"]["effort"], 1, 0), covering):
        row = Row.measured(
            f"claim: steps more by random than by covering options, {count_of(count)}", others[:, 0] - ours[0]
        )
        row.unit = "draws"
        made.append(row.estimated().judged("above 0"))
    connectivity = found["covering options"]["connectivity"]
    with jax.enable_x64(True):
        before = spectrum(adjacency(moves())).values[1]
    row = Row.computed(
        "claim: covering options raise the algebraic connectivity, times as large", connectivity[0] / before
    )
    row.verdict = "reached" if (np.diff([before, *connectivity]) > 0).all() else "short"
    row.note = (
        f"from {before:.4f} without options to {', '.join(f'{x:.4f}' for x in connectivity)}; reached: each is larger"
    )
    return [*made, row]


def draw(found: Found) -> dict[str, Any]:
    return {"": diffusion_figure(found), "options": options_figure(found["covering options"])}


def diffusion_figure(found: Found) -> Any:
    figure, ((left, right),) = subplots(1, 2, 5.6, 4.4)
    for i, (ax, kind) in enumerate(((left, "steps"), (right, "decisions"))):
        for method in ("eigenoptions", "covering options"):
            values = found[method]["effort"][:, i]
            ax.plot(PAIRS[: len(values)], values, "o-", color=METHODS[method], label=method)
        columns = found["random pairs"]["effort"][:, :, i].T
        points = [Row.measured("", column, unit="draws") for column in columns]
        with_intervals(ax, PAIRS[: len(points)], points, METHODS["random pairs"], "random pairs")
        for name, label, color in (("actions", "actions alone", GREY), ("hallways", "hallway options", GREEN)):
            ax.axhline(found["references"][name][i], color=color, ls="--", label=label)
        ax.set(xscale="log", yscale="log", xlabel="pairs of options", title=f"diffusion time in {kind}")
        ax.set_xticks(PAIRS, [str(count) for count in PAIRS])
        ax.minorticks_off()
    right.legend(fontsize=9)
    return figure


def options_figure(covering: Measured) -> Any:
    """The first eigenvectors with the option that climbs each, and the first covering pairs."""
    figure, axes = subplots(1, 4, 3.6, 3.9)
    with jax.enable_x64(True):
        P = moves()
        vectors, options = spectrum(adjacency(P), normalised=True).vectors, eigenoptions(P, 3)
    for k, ax in enumerate(axes[0, :3]):
        policy = np.asarray(options.policy[k])
        draw_grid(ax, FREE, values=vectors[:, k + 1], policy=policy, termination=options.termination[k])
        ax.set_title(f"eigenoption {k + 1}", fontsize=11)
    draw_grid(axes[0, 3], FREE)
    for i, pair in enumerate(covering["cells"][:4]):
        (row, column), (other, beside) = CELLS[pair]
        axes[0, 3].plot([column, beside], [row, other], "o-", color=f"C{i}", label=str(i + 1))
    axes[0, 3].legend(fontsize=9, loc="upper right")
    axes[0, 3].set_title("covering options, in order", fontsize=11)
    return figure


FIGURE = Figure(
    name="options_from_graph",
    paper=PAPER,
    shows="eigenoptions and covering options in four rooms: exact diffusion times",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=10,
)
