"""Replay buffers of older checkpoints, which hold each observation twice: as `obs` and as the `next_obs` before it.

Axes in shapes: B environments, C slots of each.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_hier.engine.replay import Ring, add
from jaxrl_hier.engine.types import Transition


@struct.dataclass
class OldRing:
    """A `Ring` with whole steps; leading axes [seeds, B]."""

    steps: Transition  # [seeds, B, C, ...]
    episode: jax.Array
    begin: jax.Array
    end: jax.Array
    slot: jax.Array
    size: jax.Array
    current: jax.Array


def with_old_rings(template: Any) -> Any:
    """The shapes of a state, leading axes [seeds, B], with an OldRing in the place of each Ring."""

    def older(ring: Ring) -> OldRing:
        capacity = ring.row.shape[2]
        per_step = lambda x: jax.ShapeDtypeStruct(
            (*x.shape[:2], capacity, *x.shape[3:]), x.dtype, sharding=getattr(x, "sharding", None)
        )
        obs = jax.tree.map(per_step, ring.observations)
        kept = {name: getattr(ring, name) for name in ("episode", "begin", "end", "slot", "size", "current")}
        return OldRing(steps=ring.steps._replace(obs=obs, next_obs=obs), **kept)

    is_ring = lambda x: isinstance(x, Ring)
    return jax.tree.map(lambda x: older(x) if is_ring(x) else x, template, is_leaf=is_ring)


def converted(state: Any, template: Any) -> Any:
    """A state with OldRings in the form of `template`, with its Rings: the same steps in the same slots."""
    is_old = lambda x: isinstance(x, OldRing)

    def newer(old: Any, shapes: Any) -> Any:
        if not is_old(old):
            return old
        ring = _added_again(old, jax.tree.leaves(shapes.observations)[0].shape[2])
        return jax.tree.map(lambda x, like: jax.device_put(x, getattr(like, "sharding", None)), ring, shapes)

    return jax.tree.map(newer, state, template, is_leaf=is_old)


@partial(jax.jit, static_argnames="rows")
def _added_again(old: OldRing, rows: int) -> Ring:
    """The steps of each seed's ring added to an empty one with `rows` rows of observations, the oldest first."""

    def one(old: OldRing) -> Ring:
        capacity = old.episode.shape[1]
        empty = Ring(
            steps=jax.tree.map(jnp.zeros_like, old.steps._replace(obs=(), next_obs=())),
            observations=jax.tree.map(lambda x: jnp.zeros((x.shape[0], rows, *x.shape[2:]), x.dtype), old.steps.obs),
            row=jnp.zeros_like(old.episode),
            newest=jnp.zeros_like(old.slot),
            **numbers(old),
        )
        order = (old.slot[:, None] + jnp.arange(capacity)) % capacity  # what was never filled comes first
        steps = jax.tree.map(lambda x: jnp.swapaxes(jax.vmap(lambda x, at: x[at])(x, order), 0, 1), old.steps)
        ring = add(empty, steps)
        return replace(ring, **numbers(old) | {"size": jnp.minimum(ring.size, old.size)})

    numbers = lambda old: {name: x for name, x in vars(old).items() if name != "steps"}
    return jax.vmap(one)(old)
