"""The outer loop of gradient-based meta-RL: the losses to be minimised over the tasks, and the optimisers.

For each task, with θ' the adapted parameters, and D and D' the trajectories before and after adaptation:

    trpo          −mean(π_θ'(a|s) / π_old(a|s) · A)   subject to   mean KL(π_old ‖ π_θ') ≤ δ, both over D'
    adam, sgd     the same without the constraint, one step
    ppo           −mean(min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)) + η Σ_k mean KL(π_old,k ‖ π_θ_k), ρ the ratio above,
                  several steps on the same D and D' (Schulman et al., 2017; ProMP's equation 12)
    E-MAML        … − Σ_k mean(π_θ_k(a|s) / π_old,k(a|s)) R', over D: its gradient is R' mean(∇ log π_θ_k)

θ_k are the parameters before step k of the adaptation and π_old,k the policy that collected the batch of that step.

Axes in shapes: K adaptation steps, n steps of all trajectories of a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_hier.engine.loops import MetaBatch
from jaxrl_hier.engine.sharding import each_device
from jaxrl_hier.engine.types import Metrics, Params
from jaxrl_hier.learning.advantages import standardize
from jaxrl_hier.learning.optimization import OptimizerConfig
from jaxrl_hier.learning.policy_losses import clipped_policy_loss
from jaxrl_hier.learning.trust_region import Curvature, trust_region_step
from jaxrl_hier.meta.estimators import PolicyBatch, first_environments
from jaxrl_hier.settings import Factor, Rate


@dataclass(frozen=True)
class OuterConfig(OptimizerConfig):
    """Settings of the outer loop."""

    credit_exploration: bool = False
    """credit the trajectories before adaptation with the return after it (E-MAML)"""
    outer: Literal["trpo", "ppo", "adam", "sgd"] = "trpo"
    """outer optimiser; ppo takes several steps of Adam on the clipped loss"""
    max_kl: float = 0.01
    """trpo: bound on the mean KL divergence of the adapted policies after the step from those before it (δ)"""
    cg_iterations: Factor = 10
    """trpo: iterations of the conjugate-gradient method"""
    cg_damping: float = 1e-2
    """trpo: damping λ of the Fisher matrix, F + λ I, at least 0; the paper's is 1e-5"""
    fisher_episodes: int | None = None
    """trpo: environments of each task on whose trajectories products with the Fisher matrix are evaluated; 10 to 20 %
    of them are usual, and take a fraction of the time. Default: all"""
    line_search_shrink: float = 0.8
    """trpo: factor on the step in each backtracking step of the line search, in (0, 1]"""
    line_search_steps: Factor = 15
    """trpo: step lengths to try at most"""
    outer_learning_rate: Rate = 1e-3
    """adam, ppo, sgd: learning rate of the outer optimiser; with sgd, Reptile's step size ε"""
    outer_epochs: int = 5
    """ppo: gradient steps on the same trajectories"""
    clip: float = 0.3
    """ppo: how far a probability ratio may move from 1 before it is clipped (ε)"""
    kl_weight: float = 0.0
    """ppo: weight of the mean KL divergence of the policies that collected the inner batches (η; ProMP: 5e-4)"""

    renamed: ClassVar = {
        "exploration": "credit_exploration",
        "outer_lr": "outer_learning_rate",
        "kl_penalty": "kl_weight",
    }


class Predicted(NamedTuple):
    """The action distributions of one task's policies, at the states of their own batches."""

    after: Any  # [n, ...], π_θ' on D'
    before: Any  # [K, n, ...], π_θ_k on D


Predict = Callable[[Params, MetaBatch], Predicted]  # meta-parameters, one task's batches
Gradient = Callable[[Params, MetaBatch], tuple[Params, Metrics]]
# meta-parameters, the batches of all tasks [tasks, ...] -> the mean gradient over the tasks, metrics


# Losses of one task


def surrogate_loss(old: Any, new: Any, batch: PolicyBatch) -> jax.Array:
    """−mean(π_new(a|s) / π_old(a|s) · A) [], given both distributions [n, ...]."""
    ratio = jnp.exp(new.log_prob(batch.action) - old.log_prob(batch.action))
    return -jnp.sum(batch.weight * ratio * batch.advantage)


def clipped_loss(old: Any, new: Any, batch: PolicyBatch, clip: float | jax.Array) -> jax.Array:
    """−mean(min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)) [], given both distributions [n, ...]."""
    log_prob, old_log_prob = new.log_prob(batch.action), old.log_prob(batch.action)
    return jnp.sum(batch.weight * clipped_policy_loss(log_prob, old_log_prob, batch.advantage, clip))


def exploration_loss(before: Any, batch: PolicyBatch, credit: jax.Array) -> jax.Array:
    """E-MAML's loss for the batch of one adaptation step, −mean(π_θ_k(a|s) / π_old,k(a|s)) R' [].

    Args:
        before: π_θ_k [n, ...], the distributions before this step of the adaptation.
        credit: R' [], what the trajectories before adaptation led to after it (Stadie et al., 2018).
    """
    ratio = jnp.exp(before.log_prob(batch.action) - batch.log_prob)
    return -jnp.sum(batch.weight * ratio) * credit


def exploration(new: Predicted, inner: PolicyBatch, credit: jax.Array) -> jax.Array:
    """The sum of `exploration_loss` over the adaptation steps [], for inner batches [K, ...]."""
    return jnp.sum(jax.vmap(exploration_loss, (0, 0, None))(new.before, inner, credit))


def mean_kl(old: Any, new: Any, batch: PolicyBatch) -> jax.Array:
    """The mean KL(π_old ‖ π_new) over the batch's states [], given both distributions [n, ...]."""
    return jnp.sum(batch.weight * old.kl(new))


def credits(outer: PolicyBatch) -> jax.Array:
    """E-MAML's R' [tasks]: the mean return after adaptation, standardised over the tasks."""
    return standardize(outer.episode_return, jnp.ones_like(outer.episode_return))


# Optimisers


def returns(data: MetaBatch) -> Metrics:
    """The mean "return" after adaptation, and "return_before" it if there is an adaptation."""
    metrics = {"return": jnp.mean(data.outer.episode_return)}
    if data.inner.episode_return.shape[1]:
        metrics["return_before"] = jnp.mean(data.inner.episode_return[:, 0])
    return metrics


def over_tasks(function: Callable[..., Any], chunk: int, params: Params, *batches: Any) -> Any:
    """`function(params, …)` for each task, `chunk` tasks at a time on each device; `batches` and results have a leading
    axis [tasks]."""

    def some(params: Params, *batches: Any) -> Any:
        of_task = partial(function, params)
        if chunk >= len(jax.tree.leaves(batches)[0]):
            return jax.vmap(of_task)(*batches)
        return jax.lax.map(lambda row: of_task(*row), batches, batch_size=chunk if chunk > 1 else None)

    return each_device(some, (None, *[0] * len(batches)), 0)(params, *batches)


def meta_gradient(config: OuterConfig, predict: Predict, chunk: int) -> Gradient:
    """The mean gradient of the outer loss over the tasks.

    The tasks are differentiated one by one, or `chunk` at a time, so that the memory of one backward pass is freed
    before the next.
    """

    def loss(params: Params, batch: MetaBatch, credit: jax.Array) -> jax.Array:
        new = predict(params, batch)
        if config.outer == "ppo":
            total = clipped_loss(batch.outer.acted, new.after, batch.outer, config.clip)
            total += config.kl_weight * jnp.sum(jax.vmap(mean_kl)(batch.inner.acted, new.before, batch.inner))
        else:
            total = surrogate_loss(jax.lax.stop_gradient(new.after), new.after, batch.outer)
        return total + exploration(new, batch.inner, credit) if config.credit_exploration else total

    def gradient(params: Params, data: MetaBatch) -> tuple[Params, Metrics]:
        each = over_tasks(jax.grad(loss), chunk, params, data, credits(data.outer))
        return jax.tree.map(lambda g: jnp.mean(g, axis=0), each), returns(data)

    return gradient


def reptile_gradient(adapted: Callable[[Params, MetaBatch], Params], chunk: int) -> Gradient:
    """Reptile's mean_i(θ − θ'_i), which takes the place of a gradient.

    Args:
        adapted: meta-parameters, the batches of one task -> θ'_i.
        chunk: tasks at a time.
    """

    def gradient(params: Params, data: MetaBatch) -> tuple[Params, Metrics]:
        each = over_tasks(adapted, chunk, params, data)
        return jax.tree.map(lambda p, new: p - jnp.mean(new, axis=0), params, each), returns(data)

    return gradient


def descend(
    optimizer: optax.GradientTransformation, params: Params, learner: Any, gradient: Params
) -> tuple[Params, Any]:
    """One step of an optax optimiser."""
    updates, learner = optimizer.update(gradient, learner, params)
    return optax.apply_updates(params, updates), learner


def epochs_update(
    config: OuterConfig, optimizer: optax.GradientTransformation, gradient: Gradient
) -> Callable[..., Any]:
    """PPO's outer update: `outer_epochs` gradient steps on the same trajectories."""

    def update(params: Params, learner: Any, data: MetaBatch) -> tuple[Params, Any, Metrics]:
        def epoch(carry: tuple[Params, Any], _: None) -> tuple[tuple[Params, Any], jax.Array]:
            slope = gradient(carry[0], data)[0]
            return descend(optimizer, *carry, slope), optax.global_norm(slope)

        (params, learner), norms = jax.lax.scan(epoch, (params, learner), length=config.outer_epochs)
        return params, learner, returns(data) | {"grad_norm": norms[0]}

    return update


def trust_region_loss(
    config: OuterConfig, data: MetaBatch, credit: jax.Array, old: Predicted, new: Predicted
) -> jax.Array:
    """TRPO's loss [], the mean over the tasks, given the distributions of all of them [tasks, ...].

    Args:
        credit: R' [tasks]; used only with `credit_exploration`.
    """
    total = jnp.mean(jax.vmap(surrogate_loss)(old.after, new.after, data.outer))
    if config.credit_exploration:
        total += jnp.mean(jax.vmap(exploration)(new, data.inner, credit))
    return total


def trust_region_divergence(data: MetaBatch, old: Predicted, new: Predicted) -> jax.Array:
    """The mean KL divergence [] of the adapted policies over the tasks."""
    return jnp.mean(jax.vmap(mean_kl)(old.after, new.after, data.outer))


def trust_region_settings(config: OuterConfig) -> dict[str, Any]:
    """The settings under the names that `trust_region_step` gives them."""
    return {
        "max_divergence": config.max_kl,
        "cg_iterations": config.cg_iterations,
        "damping": config.cg_damping,
        "shrink": config.line_search_shrink,
        "max_backtracks": config.line_search_steps,
    }


def fisher_part(config: OuterConfig, predict: Predict, chunk: int, data: MetaBatch) -> Curvature | None:
    """The trajectories of `fisher_episodes` environments of each task; None: of all."""
    count = config.fisher_episodes
    if count is None or count >= data.outer.reward.shape[-1]:
        return None
    first = jax.vmap(partial(first_environments, count=count))
    part = MetaBatch(jax.vmap(first)(data.inner), first(data.outer), data.adapted)
    predict_all = lambda params: over_tasks(predict, chunk, params, part)
    return Curvature(predict_all, partial(trust_region_divergence, part))


def trust_region_update(
    config: OuterConfig, predict: Predict, chunk: int, predict_part: Predict | None = None
) -> Callable[..., Any]:
    """TRPO's outer update: one trust-region step, with the mean KL of the adapted policies as the bound.

    Args:
        chunk: tasks at a time.
        predict_part: as `predict`, for part of the batches and the parameters after the adaptation to the whole.
    """

    def update(params: Params, learner: Any, data: MetaBatch) -> tuple[Params, Any, Metrics]:
        def predict_all(params: Params) -> Predicted:
            needed = lambda new: new if config.credit_exploration else new._replace(before=())
            return over_tasks(lambda *of_task: needed(predict(*of_task)), chunk, params, data)

        loss = partial(trust_region_loss, config, data, credits(data.outer))
        divergence = partial(trust_region_divergence, data)
        curvature = fisher_part(config, predict_part, chunk, data) if predict_part else None
        params, info = trust_region_step(
            params, predict_all, loss, divergence, curvature=curvature, **trust_region_settings(config)
        )
        improvement = info.loss_before - info.loss_after
        metrics = {"kl": info.divergence, "improvement": improvement, "backtracks": info.backtracks.astype(float)}
        metrics |= {"accepted": info.accepted.astype(float), "grad_norm": info.grad_norm}
        return params, learner, returns(data) | metrics

    return update
