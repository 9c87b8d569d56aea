"""`Dense` is flax's, with another order of the same products where a layer is narrow."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

from jaxrl_envs.goals import GoalSpace
from jaxrl_hier.learning import networks
from tests.close import assert_close

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


def test_networks_by_hand():
    """Activations stand between layers; a policy starts with its standard deviation and keeps above the least one; of
    an environment with goals the observation and the wanted goal are seen; pictures go through convolutions."""
    network = networks.MLP((3, 2), "tanh")
    params = network.init(jax.random.key(0), X)
    first, second = params["params"].values()
    hidden = jnp.tanh(X @ first["kernel"] + first["bias"])
    assert_close(network.apply(params, X), hidden @ second["kernel"] + second["bias"])

    policy = networks.GaussianPolicy(2, (4,), init_std=0.5, min_std=0.1)
    params = policy.init(jax.random.key(0), X)
    assert_close(jnp.exp(policy.apply(params, X).log_std), jnp.array([0.5, 0.5]))
    params["params"]["log_std"] = jnp.array([-9.0, 1.0])
    assert_close(policy.apply(params, X).log_std, jnp.array([jnp.log(0.1), 1.0]))

    encode = networks.encoder_for(GoalSpace(spaces.Box(0.0, 1.0, (2,)), spaces.Discrete(3)))
    seen = encode({"observation": jnp.array([0.2, 0.7]), "achieved_goal": jnp.int32(0), "desired_goal": jnp.int32(2)})
    assert_close(seen, jnp.array([0.2, 0.7, 0, 0, 1]))

    picture, encoder = jax.random.normal(jax.random.key(1), (2, 5, 6, 3)), networks.GridEncoder((4,))
    params = encoder.init(jax.random.key(0), picture)
    kernel, bias = params["params"]["Dense_0"]["kernel"], params["params"]["Dense_0"]["bias"]
    shape = ("NHWC", "HWIO", "NHWC")
    padding = [(1, 1), (1, 1)]
    convolved = jax.lax.conv_general_dilated(
        picture, kernel.reshape(3, 3, 3, 4), (2, 2), padding, dimension_numbers=shape
    )
    assert_close(encoder.apply(params, picture), jax.nn.relu(convolved + bias).reshape(2, -1))


@pytest.mark.parametrize(("backend", "features", "turned"), [("cpu", 3, True), ("cpu", 9, False), ("gpu", 3, False)])
def test_only_narrow_kernels_are_turned_and_only_on_a_cpu(monkeypatch, backend, features, turned):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    kernel = jnp.ones((5, features))
    program = jax.make_jaxpr(lambda x: networks.product(x, kernel, (((1,), (0,)), ((), ()))))(X)
    assert ("optimization_barrier" in str(program)) == turned


def test_the_centre_of_actions_is_0_where_0_is_inside():
    centre = lambda low, high: networks.centre_of(spaces.Box(np.array(low), np.array(high), (2,)))
    assert centre([-1.0, 0.0], [3.0, 5.0]) == ()
    assert centre([-np.inf, -2.0], [np.inf, np.inf]) == ()
    assert centre([3.0, -7.0], [10.0, 1.0]) == (6.5, 0.0)
    assert centre([2.0, -np.inf], [np.inf, -4.0]) == (3.0, -5.0)


def test_the_centre_is_where_learning_begins_and_no_part_of_the_function():
    """So what was learned before there were centres acts as it did."""
    space = spaces.Box(3.0, 10.0, (2,))
    policy = networks.policy_for(space, (4,))
    params = policy.init(jax.random.key(0), X)
    np.testing.assert_allclose(policy.apply(params, jnp.zeros_like(X)).mean, np.full((7, 2), 6.5))
    nothing = jax.tree.map(jnp.zeros_like, params)
    np.testing.assert_array_equal(policy.apply(nothing, X).mean, np.zeros((7, 2)))
