"""Convolutions for pictures: DQN, PPO, RL², option-critic, PPO over options on MinAtar, held to XLA's convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
import jaxrl_hier
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import ActInput
from jaxrl_hier.learning.networks import CNN, GridEncoder, picture_shape
from jaxrl_hier.learning.recurrent import none, with_cnn
from tests.close import assert_close
from tests.compiling import quick_jit
from tests.sizes import SIZES

ENV = "Breakout-MinAtar"  # [10, 10, 4]
SETTINGS = {
    "dqn": SIZES["dqn"] | {"capacity": 8_000, "environments": 2},
    "rl2": SIZES["rl2"] | {"rollout_length": 8},
    "option-critic": SIZES["option-critic"],
    "ppo": SIZES["ppo"],
    "option-ppo": SIZES["option-ppo"],
}
CHANNELS = {"network": "cnn", "channels": (3, 5)}


def convolved(layers, picture):
    """Pictures [N, H, W, C] through 3 × 3 convolutions of stride 2 with ReLU, as XLA has them; flat."""
    for layer in layers.values():
        kernel, bias = layer["kernel"], layer["bias"]
        kernel = kernel.reshape(3, 3, picture.shape[-1], len(bias))
        shape = ("NHWC", "HWIO", "NHWC")
        padding = [(1, 1), (1, 1)]
        picture = jax.lax.conv_general_dilated(picture, kernel, (2, 2), padding, dimension_numbers=shape)
        picture = jax.nn.relu(picture + bias)
    return picture.reshape(len(picture), -1)


def pictures(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def test_a_cnn_is_convolutions_and_an_mlp():
    picture, network = pictures(2, 10, 10, 4), CNN((3, 5), (7, 2), "tanh")
    params = network.init(jax.random.key(0), picture)
    first, second = params["params"]["MLP_0"].values()
    features = convolved(params["params"]["GridEncoder_0"], picture)
    assert features.shape == (2, 3 * 3 * 5)
    hidden = jnp.tanh(features @ first["kernel"] + first["bias"])
    assert_close(network.apply(params, picture), hidden @ second["kernel"] + second["bias"])


def test_convolutions_move_with_what_they_see():
    """Two that halve the sides: what moves by four squares moves by one in what they put out."""
    encoder = GridEncoder((3, 5))
    spot = jnp.zeros((16, 16, 2)).at[5:8, 4:7].set(pictures(3, 3, 2))
    params = encoder.init(jax.random.key(0), spot)
    seen = encoder.apply(params, spot).reshape(4, 4, 5)
    moved = encoder.apply(params, jnp.roll(spot, (4, 4), (0, 1))).reshape(4, 4, 5)
    assert np.abs(seen).max() > 0.01
    assert_close(moved[2:, 2:], seen[1:3, 1:3])


def test_a_memory_sees_the_picture_and_the_rest():
    """Of what RL² is given the picture goes through convolutions, and what was done and received beside it."""
    memory, plain = with_cnn((10, 10, 4), (3, 5), none(6)), none(6)
    params = memory.init(jax.random.key(0), 400 + 5)
    x = pictures(7, 2, 405)
    features = convolved(params[0]["params"], x[..., :400].reshape(-1, 10, 10, 4)).reshape(7, 2, -1)
    wanted = plain.step(params[1], (), jnp.concatenate([features, x[..., 400:]], axis=-1))[1]
    assert_close(memory.step(params, (), x)[1], wanted)
    assert_close(memory.unroll(params, (), x, jnp.zeros((7, 2), bool))[1], wanted)


@pytest.mark.parametrize("name", SETTINGS)
def test_minatar_is_no_vector(name):
    """Two iterations move the convolutions; in the first of option-critic its heads are zero."""
    algorithm = jaxrl_hier.make(name, ENV, **SETTINGS[name], **CHANNELS)

    @quick_jit
    def run(key):
        state = algorithm.init(key)
        return state, jax.lax.fori_loop(0, 2, lambda _, state: algorithm.step(state)[0], state)

    before, after = run(jax.random.key(0))
    kernels = lambda state: [x for x in jax.tree.leaves(state.params) if x.ndim == 2 and x.shape in ((36, 3), (27, 5))]
    assert len(kernels(before)) == (4 if name in ("rl2", "ppo", "option-ppo") else 2)  # whose value is apart
    for old, new in zip(kernels(before), kernels(after)):
        assert np.abs(new - old).max() > 0


def test_dqn_acts_by_its_convolutions():
    agent = jaxrl_hier.make("dqn", ENV, **SETTINGS["dqn"], **CHANNELS).agent
    params, obs = agent.init(jax.random.key(3)), pictures(32, 10, 10, 4)
    layers = params.q["params"]
    x = convolved(layers["GridEncoder_0"], obs)
    first, second = layers["MLP_0"].values()
    q = jax.nn.relu(x @ first["kernel"] + first["bias"]) @ second["kernel"]
    second["bias"] = -jnp.mean(q, axis=0)  # so that no action is best everywhere
    q += second["bias"]

    def act(obs):
        inp = ActInput(obs, jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.ones((), bool))
        return agent.act(params, (), inp, jax.random.key(0), True)[0]

    actions = jax.vmap(act)(obs)
    np.testing.assert_array_equal(actions, jnp.argmax(q, axis=-1))
    assert len(np.unique(actions)) > 1


@pytest.mark.parametrize(
    ("name", "env", "shape"),
    [
        ("dqn", "CartPole-v1", r"the observations are of shape \[4\]"),
        ("option-critic", "CartPole-v1", r"the observations are of shape \[4\]"),
        ("option-critic", "four-rooms-option-critic", "the observations are Discrete"),
        ("rl2", "bandit-n10-k5", "the observations are Discrete"),
        ("her-dqn", "bit-flipping-15", "the observations are GoalSpace"),
    ],
)
def test_what_is_no_picture_is_refused(name, env, shape):
    with pytest.raises(UsageError, match=rf"network cnn needs images \[H, W, C\], {shape}; use mlp"):
        jaxrl_hier.make(name, env, network="cnn")


def test_convolutions_are_needed():
    with pytest.raises(UsageError, match="channels needs at least one convolution"):
        jaxrl_hier.make("dqn", ENV, network="cnn", channels=())
    assert picture_shape(jaxrl_envs.make(ENV)[0].observation_space(None)) == (10, 10, 4)
