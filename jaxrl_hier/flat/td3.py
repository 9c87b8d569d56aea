"""TD3, twin delayed deep deterministic policy gradient (Fujimoto, van Hoof & Meger, ICML 2018), and without its three
additions the DDPG that it improves (Lillicrap et al., ICLR 2016): one critic, no delay, no smoothing.

    y       = r + γ min_i Q'_i(s', π'(s') + clip(noise, ±c))       primes: slow copies
    critics   (y − Q_i(s, a))², summed over i, averaged over the batch
    actor     −Q_1(s, π(s)), with every `delay`-th update of the critics; then all slow copies move

V(s') counts for nothing where the task ended in s'; a time limit does not end it. Actions are in [−1, 1] for the
networks and scaled to the environment's bounds; noises are in units of that.

Behaviour is π(s) plus Gaussian noise. Two additions are those of hindsight experience replay's authors (Andrychowicz et
al., 2017): a part of the actions is drawn uniformly, and the actor pays for the squares of what its tanh is applied to,
which otherwise saturates.

Departures from Lillicrap et al., all of them usual: Gaussian noise instead of an Ornstein-Uhlenbeck process, one
learning rate, actions that enter the critics' first layer, and no weight decay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_hier.checks import UsageError, require_fraction, require_positive
from jaxrl_hier.engine.types import ActInput, Agent, Algorithm, Metrics, Params, Tasks, Transition
from jaxrl_hier.flat.off_policy import (
    ReplayConfig,
    action_scaling,
    bellman_target,
    check,
    ensemble,
    ensemble_init,
    learner_from_replay,
    moved,
    no_statistics,
    observed,
    standardised,
)
from jaxrl_hier.networks import MLP, encoder_for


@dataclass(frozen=True)
class Config(ReplayConfig):
    """Settings of TD3."""

    actor_learning_rate: float | None = None
    """of the actor's Adam; none: that of the critics"""
    critics: int = 2
    """E, whose least value is believed"""
    delay: int = 2
    """updates of the critics for one of the actor and of the slow copies"""
    smoothing: float = 0.2
    """standard deviation of the noise on the target's action"""
    smoothing_clip: float = 0.5
    """c, bound on that noise"""
    exploration: float = 0.1
    """standard deviation of the noise on the agent's actions"""
    random_actions: float = 0.0
    """probability of a uniform action"""
    action_penalty: float = 0.0
    """weight of the actor's squared outputs before the tanh"""


class Networks(NamedTuple):
    """What TD3 learns and what it knows of its inputs."""

    actor: Params
    critics: Params  # leading axis [E]
    inputs: Any  # Statistics, or ()


class Learner(NamedTuple):
    """What comes beside it."""

    target_actor: Params
    target_critics: Params
    actor_optimizer: Any
    critic_optimizer: Any
    waited: jax.Array  # [] int32, updates of the critics since the actor's last


def smoothed(action: jax.Array, noise: jax.Array, bound: Any) -> jax.Array:
    """The target's action [N, D] in [−1, 1], with clipped noise."""
    return jnp.clip(action + jnp.clip(noise, -bound, bound), -1.0, 1.0)


def critic_loss(q: jax.Array, target: jax.Array) -> jax.Array:
    """Σ_i mean (y − Q_i)², of values [E, N] and targets [N]."""
    return jnp.sum(jnp.mean((target - q) ** 2, axis=1))


class Step(NamedTuple):
    """What an update learns from; F inputs of the networks, as they come."""

    inputs: jax.Array  # [N, F]
    action: jax.Array  # [N, D] in [−1, 1]
    reward: jax.Array  # [N]
    terminated: jax.Array  # [N] bool
    next_inputs: jax.Array  # [N, F]


class ActorCritic(NamedTuple):
    """TD3 as functions of inputs and of actions in [−1, 1], of `actor_critic`."""

    init: Callable[[Sequence[jax.Array], jax.Array], Networks]  # two keys, inputs [F] -> params
    begin: Callable[[Networks], Learner]  # params -> learner before its first update
    policy: Callable[[Networks, jax.Array], jax.Array]  # params, inputs [..., F] -> π(s) [..., D]
    explore: Callable[[jax.Array, jax.Array], jax.Array]  # π(s) [D], key -> the same with noise
    update: Callable[[Networks, Learner, Step, jax.Array], tuple[Networks, Learner, Metrics]]


def actor_critic(config: Config, actions: int) -> ActorCritic:
    """TD3's networks, behaviour and update, for D = `actions`."""
    actor, critic = MLP((*config.hidden, actions), config.activation), MLP((*config.hidden, 1), config.activation)
    rate = config.learning_rate if config.actor_learning_rate is None else config.actor_learning_rate
    optimizer, actor_optimizer = optax.adam(config.learning_rate), optax.adam(rate)
    values = ensemble(critic)

    def init(keys: Sequence[jax.Array], inputs: jax.Array) -> Networks:
        critics = ensemble_init(critic, keys[1], config.critics, jnp.append(inputs, jnp.zeros(actions)))
        return Networks(actor.init(keys[0], inputs), critics, no_statistics(config, inputs))

    def begin(params: Networks) -> Learner:
        optimizers = actor_optimizer.init(params.actor), optimizer.init(params.critics)
        return Learner(params.actor, params.critics, *optimizers, jnp.zeros((), jnp.int32))

    def policy_of(weights: Params, inputs: jax.Array) -> jax.Array:
        outputs: Any = actor.apply(weights, inputs)
        return jnp.tanh(outputs)

    def policy(params: Networks, inputs: jax.Array) -> jax.Array:
        return policy_of(params.actor, standardised(params.inputs, inputs))

    def explore(unit: jax.Array, key: jax.Array) -> jax.Array:
        key_noise, key_uniform, key_which = jax.random.split(key, 3)
        noisy = jnp.clip(unit + config.exploration * jax.random.normal(key_noise, unit.shape), -1.0, 1.0)
        uniform = jax.random.uniform(key_uniform, unit.shape, minval=-1.0)
        return jnp.where(jax.random.uniform(key_which) < config.random_actions, uniform, noisy)

    def update(params: Networks, learner: Learner, t: Step, key: jax.Array) -> tuple[Networks, Learner, Metrics]:
        inputs = observed(params.inputs, t.inputs)
        now, then = standardised(inputs, t.inputs), standardised(inputs, t.next_inputs)
        noise = config.smoothing * jax.random.normal(key, t.action.shape)
        following = smoothed(policy_of(learner.target_actor, then), noise, config.smoothing_clip)
        y = bellman_target(
            config, t.reward, t.terminated, jnp.min(values(learner.target_critics, then, following), axis=0)
        )

        def loss(critics: Params) -> tuple[jax.Array, jax.Array]:
            q = values(critics, now, t.action)
            return critic_loss(q, y), jnp.mean(q)

        (error, value), gradient = jax.value_and_grad(loss, has_aux=True)(params.critics)
        step, critic_state = optimizer.update(gradient, learner.critic_optimizer)
        critics = optax.apply_updates(params.critics, step)
        learner = learner._replace(critic_optimizer=critic_state)

        def improve(carry: tuple[Networks, Learner]) -> tuple[Networks, Learner]:
            params, learner = carry
            first = jax.tree.map(lambda x: x[:1], params.critics)

            def loss(weights: Params) -> jax.Array:
                outputs: Any = actor.apply(weights, now)
                q = values(first, now, jnp.tanh(outputs))
                return -jnp.mean(q) + config.action_penalty * jnp.mean(outputs**2)

            step, actor_state = actor_optimizer.update(jax.grad(loss)(params.actor), learner.actor_optimizer)
            params = params._replace(actor=optax.apply_updates(params.actor, step))
            return params, learner._replace(
                target_actor=moved(learner.target_actor, params.actor, config.target_rate),
                target_critics=moved(learner.target_critics, params.critics, config.target_rate),
                actor_optimizer=actor_state,
            )

        params = Networks(params.actor, critics, inputs)
        if config.delay == 1:
            params, learner = improve((params, learner))
        else:
            waited = (learner.waited + 1) % config.delay
            learner = learner._replace(waited=waited)
            params, learner = jax.lax.cond(waited == 0, improve, lambda carry: carry, (params, learner))
        return params, learner, {"critic_loss": error, "value": value}

    return ActorCritic(init, begin, policy, explore, update)


def check_actor_critic(config: Config) -> None:
    """Raises UsageError for settings that no actor and critics can have."""
    require_positive(config, "actor_learning_rate", "critics", "delay")
    require_positive(config, "smoothing", "smoothing_clip", "exploration", "action_penalty", or_zero=True)
    require_fraction(config, "random_actions")
    if not config.hidden:
        raise UsageError("hidden needs at least one layer, got none")


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """TD3 on an environment with a flat, bounded Box of actions.

    Raises:
        UsageError: a setting that cannot work, other actions, or hindsight without goals.
    """
    check(config, tasks)
    check_actor_critic(config)
    to_action, to_unit = action_scaling(env, "TD3")
    observations = env.observation_space(env.default_params)
    encode = encoder_for(observations)
    learner = actor_critic(config, env.action_space(env.default_params).shape[0])

    def init_params(key: jax.Array) -> Networks:
        key_sample, *keys = jax.random.split(key, 3)
        return learner.init(keys, encode(observations.sample(key_sample)))

    def act(params: Networks, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        unit = learner.policy(params, encode(inp.obs))
        return to_action(unit if greedy else learner.explore(unit, key)), carry, ()

    agent = Agent(init=init_params, start=lambda params, key: (), act=act)

    def update(params: Networks, state: Learner, t: Transition, key: jax.Array) -> tuple[Params, Any, Metrics]:
        step = Step(encode(t.obs), to_unit(t.action), t.reward, t.terminated, encode(t.next_obs))
        return learner.update(params, state, step, key)

    return learner_from_replay(config, env, tasks, agent, learner.begin, update)
