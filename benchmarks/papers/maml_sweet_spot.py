"""Does MAML's initialisation lie in a sweet spot between the tasks' optima? The popular picture, from a real run.

    python -m benchmarks.papers.maml_sweet_spot                  # minutes on one core
    python -m benchmarks.papers.maml_sweet_spot --scale smoke

Two networks are trained on sinusoids from the same random weights (see maml_sinusoid): MAML's initialisation and one
that is pre-trained on all tasks. From each of them gradient descent, with the step size of the adaptation, goes on
until it has fitted one wave, for many waves. Where it ends is that wave's optimum: the one that this initialisation
leads to, for there are many. Error and gradient are those on a grid of 100 points of the wave, so that a step goes down
the surface that is drawn.

The numbers: how far the optima are, how their directions and the gradients at the start differ between waves, what one
step gains, and the error after a step from the optima's centre, which would be the sweet spot if lying between the
optima were all. Means over waves, intervals over seeds.

The picture shows the error of two waves, chosen beforehand, around the first seed's initialisations: in each panel the
plane through the initialisation and the two optima, on the two principal directions of these points. A gradient step
leaves that plane, so its arrow is a projection, and the titles give the errors.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.flatten_util import ravel_pytree

import jaxrl_envs
from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_envs.sinusoid import SinusoidParams
from jaxrl_hier.engine.train import RunConfig, train
from jaxrl_hier.meta.few_shot_regression import Config, Points, make, squared_error

INITIALISATIONS = {"MAML": Config(), "pre-trained": Config(method="pretrained")}
WAVES = [(4.0, 0.4), (3.0, 2.4)]  # amplitude and phase of the two that are drawn
GRID = 100


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: a minute, to see that it runs"""
    seeds: int = 5
    """independent meta-trainings"""
    waves: int = 40
    """tasks that are fitted from each initialisation"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


@dataclass
class Neighbourhood:
    """An initialisation θ of D weights, and where gradient descent leads from it on each of W waves."""

    start: np.ndarray  # [D], θ
    stepped: np.ndarray  # [W, D], after one step
    optima: np.ndarray  # [W, D]
    gradients: np.ndarray  # [W, D], at θ
    error: np.ndarray  # [W], at θ
    error_stepped: np.ndarray  # [W]
    error_optima: np.ndarray  # [W]
    error_centre: np.ndarray  # [W], after one step from the mean of the optima


def main(arguments: Arguments) -> None:
    smoke = arguments.scale == "smoke"
    iterations, steps = (300, 200) if smoke else (70_000, 20_000)
    env, tasks = jaxrl_envs.make("sinusoid")
    waves = jax.vmap(tasks.sample)(jax.random.split(jax.random.key(1), arguments.waves))
    chosen = jnp.array(WAVES)
    waves = waves.replace(
        amplitude=waves.amplitude.at[: len(WAVES)].set(chosen[:, 0]),
        phase=waves.phase.at[: len(WAVES)].set(chosen[:, 1]),
    )
    found: dict[str, list[Neighbourhood]] = {}
    seconds = compile_seconds = 0.0
    for name, config in INITIALISATIONS.items():
        run = RunConfig(iterations=iterations, seeds=arguments.seeds, log_every=iterations // 10, quiet=True)
        result = train(make(config, env, tasks), dataclasses.replace(run, checkpoint_every=iterations))
        seconds, compile_seconds = seconds + result.seconds, compile_seconds + result.compile_seconds
        weights = [jax.tree.map(lambda x, i=i: x[i], result.state.params.weights) for i in range(arguments.seeds)]
        unravel = ravel_pytree(weights[0])[1]
        explore_waves = jax.jit(partial(explore, env, unravel, waves, steps=steps))
        explored = [jax.device_get(explore_waves(ravel_pytree(w)[0])) for w in weights]
        found[name] = [Neighbourhood(**x) for x in explored]

    rows = [row for name, places in found.items() for row in rows_of(name, places)]
    apart = np.array([np.linalg.norm(a.start - b.start) for a, b in zip(found["MAML"], found["pre-trained"])])
    rows.append(Row.measured("distance between the two initialisations", apart))
    arguments.out.mkdir(parents=True, exist_ok=True)
    surface = partial(error_of, env, unravel)
    picture(surface, waves, {name: places[0] for name, places in found.items()}, arguments.out / "maml_sweet_spot.png")
    path = write_paper(
        "maml_sweet_spot",
        "Finn, Abbeel & Levine, Model-Agnostic Meta-Learning, ICML 2017",
        "figure 1 (an initialisation between the tasks' optima)",
        rows,
        arguments.scale,
        arguments.out,
        waves=arguments.waves,
        wall_seconds=seconds,
        compile_seconds=compile_seconds,
    )
    show(rows)
    print(path)


def error_of(env: Any, unravel: Any, theta: jax.Array, wave: SinusoidParams) -> jax.Array:
    """Mean squared error of weights [D] on a grid of one wave."""
    x = jnp.linspace(-5, 5, GRID)[:, None]
    return squared_error(Config(), unravel(theta), Points(x, env.target(x, wave)))


def explore(env: Any, unravel: Any, waves: SinusoidParams, theta: jax.Array, steps: int) -> dict[str, jax.Array]:
    """The fields of a Neighbourhood."""
    error, alpha = partial(error_of, env, unravel), Config().inner_learning_rate
    each = partial(jax.vmap, in_axes=(None, 0))
    down = lambda theta, wave: theta - alpha * jax.grad(error)(theta, wave)
    converge = lambda theta, wave: jax.lax.fori_loop(0, steps, lambda _, t: down(t, wave), theta)
    stepped, optima = each(down)(theta, waves), each(converge)(theta, waves)
    centre = jnp.mean(optima, axis=0)
    return {
        "start": theta,
        "stepped": stepped,
        "optima": optima,
        "gradients": each(jax.grad(error))(theta, waves),
        "error": each(error)(theta, waves),
        "error_stepped": jax.vmap(error)(stepped, waves),
        "error_optima": jax.vmap(error)(optima, waves),
        "error_centre": jax.vmap(error)(each(down)(centre, waves), waves),
    }


def rows_of(name: str, places: list[Neighbourhood]) -> list[Row]:
    """Means over waves, an interval over seeds."""

    def row(label: str, value: Any, note: str = "") -> Row:
        return Row.measured(f"{name}: {label}", [float(np.mean(value(p))) for p in places], note=note)

    size = lambda x: np.linalg.norm(x, axis=-1)
    moved = lambda p: p.optima - p.start
    return [
        row("error before adaptation", lambda p: p.error),
        row("error after one gradient step", lambda p: p.error_stepped),
        row("error at the optima", lambda p: p.error_optima),
        row("norm of the weights", lambda p: size(p.start)),
        row("distance to a wave's optimum", lambda p: size(moved(p))),
        row("distance of one gradient step", lambda p: size(p.stepped - p.start)),
        row("norm of the gradient", lambda p: size(p.gradients)),
        row(
            "cosine between the downward gradient and the way to the optimum", lambda p: _cosine(-p.gradients, moved(p))
        ),
        row("cosine between the gradients of two waves", lambda p: _pairwise(p.gradients)),
        row("cosine between the ways to the optima of two waves", lambda p: _pairwise(moved(p))),
        row(
            "distance to the optima's centre / distance to an optimum",
            lambda p: size(moved(p).mean(axis=0)) / size(moved(p)).mean(),
            "0: in the middle of them; 1: they all lie on one side",
        ),
        row("error after one gradient step from the optima's centre", lambda p: p.error_centre),
    ]


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a * b, axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def _pairwise(x: np.ndarray) -> np.ndarray:
    """Cosines between all pairs of rows."""
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return (unit @ unit.T)[np.triu_indices(len(x), 1)]


# Picture


class Plane:
    """Through the initialisation and the first two optima; the origin is the initialisation."""

    def __init__(self, place: Neighbourhood):
        self.origin = place.start
        points = np.stack([place.start, *place.optima[:2]])
        self.axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][:2]  # [2, D]
        first, second = self(place.optima[:2])
        if first[0] > 0:  # the first wave's optimum to the left
            self.axes[0] *= -1
        if first[1] + second[1] < 0:
            self.axes[1] *= -1

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        """[..., D] -> [..., 2]."""
        return (theta - self.origin) @ self.axes.T

    def surface(self, error: Any, wave: SinusoidParams, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The error of one wave on a grid, [len(y), len(x)]."""

        @jax.jit  # with everything as an argument: of constants alone it would be evaluated while it compiles
        def row(b: jax.Array, x: jax.Array, origin: jax.Array, axes: jax.Array, wave: SinusoidParams) -> jax.Array:
            return jax.vmap(lambda a: error(origin + a * axes[0] + b * axes[1], wave))(x)

        return np.stack([row(b, x, self.origin, self.axes, wave) for b in y])


def picture(error: Any, waves: SinusoidParams, places: dict[str, Neighbourhood], path: Path) -> None:
    """A row for each initialisation, a column for each wave: its error, where gradient descent ends, and one step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE

    colors, maps = ("#1f6fb4", "#e8710a"), ("Blues_r", "Oranges_r")
    levels = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplot_mosaic("ab;cd;ee", figsize=(9.6, 11.2), height_ratios=(4.6, 4.6, 1.5))
        for panels, (name, place) in zip(("ab", "cd"), places.items()):
            plane = Plane(place)
            shown = plane(np.concatenate([[place.start], place.optima[:2], place.stepped[:2]]))
            middle, half = (shown.max(axis=0) + shown.min(axis=0)) / 2, 0.75 * np.ptp(shown, axis=0).max()
            x, y = (np.linspace(m - half, m + half, 161) for m in middle)
            for i, panel in enumerate(panels):
                ax, wave = axes[panel], jax.tree.map(lambda leaf, i=i: leaf[i], waves)
                values = np.clip(plane.surface(error, wave, x, y), levels[0] / 2, 2 * levels[-1])
                ax.contourf(x, y, np.log10(values), np.log10(levels), cmap=maps[i], alpha=0.75, extend="both")
                lines = ax.contour(x, y, values, levels, colors="white", linewidths=0.7)
                ax.clabel(lines, [0.2, 1, 5, 10], fontsize=8, fmt="%g", colors="0.2")
                for j in (1 - i, i):  # the panel's own wave on top
                    strong = 1.0 if i == j else 0.4
                    arrow = {"arrowstyle": "-|>", "color": colors[j], "lw": 2.2, "alpha": strong, "mutation_scale": 10}
                    arrow |= {"shrinkA": 0, "shrinkB": 0, "ec": "black" if i == j else colors[j]}
                    ax.plot(*plane(place.optima[j]), "*", ms=18, color=colors[j], mec="black", zorder=4, alpha=strong)
                    tip = plane(place.stepped[j])
                    ax.annotate("", (tip[0], tip[1]), (0, 0), arrowprops=arrow, zorder=5)
                ax.plot(0, 0, "o", ms=4.5, color="black", zorder=6)
                ax.set(aspect="equal", xlim=x[[0, -1]], ylim=y[[0, -1]])
                ax.grid(False)
                title = (
                    f"{name}, wave {'AB'[i]}: error {place.error[i]:.1f}, after one step {place.error_stepped[i]:.2f}"
                )
                ax.set_title(title)
            axes[panels[0]].set_ylabel("distance between weights")
        styles: dict[str, dict[str, Any]] = {
            "initialisation": {"marker": "o", "color": "black", "ms": 4.5},
            "a wave's optimum": {"marker": "*", "color": "0.6", "mec": "black", "ms": 13},
            "one gradient step (projected)": {"marker": r"$\rightarrow$", "color": "black", "ms": 14},
        }
        for label, style in styles.items():
            axes["a"].plot([], [], ls="", label=label, **style)
        axes["a"].legend(loc="lower right", fontsize=8.5, frameon=True, framealpha=0.85, edgecolor="none")
        to_scale(axes["e"], places)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def to_scale(ax: Any, places: dict[str, Neighbourhood]) -> None:
    """Both initialisations on one line, in discs that reach to the mean wave's optimum."""
    starts = [place.start for place in places.values()]
    apart = float(np.linalg.norm(starts[0] - starts[1]))
    ax.plot([0, apart], [0, 0], color="0.6", lw=1, zorder=1)
    for at, (name, place) in zip((0.0, apart), places.items()):
        reach = float(np.mean(np.linalg.norm(place.optima - place.start, axis=1)))
        angle = np.linspace(0, 2 * np.pi, 100)
        ax.fill(at + reach * np.cos(angle), reach * np.sin(angle), color="#2a9d6f", alpha=0.35, lw=0)
        ax.plot(at, 0, "o", ms=4, color="black")
        ax.annotate(f"{name}\noptima at {reach:.2f}", (at, -1.6), ha="center", va="top", fontsize=9)
    ax.annotate(f"{apart:.1f} apart", (apart / 2, 0.25), ha="center", va="bottom", fontsize=9, color="0.35")
    ax.set_title("both to one scale; the discs reach to the optimum of the mean wave")
    ax.set(aspect="equal", xlim=(-4, apart + 4), ylim=(-4.2, 2))
    ax.axis("off")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
