"""Data parallelism over one axis of devices: `world` and `memory` are split, everything else is replicated.

Algorithm code does not mention devices: XLA partitions the program by the layout of its input and adds collectives.
"""

from dataclasses import replace

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import TrainState


def device_mesh(devices: int) -> Mesh:
    """A one-dimensional mesh over the first `devices` devices."""
    available = jax.devices()
    if not 1 <= devices <= len(available):
        raise UsageError(f"devices must lie between 1 and {len(available)} on this machine, got {devices}")
    return jax.make_mesh((devices,), ("batch",), axis_types=(AxisType.Auto,), devices=available[:devices])


def layout(state: TrainState, mesh: Mesh) -> TrainState:
    """A NamedSharding for each leaf of a state with leading axis [seeds]: [seeds, B, ...] is split along B.

    Raises UsageError when B is no multiple of the number of devices.
    """
    replicated, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(None, "batch"))

    def by_batch(x: jax.Array) -> NamedSharding:
        if x.shape[1] % mesh.size:
            raise UsageError(
                f"{x.shape[1]} parallel environments or tasks do not divide among {mesh.size} devices; "
                f"use a multiple of {mesh.size}"
            )
        return split

    everything = jax.tree.map(lambda _: replicated, state)
    return replace(everything, world=jax.tree.map(by_batch, state.world), memory=jax.tree.map(by_batch, state.memory))
