"""PPO over options and inside them: the double actor-critic (DAC, Zhang & Whiteson, NeurIPS 2019) with one pass over
each rollout, and the deliberation cost of Harb, Bacon, Klissarov & Precup (AAAI 2018).

An agent with options acts in two Markov decision processes at once. In M^H a state is (o', s), the option that led to s
and s, and an action is the option o that acts next; in M^L a state is (s, o) and an action is a. Each has a policy:

    π^H(o | o', s) = (1 − β_{o'}(s)) 1[o = o'] + β_{o'}(s) π(o | s)      π(o | s) alone on an episode's first step
    π^L(a | s, o)  = π_o(a | s)

so PPO learns both: π and the terminations β through π^H, the options' policies π_o through π^L. One critic serves both:

    v^H(o', s) = Σ_o π^H(o | o', s) v^L(s, o)
    A^L_t = δ_t + γ λ A^L_{t+1},   δ_t = r_t + γ v^H(o_t, s_{t+1}) − v^L(s_t, o_t)      ends as GAE does in flat PPO
    G_t   = A^L_t + v^L(s_t, o_t)                                                       the λ-return
    A^H_t = G_t − v^H(o_{t−1}, s_t)

    critic          ½ (G_t − v^L(s_t, o_t))²
    low             −min(ρ^L_t A^L_t, clip(ρ^L_t, 1 − ε, 1 + ε) A^L_t),   ρ^L_t = π^L(a_t | s_t, o_t) / π^L_old
    high            −min(ρ^H_t A^H_t, clip(ρ^H_t, 1 − ε, 1 + ε) A^H_t),   ρ^H_t = π^H(o_t | o_{t−1}, s_t) / π^H_old
    deliberation    ξ β_{o_{t−1}}(s_t)                                    not on first steps

The loss is the sum of the four less two entropy bonuses, of π^L and of π^H, averaged over steps. Advantages and returns
are constants for the gradient, and either kind of advantage is standardised over the rollout, so that ξ is in units of
a standard deviation of A^H. With one option π^H is 1, and this is PPO (`flat.policy_gradient`), number for number.

One network has the heads π_o, π and β, another one v^L.

Departures from DAC's paper and code (github.com/ShangtongZhang/DeepRL, branch DAC; what is said of the paper is from
memory):
- There PPO runs twice over each rollout, first in one process and then in the other. Here each gradient step descends
  both losses, which halves the gradient steps; where ρ = 1 the gradient is the same.
- There each process has its own GAE, with v^L(s_{t+1}, o_{t+1}) of the option that was drawn in A^L. Here the mean
  v^H(o_t, s_{t+1}) replaces it: what is left out has mean zero whatever the critic says. It also is what a truncated
  episode needs, where no option was drawn.
- There the critic is fitted to the returns of both processes. Here to G_t: by their definition v^H follows from v^L.
- There is one network for both processes, instead of one for each option.
- There the regulariser of β is a mean over all options. Here ξ counts the option that could terminate: with it descent
  on the high loss and the cost is the gradient of A^H_t − ξ [o_{t−1} terminates], the deliberation cost for γ_c = 0
  (Harb et al.), which charges a decision for itself and not for those that follow. The return is that of the task.
- The entropy of π_o has a bonus, too, off by default. ε-probabilities are not added to logarithms.

Axes in shapes: B environments side by side, T steps of a rollout, N steps of a minibatch, O options.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxrl_envs import random_bits
from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive, require_sizes
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
from jaxrl_hier.flat.policy_gradient import ActorCritic, Learner
from jaxrl_hier.hierarchical.options import learned_options
from jaxrl_hier.hierarchical.usage import Executed, usage_metrics
from jaxrl_hier.learning.advantages import bootstrapped_advantage, standardize
from jaxrl_hier.learning.distributions import Categorical, DiagonalGaussian
from jaxrl_hier.learning.minibatches import descent, in_minibatches, whole_minibatches
from jaxrl_hier.learning.networks import (
    ACTIVATIONS,
    MLP,
    Dense,
    GridEncoder,
    NetworkConfig,
    action_size,
    centre_of,
    check_network,
    constants,
    encoder_for,
    network_of,
)
from jaxrl_hier.learning.normalization import Statistics, learned, normalizing, scaled_rewards
from jaxrl_hier.learning.optimization import OptimizerConfig, apart, check_optimizer, clipped, schedule
from jaxrl_hier.learning.policy_losses import clipped_policy_loss
from jaxrl_hier.learning.tables import boltzmann
from jaxrl_hier.relations import Relation, require
from jaxrl_hier.settings import Rate


@dataclass(frozen=True)
class Config(OptimizerConfig, NetworkConfig):
    """Settings of PPO over options."""

    num_options: int = 8
    """number of options (O); with 1 it is flat PPO"""
    deliberation_cost: float = 0.0
    """cost of a termination (ξ), in standard deviations of the advantages over options"""
    environments: int = 32
    """environments side by side"""
    rollout_length: int = 64
    """steps of each environment per iteration (T)"""
    discount: float = 0.99
    """discount factor (γ), in [0, 1]"""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation, in [0, 1]"""
    epochs: int = 4
    """passes over each rollout"""
    minibatch_size: int = 512
    """steps per gradient step"""
    clip: float = 0.2
    """how far the probability ratios may move from 1 before they are clipped (ε)"""
    learning_rate: Rate = 1e-3
    """learning rate of Adam"""
    max_grad_norm: float | None = 0.5
    """bound on the norm of each network's gradient; none: no bound"""
    entropy_weight: float = 0.0
    """weight of the entropy bonus of the options' policies, at least 0"""
    option_entropy_weight: float = 0.01
    """weight of the entropy bonus of the policy over options with its terminations (π^H), at least 0"""
    hidden: tuple[int, ...] = (64, 64)
    """sizes of the hidden layers of each network, which its heads share"""
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
        return [whole_minibatches()]


class Heads(NamedTuple):
    """What the policy network says of states with leading axes [...]."""

    actions: Any  # distributions of actions, of each option, [..., O]
    options: jax.Array  # [..., O] logits of π(o | s)
    stop: jax.Array  # [..., O] logits of β_o(s)


class Carry(NamedTuple):
    """What an agent remembers."""

    option: jax.Array  # [] int32, the option that acted last
    so_far: Any  # [] discounted return of the episode; () without `normalize_rewards`


class Batch(NamedTuple):
    """Steps to learn from."""

    obs: Any  # [T, B, ...]
    action: jax.Array  # [T, B, ...]
    first: jax.Array  # [T, B] bool
    option: jax.Array  # [T, B], o_t
    previous: jax.Array  # [T, B], o_{t−1}
    low_log_prob: jax.Array  # [T, B] of the action, in the policy that acted
    high_log_prob: jax.Array  # [T, B] of the option
    low_advantage: jax.Array  # [T, B]
    high_advantage: jax.Array  # [T, B]
    target: jax.Array  # [T, B] for the critic


# The networks


class OptionPolicies(nn.Module):
    """[..., F], or pictures [..., H, W, C] with `channels`, -> Heads. Actions are Discrete, or vectors of `size`."""

    num_options: int
    size: int
    discrete: bool
    hidden: Sequence[int]
    activation: str
    channels: Sequence[int] = ()
    centre: tuple[float, ...] = ()  # see `GaussianPolicy`

    @nn.compact
    def __call__(self, x: jax.Array) -> Heads:
        if self.channels:
            x = GridEncoder(self.channels)(x)
        if self.hidden:
            x = ACTIVATIONS[self.activation](MLP(self.hidden, self.activation)(x))
        kernel = nn.initializers.xavier_uniform()
        head = lambda size, name, bias=(): Dense(size, kernel_init=kernel, bias_init=constants(bias), name=name)(x)
        actions: Any = head(self.num_options * self.size, "actions", self.num_options * self.centre)
        actions = actions.reshape(*x.shape[:-1], self.num_options, self.size)
        if self.discrete:
            actions = Categorical(actions)
        else:
            log_std = self.param("log_std", nn.initializers.zeros, (self.num_options, self.size))
            actions = DiagonalGaussian(actions, jnp.broadcast_to(log_std, actions.shape))
        return Heads(actions, head(self.num_options, "options"), head(self.num_options, "terminations"))


class Networks(NamedTuple):
    """Both networks as functions of their own parameters, for observations with any leading axes."""

    init: Callable[[jax.Array], ActorCritic]  # key -> params
    policy: Callable[[Params, Any], Heads]  # params, observations [...] -> Heads [...]
    value: Callable[[Params, Any], jax.Array]  # params, observations [...] -> v^L [..., O]


def networks(config: Config, env: Any) -> Networks:
    """The networks for the observations and actions of an environment."""
    observations, actions = env.observation_space(env.default_params), env.action_space(env.default_params)
    encode = encoder_for(observations, config.network)
    channels = config.channels if config.network == "cnn" else ()
    sizes = config.num_options, action_size(actions), hasattr(actions, "n"), config.hidden
    centre = () if hasattr(actions, "n") else centre_of(actions)
    policy: Any = OptionPolicies(*sizes, config.activation, channels, centre)
    value: Any = network_of(config, (*config.hidden, config.num_options), config.activation)

    def init(key: jax.Array) -> ActorCritic:
        key_obs, key_policy, key_value = jax.random.split(key, 3)
        inputs = encode(observations.sample(key_obs))
        return ActorCritic(policy.init(key_policy, inputs), value.init(key_value, inputs))

    return Networks(
        init,
        policy=lambda params, obs: policy.apply(params, encode(obs)),
        value=lambda params, obs: value.apply(params, encode(obs)),
    )


def of_option(x: Any, option: jax.Array) -> Any:
    """The entries [...] or [..., K] of `option` [...] in x [..., O] or [..., O, K], a pytree of such arrays."""
    axis = option.ndim
    place = lambda x: jnp.expand_dims(option, range(axis, x.ndim))
    return jax.tree.map(lambda x: jnp.take_along_axis(x, place(x), axis).squeeze(axis), x)


# The two processes


class HighPolicy(NamedTuple):
    """π^H(· | o', s) [...] over the options. On first steps β is 1: an option is drawn."""

    fresh: jax.Array  # [..., O] log π(o | s)
    going_on: jax.Array  # [...] log (1 − β_{o'}(s))
    stopping: jax.Array  # [...] log β_{o'}(s)
    previous: jax.Array  # [...] o'

    def log_prob(self, option: jax.Array) -> jax.Array:
        drawn = self.stopping + of_option(self.fresh, option)
        return jnp.where(option == self.previous, jnp.logaddexp(self.going_on, drawn), drawn)

    def log_probs(self) -> jax.Array:
        """Of all options, [..., O]."""
        drawn = self.stopping[..., None] + self.fresh
        same = jnp.arange(drawn.shape[-1]) == self.previous[..., None]
        return jnp.where(same, jnp.logaddexp(self.going_on[..., None], drawn), drawn)

    def entropy(self) -> jax.Array:
        """Of all options but o' together, β Σ −π (log β + log π), and of o'."""
        beta, stay = jnp.exp(self.stopping), self.log_prob(self.previous)
        same = of_option(self.fresh, self.previous)
        others = Categorical(self.fresh).entropy() + jnp.exp(same) * same
        return beta * (others - (1 - jnp.exp(same)) * self.stopping) - jnp.exp(stay) * stay

    def mean(self, value: jax.Array) -> jax.Array:
        """v^H(o', s) [...] from v^L(s, ·) [..., O]."""
        drawn = jnp.sum(jnp.exp(self.fresh) * value, axis=-1)
        return jnp.exp(self.going_on) * of_option(value, self.previous) + jnp.exp(self.stopping) * drawn


def high_policy(heads: Heads, previous: jax.Array, first: jax.Array) -> HighPolicy:
    """π^H after option `previous` [...], or, where it is `first` [...] bool, after none."""
    stop = of_option(heads.stop, previous)
    going_on = jnp.where(first, -jnp.inf, jax.nn.log_sigmoid(-stop))
    stopping = jnp.where(first, 0.0, jax.nn.log_sigmoid(stop))
    return HighPolicy(jax.nn.log_softmax(heads.options), going_on, stopping, previous)


def act(
    config: Config, net: Networks, params: ActorCritic, before: Carry, inp: ActInput, key: jax.Array, greedy: bool
) -> tuple[Any, Carry, tuple[Executed, Any]]:
    """An action. Extras: which option acted, and the discounted return so far.

    Greedily it takes the likeliest action of an option, and the likeliest option where one terminates, which is drawn.
    """
    heads = net.policy(params.policy, inp.obs)
    stopping, choosing = random_bits.uniforms(random_bits.another_key(key), 2)
    beta = jax.nn.sigmoid(heads.stop[before.option])
    chosen = inp.first | (stopping < beta)
    fresh = Categorical(heads.options).mode() if greedy else boltzmann(choosing, heads.options, 1.0)
    option = jnp.where(chosen, fresh, before.option)
    policy = of_option(heads.actions, option)
    action = policy.mode() if greedy else policy.sample(key)
    so_far = config.discount * before.so_far + inp.prev_reward if config.normalize_rewards else ()
    return action, Carry(option, so_far), (Executed(option, before.option, chosen, beta), so_far)


# Losses


def batch_of(config: Config, net: Networks, params: ActorCritic, t: Transition) -> Batch:
    """What the losses need of a rollout [T, B, ...] that `params` acted in."""
    did: Executed = t.extras[0]
    heads, value = net.policy(params.policy, t.obs), net.value(params.value, t.obs)
    heads_after, value_after = net.policy(params.policy, t.next_obs), net.value(params.value, t.next_obs)
    low_value = of_option(value, did.option)
    high = high_policy(heads, did.previous, t.first)
    after = high_policy(heads_after, did.option, jnp.zeros_like(t.first)).mean(value_after)
    low_advantage = bootstrapped_advantage(
        t.reward, low_value, after, t.terminated, t.truncated, config.discount, config.gae_lambda
    )
    target = low_advantage + low_value
    high_advantage = target - high.mean(value)
    everywhere = jnp.ones_like(target)
    return Batch(
        t.obs,
        t.action,
        t.first,
        did.option,
        did.previous,
        low_log_prob=of_option(heads.actions, did.option).log_prob(t.action),
        high_log_prob=high.log_prob(did.option),
        low_advantage=standardize(low_advantage, everywhere),
        high_advantage=standardize(high_advantage, everywhere),
        target=target,
    )


def losses(config: Config, heads: Heads, value: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """The terms of the loss [], means over the steps of the batch, and two entropies.

    Args:
        heads, value: of the batch's observations, value [N, O].
    """
    low = of_option(heads.actions, batch.option)
    high = high_policy(heads, batch.previous, batch.first)
    low_log_prob, high_log_prob = low.log_prob(batch.action), high.log_prob(batch.option)
    beta = jnp.where(batch.first, 0.0, jnp.exp(high.stopping))
    terms = {
        "critic": 0.5 * (batch.target - of_option(value, batch.option)) ** 2,
        "low": clipped_policy_loss(low_log_prob, batch.low_log_prob, batch.low_advantage, config.clip),
        "high": clipped_policy_loss(high_log_prob, batch.high_log_prob, batch.high_advantage, config.clip),
        # one option goes on whether it terminates or not
        "deliberation": config.deliberation_cost * beta if config.num_options > 1 else jnp.zeros_like(beta),
        "low_entropy": low.entropy(),
        "high_entropy": high.entropy(),
        "kl": batch.low_log_prob - low_log_prob,  # an estimate of KL(π^L_old ‖ π^L)
    }
    return {name: jnp.mean(x) for name, x in terms.items()}


def loss(config: Config, net: Networks, params: ActorCritic, batch: Batch) -> tuple[jax.Array, Metrics]:
    """The loss [] of both networks on a batch, and its terms as metrics."""
    terms = losses(config, net.policy(params.policy, batch.obs), net.value(params.value, batch.obs), batch)
    total = terms["low"] + terms["high"] + terms["deliberation"] + terms["critic"]
    total -= config.entropy_weight * terms["low_entropy"] + config.option_entropy_weight * terms["high_entropy"]
    names = {"critic": "value_loss", "low_entropy": "policy_entropy", "high_entropy": "option_entropy", "kl": "kl"}
    return total, {shown: terms[name] for name, shown in names.items()}


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
    rewards, (did, so_far) = learner.rewards, t.extras
    if config.normalize_rewards:
        rewards, reward = scaled_rewards(rewards, t.reward, config.discount * so_far + t.reward)
        t = t._replace(reward=reward)
    step = descent(partial(loss, config, net), optimizer, share(learner.iteration))
    batch, state = batch_of(config, net, params, t), (params, learner.optimizer)
    (params, state), metrics = in_minibatches(step, state, batch, key, epochs=config.epochs, size=config.minibatch_size)
    usage = usage_metrics(did.option, did.chosen, did.beta, config.num_options, previous=did.previous, first=t.first)
    return params, Learner(state, learner.iteration + 1, rewards), metrics | usage


# The algorithm


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """PPO over options for Discrete actions, or a flat Box of them.

    Raises:
        UsageError: a setting, or a space, that cannot work.
    """
    check(config)
    require(config, config.relations(env, tasks))
    require_time_limit(env, tasks)
    net = networks(config, env)
    optimizer = apart(clipped(config, optax.adam(config.learning_rate, eps=1e-5)))
    nothing = lambda: jnp.zeros(()) if config.normalize_rewards else ()
    agent = Agent(
        net.init, start=lambda params, key: Carry(jnp.zeros((), jnp.int32), nothing()), act=partial(act, config, net)
    )
    learn: Update = partial(update, config, net, optimizer, schedule(config, 1.0))
    if config.normalize_observations:
        agent, learn = normalizing(agent, learn, env.observation_space(env.default_params))

    def init(key: jax.Array, params: Any = None) -> TrainState:
        state = begin_learning(env, agent, tasks, key, params, environments=config.environments)
        rewards = Statistics.none(()) if config.normalize_rewards else ()
        return replace(state, learner=Learner(optimizer.init(learned(state.params)), jnp.zeros((), jnp.int32), rewards))

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """Measurements of `play`, acting greedily, with the environment's own rewards; terminations are drawn."""
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
    if config.num_options < 1:
        raise UsageError(f"num_options must be at least 1, got {config.num_options}")
    require_positive(config, "environments", "rollout_length", "epochs", "minibatch_size", "eval_episodes")
    require_positive(config, "clip", "learning_rate")
    require_positive(config, "entropy_weight", "option_entropy_weight", or_zero=True)
    require_fraction(config, "discount", "gae_lambda")
    check_optimizer(config)
    check_network(config)
    require_choice(config, "activation", tuple(ACTIVATIONS))
    require_sizes(config, "hidden")


def as_options(config: Config, env: Any, params: Params) -> Options:
    """The learned options in four rooms as arrays over its S cells."""

    def heads(params: ActorCritic, cells: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = networks(config, env).policy(params.policy, cells)
        return found.actions.logits, found.stop

    return learned_options(env, params, heads)
