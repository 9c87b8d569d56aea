"""How a gradient becomes a step: the settings that every learner with an optimiser has, and the optimiser made of them.

    g    ← min(1, c / |g|) g            c: `max_grad_norm`; |g| over all that one optimiser steps
    α_t  = α f(t / T)                   α: the learning rate, t: iterations so far, T: `learning_rate_iterations`
    f(x) = 1,  1 − x,  ½ (1 + cos πx)   constant, linear, cosine; the last two are 0 from x = 1 on

An iteration is one call of an algorithm's `step`. Where that takes several gradient steps the rate falls with each of
them, t being a fraction; PPO's steps on one rollout (`rl2`) have one rate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import optax

from jaxrl_hier.checks import UsageError, require_choice, require_positive
from jaxrl_hier.settings import INT32, BaseConfig

SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class OptimizerConfig(BaseConfig):
    """Settings of every learner with an optimiser, beside its learning rates."""

    learning_rate_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """how learning rates fall"""
    learning_rate_iterations: int = 0
    """iterations after which they are 0; for linear and cosine"""
    max_grad_norm: float | None = None
    """bound on the norm of the whole gradient of an optimiser; none: no bound"""


def check_optimizer(config: OptimizerConfig) -> None:
    """Raises UsageError for settings that no optimiser can have."""
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
            f"learning_rate_schedule {config.learning_rate_schedule} needs learning_rate_iterations, after how many "
            "iterations the learning rate is 0"
        )


def linear_over(iterations: int | None) -> dict[str, Any]:
    """The settings of learning rates that fall in a line over so many iterations; of constant ones for 0 or none."""
    return {
        "learning_rate_schedule": "linear" if iterations else "constant",
        "learning_rate_iterations": iterations or 0,
    }


def schedule(config: OptimizerConfig, rate: Any, steps: int = 1) -> optax.Schedule:
    """Gradient steps so far -> learning rate, from `rate` on; `steps` of them are an iteration."""
    if config.learning_rate_schedule == "constant":
        return optax.constant_schedule(rate)
    total = config.learning_rate_iterations * steps
    if total > INT32.value:
        raise UsageError(
            f"learning_rate_iterations must be at most {INT32.value // steps}, at {steps} gradient steps each, got "
            f"{config.learning_rate_iterations}"
        )
    if config.learning_rate_schedule == "linear":
        return optax.linear_schedule(rate, 0.0, total)
    return optax.cosine_decay_schedule(rate, total)


def clipped(config: OptimizerConfig, rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """`rule`, for gradients whose norm is bounded."""
    if config.max_grad_norm is None:
        return rule
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), rule)


def optimizer_of(
    config: OptimizerConfig,
    rate: Any,
    *,
    rule: Callable[..., optax.GradientTransformation] = optax.adam,
    steps: int = 1,
    every: int = 1,
) -> optax.GradientTransformation:
    """The optimiser that `config` says. With a constant rate its state is that of `rule`.

    Args:
        rate: the learning rate to begin with.
        rule: of optax, learning rate or schedule -> optimiser.
        steps: gradient steps in an iteration, of which this optimiser takes each `every`-th.
    """
    if config.learning_rate_schedule != "constant":
        rate_at = schedule(config, rate, steps)
        rate = rate_at if every == 1 else lambda count: rate_at(every * (count + 1) - 1)
    return clipped(config, rule(rate))
