"""Does MAML's initialisation lie in a sweet spot between the tasks' optima? The popular picture, from a real run.

Two networks are trained on sinusoids from the same random weights (see maml_sinusoid): MAML's initialisation and one
that is pre-trained on all tasks. From each of them gradient descent, with the step size of the adaptation, goes on
until it has fitted one wave, for each of 40 waves. Where it ends is that wave's optimum: the one that this
initialisation leads to, for there are many. Error and gradient are those on a grid of 100 points of the wave, so that a
step goes down the surface that is drawn.

The numbers: how far the optima are, how their directions and the gradients at the start differ between waves, what one
step gains, and the error after a step from the optima's centre, which would be the sweet spot if lying between the
optima were all. Means over waves, intervals over seeds.

The picture shows the error of two waves, chosen beforehand, around the first seed's initialisations: in each panel the
plane through the initialisation and the two optima, on the two principal directions of these points. A gradient step
leaves that plane, so its arrow is a projection, and the titles give the errors.
"""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import jaxrl_envs
from jaxrl_envs.sinusoid import SinusoidParams
from jaxrl_hier import Run
from jaxrl_hier.meta.few_shot_regression import Config, Points, init_params, squared_error

from ..drawing import BLUE, GREEN, ORANGE
from ..figure import Figure, Found, Measured, Scale, Training
from ..results import Row

METHODS: dict[str, dict[str, Any]] = {"MAML": {}, "pre-trained": {"method": "pretrained"}}
WAVES = np.array([(4.0, 0.4), (3.0, 2.4)], np.float32)  # amplitude and phase of the two that are drawn
GRID = 100
REACH, CENTRE = "distance to a wave's optimum", "distance to the optima's centre / distance to an optimum"


def parts(scale: Scale) -> dict[str, Training]:
    iterations, steps, waves = (20, 20, 4) if scale == "smoke" else (70_000, 20_000, 40)
    measure = partial(explored, steps=steps, waves=waves)
    train = partial(Training, "few-shot-regression", points=2 if scale == "smoke" else 10, curves=(), measure=measure)
    chosen = ["MAML"] if scale == "smoke" else METHODS
    return {name: train(METHODS[name], iterations) for name in chosen}


# Measured


def explored(run: Run, steps: int, waves: int) -> dict[str, np.ndarray]:
    """What `summary` says of the place that each seed has learned, [seeds, …]."""
    chosen = drawn_waves(run, waves)
    weights = jax.vmap(lambda w: ravel_pytree(w)[0])(run.state.params.weights)
    places = jax.device_get(jax.jit(jax.vmap(partial(explore, chosen, steps)))(weights))
    found = [summary(jax.tree.map(lambda x, i=i: x[i], places)) for i in range(len(weights))]
    return {name: np.stack([x[name] for x in found]) for name in found[0]}


def drawn_waves(run: Run, count: int) -> SinusoidParams:
    """`count` tasks, the first ones those of the picture."""
    waves = jax.vmap(run.tasks.sample)(jax.random.split(jax.random.key(1), count))
    amplitude, phase = WAVES.T
    return waves.replace(
        amplitude=waves.amplitude.at[: len(WAVES)].set(amplitude), phase=waves.phase.at[: len(WAVES)].set(phase)
    )


@cache
def unravel() -> Any:
    """Weights [D] -> those of the network."""
    return ravel_pytree(init_params(Config(), jax.random.key(0)).weights)[1]


def error_of(theta: jax.Array, wave: SinusoidParams) -> jax.Array:
    """Mean squared error of weights [D] on a grid of one wave."""
    x = jnp.linspace(-5, 5, GRID)[:, None]
    return squared_error(Config(), unravel()(theta), Points(x, jaxrl_envs.make("sinusoid")[0].target(x, wave)))


def explore(waves: SinusoidParams, steps: int, theta: jax.Array) -> dict[str, jax.Array]:
    """An initialisation θ [D], where gradient descent leads from it on each of W waves, and the errors there."""
    alpha = Config().inner_learning_rate
    each = partial(jax.vmap, in_axes=(None, 0))
    down = lambda theta, wave: theta - alpha * jax.grad(error_of)(theta, wave)
    converge = lambda theta, wave: jax.lax.fori_loop(0, steps, lambda _, t: down(t, wave), theta)
    stepped, optima = each(down)(theta, waves), each(converge)(theta, waves)
    return {
        "start": theta,
        "stepped": stepped,  # [W, D], after one step
        "optima": optima,  # [W, D]
        "gradients": each(jax.grad(error_of))(theta, waves),  # [W, D], at θ
        "error": each(error_of)(theta, waves),  # [W]
        "error stepped": jax.vmap(error_of)(stepped, waves),
        "error at optima": jax.vmap(error_of)(optima, waves),
        # after one step from the mean of the optima
        "error of centre": jax.vmap(error_of)(each(down)(jnp.mean(optima, axis=0), waves), waves),
    }


def summary(place: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The numbers of the rows, means over waves, and what the picture needs."""
    start, optima, gradients = place["start"], place["optima"], place["gradients"]
    moved, size = optima - start, lambda x: np.linalg.norm(x, axis=-1)
    numbers = {
        "error before adaptation": place["error"],
        "error after one gradient step": place["error stepped"],
        "error at the optima": place["error at optima"],
        "norm of the weights": size(start),
        REACH: size(moved),
        "distance of one gradient step": size(place["stepped"] - start),
        "norm of the gradient": size(gradients),
        "cosine between the downward gradient and the way to the optimum": np.sum(-unit(gradients) * unit(moved), -1),
        "cosine between the gradients of two waves": between_pairs(gradients),
        "cosine between the ways to the optima of two waves": between_pairs(moved),
        CENTRE: size(moved.mean(axis=0)) / size(moved).mean(),
        "error after one gradient step from the optima's centre": place["error of centre"],
    }
    axes, drawn = plane(start, optima[:2]), slice(len(WAVES))
    return {label: np.mean(value) for label, value in numbers.items()} | {
        "start": start,
        "axes": axes,
        "drawn optima": moved[drawn] @ axes.T,  # [2, 2], in the plane
        "drawn steps": (place["stepped"] - start)[drawn] @ axes.T,
        "drawn errors": np.stack([place["error"][drawn], place["error stepped"][drawn]]),
    }


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def between_pairs(x: np.ndarray) -> np.ndarray:
    """Cosines between all pairs of rows."""
    return (unit(x) @ unit(x).T)[np.triu_indices(len(x), 1)]


def plane(start: np.ndarray, optima: np.ndarray) -> np.ndarray:
    """The two principal directions [2, D] of the initialisation and two optima, turned so that the first optimum is to
    the left and both are above."""
    points = np.stack([start, *optima])
    axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][:2]
    first, second = (optima - start) @ axes.T
    signs = [-1 if first[0] > 0 else 1, -1 if first[1] + second[1] < 0 else 1]
    return axes * np.array(signs)[:, None]


# Rows

NOTES = {CENTRE: "0: in the middle of them; 1: they all lie on one side"}


def rows(found: Found) -> list[Row]:
    made = []
    for name, measured in found.items():
        numbers = {label: x for label, x in measured.items() if x.ndim == 1 and label != "env_steps"}
        made += [Row.measured(f"{name}: {label}", x, note=NOTES.get(label, "")) for label, x in numbers.items()]
    if len(found) == len(METHODS):
        apart = np.linalg.norm(found["MAML"]["start"] - found["pre-trained"]["start"], axis=1)
        made.append(Row.measured("distance between the two initialisations", apart))
    return made


# Picture

LEVELS = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]
LOOKS = ((BLUE, "Blues_r"), (ORANGE, "Oranges_r"))  # of the two waves


def draw(found: Found) -> dict[str, Any]:
    """A row for each initialisation, a column for each wave: its error, where gradient descent ends, and one step."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplot_mosaic("ab;cd;ee", figsize=(9.6, 11.2), height_ratios=(4.6, 4.6, 1.5))
    for panels, (name, measured) in zip(("ab", "cd"), found.items()):
        for i, panel in enumerate(panels):
            landscape(axes[panel], measured, i)
            before, after = measured["drawn errors"][0, :, i]
            axes[panel].set_title(f"{name}, wave {'AB'[i]}: error {before:.1f}, after one step {after:.2f}")
        axes[panels[0]].set_ylabel("distance between weights")
    styles: dict[str, dict[str, Any]] = {
        "initialisation": {"marker": "o", "color": "black", "ms": 4.5},
        "a wave's optimum": {"marker": "*", "color": "0.6", "mec": "black", "ms": 13},
        "one gradient step (projected)": {"marker": r"$\rightarrow$", "color": "black", "ms": 14},
    }
    for label, style in styles.items():
        axes["a"].plot([], [], ls="", label=label, **style)
    axes["a"].legend(loc="lower right", fontsize=8.5, frameon=True, framealpha=0.85, edgecolor="none")
    to_scale(axes["e"], found)
    return {"": figure}


def landscape(ax: Any, measured: Measured, i: int) -> None:
    """The error of wave i around the first seed's initialisation; the other wave's optimum and step are faint."""
    optima, steps = measured["drawn optima"][0], measured["drawn steps"][0]
    shown = np.concatenate([[[0.0, 0.0]], optima, steps])
    middle, half = (shown.max(axis=0) + shown.min(axis=0)) / 2, 0.75 * np.ptp(shown, axis=0).max()
    x, y = (np.linspace(m - half, m + half, 121) for m in middle)
    values = np.clip(surface(measured["start"][0], measured["axes"][0], WAVES[i], x, y), LEVELS[0] / 2, 2 * LEVELS[-1])
    ax.contourf(x, y, np.log10(values), np.log10(LEVELS), cmap=LOOKS[i][1], alpha=0.75, extend="both")
    lines = ax.contour(x, y, values, LEVELS, colors="white", linewidths=0.7)
    ax.clabel(lines, [0.2, 1, 5, 10], fontsize=8, fmt="%g", colors="0.2")
    for j in (1 - i, i):  # the panel's own wave on top
        color, strong = LOOKS[j][0], 1.0 if i == j else 0.4
        arrow = {"arrowstyle": "-|>", "color": color, "lw": 2.2, "alpha": strong, "mutation_scale": 10}
        arrow |= {"shrinkA": 0, "shrinkB": 0, "ec": "black" if i == j else color}
        ax.plot(*optima[j], "*", ms=18, color=color, mec="black", zorder=4, alpha=strong)
        ax.annotate("", tuple(steps[j]), (0, 0), arrowprops=arrow, zorder=5)
    ax.plot(0, 0, "o", ms=4.5, color="black", zorder=6)
    ax.set(aspect="equal", xlim=x[[0, -1]], ylim=y[[0, -1]])
    ax.grid(False)


def surface(start: np.ndarray, axes: np.ndarray, wave: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The error of one wave on a grid of the plane, [len(y), len(x)]."""
    return np.stack([row_of_surface(start, axes, SinusoidParams(*wave), x, at) for at in y])


@jax.jit  # with everything as an argument: of constants alone it would be evaluated while it compiles
def row_of_surface(start: Any, axes: Any, wave: SinusoidParams, x: Any, y: Any) -> jax.Array:
    return jax.vmap(lambda a: error_of(start + a * axes[0] + y * axes[1], wave))(x)


def to_scale(ax: Any, found: Found) -> None:
    """Both initialisations on one line, in discs that reach to the mean wave's optimum; the first seed."""
    starts = [measured["start"][0] for measured in found.values()]
    apart = float(np.linalg.norm(starts[0] - starts[-1]))
    ax.plot([0, apart], [0, 0], color="0.6", lw=1, zorder=1)
    for at, (name, measured) in zip((0.0, apart), found.items()):
        reach = float(measured[REACH][0])
        angle = np.linspace(0, 2 * np.pi, 100)
        ax.fill(at + reach * np.cos(angle), reach * np.sin(angle), color=GREEN, alpha=0.35, lw=0)
        ax.plot(at, 0, "o", ms=4, color="black")
        ax.annotate(f"{name}\noptima at {reach:.2f}", (at, -1.6), ha="center", va="top", fontsize=9)
    ax.annotate(f"{apart:.1f} apart", (apart / 2, 0.25), ha="center", va="bottom", fontsize=9, color="0.35")
    ax.set_title("both to one scale; the discs reach to the optimum of the mean wave")
    ax.set(aspect="equal", xlim=(-4, apart + 4), ylim=(-4.2, 2))
    ax.axis("off")


FIGURE = Figure(
    name="maml_sweet_spot",
    paper="Finn, Abbeel & Levine, Model-Agnostic Meta-Learning, ICML 2017",
    shows="figure 1 (an initialisation between the tasks' optima)",
    parts=parts,
    rows=rows,
    draw=draw,
)
