"""PEARL's inference network: the belief about the latent variable z that a context of steps leads to.

    q(z|c) ∝ Π_n N(z; μ_n, σ_n²),   so   σ² = 1 / Σ_n 1/σ_n²,   μ = σ² Σ_n μ_n / σ_n²

Each step of the context contributes one Gaussian factor N(μ_n, σ_n²), so the order of the steps does not matter. An
empty context leads to the prior, N(0, I).

Two ablations of the paper: a recurrent encoder, which reads consecutive steps and whose last hidden state gives one
Gaussian; and a deterministic latent variable, the mean of the μ_n.

Axes in shapes: M tasks, N steps of context, F features of a step, Z numbers in z.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_hier.engine.types import Params
from jaxrl_hier.learning.distributions import DiagonalGaussian
from jaxrl_hier.learning.networks import MLP
from jaxrl_hier.learning.recurrent import gru, with_mlp

MIN_VARIANCE = 1e-7  # as in the authors' code


def standard_normal(*shape: int) -> DiagonalGaussian:
    """The prior N(0, I), of a given shape."""
    return DiagonalGaussian(jnp.zeros(shape), jnp.zeros(shape))


def product_of_gaussians(mean: jax.Array, variance: jax.Array, present: jax.Array) -> DiagonalGaussian:
    """The normalised product of Gaussian factors.

    Args:
        mean, variance: [..., N, Z] of the factors; variances below 1e-7 are raised to it.
        present: [..., N] bool, which of the factors count.

    Returns:
        A Gaussian [..., Z]; N(0, I) where no factor counts.
    """
    precision = jnp.where(present[..., None], 1 / jnp.maximum(variance, MIN_VARIANCE), 0.0)
    total = jnp.where(jnp.any(present, axis=-1)[..., None], jnp.sum(precision, axis=-2), 1.0)
    return DiagonalGaussian(jnp.sum(precision * mean, axis=-2) / total, -0.5 * jnp.log(total))


def mean_of_factors(mean: jax.Array, present: jax.Array) -> DiagonalGaussian:
    """The deterministic ablation: the mean over the factors that count, with a standard deviation of 1 that
    `Encoder.sample` ignores.

    Args:
        mean: [..., N, Z]. present: [..., N] bool.

    Returns:
        A Gaussian [..., Z], of mean 0 where no factor counts.
    """
    total = jnp.sum(jnp.where(present[..., None], mean, 0.0), axis=-2)
    mean = total / jnp.maximum(jnp.sum(present, axis=-1), 1)[..., None]
    return DiagonalGaussian(mean, jnp.zeros_like(mean))


class Encoder(NamedTuple):
    """Pure functions from contexts to beliefs."""

    init: Callable[[jax.Array, int], Params]  # key, F -> parameters
    infer: Callable[[Params, jax.Array, jax.Array], DiagonalGaussian]
    # parameters, contexts [M, N, F], how many steps of each count, the first ones [M] -> beliefs [M, Z]
    sample: Callable[[DiagonalGaussian, jax.Array], jax.Array]  # belief [..., Z], key -> z [..., Z]


def context_encoder(
    hidden: Sequence[int], latent_size: int, *, recurrent: bool = False, deterministic: bool = False
) -> Encoder:
    """The encoder with hidden layers of these sizes.

    Args:
        hidden: at least one size; with `recurrent`, the last one is the size of the GRU.
        latent_size: Z.
        recurrent, deterministic: the ablations.
    """
    init, factors = (recurrent_factors if recurrent else factors_of_steps)(hidden, 2 * latent_size)

    def infer(params: Params, context: jax.Array, count: jax.Array) -> DiagonalGaussian:
        outputs, present = factors(params, context, count)
        mean, raw = jnp.split(outputs, 2, axis=-1)
        if deterministic:
            return mean_of_factors(mean, present)
        return product_of_gaussians(mean, jax.nn.softplus(raw), present)

    def sample(belief: DiagonalGaussian, key: jax.Array) -> jax.Array:
        return belief.mode() if deterministic else belief.sample(key)

    return Encoder(init, infer, sample)


Init = Callable[[jax.Array, int], Params]  # key, F -> parameters
Factors = Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
# parameters, contexts [M, N, F], counts [M] -> outputs [M, n, 2 Z] of n factors, and which of them count [M, n] bool


def factors_of_steps(hidden: Sequence[int], size: int) -> tuple[Init, Factors]:
    """One factor for each step of a context, by an MLP."""
    network = MLP((*hidden, size))

    def init(key: jax.Array, features: int) -> Params:
        return network.init(key, jnp.zeros(features))

    def factors(params: Params, context: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
        present = jnp.arange(context.shape[1]) < count[:, None]
        outputs: Any = network.apply(params, context)
        return outputs, present

    return init, factors


def recurrent_factors(hidden: Sequence[int], size: int) -> tuple[Init, Factors]:
    """One factor for a whole context of consecutive steps, from the hidden state after the last one that counts."""
    *layers, units = hidden
    torso, head = with_mlp(layers, gru(units)), MLP((size,))

    def init(key: jax.Array, features: int) -> Params:
        key_torso, key_head = jax.random.split(key)
        return torso.init(key_torso, features), head.init(key_head, jnp.zeros(units))

    def factors(params: Params, context: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
        tasks, length = context.shape[:2]
        start = jax.tree.map(lambda x: jnp.broadcast_to(x, (tasks, *x.shape)), torso.start())
        never = jnp.zeros((length, tasks), bool)
        hidden = torso.unroll(params[0], start, jnp.swapaxes(context, 0, 1), never)[1]
        last = hidden[jnp.maximum(count - 1, 0), jnp.arange(tasks)]
        outputs: Any = head.apply(params[1], last[:, None])
        return outputs, (count > 0)[:, None]

    return init, factors
