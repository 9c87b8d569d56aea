"""Networks and stochastic policies on top of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.boxes import bounds
from jaxrl_envs.contract import name_of
from jaxrl_hier.checks import UsageError, require_choice, require_sizes
from jaxrl_hier.learning.distributions import Categorical, DiagonalGaussian
from jaxrl_hier.settings import BaseConfig

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"relu": nn.relu, "tanh": nn.tanh, "silu": nn.silu}


def product(x: jax.Array, kernel: jax.Array, dimensions: Any, **options: Any) -> jax.Array:
    """`lax.dot_general` of x [..., F] and a kernel [F, G]; on a CPU a kernel with G < F is transposed first.

    The kernel's gradient is then computed as [G, B] · [B, F]. Without the barrier XLA turns it into [F, B] · [B, G],
    which is slower: DQN with a 256 × 15 layer trains 1.14 times as fast with the barrier
    (`python -m benchmarks throughput compilation`).
    """
    if kernel.shape[1] < kernel.shape[0] and jax.default_backend() == "cpu":
        kernel, dimensions = jax.lax.optimization_barrier(kernel.T), (((x.ndim - 1,), (1,)), ((), ()))
    return jax.lax.dot_general(x, kernel, dimensions, **options)


Dense = partial(nn.Dense, dot_general=product)  # flax's layer, with the same parameters


def constants(values: tuple[float, ...]) -> Any:
    """An initialiser of these numbers; (): zeros."""
    return (lambda key, shape, dtype: jnp.asarray(values, dtype)) if values else nn.initializers.zeros_init()


class MLP(nn.Module):
    """[..., features_in] -> [..., sizes[-1]], with an activation after every layer but the last, whose initial biases
    are `last_bias` [sizes[-1]]; (): zeros."""

    sizes: Sequence[int]
    activation: str = "relu"
    last_bias: tuple[float, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, size in enumerate(self.sizes):
            bias = self.last_bias if i + 1 == len(self.sizes) else ()
            x = Dense(size, kernel_init=nn.initializers.xavier_uniform(), bias_init=constants(bias))(x)
            if i + 1 < len(self.sizes):
                x = ACTIVATIONS[self.activation](x)
        return x


class GridEncoder(nn.Module):
    """Images [..., H, W, C] -> [..., F]: 3 × 3 convolutions of stride 2 with ReLU; `channels` are their outputs.

    Each is computed as a matrix product with patches. A convolution's gradient takes three times as long on a CPU
    (13 × 13 × 4), and vmapping it over seeds, each with its own kernels, would give a grouped convolution.
    """

    channels: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for size in self.channels:
            height, width = x.shape[-3:-1]
            x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)])
            patches = [x[..., i : i + height : 2, j : j + width : 2, :] for i in range(3) for j in range(3)]
            x = nn.relu(Dense(size, kernel_init=nn.initializers.he_normal())(jnp.concatenate(patches, axis=-1)))
        return x.reshape(*x.shape[:-3], -1)


@dataclass(frozen=True)
class NetworkConfig(BaseConfig):
    """Settings of learners with an optional convolutional encoder."""

    network: Literal["mlp", "cnn"] = "mlp"
    """mlp: flatten observations; cnn: convolutions before the hidden layers, for images [H, W, C]"""
    channels: tuple[int, ...] = (16, 32)
    """cnn: output channels of each 3 × 3 convolution of stride 2"""


def check_network(config: NetworkConfig) -> None:
    """Raises UsageError for invalid network settings."""
    require_choice(config, "network", ("mlp", "cnn"))
    require_sizes(config, "channels")
    if config.network == "cnn" and not config.channels:
        raise UsageError("channels needs at least one convolution, got none; network mlp flattens images")


class CNN(nn.Module):
    """Images [..., H, W, C] -> [..., sizes[-1]]: convolutions, then an MLP."""

    channels: Sequence[int]
    sizes: Sequence[int]
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return MLP(self.sizes, self.activation)(GridEncoder(self.channels)(x))


def network_of(config: NetworkConfig, sizes: Sequence[int], activation: str) -> nn.Module:
    """The network that `config` selects, with layers of these sizes, for inputs from `encoder_for`."""
    return CNN(config.channels, sizes, activation) if config.network == "cnn" else MLP(sizes, activation)


class GaussianPolicy(nn.Module):
    """[..., O] -> DiagonalGaussian [..., D]: mean by an MLP, a learned log standard deviation per dimension.

    The mean begins near `centre` [D], its initial biases; (): near 0.
    """

    action_dim: int
    hidden: Sequence[int]
    activation: str = "relu"
    centre: tuple[float, ...] = ()
    init_std: float = 1.0
    min_std: float = 1e-6

    @nn.compact
    def __call__(self, obs: jax.Array) -> DiagonalGaussian:
        mean = MLP((*self.hidden, self.action_dim), self.activation, self.centre)(obs)
        log_std = self.param("log_std", nn.initializers.constant(math.log(self.init_std)), (self.action_dim,))
        return DiagonalGaussian(mean, jnp.maximum(log_std, math.log(self.min_std)))


class CategoricalPolicy(nn.Module):
    """[..., O] -> Categorical over `num_actions`."""

    num_actions: int
    hidden: Sequence[int]
    activation: str = "relu"

    @nn.compact
    def __call__(self, obs: jax.Array) -> Categorical:
        return Categorical(MLP((*self.hidden, self.num_actions), self.activation)(obs))


class WithContext(nn.Module):
    """`policy` with a learned vector [size], the parameter "context", beside each observation; zero at first."""

    policy: nn.Module
    size: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> Any:
        context = self.param("context", nn.initializers.zeros_init(), (self.size,))
        everywhere = jnp.broadcast_to(context, (*obs.shape[:-1], self.size))
        return self.policy(jnp.concatenate([obs, everywhere], axis=-1))


def is_array(space: Any) -> bool:
    """Whether the elements of a space are single arrays, as in Discrete and Box."""
    return hasattr(space, "shape") and hasattr(space, "dtype")


def kind_of(space: Any) -> str:
    """The name of a space's class, for messages, with its library where that is not gymnax."""
    kind, library = type(space).__name__, type(space).__module__.split(".")[0]
    return f"{kind} of gymnasium, not of gymnax" if library == "gymnasium" else kind


def action_size(action_space: Any) -> int:
    """The number of actions of a Discrete space, or of dimensions of a flat Box; UsageError for any other."""
    if hasattr(action_space, "n"):
        return int(action_space.n)
    if not is_array(action_space):
        raise UsageError(f"a policy needs Discrete or Box actions, this action space is {kind_of(action_space)}")
    if len(action_space.shape) != 1:
        raise UsageError(
            f"a Gaussian policy needs a flat action vector, this action space has shape {action_space.shape}"
        )
    if action_space.dtype == jnp.bool_:
        raise UsageError("a policy needs Discrete or Box actions, this Box is one of booleans: make it Discrete(2)")
    return int(action_space.shape[0])


def policy_for(action_space: Any, hidden: Sequence[int], activation: str = "relu") -> nn.Module:
    """The policy network that fits an action space: categorical for Discrete, Gaussian for a flat Box."""
    size = action_size(action_space)
    if hasattr(action_space, "n"):
        return CategoricalPolicy(size, tuple(hidden), activation)
    return GaussianPolicy(size, tuple(hidden), activation, centre_of(action_space))


def centre_of(action_space: Any) -> tuple[float, ...]:
    """Where the actions of a Gaussian policy begin: (), which is 0, if 0 is inside the bounds, as in the papers'
    environments. Else, in dimensions without 0, in the middle, or 1 from the one finite bound: clipped to a bound, all
    actions would be the same, and nothing would be learned."""
    ends = bounds(action_space)
    if any(isinstance(x, jax.core.Tracer) for x in ends):  # of params that are made under a trace
        return ()
    dimensions = zip(*(np.ravel(x).astype(float).tolist() for x in ends))
    centre = tuple(0.0 if low <= 0 <= high else _middle(low, high) for low, high in dimensions)
    return centre if any(centre) else ()


def _middle(low: float, high: float) -> float:
    if math.isinf(high):
        return low + 1.0
    return high - 1.0 if math.isinf(low) else (low + high) / 2


def picture_shape(space: Any) -> tuple[int, int, int]:
    """[H, W, C] of a space of images; UsageError for any other space."""
    shape: Any = getattr(space, "shape", ())
    if hasattr(space, "n") or not is_array(space) or len(shape) != 3:
        what = f"of shape {list(shape)}" if shape else kind_of(space)
        raise UsageError(f"network cnn needs images [H, W, C], the observations are {what}; use mlp")
    return shape


def require_discrete_actions(env: Any, algorithm: str, instead: str = "") -> Any:
    """The action space of an environment; UsageError, with what to use `instead`, for one that is not Discrete."""
    from gymnax.environments import spaces  # slow to import

    actions = env.action_space(env.default_params)
    if not isinstance(actions, spaces.Discrete):
        advice = f". Use {instead}" if instead else ""
        raise UsageError(
            f"{algorithm} needs discrete actions; {name_of(env)} has {type(actions).__name__} actions{advice}"
        )
    return actions


def require_array_observations(env: Any, algorithm: str) -> None:
    """Raises UsageError for an environment whose observations are no arrays."""
    observations = env.observation_space(env.default_params)
    if not is_array(observations):
        raise UsageError(
            f"{algorithm} needs observations that an array holds, Discrete or Box; {name_of(env)} has "
            f"{kind_of(observations)} observations"
        )


def encoder_for(observation_space: Any, network: str = "mlp") -> Callable[[Any], jax.Array]:
    """A function from observations [..., *shape] to network inputs [..., F] float32: one-hot for Discrete, else flat.

    From the dicts of goal environments it uses the observation and the desired goal, never the achieved goal. For
    network "cnn" images keep their shape [..., H, W, C].
    """
    if network == "cnn":
        picture_shape(observation_space)
        return lambda obs: obs.astype(jnp.float32)
    within = getattr(observation_space, "spaces", None)
    if isinstance(within, dict):
        from jaxrl_envs.goals import PARTS  # imports gymnax, which is slow

        if not set(PARTS) <= set(within):
            raise UsageError(
                f"dict observations need the keys {', '.join(PARTS)} of a goal environment; got {', '.join(within)}"
            )
        parts = {name: encoder_for(within[name]) for name in ("observation", "desired_goal")}
        return lambda obs: jnp.concatenate([encode(obs[name]) for name, encode in parts.items()], axis=-1)
    if hasattr(observation_space, "n"):
        return lambda obs: jax.nn.one_hot(obs, int(observation_space.n))
    if not is_array(observation_space):
        raise UsageError(
            f"observations must be Discrete, Box, or the dict of a goal environment, got {kind_of(observation_space)}"
        )
    rank = len(observation_space.shape)

    def flatten(obs: jax.Array) -> jax.Array:
        leading = obs.shape[: obs.ndim - rank]
        return obs.reshape(*leading, -1).astype(jnp.float32)

    return flatten
