"""Closed forms of the two distributions against Monte Carlo and SciPy-free sums."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_hier.learning.distributions import Categorical, DiagonalGaussian
from tests.close import assert_close

KEY = jax.random.key(0)


def test_gaussian_density_integrates_and_matches_kl_and_entropy():
    p = DiagonalGaussian(jnp.array([0.3, -0.2]), jnp.array([-0.5, 0.2]))
    q = DiagonalGaussian(jnp.array([0.0, 0.4]), jnp.array([0.1, -0.1]))
    x = jax.vmap(p.sample)(jax.random.split(KEY, 200_000))
    log_p, log_q = p.log_prob(x), q.log_prob(x)
    for estimate, exact in ((log_p - log_q, p.kl(q)), (-log_p, p.entropy()), (jnp.exp(log_q - log_p), 1.0)):
        error = float(estimate.std()) / 200_000**0.5
        assert abs(float(estimate.mean()) - float(exact)) < 4 * error
    np.testing.assert_allclose(p.mode(), p.mean)
    assert float(p.kl(p)) == 0.0


def test_categorical_by_enumeration():
    p, q = Categorical(jnp.array([0.1, 2.0, -1.0])), Categorical(jnp.array([1.0, 0.0, 0.5]))
    actions = jnp.arange(3)
    p_a = jnp.exp(jax.vmap(p.log_prob)(actions))
    q_a = jnp.exp(jax.vmap(q.log_prob)(actions))
    assert_close(p_a.sum(), 1.0)
    assert_close(p.kl(q), (p_a * jnp.log(p_a / q_a)).sum())
    assert_close(p.entropy(), -(p_a * jnp.log(p_a)).sum())
    counts = jnp.bincount(jax.vmap(p.sample)(jax.random.split(KEY, 20_000)), length=3)
    assert float(((counts - 20_000 * p_a) ** 2 / (20_000 * p_a)).sum()) < 13.8  # χ², 2 degrees, p = 0.001
    assert p.sample(KEY).dtype == jnp.int32
    assert int(p.mode()) == 1
