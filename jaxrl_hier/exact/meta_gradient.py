"""The meta-objective of gradient-based meta-RL and its gradient, exactly, for softmax tables on a tabular process.

    J(θ)  = E[Σ_{t<T} γ^t r_t]                      π(a|s) ∝ exp θ(s, a), s_0 ~ start
    M(θ)  = J(θ + α ∇J(θ))                          one adaptation step that sees no noise
    ∇M(θ) = (I + α ∇²J(θ)) ∇J(θ + α ∇J(θ))

J is found by induction backwards over the horizon; the derivatives are those of that program. M is what DiCE, LVC and
ProMP estimate ("formulation I" of Rothfuss et al., 2019). From N sampled trajectories a step is noisy, and what is then
trained is E_D J(θ + α ĝ(D)), of which E-MAML's gradient is an unbiased estimate; the two meet as N grows.

A bandit is the process of one state and horizon 1. S counts states, A actions. Everything can be vmapped over
processes, for the mean over tasks, and takes float64 where jax has x64 enabled.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_hier.exact.tabular import action_values, einsum


class Process(NamedTuple):
    """A tabular process that starts somewhere."""

    P: jax.Array  # [S, A, S'] transition probabilities
    R: jax.Array  # [S, A] expected rewards
    start: jax.Array  # [S] probabilities of the first state


def bandit(means: jax.Array) -> Process:
    """Arms with expected rewards `means` [A]."""
    return Process(jnp.ones((1, len(means), 1), means.dtype), means[None], jnp.ones(1, means.dtype))


def state_values(theta: jax.Array, process: Process, horizon: int, gamma: float = 1.0) -> jax.Array:
    """What is expected of the rest, V_t(s) [T, S], for tables θ [S, A]."""
    policy = jax.nn.softmax(theta)

    def backward(values: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        values = jnp.sum(policy * action_values(process.P, process.R, values, gamma), axis=1)
        return values, values

    return jax.lax.scan(backward, jnp.zeros(len(theta), theta.dtype), length=horizon)[1][::-1]


def expected_return(theta: jax.Array, process: Process, horizon: int, gamma: float = 1.0) -> jax.Array:
    """J(θ) []."""
    return einsum("s,s->", process.start, state_values(theta, process, horizon, gamma)[0])


def adapted(
    theta: jax.Array, process: Process, alpha: float | jax.Array, horizon: int, gamma: float = 1.0, steps: int = 1
) -> jax.Array:
    """θ' [S, A]: `steps` steps θ + α ∇J(θ)."""
    for _ in range(steps):
        theta = theta + alpha * jax.grad(expected_return)(theta, process, horizon, gamma)
    return theta


def meta_objective(
    theta: jax.Array, process: Process, alpha: float | jax.Array, horizon: int, gamma: float = 1.0, steps: int = 1
) -> jax.Array:
    """M(θ) []."""
    return expected_return(adapted(theta, process, alpha, horizon, gamma, steps), process, horizon, gamma)


def meta_gradient(
    theta: jax.Array, process: Process, alpha: float | jax.Array, horizon: int, gamma: float = 1.0, steps: int = 1
) -> jax.Array:
    """∇M(θ) [S, A]."""
    return jax.grad(meta_objective)(theta, process, alpha, horizon, gamma, steps)
