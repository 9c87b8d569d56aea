"""The trust-region step against explicit matrices, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_hier.learning.trust_region import Curvature, conjugate_gradient, trust_region_step
from tests.close import assert_close


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def spd(size, seed):
    a = np.random.default_rng(seed).normal(size=(size, size))
    return jnp.array(a @ a.T + 0.5 * np.eye(size))


def test_conjugate_gradient_solves_and_reports_its_residual():
    a, b = spd(8, 0), jnp.arange(8.0)
    x, r = conjugate_gradient(lambda v: a @ v, b, 8)
    assert_close(x, jnp.linalg.solve(a, b), 1e-6)
    x, r = conjugate_gradient(lambda v: a @ v, b, 3)
    assert_close(r, b - a @ x, 1e-10, scale=7)
    x, _ = conjugate_gradient(lambda v: a @ v, jnp.zeros(8), 3)
    np.testing.assert_array_equal(x, jnp.zeros(8))  # nothing to solve, and no 0 / 0


def problem():
    """Outputs y = A θ, loss c·y, divergence ½ (y − y_old)ᵀ M (y − y_old): the model of the step is exact."""
    rng = np.random.default_rng(1)
    a, m, c = jnp.array(rng.normal(size=(12, 6))), spd(12, 2), jnp.array(rng.normal(size=12))
    predict = lambda params: a @ params["theta"]
    loss = lambda old, new: c @ new
    divergence = lambda old, new: 0.5 * (new - old) @ m @ (new - old)
    return a, m, c, predict, loss, divergence


def test_step_is_the_exact_natural_gradient_step():
    a, m, c, predict, loss, divergence = problem()
    delta, damping, theta = 0.05, 1e-3, jnp.arange(6.0)
    fisher, gradient = a.T @ m @ a + damping * jnp.eye(6), a.T @ c
    direction = jnp.linalg.solve(fisher, gradient)
    expected = theta - jnp.sqrt(2 * delta / (gradient @ direction)) * direction
    options = {"max_divergence": delta, "cg_iterations": 12, "damping": damping}
    new, info = trust_region_step({"theta": theta}, predict, loss, divergence, **options)
    assert_close(new["theta"], expected)
    assert int(info.backtracks) == 0
    assert bool(info.accepted)
    assert float(info.divergence) == pytest.approx(delta, rel=0.01)  # a little less: damping
    assert float(info.grad_norm) == pytest.approx(float(jnp.linalg.norm(gradient)))


def test_curvature_is_that_of_the_part():
    """The direction and its length follow from the part's matrix; loss and bound are those of the whole."""
    a, m, c, predict, loss, divergence = problem()
    rows, theta, delta = 9, jnp.arange(6.0), 0.05
    curvature = Curvature(lambda params: a[:rows] @ params["theta"], lambda old, new: 3.0 * jnp.sum((new - old) ** 2))
    fisher, gradient = 6.0 * a[:rows].T @ a[:rows] + 1e-3 * jnp.eye(6), a.T @ c
    direction = jnp.linalg.solve(fisher, gradient)
    step = -jnp.sqrt(2 * delta / (gradient @ direction)) * direction
    options = {"max_divergence": delta, "cg_iterations": 12, "damping": 1e-3, "curvature": curvature}
    new, info = trust_region_step({"theta": theta}, predict, loss, divergence, **options)
    moved = new["theta"] - theta
    assert_close(moved, 0.8 ** float(info.backtracks) * step)
    assert float(info.divergence) == pytest.approx(float(0.5 * (a @ moved) @ m @ (a @ moved)))
    assert float(info.grad_norm) == pytest.approx(float(jnp.linalg.norm(gradient)))


def test_backtracks_until_the_bound_holds():
    _, _, _, predict, loss, divergence = problem()
    steep = lambda old, new: divergence(old, new) * (1 + 1e3 * divergence(old, new))  # same curvature at 0
    options = {"max_divergence": 0.05, "cg_iterations": 12}
    _, info = trust_region_step({"theta": jnp.zeros(6)}, predict, loss, steep, **options)
    assert bool(info.accepted)
    assert int(info.backtracks) > 0
    assert float(info.divergence) <= 0.05
    assert float(info.loss_after) < float(info.loss_before)


def test_leaves_the_parameters_when_nothing_improves():
    _, _, _, predict, loss, divergence = problem()
    cliff = lambda old, new: loss(old, new) + 1e6 * jnp.sum((new - old) ** 2) ** 0.25  # worse wherever it goes
    theta = jnp.ones(6)
    flat = lambda old, new: jnp.where(jnp.all(new == old), loss(old, new), cliff(old, new))
    new, info = trust_region_step({"theta": theta}, predict, flat, divergence, max_divergence=0.05, max_backtracks=4)
    assert not bool(info.accepted)
    assert int(info.backtracks) == 3
    np.testing.assert_array_equal(new["theta"], theta)
    assert float(info.divergence) == 0.0
