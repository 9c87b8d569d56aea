"""`Dense` is flax's, with another order of the same products where a layer is narrow."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from close import assert_close

from jaxrl_hier import networks

X = jax.random.normal(jax.random.key(0), (7, 5))


def everything(layer, features):
    """The output, its linearisation, first and second derivatives, and gradients of two kernels under vmap."""
    model = layer(features)
    params = model.init(jax.random.key(1), X)
    loss = lambda params: jnp.sum(jnp.tanh(model.apply(params, X)) ** 2)
    ones = jax.tree.map(jnp.ones_like, params)
    after = lambda params: loss(jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params)))
    two = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
    return (
        model.apply(params, X),
        model.apply(params, X[0]),
        jax.jvp(lambda params: model.apply(params, X), (params,), (ones,))[1],
        jax.grad(loss)(params),
        jax.grad(after)(params),
        jax.jvp(jax.grad(loss), (params,), (ones,))[1],
        jax.vmap(jax.grad(loss))(two),
    )


@pytest.mark.rounding
@pytest.mark.parametrize("features", [1, 3, 5, 9])
def test_dense_is_flax_dense(features):
    ours, flax = jax.jit(everything, static_argnums=(0, 1))(networks.Dense, features), everything(nn.Dense, features)
    assert_close(ours, flax)


@pytest.mark.parametrize(("backend", "features", "turned"), [("cpu", 3, True), ("cpu", 9, False), ("gpu", 3, False)])
def test_only_narrow_kernels_are_turned_and_only_on_a_cpu(monkeypatch, backend, features, turned):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    kernel = jnp.ones((5, features))
    program = jax.make_jaxpr(lambda x: networks.product(x, kernel, (((1,), (0,)), ((), ()))))(X)
    assert ("optimization_barrier" in str(program)) == turned
