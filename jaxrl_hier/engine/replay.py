"""The replay buffer: a ring of transitions per environment, with the episode of each step.

Axes in shapes: B environments, C slots of each, R rows of observations of each, T steps, N samples.

Each observation is stored once. Those of an episode lie in consecutive rows of a second ring, from its first to the one
that it ended with, so the next observation of a step is in the row after its own. Every episode takes one row more than
it has steps: R = 2 C rows are enough for episodes of one step each, and vectors get that many. For large observations,
such as pictures, R is C and an eighth more. Where episodes are shorter than eight steps on average, the buffer then
holds fewer than C steps, the newest whose observations are not overwritten, but never fewer than R / 2.

The cost of adding and sampling does not depend on the capacity, and no counter grows with the length of a run. We tried
flashbax, but its state has two leaves without the axis [B] that is split over devices, and it samples windows of
consecutive steps without their positions: hindsight, which pairs a step with a later one of its episode, would have to
gather windows as long as an episode. Here it gathers two steps, which takes half the time for episodes of 50 steps, and
episodes may have any length.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.room import size
from jaxrl_hier.engine.sharding import looked_up
from jaxrl_hier.engine.types import Transition

LARGE = 512  # bytes of an observation from which on its ring has fewer than two rows per step


@struct.dataclass
class Ring:
    """The newest steps of each environment, at most C. Every leaf has the leading axis [B]."""

    steps: Transition  # [B, C, ...]; `obs` and `next_obs` are (), see `read`
    observations: Any  # [B, R, ...]
    row: jax.Array  # [B, C] int32, row of the step's observation, modulo 3 R
    episode: jax.Array  # [B, C] int32, number of the step's episode, modulo C
    begin: jax.Array  # [B, C] int32, slot of an episode's first step, by its number; it may be overwritten
    end: jax.Array  # [B, C] int32, slot of an episode's newest step
    slot: jax.Array  # [B] int32, next slot to write
    size: jax.Array  # [B] int32, number of stored steps
    current: jax.Array  # [B] int32, number of the newest episode
    newest: jax.Array  # [B] int32, row of the newest observation, modulo 3 R

    @classmethod
    def empty(cls, step: Any, environments: int, capacity: int, always: int = 1) -> "Ring":
        """An empty ring.

        Args:
            step: a Transition without axes, of arrays or of `jax.ShapeDtypeStruct`.
            capacity: C.
            always: steps that it holds however short the episodes are, at most C.

        Raises:
            UsageError: rows that cannot be counted in 32 bits.
        """
        rows = 2 * capacity if size(step.obs) < LARGE else max(capacity + capacity // 8 + 1, 2 * always)
        if 3 * rows >= 2**31:
            raise UsageError(f"capacity gives each environment {capacity} steps; {2**31 // 6} can be counted at most")
        zeros = lambda *axes: lambda x: jnp.zeros((environments, *axes, *x.shape), x.dtype)
        table, counter = zeros(capacity)(jnp.int32(0)), zeros()(jnp.int32(0))
        return cls(
            steps=jax.tree.map(zeros(capacity), step._replace(obs=(), next_obs=())),
            observations=jax.tree.map(zeros(rows), step.obs),
            row=table,
            episode=table,
            begin=table,
            end=table,
            slot=counter,
            size=counter,
            current=counter,
            newest=counter,
        )

    @property
    def capacity(self) -> int:
        """C."""
        return self.row.shape[1]

    @property
    def rows(self) -> int:
        """R."""
        return jax.tree.leaves(self.observations)[0].shape[1]


class Places(NamedTuple):
    """Positions of N steps in a ring."""

    env: jax.Array  # [N] int32
    slot: jax.Array  # [N] int32


def add(ring: Ring, transitions: Transition) -> Ring:
    """Add a rollout [T, B, ...], T ≤ C, that continues the previous one."""
    each = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), transitions)
    return jax.vmap(partial(_add, ring.capacity, ring.rows))(ring, each)


def _add(capacity: int, rows: int, ring: Ring, new: Transition) -> Ring:  # one environment
    (length,) = new.first.shape
    count = jnp.arange(length, dtype=jnp.int32)
    slots = (ring.slot + count) % capacity
    begun = jnp.cumsum(new.first, dtype=jnp.int32)
    episode = (ring.current + begun) % capacity
    newest = jnp.append(new.first[1:], True)  # of its episode
    number_where = lambda mask: jnp.where(mask, episode, capacity)  # elsewhere out of bounds, so dropped
    # an episode goes on in the row of its newest observation; one that begins leaves that row to the one before
    row = ring.newest + count + begun
    last = row[-1] + 1
    row_where = lambda row, mask: jnp.where(mask & (last - row < rows), row % rows, rows)
    written = jnp.concatenate([row_where(row, True), row_where(row + 1, newest)])
    both = jax.tree.map(lambda *x: jnp.concatenate(x), new.obs, new.next_obs)
    ring = Ring(
        steps=jax.tree.map(lambda x, y: _written(x, slots, y), ring.steps, new._replace(obs=(), next_obs=())),
        observations=jax.tree.map(lambda x, y: _written(x, written, y), ring.observations, both),
        row=_written(ring.row, slots, row % (3 * rows)),
        episode=_written(ring.episode, slots, episode),
        begin=_written(ring.begin, number_where(new.first), slots),
        end=_written(ring.end, number_where(newest), slots),
        slot=(ring.slot + length) % capacity,
        size=jnp.minimum(ring.size + length, capacity),
        current=episode[-1],
        newest=last % (3 * rows),
    )
    return ring if rows >= 2 * capacity else _without_overwritten(capacity, rows, ring, length)


def _without_overwritten(capacity: int, rows: int, ring: Ring, added: int) -> Ring:
    """The ring of one environment without the steps of which the last `added` steps overwrote an observation.

    Its steps were spread over R + 2 C < 3 R rows at most, so that rows modulo 3 R tell which are overwritten. Each step
    that was added has overwritten at most two rows, and with them two steps.
    """
    age = ring.size - 1 - jnp.arange(min(2 * added, capacity), dtype=jnp.int32)  # of the oldest steps
    row = ring.row[(ring.slot - 1 - age) % capacity]
    overwritten = (age >= 0) & ((ring.newest - row) % (3 * rows) >= rows)
    return replace(ring, size=ring.size - jnp.sum(overwritten, dtype=jnp.int32))


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
    environments, capacity = ring.row.shape
    env = (bits[0] % environments).astype(jnp.int32)
    age = (bits[1] % ring.size[env].astype(jnp.uint32)).astype(jnp.int32)
    return Places(env, (ring.slot[env] - 1 - age) % capacity)


def read(ring: Ring, places: Places, axis: int = 0) -> Transition:
    """The steps [N, ...] at `places`, which devices share along `axis`."""

    def steps(ring: Ring, env: jax.Array, slot: jax.Array) -> Transition:
        steps = jax.tree.map(lambda x: x[env, slot], ring.steps)
        return steps._replace(obs=_observed(ring, env, slot), next_obs=_observed(ring, env, slot, 1))

    return looked_up(steps, ring, *places, axis=axis)


def next_obs(ring: Ring, places: Places) -> Any:
    """The next observations [N, ...] of the steps at `places`."""
    return looked_up(partial(_observed, later=1), ring, *places)


def _observed(ring: Ring, env: jax.Array, slot: jax.Array, later: int = 0) -> Any:
    row = (ring.row[env, slot] + later) % ring.rows
    return jax.tree.map(lambda x: x[env, row], ring.observations)


def following(ring: Ring, places: Places) -> jax.Array:
    """Number of later steps of the same episode in the ring, [N] int32."""
    return (ring.end[places.env, ring.episode[places]] - places.slot) % ring.capacity


def preceding(ring: Ring, places: Places) -> jax.Array:
    """Number of earlier steps of the same episode in the ring, [N] int32."""
    begin = ring.begin[places.env, ring.episode[places]]
    oldest = (ring.slot - ring.size)[places.env]
    return jnp.minimum((places.slot - begin) % ring.capacity, (places.slot - oldest) % ring.capacity)


def shifted(ring: Ring, places: Places, steps: jax.Array) -> Places:
    """The places `steps` [N] after `places` (before, where negative) in their environments; the ring must hold them."""
    return Places(places.env, (places.slot + steps) % ring.capacity)
