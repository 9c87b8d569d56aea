"""Intervals and the tables made of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxrl_hier.engine.types import NamedArray


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, and what it was taken over ("5 seeds", "40 tasks")."""

    mean: float
    low: float
    high: float
    over: str


def bootstrap_mean(values: Any, over: str, resamples: int = 10_000) -> Estimate:
    """Percentile bootstrap of the mean of independent values [n]; the generator is fixed, so the interval repeats."""
    values = np.asarray(values, np.float64)
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), f"{len(values)} {over}")


def adaptation_curve(measured: NamedArray) -> list[Estimate]:
    """Mean and interval after each adaptation step, of axes ("seed", "task", "adaptation_step").

    Over the seeds when there are several; over the test tasks, as papers do, when there is one.
    """
    if measured.axes != ("seed", "task", "adaptation_step"):
        raise ValueError(f"an adaptation curve has axes seed, task, adaptation_step; got {', '.join(measured.axes)}")
    values = np.asarray(measured.values)
    if values.shape[0] > 1:
        return [bootstrap_mean(column, "seeds") for column in values.mean(axis=1).T]
    return [bootstrap_mean(column, "tasks") for column in values[0].T]
