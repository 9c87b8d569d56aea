"""What the figures of options in four rooms and of other tabular learners share: sets of options, runs, pictures."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.four_rooms import NONE, FourRooms, FourRoomsParams, cell_index
from jaxrl_envs.resetting import select
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.abstractions.options import Options, OptionSet
from jaxrl_hier.engine.types import Algorithm, TrainState
from jaxrl_hier.hierarchical.options import HALLWAY_OPTIONS, option_set

SPS = "Sutton, Precup & Singh, Between MDPs and semi-MDPs, Artificial Intelligence 112, 1999"
GAMMA = 0.9
START = int(cell_index(1, 1))
OPTIONS: dict[str, OptionSet] = {"A": "primitive", "H": "hallway", "A ∪ H": "both"}
NAMES = {"A": "primitive actions", "H": "hallway options", "A ∪ H": "both"}  # as `drawing.COLOURS` knows them


def options_of(name: str) -> Options:
    """One of the three sets of the paper."""
    env = FourRooms()
    return option_set(OPTIONS[name], None, env, Tasks(sample=lambda key: env.default_params))


def endless(env: FourRooms) -> FourRoomsParams:
    """No goal and no time limit: one episode that never ends."""
    return env.default_params.replace(goal=np.int32(NONE), max_steps_in_episode=np.iinfo(np.int32).max)


class Runs:
    """Independent runs of a learner in one program: each of `settings`, whose numbers are traced, with each seed.

    What a run does depends on its seed and the place of its setting alone, not on how many runs there are. The states
    have a leading axis [seeds × settings]; `by_seed` splits it.

    Args:
        make: an algorithm from the entries of a setting.
    """

    def __init__(self, make: Callable[..., Algorithm], settings: Sequence[Mapping[str, float]], seeds: Sequence[int]):
        begun = time.perf_counter()
        self.shape = len(seeds), len(settings)
        columns = {name: np.tile([s[name] for s in settings], len(seeds)) for name in settings[0]}
        keys = jax.vmap(jax.random.key)(np.repeat(seeds, len(settings)))
        keys = jax.vmap(jax.random.fold_in)(keys, np.tile(range(len(settings)), len(seeds)))
        self.state: TrainState = jax.jit(jax.vmap(lambda setting, key: make(**setting).init(key)))(columns, keys)

        @partial(jax.jit, donate_argnums=0)
        def advance(state: TrainState, steps: jax.Array, stopped: jax.Array) -> TrainState:
            step = jax.vmap(lambda state, setting: make(**setting).step(state)[0])
            after = jax.lax.fori_loop(0, steps, lambda _, state: step(state, columns), state)
            return jax.vmap(select)(stopped, state, after)

        self._going_on = np.zeros(len(keys), bool)
        self._advance = advance.lower(self.state, jnp.int32(0), self._going_on).compile()
        self.compile_seconds = time.perf_counter() - begun

    def advance(self, steps: int) -> TrainState:
        """All runs by so many iterations. The state before is given up."""
        self.state = self._advance(self.state, jnp.int32(steps), self._going_on)
        return self.state

    def until(self, episodes: int, look_every: int, most: float = np.inf) -> TrainState:
        """Each run until, at one of the looks, it has had so many episodes; or for `most` iterations."""
        ended = lambda: np.asarray(self.state.memory.count[:, 0]) >= episodes
        taken = 0
        while taken < most and not ended().all():
            self.state = self._advance(self.state, jnp.int32(look_every), ended())
            taken += look_every
        return self.state

    def by_seed(self, x: Any) -> np.ndarray:
        """An array of all runs as [seeds, settings, …]."""
        return np.asarray(x).reshape(*self.shape, *np.shape(x)[1:])


def after(episodes: np.ndarray, counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` [runs, looks] when so many `episodes` [points] have ended, [runs, points].

    It is that of the first look at which `counts` [runs, looks] episodes or more had ended, or of the last look.
    """
    at = np.array([np.minimum(np.searchsorted(count, episodes), len(count) - 1) for count in counts])
    return np.take_along_axis(values, at, axis=1)


def option_panels(figure: Any, options: Options, action: str, wrong: Any = None) -> None:
    """The eight hallway options on the map, in a (sub)figure with a legend.

    Args:
        action: what an arrow is.
        wrong: [O, S] bool, states whose action is marked as not an optimal one.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from jaxrl_envs.four_rooms import CELLS

    from ..drawing import VERMILION

    cross: dict[str, Any] = {"ls": "", "marker": "x", "color": VERMILION, "ms": 9, "mew": 2.2}
    env = FourRooms()
    for o, (ax, name) in enumerate(zip(figure.subplots(2, 4).flat, HALLWAY_OPTIONS)):
        env.draw(ax, initiation=options.initiation[o], policy=options.policy[o], termination=options.termination[o])
        ax.set_title(name.replace(" to ", " room to hallway "))
        if wrong is not None:
            ax.plot(*CELLS[np.flatnonzero(wrong[o])].T[::-1], **cross, zorder=4)
    legend: list[Any] = [
        Patch(fc=(0.84, 0.91, 0.97), ec="0.8", label="may start"),
        Line2D([], [], ls="", marker=r"$\rightarrow$", color="0.15", ms=13, label=action),
        Line2D([], [], ls="", marker="o", mfc="none", mec="tab:red", mew=1.4, ms=11, label="stops on entering"),
    ]
    if wrong is not None:
        legend.append(Line2D([], [], **cross, label="not an optimal action"))
    figure.legend(handles=legend, loc="outside lower center", ncols=4, fontsize=11)
