"""Actions inside their space: random boxes of every kind, and the kinds by hand."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_envs import boxes
from tests.compiling import needs_float16

EVERYWHERE = np.array(
    [-np.inf, -1e30, -1.5, -1.0, -0.9999999, -0.37, -0.0, 1e-20, 0.61, 1.0, 1.5, 1e30, np.inf], np.float32
)
UNIT = EVERYWHERE[2:11, None]
TINY = np.finfo(np.float32).tiny
D = 6  # dimensions of a box: as many boxes in one


def box(low, high, dtype=np.float32):
    low, high = np.atleast_1d(low, high)
    return spaces.Box(low, high, low.shape, dtype)


def outside(action, low, high):
    """How many numbers lie outside of the box, in float64: exact for each dtype here."""
    action, low, high = (np.asarray(x).astype(np.float64) for x in (action, low, high))
    return np.sum(~((action >= low) & (action <= high)))


@st.composite
def random_boxes(draw, width):
    """low and high [D] float64, finite: of any size, one-sided about zero, a few numbers wide, or a single number."""
    kind = np.float32 if width == 32 else np.float64
    floats = st.floats(-(2.0**127), 2.0**127, width=width, allow_subnormal=False)
    lows, highs = [], []
    for _ in range(D):
        x, shape = kind(draw(floats)), draw(st.sampled_from(["any", "above zero", "below zero", "narrow", "single"]))
        y = kind(draw(floats)) if shape == "any" else kind(0)
        if shape == "narrow":
            y = x
            for _ in range(draw(st.integers(1, 3))):
                y = np.nextafter(y, kind(np.inf))
        if shape == "single":
            y = x
        if shape in ("above zero", "below zero"):
            x = abs(x) if shape == "above zero" else -abs(x)
        lows.append(min(x, y))
        highs.append(max(x, y))
    return np.array(lows, np.float64), np.array(highs, np.float64)


@settings(max_examples=40, deadline=None)
@given(random_boxes(32))
def test_actions_and_units_of_random_boxes(ends):
    low, high = ends
    space = box(low, high)
    for action in (boxes.inside(space, EVERYWHERE[:, None]), boxes.sample(space, jax.random.key(0))):
        assert outside(action, low, high) == 0
        assert action.dtype == jnp.float32
    to_action, to_unit = boxes.scaling(space)
    there = np.asarray(to_action(UNIT), np.float64)
    assert outside(there, low, high) == 0
    assert outside(to_unit(there), -1, 1) == 0
    # the ends are reached and the one function is the other's inverse, up to rounding relative to the larger bound
    size, half = np.maximum(abs(low), abs(high)), high / 2 - low / 2
    near = 4e-7 * size + 3e-38
    assert np.all(abs(there[[1, -2]] - [low, high]) <= near)
    assert np.all(abs(np.asarray(to_action(to_unit(there)), np.float64) - there) <= near)
    measurable = half > 1e-36
    slack = near / np.where(measurable, half, 1) + 1e-6
    error = abs(np.asarray(to_unit(there), np.float64) - np.clip(UNIT, -1, 1))
    assert np.all(error[:, measurable] <= slack[measurable])


@settings(max_examples=40, deadline=None)
@given(random_boxes(64))
def test_bounds_of_float64_boxes_are_rounded_inwards(ends):
    low, high = ends
    least, most = boxes.bounds(box(low, high, np.float64))
    assert least.dtype == most.dtype == np.float32
    some = [np.float32(low), np.nextafter(np.float32(low), np.float32(np.inf)), np.zeros(D), np.full(D, TINY), -TINY]
    holds = np.any([(low <= x) & (x <= high) & ((x == 0) | (abs(x) >= TINY)) for x in some], axis=0)
    assert outside(least[holds], low[holds], high[holds]) == outside(most[holds], low[holds], high[holds]) == 0
    assert np.all(least <= most)
    near = lambda x, y: np.all(abs(x - y) <= 1.2e-7 * abs(y) + 1.2e-38)
    assert near(least.astype(float), low)
    assert near(most[holds].astype(float), high[holds])
    actions = boxes.inside(box(low, high, np.float64), EVERYWHERE[:, None])
    assert outside(np.asarray(actions)[:, holds], low[holds], high[holds]) == 0


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (-0.1, 0.1, np.float64),
        (-0.1, 0.1, np.float32),
        (0.0, 0.1, np.float32),
        (0.1, 0.7, np.float32),
        (-0.3, 1.1, np.float32),
        (-0.6, 0.1, np.float32),
        (-3e38, 3e38, np.float32),
        (-3e38, 3.4e38, np.float32),
        (-1e300, 1e300, np.float64),
        (0.0, 1e-38, np.float32),
        (-5e-39, 5e-39, np.float32),
        (1e-39, 1.0, np.float32),
        (2.0, 2.0, np.float32),
        (1.0, np.nextafter(np.float32(1), np.float32(2)), np.float32),
        pytest.param(-0.1, 0.1, np.float16, marks=needs_float16),
        (-0.1, 0.7, jnp.bfloat16),
        (-3, 5, np.int32),
        (0, 255, np.uint8),
        (-(2**31), 2**31 - 1, np.int32),
        (-(2**63), 2**63 - 1, np.int64),
        (-1, 2, np.float32),
    ],
)
def test_kinds_of_boxes(low, high, dtype):
    """Bounds are Python's numbers, as most environments have them; actions go through jit, as in a rollout."""
    space = spaces.Box(low, high, (2,), dtype)
    to_action, to_unit = boxes.scaling(space)
    both = jax.jit(lambda unit, x: (to_action(unit), to_unit(to_action(unit)), boxes.inside(space, x)))
    action, unit, clipped = both(UNIT, EVERYWHERE[:, None])
    draws = jax.jit(jax.vmap(lambda key: boxes.sample(space, key)))(jax.random.split(jax.random.key(0), 200))
    for found in (action, clipped, draws):
        assert outside(found, low, high) == 0
        assert found.dtype == jax.dtypes.canonicalize_dtype(dtype)
    assert outside(unit, -1, 1) == 0
    assert unit.dtype == jnp.float32
    least, most = (np.asarray(x, np.float64) for x in boxes.bounds(space))
    size = np.maximum(abs(least), abs(most)) * np.finfo(np.float32).eps
    assert np.all(abs(np.asarray(action).astype(np.float64)[[1, -2]] - [least, most]) <= 2 * size)
    if np.all(most / 2 - least / 2 > 1e-6 * abs(most)):
        assert np.ptp(np.asarray(draws, np.float64) / 2) > 0.9 * np.max(most / 2 - least / 2)


def test_a_box_without_a_number_of_its_dtype_gets_one_beside_it():
    low = 0.1 + 1e-12
    for ends in ((low, low + 1e-12), (1e-39, 2e-39)):
        least, most = boxes.bounds(spaces.Box(*ends, (1,), np.float32))
        assert least == most
        assert abs(least[0] - ends[0]) < 1.2e-7 * ends[0] + 1.2e-38


def test_integers_are_rounded_to_and_all_of_them_drawn():
    space = spaces.Box(np.array([-2, 0]), np.array([2, 1]), (2,), jnp.int32)
    to_action, to_unit = boxes.scaling(space)
    np.testing.assert_array_equal(to_action(jnp.array([[0.9, 0.9], [-0.4, -0.4]])), [[2, 1], [-1, 0]])
    np.testing.assert_allclose(to_unit(jnp.array([[2, 1], [-1, 0]])), [[1, 1], [-0.5, -1]])
    draws = jax.jit(jax.vmap(lambda key: boxes.sample(space, key)))(jax.random.split(jax.random.key(0), 300))
    assert set(map(int, draws[:, 0])) == {-2, -1, 0, 1, 2}
    assert set(map(int, draws[:, 1])) == {0, 1}


@pytest.mark.parametrize(("low", "high"), [(-np.inf, np.inf), (0.5, np.inf), (-np.inf, -0.5)])
def test_open_boxes(low, high):
    space = spaces.Box(low, high, (1,))
    with pytest.raises(ValueError, match="infinite"):
        boxes.scaling(space)
    np.testing.assert_array_equal(boxes.inside(space, jnp.array([-3.0, 3.0])), np.clip([-3, 3], low, high))
    draws = jax.jit(jax.vmap(lambda key: boxes.sample(space, key)))(jax.random.split(jax.random.key(0), 1000))
    assert outside(draws, low, high) == 0
    assert np.isfinite(draws).all()
    assert draws.std() == pytest.approx(1, abs=0.15)  # of a normal and of an exponential alike


@pytest.mark.parametrize(
    ("low", "high", "message"), [(1.0, -1.0, "wrong order"), (np.nan, 1.0, "NaN"), (-1.0, np.inf, "infinite")]
)
def test_bad_boxes(low, high, message):
    with pytest.raises(ValueError, match=message):
        boxes.scaling(spaces.Box(low, high, (1,)))


@needs_float16
def test_bounds_that_depend_on_the_task():
    """Traced, one box for each task."""
    limits = jnp.array([0.1, 2.0, 0.3])

    def act(limit, dtype):
        space = spaces.Box(-limit, 2 * limit, (2,), dtype)
        return boxes.inside(space, jnp.array([-9.0, 9.0])), boxes.sample(space, jax.random.key(1))

    kinds = (jnp.float32, jnp.float16, jnp.int32)
    for dtype, actions in zip(kinds, jax.jit(jax.vmap(lambda limit: [act(limit, kind) for kind in kinds]))(limits)):
        for found in actions:
            assert found.dtype == dtype
            assert outside(found, -limits[:, None], 2 * limits[:, None]) == 0


def test_other_spaces():
    assert boxes.inside(spaces.Discrete(3), np.int64(2)).dtype == jnp.int32
    assert int(boxes.sample(spaces.Discrete(3), jax.random.key(0))) < 3
    unknown = SimpleNamespace()
    assert boxes.inside(unknown, "as it is") == "as it is"


def test_under_x64():
    """A box of float64 is one there: bounds as they are, actions of float64, units of float32."""
    with jax.enable_x64(True):
        space = spaces.Box(-0.1, 0.7, (1,), np.float64)
        to_action, to_unit = boxes.scaling(space)
        for unit in (jnp.float32([1.0]), jnp.float64([1.0])):
            action = to_action(unit)
            assert action.dtype == jnp.float64
            assert float(action[0]) == 0.7
            assert to_unit(action).dtype == jnp.float32
        assert boxes.sample(space, jax.random.key(0)).dtype == jnp.float64
        assert boxes.inside(spaces.Box(-1.0, 1.0, (1,)), jnp.float64([0.3])).dtype == jnp.float32
        assert boxes.inside(spaces.Discrete(3, dtype=jnp.int64), jnp.int32(1)).dtype == jnp.int64
