"""Intervals: coverage of the bootstrap, and what an adaptation curve is taken over."""

import numpy as np
import pytest

from jaxrl_hier.engine.types import NamedArray
from jaxrl_hier.statistics import adaptation_curve, bootstrap_mean


def test_bootstrap_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [
        (e := bootstrap_mean(rng.normal(3.0, 2.0, 30), "seeds", resamples=1000)).low <= 3.0 <= e.high
        for _ in range(400)
    ]
    assert 0.90 <= np.mean(hits) <= 0.97  # a percentile bootstrap of 30 values covers a little less than 95 %


def test_bootstrap_repeats_and_names_what_it_is_over():
    values = np.arange(5.0)
    assert bootstrap_mean(values, "seeds") == bootstrap_mean(values, "seeds")
    assert bootstrap_mean(values, "seeds").over == "5 seeds"
    assert bootstrap_mean([2.0], "seeds").low == 2.0


def test_adaptation_curve_is_over_seeds_or_over_tasks():
    values = np.random.default_rng(1).normal(size=(3, 40, 4))
    axes = ("seed", "task", "adaptation_step")
    several = adaptation_curve(NamedArray(values, axes))
    assert [e.over for e in several] == ["3 seeds"] * 4
    assert several[2].mean == pytest.approx(values[:, :, 2].mean())
    one = adaptation_curve(NamedArray(values[:1], axes))
    assert one[0].over == "40 tasks"
    assert one[0].low < one[0].mean < one[0].high
    with pytest.raises(ValueError, match="axes seed, task, adaptation_step; got seed, task"):
        adaptation_curve(NamedArray(values[..., 0], ("seed", "task")))
