"""The exact meta-objective of gradient-based meta-RL and its gradient, for tabular softmax policies.

    J(θ)  = E[Σ_{t<T} γ^t r_t]                      π(a|s) ∝ exp θ(s, a), s_0 ~ start
    M(θ)  = J(θ + α ∇J(θ))                          one noise-free adaptation step
    ∇M(θ) = (I + α ∇²J(θ)) ∇J(θ + α ∇J(θ))

J is computed by backward induction over the horizon, and differentiated automatically. DiCE, LVC and ProMP estimate ∇M
("formulation I" of Rothfuss et al., 2019). A step from N sampled trajectories is noisy; the objective is then
E_D J(θ + α ĝ(D)), whose gradient E-MAML estimates without bias. The two agree as N grows.

A bandit is a process with one state and horizon 1. S is the number of states, A of actions. Everything can be vmapped
over processes, for the mean over tasks, and accepts float64 if jax has x64 enabled.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_hier.exact.tabular import action_values, einsum


class Process(NamedTuple):
    """A tabular process with an initial state distribution."""

    P: jax.Array  # [S, A, S'] transition probabilities
    R: jax.Array  # [S, A] expected rewards
    start: jax.Array  # [S] probabilities of the first state


def bandit(means: jax.Array) -> Process:
    """A bandit with expected rewards `means` [A]."""
    return Process(jnp.ones((1, len(means), 1), means.dtype), means[None], jnp.ones(1, means.dtype))


def state_values(theta: jax.Array, process: Process, horizon: int, gamma: float = 1.0) -> jax.Array:
    """The values V_t(s) [T, S] of the policy θ [S, A], with T = `horizon`."""
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
    """θ' [S, A] after `steps` steps θ + α ∇J(θ)."""
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
