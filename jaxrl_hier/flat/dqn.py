"""Deep Q-networks (Mnih et al., Nature 518, 2015): Q-learning with a neural network, replay and a target network Q'.

    y = r + γ max_a Q'(s', a)        with double Q-learning: r + γ Q'(s', argmax_a Q(s', a))
    loss: Huber(y − Q(s, a))         clips the error's gradient to ±1, as in the paper

The value of s' is 0 after a termination, but not after a truncation. Behaviour is ε-greedy.

Departures from the paper, all of them common: Adam; ε is constant, after warm-up with random actions; and Q' moves
towards Q by a share τ in every update instead of being copied every 10 000 updates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_envs.random_bits import uniforms
from jaxrl_hier.checks import require_fraction
from jaxrl_hier.engine.types import ActInput, Agent, Algorithm, Metrics, Params, Tasks, Transition
from jaxrl_hier.learning.networks import NetworkConfig, check_network, encoder_for, network_of, require_discrete_actions
from jaxrl_hier.learning.normalization import standardised
from jaxrl_hier.learning.off_policy import (
    ReplayConfig,
    Step,
    bellman_target,
    check,
    learner_from_replay,
    moved,
    no_statistics,
    scaled,
)
from jaxrl_hier.learning.optimization import linear_over, optimizer_of
from jaxrl_hier.learning.tables import epsilon_greedy


@dataclass(frozen=True)
class Config(ReplayConfig, NetworkConfig):
    """Settings of DQN."""

    epsilon: float = 0.1
    """probability ε of a uniformly random action, in [0, 1]"""
    double: bool = False
    """double Q-learning: Q chooses the action that Q' evaluates (van Hasselt, Guez & Silver, 2016)"""

    renamed: ClassVar = {"learning_rate_anneal": lambda updates, kept: linear_over(-(-updates // kept["updates"]))}


class Networks(NamedTuple):
    """Parameters for acting: the Q-network and its input statistics."""

    q: Params
    inputs: Any  # Statistics, or ()


class Learner(NamedTuple):
    """State for learning: target parameters and optimiser state."""

    target: Params  # of Q'
    optimizer: Any


def next_value(slow: jax.Array, fast: jax.Array | None = None) -> jax.Array:
    """The value of s' [N]: the maximum of Q' = `slow` [N, A], or `slow` at the argmax of Q = `fast` [N, A]."""
    if fast is None:
        return jnp.max(slow, axis=-1)
    return at(slow, jnp.argmax(fast, axis=-1))


def at(values: jax.Array, action: jax.Array) -> jax.Array:
    """`values` [N, A] at `action` [N]; a masked sum, because the gradient of a gather is a scatter."""
    return jnp.sum(values * jax.nn.one_hot(action, values.shape[-1]), axis=-1)


Values = Callable[..., Any]  # params, inputs [..., F] -> Q(s, ·) [..., A]


def loss(config: Config, values: Values, q: Params, slow: Params, t: Step) -> tuple[jax.Array, jax.Array]:
    """Mean Huber loss [] and mean Q [] over a batch with standardised inputs; `slow` are the parameters of Q'."""
    fast = values(jax.lax.stop_gradient(q), t.next_inputs) if config.double else None
    y = bellman_target(config, t.reward, t.terminated, next_value(values(slow, t.next_inputs), fast))
    now = at(values(q, t.inputs), t.action)
    return jnp.mean(optax.huber_loss(now, y)), jnp.mean(now)


def update(
    config: Config,
    values: Values,
    optimizer: optax.GradientTransformation,
    params: Networks,
    learner: Learner,
    t: Step,
) -> tuple[Networks, Learner, Metrics]:
    """One gradient step on a batch with raw inputs, followed by an update of the target network."""
    inputs, t = scaled(params.inputs, t)
    of_q = lambda q: loss(config, values, q, learner.target, t)
    (error, value), gradient = jax.value_and_grad(of_q, has_aux=True)(params.q)
    step, state = optimizer.update(gradient, learner.optimizer, params.q)
    q = optax.apply_updates(params.q, step)
    learner = Learner(moved(learner.target, q, config.target_rate), state)
    return Networks(q, inputs), learner, {"loss": error, "value": value}


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """DQN on an environment with Discrete actions. Without hidden layers Q is linear in the inputs.

    Raises:
        UsageError: invalid settings, actions that are not Discrete, or hindsight without goals.
    """
    check(config, env, tasks)
    check_network(config)
    require_fraction(config, "epsilon")
    actions = require_discrete_actions(env, "DQN", instead="ddpg, td3 or sac")
    observations = env.observation_space(env.default_params)
    encode = encoder_for(observations, config.network)
    network = network_of(config, (*config.hidden, actions.n), config.activation)
    optimizer = optimizer_of(config, config.learning_rate, steps=config.updates)
    every_action = jnp.ones(actions.n, bool)

    def init_params(key: jax.Array) -> Params:
        key, key_sample = jax.random.split(key)
        inputs = encode(observations.sample(key_sample))
        return Networks(network.init(key, inputs), no_statistics(config, inputs))

    def act(params: Networks, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        q: Any = network.apply(params.q, standardised(params.inputs, encode(inp.obs)))
        return epsilon_greedy(uniforms(key, 2), q, every_action, 0.0 if greedy else config.epsilon), carry, ()

    agent = Agent(init=init_params, start=lambda params, key: (), act=act)

    def update_from(params: Networks, learner: Learner, t: Transition, key: jax.Array) -> tuple[Params, Any, Metrics]:
        step = Step(encode(t.obs), t.action, t.reward, t.terminated, encode(t.next_obs))
        return update(config, network.apply, optimizer, params, learner, step)

    def begin(params: Networks) -> Learner:
        return Learner(params.q, optimizer.init(params.q))

    return learner_from_replay(config, env, tasks, agent, begin, update_from)
