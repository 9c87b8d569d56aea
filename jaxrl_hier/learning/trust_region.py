"""One trust-region step (TRPO; Schulman et al., 2015, appendix C).

    minimise  loss(θ)   subject to   divergence(θ_old, θ) ≤ δ

The direction is F⁻¹ g by conjugate gradients, where F is the Hessian of the divergence at θ_old. The step x is scaled
so that ½ xᵀ (F + λ I) x = δ, with the damping λ: where λ is large beside F, the divergence stays well below δ. A
backtracking line search then tests the true loss and divergence.

Loss and divergence depend on θ only through `predict`, the policy's outputs on the batch. The divergence has zero
gradient at θ_old, so F = Jᵀ M J exactly, with J the Jacobian of `predict` and M the Hessian of the divergence with
respect to the outputs. `predict` is linearised once, for the gradient and all products. In MAML it contains the inner
adaptation, which would otherwise be recomputed in every conjugate-gradient iteration.

F may be that of a part of the batch (`Curvature`), as in the paper. Gradient and line search take the whole batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

Outputs = Any


class Curvature(NamedTuple):
    """A part of the batch, on which products with F are evaluated instead of on the whole."""

    predict: Callable[[Any], Outputs]  # params -> outputs on the part
    divergence: Callable[[Outputs, Outputs], jax.Array]  # (old, new outputs on the part) -> [] ≥ 0


class TrustRegionInfo(NamedTuple):
    """Diagnostics of a step; scalars."""

    loss_before: jax.Array
    loss_after: jax.Array
    divergence: jax.Array  # after the step; 0 if it was rejected
    backtracks: jax.Array  # int32, times that the line search shortened the step
    accepted: jax.Array  # bool; False: the parameters are unchanged
    grad_norm: jax.Array


def trust_region_step(
    params: Any,
    predict: Callable[[Any], Outputs],
    loss: Callable[[Outputs, Outputs], jax.Array],
    divergence: Callable[[Outputs, Outputs], jax.Array],
    *,
    max_divergence: float | jax.Array,
    cg_iterations: int = 10,
    damping: float | jax.Array = 1e-5,
    shrink: float | jax.Array = 0.8,
    max_backtracks: int = 15,
    curvature: Curvature | None = None,
) -> tuple[Any, TrustRegionInfo]:
    """Take one step from `params`.

    Args:
        predict: params -> outputs.
        loss: (old outputs, new outputs) -> [], to be minimised.
        divergence: (old outputs, new outputs) -> [] ≥ 0, 0 with zero gradient at new = old.
        max_divergence: δ.
        damping: λ in (F + λ I), which all implementations use and the paper does not mention.
        curvature: the part of the batch that F is of; default: the whole batch.
    """
    theta, unravel = ravel_pytree(params)
    outputs, jacobian = jax.linearize(lambda flat: predict(unravel(flat)), theta)
    transpose = jax.linear_transpose(jacobian, theta)
    old = jax.lax.stop_gradient(outputs)

    loss_before, loss_grad = jax.value_and_grad(loss, argnums=1)(old, outputs)
    (gradient,) = transpose(loss_grad)
    if curvature is None:
        fisher = fisher_product(divergence, outputs, jacobian, transpose)
    else:
        part, jacobian = jax.linearize(lambda flat: curvature.predict(unravel(flat)), theta)
        fisher = fisher_product(curvature.divergence, part, jacobian, jax.linear_transpose(jacobian, theta))

    direction, residual = conjugate_gradient(lambda v: fisher(v) + damping * v, gradient, cg_iterations)
    # (F + λ I) x = g − residual, so the curvature along x needs no further product
    quadratic = jnp.dot(direction, gradient - residual)
    full_step = -jnp.sqrt(2.0 * max_divergence / (quadratic + 1e-8)) * direction

    def attempt(k: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        candidate = theta + shrink ** k.astype(theta.dtype) * full_step
        new = predict(unravel(candidate))
        loss_new, divergence_new = loss(old, new), divergence(old, new)
        return candidate, loss_new, divergence_new, (loss_new < loss_before) & (divergence_new <= max_divergence)

    def searching(search: Any) -> jax.Array:
        k, (*_, accepted) = search
        return ~accepted & (k + 1 < max_backtracks)

    def shorten(search: Any) -> Any:
        k, _ = search
        return k + 1, attempt(k + 1)

    first = jnp.zeros((), jnp.int32)
    backtracks, (candidate, loss_after, divergence_after, accepted) = jax.lax.while_loop(
        searching, shorten, (first, attempt(first))
    )
    info = TrustRegionInfo(
        loss_before=loss_before,
        loss_after=jnp.where(accepted, loss_after, loss_before),
        divergence=jnp.where(accepted, divergence_after, 0.0),
        backtracks=backtracks,
        accepted=accepted,
        grad_norm=jnp.linalg.norm(gradient),
    )
    return unravel(jnp.where(accepted, candidate, theta)), info


def fisher_product(
    divergence: Callable[[Outputs, Outputs], jax.Array],
    outputs: Outputs,
    jacobian: Callable[[jax.Array], Outputs],
    transpose: Callable[[Outputs], tuple[jax.Array]],
) -> Callable[[jax.Array], jax.Array]:
    """v -> Jᵀ M J v [n], for J and Jᵀ as functions and M the Hessian of the divergence at the outputs."""
    output_hessian = jax.linearize(jax.grad(divergence, argnums=1), jax.lax.stop_gradient(outputs), outputs)[1]
    zeros = jax.tree.map(jnp.zeros_like, outputs)
    return lambda v: transpose(output_hessian(zeros, jacobian(v)))[0]


def conjugate_gradient(
    product: Callable[[jax.Array], jax.Array], b: jax.Array, iterations: int, tolerance: float = 1e-10
) -> tuple[jax.Array, jax.Array]:
    """Approximately solve A x = b [n], A positive definite, given v -> A v. Returns x and the residual b − A x, [n].

    Iterates stop changing once the squared residual is below `tolerance`.
    """

    def iterate(_: int, carry: Any) -> Any:
        x, r, p, rr = carry
        z = product(p)
        alpha = rr / jnp.dot(p, z)
        r_new = r - alpha * z
        rr_new = jnp.dot(r_new, r_new)
        new = (x + alpha * p, r_new, r_new + rr_new / rr * p, rr_new)
        return jax.tree.map(lambda old, new: jnp.where(rr < tolerance, old, new), carry, new)

    x, r, _, _ = jax.lax.fori_loop(0, iterations, iterate, (jnp.zeros_like(b), b, b, jnp.dot(b, b)))
    return x, r
