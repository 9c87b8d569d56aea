"""95 % intervals, defined once for everything that this project prints, draws or concludes.

The unit is the independent run (seed). Tasks or episodes are the unit only where one fixed policy is measured.

Coverage in percent, by simulation; `tests/reports/test_statistics.py` asserts it:

| statistic | interval | normal | exponential (n = 2, 3, 5, 10, 20, 30) | Bernoulli |
|---|---|---|---|---|
| mean | Student's t | 95 | 91, 88, 88, 90, 92, 93 | use bounds |
| mean within bounds | Gaffke's bounds | at least 95 | at least 95 | at least 95 |
| mean inside bounds | Student's t, cut at the bounds | 95 | as t | use the former |
| difference | Welch's t; bounded: square-and-add | 94 to 98 | about as the mean | at least 95 |
| paired difference | t of the differences | 95 | better than the mean | use bounds |
| ratio, paired ratio | t of its logarithm, delta method | 95 to 98 | 94 to 97 | |
| median | order statistics, from 6 values on | at least 95 | at least 95 | at least 95 |
| ratio of medians | square-and-add of their logarithms | at least 95 | at least 95 | |
| interquartile mean | t, winsorised (Tukey & McLaughlin) | 92 to 95 | 91 to 94 | none is given |
| probability of improvement | score interval (Newcombe, method 5) | 92 to 99 | 94 to 97 | at least 95 |

Student's t under-covers by up to 7 points for few skewed values, and by 13 for lognormal data with σ = 1; Welch's t by
5 with two values in the smaller group. A percentile bootstrap over n = 2, 3, 5, 10 normal values would cover 49, 73, 84
and 91.

Gaffke's bounds serve values that may pile up at an end of their range: success or failure, returns of solvable tasks.
Values that stay inside, such as means over many tasks, have t, cut at the ends of the range. t fails for the former:
ten Bernoulli(.9) values are all 1 in one sample of three, and its interval is then a point, which clipping does not
repair. Wilson's score interval for the mean ignores that seeds may agree, and with n = 5 covers 85 of Bernoulli(.97).
Gaffke's bounds equal Clopper & Pearson's interval, whose coverage is guaranteed, for values that are 0 or 1, and are
shorter for values in between, where coverage is conjectured, not proved (Learned-Miller & Thomas, A new confidence
interval for the mean of a bounded random variable, 2019). They cover more than 95 %, and are wide for few seeds: five
of five solved gives [.48, 1].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from scipy.interpolate import BSpline
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit

from jaxrl_hier.engine.types import NamedArray

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
ENOUGH = 10  # least number of values for an interquartile mean or a probability of improvement
FRACTION = (0.0, 1.0)  # bounds of a success rate, a probability, a share

Interval = tuple[float, float]
Bounds = tuple[float, float] | None


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, what it was taken over ("5 seeds"), and how.

    interval: None where the values say nothing about their spread; `method` then says why.
    """

    value: float
    interval: Interval | None
    over: str
    method: str

    def bracket(self, spec: str = ".2f") -> str:
        """The interval as text, or nothing."""
        return "" if self.interval is None else "[{}, {}]".format(*(format(x, spec) for x in self.interval))


# Means


def mean(values: Any, unit: str = "seeds", bounds: Bounds = None) -> Estimate:
    """Mean of independent values [n]; bounds: the range of possible values, such as (0, 1) for success rates."""
    x = _checked(values, bounds)
    value, over = float(x.mean()), _over(unit, x)
    if reason := _no_spread(x, bounds=bounds):
        return Estimate(value, None, over, reason)
    if bounds is None:
        return Estimate(value, _t_interval(value, _error(x), len(x) - 1), over, f"Student's t over {over}")
    return Estimate(value, _bounded_interval(x, bounds), over, _bounded_method(bounds, over))


def mean_inside(values: Any, unit: str = "seeds", bounds: Bounds = None) -> Estimate:
    """Mean of values in a known range that do not pile up at its ends: t, cut at the ends."""
    return _cut(mean(_checked(values, bounds), unit), bounds)


def geometric_mean(values: Any, unit: str = "seeds", bounds: Bounds = None) -> Estimate:
    """Geometric mean of independent positive values [n]: the exponential of their logarithms' mean."""
    x = _checked(values, bounds)
    if x.min() <= 0:
        raise ValueError(f"a geometric mean is of positive values, got {x.min():g}")
    found = mean(np.log(x), unit)
    interval = None if found.interval is None else (float(np.exp(found.interval[0])), float(np.exp(found.interval[1])))
    return Estimate(float(np.exp(found.value)), interval, found.over, f"{found.method}, of the logarithms")


def mean_of_moments(value: float, deviation: float, count: int, unit: str) -> Estimate:
    """`mean` from the mean, standard deviation (n − 1) and number of values, where there are too many to keep."""
    over = f"{count:,} {unit}"
    interval = _t_interval(value, deviation / count**0.5, count - 1)
    return Estimate(value, interval, over, f"Student's t over {over}")


def difference(ours: Any, other: Any, unit: str = "seeds", bounds: Bounds = None) -> Estimate:
    """Difference of the means of two independent groups, [n] and [m].

    Bounded: from the intervals [l, u] of both means, d − √((x − l₁)² + (u₂ − y)²) and likewise above (square-and-add:
    Newcombe, Statistics in Medicine 17, 1998).
    """
    x, y = _checked(ours, bounds), _checked(other, bounds)
    value, over = float(x.mean() - y.mean()), _over(unit, x, y)
    if reason := _no_spread(x, y, bounds=bounds):
        return Estimate(value, None, over, reason)
    if bounds is None:
        errors = _error(x), _error(y)
        return Estimate(value, _welch_interval(value, errors, (len(x), len(y))), over, f"Welch's t over {over}")
    first, second = ((float(v.mean()), _bounded_interval(v, bounds)) for v in (x, y))
    return Estimate(value, _square_and_add(first, second), over, f"square-and-add, {_bounded_method(bounds, over)}")


def difference_inside(ours: Any, other: Any, unit: str = "seeds", bounds: Bounds = None) -> Estimate:
    """Difference of the means of two independent groups of such values: Welch's t, cut at the possible differences."""
    found = difference(_checked(ours, bounds), _checked(other, bounds), unit)
    return _cut(found, None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0]))


def paired_difference(ours: Any, other: Any, unit: str = "seeds", bounds: Bounds = None) -> Estimate:
    """Difference of the means of two groups [n] whose i-th values belong together (one seed, one task)."""
    x, y = _paired(ours, other, bounds)
    limits = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    return mean(x - y, f"pairs of {unit}", limits)


# Ratios of means


def ratio(ours: Any, other: Any, unit: str = "seeds", bounds: Bounds = None) -> Estimate:
    """Ratio of the means of two independent groups; Welch's t of its logarithm by the delta method."""
    x, y = _checked(ours, bounds), _checked(other, bounds)
    value, over = float(x.mean() / y.mean()), _over(unit, x, y)
    if reason := _no_spread(x, y, positive=True):
        return Estimate(value, None, over, reason)
    errors = _error(x) / x.mean(), _error(y) / y.mean()
    interval = np.exp(_welch_interval(np.log(value), errors, (len(x), len(y))))
    return Estimate(value, tuple(interval.tolist()), over, f"Welch's t of the logarithm over {over}")


def paired_ratio(ours: Any, other: Any, unit: str = "seeds", bounds: Bounds = None) -> Estimate:
    """Ratio of the means of two groups whose i-th values belong together; t of its logarithm by the delta method."""
    x, y = _paired(ours, other, bounds)
    value, over = float(x.mean() / y.mean()), _over(f"pairs of {unit}", x)
    if reason := _no_spread(x, y, positive=True):
        return Estimate(value, None, over, reason)
    error = _error(x / x.mean() - y / y.mean())
    interval = np.exp(_t_interval(np.log(value), error, len(x) - 1))
    return Estimate(value, tuple(interval.tolist()), over, f"Student's t of the logarithm over {over}")


def shortfall(ours: Any, other: Any, unit: str = "seeds", bounds: Bounds = None) -> Estimate:
    """1 − `ratio`: the share by which our mean falls short of the other."""
    found = ratio(ours, other, unit, bounds)
    interval = None if found.interval is None else (1 - found.interval[1], 1 - found.interval[0])
    return Estimate(1 - found.value, interval, found.over, found.method)


# Medians; infinite values are allowed


def median(values: Any, unit: str = "seeds", bounds: Bounds = None) -> Estimate:
    """Median of [n] values; its interval lies between two order statistics and needs at least six values."""
    x = _checked(values, bounds)
    over, value = _over(unit, x), float(np.median(x))
    low, high = stats.quantile_test(x, q=0.0, p=0.5).confidence_interval(LEVEL)
    if np.isnan(low):
        return Estimate(value, None, over, f"no interval: a median of {len(x)} has none")
    return Estimate(value, (float(low), float(high)), over, f"order statistics of {over}")


def ratio_of_medians(ours: Any, other: Any, unit: str = "seeds", bounds: Bounds = None) -> Estimate:
    """Ratio for two independent groups of positive values: square-and-add of the logarithms (Price & Bonett, 2002)."""
    x, y = median(ours, unit, bounds), median(other, unit, bounds)
    value, over = x.value / y.value, _over(unit, np.asarray(ours), np.asarray(other))
    if x.interval is None or y.interval is None:
        return Estimate(value, None, over, x.method if x.interval is None else y.method)
    if min(*x.interval, *y.interval) <= 0 or not np.isfinite([x.value, y.value]).all():
        return Estimate(value, None, over, "no interval: a median is infinite or not positive")
    first, second = (
        (float(np.log(v)), (float(np.log(i[0])), float(np.log(i[1]))))
        for v, i in ((x.value, x.interval), (y.value, y.interval))
    )
    interval = np.exp(_square_and_add(first, second))
    return Estimate(value, tuple(interval.tolist()), over, f"square-and-add, order statistics of {over}")


# Beside the mean, from ten values on


def interquartile_mean(values: Any, unit: str = "seeds", bounds: Bounds = None) -> Estimate:
    """Mean of the middle half of [n] values, as rliable defines it (Agarwal et al., NeurIPS 2021).

    t with the winsorised standard deviation (Tukey & McLaughlin, Sankhyā A 25, 1963). None where most values are tied,
    as success rates often are: a trimmed mean of such data is biased, and no interval around it covers.
    """
    x = _checked(values, bounds)
    over, value, cut = _over(unit, x), float(stats.trim_mean(x, 0.25)), int(0.25 * len(x))
    if 2 * len(np.unique(x)) < len(x) or len(x) < ENOUGH or not np.isfinite(x).all():
        return Estimate(value, None, over, "no interval: tied, infinite or too few values")
    winsorised = np.sort(x)
    winsorised[:cut], winsorised[len(x) - cut :] = winsorised[cut], winsorised[len(x) - cut - 1]
    error = winsorised.std(ddof=1) / ((1 - 2 * cut / len(x)) * len(x) ** 0.5)
    interval = _t_interval(value, float(error), len(x) - 2 * cut - 1)
    return Estimate(value, interval, over, f"Student's t, winsorised, over {over}")


def probability_of_improvement(ours: Any, other: Any, unit: str = "seeds", bounds: Bounds = None) -> Estimate:
    """Probability that a run of ours beats one of the other's, ties counted half, as rliable defines it: U / (n m).

    Score interval with the variance of an exponential pair (Newcombe, Statistics in Medicine 25, 2006, method 5).
    """
    x, y = _checked(ours, bounds), _checked(other, bounds)
    n, m = len(x), len(y)
    over, value = _over(unit, x, y), float(np.mean(np.sign(x[:, None] - y)) / 2 + 0.5)

    def off(p: float) -> float:  # distance of `value` from p in standard errors, less the quantile
        spread = p * (1 - p) * (1 + ((n + m) / 2 - 1) * ((1 - p) / (2 - p) + p / (1 + p))) / (n * m)
        return abs(value - p) / spread**0.5 - ndtri(1 - TAIL)

    tiny = 1e-12
    low = brentq(off, tiny, value - tiny) if value > 1e-6 else 0.0
    high = brentq(off, value + tiny, 1 - tiny) if value < 1 - 1e-6 else 1.0
    return Estimate(value, (float(low), float(high)), over, f"score interval over {over}")


STATISTICS: dict[str, Callable[..., Estimate]] = {
    "mean": mean,
    "mean inside": mean_inside,
    "geometric mean": geometric_mean,
    "median": median,
    "interquartile mean": interquartile_mean,
}
COMPARISONS: dict[str, Callable[..., Estimate]] = {
    "difference": difference,
    "difference inside": difference_inside,
    "paired difference": paired_difference,
    "ratio": ratio,
    "paired ratio": paired_ratio,
    "shortfall": shortfall,
    "ratio of medians": ratio_of_medians,
    "probability of improvement": probability_of_improvement,
}


# Curves


def band(values: Any, bounds: Bounds = None) -> tuple[np.ndarray, np.ndarray]:
    """Both ends, [points] each, of the intervals of means over values [runs, points]; NaN where there is none."""
    values = np.asarray(values, np.float64)
    if bounds is None:
        finite = np.isfinite(values).all(axis=0)
        values = np.where(finite, values, 0.0)
        known = (len(values) > 1) & finite & (np.ptp(values, axis=0) > 0)
        half = stdtrit(len(values) - 1, 1 - TAIL) * _error(values) if len(values) > 1 else np.nan
        middle = np.where(known, values.mean(axis=0), np.nan)
        return middle - half, middle + half
    found = [mean(column, bounds=bounds).interval or (np.nan, np.nan) for column in values.T]
    low, high = np.array(found).reshape(-1, 2).T
    return low, high


def adaptation_curve(measured: NamedArray) -> list[Estimate]:
    """Mean and interval after each adaptation step, of axes ("seed", "task", "adaptation_step").

    Over the seeds when there are several; over the test tasks of the one model, as papers do, when there is one.
    """
    if measured.axes != ("seed", "task", "adaptation_step"):
        raise ValueError(f"an adaptation curve has axes seed, task, adaptation_step; got {', '.join(measured.axes)}")
    values = np.asarray(measured.values)
    if values.shape[0] > 1:
        return [mean(column, "seeds") for column in values.mean(axis=1).T]
    return [mean(column, "tasks") for column in values[0].T]


def experience(evaluation: Mapping[str, NamedArray], unit: str) -> np.ndarray | None:
    """Episodes or steps of experience on the test task before each adaptation step, [K + 1], mean over seeds and tasks;
    None if the evaluation has no such record.

    Args:
        unit: "episodes" or "steps".
    """
    measured = evaluation.get(f"experience_{unit}")
    return None if measured is None else np.asarray(measured.values, np.float64).mean(axis=(0, 1))


# Parts


def _checked(values: Any, bounds: Bounds) -> np.ndarray:
    """Values as float64 [n], n ≥ 1, without NaN, within the bounds up to rounding."""
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or not len(x):
        raise ValueError(f"an estimate needs a list of at least one value, got shape {x.shape}")
    if np.isnan(x).any():
        raise ValueError(
            f"{int(np.isnan(x).sum())} of {len(x)} values are NaN; leave them out and say how many, or mend them"
        )
    if bounds is None:
        return x
    slack = 1e-5 * (bounds[1] - bounds[0])
    if x.min() < bounds[0] - slack or x.max() > bounds[1] + slack:
        raise ValueError(
            f"values from {x.min():g} to {x.max():g} are not within the bounds {bounds[0]:g} and {bounds[1]:g}"
        )
    return np.clip(x, *bounds)


def _paired(ours: Any, other: Any, bounds: Bounds) -> tuple[np.ndarray, np.ndarray]:
    x, y = _checked(ours, bounds), _checked(other, bounds)
    if len(x) != len(y):
        raise ValueError(f"pairs need two lists of one length, got {len(x)} and {len(y)} values")
    return x, y


def _cut(found: Estimate, bounds: Bounds) -> Estimate:
    """The estimate with its interval cut at the bounds, which never excludes the true value."""
    if bounds is None or found.interval is None:
        return found
    interval = max(found.interval[0], bounds[0]), min(found.interval[1], bounds[1])
    return Estimate(found.value, interval, found.over, f"{found.method}, within [{bounds[0]:g}, {bounds[1]:g}]")


def _over(unit: str, *groups: np.ndarray) -> str:
    counts = [f"{len(group):,}" for group in groups]
    if len(set(counts)) > 1:
        return f"{' and '.join(counts)} {unit}"
    number = f"{counts[0]} {unit.removesuffix('s') if counts[0] == '1' else unit}"
    return number if len(groups) == 1 else f"{number} each"


def _no_spread(*groups: np.ndarray, bounds: Bounds = None, positive: bool = False) -> str:
    """Why the groups' values give no interval, or ""."""
    if min(map(len, groups)) == 1:
        return "no interval: one value"
    if not all(np.isfinite(x).all() for x in groups):
        return "no interval: infinite values"
    if positive and min(x.mean() for x in groups) <= 0:
        return "no interval: a mean is not positive"
    if bounds is None and all(np.ptp(x) == 0 for x in groups):
        return "no interval: all values are the same"
    return ""


def _error(x: np.ndarray) -> Any:
    """Standard error of the mean over the first axis."""
    return x.std(axis=0, ddof=1) / len(x) ** 0.5


def _t_interval(value: float, error: float, freedom: float) -> Interval:
    half = float(stdtrit(freedom, 1 - TAIL)) * error
    return float(value - half), float(value + half)


def _welch_interval(value: float, errors: tuple[Any, Any], counts: tuple[int, int]) -> Interval:
    """Interval of a difference of two means with these standard errors; Welch & Satterthwaite's degrees of freedom."""
    variances = [float(error) ** 2 for error in errors]
    freedom = sum(variances) ** 2 / sum(v**2 / (n - 1) for v, n in zip(variances, counts))
    return _t_interval(value, sum(variances) ** 0.5, freedom)


def _square_and_add(first: tuple[float, Interval], second: tuple[float, Interval]) -> Interval:
    """Interval of a difference, from both values with their intervals."""
    (x, (l1, u1)), (y, (l2, u2)) = first, second
    return float(x - y - np.hypot(x - l1, u2 - y)), float(x - y + np.hypot(u1 - x, y - l2))


def _bounded_interval(x: np.ndarray, bounds: tuple[float, float]) -> Interval:
    """Gaffke's bounds: quantiles of Σ wᵢ xᵢ under uniform weights on the simplex, one more value at the far end."""
    low, high = bounds
    x = np.sort((x - low) / (high - low))
    ends = _spacings_quantile(np.insert(x, 0, 0.0), TAIL), _spacings_quantile(np.append(x, 1.0), 1 - TAIL)
    return float(low + (high - low) * ends[0]), float(low + (high - low) * ends[1])


def _spacings_quantile(knots: np.ndarray, level: float) -> float:
    """Quantile of Σ wᵢ knotsᵢ, w uniform on the simplex; knots ascend. Its density is the B-spline on these knots
    (Curry & Schoenberg, 1966)."""
    begin, end = knots[0], knots[-1]
    if begin == end:
        return float(begin)
    primitive, scale = BSpline.basis_element(knots).antiderivative(), (len(knots) - 1) / (end - begin)

    def above(t: float) -> float:
        probability = 0.0 if t <= begin else 1.0 if t >= end else float(primitive(t)) * scale
        return probability - level

    return float(brentq(above, begin, end))


def _bounded_method(bounds: tuple[float, float], over: str) -> str:
    return f"Gaffke's bounds within [{bounds[0]:g}, {bounds[1]:g}] over {over}"
