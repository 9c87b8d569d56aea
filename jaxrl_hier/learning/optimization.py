"""Optimisers: settings shared by all gradient learners, and the optax optimiser built from them.

    g    ← min(1, c / |g|) g            c: `max_grad_norm`; |g| over all parameters of one optimiser
    α_t  = α f(t / T)                   α: the learning rate, t: iterations so far, T: `learning_rate_iterations`
    f(x) = 1,  1 − x,  ½ (1 + cos πx)   constant, linear, cosine; the last two are 0 for x ≥ 1

An iteration is one call of an algorithm's `step`. With several updates per iteration t is fractional and the rate falls
with every update; PPO's updates on one rollout (`rl2`) share one rate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxrl_hier.checks import UsageError, require_choice, require_positive
from jaxrl_hier.settings import INT32, BaseConfig

SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class OptimizerConfig(BaseConfig):
    """Settings of all learners with an optimiser, apart from the learning rates."""

    learning_rate_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """schedule of the learning rates"""
    learning_rate_iterations: int = 0
    """iterations after which a linear or cosine schedule reaches 0"""
    max_grad_norm: float | None = None
    """maximum global norm of an optimiser's gradient, above 0; none: no clipping"""


def check_optimizer(config: OptimizerConfig) -> None:
    """Raises UsageError for invalid optimiser settings."""
    require_choice(config, "learning_rate_schedule", SCHEDULES)
    require_positive(config, "learning_rate_iterations", or_zero=True)
    require_positive(config, "max_grad_norm")
    if config.learning_rate_schedule == "constant" and config.learning_rate_iterations:
        raise UsageError(
            f"learning_rate_iterations is for learning_rate_schedule linear or cosine, got "
            f"{config.learning_rate_iterations} for constant"
        )
    if config.learning_rate_schedule != "constant" and not config.learning_rate_iterations:
        raise UsageError(
            f"learning_rate_schedule {config.learning_rate_schedule} needs learning_rate_iterations, the number of "
            "iterations after which the learning rate is 0"
        )


def linear_over(iterations: int | None) -> dict[str, Any]:
    """The settings of a linear schedule over this number of iterations; of a constant one for 0 or none."""
    return {
        "learning_rate_schedule": "linear" if iterations else "constant",
        "learning_rate_iterations": iterations or 0,
    }


def schedule(config: OptimizerConfig, rate: Any, steps: int = 1) -> optax.Schedule:
    """Gradient steps so far -> learning rate, starting at `rate`; an iteration has `steps` gradient steps."""
    if config.learning_rate_schedule == "constant":
        return optax.constant_schedule(rate)
    total = config.learning_rate_iterations * steps
    if total > INT32.value:
        raise UsageError(
            f"learning_rate_iterations must be at most {INT32.value // steps} with {steps} updates per iteration, got "
            f"{config.learning_rate_iterations}"
        )
    if config.learning_rate_schedule == "linear":
        return optax.linear_schedule(rate, 0.0, total)
    return optax.cosine_decay_schedule(rate, total)


def linear_decay(iteration: jax.Array, iterations: int) -> Any:
    """1 at iteration [] 0, falling linearly to 0 over so many `iterations`; 1 if there are none."""
    return jnp.maximum(1.0 - iteration / iterations, 0.0) if iterations else 1.0


def clipped(config: OptimizerConfig, rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """`rule` with gradients clipped to `max_grad_norm`."""
    if config.max_grad_norm is None:
        return rule
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), rule)


def apart(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """`rule` for each network in a NamedTuple of them as if it were alone: how far the gradient of a policy is clipped
    does not depend on that of a value, which may be much larger."""

    def update(gradient: Any, state: Any, params: Any = None) -> Any:
        parts = [rule.update(*part) for part in zip(gradient, state, params)]
        return tuple(type(params)(*part) for part in zip(*parts))

    return optax.GradientTransformation(lambda params: type(params)(*map(rule.init, params)), update)


def optimizer_of(
    config: OptimizerConfig,
    rate: Any,
    *,
    rule: Callable[..., optax.GradientTransformation] = optax.adam,
    steps: int = 1,
    every: int = 1,
) -> optax.GradientTransformation:
    """The optimiser that `config` describes. With a constant rate its state is that of `rule`.

    Args:
        rate: the initial learning rate.
        rule: learning rate or schedule -> optax optimiser.
        steps: gradient steps per iteration, of which this optimiser takes every `every`-th.
    """
    if config.learning_rate_schedule != "constant":
        rate_at = schedule(config, rate, steps)
        total = steps * config.learning_rate_iterations
        # past its end a schedule stays there: the number of a step could overflow int32, and the rate rise again
        step = lambda count: jnp.where(count < total // every, every * (count + 1) - 1, total)
        rate = rate_at if every == 1 else lambda count: rate_at(step(count))
    return clipped(config, rule(rate))
