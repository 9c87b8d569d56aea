"""PEARL: off-policy meta-reinforcement learning with probabilistic context (Rakelly et al., ICML 2019).

A latent variable z describes the task. An encoder infers it from a context c: steps c_n = (o, a, r) of the task, in any
order, each of which contributes a Gaussian factor (`pearl_encoder`). The agent draws z once for each episode and acts
by it, so it explores as long as its belief about the task is wide. Soft actor-critic learns from a replay buffer of
each task, on many tasks at once.

    belief      q(z|c) ∝ Π_n N(z; μ_n, σ_n²),  N(0, I) without a context
    critics     Σ_i mean (r + γ V'(s', z) − Q_i(s, a, z))²,  z ~ q(z|c)          V' a target network, r scaled
    value       mean (V(s, z) − min_i Q_i(s, a, z) + log π(a|s, z))²,  a ~ π(·|s, z)
    actor       mean log π(a|s, z) − min_i Q_i(s, a, z) + 1e-3 (mean μ_π² + mean (log σ_π)²)
    encoder     the critics' loss + λ Σ_tasks KL(q(z|c) ‖ N(0, I)); the value's and the actor's losses do not reach it

In training the contexts come from the steps of the last visit to the task, which look like the data of a test; the
losses learn from all steps in the buffer (`pearl_replay`). Where an environment has a `sparse_reward`, contexts and
results show that one, and the losses learn from the plain reward.

An iteration visits some of the tasks. A visit begins with episodes whose z comes from the prior; in the following ones
z comes from the belief that the steps of this visit lead to, inferred anew before each episode. Each training
environment keeps its task, and all tasks of a batch are one program. In a test the context grows by one episode at a
time.

`critic_target = "critics"` is the SAC of 2018, without a value network. The paper's ablations are
`deterministic_latent`, `context_source = "all"` and `recurrent_encoder`. The defaults are for a CPU; `PUBLISHED` holds
the authors' settings for the sparse point robot.

Departures from the released code:
- Values are the networks' outputs times the scale of the rewards. With a scale of 100, a network whose outputs begin
  near 0 needs thousands of steps of Adam to reach values of −700.
- All networks take their gradient steps at the same time, so the actor and the value learn from the critics before the
  step. They share one learning rate.
- The tasks of a batch, and those to visit, are drawn without replacement.
- The policy's standard deviations lie in [e⁻⁵, e²], as in our SAC; in the released code in [e⁻²⁰, e²].
- The recurrent encoder, which the authors call incorrect in their code, is a GRU over consecutive steps, and its last
  state gives the one Gaussian.

Axes in shapes: B training tasks, P tasks that are played, M tasks of a gradient step, N steps of context, S steps for
the losses, T steps of an episode, O numbers of an observation, D of an action, Z of the latent variable, F features of
a step in the context.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_envs.contract import describes
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive
from jaxrl_hier.engine.adapting import adapter, experienced
from jaxrl_hier.engine.rollout import ended, first_episode, play_episodes
from jaxrl_hier.engine.sharding import changed, split
from jaxrl_hier.engine.types import (
    ActInput,
    Agent,
    Algorithm,
    EnvParams,
    Metrics,
    NamedArray,
    Params,
    Player,
    Tasks,
    TrainState,
    Transition,
)
from jaxrl_hier.flat.sac import policy_of, soft_value, squashed_sample
from jaxrl_hier.learning.distributions import DiagonalGaussian
from jaxrl_hier.learning.minibatches import distinct
from jaxrl_hier.learning.networks import MLP, encoder_for
from jaxrl_hier.learning.normalization import Normalized, Statistics, as_seen, learned, updated
from jaxrl_hier.learning.off_policy import (
    action_scaling,
    ensemble,
    ensemble_init,
    moved,
    require_bounds_of_all_tasks,
)
from jaxrl_hier.learning.optimization import OptimizerConfig, check_optimizer, optimizer_of
from jaxrl_hier.meta import pearl_replay
from jaxrl_hier.meta.pearl_encoder import Encoder, context_encoder, standard_normal
from jaxrl_hier.meta.pearl_relations import number_of_tasks, pearl_relations
from jaxrl_hier.meta.pearl_replay import TaskReplay, forget_recent, sample_slots
from jaxrl_hier.quantities import Quantity
from jaxrl_hier.relations import how_many, require, require_fixed_tasks
from jaxrl_hier.settings import Rate


@dataclass(frozen=True)
class Config(OptimizerConfig):
    """Settings of PEARL. The defaults are for the sparse point robot on a CPU."""

    train_tasks: int | None = None
    """number of training tasks; default: all that there are, or 100 draws from an endless distribution"""
    tasks_per_iteration: int = 10
    """tasks that an iteration visits to collect steps"""
    initial_steps: int = 200
    """steps of each task before the first iteration, not counted as its own; z from the prior; whole episodes"""
    prior_steps: int = 100
    """steps of a visit with z from the prior; whole episodes"""
    posterior_steps: int = 400
    """steps of a visit after those, with z from the belief; whole episodes"""
    extra_posterior_steps: int = 0
    """further steps with z from the belief, which only the losses learn from, not the contexts; whole episodes"""
    updates: int = 200
    """gradient steps per iteration"""
    meta_batch_size: int = 16
    """tasks in a gradient step"""
    batch_size: int = 32
    """steps of each of these tasks for the losses"""
    context_size: int = 64
    """steps of each of these tasks for the encoder"""
    latent_size: int = 5
    """numbers in z"""
    kl_weight: float = 1.0
    """weight of the divergence from the prior in the encoder's loss (λ), at least 0"""
    deterministic_latent: bool = False
    """ablation: z is the mean of the factors' means, without noise and without divergence"""
    context_source: Literal["recent", "all"] = "recent"
    """steps that the contexts of training are drawn from: those of the last visit, or (an ablation) the whole buffer"""
    recurrent_encoder: bool = False
    """ablation: a GRU over consecutive steps in place of a product over steps in any order"""
    critic_target: Literal["value", "critics"] = "value"
    """what the critics' targets are made of: a target value network, or target critics and the actor's next action"""
    next_obs_in_context: bool = False
    """contexts also show the next observation, for tasks that differ in their dynamics"""
    discount: float = 0.9
    """discount factor (γ), in [0, 1]"""
    reward_scale: float = 100.0
    """factor on the rewards in the losses; it weighs them against the entropy"""
    learning_rate: Rate = 1e-3
    """learning rate of Adam, for all networks"""
    target_rate: float = 0.005
    """share τ by which the target networks move towards the learned ones in each gradient step, in [0, 1]"""
    policy_regularization: float = 1e-3
    """weight of the mean squares of the policy's mean, before tanh, and of its log standard deviation, at least 0"""
    hidden: tuple[int, ...] = (64, 64, 64)
    """sizes of the hidden layers of actor, critics and value network"""
    encoder_hidden: tuple[int, ...] = (64, 64, 64)
    """sizes of the encoder's hidden layers; with recurrent_encoder the last one is the size of the GRU"""
    capacity: int = 800_000
    """steps that the replay buffer holds, of all tasks together"""
    eval_tasks: int = 20
    """number of test tasks"""
    eval_episodes: int = 10
    """episodes in the longest context of a test (K)"""
    eval_exploration_episodes: int = 5
    """episodes of a test with z from the prior, before the first belief is inferred"""
    normalize_observations: bool = False
    """standardise observations by their running mean and standard deviation, but for those in contexts"""

    side_by_side = "train_tasks"
    renamed: ClassVar = {
        "meta_batch": "meta_batch_size",
        "visits": "tasks_per_iteration",
        "initial": "initial_steps",
        "prior": "prior_steps",
        "posterior": "posterior_steps",
        "extra": "extra_posterior_steps",
        "batch": "batch_size",
        "context": "context_size",
        "latent": "latent_size",
        "kl": "kl_weight",
        "deterministic": "deterministic_latent",
        "context_from": "context_source",
        "recurrent": "recurrent_encoder",
        "next_observation": "next_obs_in_context",
        "regularization": "policy_regularization",
        "encoder": "encoder_hidden",
        "eval_exploration": "eval_exploration_episodes",
    }
    relations = staticmethod(pearl_relations)


PUBLISHED: dict[str, Any] = {  # the authors' settings for the sparse point robot, where they differ from the defaults
    "posterior_steps": 900,
    "updates": 1000,
    "batch_size": 256,
    "context_size": 1024,
    "learning_rate": 3e-4,
    "hidden": (300, 300, 300),
    "encoder_hidden": (200, 200, 200),
    # all steps of a task: 500 iterations visit 10 of the 80 tasks, so that one has 62 700 on average, and hardly ever
    # 95 000 (the authors' buffer holds a million)
    "capacity": 80 * 95_000,
    "eval_episodes": 20,
}

QUANTITIES = {"adaptation_step": Quantity("episodes")}


class Networks(NamedTuple):
    """The parameters: all that is learned, and the belief that the agent acts by."""

    actor: Params  # with statistics, `Normalized`, if observations are normalised
    critics: Params  # leading axis [2]
    value: Params  # () without a value network
    encoder: Params
    belief: DiagonalGaussian  # [Z] the prior, unless a belief about a task was put in its place


class Learner(NamedTuple):
    """The rest of the learner's state."""

    target: Params  # of the value network, or of the critics
    optimizer: Any


class Batch(NamedTuple):
    """What a gradient step learns from."""

    context: jax.Array  # [M, N, F]
    present: jax.Array  # [M] int32, how many steps of the context count, the first ones
    obs: jax.Array  # [M, S, O]
    action: jax.Array  # [M, S, D] in [−1, 1]
    reward: jax.Array  # [M, S]
    terminated: jax.Array  # [M, S] bool
    next_obs: jax.Array  # [M, S, O]


class Model(NamedTuple):
    """The networks as pure functions. Their inputs [..., O + Z] are observations joined with z."""

    encoder: Encoder
    policy: Callable[[Params, jax.Array], DiagonalGaussian]  # params, inputs -> before the tanh, [..., D]
    critics: Callable[[Params, jax.Array, jax.Array], jax.Array]  # params [2], inputs, actions -> [2, ...]
    value: Callable[[Params, jax.Array], jax.Array]  # params, inputs -> [...]


def modules_of(config: Config, action_size: int) -> tuple[MLP, MLP]:
    """The modules of the actor, [..., O + Z] -> [..., 2 D], and of a critic or the value network, with one output."""
    return MLP((*config.hidden, 2 * action_size)), MLP((*config.hidden, 1))


def model_of(config: Config, action_size: int) -> Model:
    """The model for D = `action_size`; values are the outputs of the networks times the scale of the rewards."""
    actor, critic = modules_of(config, action_size)

    def policy(params: Params, inputs: jax.Array) -> DiagonalGaussian:
        outputs: Any = actor.apply(learned(params), inputs)
        return policy_of(outputs)

    def critics(params: Params, inputs: jax.Array, action: jax.Array) -> jax.Array:
        return config.reward_scale * ensemble(critic)(params, inputs, action)

    def value(params: Params, inputs: jax.Array) -> jax.Array:
        outputs: Any = critic.apply(params, inputs)
        return config.reward_scale * outputs[..., 0]

    encoder = context_encoder(
        config.encoder_hidden,
        config.latent_size,
        recurrent=config.recurrent_encoder,
        deterministic=config.deterministic_latent,
    )
    return Model(encoder, policy, critics, value)


# Losses


def with_latent(obs: jax.Array, z: jax.Array) -> jax.Array:
    """Observations [M, S, O] joined with the z of their task [M, Z]: inputs [M, S, O + Z]."""
    return jnp.concatenate([obs, jnp.broadcast_to(z[:, None], (*obs.shape[:2], z.shape[-1]))], axis=-1)


def losses(
    config: Config, model: Model, params: Networks, target: Params, batch: Batch, key: jax.Array
) -> tuple[dict[str, jax.Array], Metrics]:
    """The loss terms, to be summed and minimised: the module's equations.

    Each term has a gradient for the networks that it is named after and for no others, except that the critics' loss
    also reaches the encoder.

    Args:
        target: parameters of the target value network or of the target critics.

    Returns:
        Scalars "critics", "actor", "value" (with a value network) and "kl" (without `deterministic_latent`); metrics.
    """
    key_z, key_action, key_next_action = jax.random.split(key, 3)
    stop = jax.lax.stop_gradient
    belief = model.encoder.infer(params.encoder, batch.context, batch.present)
    z = model.encoder.sample(belief, key_z)
    inputs, next_inputs = with_latent(batch.obs, stop(z)), with_latent(batch.next_obs, stop(z))

    policy = model.policy(params.actor, inputs)
    action, log_prob = squashed_sample(policy, key_action)
    soft_q = soft_value(model.critics(stop(params.critics), inputs, action), log_prob, 1.0)
    if config.critic_target == "value":
        next_value = model.value(target, next_inputs)
    else:
        next_action, next_log_prob = squashed_sample(model.policy(params.actor, next_inputs), key_next_action)
        next_value = soft_value(model.critics(target, next_inputs, next_action), next_log_prob, 1.0)
    y = stop(config.reward_scale * batch.reward + config.discount * jnp.where(batch.terminated, 0.0, next_value))
    q = model.critics(params.critics, with_latent(batch.obs, z), batch.action)

    squares = jnp.mean(policy.mean**2) + jnp.mean(policy.log_std**2)
    terms = {
        "critics": jnp.sum(jnp.mean((q - y) ** 2, axis=(1, 2))),
        "actor": config.policy_regularization * squares - jnp.mean(soft_q),
    }
    if config.critic_target == "value":
        terms["value"] = jnp.mean((model.value(params.value, inputs) - stop(soft_q)) ** 2)
    divergence = jnp.zeros(())
    if not config.deterministic_latent:
        divergence = jnp.sum(belief.kl(standard_normal(config.latent_size)))
        terms["kl"] = config.kl_weight * divergence
    metrics = {
        "critic_loss": terms["critics"],
        "kl_of_task": divergence / len(z),
        "entropy": -jnp.mean(log_prob),
        "value": jnp.mean(q),
    }
    return terms, metrics


def target_source(config: Config, params: Networks) -> Params:
    """The parameters that the target network follows."""
    return params.value if config.critic_target == "value" else params.critics


def update(
    config: Config,
    model: Model,
    optimizer: optax.GradientTransformation,
    params: Networks,
    learner: Learner,
    batch: Batch,
    key: jax.Array,
) -> tuple[Networks, Learner, Metrics]:
    """One gradient step of all networks at once; then the target network moves towards its source."""

    def loss(params: Networks) -> tuple[jax.Array, Metrics]:
        terms, metrics = losses(config, model, params, learner.target, batch, key)
        return sum(terms.values(), jnp.zeros(())), metrics

    gradient, metrics = jax.grad(loss, has_aux=True)(params)  # zero for `belief` and statistics, which stay
    step, optimizer_state = optimizer.update(gradient, learner.optimizer, params)
    params = optax.apply_updates(params, step)
    target = moved(learner.target, target_source(config, params), config.target_rate)
    return params, Learner(target, optimizer_state), metrics


def scaled(params: Networks, batch: Batch) -> tuple[Networks, Batch]:
    """The parameters with the batch's observations in their statistics, and the batch standardised by the new ones.
    Without normalisation both are as they were."""
    actor = updated(params.actor, learned(params.actor), batch.obs)
    now, then = as_seen(actor, batch.obs), as_seen(actor, batch.next_obs)
    return params._replace(actor=actor), batch._replace(obs=now, next_obs=then)


# The environment as the networks see it


class Setup(NamedTuple):
    """What acting and learning need to know: settings, environment, and how its steps become inputs of the networks."""

    config: Config
    env: Any
    horizon: int  # T, steps of an episode at most
    obs_size: int  # O
    action_size: int  # D
    encode: Callable[[Any], jax.Array]  # observations -> [..., O]
    to_action: Callable[[jax.Array], Any]  # [..., D] in [−1, 1] -> actions of the environment
    to_unit: Callable[[Any], jax.Array]  # and back
    model: Model


def setup_of(config: Config, env: Any, tasks: Tasks) -> Setup:
    """The setup for an environment with a flat, bounded Box of actions; UsageError for others."""
    to_action, to_unit = action_scaling(env, "PEARL", instead="rl2 or maml")
    require_bounds_of_all_tasks(env, tasks, "PEARL")
    observations = env.observation_space(env.default_params)
    action_size = env.action_space(env.default_params).shape[0]
    encode = encoder_for(observations)
    obs_size = jax.eval_shape(lambda: encode(observations.sample(jax.random.key(0)))).shape[0]
    model = model_of(config, action_size)
    return Setup(config, env, tasks.time_limit(), obs_size, action_size, encode, to_action, to_unit, model)


def shows_sparse_reward(env: Any) -> bool:
    """Whether contexts and results show a reward other than the one that the losses learn from."""
    return describes(env, "sparse_reward")


def context_reward(setup: Setup, steps: Transition, task: EnvParams) -> jax.Array:
    """The reward [P, N] that contexts and results show of steps [P, N, ...] of the tasks [P]."""
    if not shows_sparse_reward(setup.env):
        return steps.reward
    return jax.vmap(jax.vmap(setup.env.sparse_reward, (0, None)))(steps.next_obs, task)


def context_features(setup: Setup, steps: Transition, reward: jax.Array) -> jax.Array:
    """Steps [..., N, ...] as a context [..., N, F] that shows `reward` [..., N]."""
    parts = [setup.encode(steps.obs), setup.to_unit(steps.action), reward[..., None]]
    if setup.config.next_obs_in_context:
        parts.append(setup.encode(steps.next_obs))
    return jnp.concatenate(parts, axis=-1)


def context_of(setup: Setup, steps: Transition, task: EnvParams) -> jax.Array:
    """Steps [P, N, ...] of the tasks [P] as contexts [P, N, F]."""
    return context_features(setup, steps, context_reward(setup, steps, task))


def feature_size(setup: Setup) -> int:
    """F."""
    return setup.obs_size * (1 + setup.config.next_obs_in_context) + setup.action_size + 1


# Acting


def init_params(setup: Setup, key: jax.Array) -> Networks:
    """New parameters, with the prior as the belief."""
    config = setup.config
    actor, critic = modules_of(config, setup.action_size)
    _, key_actor, key_critics, key_value, key_encoder = jax.random.split(key, 5)
    inputs = jnp.zeros(setup.obs_size + config.latent_size)
    policy, nothing_seen = actor.init(key_actor, inputs), Statistics.none((setup.obs_size,))
    return Networks(
        actor=Normalized(policy, nothing_seen) if config.normalize_observations else policy,
        critics=ensemble_init(critic, key_critics, 2, jnp.append(inputs, jnp.zeros(setup.action_size))),
        value=critic.init(key_value, inputs) if config.critic_target == "value" else (),
        encoder=setup.model.encoder.init(key_encoder, feature_size(setup)),
        belief=standard_normal(config.latent_size),
    )


def start(setup: Setup, params: Networks, key: jax.Array) -> jax.Array:
    """The z [Z] of an episode, drawn from the belief in the parameters."""
    return setup.model.encoder.sample(params.belief, key)


def act(
    setup: Setup, params: Networks, z: jax.Array, inp: ActInput, key: jax.Array, greedy: bool
) -> tuple[Any, jax.Array, tuple[()]]:
    """An action, z [Z] unchanged, and no extras. The greedy action is the tanh of the policy's mean."""
    obs = as_seen(params.actor, setup.encode(inp.obs))
    policy = setup.model.policy(params.actor, jnp.append(obs, z))
    return setup.to_action(jnp.tanh(policy.mode() if greedy else policy.sample(key))), z, ()


def agent_of(setup: Setup) -> Agent:
    """The agent that acts by the belief in its parameters."""
    return Agent(init=partial(init_params, setup), start=partial(start, setup), act=partial(act, setup))


def play(
    setup: Setup, params: Networks, belief: DiagonalGaussian, task: EnvParams, key: jax.Array, greedy: bool = False
) -> Transition:
    """T steps of each of the tasks [P], with z drawn from `belief` [P, Z] at the start of an episode: [P, T, ...]."""

    def one(belief: DiagonalGaussian, task: EnvParams, key: jax.Array) -> Transition:
        believing = params._replace(belief=belief)
        steps = play_episodes(
            setup.env, agent_of(setup), task, believing, key, episodes=1, horizon=setup.horizon, greedy=greedy
        )
        return jax.tree.map(lambda x: x[:, 0], steps)

    return jax.vmap(one)(belief, task, jax.random.split(key, len(belief.mean)))


def first_episodes(steps: Transition) -> jax.Array:
    """Which of the steps [P, T, ...] belong to the first episode of each task, [P, T] float32 ones and zeros."""
    return first_episode(jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), steps)).T


# Collecting and sampling


def infer_from_recent(
    setup: Setup, params: Networks, buffer: TaskReplay, task: EnvParams, key: jax.Array
) -> DiagonalGaussian:
    """The beliefs [B, Z] that the recent steps of the tasks [B] lead to."""
    size, recurrent = setup.config.context_size, setup.config.recurrent_encoder
    slots, present = sample_slots(key, buffer.begin, buffer.recent, buffer.capacity, size, consecutive=recurrent)
    steps = pearl_replay.read(buffer, jnp.arange(len(buffer.recent)), slots)
    return setup.model.encoder.infer(params.encoder, context_of(setup, steps, task), present)


def collect(
    setup: Setup, params: Networks, task: EnvParams, key: jax.Array, *, prior: int, recent: int, steps: int
) -> tuple[Transition, Metrics]:
    """Visit each of the tasks [P] for a number of steps S, all multiples of the horizon.

    Args:
        prior: steps at the beginning with z from the prior.
        recent: steps at the beginning that contexts may show.
        steps: all steps of a task.

    Returns:
        The steps [P, S, ...]; the mean "return" of the episodes after the first `prior` steps, and "sparse_return"
        where contexts show another reward.
    """

    def episode(seen: TaskReplay, now: tuple[jax.Array, jax.Array]) -> tuple[TaskReplay, Any]:
        t, key = now
        key_belief, key_play = jax.random.split(key)
        inferred = infer_from_recent(setup, params, seen, task, key_belief)
        belief = jax.tree.map(lambda x, inferred: jnp.where(t < prior, x, inferred), params.belief, inferred)
        played = play(setup, params, belief, task, key_play)
        first = first_episodes(played)
        rewards = played.reward, context_reward(setup, played, task)
        returns = [jnp.mean(jnp.sum(reward * first, axis=1)) for reward in rewards]
        return pearl_replay.add(seen, played, jnp.where(t < recent, setup.horizon, 0)), (played, returns)

    times = jnp.arange(0, steps, setup.horizon)
    rows = times, jax.random.split(key, len(times))
    tasks = len(jax.tree.leaves(task)[0])
    nothing = split(TaskReplay.empty(one_step(setup, params, task), tasks, steps, always=steps))
    _, (played, (returns, shown)) = jax.lax.scan(episode, nothing, rows)
    with_belief = prior // setup.horizon  # the first episode that acts by an inferred belief
    metrics = {"return": jnp.mean(returns[with_belief:])}
    if shows_sparse_reward(setup.env):
        metrics["sparse_return"] = jnp.mean(shown[with_belief:])
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], steps, *x.shape[3:]), played), metrics


def one_step(setup: Setup, params: Networks, task: EnvParams) -> Transition:
    """The shapes of a step on one of the tasks [P], without axes."""
    belief = standard_normal(len(jax.tree.leaves(task)[0]), setup.config.latent_size)
    played = jax.eval_shape(lambda: play(setup, params, belief, task, jax.random.key(0)))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), played)


def visited(buffer: TaskReplay, steps: Transition, recent: int) -> TaskReplay:
    """The buffer with the steps [B, S, ...] of a new visit, of which contexts may show the first `recent`."""
    return pearl_replay.add(forget_recent(buffer), steps, recent)


def sample_batch(setup: Setup, buffer: TaskReplay, task: EnvParams, key: jax.Array) -> Batch:
    """A batch of tasks drawn without replacement from the B in the buffer.

    The steps for the losses are drawn from all that is stored, those of the contexts as `context_source` says.
    """
    config = setup.config
    key_task, key_context, key_steps = jax.random.split(key, 3)
    chosen = distinct(key_task, len(buffer.recent), config.meta_batch_size)
    begin, stored = buffer.stored
    everything = begin[chosen], stored[chosen]
    recent = buffer.begin[chosen], buffer.recent[chosen]
    window = recent if config.context_source == "recent" else everything
    slots, present = sample_slots(
        key_context, *window, buffer.capacity, config.context_size, consecutive=config.recurrent_encoder
    )
    shown = pearl_replay.read(buffer, chosen, slots)
    context = context_of(setup, shown, jax.tree.map(lambda x: x[chosen], task))
    slots, _ = sample_slots(key_steps, *everything, buffer.capacity, config.batch_size)
    steps = pearl_replay.read(buffer, chosen, slots)
    context, present, steps = split((context, present, steps))
    obs, next_obs = setup.encode(steps.obs), setup.encode(steps.next_obs)
    return Batch(context, present, obs, setup.to_unit(steps.action), steps.reward, steps.terminated, next_obs)


# The algorithm


def init(
    setup: Setup, optimizer: optax.GradientTransformation, tasks: Tasks, key: jax.Array, params: Any = None
) -> TrainState:
    """Parameters, new ones unless given, and a buffer with the initial steps of every training task."""
    config, num_tasks = setup.config, number_of_tasks(setup.config, how_many(tasks.train))
    key, key_params, key_tasks, key_play = jax.random.split(key, 4)
    params = init_params(setup, key_params) if params is None else params
    task = tasks.train_batch(num_tasks, key_tasks)
    steps = config.initial_steps
    visit = config.prior_steps + config.posterior_steps + config.extra_posterior_steps
    capacity = config.capacity // num_tasks
    buffer = TaskReplay.empty(one_step(setup, params, task), num_tasks, capacity, always=max(steps, visit))
    played, _ = collect(setup, params, task, key_play, prior=steps, recent=steps, steps=steps)
    buffer = visited(buffer, played, steps)
    learner = Learner(target_source(config, params), optimizer.init(params))
    return TrainState(params, learner, task, buffer, key, jnp.zeros((), jnp.int32))


def step(setup: Setup, optimizer: optax.GradientTransformation, state: TrainState) -> tuple[TrainState, Metrics]:
    """One iteration: visit some tasks, then take gradient steps on batches of all."""
    config, task = setup.config, state.world
    key_tasks, key_visit, key_learn = jax.random.split(jax.random.fold_in(state.key, state.iteration), 3)
    chosen = distinct(key_tasks, len(state.memory.recent), config.tasks_per_iteration)
    recent = config.prior_steps + config.posterior_steps
    sizes = {"prior": config.prior_steps, "recent": recent, "steps": recent + config.extra_posterior_steps}
    played, collected = collect(setup, state.params, split(jax.tree.map(lambda x: x[chosen], task)), key_visit, **sizes)
    buffer = changed(partial(visited, recent=recent), state.memory, chosen, played)

    def once(carry: tuple[Networks, Learner], key: jax.Array) -> tuple[tuple[Networks, Learner], Metrics]:
        key_batch, key_update = jax.random.split(key)
        params, batch = scaled(carry[0], sample_batch(setup, buffer, task, key_batch))
        params, learner, metrics = update(config, setup.model, optimizer, params, carry[1], batch, key_update)
        return (params, learner), metrics

    keys = jax.random.split(key_learn, config.updates)
    (params, learner), metrics = jax.lax.scan(once, (state.params, state.learner), keys)
    metrics = collected | jax.tree.map(jnp.mean, metrics)
    return TrainState(params, learner, task, buffer, state.key, state.iteration + 1), metrics


def evaluate(setup: Setup, tasks: Tasks, state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
    """Greedy episodes on the test tasks with 0 … `eval_episodes` earlier ones in the context.

    Returns:
        With axes [task, adaptation_step]: "return", of the reward that contexts show; "complete", whether the episode
        ended; "experience_episodes" and "experience_steps", what had been played on the task before. With a third
        axis: "belief_mean" and "belief_std" [Z] of the belief that z was drawn from. And "path"
        [task, adaptation_step, time, O], the observations.
    """
    config, horizon, params = setup.config, setup.horizon, state.params
    key_tasks, key_play = jax.random.split(key)
    task = tasks.test_batch(config.eval_tasks, key_tasks)
    episodes = config.eval_episodes + 1

    def episode(context: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, Any]:
        k, key = now
        known = jnp.where(k < config.eval_exploration_episodes, 0, k * horizon)
        belief = setup.model.encoder.infer(params.encoder, context, jnp.full(config.eval_tasks, known))
        played = play(setup, params, belief, task, key, greedy=True)
        total = jnp.sum(context_reward(setup, played, task) * first_episodes(played), axis=1)
        complete = jnp.any(ended(played), axis=1)
        context = jax.lax.dynamic_update_slice_in_dim(context, context_of(setup, played, task), k * horizon, axis=1)
        begun = jnp.sum(played.first, axis=1)
        return context, (total, complete, belief.mean, jnp.exp(belief.log_std), setup.encode(played.obs), begun)

    context = jnp.zeros((config.eval_tasks, episodes * horizon, feature_size(setup)))
    _, measured = jax.lax.scan(episode, context, (jnp.arange(episodes), jax.random.split(key_play, episodes)))
    total, complete, mean, std, path, begun = (jnp.swapaxes(x, 0, 1) for x in measured)
    axes, before = ("task", "adaptation_step"), begun[:, :-1]
    return {
        "return": NamedArray(total, axes),
        "complete": NamedArray(complete, axes),
        "experience_episodes": NamedArray(experienced(before), axes),
        "experience_steps": NamedArray(experienced(jnp.full_like(before, horizon)), axes),
        "path": NamedArray(path, (*axes, "time", "observation")),
        "belief_mean": NamedArray(mean, (*axes, "latent")),
        "belief_std": NamedArray(std, (*axes, "latent")),
    }


# Adapting to one task, episode by episode, as in `evaluate`


class Gathered(NamedTuple):
    """What is known of a task at test time."""

    context: jax.Array  # [N, F]
    steps: jax.Array  # [] int32, how many steps of the context count, the first ones
    episodes: jax.Array  # [] int32, how many episodes they belong to


def new_task(setup: Setup, params: Networks, key: jax.Array) -> tuple[Gathered, jax.Array]:
    """Nothing known, with room for the longest context of a test; and a z [Z] that the first episode replaces."""
    longest = (setup.config.eval_episodes + 1) * setup.horizon
    zero = jnp.zeros((), jnp.int32)
    return Gathered(jnp.zeros((longest, feature_size(setup))), zero, zero), jnp.zeros(setup.config.latent_size)


def new_episode(setup: Setup, params: Networks, known: Gathered, z: jax.Array, key: jax.Array) -> jax.Array:
    """The z [Z] of the next episode: from the prior in the first `eval_exploration_episodes`, then from the belief."""
    count = jnp.where(known.episodes < setup.config.eval_exploration_episodes, 0, known.steps)
    belief = setup.model.encoder.infer(params.encoder, known.context[None], count[None])
    return setup.model.encoder.sample(jax.tree.map(lambda x: x[0], belief), key)


def learn_episode(setup: Setup, params: Networks, known: Gathered, steps: Transition, length: jax.Array) -> Gathered:
    """Gathered with the steps [T, 1, ...] of an episode, the first `length` [1] of which were played."""
    episode = jax.tree.map(lambda x: x[:, 0], steps)
    features = context_features(setup, episode, episode.reward)
    context = jax.lax.dynamic_update_slice_in_dim(known.context, features, known.steps, axis=0)
    return Gathered(context, known.steps + length[0], known.episodes + 1)


def player_of(setup: Setup) -> Player:
    """How PEARL acts on a task and adapts to it."""
    return Player(
        new_task=partial(new_task, setup),
        new_episode=partial(new_episode, setup),
        act=lambda params, known, z, inp, key, greedy: act(setup, params, z, inp, key, greedy),
        learn=partial(learn_episode, setup),
        episodes=1,
        horizon=setup.horizon,
        most=setup.config.eval_episodes,
        final_obs=setup.config.next_obs_in_context,
    )


def adaptation_reward(setup: Setup, steps: Transition, task: EnvParams) -> jax.Array:
    """The reward [T, 1] that contexts show of steps [T, 1, ...] of one task."""
    swap = lambda x: jnp.swapaxes(x, 0, 1)
    one_task = jax.tree.map(lambda x: jnp.asarray(x)[None], task)
    return swap(context_reward(setup, jax.tree.map(swap, steps), one_task))


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """PEARL on a distribution of tasks, in an environment with a flat, bounded Box of actions.

    `TrainState.world` holds the training tasks [B] and `TrainState.memory` their TaskReplay. An agent acts by
    `params.belief`: put the belief about a task there.

    Raises:
        UsageError: a setting that cannot work, or other actions.
    """
    check(config, env, tasks)
    setup = setup_of(config, env, tasks)
    optimizer = optimizer_of(config, config.learning_rate, steps=config.updates)
    player = player_of(setup)
    steps_of_visit = config.prior_steps + config.posterior_steps + config.extra_posterior_steps
    return Algorithm(
        init=partial(init, setup, optimizer, tasks),
        step=partial(step, setup, optimizer),
        evaluate=partial(evaluate, setup, tasks),
        agent=agent_of(setup),
        env_steps=config.tasks_per_iteration * steps_of_visit,
        player=player,
        adapt=adapter(env, player, partial(adaptation_reward, setup)),
    )


def check(config: Config, env: Any, tasks: Tasks) -> None:
    """Raises UsageError for a setting or tasks that cannot work."""
    require_fixed_tasks(tasks)
    require_positive(config, "train_tasks", "tasks_per_iteration", "initial_steps", "updates", "meta_batch_size")
    require_positive(config, "batch_size", "context_size", "latent_size", "learning_rate", "reward_scale", "capacity")
    require_positive(config, "eval_tasks")
    require_positive(config, "prior_steps", "posterior_steps", "extra_posterior_steps", or_zero=True)
    require_positive(config, "kl_weight", "policy_regularization", or_zero=True)
    require_positive(config, "eval_episodes", "eval_exploration_episodes", or_zero=True)
    require_fraction(config, "discount", "target_rate")
    check_optimizer(config)
    require_choice(config, "context_source", ("recent", "all"))
    require_choice(config, "critic_target", ("value", "critics"))
    for name in ("hidden", "encoder_hidden"):
        if not getattr(config, name) or not all(size > 0 for size in getattr(config, name)):
            raise UsageError(f"{name} needs layers of positive sizes, got {getattr(config, name)}")
    require(config, config.relations(env, tasks))
