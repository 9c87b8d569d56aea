"""What `assert_close` lets pass and what it does not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.close import assert_close

TREE: dict[str, Any] = {
    "w": jnp.array([[1000.0, 0.001], [jnp.inf, -2.0]]),
    "n": (jnp.arange(3), jax.random.key(0)),
    "x": 2.0,
}


def test_entries_are_measured_by_their_array():
    rounded = TREE | {"w": TREE["w"].at[0, 1].add(0.005)}
    assert_close(rounded, TREE)
    assert_close(TREE["w"], [[1000.001, 0.005], [np.inf, -2.0]])
    assert_close(jnp.full((2, 3), 0.7), 0.7)
    assert_close(jnp.zeros((0, 3)), np.zeros((0, 3)))
    assert_close(1e-6, 0.0, scale=1)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            {"w": TREE["w"].at[0, 1].add(0.02)},
            r"\['w'\]\[0, 1\] is 0.02.* and not 0.001.*: 0.02 off, where 1e-05 of",
        ),
        ({"w": TREE["w"].at[1, 0].set(3.0)}, r"\['w'\]"),
        ({"w": TREE["w"].at[0, 0].set(jnp.nan)}, "is nan and not 1000"),
        ({"w": TREE["w"][0]}, r"has the shape \(2,\) and not \(2, 2\)"),
        ({"n": (jnp.arange(3) + 1, jax.random.key(0))}, r"\['n'\]\[0\]"),
        ({"n": (jnp.arange(3), jax.random.key(1))}, r"\['n'\]\[1\]"),
        ({"x": 2.001}, r"\['x'\]"),
    ],
)
def test_what_is_no_rounding_is_named(found, message):
    with pytest.raises(AssertionError, match=message):
        assert_close(TREE | found, TREE)


def test_nothing_expected_is_nothing_found():
    with pytest.raises(AssertionError, match="allowed"):
        assert_close(jnp.full(2, 1e-12), jnp.zeros(2))
