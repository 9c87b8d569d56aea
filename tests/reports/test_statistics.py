"""Intervals: how often each covers, by simulation, and what there is to say where values do not tell their spread."""

import numpy as np
import pytest
from scipy import stats

from jaxrl_hier.engine.types import NamedArray
from jaxrl_hier.reports import statistics
from jaxrl_hier.reports.statistics import FRACTION, adaptation_curve, band

COUNTS = (2, 3, 5, 10, 20, 30)
# percent, for n of COUNTS: where Student's t cannot do what it says
OF_T = {"normal": (95,) * 6, "exponential": (91, 88, 88, 90, 92, 93), "lognormal": (90, 84, 82, 84, 87, 88)}
DRAWN = {
    "normal": (lambda rng, shape: rng.normal(3.0, 2.0, shape), 3.0),
    "exponential": (lambda rng, shape: rng.exponential(1.0, shape), 1.0),
    "lognormal": (lambda rng, shape: rng.lognormal(0.0, 1.0, shape), np.exp(0.5)),
}


@pytest.mark.parametrize("data", DRAWN)
def test_students_t_covers_normal_data_and_how_much_less_skewed_data(data):
    draw, true = DRAWN[data]
    for n, percent in zip(COUNTS, OF_T[data]):
        low, high = band(draw(np.random.default_rng(n), (n, 20_000)))
        covered = 100 * np.mean((low <= true) & (true <= high))
        assert covered == pytest.approx(percent, abs=1.0), n
        if data == "normal":
            assert abs(covered - 95) < 2


def clopper_pearson(k, n):
    low = stats.beta.ppf(0.025, k, n - k + 1) if k else 0.0
    return low, stats.beta.ppf(0.975, k + 1, n - k) if k < n else 1.0


@pytest.mark.parametrize("n", COUNTS)
def test_bounded_means_cover_bernoulli_data(n):
    """Exactly: the coverage is a sum over the number of successes. The interval is Clopper and Pearson's."""
    intervals = np.array([statistics.mean([1.0] * k + [0.0] * (n - k), bounds=FRACTION).interval for k in range(n + 1)])
    np.testing.assert_allclose(intervals, [clopper_pearson(k, n) for k in range(n + 1)], atol=1e-9)
    for p in (0.03, 0.2, 0.5, 0.7, 0.9, 0.95, 0.97):
        covers = (intervals[:, 0] <= p) & (p <= intervals[:, 1])
        assert stats.binom.pmf(np.arange(n + 1), n, p)[covers].sum() >= 0.95


@pytest.mark.parametrize(
    ("draw", "true"),
    [
        (lambda rng, shape: rng.beta(5, 1, shape), 5 / 6),
        (lambda rng, shape: rng.binomial(10, rng.beta(8, 2, shape)) / 10, 0.8),  # ten episodes of each seed
        (lambda rng, shape: np.where(rng.random(shape) < 0.9, 1.0, rng.random(shape)), 0.95),
    ],
    ids=["beta", "success rates", "mostly 1"],
)
def test_bounded_means_cover_what_lies_between(draw, true):
    for n in (2, 5, 20):
        low, high = band(draw(np.random.default_rng(n), (n, 150)), FRACTION)
        assert np.mean((low <= true) & (true <= high)) >= 0.95
        assert low.min() >= 0
        assert high.max() <= 1


def test_bounds_other_than_zero_and_one_scale():
    values = np.array([0.2, 0.9, 1.0, 0.7])
    low, high = statistics.mean(values, bounds=FRACTION).interval
    scaled = statistics.mean(300 * values - 100, bounds=(-100.0, 200.0)).interval
    np.testing.assert_allclose(scaled, [300 * low - 100, 300 * high - 100])


def test_means_inside_bounds_are_cut_at_them():
    found = statistics.mean_inside([0.9, 0.99, 0.95], bounds=FRACTION)
    assert found.interval == (statistics.mean([0.9, 0.99, 0.95]).interval[0], 1.0)
    assert found.method == "Student's t over 3 seeds, within [0, 1]"
    with pytest.raises(ValueError, match="not within the bounds"):
        statistics.mean_inside([0.5, 1.5], bounds=FRACTION)


def coverage(statistic, first, second, true, n, m, count, **about):
    rng = np.random.default_rng(0)
    found = [statistic(first(rng, n), second(rng, m), **about).interval for _ in range(count)]
    return np.mean([interval is None or interval[0] <= true <= interval[1] for interval in found])


def normal(mean, deviation):
    return lambda rng, n: rng.normal(mean, deviation, n)


def bernoulli(p):
    return lambda rng, n: (rng.random(n) < p).astype(float)


@pytest.mark.parametrize(("n", "m", "deviation"), [(3, 3, 4), (5, 9, 2), (10, 10, 1)])
def test_differences_of_independent_groups_cover(n, m, deviation):
    found = coverage(statistics.difference, normal(5, 1), normal(3, deviation), 2.0, n, m, 1500)
    assert found == pytest.approx(0.95, abs=0.02)


def test_differences_with_two_values_in_a_group_cover_less():
    found = coverage(statistics.difference, normal(5, 1), normal(3, 1), 2.0, 2, 10, 1500)
    assert found == pytest.approx(0.90, abs=0.025)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 5), (10, 20)])
def test_differences_of_success_rates_cover(n, m):
    found = coverage(statistics.difference, bernoulli(0.95), bernoulli(0.7), 0.25, n, m, 250, bounds=FRACTION)
    assert found >= 0.95


def test_a_difference_of_success_rates_stays_within_their_reach():
    low, high = statistics.difference([1.0] * 5, [0.0] * 5, bounds=FRACTION).interval
    assert 0 < low < 0.5
    assert high <= 1.0
    assert statistics.difference([1.0] * 5, [1.0] * 5, bounds=FRACTION).interval[0] < -0.4


@pytest.mark.parametrize("n", [3, 10])
def test_ratios_cover(n):
    found = coverage(statistics.ratio, normal(3, 0.6), normal(2, 0.4), 1.5, n, n, 1500)
    assert 0.93 <= found <= 0.98
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(1500):
        common = rng.gamma(6, 0.2, n)
        interval = statistics.paired_ratio(common + rng.normal(2, 0.3, n), common + rng.normal(1, 0.3, n)).interval
        hits.append(interval[0] <= 3.2 / 2.2 <= interval[1])
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02)
    ratio, missed = statistics.ratio([3, 4, 5], [5, 6]), statistics.shortfall([3, 4, 5], [5, 6])
    assert missed.value == pytest.approx(1 - ratio.value)
    assert missed.interval == pytest.approx((1 - ratio.interval[1], 1 - ratio.interval[0]))


def test_pairs_tell_more_than_groups():
    rng = np.random.default_rng(0)
    seeds = rng.normal(0, 5, 10)
    ours, other = seeds + 1 + rng.normal(0, 0.1, 10), seeds
    assert np.ptp(statistics.paired_difference(ours, other).interval) < np.ptp(
        statistics.difference(ours, other).interval
    )
    with pytest.raises(ValueError, match="pairs need two lists of one length, got 10 and 9 values"):
        statistics.paired_difference(ours, other[:9])


def test_medians_lie_between_order_statistics_infinite_ones_included():
    found = statistics.median([*range(8), np.inf, np.inf])
    assert found.value == 4.5
    assert found.interval == (1.0, np.inf)  # the second and the ninth of ten: 97.9 %
    assert statistics.median(range(5)).interval is None  # 2 / 2⁵ > 5 %
    for n in (6, 7, 10, 20, 30):  # exactly: the median is above as many values as a fair coin has heads
        low, high = statistics.median(range(1, n + 1)).interval
        assert stats.binom.cdf(high - 1, n, 0.5) - stats.binom.cdf(low - 1, n, 0.5) >= 0.95
    skewed = lambda rng, n: rng.lognormal(0, 1, n)
    assert coverage(statistics.ratio_of_medians, skewed, skewed, 1.0, 10, 12, 100) >= 0.93


def test_what_stands_beside_the_mean_has_rliables_definitions():
    rng = np.random.default_rng(0)
    x, y = rng.normal(1, 1, 13), np.round(rng.normal(0, 2, 11))
    assert statistics.interquartile_mean(x).value == stats.trim_mean(x, 0.25)
    ordered = np.sort(x)[3:10]
    assert statistics.interquartile_mean(x).value == pytest.approx(ordered.mean())
    for ours in (x, np.round(x)):  # the second with ties
        expected = stats.mannwhitneyu(ours, y, alternative="greater").statistic / (len(ours) * len(y))
        assert statistics.probability_of_improvement(ours, y).value == pytest.approx(expected)


@pytest.mark.parametrize("n", [10, 30])
@pytest.mark.parametrize("data", ["normal", "exponential"])
def test_interquartile_means_cover_about_93_percent(data, n):
    draw, _ = DRAWN[data]
    true = {"normal": 3.0, "exponential": 0.7383}[data]
    values = draw(np.random.default_rng(n), (700, n))
    hits = [i[0] <= true <= i[1] for i in (statistics.interquartile_mean(x).interval for x in values)]
    assert np.mean(hits) == pytest.approx(0.93, abs=0.025)


@pytest.mark.parametrize(("shift", "true"), [(0.0, 0.5), (1.0, 0.76025), (3.0, 0.98305)])
def test_probabilities_of_improvement_cover(shift, true):
    found = coverage(statistics.probability_of_improvement, normal(shift, 1), normal(0, 1), true, 10, 10, 250)
    assert found >= 0.92
    ours = statistics.probability_of_improvement([3.0] * 10, [1.0] * 10)
    assert ours.value == ours.interval[1] == 1.0
    assert 0.7 < ours.interval[0] < 0.9


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (statistics.mean([2.0]), "one value"),
        (statistics.mean([2.0], bounds=(0.0, 5.0)), "one value"),
        (statistics.mean([2.0, 2.0, 2.0]), "all values are the same"),
        (statistics.mean([2.0, np.inf]), "infinite values"),
        (statistics.difference([2.0], [1.0, 3.0]), "one value"),
        (statistics.difference([2.0, 2.0], [1.0, 1.0]), "all values are the same"),
        (statistics.ratio([2.0, 3.0], [-1.0, 0.5]), "a mean is not positive"),
        (statistics.interquartile_mean([0.0] * 3 + [1.0] * 9), "tied, infinite or too few values"),
        (statistics.interquartile_mean(np.arange(9.0)), "tied, infinite or too few values"),
    ],
)
def test_where_values_do_not_tell_their_spread_there_is_no_interval(found, why):
    assert found.interval is None
    assert found.method == f"no interval: {why}"
    assert found.bracket() == ""


def test_estimates_name_what_they_are_over_and_how():
    assert statistics.mean([1.0, 2.0, 4.0]).method == "Student's t over 3 seeds"
    assert statistics.mean([0.5, 1.0], "runs", FRACTION).method == "Gaffke's bounds within [0, 1] over 2 runs"
    assert statistics.mean([2.0]).over == "1 seed"
    assert statistics.difference([1.0, 2.0], [4.0, 5.0, 7.0]).over == "2 and 3 seeds"
    assert statistics.difference([1.0, 2.0], [4.0, 5.0]).over == "2 seeds each"
    assert statistics.difference([1.0], [4.0]).over == "1 seed each"
    values = np.random.default_rng(0).normal(size=2000)
    whole, short = (
        statistics.mean(values, "tasks"),
        statistics.mean_of_moments(values.mean(), values.std(ddof=1), 2000, "tasks"),
    )
    assert short.interval == pytest.approx(whole.interval)
    assert short.method == whole.method == "Student's t over 2,000 tasks"
    assert statistics.mean([1.0, 2.0, 3.0]).bracket() == "[-0.48, 4.48]"
    logs = statistics.mean(np.log([1.0, 2.0, 4.0]))
    assert statistics.geometric_mean([1.0, 2.0, 4.0]).value == pytest.approx(2.0)
    assert statistics.geometric_mean([1.0, 2.0, 4.0]).interval == pytest.approx(tuple(np.exp(logs.interval)))


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="1 of 3 values are NaN"):
        statistics.mean([1.0, np.nan, 2.0])
    with pytest.raises(ValueError, match="values from 0 to 2 are not within the bounds 0 and 1"):
        statistics.mean([0.0, 2.0], bounds=FRACTION)
    with pytest.raises(ValueError, match="at least one value"):
        statistics.mean([])
    assert statistics.mean(np.float32([0.1, 1.0 + 1e-7]), bounds=FRACTION).interval[1] <= 1.0  # rounding passes


def test_bands_are_the_means_intervals_and_leave_out_what_has_none():
    values = np.random.default_rng(0).random((4, 3))
    values[:, 2] = 0.5
    for bounds in (None, FRACTION):
        low, high = band(values, bounds)
        expected = statistics.mean(values[:, 1], bounds=bounds).interval
        np.testing.assert_allclose((low[1], high[1]), expected)
        assert np.isnan(low[2]) == (bounds is None)
    assert np.isnan(band(values[:1])).all()
    values[0, 0] = np.inf
    assert np.isnan(band(values)[0]).tolist() == [True, False, True]


def test_adaptation_curve_is_over_seeds_or_over_tasks():
    values = np.random.default_rng(1).normal(size=(3, 40, 4))
    axes = ("seed", "task", "adaptation_step")
    several = adaptation_curve(NamedArray(values, axes))
    assert [e.over for e in several] == ["3 seeds"] * 4
    assert several[2].value == pytest.approx(values[:, :, 2].mean())
    one = adaptation_curve(NamedArray(values[:1], axes))
    assert one[0].over == "40 tasks"
    assert one[0].interval[0] < one[0].value < one[0].interval[1]
    with pytest.raises(ValueError, match="axes seed, task, adaptation_step; got seed, task"):
        adaptation_curve(NamedArray(values[..., 0], ("seed", "task")))
