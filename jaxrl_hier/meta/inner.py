"""The inner loop of gradient-based meta-learning: K differentiable steps of gradient descent.

    θ_0 = θ,   θ_{k+1} = θ_k − α ∇L(θ_k; D_k),   θ' = θ_K

For any loss and parameters. α is a number, or a tree that is a prefix of the parameters' tree. So adapting only the
head (ANIL) and a learned rate for each weight (Meta-SGD) are just other rates.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxrl_hier.engine.types import Params

Loss = Callable[[Params, Any], jax.Array]  # params, batch -> scalar


def gradient_step(loss: Loss, params: Params, batch: Any, rates: Any, *, first_order: bool = False) -> Params:
    """θ − α ∇L(θ; D).

    Args:
        rates: α, a scalar [], or a tree that is a prefix of the parameters' tree, whose leaves are scalars or arrays: a
            rate for each layer or each weight. Parameters with the rate None stay as they are, without a derivative.
        first_order: stop the gradient through ∇L, so that dθ'/dθ is the identity.
    """
    structure: Any = jax.tree.structure(params)
    leaves = jax.tree.leaves(params)
    rates = structure.flatten_up_to(jax.tree.broadcast(rates, params, is_leaf=lambda rate: rate is None))
    adapting = [i for i, rate in enumerate(rates) if rate is not None]

    def loss_of(some: list[jax.Array]) -> jax.Array:
        whole = dict(enumerate(leaves)) | dict(zip(adapting, some))
        return loss(structure.unflatten(whole.values()), batch)

    gradient = jax.grad(loss_of)([leaves[i] for i in adapting])
    if first_order:
        gradient = jax.lax.stop_gradient(gradient)
    after = {i: leaves[i] - rates[i] * g for i, g in zip(adapting, gradient)}
    return structure.unflatten((dict(enumerate(leaves)) | after).values())


def adaptation_path(
    loss: Loss, params: Params, batches: Any, rates: Any, *, first_order: bool = False, remat: bool = False
) -> tuple[Params, Params]:
    """Adaptation on stored batches [K, ...], one gradient step each.

    Args:
        rates, first_order: as for `gradient_step`.
        remat: the backward pass recomputes each step instead of keeping its activations.

    Returns:
        θ', and the parameters before each step, θ_0 … θ_{K−1} [K, ...].
    """

    def step(params: Params, batch: Any) -> tuple[Params, Params]:
        return gradient_step(loss, params, batch, rates, first_order=first_order), params

    if remat:
        step = jax.checkpoint(step, prevent_cse=False)
    return jax.lax.scan(step, params, batches)


def adapt(
    loss: Loss, params: Params, batches: Any, rates: Any, *, first_order: bool = False, remat: bool = False
) -> Params:
    """θ' alone: `adaptation_path`, on batches [K, ...], without the path."""
    return adaptation_path(loss, params, batches, rates, first_order=first_order, remat=remat)[0]


def adapt_with_derivative(
    loss: Loss, params: Params, batches: Any, adapted: Params, rates: Any, *, first_order: bool = False
) -> Params:
    """θ' as it is known, with the derivative of the adaptation on other batches [K, ...], such as a part of the data.

        φ_0 = θ,   φ_{k+1} = stop(θ_{k+1}) + s_k − stop(s_k),   s_k = φ_k − α ∇L(φ_k; batch_k)

    So the value is θ_K, and dθ'/dθ the product of the I − α ∇²L(θ_k; batch_k).

    Args:
        adapted: θ_1 … θ_K [K, ...], of an adaptation from these `params`.
        rates, first_order: as for `gradient_step`.
    """

    def step(params: Params, both: tuple[Any, Params]) -> tuple[Params, None]:
        batch, known = both
        after = gradient_step(loss, params, batch, rates, first_order=first_order)
        return jax.tree.map(lambda value, s: value + (s - jax.lax.stop_gradient(s)), known, after), None

    return jax.lax.scan(step, params, (batches, jax.lax.stop_gradient(adapted)))[0]


def head_rates(params: Params, rate: Any, hidden_layers: int) -> Any:
    """ANIL's rates (Raghu et al., 2020), a tree like the parameters of a flax module.

    `rate` for the last layer and for parameters outside layers, such as a standard deviation; None for the layers
    Dense_0, Dense_1, … of which there are `hidden_layers`.
    """
    body = {f"Dense_{i}" for i in range(hidden_layers)}

    def rate_of(path: Any, _: jax.Array) -> Any:
        return None if body.intersection(getattr(key, "key", None) for key in path) else rate

    return jax.tree_util.tree_map_with_path(rate_of, params)


def context_rates(params: Params, rate: Any) -> Any:
    """`rate` for the parameter "context" (`learning.networks.WithContext`) and None for all others, a tree like
    `params`."""
    is_context = lambda path: any(getattr(key, "key", None) == "context" for key in path)
    return jax.tree_util.tree_map_with_path(lambda path, _: rate if is_context(path) else None, params)
