"""Programs that say how their work divides among devices: the same results as on one, and what is exchanged."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from benchmarks.programs import counts
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.sharding import (
    changed,
    device_mesh,
    each_device,
    layout,
    looked_up,
    mean_over_devices,
    sharing,
    split,
)
from jaxrl_hier.engine.train import train
from jaxrl_hier.engine.types import TrainState
from jaxrl_hier.testing import assert_close, assert_equal
from tests.compiling import quick_jit
from tests.engine.test_train import random_walk

WEIGHTS = jnp.linspace(-1.0, 1.0, 16).reshape(4, 4)


def recurrent(weights, rows):
    """Rows [B, 4] after five steps of a network."""
    return jax.lax.fori_loop(0, 5, lambda i, x: jnp.tanh(x @ weights), rows)


def slope_of_parts(weights, rows):
    unrolled = each_device(recurrent, (None, 0), 0)
    return jax.grad(lambda weights: jnp.mean(unrolled(weights, rows) ** 2))(weights)


def slope_of_means(weights, rows):
    slope = lambda weights, rows: jax.grad(lambda w: jnp.mean(recurrent(w, rows) ** 2))(weights)
    return mean_over_devices(slope, (None, 0))(weights, rows)


def of_a_split_batch(weights, rows):
    return jax.grad(lambda w: jnp.mean(jnp.tanh(split(rows[::-1] + 1.0) @ w)))(weights)


def from_a_table(weights, rows):
    """Numbers and truth values of both axes of some rows, four at a time."""
    row = jnp.arange(16).reshape(8, 2) * 7 % 16
    look = lambda table, row, column: (table[row, column], table[row, column] > 0.3)
    numbers, large = looked_up(look, rows, row, row % 4, axis=0)
    return weights + jnp.sum(numbers * jnp.arange(16.0).reshape(8, 2)), large


def into_a_table(weights, rows):
    """Three rows, of three devices, grow by what all devices know."""
    return changed(lambda x, more: x + more, rows, jnp.array([13, 0, 6]), weights[:3])


PROGRAMS = {
    slope_of_parts: {"all-reduce": 1},
    slope_of_means: {"all-reduce": 1},
    of_a_split_batch: {"all-reduce": 1},
    from_a_table: {"all-reduce": 1, "reduce-scatter": 2},
    into_a_table: {},
}


def state_of(rows):
    """Of one seed, with rows [B, ...] for a world."""
    one = jnp.zeros(1, jnp.int32)
    return TrainState(WEIGHTS[None], (), rows[None], (), jax.random.split(jax.random.key(0), 1), one)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_devices_compute_the_same_together_with_one_exchange(program):
    rows = jnp.sin(jnp.arange(64.0)).reshape(16, 4)
    alone = quick_jit(program)(WEIGHTS, rows)
    state = jax.device_put(state_of(rows), layout(state_of(rows), device_mesh(8)))
    with sharing(state):
        step = quick_jit(lambda state: program(state.params[0], state.world[0])).lower(state).compile()
    assert_close(step(state), alone)
    found = counts(step.as_text()).number
    assert {kind: n for kind, n in found.items() if "reduce" in kind} == PROGRAMS[program]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_mesh_that_is_not_ours_is_left_alone(program):
    rows = jnp.sin(jnp.arange(64.0)).reshape(16, 4)
    mine = jax.make_mesh((2,), ("mine",), (AxisType.Auto,), devices=jax.devices()[:2])
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), (WEIGHTS, rows))
    over_runs = jax.shard_map(jax.vmap(program), mesh=mine, in_specs=P("mine"), out_specs=P("mine"), check_vma=False)
    for found, expected in zip(
        *map(jax.tree.leaves, (quick_jit(over_runs)(*stacked), quick_jit(program)(WEIGHTS, rows)))
    ):
        assert_close(found, jnp.stack([expected, expected]))


def test_a_batch_that_does_not_divide_is_left_to_every_device():
    rows = jnp.sin(jnp.arange(40.0)).reshape(10, 4)
    state = jax.device_put(state_of(rows), jax.tree.map(lambda x: layout(state_of(rows[:8]), device_mesh(8)).key, rows))
    with sharing(state):
        assert_close(slope_of_means(WEIGHTS, rows), jax.jit(slope_of_parts)(WEIGHTS, rows))


def run(**settings):
    return RunConfig(**{"iterations": 4, "log_every": 2, "checkpoint_every": 2, "seeds": 4, "quiet": True} | settings)


def test_devices_share_the_seeds(tmp_path):
    """Where they divide; another number of devices goes on with the run, whatever they share."""
    walk = random_walk(batch=6)
    alone = train(walk, run())
    shared = train(walk, run(devices=4), directory=tmp_path / "run")
    assert {x.data.shape for x in shared.state.params.addressable_shards} == {(1, 3)}
    assert {x.data.shape for x in shared.state.world.addressable_shards} == {(1, 6)}
    assert_close(replace(shared.state, key=()), replace(alone.state, key=()))
    # a process with other devices can read it: it asks for the devices that it has, not for those of whoever saved it
    loaded = checkpoint.restore(tmp_path / "run", jax.eval_shape(lambda: shared.state))
    assert {x.sharding for x in jax.tree.leaves(loaded)} == {SingleDeviceSharding(jax.devices()[0])}
    assert [row["return"] for row in shared.rows] == pytest.approx([row["return"] for row in alone.rows], rel=1e-5)
    np.testing.assert_allclose(shared.evaluation["return"].values, alone.evaluation["return"].values, rtol=1e-5)
    whole = train(walk, run(iterations=8))
    for devices, iterations in (
        (2, 6),
        (3, 8),
    ):  # two seeds on each of two, then two environments of all on each of three
        again = train(walk, run(devices=devices, iterations=iterations), directory=tmp_path / "run", resume=True)
    assert_close(again.state.params, whole.state.params)
    assert_equal(again.state.key, whole.state.key)
