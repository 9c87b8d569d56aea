"""A few of many indices."""

from collections import Counter
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_hier.checks import UsageError
from jaxrl_hier.learning.minibatches import distinct, floyd, in_minibatches


def test_every_set_of_indices_is_equally_likely():
    """Exactly: over all that the random bits can lead to, 3 · 4 · 5 ways to draw three of five."""
    ways = jnp.array([*product(range(3), range(4), range(5))], jnp.uint32)
    drawn = Counter(
        tuple(sorted(indices)) for indices in np.asarray(jax.vmap(lambda bits: floyd(bits, 5))(ways)).tolist()
    )
    assert len(drawn) == 10
    assert {*drawn.values()} == {6}
    assert all(len({*indices}) == 3 for indices in drawn)


def test_all_indices_and_few_of_many():
    assert sorted(distinct(jax.random.key(0), 7, 7).tolist()) == [*range(7)]
    few = distinct(jax.random.key(1), 1_000_000, 3)
    assert few.dtype == jnp.int32
    assert ((few >= 0) & (few < 1_000_000)).all()


def test_steps_that_are_no_whole_minibatches():
    with pytest.raises(UsageError, match=r"a batch of 10 steps is no multiple of size \(4\); whole_minibatches\(\)"):
        in_minibatches(lambda state, part: (state, {}), 0, jnp.zeros((5, 2)), jax.random.key(0), epochs=1, size=4)
