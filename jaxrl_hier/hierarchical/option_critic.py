"""Option-critic with a network: options are learned with the policy over them, end to end (Bacon, Harb & Precup, AAAI
2017), as an advantage actor-critic (A2OC, Harb, Bacon, Klissarov & Precup, AAAI 2018).

One torso has three heads: option values Q(s, ·), softmax policies π_o(· | s) and sigmoid terminations β_o(s). The
policy over options is ε-greedy for Q; it chooses an option at an episode's start and whenever the running option
terminates.

    V(s)     = (1 − ε) max_o Q(s, o) + ε mean_o Q(s, o)                       value of choosing an option
    U(s', o) = (1 − β_o(s')) Q(s', o) + β_o(s') V(s')                         value of arriving with option o
    A_t      = δ_t + γ λ A_{t+1},   δ_t = r_t + γ U(s_{t+1}, o_t) − Q(s_t, o_t)

    critic        ½ [G_t − Q(s_t, o_t)]²                  the λ-return G_t = A_t + Q(s_t, o_t) is held fixed
    policies      −log π_{o_t}(a_t | s_t) A_t             A_t estimates Q_U(s, o, a) − Q(s, o)
    terminations  β_o(s_t) [Q(s_t, o) − V(s_t) + ξ]       o: the option that led to s_t; not on first steps

A_t, V and the bracket are constants for the gradient. ξ is the deliberation cost: an option terminates where choosing
again is better by more than ξ. The loss is the sum of the three, the critic's times `critic_weight`, less an entropy
bonus, averaged over a rollout's steps.

The theorems weight states by their discounted occupancy; as usual in deep reinforcement learning these weights are
dropped. V, the critic's ½, and values and terminations that start at zero follow the code of A2OC's authors
(github.com/jeanharb/a2oc_delib). Statements about their paper are from memory.

Departures from that code:
- Its n-step return runs across options up to the end of the rollout. Ours, for λ = 1, differs by a control variate of
  mean zero: U instead of the Q of the option that was sampled. With one option it is generalised advantage estimation.
- It decides in s_t, after acting there, whether the option ends before s_{t+1}. In the theorem β is that of the state
  entered.
- ξ enters the termination advantage only; there it is also subtracted from the rewards. So our return is that of the
  task, and the critic is the same for ξ = 0 and ξ > 0.
- Environments side by side and Adam replace asynchronous workers that share RMSProp's averages.
- The output of the value head is multiplied by `value_scale`. Adam moves all weights at the same speed, whatever the
  size of the values they stand for: with a reward of −1 per step the policies became deterministic before the values
  had come down.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive, require_sizes
from jaxrl_hier.engine.evaluation import play, present
from jaxrl_hier.engine.loops import Update, begin_learning, online
from jaxrl_hier.engine.rollout import require_time_limit
from jaxrl_hier.engine.sharding import mean_over_devices
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
from jaxrl_hier.hierarchical.options import learned_options
from jaxrl_hier.hierarchical.usage import Executed, usage_metrics
from jaxrl_hier.learning.advantages import bootstrapped_advantage
from jaxrl_hier.learning.distributions import Categorical
from jaxrl_hier.learning.networks import (
    ACTIVATIONS,
    MLP,
    Dense,
    GridEncoder,
    NetworkConfig,
    check_network,
    encoder_for,
    require_array_observations,
    require_discrete_actions,
)
from jaxrl_hier.learning.normalization import learned, normalizing
from jaxrl_hier.learning.optimization import OptimizerConfig, check_optimizer, optimizer_of
from jaxrl_hier.learning.tables import epsilon_greedy
from jaxrl_hier.settings import Rate


@dataclass(frozen=True)
class Config(OptimizerConfig, NetworkConfig):
    """Settings of the option-critic. One set of defaults serves four rooms, CartPole, Acrobot and MinAtar."""

    num_options: int = 4
    """number of options (O); with 1 it is an advantage actor-critic"""
    deliberation_cost: float = 0.03
    """what choosing again must gain for an option to terminate (ξ), in units of the return"""
    epsilon: float = 0.1
    """probability of choosing an option at random (ε), in [0, 1]"""
    temperature: float = 1.0
    """temperature of the options' softmax policies, positive"""
    entropy_weight: float = 0.01
    """weight of the entropy bonus of the options' policies, at least 0"""
    critic_weight: float = 0.5
    """weight of the critic's loss, at least 0"""
    value_scale: float = 30.0
    """factor on the output of the value head, of the order of the returns; it sets how fast values are learned"""
    discount: float = 0.99
    """discount per step (γ), in [0, 1]"""
    gae_lambda: float = 0.95
    """decay of the advantages (λ), in [0, 1]; 1: n-step returns up to the end of the rollout"""
    learning_rate: Rate = 1e-3
    """learning rate of Adam"""
    max_grad_norm: float | None = 0.5
    """bound on the norm of the whole gradient; None: no bound"""
    environments: int = 32
    """environments side by side"""
    rollout_length: int = 16
    """steps of each environment per iteration, which is one update"""
    hidden: tuple[int, ...] = (64, 64)
    """layers of the torso, which the heads share"""
    activation: Literal["relu", "tanh", "silu"] = "tanh"
    """activation function of the torso's layers"""
    normalize_observations: bool = False
    """standardise observations by their running mean and standard deviation (at least 0.01), and clip them to ±5"""
    eval_episodes: int = 64
    """episodes per evaluation"""

    renamed: ClassVar = {
        "entropy": "entropy_weight",
        "critic": "critic_weight",
        "trace": "gae_lambda",
        "length": "rollout_length",
        "normalize": "normalize_observations",
    }


class Heads(NamedTuple):
    """The outputs of the network in states with leading axes [...]."""

    q: jax.Array  # [..., O] option values
    logits: jax.Array  # [..., O, A] of the options' policies, divided by the temperature
    stop: jax.Array  # [..., O] logits of the termination probabilities


class OptionCritic(nn.Module):
    """[..., F], or pictures [..., H, W, C] with `channels`, -> Heads.

    All heads start at zero: uniform policies, β = ½, and equal values, whose ties are broken at random.
    """

    num_options: int
    num_actions: int
    hidden: Sequence[int]
    activation: str = "tanh"
    value_scale: Any = 1.0
    channels: Sequence[int] = ()

    @nn.compact
    def __call__(self, x: jax.Array) -> Heads:
        if self.channels:
            x = GridEncoder(self.channels)(x)
        x = ACTIVATIONS[self.activation](MLP(self.hidden, self.activation)(x))
        head = lambda size, name: Dense(size, kernel_init=nn.initializers.zeros, name=name)(x)
        logits = head(self.num_options * self.num_actions, "policies")
        return Heads(
            q=self.value_scale * head(self.num_options, "values"),
            logits=logits.reshape(*logits.shape[:-1], self.num_options, self.num_actions),
            stop=head(self.num_options, "terminations"),
        )


# Values


def choice_value(q: jax.Array, epsilon: Any) -> jax.Array:
    """V(s) [...] of the ε-greedy policy over options with values `q` [..., O]."""
    return (1 - epsilon) * jnp.max(q, axis=-1) + epsilon * jnp.mean(q, axis=-1)


def arrival_value(q: jax.Array, beta: jax.Array, v: jax.Array) -> jax.Array:
    """U(s', o) [...] of arriving with an option of value `q` [...] that ends with probability `beta` [...]; `v` is
    V(s')."""
    return (1 - beta) * q + beta * v


# Losses, of each step


def critic_loss(q: jax.Array, target: jax.Array) -> jax.Array:
    """½ [G − Q(s, o)]² [...] of values [...], with the target G [...] held fixed."""
    return 0.5 * (jax.lax.stop_gradient(target) - q) ** 2


def policy_loss(policy: Categorical, action: jax.Array, advantage: jax.Array) -> jax.Array:
    """−log π_o(a | s) A [...] with A held fixed: the intra-option policy gradient for A = Q_U(s, o, a) − Q(s, o)."""
    return -policy.log_prob(action) * jax.lax.stop_gradient(advantage)


def termination_loss(beta: jax.Array, q: jax.Array, v: jax.Array, cost: Any) -> jax.Array:
    """β_o(s) [Q(s, o) − V(s) + ξ] [...] with the bracket held fixed: the termination gradient for ξ = 0.

    Args:
        beta, q: [...], of the option that led to s. v: [...], V(s). cost: ξ.
    """
    return beta * jax.lax.stop_gradient(q - v + cost)


def losses(heads: Heads, after: Heads, t: Transition, config: Config) -> dict[str, jax.Array]:
    """The terms of the loss, each a mean over the rollout: "critic", "policy", "termination", "entropy".

    Args:
        heads: of the states [T, B]. after: of their true successors; no gradient flows through it.
    """
    did: Executed = t.extras
    after = jax.lax.stop_gradient(after)
    q = at(heads.q, did.option)
    u = arrival_value(
        at(after.q, did.option), jax.nn.sigmoid(at(after.stop, did.option)), choice_value(after.q, config.epsilon)
    )
    advantage = jax.lax.stop_gradient(
        bootstrapped_advantage(t.reward, q, u, t.terminated, t.truncated, config.discount, config.gae_lambda)
    )
    policy = Categorical(jnp.take_along_axis(heads.logits, did.option[..., None, None], axis=-2)[..., 0, :])
    termination = termination_loss(
        jax.nn.sigmoid(at(heads.stop, did.previous)),
        at(heads.q, did.previous),
        choice_value(heads.q, config.epsilon),
        config.deliberation_cost,
    )
    terms = {
        "critic": critic_loss(q, advantage + q),
        "policy": policy_loss(policy, t.action, advantage),
        # one option goes on whether it terminates or not
        "termination": jnp.where(t.first | (config.num_options == 1), 0.0, termination),
        "entropy": policy.entropy(),
    }
    return {name: jnp.mean(x) for name, x in terms.items()}


def at(x: jax.Array, option: jax.Array) -> jax.Array:
    """The entries [...] of x [..., O] at `option` [...]."""
    return jnp.take_along_axis(x, option[..., None], axis=-1)[..., 0]


# The network and the agent


def heads_function(config: Config, env: Any) -> tuple[Callable[[jax.Array], Params], Callable[[Params, Any], Heads]]:
    """The network for an environment with Discrete actions and observations that fit in an array.

    Returns:
        init: key -> params.
        heads_of: params, observations [..., *shape] -> Heads [...], the logits divided by the temperature.
    """
    observations = env.observation_space(env.default_params)
    encode = encoder_for(observations, config.network)
    channels = config.channels if config.network == "cnn" else ()
    sizes = config.num_options, env.action_space(env.default_params).n, config.hidden
    network = OptionCritic(*sizes, config.activation, config.value_scale, channels)

    def init(key: jax.Array) -> Params:
        return network.init(key, encode(jnp.zeros(observations.shape, observations.dtype)))

    def heads_of(params: Params, obs: Any) -> Heads:
        heads: Any = network.apply(params, encode(obs))
        return heads._replace(logits=heads.logits / config.temperature)

    return init, heads_of


def act(
    config: Config,
    heads_of: Callable[[Params, Any], Heads],
    params: Params,
    before: jax.Array,
    inp: ActInput,
    key: jax.Array,
    greedy: bool,
) -> tuple[jax.Array, jax.Array, Executed]:
    """An action []; the carry is the option [] that acts, `before` the one that acted last.

    Greedily an option is chosen by its value and takes its likeliest action; whether it terminates is drawn.
    """
    heads = heads_of(params, inp.obs)
    draws = jax.random.uniform(key, (4,))
    beta = jax.nn.sigmoid(heads.stop[before])
    over = inp.first | (draws[0] < beta)
    everything = jnp.ones(config.num_options, bool)
    fresh = epsilon_greedy(draws[1:3], heads.q, everything, 0.0 if greedy else config.epsilon)
    option = jnp.where(over, fresh, before)
    policy = Categorical(heads.logits[option])
    cumulative = jnp.cumsum(jax.nn.softmax(policy.logits))[:-1]
    action = policy.mode() if greedy else jnp.sum(cumulative <= draws[3], dtype=jnp.int32)
    return action, option, Executed(option, before, over, beta)


def loss(
    params: Params, t: Transition, config: Config, heads_of: Callable[[Params, Any], Heads]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss [] of a rollout [T, B, ...], and its terms."""
    terms = losses(heads_of(params, t.obs), heads_of(params, t.next_obs), t, config)
    total = terms["policy"] + config.critic_weight * terms["critic"] + terms["termination"]
    return total - config.entropy_weight * terms["entropy"], terms


def update(
    config: Config,
    heads_of: Callable[[Params, Any], Heads],
    optimizer: optax.GradientTransformation,
    params: Params,
    learner: Any,
    before: World,
    t: Transition,
    key: jax.Array,
) -> tuple[Params, Any, Metrics]:
    """One gradient step on a rollout [T, B, ...]; the `update` of the online loop."""
    slope = lambda params, t: jax.grad(loss, has_aux=True)(params, t, config, heads_of)
    gradient, terms = mean_over_devices(slope, (None, 1))(params, t)
    step, learner = optimizer.update(gradient, learner, params)
    did: Executed = t.extras
    usage = usage_metrics(did.option, did.chosen, did.beta, config.num_options, previous=did.previous, first=t.first)
    metrics = {"critic_loss": terms["critic"], "policy_entropy": terms["entropy"], **usage}
    return optax.apply_updates(params, step), learner, metrics


# The algorithm


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """Option-critic on an environment with Discrete actions and observations that fit in an array.

    Learner: the state of Adam.

    Raises:
        UsageError: a setting that cannot work, or actions that are not Discrete.
    """
    check(config, env)
    require_time_limit(env, tasks)
    init_params, heads_of = heads_function(config, env)
    optimizer = optimizer_of(config, config.learning_rate, rule=partial(optax.adam, eps=1e-5))
    agent = Agent(
        init=init_params,
        start=lambda params, key: jnp.zeros((), jnp.int32),
        act=partial(act, config, heads_of),
    )
    learn: Update = partial(update, config, heads_of, optimizer)
    if config.normalize_observations:
        agent, learn = normalizing(agent, learn, env.observation_space(env.default_params))

    def init(key: jax.Array, params: Any = None) -> TrainState:
        state = begin_learning(env, agent, tasks, key, params, environments=config.environments)
        return replace(state, learner=optimizer.init(learned(state.params)))

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """Measurements of `play`, acting greedily; terminations are drawn."""
        return play(env, agent, present(tasks, state.world), state.params, key, config.eval_episodes)

    step = online(env, agent, tasks, learn, length=config.rollout_length)
    env_steps = config.environments * config.rollout_length
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=env_steps)


def check(config: Config, env: Any) -> None:
    """Raises UsageError for settings, actions or observations that cannot work."""
    if config.num_options < 1:
        raise UsageError(f"num_options must be at least 1, got {config.num_options}")
    if not config.hidden:
        raise UsageError("hidden needs at least one layer, which the heads share, got none")
    check_optimizer(config)
    check_network(config)
    require_positive(config, "temperature", "value_scale", "learning_rate")
    require_positive(config, "environments", "rollout_length", "eval_episodes")
    require_positive(config, "entropy_weight", "critic_weight", or_zero=True)
    require_fraction(config, "epsilon", "discount", "gae_lambda")
    require_choice(config, "activation", tuple(ACTIVATIONS))
    require_sizes(config, "hidden")
    require_discrete_actions(env, "option-critic", instead="hiro")
    require_array_observations(env, "option-critic")


def as_options(config: Config, env: Any, params: Params) -> Options:
    """The learned options in four rooms as arrays over its S cells."""
    _, heads_of = heads_function(config, env)

    def heads(params: Params, cells: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = heads_of(params, cells)
        return found.logits, found.stop

    return learned_options(env, params, heads)
