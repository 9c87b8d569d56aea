"""What a gradient step sees: random minibatches in several epochs, as in PPO (Schulman et al., 2017, algorithm 1), or a
few of many indices.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import Metrics, Params
from jaxrl_hier.relations import Relation, largest_divisor, next_multiple

Batch = Any  # a pytree of arrays [T, B, ...]
GradientStep = Callable[[Any, Batch], tuple[Any, Any]]  # state, batch -> state, metrics


def minibatches_of(key: jax.Array, tree: Batch, minibatches: int) -> Batch:
    """Leaves [T, B, ...] as random minibatches of the B columns, [minibatches, T, B / minibatches, ...].

    Each minibatch takes one of every `minibatches` neighbours, so that on several devices no column leaves its device.
    """
    columns = jax.tree.leaves(tree)[0].shape[1]
    parts = jnp.broadcast_to(jnp.arange(minibatches), (columns // minibatches, minibatches))
    parts = jax.random.permutation(key, parts, axis=1, independent=True)

    def part(x: jax.Array) -> jax.Array:
        grouped = x.reshape(x.shape[0], *parts.shape, *x.shape[2:])
        take = jax.vmap(lambda group, order: jnp.moveaxis(group[:, order], 1, 0), in_axes=(1, 0), out_axes=2)
        return take(grouped, parts)

    return jax.tree.map(part, tree)


def distinct(key: jax.Array, count: int, size: int) -> jax.Array:
    """`size` ≤ `count` different indices of 0 … count − 1, [size] int32; every set of them is equally likely.

    Floyd's algorithm (Bentley & Floyd, 1987), which takes as long for a million indices as for ten.
    """
    return floyd(jax.random.bits(key, (size,)), count)


def floyd(bits: jax.Array, count: int) -> jax.Array:
    """The indices [size] of `distinct` that follow from random bits [size] uint32."""
    (size,) = bits.shape
    last = jnp.arange(count - size, count, dtype=jnp.int32)

    def draw(chosen: jax.Array, now: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        i, last, bits = now
        index = (bits % (last + 1).astype(jnp.uint32)).astype(jnp.int32)
        return chosen.at[i].set(jnp.where(jnp.any(chosen == index), last, index)), None

    nothing = jnp.full(size, -1, jnp.int32)
    return jax.lax.scan(draw, nothing, (jnp.arange(size), last, bits))[0]


def over_epochs(
    gradient_step: GradientStep, state: Any, batch: Batch, key: jax.Array, epochs: int, minibatches: int
) -> tuple[Any, Any]:
    """`gradient_step(state, minibatch)` on each minibatch, in several epochs, each with new random minibatches.

    Returns:
        The state after the last step, and the second results of all steps, [epochs, minibatches, ...].
    """

    def epoch(state: Any, key: jax.Array) -> tuple[Any, Any]:
        return jax.lax.scan(gradient_step, state, minibatches_of(key, batch, minibatches))

    return jax.lax.scan(epoch, state, jax.random.split(key, epochs))


def in_minibatches(
    gradient_step: GradientStep, state: Any, batch: Batch, key: jax.Array, *, epochs: int, size: int
) -> tuple[Any, Metrics]:
    """`gradient_step` on minibatches of `size` of the steps [T, B], in several epochs; the mean of its metrics.

    Raises:
        UsageError: the steps are no whole minibatches, which `whole_minibatches` in a Config's `relations` prevents.
    """
    # one row, whose neighbours are successive steps of an environment, so that each minibatch has some of every time
    row = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(1, -1, *x.shape[2:]), batch)
    steps = jax.tree.leaves(row)[0].shape[1]
    if size < 1 or steps % size:
        raise UsageError(
            f"in_minibatches: a batch of {steps} steps is no multiple of size ({size}); whole_minibatches() among the "
            "relations of your Config adjusts its settings"
        )
    # without the axis of the row, which makes matrix products slower on a CPU
    step = lambda state, part: gradient_step(state, jax.tree.map(lambda x: x[0], part))
    state, metrics = over_epochs(step, state, row, key, epochs, steps // size)
    return state, jax.tree.map(jnp.mean, metrics)


def whole_minibatches(needed: Callable[[Any], bool] = lambda settings: True) -> Relation:
    """A rollout of `environments` × `rollout_length` steps holds whole minibatches, where they are `needed`."""
    steps = lambda s: s.environments * s.rollout_length
    enough = lambda value, other, s: next_multiple(value, s.minibatch_size // math.gcd(s.minibatch_size, other))
    return Relation(
        counts=("environments", "rollout_length", "minibatch_size"),
        fits=lambda s: not needed(s) or steps(s) % s.minibatch_size == 0,
        gives={
            "minibatch_size": lambda s: largest_divisor(steps(s), s.minibatch_size),
            "rollout_length": lambda s: enough(s.rollout_length, s.environments, s),
            "environments": lambda s: enough(s.environments, s.rollout_length, s),
        },
        message=lambda s: (
            f"environments times rollout_length ({s.environments} × {s.rollout_length}) must be a multiple of "
            f"minibatch_size ({s.minibatch_size}), the steps of a gradient step"
        ),
    )


def descent(
    loss: Callable[[Params, Batch], tuple[jax.Array, Metrics]], optimizer: optax.GradientTransformation, rate: Any
) -> GradientStep:
    """A gradient step on parameters and the optimiser's state.

    Args:
        loss: params, batch -> loss [], metrics.
        optimizer: with a constant learning rate.
        rate: factor [] on that learning rate, the same for all steps on a batch.

    Returns:
        (params, state of the optimiser), batch -> the same after the step, and the metrics with "grad_norm".
    """

    def step(state: tuple[Params, Any], batch: Batch) -> tuple[tuple[Params, Any], Metrics]:
        params, optimizer_state = state
        gradient, metrics = jax.grad(loss, has_aux=True)(params, batch)
        step, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        step = jax.tree.map(lambda x: rate * x, step)
        metrics["grad_norm"] = optax.global_norm(gradient)
        return (optax.apply_updates(params, step), optimizer_state), metrics

    return step
