"""What the benchmarks of figures 9, 10 and 11 of Sutton, Precup & Singh share: settings and snapshots."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.results import ROOT
from jaxrl_hier.engine.train import RunConfig, init_seeds
from jaxrl_hier.engine.types import Algorithm, TrainState

PAPER = "Sutton, Precup & Singh, Between MDPs and semi-MDPs, Artificial Intelligence 112, 1999"
GAMMA = 0.9


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: seconds, to see that it runs"""
    seeds: int = 30
    """independent runs; the paper's number"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the pictures"""


def snapshots(algorithm: Algorithm, run: RunConfig, at: np.ndarray) -> Iterator[tuple[np.ndarray, TrainState]]:
    """How many episodes have ended [seeds], and the state of all runs, after each number of steps in `at`.

    A state is given up with the next one. All stretches run the same compiled program, whatever their lengths.
    """

    @partial(jax.jit, donate_argnums=0)
    def advance(carry: Any, iterations: jax.Array) -> Any:
        def one(_: Any, carry: tuple[TrainState, jax.Array]) -> tuple[TrainState, jax.Array]:
            state, metrics = jax.vmap(algorithm.step)(carry[0])
            return state, carry[1] + metrics["return"].count

        return jax.lax.fori_loop(0, iterations, one, carry)

    carry = init_seeds(algorithm, run), jnp.zeros(run.seeds, jnp.int32)
    for iterations in np.diff(at, prepend=0):
        carry = advance(carry, iterations)
        yield np.array(carry[1]), carry[0]
