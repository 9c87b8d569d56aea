"""What compiled programs do, counted from their text; and how the work of algorithms divides among devices."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks import devices
from benchmarks.programs import counts
from benchmarks.throughput.algorithms import updates
from jaxrl_hier import registry
from jaxrl_hier.building import config_of

PROGRAM = """
HloModule written_by_hand, is_scheduled=true

%double (p: f32[4,8]) -> f32[4,8] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %sum.1 = f32[4,8]{1,0} add(%p, %p)
}

%body (loop: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %loop = (s32[], f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%loop), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%loop), index=1
  %twice = f32[4,8]{1,0} fusion(%x), kind=kLoop, calls=%double
  %w = f32[8,8]{1,0} broadcast(%x), dimensions={}
  %y = f32[4,8]{1,0} dot(%twice, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %both = (f32[4,8]{1,0}, f32[8,8]{1,0}) all-reduce(%y, /*index=1*/%w), channel_id=1, to_apply=%plus
  %z = f32[4,8]{1,0} get-tuple-element(%both), index=0
  %next = s32[] add(%i, %i)
  ROOT %out = (s32[], f32[4,8]{1,0}) tuple(%next, %z)
}

%condition (loop.1: (s32[], f32[4,8])) -> pred[] {
  %loop.1 = (s32[], f32[4,8]{1,0}) parameter(0)
  ROOT %on = pred[] constant(true)
}

ENTRY %main (a: f32[4,8]) -> f32[4,8] {
  %a = f32[4,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %begin = (s32[], f32[4,8]{1,0}) tuple(%zero, %a)
  %run = (s32[], f32[4,8]{1,0}) while(%begin), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %end = f32[4,8]{1,0} get-tuple-element(%run), index=1
  %whole = f32[32,8]{1,0} all-gather(%end), channel_id=2, dimensions={0}
  ROOT %less = f32[4,8]{1,0} negate(%end)
}
"""  # noqa: E501


def test_a_program_written_by_hand():
    found = counts(PROGRAM)
    assert found.operations == 3 * (32 + 2 * 32 * 8) + 32
    assert found.number == {"all-reduce": 3, "all-gather": 1}
    assert found.bytes == {"all-reduce": 3 * 4 * (32 + 64), "all-gather": 4 * 32 * 8}
    assert found.unknown_loops == 0
    unknown = counts(PROGRAM.replace("known_trip_count", "other"))
    assert (unknown.unknown_loops, unknown.operations) == (1, 32 + 2 * 32 * 8 + 32)


def test_a_program_that_is_compiled():
    """Matrix products in a loop, each of which sums over rows that 8 devices share."""
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    x = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("batch")))

    def powers(x):
        return jax.lax.fori_loop(0, 5, lambda i, y: (x @ y).T @ x, jnp.ones((16, 16)))

    found = counts(jax.jit(powers).lower(x).compile().as_text())
    assert found.operations == pytest.approx(5 * 2 * (2 * 8 * 16 * 16), rel=0.01)
    assert found.number == {"all-reduce": 5}
    assert found.bytes == {"all-reduce": 5 * 4 * 16 * 16}


def test_gradient_steps_of_every_preset():
    of = lambda name, steps=0: updates(config_of(name, devices.sizes(name)), steps)
    assert all(of(name) >= 1 for name in registry.ALGORITHMS)
    assert of("option-ppo") == 4 * (128 * 16 // 64)
    # 4 rollouts of 8 tasks, each of 80 steps in two minibatches; sub-policies learn from two of them
    assert of("mlsh", 4 * 8 * 80) == 4 * 10 + 2 * 4 * 2


@pytest.mark.parametrize("name", ["dqn", "rl2"])
def test_of_an_algorithm(name):
    """The work divides, up to what every device does for itself, such as the steps of the optimiser."""
    alone, shared = (devices.row(name, n) for n in (1, 8))
    assert not alone["collectives"]
    assert shared["collectives"]["all-reduce"] < 40
    assert alone["operations"] / 8 < shared["operations"] < 1.3 * alone["operations"] / 8
    assert shared["state_bytes"] < alone["state_bytes"]  # environments, and what is kept of them, are split
    (share,) = (row for row in devices.rows_of([alone, shared]) if row.rule)
    assert share.verdict == "reached"
    assert share.ours == shared["operations"] / alone["operations"]
    text = devices.table([alone, shared])
    assert f"{shared['operations'] / alone['operations']:.3f}" in text
