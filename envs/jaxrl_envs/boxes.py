"""Actions within the bounds of their space, to the last bit.

A space has bounds in one precision, a learner computes in another, and sums round: the float32 next to 0.1 lies above
0.1, and (low + high) / 2 + (high − low) / 2 may lie above high. So bounds are rounded inwards (`bounds`), and what is
sent to an environment is clipped to them (`inside`). Learners whose actions are in [−1, 1] use `scaling`.

Actions are computed in float32, or in float64 for a space of that dtype where JAX's x64 mode is on. Without it a space
of float64 is one of float32 to JAX.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_box(space: Any) -> bool:
    """Whether a space is a box of numbers with bounds, as gymnax's Box."""
    has_bounds = all(hasattr(space, name) for name in ("low", "high", "shape", "dtype"))
    return has_bounds and jnp.dtype(space.dtype) != jnp.bool_


def bounds(space: Any) -> tuple[Any, Any]:
    """The smallest and the largest action of a box, [*shape], in the dtype that actions are computed in.

    They lie within the space's own bounds and are numbers of its dtype. Subnormal numbers do not count, since XLA takes
    them for zero. A box without any such number gets one beside it, for both. NumPy arrays; of JAX where the space's
    bounds are traced, as they are where they depend on the task.
    """
    wanted, computed = _dtypes(space)
    traced = any(isinstance(x, jax.core.Tracer) for x in (space.low, space.high))
    ends = []
    for end, up in ((space.low, True), (space.high, False)):
        end = jnp.asarray(end) if traced else np.asarray(end, np.float64)
        end = _whole(end, wanted, up) if jnp.issubdtype(wanted, jnp.integer) else _inwards(end, wanted, up)
        ends.append(_inwards(end, computed, up))
    xp = jnp if traced else np
    low, high = (xp.broadcast_to(end, space.shape) for end in ends)
    return low, xp.where(low > high, low, high)


def inside(space: Any, action: Any) -> jax.Array:
    """The action of a space that is nearest to `action` [...], in the space's dtype; integers are rounded to.

    For a Discrete space only the dtype is converted; actions of other spaces are returned unchanged.
    """
    if not is_box(space):
        return jnp.asarray(action, _canonical(space.dtype)) if hasattr(space, "n") else action
    wanted, computed = _dtypes(space)
    low, high = bounds(space)
    action = jnp.asarray(action).astype(computed)
    if jnp.issubdtype(wanted, jnp.integer):
        action = jnp.round(action)
    return jnp.clip(action, low, high).astype(wanted)


def accepted(env: Any, task: Any, action: Any) -> Any:
    """The action that `env.step_env` gets when an agent chooses `action`: `inside` of its space.

    An environment that says `clips_actions = True` gets the action as it is, and sees to that itself. The agent learns
    from its own action in any case: its log-probability is that of the action it drew.
    """
    return action if getattr(env, "clips_actions", False) else inside(env.action_space(task), action)


def scaling(space: Any) -> tuple[Callable[[jax.Array], jax.Array], Callable[[Any], jax.Array]]:
    """Functions from [−1, 1]^D to the actions of a box and back.

    The first gives actions inside the space, the second numbers within [−1, 1], float32, and zero where low = high.
    Both are elementwise, so there may be leading axes.

    Raises:
        ValueError: a bound is infinite or NaN, or low above high; it says what the bounds are.
    """
    if np.any(np.isnan(space.low) | np.isnan(space.high)):
        raise ValueError("NaN")
    if np.any(np.isinf(space.low) | np.isinf(space.high)):
        raise ValueError("infinite")
    if np.any(np.asarray(space.low) > np.asarray(space.high)):
        raise ValueError("in the wrong order, low above high")

    def to_action(unit: jax.Array) -> jax.Array:
        middle, half = _halved(*bounds(space))
        return inside(space, middle + half * unit)

    def to_unit(action: Any) -> jax.Array:
        middle, half = _halved(*bounds(space))
        wide = half >= np.finfo(half.dtype).tiny
        # XLA multiplies by the reciprocal, which must not be subnormal: large numbers are made smaller first
        scale = np.where(half > 1e30, 1 / 16, 1).astype(half.dtype)
        unit = (jnp.asarray(action).astype(half.dtype) * scale - middle * scale) / np.where(wide, half * scale, 1)
        return jnp.clip(jnp.where(wide, unit, 0), -1, 1).astype(jnp.float32)

    return to_action, to_unit


def _halved(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle and half width of a box; the sum and the difference of its bounds may overflow."""
    return low / 2 + high / 2, high / 2 - low / 2


def sample(space: Any, key: jax.Array) -> jax.Array:
    """A random action inside the space, of its shape [...].

    Of a box: uniform; of one that is open on one side an exponential from its bound, and on both a normal, as
    Gymnasium has it.
    """
    if not is_box(space):
        return space.sample(key)
    wanted, computed = _dtypes(space)
    low, high = bounds(space)
    draw = jax.random.uniform(key, space.shape, computed, minval=jnp.finfo(computed).tiny)
    if jnp.issubdtype(wanted, jnp.integer):
        return inside(space, jnp.floor(low * (1 - draw) + (high + 1) * draw))
    if isinstance(low, np.ndarray) and np.all(np.isfinite(low) & np.isfinite(high)):
        return inside(space, low * (1 - draw) + high * draw)
    above, below = jnp.isfinite(low), jnp.isfinite(high)
    low, high = jnp.where(above, low, 0), jnp.where(below, high, 0)
    one_sided = jnp.where(above, low - jnp.log(draw), high + jnp.log(draw))
    unbounded = jnp.where(above | below, one_sided, jax.scipy.special.ndtri(draw))
    return inside(space, jnp.where(above & below, low * (1 - draw) + high * draw, unbounded))


def _canonical(dtype: Any) -> Any:
    """The dtype that JAX has in its place: float32 for float64 without x64."""
    return jax.dtypes.canonicalize_dtype(dtype)


def _dtypes(space: Any) -> tuple[Any, Any]:
    """A box's dtype, and that in which its actions are computed."""
    wanted = _canonical(space.dtype)
    return wanted, jnp.dtype(jnp.float64 if wanted == jnp.float64 else jnp.float32)


def _inwards(x: Any, dtype: Any, up: bool) -> Any:
    """The nearest numbers of a floating `dtype` that are not below (`up`) or above x, subnormal ones left out."""
    xp, info = (jnp if isinstance(x, jax.Array) else np), jnp.finfo(dtype)
    with np.errstate(over="ignore", under="ignore"):
        near = x.astype(dtype)
        back = near.astype(x.dtype)
        beyond = back < x if up else back > x
        near = xp.where(beyond, xp.nextafter(near, info.dtype.type(np.inf if up else -np.inf)), near)
    flushed = xp.where((near > 0) == up, info.tiny if up else -info.tiny, xp.zeros_like(near))
    return xp.where((near != 0) & (abs(near) < info.tiny), flushed, near).astype(dtype)


WHOLE = 2**53  # integers beyond are not all float64 numbers


def _whole(x: Any, dtype: Any, up: bool) -> Any:
    """The nearest integers that are not below (`up`) or above x, within those of `dtype`."""
    xp, info = (jnp if isinstance(x, jax.Array) else np), jnp.iinfo(dtype)
    x = xp.clip(x, max(info.min, -WHOLE), min(info.max, WHOLE))
    return xp.ceil(x) if up else xp.floor(x)
