"""Data parallelism over one axis of devices. They share the seeds, without any exchange; or else `world` and `memory`,
the environments or tasks of each seed, while everything else is replicated.

XLA partitions the program of an iteration by the layout of the state and adds what the devices exchange. Where it would
exchange too much or repeat work on every device, a program says how its work divides: `each_device` for what every
device can do alone, `mean_over_devices` for gradients, `split` for batches, `looked_up` and `changed` for tables. They
know of the devices inside `sharing`; elsewhere, and where a batch does not divide, they change nothing.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import TrainState

AXIS = "batch"  # of the mesh
FLAG = "--xla_force_host_platform_device_count"  # of XLA: how many devices it makes of a CPU
Axes = Any  # as `jax.vmap` takes them: an axis or None for each argument, or a pytree of them


def devices_of_cores(devices: int) -> None:
    """Make so many devices of a CPU's cores, before anything uses JAX. Nothing changes where there are fewer cores, or
    where XLA_FLAGS says how many devices there are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if 1 < devices <= cores and FLAG not in os.environ.get("XLA_FLAGS", ""):
        with suppress(RuntimeError):  # JAX has been used: `device_mesh` says what is there
            jax.config.update("jax_num_cpu_devices", devices)


def device_mesh(devices: int) -> Mesh:
    """A one-dimensional mesh over the first `devices` devices; where several processes train, over all of them."""
    available = jax.devices()
    if jax.process_count() > 1 and devices != len(available):
        raise UsageError(
            f"devices must be those of all {jax.process_count()} processes, {len(available)}, got {devices}"
        )
    if not 1 <= devices <= len(available):
        more = f"; XLA_FLAGS={FLAG}={devices} makes as many of a CPU" if available[0].platform == "cpu" else ""
        raise UsageError(f"devices must lie between 1 and {len(available)} on this machine, got {devices}{more}")
    return jax.make_mesh((devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=available[:devices])


def layout(state: TrainState, mesh: Mesh) -> TrainState:
    """A NamedSharding for each leaf of a state with leading axis [seeds]: split along the seeds, or [seeds, B, ...]
    along B, see `seeds_are_shared`. The iteration is on every device.

    Raises UsageError when neither is a multiple of the number of devices.
    """
    replicated, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(None, AXIS))
    if seeds_are_shared(state.iteration.shape[0], mesh.size):
        by_seed = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec(AXIS)), state)
        return replace(by_seed, iteration=replicated)

    def by_batch(x: jax.Array) -> NamedSharding:
        if x.shape[1] % mesh.size:
            raise UsageError(
                f"{x.shape[1]} parallel environments or tasks do not divide among {mesh.size} devices; "
                f"use a multiple of {mesh.size}, or as many seeds"
            )
        return split

    everything = jax.tree.map(lambda _: replicated, state)
    return replace(everything, world=jax.tree.map(by_batch, state.world), memory=jax.tree.map(by_batch, state.memory))


def seeds_are_shared(seeds: int, devices: int) -> bool:
    """Whether each device trains seeds of its own: where the number of seeds is a multiple of that of devices."""
    return devices > 1 and seeds % devices == 0


def by_seed(f: Callable[..., Any], state: TrainState) -> Callable[..., Any]:
    """`f` of such a state, all of whose results have a leading axis [seeds], for its own seeds on each device if it has
    some."""
    mesh = _mesh_of(state)
    if mesh is None or not seeds_are_shared(state.iteration.shape[0], mesh.size):
        return f
    return jax.shard_map(f, mesh=mesh, in_specs=_specs(0), out_specs=_specs(0), check_vma=False)


def sharing(state: TrainState) -> AbstractContextManager[Any]:
    """Programs that are traced inside know which devices share this state."""
    mesh = _mesh_of(state)
    return nullcontext() if mesh is None else jax.set_mesh(mesh)


def is_shared(state: TrainState) -> bool:
    """Whether several devices share a state."""
    return _mesh_of(state) is not None


def _mesh_of(state: TrainState) -> Any:
    """Of the devices that share a state; None for one device."""
    mesh = getattr(state.iteration.sharding, "mesh", None)
    return None if mesh is None or mesh.size == 1 else mesh


def each_device(f: Callable[..., Any], in_axes: Axes, out_axes: Axes) -> Callable[..., Any]:
    """`f` of each device's part of a batch, without an exchange between devices. `f` must process each row of a batch
    by itself, all in the same way. A gradient with respect to an argument that is not split is summed over the devices
    once, at the end.

    Args:
        in_axes: the axis along which each argument is split; None: every device has all of it. Whatever `jax.vmap` or
            `jax.grad` traces must be an argument.
        out_axes: the axes along which the results are joined.
    """

    def shared(*args: Any) -> Any:
        if not _divides(in_axes, args):
            return f(*args)
        return jax.shard_map(f, in_specs=_specs(in_axes), out_specs=_specs(out_axes), check_vma=False)(*args)

    return shared


def mean_over_devices(f: Callable[..., Any], in_axes: Axes) -> Callable[..., Any]:
    """`f` whose results, real numbers, are means over a batch, such as the gradient of a mean loss; `in_axes` as for
    `each_device`. The devices exchange these means alone."""

    def shared(*args: Any) -> Any:
        if not _divides(in_axes, args):
            return f(*args)
        mean = lambda *args: jax.tree.map(partial(jax.lax.pmean, axis_name=AXIS), f(*args))
        return each_device(mean, in_axes, None)(*args)

    return shared


def split(batch: Any, axis: int = 0) -> Any:
    """A batch that the devices share along an axis: each computes what follows from its part."""
    size = _devices()
    spec = PartitionSpec(*[PartitionSpec.UNCONSTRAINED] * axis, AXIS)
    place = lambda x: jax.lax.with_sharding_constraint(x, spec) if x.ndim > axis and x.shape[axis] % size == 0 else x
    return batch if size == 1 else jax.tree.map(place, batch)


def looked_up(f: Callable[..., Any], table: Any, row: jax.Array, *rest: Any, axis: int = 0) -> Any:
    """`f(table, row, *rest)`, what stands in some rows of a table [B, ...] that the devices share: each looks up the
    rows that it holds, and receives its part of the results.

    Args:
        f: reads no other rows of the table than `row` [N, ...], and returns arrays [N, ...].
        axis: along which the devices share the results.
    """

    def own(table: Any, row: jax.Array, *rest: Any) -> Any:
        count = jax.tree.leaves(table)[0].shape[0]
        local = row - count * jax.lax.axis_index(AXIS)

        def part(x: jax.Array) -> jax.Array:
            mine = ((local >= 0) & (local < count)).reshape(*row.shape, *[1] * (x.ndim - row.ndim))
            number = jnp.where(mine, x, 0).astype(jnp.uint8 if x.dtype == bool else x.dtype)
            return jax.lax.psum_scatter(number, AXIS, scatter_dimension=axis, tiled=True).astype(x.dtype)

        return jax.tree.map(part, f(table, jnp.clip(local, 0, count - 1), *rest))

    if not _divides((0, axis), (table, jax.eval_shape(f, table, row, *rest))):
        return f(table, row, *rest)
    in_specs = _specs((0, None, *[None] * len(rest)))
    return jax.shard_map(own, in_specs=in_specs, out_specs=_specs(axis), check_vma=False)(table, row, *rest)


def changed(f: Callable[..., Any], table: Any, row: jax.Array, *rest: Any) -> Any:
    """A table [B, ...] that the devices share, in which `f(rows, *rest)` replaces some `rows` [N, ...]. Each device
    changes the rows that it holds; `rest` is all that they exchange.

    Args:
        f: processes each of its rows by itself.
        row: [N], all different.
    """

    def own(table: Any, row: jax.Array, *rest: Any) -> Any:
        count = jax.tree.leaves(table)[0].shape[0]
        local = row - count * jax.lax.axis_index(AXIS)
        place = jnp.where((local >= 0) & (local < count), local, count)  # out of bounds, so dropped
        return put(table, place, f(jax.tree.map(lambda x: x[jnp.clip(local, 0, count - 1)], table), *rest))

    def put(table: Any, place: jax.Array, new: Any) -> Any:
        return jax.tree.map(lambda x, y: x.at[place].set(y, mode="drop"), table, new)

    if not _divides((0,), (table,)):
        return put(table, row, f(jax.tree.map(lambda x: x[row], table), *rest))
    in_specs = _specs((0, None, *[None] * len(rest)))
    return jax.shard_map(own, in_specs=in_specs, out_specs=_specs(0), check_vma=False)(table, row, *rest)


def _devices() -> int:
    """How many devices share what is traced; 1 inside `each_device`, and on a mesh that is not ours."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if AXIS in mesh.manual_axes else mesh.shape.get(AXIS, 1)


def _divides(in_axes: Axes, args: tuple[Any, ...]) -> bool:
    """Whether several devices can share these arguments."""
    size = _devices()
    sizes = [x.shape[axis] for axis, arg in zip(in_axes, args) if axis is not None for x in jax.tree.leaves(arg)]
    return size > 1 and all(n % size == 0 for n in sizes)


def _specs(axes: Axes) -> Any:
    spec = lambda axis: PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS)
    return jax.tree.map(spec, axes, is_leaf=lambda axis: axis is None)
