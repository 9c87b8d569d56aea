"""What an algorithm has learned, as pictures of its state, and an episode of its policy as an animation.

The module of an algorithm may have a function `pictures(trained, folder) -> paths`, which draws into the folder. Ours
lead to the modules here, so that no algorithm knows how to draw.
"""

from pathlib import Path
from typing import Any, NamedTuple

from jaxrl_hier.engine.types import Algorithm, Tasks, TrainState


class Trained(NamedTuple):
    """What is drawn: one seed of a run."""

    config: Any  # the settings of its algorithm
    env: Any
    tasks: Tasks
    algorithm: Algorithm
    state: TrainState  # without an axis of seeds


def draw(module: Any, trained: Trained, folder: Path) -> list[Path]:
    """What the algorithm's module offers, and <folder>/episode.gif where the environment can be rendered. Returns what
    was written.

    Args:
        module: of the algorithm.
    """
    from jaxrl_hier.pictures import episode

    folder.mkdir(parents=True, exist_ok=True)
    drawn = module.pictures(trained, folder) if hasattr(module, "pictures") else []
    return drawn + episode.draw(trained, folder)
