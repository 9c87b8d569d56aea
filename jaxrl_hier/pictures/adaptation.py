"""Episodes on test tasks that play side by side, before adaptation and after each of its steps, as an animation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_envs.tasks import Tasks
from jaxrl_hier.engine.types import NamedArray
from jaxrl_hier.pictures.animation import save_images
from jaxrl_hier.quantities import Quantity, quantity
from jaxrl_hier.reports.plotting import draws_paths, evenly, style

ROWS, COLUMNS = 2, 4  # most test tasks and adaptation steps shown
FRAMES = 32
PANEL = 1.7  # inches
MILLISECONDS = 90  # of a frame; the last is shown twenty times as long


def draw(
    evaluation: Mapping[str, NamedArray],
    env: Any,
    tasks: Tasks | None,
    folder: Path,
    own: Mapping[str, Quantity] | None = None,
) -> list[Path]:
    """Write <folder>/adaptation.gif, of the first seed, if an algorithm that adapts has kept the paths of its last
    evaluation on test tasks, and the environment draws paths. Returns the paths written.

    Args:
        evaluation: "path" [seed, task, adaptation_step, time, observation] and "return" [seed, task, adaptation_step].
        own: see `quantities`.
    """
    if "path" not in evaluation or not draws_paths(env) or tasks is None or tasks.test is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    images = frames(evaluation, env, tasks, own)
    save_images(folder / "adaptation.gif", images, [MILLISECONDS] * (len(images) - 1) + [20 * MILLISECONDS])
    return [folder / "adaptation.gif"]


def moments(steps: int, most: int = FRAMES) -> list[int]:
    """Time steps that are shown, 0 and the last included: dense at first, when an agent that has adapted is still on
    its way."""
    return sorted({round((steps - 1) * share**2) for share in np.linspace(0, 1, min(most, steps)).tolist()})


def frames(
    evaluation: Mapping[str, NamedArray], env: Any, tasks: Tasks, own: Mapping[str, Quantity] | None = None
) -> list[np.ndarray]:
    """uint8 [H, W, 3] for each of `moments`: a row per test task, a column per adaptation step, whose title tells the
    mean return over all test tasks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    paths = np.asarray(evaluation["path"].values)[0]  # [task, adaptation_step, time, observation]
    returns = np.asarray(evaluation["return"].values)[0].mean(0)  # [adaptation_step]
    count, columns = min(ROWS, len(paths)), evenly(paths.shape[1], COLUMNS)
    params = jax.tree.map(np.asarray, tasks.test_batch(count, jax.random.key(0)))
    step, shown = quantity("adaptation_step", own).label, quantity("return", own)
    with style():
        figure = Figure(figsize=(PANEL * len(columns), PANEL * count + 0.5), dpi=100)
        canvas = FigureCanvasAgg(figure)
        axes: Any = figure.subplots(count, len(columns), squeeze=False)
        for ax in axes.flat:
            ax.grid(False)
            for spine in ax.spines.values():
                spine.set(visible=True, color="0.8")
        for ax, k in zip(axes[0], columns):
            when = "before" if k == 0 else f"after {k} {step.removesuffix('s') if k == 1 else step}"
            ax.set_title(f"{when}\nreturn {shown.factor * returns[k]:.1f}".replace("-", "−"), fontsize=9)
        pictures = []
        for t in moments(paths.shape[2]):
            for i, k in np.ndindex(axes.shape):
                ax = axes[i, k]
                for artist in (*ax.lines, *ax.patches, *ax.collections, *ax.texts):  # `clear` takes far longer
                    artist.remove()
                env.draw(ax, jax.tree.map(lambda leaf, i=i: leaf[i], params), [paths[i, columns[k], : t + 1]])
                ax.set(xticks=[], yticks=[])
            canvas.draw()
            figure.set_layout_engine("none")  # as in the first frame, from here on
            pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return pictures
