"""VariBAD: Bayes-adaptive reinforcement learning by meta-learning (Zintgraf et al., ICLR 2020).

A latent variable m describes the task. An encoder infers a belief q(m|τ_:t) from what a trial, several episodes of one
task, has shown so far; a decoder predicts from m the rewards of the whole trial, past and future (`varibad_belief`).
The policy acts by the state and the belief, so it can explore as long as that pays: it approximates the policy that is
optimal for the Bayes-adaptive process, whose states are pairs of state and belief.

    belief    q(m|τ_:t) = N(μ_t, σ_t²)
    model     ELBO_t = E_{m ~ q(m|τ_:t)} [Σ_i log p(r_{i+1} | s_i, a_i, s_{i+1}; m)] − w KL(q(m|τ_:t) ‖ q(m|τ_:t−1)),
              of which encoder and decoder maximise the mean over the steps t of trials
    augmented state  b_t = (s_t, μ_t, log σ_t)
    δ_t = r_t + γ V(b_{t+1}) − V(b_t),   A_t = δ_t + γ λ A_{t+1}       over the trial
    policy    −min(ρ_t A_t, clip(ρ_t, 1 − ε, 1 + ε) A_t),  ρ_t = π(a_t | b_t) / π_old(a_t | b_t), A standardised
    value     ½ (A_t + V_old(b_t) − V(b_t))²

Policy and value minimise the first loss plus `critic_weight` times the second, less an entropy bonus. These losses see
the beliefs of acting as data: they have no gradient in the encoder, and the ELBO has none in the policy. Returns cross
the ends of the episodes of a trial, as in RL².

The authors' first release (github.com/lmzintgraf/varibad, f261bc7, February 2020) learns grid navigation by an
advantage actor-critic with RMSProp, from 16 trials per iteration, with w = 1 and an entropy bonus of 0.1. The defaults
are its own (γ, λ, w, the sizes of m, GRU and policy), but for PPO with Adam, a smaller bonus, a larger decoder, and
larger batches with the learning rates that go with them. The preset for grid navigation has w = 0.1, with which it
learned faster, a larger policy, and a bonus that falls from 0.1 to 0, as does the learning rate. The newest release
(ff26cd4, June 2021) has PPO, too, and w = 0.01, on a divergence that is summed over 25 trials.

Departures from the first release:
- The ELBO learns from the rollout of the same iteration, each trial once in each of `elbo_epochs`; there from a buffer
  of the last 100 000 trials, in three batches of 25. Where a trial continues after the end of a rollout, the part in
  this rollout is decoded.
- The belief at a trial's first step has seen its first state, and there is no ELBO_t after the last step, on whose
  belief nothing acts.
- ELBO_t is averaged over t, not summed: Adam takes the same steps. A Gaussian reward has the variance 1, there ½.
- The last state of an episode is shown to none of the networks, only its reward (`varibad_belief`).
- Log standard deviations lie in (−5, 5). The encoder reads states, actions and rewards without an embedding of each.
- The decoder predicts a reward from state, action and next state; for grid navigation the released one has an output
  for every cell.
- No steps are collected before training; the authors collect 5 000.

Axes in shapes: B trials side by side, T steps of a rollout, F numbers of what a trial shows, I of what the policy sees,
Z of m, H of the encoder's hidden state.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_envs.trial import Trial
from jaxrl_hier.checks import require_choice, require_fraction, require_positive, require_sizes
from jaxrl_hier.engine.adapting import adapter
from jaxrl_hier.engine.loops import begin_learning, online
from jaxrl_hier.engine.rollout import ended
from jaxrl_hier.engine.types import ActInput, Agent, Algorithm, Metrics, Params, Tasks, TrainState, Transition, World
from jaxrl_hier.learning.advantages import rollout_advantage, standardize
from jaxrl_hier.learning.distributions import DiagonalGaussian
from jaxrl_hier.learning.minibatches import descent, over_epochs
from jaxrl_hier.learning.networks import MLP, policy_for
from jaxrl_hier.learning.optimization import OptimizerConfig, check_optimizer, clipped, linear_decay, schedule
from jaxrl_hier.meta import rl2
from jaxrl_hier.meta.varibad_belief import (
    Decoder,
    Encoder,
    Shown,
    TaskModel,
    Trials,
    decoder_of,
    encoder_of,
    negative_elbo,
)
from jaxrl_hier.relations import Relation, held_out, multiple, require
from jaxrl_hier.settings import Rate


@dataclass(frozen=True)
class Config(OptimizerConfig):
    """Settings of VariBAD."""

    episodes_per_trial: int = 4
    """episodes of a trial"""
    trial_number: bool = False
    """show the encoder and the policy the elapsed share of the trial"""
    latent_size: int = 5
    """numbers in the latent variable m"""
    memory_size: int = 64
    """numbers of the hidden state of the encoder's GRU"""
    encoder_hidden: tuple[int, ...] = ()
    """sizes of the layers of ReLU between what a trial shows and the GRU"""
    decoder_hidden: tuple[int, ...] = (64, 64)
    """sizes of the decoder's hidden layers, of ReLU"""
    hidden: tuple[int, ...] = (32, 32)
    """sizes of the hidden layers of policy and value, of tanh"""
    reward_model: Literal["gaussian", "bernoulli"] = "gaussian"
    """what is decoded of a reward: its value, with variance 1, or whether it is above 0"""
    decode_transitions: bool = False
    """decode next states, too, for tasks that differ in their dynamics"""
    kl_weight: float = 1.0
    """weight of the divergence of a belief from the one before (w), at least 0"""
    elbo_terms: int | None = None
    """most random steps of the rollout at which a gradient step evaluates the ELBO; default: all steps"""
    elbo_epochs: int = 2
    """passes of encoder and decoder over each rollout"""
    elbo_minibatch_size: int = 32
    """trials per gradient step of encoder and decoder"""
    elbo_learning_rate: Rate = 3e-3
    """learning rate of Adam for encoder and decoder, whose gradients are not clipped"""
    environments: int = 128
    """trials side by side"""
    rollout_length: int | None = None
    """steps of each trial per iteration; default: the time limit of a trial"""
    discount: float = 0.95
    """discount factor (γ), in [0, 1]"""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation, in [0, 1]"""
    clip: float = 0.1
    """how far a probability ratio may move from 1 before it is clipped (ε)"""
    epochs: int = 4
    """passes of policy and value over each rollout"""
    minibatch_size: int = 16
    """trials per gradient step of policy and value"""
    learning_rate: Rate = 2e-3
    """learning rate of Adam for policy and value"""
    max_grad_norm: float | None = 0.5
    """bound on the norm of the gradient of policy and value; none: no bound"""
    critic_weight: float = 0.5
    """weight of the value's loss, at least 0"""
    entropy_weight: float = 0.01
    """weight of the entropy bonus in the loss, at least 0"""
    entropy_decay_iterations: int = 0
    """iterations over which that weight falls linearly to zero; 0: it stays constant"""
    eval_tasks: int = 100
    """test tasks of an evaluation, which plays one trial of each"""
    eval_episodes: int | None = None
    """episodes of each trial of an evaluation, also more than in training; none: episodes_per_trial"""

    @staticmethod
    def relations(env: Any, tasks: Tasks) -> list[Relation]:
        return [
            multiple("environments", "minibatch_size"),
            multiple("environments", "elbo_minibatch_size"),
            held_out("eval_tasks", tasks),
            rl2.bootstrapped(env, tasks),
        ]


QUANTITIES = rl2.QUANTITIES


class ActorCritic(NamedTuple):
    """Parameters of policy and value."""

    policy: Params
    value: Params


class Networks(NamedTuple):
    """All parameters."""

    actor_critic: ActorCritic
    task_model: TaskModel


class Learner(NamedTuple):
    """The rest of the learner's state."""

    policy: Any  # state of the optimiser of policy and value
    model: Any  # of that of encoder and decoder
    iteration: jax.Array  # [] int32


class Acted(NamedTuple):
    """The extras of a transition."""

    log_prob: jax.Array  # [] of the action
    value: jax.Array  # []
    belief: DiagonalGaussian  # [Z] that the action was chosen by


class Batch(NamedTuple):
    """T steps of B trials for policy and value."""

    inputs: jax.Array  # [T, B, I]
    action: jax.Array  # [T, B, ...]
    log_prob: jax.Array  # [T, B] of the policy that acted
    advantage: jax.Array  # [T, B]
    target: jax.Array  # [T, B] for the value
    weight: jax.Array  # [T, B] 1 on the steps that count, else 0


class Model(NamedTuple):
    """The networks as pure functions."""

    init: Callable[[jax.Array], Networks]  # key -> params
    shown: Shown
    encoder: Encoder
    decoder: Decoder
    policy: Callable[[Params, jax.Array], Any]  # params, inputs [..., I] -> distributions of actions [...]
    value: Callable[[Params, jax.Array], jax.Array]  # params, inputs [..., I] -> [...]


def model_of(config: Config, trial: Trial) -> Model:
    """The networks for the observations and actions of these trials."""
    shown, features = Shown.by(trial), trial.observation_space(trial.default_params).shape[0]
    encoder = encoder_of(config.encoder_hidden, config.memory_size, config.latent_size)
    decoder = decoder_of(
        config.decoder_hidden, config.latent_size, trial, config.reward_model, config.decode_transitions
    )
    policy: Any = policy_for(trial.action_space(trial.default_params), config.hidden, "tanh")
    value: Any = MLP((*config.hidden, 1), "tanh")

    def init(key: jax.Array) -> Networks:
        key_policy, key_value, key_encoder, key_decoder = jax.random.split(key, 4)
        inputs = jnp.zeros(shown.state + shown.time + 2 * config.latent_size)
        actor_critic = ActorCritic(policy.init(key_policy, inputs), value.init(key_value, inputs))
        return Networks(actor_critic, TaskModel(encoder.init(key_encoder, features), decoder.init(key_decoder)))

    return Model(
        init, shown, encoder, decoder, policy.apply, lambda params, inputs: value.apply(params, inputs)[..., 0]
    )


# Acting


def inputs_of(model: Model, obs: jax.Array, belief: DiagonalGaussian) -> jax.Array:
    """What policy and value see [..., I]: the state in obs [..., F], and the belief [..., Z] by its μ and log σ."""
    return jnp.concatenate([model.shown.seen_by_policy(obs), *belief], axis=-1)


def act(
    model: Model, params: Networks, hidden: jax.Array, inp: ActInput, key: jax.Array, greedy: bool
) -> tuple[Any, jax.Array, Acted]:
    """An action, the encoder's next hidden state [H], and what learning needs to know of the step."""
    encoder, networks = params.task_model.encoder, params.actor_critic
    hidden = model.encoder.step(encoder, hidden, inp.obs)
    belief = model.encoder.belief(encoder, hidden)
    inputs = inputs_of(model, inp.obs, belief)
    policy = model.policy(networks.policy, inputs)
    action = policy.mode() if greedy else policy.sample(key)
    return action, hidden, Acted(policy.log_prob(action), model.value(networks.value, inputs), belief)


def agent_of(model: Model) -> Agent:
    """The agent; an episode of its environment is a trial."""
    return Agent(init=model.init, start=lambda params, key: model.encoder.start(), act=partial(act, model))


# Learning


def batch_of(config: Config, model: Model, t: Transition) -> Batch:
    """What policy and value learn from, of a rollout [T, B, ...] with the extras `Acted`."""
    acted: Acted = t.extras
    advantage, weight = rollout_advantage(t.reward, acted.value, ended(t), config.discount, config.gae_lambda)
    target, inputs = advantage + acted.value, inputs_of(model, t.obs, acted.belief)
    return Batch(inputs, t.action, acted.log_prob, standardize(advantage, weight), target, weight)


def policy_loss(
    config: Config, model: Model, entropy_weight: Any, params: ActorCritic, batch: Batch
) -> tuple[jax.Array, Metrics]:
    """The loss [] of policy and value, a mean over the steps that count, and its terms as metrics."""
    policy, value = model.policy(params.policy, batch.inputs), model.value(params.value, batch.inputs)
    return rl2.actor_critic_loss(policy, value, batch, config.critic_weight, entropy_weight, config.clip)


def trials_in(model: Model, before: World, t: Transition) -> Trials:
    """What encoder and decoder learn from, of a rollout [T, B, ...] that started from the worlds `before` [B]."""
    return Trials(before.carry[None], t.obs, t.first, model.shown.steps(t.obs, t.next_obs))


def improved_policy(
    config: Config,
    model: Model,
    optimizer: optax.GradientTransformation,
    rate: Any,
    entropy_weight: Any,
    state: tuple[ActorCritic, Any],
    batch: Batch,
    key: jax.Array,
) -> tuple[tuple[ActorCritic, Any], Metrics]:
    """Policy, value and the state of their optimiser, after all gradient steps on a batch; see `descent`."""
    step = descent(partial(policy_loss, config, model, entropy_weight), optimizer, rate)
    return over_epochs(step, state, batch, key, config.epochs, config.environments // config.minibatch_size)


def improved_model(
    config: Config,
    model: Model,
    optimizer: optax.GradientTransformation,
    rate: Any,
    state: tuple[TaskModel, Any],
    trials: Trials,
    key: jax.Array,
) -> tuple[tuple[TaskModel, Any], Metrics]:
    """Encoder, decoder and the state of their optimiser, after all gradient steps on some trials; see `descent`."""
    loss = partial(negative_elbo, model.encoder, model.decoder, config.kl_weight, config.elbo_terms)

    def step(state: tuple[Any, jax.Array], part: Trials) -> tuple[tuple[Any, jax.Array], Metrics]:
        learned, key = state
        key, key_loss = jax.random.split(key)
        learned, metrics = descent(partial(loss, key=key_loss), optimizer, rate)(learned, part)
        return (learned, key), metrics

    key_steps, key_parts = jax.random.split(key)
    count = config.environments // config.elbo_minibatch_size
    (state, _), metrics = over_epochs(step, (state, key_steps), trials, key_parts, config.elbo_epochs, count)
    return state, metrics | {"elbo_grad_norm": metrics.pop("grad_norm")}


def update(
    config: Config,
    model: Model,
    optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation],
    share: optax.Schedule,
    params: Networks,
    learner: Learner,
    before: World,
    t: Transition,
    key: jax.Array,
) -> tuple[Networks, Learner, Metrics]:
    """The `update` of the online loop: learn from the rollout t [T, B, ...].

    Args:
        optimizers: of policy and value, and of encoder and decoder, with constant learning rates.
        share: iterations so far -> factor on the learning rates; the same for all steps of an iteration.
    """
    key_policy, key_model = jax.random.split(key)
    rate, batch, trials = share(learner.iteration), batch_of(config, model, t), trials_in(model, before, t)
    entropy_weight = config.entropy_weight * linear_decay(learner.iteration, config.entropy_decay_iterations)
    policy = (params.actor_critic, learner.policy)
    policy, metrics = improved_policy(config, model, optimizers[0], rate, entropy_weight, policy, batch, key_policy)
    belief = (params.task_model, learner.model)
    belief, of_belief = improved_model(config, model, optimizers[1], rate, belief, trials, key_model)
    learner = Learner(policy[1], belief[1], learner.iteration + 1)
    return Networks(policy[0], belief[0]), learner, jax.tree.map(jnp.mean, metrics | of_belief)


# The algorithm


def init(
    config: Config,
    trial: Trial,
    agent: Agent,
    tasks: Tasks,
    optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation],
    key: jax.Array,
    params: Networks | None = None,
) -> TrainState:
    """Parameters, new ones unless given, and new trials, before the first iteration."""
    state = begin_learning(trial, agent, tasks, key, params, environments=config.environments)
    of_policy, of_model = optimizers
    params = state.params
    learner = Learner(of_policy.init(params.actor_critic), of_model.init(params.task_model), jnp.zeros((), jnp.int32))
    return replace(state, learner=learner)


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """VariBAD on a distribution of tasks, with discrete or continuous actions.

    `env` is wrapped in a `Trial` of `episodes_per_trial` episodes, unless it is a `Trial` already; `tasks` are then the
    trial's own. `TrainState.learner` is a `Learner`.

    Raises:
        UsageError: a setting that cannot work, or an environment that cannot be played in trials.
    """
    check(config)
    shared = "episodes_per_trial", "trial_number", "eval_tasks", "eval_episodes"
    settings = {name: getattr(config, name) for name in shared}
    of_trials = rl2.Config(**settings)  # which are played and evaluated as RL²'s
    trial, tasks = rl2.in_trials(of_trials, env, tasks)
    horizon = tasks.time_limit()
    length = config.rollout_length or horizon
    require(config, config.relations(trial, tasks))
    model = model_of(config, trial)
    agent = agent_of(model)
    optimizers = clipped(config, optax.adam(config.learning_rate)), optax.adam(config.elbo_learning_rate)
    learn = partial(update, config, model, optimizers, schedule(config, 1.0))
    player = None if trial is env else rl2.trial_player(agent, trial, horizon)
    return Algorithm(
        init=partial(init, config, trial, agent, tasks, optimizers),
        step=online(trial, agent, tasks, learn, length=length),
        evaluate=partial(rl2.evaluate, of_trials, trial, agent, tasks),
        agent=agent,
        env_steps=config.environments * length,
        player=player,
        adapt=player and adapter(trial.env, player),
    )


def check(config: Config) -> None:
    """Raises UsageError for a setting that cannot work in any environment."""
    require_choice(config, "reward_model", ("gaussian", "bernoulli"))
    require_positive(
        config,
        "latent_size",
        "memory_size",
        "elbo_terms",
        "elbo_epochs",
        "elbo_minibatch_size",
        "environments",
        "rollout_length",
        "epochs",
        "minibatch_size",
        "eval_tasks",
        "eval_episodes",
    )
    require_positive(config, "learning_rate", "elbo_learning_rate", "clip")
    require_positive(config, "kl_weight", "critic_weight", "entropy_weight", "entropy_decay_iterations", or_zero=True)
    check_optimizer(config)
    require_fraction(config, "discount", "gae_lambda")
    require_sizes(config, "encoder_hidden", "decoder_hidden", "hidden")
