"""PEARL's replay buffer: all steps of every task, and a window of recent ones that contexts are drawn from.

The losses learn from everything that is stored of a task. The encoder's contexts come from the steps of the last visit
to the task alone, so that they look like the data of a test. One ring serves both: the recent steps are consecutive.

Axes in shapes: B tasks in the buffer, M tasks of a batch, S samples of each, T steps of an episode.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_hier.engine import replay
from jaxrl_hier.engine.replay import Places, Ring
from jaxrl_hier.engine.types import Transition


class TaskReplay(NamedTuple):
    """Steps of B tasks. Every leaf has the leading axis [B]."""

    ring: Ring
    begin: jax.Array  # [B] int32, slot of the first recent step
    recent: jax.Array  # [B] int32, number of recent steps

    @classmethod
    def empty(cls, step: Any, tasks: int, capacity: int, always: int) -> "TaskReplay":
        """A buffer of `capacity` steps for each task; `step` and `always` as in `Ring.empty`."""
        zeros = jnp.zeros(tasks, jnp.int32)
        return cls(Ring.empty(step, tasks, capacity, always), zeros, zeros)

    @property
    def capacity(self) -> int:
        """Slots of each task."""
        return self.ring.capacity

    @property
    def stored(self) -> tuple[jax.Array, jax.Array]:
        """The window of all steps: slot of the oldest, and how many there are, [B] int32 each."""
        return self.ring.slot - self.ring.size, self.ring.size


def forget_recent(buffer: TaskReplay) -> TaskReplay:
    """The buffer with an empty window of recent steps, which begins with the step that is added next."""
    return TaskReplay(buffer.ring, buffer.ring.slot, jnp.zeros_like(buffer.recent))


def add(buffer: TaskReplay, steps: Transition, recent: Any) -> TaskReplay:
    """The buffer with steps [B, T, ...]; the window of recent steps grows by `recent` of them, the first ones."""
    ring = replay.add(buffer.ring, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), steps))
    return TaskReplay(ring, buffer.begin, buffer.recent + recent)


def sample_slots(
    key: jax.Array, begin: jax.Array, count: jax.Array, capacity: int, size: int, *, consecutive: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Slots drawn from a window of each of M rings.

    Args:
        begin, count: [M] int32, the first slot of each window and its length.
        capacity: slots of a ring, in which windows wrap around.
        size: S, slots to draw: uniformly and independently, or `consecutive` ones from a uniform start.

    Returns:
        Slots [M, S], and how many of them count, the first ones [M]: none of an empty window, and no more consecutive
        ones than the window has.
    """
    bits = jax.random.bits(key, (len(count), 1 if consecutive else size))
    if consecutive:
        starts = jnp.maximum(count - size, 0) + 1
        offset = (bits % starts[:, None].astype(jnp.uint32)).astype(jnp.int32) + jnp.arange(size)
        present = jnp.minimum(count, size)
    else:
        offset = (bits % jnp.maximum(count, 1)[:, None].astype(jnp.uint32)).astype(jnp.int32)
        present = jnp.where(count > 0, size, 0)
    return (begin[:, None] + offset) % capacity, present


def read(buffer: TaskReplay, task: jax.Array, slots: jax.Array) -> Transition:
    """The steps [M, S, ...] at `slots` [M, S] of the tasks with indices [M]."""
    return replay.read(buffer.ring, Places(task[:, None], slots))
