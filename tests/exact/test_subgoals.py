"""Subgoals that models do not know of: a chain by hand, a flat process, and the cases in which nothing is promised too
much."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_hier.abstractions.options import Options, concatenate, primitive_options
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.exact.subgoals import ending_models, kept_values, optional_values, promised_values, unaffected

GAMMA, SIZE = 0.9, 6


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


def chain():
    """Left and right along a line of SIZE cells, and a run to the right end as an option."""
    cells = np.arange(SIZE)
    P = np.zeros((SIZE, 2, SIZE))
    P[cells, 0, np.maximum(cells - 1, 0)] = P[cells, 1, np.minimum(cells + 1, SIZE - 1)] = 1
    run = Options(
        initiation=jnp.asarray(cells < SIZE - 1)[None],
        policy=jnp.asarray(np.where((cells < SIZE - 1)[:, None], [0.0, 1.0], 0.0))[None],
        termination=jnp.asarray(cells == SIZE - 1, float)[None],
    )
    return jnp.asarray(P), jnp.zeros((SIZE, 2)), concatenate(primitive_options(SIZE, 2), run)


def subgoals(values):
    subgoal = jnp.zeros(SIZE, bool).at[jnp.array([*values])].set(True)
    return subgoal, jnp.zeros(SIZE).at[jnp.array([*values])].set(jnp.array([*values.values()], float))


def planned(values):
    """Models, promised Q, promised V, kept V."""
    P, R, options = chain()
    subgoal, value = subgoals(values)
    old = smdp.option_models(P, R, options, GAMMA)
    q = promised_values(old, options.initiation, subgoal, value)
    policy = tabular.greedy_policy(q, options.initiation.T, 1e-9)
    promised = jnp.where(subgoal, value, jnp.max(q, axis=1))
    return old, q, np.asarray(promised), np.asarray(kept_values(P, R, options, policy, subgoal, value, GAMMA))


def test_a_run_through_a_bad_subgoal_is_promised_and_not_kept():
    _, q, promised, kept = planned({3: -1, 5: 10})
    np.testing.assert_allclose(q[0, 2], GAMMA**5 * 10)
    np.testing.assert_allclose(promised, [*(10 * GAMMA ** np.array([5, 4, 3])), -1, 9, 10])
    np.testing.assert_allclose(kept, [*(-(GAMMA ** np.array([3, 2, 1]))), -1, 9, 10])


def test_options_that_run_through_a_subgoal_are_found():
    P, R, options = chain()
    subgoal, _ = subgoals({3: -1, 5: 10})
    old, ending = smdp.option_models(P, R, options, GAMMA), ending_models(P, R, options, subgoal, GAMMA)
    expected = np.ones((3, SIZE), bool)
    expected[2, :3] = False
    expected[:, [3, 5]] = False
    np.testing.assert_array_equal(unaffected(old, ending, subgoal)[:, :5], expected[:, :5])


def test_kept_values_are_those_of_the_flat_process():
    """With one more state, behind the subgoals, which pay on leaving them."""
    P, R, options = chain()
    subgoal, value = subgoals({1: 2.0, 4: -3.0})
    policy = jnp.full((SIZE, 3), 0.5).at[:, 2].set(0)
    flat = np.zeros((SIZE + 1, 2, SIZE + 1))
    flat[:SIZE, :, :SIZE] = P
    flat[np.flatnonzero(subgoal)] = flat[SIZE] = np.eye(SIZE + 1)[SIZE]
    pays = np.zeros((SIZE + 1, 2))
    pays[:SIZE] = np.asarray(jnp.where(subgoal, value, 0.0))[:, None]
    found = tabular.policy_evaluation(jnp.asarray(flat), jnp.asarray(pays), jnp.full((SIZE + 1, 2), 0.5), GAMMA)
    np.testing.assert_allclose(kept_values(P, R, options, policy, subgoal, value, GAMMA), found[:SIZE], atol=1e-12)


@pytest.mark.parametrize("values", [{2: 10}, {1: 4, 4: 4}, {0: 1, 3: 1, 5: 1}])
def test_nothing_is_promised_too_much_where_all_subgoals_have_one_value(values):
    _, _, promised, kept = planned(values)
    assert (promised <= kept + 1e-9).all()


def test_subgoals_that_may_be_passed_keep_what_is_promised():
    P, R, options = chain()
    subgoal, value = subgoals({3: -1, 5: 10})
    old = smdp.option_models(P, R, options, GAMMA)
    found = optional_values(old, options.initiation, subgoal, value)
    np.testing.assert_allclose(found, 10 * GAMMA ** np.arange(5, -1, -1))
