"""TD3, twin delayed deep deterministic policy gradient (Fujimoto, van Hoof & Meger, ICML 2018). With one critic, no
delay and no target noise it is DDPG (Lillicrap et al., ICLR 2016).

    y       = r + γ min_i Q'_i(s', π'(s') + clip(noise, ±c))       primes: target networks
    critics   (y − Q_i(s, a))², summed over i, averaged over the batch
    actor     −Q_1(s, π(s)), at every `policy_delay`-th update of the critics, when all target networks move too

The value of s' is 0 after a termination, but not after a truncation. Networks and noise use actions in [−1, 1], which
are then scaled to the environment's bounds.

Behaviour is π(s) plus Gaussian noise. Two additions are from the authors of hindsight experience replay (Andrychowicz
et al., 2017): a share of the actions is uniformly random, and the actor's squared outputs before the tanh are penalised
to keep it from saturating.

Departures from Lillicrap et al., all of them common: Gaussian noise instead of an Ornstein-Uhlenbeck process, one
learning rate, actions as inputs of the critics' first layer, and no weight decay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_hier.checks import UsageError, require_fraction, require_positive
from jaxrl_hier.engine.types import ActInput, Agent, Algorithm, Metrics, Params, Tasks, Transition
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
from jaxrl_hier.settings import Rate


@dataclass(frozen=True)
class Config(ReplayConfig):
    """Settings of TD3."""

    renamed: ClassVar = {
        "delay": "policy_delay",
        "smoothing": "target_noise",
        "smoothing_clip": "target_noise_clip",
        "exploration": "exploration_noise",
    }

    actor_learning_rate: Rate | None = None
    """learning rate of the actor's Adam; none: that of the critics"""
    critics: int = 2
    """number E of critics, of whose values the target takes the minimum"""
    policy_delay: int = 2
    """updates of the critics per update of the actor and the target networks"""
    target_noise: float = 0.2
    """standard deviation of the noise on target actions, in units of actions in [−1, 1]"""
    target_noise_clip: float = 0.5
    """bound c on the target noise"""
    exploration_noise: float = 0.1
    """standard deviation of the noise on the agent's actions, in units of actions in [−1, 1]"""
    random_actions: float = 0.0
    """probability of a uniformly random action, in [0, 1]"""
    action_penalty: float = 0.0
    """weight of the actor's squared outputs before the tanh in its loss, at least 0"""


class Networks(NamedTuple):
    """Parameters: networks and input statistics."""

    actor: Params
    critics: Params  # leading axis [E]
    inputs: Any  # Statistics, or ()


class Learner(NamedTuple):
    """State for learning: target parameters and optimiser states."""

    target_actor: Params
    target_critics: Params
    actor_optimizer: Any
    critic_optimizer: Any
    waited: jax.Array  # [] int32, updates of the critics since the last update of the actor


def smoothed(action: jax.Array, noise: jax.Array, bound: Any) -> jax.Array:
    """Target actions [N, D] with noise clipped to ±`bound`, clipped to [−1, 1]."""
    return jnp.clip(action + jnp.clip(noise, -bound, bound), -1.0, 1.0)


def critic_loss(q: jax.Array, target: jax.Array) -> jax.Array:
    """Σ_i mean (y − Q_i)², for values [E, N] and targets [N]."""
    return jnp.sum(jnp.mean((target - q) ** 2, axis=1))


class Model(NamedTuple):
    """The networks as functions; inputs [..., F], actions [..., D] in [−1, 1]."""

    actor: Callable[..., Any]  # params, inputs -> outputs before the tanh, [..., D]
    critics: Callable[[Params, jax.Array, jax.Array], jax.Array]  # params [E], inputs, actions -> [E, ...]


class Optimizers(NamedTuple):
    """The optimisers of the networks."""

    actor: optax.GradientTransformation
    critics: optax.GradientTransformation


def target(config: Config, model: Model, learner: Learner, t: Step, key: jax.Array) -> jax.Array:
    """The target y [N], for steps with standardised inputs."""
    noise = config.target_noise * jax.random.normal(key, t.action.shape)
    action = jnp.tanh(model.actor(learner.target_actor, t.next_inputs))
    following = smoothed(action, noise, config.target_noise_clip)
    values = model.critics(learner.target_critics, t.next_inputs, following)
    return bellman_target(config, t.reward, t.terminated, jnp.min(values, axis=0))


def actor_loss(config: Config, model: Model, actor: Params, critics: Params, inputs: jax.Array) -> jax.Array:
    """−mean Q_1(s, π(s)) plus the penalty on outputs before the tanh, for standardised inputs [N, F]."""
    first = jax.tree.map(lambda x: x[:1], critics)
    outputs = model.actor(actor, inputs)
    q = model.critics(first, inputs, jnp.tanh(outputs))
    return -jnp.mean(q) + config.action_penalty * jnp.mean(outputs**2)


def update(
    config: Config,
    model: Model,
    optimizers: Optimizers,
    params: Networks,
    learner: Learner,
    t: Step,
    key: jax.Array,
) -> tuple[Networks, Learner, Metrics]:
    """One gradient step of the critics on a batch with raw inputs; every `policy_delay`-th also updates the actor."""
    inputs, t = scaled(params.inputs, t)
    y = target(config, model, learner, t, key)

    def loss(critics: Params) -> tuple[jax.Array, jax.Array]:
        q = model.critics(critics, t.inputs, t.action)
        return critic_loss(q, y), jnp.mean(q)

    (error, value), gradient = jax.value_and_grad(loss, has_aux=True)(params.critics)
    step, state = optimizers.critics.update(gradient, learner.critic_optimizer, params.critics)
    params = Networks(params.actor, optax.apply_updates(params.critics, step), inputs)
    learner = learner._replace(critic_optimizer=state)

    def improve(carry: tuple[Networks, Learner]) -> tuple[Networks, Learner]:
        return improved(config, model, optimizers.actor, *carry, t.inputs)

    if config.policy_delay == 1:
        params, learner = improve((params, learner))
    else:
        waited = (learner.waited + 1) % config.policy_delay
        learner = learner._replace(waited=waited)
        params, learner = jax.lax.cond(waited == 0, improve, lambda carry: carry, (params, learner))
    return params, learner, {"critic_loss": error, "value": value}


def improved(
    config: Config,
    model: Model,
    optimizer: optax.GradientTransformation,
    params: Networks,
    learner: Learner,
    inputs: jax.Array,
) -> tuple[Networks, Learner]:
    """One gradient step of the actor on standardised inputs [N, F], followed by an update of all target networks."""
    loss = lambda actor: actor_loss(config, model, actor, params.critics, inputs)
    step, state = optimizer.update(jax.grad(loss)(params.actor), learner.actor_optimizer, params.actor)
    params = params._replace(actor=optax.apply_updates(params.actor, step))
    return params, learner._replace(
        target_actor=moved(learner.target_actor, params.actor, config.target_rate),
        target_critics=moved(learner.target_critics, params.critics, config.target_rate),
        actor_optimizer=state,
    )


class ActorCritic(NamedTuple):
    """TD3 as functions of network inputs and actions in [−1, 1], from `actor_critic`."""

    init: Callable[[Sequence[jax.Array], jax.Array], Networks]  # two keys, inputs [F] -> params
    begin: Callable[[Networks], Learner]  # params -> initial learner state
    policy: Callable[[Networks, jax.Array], jax.Array]  # params, inputs [..., F] -> π(s) [..., D]
    explore: Callable[[jax.Array, jax.Array], jax.Array]  # π(s) [D], key -> action with exploration noise
    update: Callable[[Networks, Learner, Step, jax.Array], tuple[Networks, Learner, Metrics]]


def actor_critic(config: Config, actions: int) -> ActorCritic:
    """TD3's networks, behaviour and update, for D = `actions`."""
    actor, critic = MLP((*config.hidden, actions), config.activation), MLP((*config.hidden, 1), config.activation)
    model = Model(actor.apply, ensemble(critic))
    rate = config.learning_rate if config.actor_learning_rate is None else config.actor_learning_rate
    optimizers = Optimizers(
        actor=optimizer_of(config, rate, steps=config.updates, every=config.policy_delay),
        critics=optimizer_of(config, config.learning_rate, steps=config.updates),
    )

    def init(keys: Sequence[jax.Array], inputs: jax.Array) -> Networks:
        critics = ensemble_init(critic, keys[1], config.critics, jnp.append(inputs, jnp.zeros(actions)))
        return Networks(actor.init(keys[0], inputs), critics, no_statistics(config, inputs))

    def begin(params: Networks) -> Learner:
        states = optimizers.actor.init(params.actor), optimizers.critics.init(params.critics)
        return Learner(params.actor, params.critics, *states, jnp.zeros((), jnp.int32))

    def policy(params: Networks, inputs: jax.Array) -> jax.Array:
        return jnp.tanh(model.actor(params.actor, standardised(params.inputs, inputs)))

    def explore(unit: jax.Array, key: jax.Array) -> jax.Array:
        key_noise, key_uniform, key_which = jax.random.split(key, 3)
        noisy = jnp.clip(unit + config.exploration_noise * jax.random.normal(key_noise, unit.shape), -1.0, 1.0)
        uniform = jax.random.uniform(key_uniform, unit.shape, minval=-1.0)
        return jnp.where(jax.random.uniform(key_which) < config.random_actions, uniform, noisy)

    return ActorCritic(init, begin, policy, explore, partial(update, config, model, optimizers))


def check_actor_critic(config: Config) -> None:
    """Raises UsageError for invalid settings of actor and critics."""
    require_positive(config, "actor_learning_rate", "critics", "policy_delay")
    require_positive(config, "target_noise", "target_noise_clip", "exploration_noise", "action_penalty", or_zero=True)
    require_fraction(config, "random_actions")
    if not config.hidden:
        raise UsageError("hidden needs at least one layer, got none")


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """TD3 on an environment with a flat, bounded Box of actions.

    Raises:
        UsageError: invalid settings, other actions, or hindsight without goals.
    """
    check(config, env, tasks)
    check_actor_critic(config)
    to_action, to_unit = action_scaling(env, "TD3", instead="dqn")
    require_bounds_of_all_tasks(env, tasks, "TD3")
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

    def update_from(params: Networks, state: Learner, t: Transition, key: jax.Array) -> tuple[Params, Any, Metrics]:
        step = Step(encode(t.obs), to_unit(t.action), t.reward, t.terminated, encode(t.next_obs))
        return learner.update(params, state, step, key)

    return learner_from_replay(config, env, tasks, agent, learner.begin, update_from)
