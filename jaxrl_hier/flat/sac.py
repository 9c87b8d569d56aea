"""Soft actor-critic (Haarnoja et al., ICML 2018; with learned temperature arXiv 1812.05905, 2018).

    y            = r + γ [min_i Q'_i(s', a') − α log π(a' | s')],  a' ~ π(· | s')       Q' target networks
    critics        ½ (y − Q_i(s, a))², summed over i, averaged over the batch
    actor          α log π(a | s) − min_i Q_i(s, a),  a = tanh(μ(s) + σ(s) ε)
    temperature    −log α [log π(a | s) + H],  H: `target_entropy`, by default −D

The value of s' is 0 after a termination, but not after a truncation. Networks and entropy use actions in [−1, 1],
which are then scaled to the environment's bounds. The greedy action is tanh(μ(s)).

Departure from the paper: the temperature's loss is in log α, as in the authors' code; the paper's is in α. All three
losses share one learning rate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_hier.checks import UsageError, require_positive
from jaxrl_hier.engine.types import ActInput, Agent, Algorithm, Metrics, Params, Tasks, Transition
from jaxrl_hier.learning.distributions import DiagonalGaussian
from jaxrl_hier.learning.networks import MLP, encoder_for
from jaxrl_hier.learning.normalization import standardised
from jaxrl_hier.learning.off_policy import (
    ReplayConfig,
    Step,
    action_scaling,
    bellman_target,
    check,
    ensemble,
    ensemble_init,
    learner_from_replay,
    moved,
    no_statistics,
    require_bounds_of_all_tasks,
    scaled,
)
from jaxrl_hier.learning.optimization import optimizer_of


@dataclass(frozen=True)
class Config(ReplayConfig):
    """Settings of SAC."""

    temperature: float = 1.0
    """initial temperature α, above 0"""
    learn_temperature: bool = True
    """adjust α towards the target entropy; otherwise α is constant"""
    target_entropy: float | None = None
    """target entropy H, in nats; none: minus the number of action dimensions"""


class Networks(NamedTuple):
    """Parameters: networks, temperature and input statistics."""

    actor: Params
    critics: Params  # leading axis [2]
    log_alpha: jax.Array  # []
    inputs: Any  # Statistics, or ()


class Learner(NamedTuple):
    """State for learning: target parameters and optimiser state."""

    target_critics: Params
    optimizer: Any  # of (actor, critics, log_alpha)


def policy_of(outputs: jax.Array) -> DiagonalGaussian:
    """The Gaussian before the tanh, from an actor's outputs [..., 2 D]; standard deviations from e⁻⁵ to e²."""
    mean, log_std = jnp.split(outputs, 2, axis=-1)
    return DiagonalGaussian(mean, jnp.clip(log_std, -5.0, 2.0))


def squashed_sample(policy: DiagonalGaussian, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """a = tanh(u) [..., D], u ~ `policy`, and log π(a) = log N(u) − Σ log(1 − tanh(u)²) [...]."""
    u = policy.sample(key)
    slope = 2.0 * (jnp.log(2.0) - u - jax.nn.softplus(-2.0 * u))  # log(1 − tanh(u)²), also where that rounds to 0
    return jnp.tanh(u), policy.log_prob(u) - jnp.sum(slope, axis=-1)


def soft_value(q: jax.Array, log_prob: jax.Array, alpha: Any) -> jax.Array:
    """min_i Q_i − α log π [N], for values [E, N]."""
    return jnp.min(q, axis=0) - alpha * log_prob


def critic_loss(q: jax.Array, target: jax.Array) -> jax.Array:
    """Σ_i mean ½ (y − Q_i)², for values [E, N] and targets [N]."""
    return 0.5 * jnp.sum(jnp.mean((target - q) ** 2, axis=1))


class Model(NamedTuple):
    """The networks as functions; inputs [..., F], actions [..., D] in [−1, 1]."""

    policy: Callable[[Params, jax.Array], DiagonalGaussian]  # params, inputs -> before the tanh, [..., D]
    critics: Callable[[Params, jax.Array, jax.Array], jax.Array]  # params [2], inputs, actions -> [2, ...]


def target_entropy(config: Config, actions: int) -> float:
    """H, for D = `actions`."""
    return -actions if config.target_entropy is None else config.target_entropy


def losses(
    config: Config, model: Model, params: Networks, target_critics: Params, t: Step, target: float, key: jax.Array
) -> tuple[dict[str, jax.Array], Metrics]:
    """Loss terms to sum and minimise; each has a gradient only for the parameters that it is named after.

    Args:
        t: steps with standardised inputs. target: H, of the entropy.
    """
    key_now, key_then = jax.random.split(key)
    stop = jax.lax.stop_gradient
    alpha = stop(jnp.exp(params.log_alpha))

    following, log_prob = squashed_sample(model.policy(stop(params.actor), t.next_inputs), key_then)
    soft = soft_value(model.critics(target_critics, t.next_inputs, following), log_prob, alpha)
    y = bellman_target(config, t.reward, t.terminated, soft)
    q = model.critics(params.critics, t.inputs, t.action)

    action, log_prob = squashed_sample(model.policy(params.actor, t.inputs), key_now)
    value = soft_value(model.critics(stop(params.critics), t.inputs, action), log_prob, alpha)
    terms = {"critics": critic_loss(q, y), "actor": -jnp.mean(value)}
    if config.learn_temperature:
        terms["temperature"] = -params.log_alpha * stop(jnp.mean(log_prob) + target)
    metrics = {"critic_loss": terms["critics"], "entropy": -jnp.mean(log_prob), "value": jnp.mean(q)}
    return terms, metrics | {"temperature": alpha}


def update(
    config: Config,
    model: Model,
    optimizer: optax.GradientTransformation,
    params: Networks,
    learner: Learner,
    t: Step,
    target: float,
    key: jax.Array,
) -> tuple[Networks, Learner, Metrics]:
    """One joint gradient step of all networks, followed by an update of the target critics.

    Args:
        t: steps with raw inputs. target: H, of the entropy.
    """
    inputs, t = scaled(params.inputs, t)

    def loss(learned: tuple[Params, Params, jax.Array]) -> tuple[jax.Array, Metrics]:
        actor, critics, log_alpha = learned
        networks = Networks(actor, critics, log_alpha, inputs)
        terms, metrics = losses(config, model, networks, learner.target_critics, t, target, key)
        return sum(terms.values(), jnp.zeros(())), metrics

    learned = (params.actor, params.critics, params.log_alpha)
    gradient, metrics = jax.grad(loss, has_aux=True)(learned)
    step, state = optimizer.update(gradient, learner.optimizer, learned)
    actor, critics, log_alpha = optax.apply_updates(learned, step)
    params = Networks(actor, critics, log_alpha, inputs)
    return params, Learner(moved(learner.target_critics, params.critics, config.target_rate), state), metrics


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """SAC on an environment with a flat, bounded Box of actions.

    Raises:
        UsageError: invalid settings, other actions, or hindsight without goals.
    """
    check(config, env, tasks)
    require_positive(config, "temperature")
    if config.reward_range is not None:
        raise UsageError("SAC's values include entropy, which reward_range does not bound; leave reward_range unset")
    if not config.hidden:
        raise UsageError("hidden needs at least one layer, got none")
    to_action, to_unit = action_scaling(env, "SAC", instead="dqn")
    require_bounds_of_all_tasks(env, tasks, "SAC")
    observations = env.observation_space(env.default_params)
    size = env.action_space(env.default_params).shape[0]
    target = target_entropy(config, size)
    encode = encoder_for(observations)
    actor, critic = MLP((*config.hidden, 2 * size), config.activation), MLP((*config.hidden, 1), config.activation)
    optimizer = optimizer_of(config, config.learning_rate, steps=config.updates)

    def init_params(key: jax.Array) -> Params:
        key_sample, key_actor, key_critics = jax.random.split(key, 3)
        inputs = encode(observations.sample(key_sample))
        critics = ensemble_init(critic, key_critics, 2, jnp.append(inputs, jnp.zeros(size)))
        log_alpha = jnp.log(jnp.asarray(config.temperature, jnp.float32))
        return Networks(actor.init(key_actor, inputs), critics, log_alpha, no_statistics(config, inputs))

    def policy(params: Params, inputs: jax.Array) -> DiagonalGaussian:
        outputs: Any = actor.apply(params, inputs)
        return policy_of(outputs)

    model = Model(policy, ensemble(critic))

    def act(params: Networks, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        gaussian = policy(params.actor, standardised(params.inputs, encode(inp.obs)))
        return to_action(jnp.tanh(gaussian.mode() if greedy else gaussian.sample(key))), carry, ()

    agent = Agent(init=init_params, start=lambda params, key: (), act=act)

    def update_from(params: Networks, learner: Learner, t: Transition, key: jax.Array) -> tuple[Params, Any, Metrics]:
        step = Step(encode(t.obs), to_unit(t.action), t.reward, t.terminated, encode(t.next_obs))
        return update(config, model, optimizer, params, learner, step, target, key)

    def begin(params: Networks) -> Learner:
        return Learner(params.critics, optimizer.init((params.actor, params.critics, params.log_alpha)))

    return learner_from_replay(config, env, tasks, agent, begin, update_from)
