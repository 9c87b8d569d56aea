"""Options on the map of four rooms, with terminations as colours and policies as arrows."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_envs.four_rooms import FourRooms
from jaxrl_hier.hierarchical import option_critic, option_critic_tabular, option_ppo
from jaxrl_hier.pictures import Trained
from jaxrl_hier.reports.plotting import save, style


def draw(trained: Trained, folder: Path) -> list[Path]:
    """Draw learned options, <folder>/options.png, with a panel for each; nothing outside four rooms.

    Returns the paths written.
    """
    env, config, params = trained.env, trained.config, trained.state.params
    if not isinstance(env, FourRooms):
        return []
    task = jax.tree.map(lambda x: np.asarray(x[0]), trained.state.world.task)
    if isinstance(params, option_critic_tabular.Tables):
        options, _ = option_critic_tabular.as_options(params, config.temperature)
    else:
        module = option_ppo if isinstance(config, option_ppo.Config) else option_critic
        options = module.as_options(config, env, params)
    count = len(options.policy)
    columns = min(count, 4)
    rows = -(-count // columns)
    with style() as plt:
        figure, axes = plt.subplots(rows, columns, figsize=(2.8 * columns + 1, 2.9 * rows), squeeze=False)
        image: Any = None
        for o, ax in enumerate(axes.flat):
            if o < count:
                image = env.draw(ax, task, values=options.termination[o], policy=options.policy[o])
                image.set_clim(0, 1)
                ax.set_title(f"option {o + 1}")
            else:
                ax.set_visible(False)
        figure.colorbar(image, ax=axes, shrink=0.8, label="probability of ending on arrival")
        return save({"options": figure}, folder, plt)
