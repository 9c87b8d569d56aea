"""Few-shot regression: predictions for test tasks before and after adaptation."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_hier.meta.few_shot_regression import Points, adapted_predictions
from jaxrl_hier.pictures import Trained
from jaxrl_hier.reports.plotting import BLUE, GREY, grid, save, style

TASKS = 4


def predictions(trained: Trained, count: int = TASKS) -> tuple[Any, Points, np.ndarray, np.ndarray]:
    """Test tasks [N], the points to adapt to [N, shots, 1], x [n] over the range of inputs, and the predictions there
    after 0 … `eval_inner_steps` gradient steps [N, K + 1, n]."""
    config, env = trained.config, trained.env
    tasks = trained.tasks.test_batch(count, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), count)
    points = Points(*jax.vmap(lambda key, task: env.points(key, task, config.eval_shots))(keys, tasks))
    many = jax.vmap(lambda key, task: env.points(key, task, 1000)[0])(keys, tasks)
    x = jnp.linspace(many.min(), many.max(), 200)
    of_task = lambda points: adapted_predictions(config, trained.state.params, points, x[:, None])[..., 0]
    return tasks, points, np.asarray(x), np.asarray(jax.jit(jax.vmap(of_task))(points))


def draw(trained: Trained, folder: Path) -> list[Path]:
    """<folder>/predictions.png; nothing where tasks have no one-dimensional functions to draw."""
    if not hasattr(trained.env, "draw") or trained.env.observation_space(trained.env.default_params).shape != (1,):
        return []
    tasks, points, x, predicted = predictions(trained)
    last = predicted.shape[1] - 1
    with style() as plt:
        figure, panels = grid(len(predicted), width=4.0, height=2.8)
        for i, ax in enumerate(panels):
            trained.env.draw(ax, jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], tasks))
            for step, color in {0: GREY, 1: "#8fb8de", last: BLUE}.items():
                if step <= last:
                    label = "before" if step == 0 else f"after {step} gradient step{'' if step == 1 else 's'}"
                    ax.plot(x, predicted[i, step], color=color, lw=1.6, label=label)
            ax.plot(points.x[i, :, 0], points.y[i, :, 0], "o", ms=6, mfc="none", mec="black", label="points seen")
            ax.set(title=f"test task {i + 1}", xlabel="x", ylabel="y")
            ax.set_xticks(np.linspace(x[0], x[-1], 3).round(1))
        handles, labels = panels[0].get_legend_handles_labels()
        handles, labels = [panels[0].get_lines()[0], *handles], ["the task", *labels]
        figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
        return save({"predictions": figure}, folder, plt)
