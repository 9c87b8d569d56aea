"""Policy gradients: REINFORCE (Williams, 1992), A2C, the synchronous form of A3C (Mnih et al., 2016), TRPO (Schulman et
al., 2015) and PPO (Schulman et al., 2017).

B environments act side by side for T steps. The learner estimates the advantages of these T · B steps, improves policy
and value with them, and discards them.

    δ_t = r_t + γ V(s_{t+1}) − V(s_t)            V(s_{t+1}) is 0 after a termination, but not after a truncation
    A_t = δ_t + γ λ A_{t+1}                      GAE (Schulman et al., 2016); ends with the episode and the rollout

    value         ½ (G_t − V(s_t))²              with the λ-return G_t = A_t + V_old(s_t)
    policy, a2c   −log π(a_t | s_t) A_t
    policy, trpo  −ρ_t A_t,   ρ_t = π(a_t | s_t) / π_old(a_t | s_t),   subject to mean KL(π_old(s_t) ‖ π(s_t)) ≤ δ
    policy, ppo   −min(ρ_t A_t, clip(ρ_t, 1 − ε, 1 + ε) A_t)

All losses are means over steps; advantages and λ-returns are constants for their gradients. a2c takes one gradient step
on the sum of both losses less an entropy bonus, ppo one on each minibatch of several epochs. trpo takes one natural
gradient step with a line search on the policy (`learning.trust_region`), and fits the value in epochs of minibatches.
trpo and ppo standardise the advantages over the rollout.

REINFORCE with a baseline is a2c with λ = 1 and rollouts as long as an episode: A_t = Σ_k γ^k r_{t+k} − V(s_t). Where
the rollout or a time limit cuts an episode, V of the state reached stands for the rest of the return.

Policy and value are separate networks. The policy of continuous actions is a Gaussian whose standard deviation does not
depend on the state; the environment gets the nearest action in its space, and the learner sees the action drawn.

Departures: no asynchronous workers, Adam instead of RMSProp, and the entropy bonus is off (A3C); weights of steps are
not discounted by γ^t (usual); the value's loss is not clipped, and all steps on one rollout have one learning rate
(released code of PPO); minibatches are stratified, see `learning.minibatches`; the value is fitted by Adam instead of
conjugate gradients or L-BFGS (TRPO, GAE).

Axes in shapes: B environments side by side, T steps of a rollout, N steps of a minibatch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxrl_hier.checks import require_choice, require_fraction, require_positive, require_sizes
from jaxrl_hier.engine.evaluation import play, present
from jaxrl_hier.engine.loops import Update, begin_learning, learning_from_rollouts, online
from jaxrl_hier.engine.rollout import require_time_limit
from jaxrl_hier.engine.types import (
    ActInput,
    Agent,
    Algorithm,
    Metrics,
    NamedArray,
    Params,
    Tasks,
    TrainState,
    Transition,
    World,
)
from jaxrl_hier.learning.advantages import bootstrapped_advantage, standardize
from jaxrl_hier.learning.minibatches import descent, in_minibatches, whole_minibatches
from jaxrl_hier.learning.networks import (
    ACTIVATIONS,
    MLP,
    GridEncoder,
    NetworkConfig,
    check_network,
    encoder_for,
    policy_for,
)
from jaxrl_hier.learning.normalization import Statistics, learned, normalizing, scaled_rewards
from jaxrl_hier.learning.optimization import OptimizerConfig, apart, check_optimizer, clipped, schedule
from jaxrl_hier.learning.policy_losses import clipped_policy_loss
from jaxrl_hier.learning.trust_region import trust_region_step
from jaxrl_hier.relations import Relation, require
from jaxrl_hier.settings import Factor, Rate


@dataclass(frozen=True)
class Config(OptimizerConfig, NetworkConfig):
    """Settings of REINFORCE, A2C, TRPO and PPO. The defaults are PPO's."""

    learner: Literal["a2c", "trpo", "ppo"] = "ppo"
    """the policy's loss and how it is minimised"""
    environments: int = 32
    """environments side by side"""
    rollout_length: int = 64
    """steps of each environment per iteration (T)"""
    discount: float = 0.99
    """discount factor (γ), in [0, 1]"""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation, in [0, 1]"""
    epochs: int = 4
    """ppo, trpo: passes over each rollout; of trpo for the value alone"""
    minibatch_size: int = 512
    """ppo, trpo: steps per gradient step"""
    clip: float = 0.2
    """ppo: how far a probability ratio may move from 1 before it is clipped (ε)"""
    max_kl: float = 0.01
    """trpo: bound on the mean KL divergence of an update (δ)"""
    cg_iterations: Factor = 10
    """trpo: iterations of conjugate gradients"""
    cg_damping: float = 0.1
    """trpo: multiple of the identity that is added to the Fisher matrix, at least 0"""
    learning_rate: Rate = 1e-3
    """learning rate of Adam; of trpo for the value alone"""
    max_grad_norm: float | None = 0.5
    """bound on the norm of each network's gradient; none: no bound"""
    entropy_weight: float = 0.0
    """weight of the entropy bonus in the policy's loss, at least 0"""
    hidden: tuple[int, ...] = (64, 64)
    """sizes of the hidden layers of each network"""
    activation: Literal["relu", "tanh", "silu"] = "tanh"
    """activation of the hidden layers"""
    normalize_observations: bool = False
    """standardise observations by their running mean and standard deviation (at least 0.01), and clip them to ±5"""
    normalize_rewards: bool = False
    """learn from rewards divided by the running standard deviation of the discounted return, and clipped to ±10"""
    eval_episodes: int = 100
    """episodes per evaluation"""

    on_host: ClassVar[bool] = True

    @staticmethod
    def relations(env: Any, tasks: Tasks) -> list[Relation]:
        return [whole_minibatches(lambda s: s.learner != "a2c")]


class ActorCritic(NamedTuple):
    """The parameters of both networks."""

    policy: Params
    value: Params


class Learner(NamedTuple):
    """State for learning."""

    optimizer: Any  # of both networks; trpo: of the value's
    iteration: jax.Array  # [] int32
    rewards: Any  # Statistics of the discounted return; () without `normalize_rewards`


class Batch(NamedTuple):
    """Steps to learn from."""

    obs: Any  # [T, B, ...]
    action: jax.Array  # [T, B, ...]
    log_prob: jax.Array  # [T, B] of the policy that acted
    advantage: jax.Array  # [T, B]
    target: jax.Array  # [T, B] for the value


# The networks and the agent


class Networks(NamedTuple):
    """Both networks as functions of their own parameters, for observations with any leading axes."""

    init: Callable[[jax.Array], ActorCritic]  # key -> params
    policy: Callable[[Params, Any], Any]  # params, observations [...] -> distributions of actions [...]
    value: Callable[[Params, Any], jax.Array]  # params, observations [...] -> [...]


def networks(config: Config, env: Any) -> Networks:
    """The networks for the observations and actions of an environment."""
    return networks_for(config, env.observation_space(env.default_params), env.action_space(env.default_params))


def networks_for(config: Any, observations: Any, actions: Any) -> Networks:
    """The networks for these spaces of observations and actions.

    Args:
        config: settings that have `network`, `channels`, `hidden` and `activation`.
    """
    encode = encoder_for(observations, config.network)
    policy: Any = policy_for(actions, config.hidden, config.activation)
    value: Any = MLP((*config.hidden, 1), config.activation)
    if config.network == "cnn":
        policy, value = (nn.Sequential([GridEncoder(config.channels), head]) for head in (policy, value))

    def init(key: jax.Array) -> ActorCritic:
        key_obs, key_policy, key_value = jax.random.split(key, 3)
        inputs = encode(observations.sample(key_obs))
        return ActorCritic(policy.init(key_policy, inputs), value.init(key_value, inputs))

    return Networks(
        init,
        policy=lambda params, obs: policy.apply(params, encode(obs)),
        value=lambda params, obs: value.apply(params, encode(obs))[..., 0],
    )


def act(
    config: Config, net: Networks, params: ActorCritic, so_far: Any, inp: ActInput, key: jax.Array, greedy: bool
) -> tuple[Any, Any, Any]:
    """An action. Carry and extras: the discounted return [] of the episode so far; () without `normalize_rewards`."""
    policy = net.policy(params.policy, inp.obs)
    action = policy.mode() if greedy else policy.sample(key)
    if config.normalize_rewards:
        so_far = config.discount * so_far + inp.prev_reward
    return action, so_far, so_far


# Losses


def batch_of(config: Config, net: Networks, params: ActorCritic, t: Transition) -> Batch:
    """What the losses need of a rollout [T, B, ...] that `params` acted in."""
    value, after = net.value(params.value, t.obs), net.value(params.value, t.next_obs)
    advantage = bootstrapped_advantage(
        t.reward, value, after, t.terminated, t.truncated, config.discount, config.gae_lambda
    )
    target = advantage + value
    if config.learner != "a2c":
        advantage = standardize(advantage, jnp.ones_like(advantage))
    log_prob = net.policy(params.policy, t.obs).log_prob(t.action)
    return Batch(t.obs, t.action, log_prob, advantage, target)


def policy_loss(config: Config, policy: Any, batch: Batch) -> jax.Array:
    """The policy's loss [] with the entropy bonus; `policy` are its distributions of actions in the batch."""
    log_prob = policy.log_prob(batch.action)
    if config.learner == "a2c":
        per_step = -log_prob * batch.advantage
    elif config.learner == "trpo":
        per_step = -jnp.exp(log_prob - batch.log_prob) * batch.advantage
    else:
        per_step = clipped_policy_loss(log_prob, batch.log_prob, batch.advantage, config.clip)
    return jnp.mean(per_step) - config.entropy_weight * jnp.mean(policy.entropy())


def value_loss(net: Networks, params: Params, batch: Batch) -> jax.Array:
    """The value's loss []."""
    return jnp.mean(0.5 * (batch.target - net.value(params, batch.obs)) ** 2)


def loss(config: Config, net: Networks, params: ActorCritic, batch: Batch) -> tuple[jax.Array, Metrics]:
    """The loss [] of both networks on a batch, and its terms as metrics."""
    policy = net.policy(params.policy, batch.obs)
    error = value_loss(net, params.value, batch)
    total = policy_loss(config, policy, batch) + error
    kl = jnp.mean(batch.log_prob - policy.log_prob(batch.action))  # an estimate of KL(π_old ‖ π)
    return total, {"value_loss": error, "policy_entropy": jnp.mean(policy.entropy()), "kl": kl}


# Updates


def trust_region_update(config: Config, net: Networks, params: Params, batch: Batch) -> tuple[Params, Metrics]:
    """The policy's parameters after TRPO's step."""
    new, info = trust_region_step(
        params,
        predict=lambda params: net.policy(params, batch.obs),
        loss=lambda old, new: policy_loss(config, new, batch),
        divergence=lambda old, new: jnp.mean(old.kl(new)),
        max_divergence=config.max_kl,
        cg_iterations=config.cg_iterations,
        damping=config.cg_damping,
    )
    entropy = jnp.mean(net.policy(params, batch.obs).entropy())
    return new, {"policy_entropy": entropy, "kl": info.divergence, "accepted": info.accepted.astype(jnp.float32)}


def update(
    config: Config,
    net: Networks,
    optimizer: optax.GradientTransformation,
    share: optax.Schedule,
    params: ActorCritic,
    learner: Learner,
    before: World,
    t: Transition,
    key: jax.Array,
) -> tuple[ActorCritic, Learner, Metrics]:
    """The `update` of the online loop: learn from the rollout t [T, B, ...].

    Args:
        optimizer: with a constant learning rate.
        share: iterations so far -> factor on the learning rate.
    """
    rewards, rate = learner.rewards, share(learner.iteration)
    if config.normalize_rewards:
        rewards, reward = scaled_rewards(rewards, t.reward, config.discount * t.extras + t.reward)
        t = t._replace(reward=reward)
    batch = batch_of(config, net, params, t)
    learn = partial(in_minibatches, key=key, epochs=config.epochs, size=config.minibatch_size)
    if config.learner == "trpo":
        policy, metrics = trust_region_update(config, net, params.policy, batch)
        of_value = lambda params, batch: (error := value_loss(net, params, batch), {"value_loss": error})
        step, state = descent(of_value, optimizer, rate), (params.value, learner.optimizer)
        (value, state), of_value_metrics = learn(step, state, batch)
        params, metrics = ActorCritic(policy, value), metrics | of_value_metrics
    else:
        step, state = descent(partial(loss, config, net), optimizer, rate), (params, learner.optimizer)
        (params, state), metrics = learn(step, state, batch) if config.learner == "ppo" else step(state, batch)
    return params, Learner(state, learner.iteration + 1, rewards), metrics


# The algorithm


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """A policy-gradient learner for Discrete actions, or a flat Box of them.

    Raises:
        UsageError: a setting, or a space, that cannot work.
    """
    check(config)
    require(config, config.relations(env, tasks))
    require_time_limit(env, tasks)
    net = networks(config, env)
    rule = clipped(config, optax.adam(config.learning_rate, eps=1e-5))
    optimizer = rule if config.learner == "trpo" else apart(rule)
    start = lambda params, key: jnp.zeros(()) if config.normalize_rewards else ()
    agent = Agent(net.init, start, partial(act, config, net))
    learn: Update = partial(update, config, net, optimizer, schedule(config, 1.0))
    if config.normalize_observations:
        agent, learn = normalizing(agent, learn, env.observation_space(env.default_params))

    def init(key: jax.Array, params: Any = None) -> TrainState:
        state = begin_learning(env, agent, tasks, key, params, environments=config.environments)
        params = learned(state.params)
        optimized = params.value if config.learner == "trpo" else params
        rewards = Statistics.none(()) if config.normalize_rewards else ()
        return replace(state, learner=Learner(optimizer.init(optimized), jnp.zeros((), jnp.int32), rewards))

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """Measurements of `play`, with the likeliest actions and the environment's own rewards."""
        return play(env, agent, present(tasks, state.world), state.params, key, config.eval_episodes)

    return Algorithm(
        init=init,
        step=online(env, agent, tasks, learn, length=config.rollout_length),
        evaluate=evaluate,
        agent=agent,
        env_steps=config.environments * config.rollout_length,
        learn=learning_from_rollouts(learn),
    )


def check(config: Config) -> None:
    """Raises UsageError for a setting that cannot work in any environment."""
    require_choice(config, "learner", ("a2c", "trpo", "ppo"))
    require_positive(config, "environments", "rollout_length", "epochs", "minibatch_size", "eval_episodes")
    require_positive(config, "clip", "max_kl", "cg_iterations", "learning_rate")
    require_positive(config, "cg_damping", "entropy_weight", or_zero=True)
    require_fraction(config, "discount", "gae_lambda")
    check_optimizer(config)
    check_network(config)
    require_choice(config, "activation", tuple(ACTIVATIONS))
    require_sizes(config, "hidden")
