"""JAX's switches: whatever they say, every algorithm trains, and computes the same numbers."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
import jaxrl_hier
from jaxrl_hier import registry
from jaxrl_hier.exact import hierarchy
from jaxrl_hier.hierarchical.graphs import taxi_graph
from tests.close import assert_close
from tests.sizes import SIZES

RUN = {"iterations": 2, "log_every": 1, "checkpoint_every": 2, "evaluate_every": 0, "quiet": True}


def switched(name):
    return {
        "debug_nans": jax.debug_nans(True),
        "enable_x64": jax.enable_x64(True),
        "rank_promotion": jax.numpy_rank_promotion("raise"),
        "dtype_promotion": jax.numpy_dtype_promotion("strict"),
    }[name]


def numbers(result):
    rows = [{k: v for k, v in row.items() if k != "steps_per_second"} for row in result.rows]
    return rows, {name: (m.axes, np.asarray(m.values)) for name, m in result.evaluation.items()}


@pytest.mark.thorough
def test_without_jit_a_run_goes_step_by_step():
    """As one does to look into an environment; numbers are those of the compiled program."""
    env, once = jaxrl_envs.make("bandit-n10-k5"), {"iterations": 1, "checkpoint_every": 1, "eval_episodes": 1}
    settings = SIZES["a2c"] | RUN | once
    train = lambda: jaxrl_hier.train("a2c", env, **settings)
    with jax.disable_jit():
        plain = train()
    assert_close(numbers(plain), numbers(train()))


# one of each loop, and those with a loop of their own
COMPARED = {"q-learning", "option-critic", "sac", "maml", "few-shot-regression", "fun", "maxq", "pearl"}


@pytest.mark.parametrize("name", sorted(registry.ALGORITHMS))
def test_every_algorithm_trains_the_same_under_all_switches_at_once(name):
    with contextlib.ExitStack() as stack:
        for switch in ("debug_nans", "enable_x64", "rank_promotion", "dtype_promotion"):
            stack.enter_context(switched(switch))
        result = jaxrl_hier.train(name, **RUN, **SIZES[name])
    assert {str(x.dtype) for x in jax.tree.leaves(result.state)} <= {
        "float32", "int32", "bool", "uint8", "uint32", "int8", "key<fry>",
    }  # fmt: skip
    if name not in COMPARED:
        return
    rows, evaluation = numbers(jaxrl_hier.train(name, **RUN, **SIZES[name]))
    rows_now, evaluation_now = numbers(result)
    assert rows_now == rows
    assert evaluation_now.keys() == evaluation.keys()
    for key, (axes, values) in evaluation.items():
        assert evaluation_now[key][0] == axes
        np.testing.assert_array_equal(evaluation_now[key][1], values)


def test_exact_solutions_take_double_precision():
    env = jaxrl_envs.make("taxi")[0]
    graph = taxi_graph(env)
    worth = {}
    for bits in (32, 64):
        with jax.enable_x64(bits == 64):
            P, R = env.model(env.default_params)
            recursive = hierarchy.recursively_optimal(P, R, graph)
            best = hierarchy.hierarchically_optimal(P, R, graph)
            again = hierarchy.hierarchical_values(P, R, graph, recursive.choice)
            polled = hierarchy.polled_values(P, R, graph, recursive.choice)
        worth[bits] = recursive.value[-1], best, again.value[-1], polled
        assert {x.dtype for x in worth[bits]} == {jnp.dtype(f"float{bits}")}
    for single, double in zip(worth[32], worth[64]):
        np.testing.assert_allclose(single, double, atol=1e-4 * np.abs(double).max())


def test_functions_of_make_compute_in_single_precision_inside_the_users_jit():
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        algorithm = jaxrl_hier.make("option-critic", **SIZES["option-critic"])
        state = jax.jit(jax.vmap(algorithm.init))(jax.random.split(jax.random.key(0), 2))
        state, _ = jax.jit(jax.vmap(algorithm.step))(state)
        assert jnp.zeros(()).dtype == jnp.float64  # the user's own switch stays
    assert {str(x.dtype) for x in jax.tree.leaves(state)} == {"float32", "int32", "bool", "key<fry>"}
