"""An animated episode of a greedy policy over options in four rooms, with the running option."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_envs.four_rooms import FourRooms
from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.rollout import first_episode, play_episodes
from jaxrl_hier.engine.types import Tasks
from jaxrl_hier.hierarchical.call_and_return import call_and_return
from jaxrl_hier.hierarchical.options import HALLWAY_OPTIONS, option_set
from jaxrl_hier.pictures import Trained
from jaxrl_hier.pictures.animation import save_images

ACTIONS = tuple(f"action {name}" for name in ("up", "down", "left", "right"))
HALLWAYS = tuple(f"option {name}" for name in HALLWAY_OPTIONS)
REPEATS = tuple(f"{name}, repeated" for name in ACTIONS)
NAMES = {  # of the options in `option_set`
    "primitive": ACTIONS,
    "hallway": HALLWAYS,
    "both": ACTIONS + HALLWAYS,
    "repeats": ACTIONS + REPEATS,
}


def draw(trained: Trained, folder: Path) -> list[Path]:
    """Draw <folder>/walk.gif, for a learner whose parameters are Q [S, O] over the options that `config.options` names,
    in the task of its first environment; nothing outside four rooms. Returns the paths written."""
    config, env, state = trained.config, trained.env, trained.state
    if not isinstance(env, FourRooms):
        return []
    task = jax.tree.map(lambda x: x[0], state.world.task)
    options = option_set(config.options, None, env, Tasks(sample=lambda key: task))
    key = jax.random.fold_in(state.key, state.iteration)
    path, names = folder / "walk.gif", NAMES[config.options]
    interrupt = getattr(config, "interrupt", False)
    policy_over_options_gif(path, env, task, options, state.params, names, key, interrupt=interrupt)
    return [path]


def policy_over_options_gif(
    path: Path | str,
    env: Any,
    params: Any,
    options: Options,
    q: jax.Array,
    names: Sequence[str],
    key: jax.Array,
    *,
    max_steps: int = 200,
    interrupt: bool = False,
    size: int = 360,
    milliseconds: int = 220,
) -> int:
    """Play one episode of the policy that is greedy for the table `q`, and write it as a GIF with a frame per step.

    A frame shows the agent and its path so far, the name of the running option, where the option may start (blue), its
    policy (arrows) and where it stops (red rings). For an option that may start anywhere, such as a primitive action,
    it shows the name only.

    Args:
        env, params: a FourRooms whose observations are cell indices, and its task.
        q: [S, O] values of the options; an option is only chosen where it may start.
        names: [O] names of the options.
        max_steps: steps after which the animation ends if the episode does not.
        interrupt: leave an option wherever another is better.
        size: width in pixels.
        milliseconds: duration of a frame; twice as long where another option begins, eight times for the last frame.

    Returns:
        The number of steps; the GIF has one frame more, for the final state.

    Raises:
        UsageError: the number of names is not that of the options.
    """
    if len(names) != len(options.policy):
        raise UsageError(f"names must name all {len(options.policy)} options, got {len(names)}")
    agent = call_and_return(
        options, lambda key: q, lambda q, state: q[state], epsilon=0.0, discount=1.0, interrupt=interrupt
    )
    play = jax.jit(lambda key: play_episodes(env, agent, params, q, key, episodes=1, horizon=max_steps, greedy=True))
    seen = play(key)
    length = int(first_episode(seen).sum())
    seen = jax.tree.map(lambda x: np.asarray(x)[:length, 0], seen)
    running, cells = seen.extras.option, [*seen.obs, seen.next_obs[-1]]
    options = jax.tree.map(np.asarray, options)

    frames, durations = [], []
    for t in range(length):
        frames.append(
            _frame(env, params, options, cells[: t + 1], running[t], names[running[t]], f"step {t + 1}", size)
        )
        begins = t == 0 or running[t] != running[t - 1]
        durations.append(milliseconds * (2 if begins else 1))
    end = "goal reached" if seen.terminated[-1] else "stopped"
    frames.append(_frame(env, params, options, cells, None, end, f"{length} steps", size))
    durations.append(8 * milliseconds)

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_images(path, frames, durations)
    return length


def _frame(
    env: Any, params: Any, options: Options, cells: list, option: Any, name: str, step: str, size: int
) -> np.ndarray:
    """The map under a line of text, uint8 [height, size, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from jaxrl_envs.four_rooms import CELLS

    header = 0.1  # of the map's size
    figure = Figure(figsize=(size / 100, size * (1 + header) / 100), dpi=100)
    figure.set_layout_engine("none")  # whatever the style that draws beside it says
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0.0, 0.0, 1.0, 1 / (1 + header)))
    layers: dict[str, Any] = {}
    if option is not None:
        initiation, policy, termination = (array[option] for array in options)
        if not initiation.all():
            layers = {"initiation": initiation, "policy": policy, "termination": termination}
    env.draw(ax, params, cell=cells[-1], **layers)
    rows, columns = CELLS[np.array(cells)].T
    ax.plot(columns, rows, color="tab:blue", lw=2.2, alpha=0.45, solid_joinstyle="round", zorder=2.8)
    middle = 1 - header / 2 / (1 + header)
    font = size / 26
    figure.text(0.04, middle, name, fontsize=font, weight="bold", color="0.15", va="center")
    figure.text(0.96, middle, step, fontsize=font, color="0.4", va="center", ha="right")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
