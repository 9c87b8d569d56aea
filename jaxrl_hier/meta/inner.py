"""The inner loop of gradient-based meta-learning: K steps of gradient descent, to be differentiated through.

    θ_0 = θ,   θ_{k+1} = θ_k − α ∇L(θ_k; D_k),   θ' = θ_K

Any loss, any parameters. α is a number, or a tree that begins like the parameters: with that, adapting the head alone
(ANIL) and a learned rate for each weight (Meta-SGD) are rates like others.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxrl_hier.engine.types import Params

Loss = Callable[[Params, Any], jax.Array]  # params, batch -> scalar


def gradient_step(loss: Loss, params: Params, batch: Any, lr: Any, *, first_order: bool = False) -> Params:
    """θ − α ∇L(θ; D).

    Args:
        lr: α, a scalar, or a tree that begins like the parameters, with scalars or arrays for leaves: a rate for each
            layer or each weight. What has the rate None stays as it is and costs no derivative.
        first_order: the step is a constant to differentiation, so dθ'/dθ is the identity.
    """
    structure: Any = jax.tree.structure(params)
    leaves = jax.tree.leaves(params)
    rates = structure.flatten_up_to(jax.tree.broadcast(lr, params, is_leaf=lambda rate: rate is None))
    moving = [i for i, rate in enumerate(rates) if rate is not None]

    def loss_of(moved: list[jax.Array]) -> jax.Array:
        whole = dict(enumerate(leaves)) | dict(zip(moving, moved))
        return loss(structure.unflatten(whole.values()), batch)

    gradient = jax.grad(loss_of)([leaves[i] for i in moving])
    if first_order:
        gradient = jax.lax.stop_gradient(gradient)
    moved = {i: leaves[i] - rates[i] * g for i, g in zip(moving, gradient)}
    return structure.unflatten((dict(enumerate(leaves)) | moved).values())


def adaptation_path(
    loss: Loss, params: Params, batches: Any, lr: Any, *, first_order: bool = False, remat: bool = False
) -> tuple[Params, Params]:
    """θ' and the parameters before each step, θ_0 … θ_{K−1} [K, ...], for stored batches [K, ...].

    With `remat` the backward pass recomputes each step instead of keeping its activations.
    """

    def step(params: Params, batch: Any) -> tuple[Params, Params]:
        return gradient_step(loss, params, batch, lr, first_order=first_order), params

    if remat:
        step = jax.checkpoint(step, prevent_cse=False)
    return jax.lax.scan(step, params, batches)


def adapt(
    loss: Loss, params: Params, batches: Any, lr: Any, *, first_order: bool = False, remat: bool = False
) -> Params:
    """θ -> θ': `adaptation_path` without the path."""
    return adaptation_path(loss, params, batches, lr, first_order=first_order, remat=remat)[0]


def head_rates(params: Params, lr: Any, hidden_layers: int) -> Any:
    """ANIL's rates (Raghu et al., 2020): `lr` for the network's last layer and what is no layer, None for the body."""
    body = {f"Dense_{i}" for i in range(hidden_layers)}

    def rate(path: Any, _: jax.Array) -> Any:
        return None if body.intersection(getattr(key, "key", None) for key in path) else lr

    return jax.tree_util.tree_map_with_path(rate, params)
