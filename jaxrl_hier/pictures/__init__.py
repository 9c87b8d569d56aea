"""What an algorithm has learned, as pictures of its state, and an episode of its policy as an animation.

Our algorithms do not know how to draw: `DRAWN_BY` names the module here that does. The module of an algorithm of your
own may have a function `pictures(trained, folder) -> paths`, which draws into the folder.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl_hier.engine.types import Algorithm, Tasks, TrainState

# the module of an algorithm -> the one of this folder whose `draw` draws what it has learned
DRAWN_BY = {
    "jaxrl_hier.flat.q_learning": "tables",
    "jaxrl_hier.flat.sarsa": "tables",
    "jaxrl_hier.goals.uvfa": "uvfa",
    "jaxrl_hier.hierarchical.fun": "fun",
    "jaxrl_hier.hierarchical.hiro": "hiro",
    "jaxrl_hier.hierarchical.intra_option_q": "walk",
    "jaxrl_hier.hierarchical.maxq": "maxq",
    "jaxrl_hier.hierarchical.option_critic": "options",
    "jaxrl_hier.hierarchical.option_critic_tabular": "options",
    "jaxrl_hier.hierarchical.option_ppo": "options",
    "jaxrl_hier.hierarchical.smdp_q": "walk",
    "jaxrl_hier.meta.few_shot_regression": "few_shot_regression",
}


class Trained(NamedTuple):
    """One seed of a run, to draw."""

    config: Any  # the settings of its algorithm
    env: Any
    tasks: Tasks
    algorithm: Algorithm
    state: TrainState  # without an axis of seeds


def draw(module: Any, trained: Trained, folder: Path) -> list[Path]:
    """Draw what an algorithm has learned, and <folder>/episode.gif where the environment can be rendered.

    Args:
        module: the module of the algorithm, ours or a user's.

    Returns:
        The paths written.
    """
    from jaxrl_hier.pictures import episode

    folder.mkdir(parents=True, exist_ok=True)
    return what_was_learned(module, trained, folder) + episode.draw(trained, folder)


def what_was_learned(module: Any, trained: Trained, folder: Path) -> list[Path]:
    """The pictures of one algorithm, none where it has none. Returns the paths written."""
    if hasattr(module, "pictures"):
        return module.pictures(trained, folder)
    name = DRAWN_BY.get(getattr(module, "__name__", ""))
    return import_module(f"jaxrl_hier.pictures.{name}").draw(trained, folder) if name else []
