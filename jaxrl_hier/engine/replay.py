"""The replay buffer: a ring of transitions per environment, with the episode of each step.

Axes in shapes: B environments, C slots of each, T steps, N samples.

The cost of adding and sampling does not depend on the capacity, and no counter grows with the length of a run. We tried
flashbax, but its state has two leaves without the axis [B] that is split over devices, and it samples windows of
consecutive steps without their positions: hindsight, which pairs a step with a later one of its episode, would have to
gather windows as long as an episode. Here it gathers two steps, which takes half the time for episodes of 50 steps, and
episodes may have any length.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_hier.engine.types import Transition


@struct.dataclass
class Ring:
    """The newest C steps of each environment. Every leaf has the leading axis [B]."""

    steps: Transition  # [B, C, ...]
    episode: jax.Array  # [B, C] int32, number of the step's episode, modulo C
    begin: jax.Array  # [B, C] int32, slot of an episode's first step, by its number; it may be overwritten
    end: jax.Array  # [B, C] int32, slot of an episode's newest step
    slot: jax.Array  # [B] int32, next slot to write
    size: jax.Array  # [B] int32, number of stored steps
    current: jax.Array  # [B] int32, number of the newest episode

    @classmethod
    def empty(cls, step: Any, environments: int, capacity: int) -> "Ring":
        """An empty ring for steps like `step`, a Transition without axes, of arrays or of `jax.ShapeDtypeStruct`."""
        table, counter = jnp.zeros((environments, capacity), jnp.int32), jnp.zeros(environments, jnp.int32)
        steps = jax.tree.map(lambda x: jnp.zeros((environments, capacity, *x.shape), x.dtype), step)
        return cls(steps, table, table, table, counter, counter, counter)


class Places(NamedTuple):
    """Positions of N steps in a ring."""

    env: jax.Array  # [N] int32
    slot: jax.Array  # [N] int32


def add(ring: Ring, transitions: Transition) -> Ring:
    """Add a rollout [T, B, ...], T ≤ C, that continues the previous one."""
    rows = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), transitions)
    return jax.vmap(_add)(ring, rows)


def _add(ring: Ring, rows: Transition) -> Ring:  # one environment
    (capacity,), (length,) = ring.episode.shape, rows.first.shape
    slots = (ring.slot + jnp.arange(length, dtype=jnp.int32)) % capacity
    episode = (ring.current + jnp.cumsum(rows.first, dtype=jnp.int32)) % capacity
    newest = jnp.append(rows.first[1:], True)  # of its episode
    number_where = lambda mask: jnp.where(mask, episode, capacity)  # elsewhere out of bounds, so dropped
    return Ring(
        steps=jax.tree.map(lambda x, new: _written(x, slots, new), ring.steps, rows),
        episode=_written(ring.episode, slots, episode),
        begin=_written(ring.begin, number_where(rows.first), slots),
        end=_written(ring.end, number_where(newest), slots),
        slot=(ring.slot + length) % capacity,
        size=jnp.minimum(ring.size + length, capacity),
        current=episode[-1],
    )


def _written(x: jax.Array, slots: jax.Array, rows: jax.Array) -> jax.Array:
    """x [C, ...] with `rows` [T, ...] written at `slots` [T]; slots out of bounds are dropped.

    We write one more row out of bounds, because XLA turns a scatter of a single row into a slice update, fuses it with
    later reads, and then copies x in every step: 60 of 290 µs of a DQN update with 100 000 slots, more with a larger
    buffer.
    """
    slots, rows = jnp.append(slots, x.shape[0]), jnp.concatenate([rows, rows[-1:]])
    return x.at[slots].set(rows, mode="drop")


def draw(ring: Ring, key: jax.Array, count: int) -> Places:
    """Places of `count` steps, sampled uniformly with replacement from the ring, which must not be empty."""
    return located(ring, jax.random.bits(key, (2, count)))


def located(ring: Ring, bits: jax.Array) -> Places:
    """Places of steps selected by random `bits` [2, N] uint32, see `draw`."""
    environments, capacity = ring.episode.shape
    env = (bits[0] % environments).astype(jnp.int32)
    age = (bits[1] % ring.size[env].astype(jnp.uint32)).astype(jnp.int32)
    return Places(env, (ring.slot[env] - 1 - age) % capacity)


def read(ring: Ring, places: Places) -> Transition:
    """The steps [N, ...] at `places`."""
    return jax.tree.map(lambda x: x[places.env, places.slot], ring.steps)


def following(ring: Ring, places: Places) -> jax.Array:
    """Number of later steps of the same episode in the ring, [N] int32."""
    capacity = ring.episode.shape[1]
    return (ring.end[places.env, ring.episode[places]] - places.slot) % capacity


def preceding(ring: Ring, places: Places) -> jax.Array:
    """Number of earlier steps of the same episode in the ring, [N] int32."""
    capacity = ring.episode.shape[1]
    begin = ring.begin[places.env, ring.episode[places]]
    oldest = jnp.where(ring.size == capacity, ring.slot, 0)[places.env]
    return jnp.minimum((places.slot - begin) % capacity, (places.slot - oldest) % capacity)


def shifted(ring: Ring, places: Places, steps: jax.Array) -> Places:
    """The places `steps` [N] after `places` (before, where negative) in their environments; the ring must hold them."""
    return Places(places.env, (places.slot + steps) % ring.episode.shape[1])
