"""PEARL: off-policy meta-reinforcement learning with probabilistic context (Rakelly et al., ICML 2019).

A latent variable z says which task it is. An encoder infers it from a context, steps c_n = (o, a, r) of the task in any
order, each of which contributes a Gaussian factor; an agent that acts by a sample of z for a whole episode explores as
far as it is unsure. Soft actor-critic learns from a memory of each task, for many tasks at once.

    belief      q(z|c) ∝ Π_n N(z; μ_n, σ_n²),  so σ² = 1 / Σ_n 1/σ_n²,  μ = σ² Σ_n μ_n / σ_n²;  no context: N(0, I)
    critics     Σ_i mean (r + γ V'(s', z) − Q_i(s, a, z))²,  z ~ q(z|c)            V' a slow copy, r scaled
    value       mean (V(s, z) − min_i Q_i(s, a, z) + log π(a|s, z))²,  a ~ π(·|s, z)
    actor       mean log π(a|s, z) − min_i Q_i(s, a, z) + 1e-3 (mean μ_π² + mean (log σ_π)²)
    encoder     the critics' loss + λ Σ_tasks KL(q(z|c) ‖ N(0, I)); z is held fixed for the value and the actor

The context of training comes from recent steps alone, those of the last visit to the task, so that it looks like what a
test will see; the losses' steps come from all that is remembered. One memory serves both: the recent steps are a window
of it. Where an environment has a `sparse_reward` the context and the results show that, the losses the plain reward.

An iteration visits some of the tasks: it forgets the recent steps, plays with z from the prior, then episode by episode
with z from the belief that the visit has led to. Every world belongs to a task for good, and all tasks of a batch are
one program. At test time the context grows by an episode at a time.

`critic_target = "critics"` is the SAC of 2018 without the value network. Ablations: `deterministic_latent`,
`context_source`, `recurrent_encoder`. The defaults are for a CPU; `PUBLISHED` holds the authors' settings of the sparse
point robot.

Departures from the released code:
- Values are the networks' outputs times the scale of the rewards. With 100 a network whose outputs begin near 0 takes
  thousands of steps of Adam to reach values of −700.
- All networks step at once, the actor and the value judged by the critics before the step; one learning rate for all.
- Tasks of a batch, and tasks to visit, are drawn without replacement.
- Standard deviations of the policy lie in e⁻⁵ … e², as in our SAC; there from e⁻²⁰.
- The recurrent encoder, which the authors call incorrect in their code, is a GRU over consecutive steps, and its last
  state gives the one Gaussian.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_envs.contract import describes
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive
from jaxrl_hier.engine import replay as replay_memory
from jaxrl_hier.engine.adapting import adapter, experienced
from jaxrl_hier.engine.replay import Ring
from jaxrl_hier.engine.rollout import ended, first_episode, play_episodes
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
from jaxrl_hier.learning.networks import MLP, encoder_for
from jaxrl_hier.learning.off_policy import action_scaling, ensemble, ensemble_init, moved
from jaxrl_hier.learning.optimization import OptimizerConfig, check_optimizer, optimizer_of
from jaxrl_hier.learning.recurrent import encoded, gru
from jaxrl_hier.quantities import Quantity
from jaxrl_hier.relations import Relation, bounded, held_out, how_many, largest_divisor, next_multiple, require
from jaxrl_hier.settings import Rate


@dataclass(frozen=True)
class Config(OptimizerConfig):
    """Settings of PEARL, for the sparse point robot on a CPU."""

    train_tasks: int | None = None
    """tasks to train on; default: all there are, or 100 draws where there is no end of them"""
    tasks_per_iteration: int = 10
    """tasks that an iteration collects from"""
    initial_steps: int = 200
    """steps of each task before the first iteration, which does not count them; z from the prior"""
    prior_steps: int = 100
    """steps of a visited task with z from the prior"""
    posterior_steps: int = 400
    """steps after those with z from the belief, inferred anew before each episode"""
    extra_posterior_steps: int = 0
    """further such steps, which the losses learn from but no context shows"""
    updates: int = 200
    """gradient steps per iteration"""
    meta_batch_size: int = 16
    """tasks per gradient step"""
    batch_size: int = 32
    """steps of each of these tasks for the losses"""
    context_size: int = 64
    """steps of each of these tasks for the encoder"""
    latent_size: int = 5
    """numbers in z"""
    kl_weight: float = 1.0
    """λ, weight of the divergence from the prior; what a task may tell is counted in nats"""
    deterministic_latent: bool = False
    """ablation: z is the mean of what the encoder says of each step; no noise, no divergence"""
    context_source: Literal["recent", "all"] = "recent"
    """ablation: contexts of training from all that is remembered of a task"""
    recurrent_encoder: bool = False
    """ablation: a GRU over consecutive steps instead of a product over steps in any order"""
    critic_target: Literal["value", "critics"] = "value"
    """what the critics learn from: a slow value network, or slow critics and the actor's next action"""
    next_obs_in_context: bool = False
    """show the encoder also where a step led to, for tasks that differ in their dynamics"""
    discount: float = 0.9
    """γ"""
    reward_scale: float = 100.0
    """factor on rewards in the losses; it weighs them against the entropy"""
    learning_rate: Rate = 1e-3
    """of Adam"""
    target_rate: float = 0.005
    """τ, how far slow copies move with each gradient step"""
    policy_regularization: float = 1e-3
    """weight of the squares of the policy's mean, before tanh, and of its log standard deviation"""
    hidden: tuple[int, ...] = (64, 64, 64)
    """hidden layers of actor, critics and value"""
    encoder_hidden: tuple[int, ...] = (64, 64, 64)
    """hidden layers of the encoder; the GRU's inputs go through all but the last, which is its size"""
    capacity: int = 800_000
    """steps that the memory holds, of all tasks"""
    eval_tasks: int = 20
    """test tasks"""
    eval_episodes: int = 10
    """K, episodes in the longest context of a test"""
    eval_exploration_episodes: int = 5
    """episodes of a test with z from the prior, before the first belief"""

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

    @staticmethod
    def relations(env: Any, tasks: Tasks) -> list[Relation]:
        there_are, horizon = how_many(tasks.train), tasks.time_limit()
        return [
            bounded("train_tasks", there_are, "as many as there are to train on"),
            *(
                whole_episodes(name, horizon)
                for name in ("initial_steps", "prior_steps", "posterior_steps", "extra_posterior_steps")
            ),
            Relation(
                counts=(),
                fits=lambda s: s.posterior_steps + s.extra_posterior_steps != 0,
                gives={"posterior_steps": lambda s: horizon, "extra_posterior_steps": lambda s: horizon},
                message=lambda s: (
                    "posterior_steps and extra_posterior_steps must not both be 0: no episode would use the belief"
                ),
            ),
            Relation(
                counts=(),
                fits=lambda s: s.prior_steps + s.posterior_steps != 0,
                gives={"prior_steps": lambda s: horizon, "posterior_steps": lambda s: horizon},
                message=lambda s: "prior_steps and posterior_steps must not both be 0: contexts would be empty",
            ),
            *(among_tasks(name, there_are) for name in ("meta_batch_size", "tasks_per_iteration")),
            *memory_relations(there_are, horizon),
            held_out("eval_tasks", tasks),
            Relation(
                counts=("train_tasks",),
                fits=lambda s: tasks_of(s, there_are) % getattr(s, "devices", 1) == 0,
                gives={
                    "train_tasks": lambda s: (
                        tasks_of(s, there_are) // s.devices * s.devices or (s.train_tasks if there_are else s.devices)
                    )
                },
                message=lambda s: (
                    f"the number of training tasks must be a multiple of devices ({s.devices}), got "
                    f"{tasks_of(s, there_are)}"
                ),
            ),
        ]


PUBLISHED: dict[str, Any] = {  # of the sparse point robot, in the authors' code, where they are not the defaults
    "posterior_steps": 900,
    "updates": 1000,
    "batch_size": 256,
    "context_size": 1024,
    "learning_rate": 3e-4,
    "hidden": (300, 300, 300),
    "encoder_hidden": (200, 200, 200),
    "capacity": 80 * 70_000,  # all that their 500 iterations collect
    "eval_episodes": 20,
}


def tasks_of(config: Any, there_are: int | None) -> int:
    """How many tasks there are to train on."""
    return config.train_tasks or there_are or 100


def whole_episodes(name: str, horizon: int) -> Relation:
    """The steps called `name` are whole episodes."""
    return Relation(
        counts=(),
        fits=lambda s: getattr(s, name) % horizon == 0,
        gives={name: lambda s: next_multiple(getattr(s, name), horizon)},
        message=lambda s: f"{name} must be whole episodes of {horizon} steps, got {getattr(s, name)}",
    )


def among_tasks(name: str, there_are: int | None) -> Relation:
    """`name` counts some of the tasks to train on, which are drawn without replacement."""
    return Relation(
        counts=(name, "train_tasks"),
        fits=lambda s: getattr(s, name) <= tasks_of(s, there_are),
        gives={
            name: lambda s: tasks_of(s, there_are),
            "train_tasks": lambda s: min(getattr(s, name), there_are or getattr(s, name)),
        },
        message=lambda s: (
            f"{name} must be at most the number of training tasks ({tasks_of(s, there_are)}), got {getattr(s, name)}"
        ),
    )


def memory_relations(there_are: int | None, horizon: int) -> list[Relation]:
    """Between sizes of the memory, the same part of which belongs to each task."""
    tasks = lambda s: tasks_of(s, there_are)
    each = lambda s: s.capacity // tasks(s)
    visit = lambda s: s.prior_steps + s.posterior_steps + s.extra_posterior_steps
    needed = lambda s: max(s.initial_steps, visit(s), s.context_size)
    episodes = lambda steps: max(steps // horizon, 1) * horizon  # that fit in so many steps, at least one
    fewer = lambda s, most: s.train_tasks if there_are else largest_divisor(s.capacity, min(tasks(s), most))
    return [
        Relation(
            counts=("capacity", "train_tasks"),
            fits=lambda s: s.capacity % tasks(s) == 0,
            gives={
                "capacity": lambda s: next_multiple(s.capacity, tasks(s)),
                "train_tasks": lambda s: fewer(s, tasks(s)),
            },
            message=lambda s: (
                f"capacity must be a multiple of the number of training tasks ({tasks(s)}), got {s.capacity}"
            ),
        ),
        Relation(
            counts=("capacity", "train_tasks", "context_size"),
            fits=lambda s: each(s) >= needed(s),
            gives={
                "capacity": lambda s: needed(s) * tasks(s),
                "context_size": lambda s: min(s.context_size, max(each(s), 1)),
                "initial_steps": lambda s: min(s.initial_steps, episodes(each(s))),
                "extra_posterior_steps": lambda s: max(
                    0, s.extra_posterior_steps - max(0, visit(s) - episodes(each(s)))
                ),
                "posterior_steps": lambda s: max(horizon, s.posterior_steps - max(0, visit(s) - episodes(each(s)))),
                "prior_steps": lambda s: max(0, s.prior_steps - max(0, visit(s) - episodes(each(s)))),
                "train_tasks": lambda s: fewer(s, max(s.capacity // needed(s), 1)),
            },
            message=lambda s: (
                f"capacity leaves {each(s)} steps to each of {tasks(s)} tasks, and an initial collection, a visit or a "
                f"context has {needed(s)}; use at least {needed(s) * tasks(s)}"
            ),
        ),
    ]


class Networks(NamedTuple):
    """What is learned, and what the agent believes."""

    actor: Params
    critics: Params  # leading axis [2]
    value: Params  # () without a value network
    encoder: Params
    belief: DiagonalGaussian  # [Z] what an episode's z is drawn from: the prior, unless it was inferred for a task


class Known(NamedTuple):
    """Of one task, at test time."""

    context: jax.Array  # [N, F]
    steps: jax.Array  # [] int32, how many of them count: the first
    episodes: jax.Array  # [] int32, that they are of


class Learner(NamedTuple):
    """What comes beside it."""

    target: Params  # slow value network, or slow critics
    optimizer: Any


class Memory(NamedTuple):
    """Of B tasks: all their steps, and which of them are recent. Every leaf has the leading axis [B]."""

    ring: Ring
    begin: jax.Array  # [B] int32, slot of the first recent step
    recent: jax.Array  # [B] int32, how many they are


class Batch(NamedTuple):
    """What a gradient step learns from: N steps of context and S steps for the losses, of each of M tasks."""

    context: jax.Array  # [M, N, F]
    present: jax.Array  # [M] int32, how many of them count: the first
    obs: jax.Array  # [M, S, O]
    action: jax.Array  # [M, S, D] in [−1, 1]
    reward: jax.Array  # [M, S]
    terminated: jax.Array  # [M, S] bool
    next_obs: jax.Array  # [M, S, O]


# Inference


def product_of_gaussians(mean: jax.Array, variance: jax.Array, present: jax.Array) -> DiagonalGaussian:
    """The belief [..., Z] of factors [..., N, Z], of which `present` [..., N] bool count; N(0, I) if none does.

    Variances below 1e-7 are taken for that.
    """
    precision = jnp.where(present[..., None], 1 / jnp.maximum(variance, 1e-7), 0.0)
    total = jnp.where(jnp.any(present, axis=-1)[..., None], jnp.sum(precision, axis=-2), 1.0)
    return DiagonalGaussian(jnp.sum(precision * mean, axis=-2) / total, -0.5 * jnp.log(total))


def standard_normal(*shape: int) -> DiagonalGaussian:
    """The prior."""
    return DiagonalGaussian(jnp.zeros(shape), jnp.zeros(shape))


class Encoder(NamedTuple):
    """From contexts to beliefs."""

    init: Callable[[jax.Array, int], Params]  # key, F -> params
    infer: Callable[[Params, jax.Array, jax.Array], DiagonalGaussian]
    # params, context [M, N, F], how many steps of it count [M] -> belief [M, Z]
    draw: Callable[[DiagonalGaussian, jax.Array], jax.Array]  # belief [..., Z], key -> z [..., Z]


def context_encoder(config: Config) -> Encoder:
    """What `config` says; a deterministic belief's z is its mean."""
    draw = lambda belief, key: belief.mode() if config.deterministic_latent else belief.sample(key)
    *before, size = config.encoder_hidden
    torso, head = encoded(before, gru(size)), MLP((2 * config.latent_size,))
    factors = MLP((*config.encoder_hidden, 2 * config.latent_size))

    def init(key: jax.Array, features: int) -> Params:
        if not config.recurrent_encoder:
            return factors.init(key, jnp.zeros(features))
        key_torso, key_head = jax.random.split(key)
        return torso.init(key_torso, features), head.init(key_head, jnp.zeros(size))

    def infer(params: Params, context: jax.Array, count: jax.Array) -> DiagonalGaussian:
        present = jnp.arange(context.shape[1]) < count[:, None]
        if config.recurrent_encoder:
            start = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(count), *x.shape)), torso.start())
            never = jnp.zeros((context.shape[1], len(count)), bool)
            hidden = torso.unroll(params[0], start, jnp.swapaxes(context, 0, 1), never)[1]
            last = hidden[jnp.maximum(count - 1, 0), jnp.arange(len(count))]
            outputs: Any = head.apply(params[1], last[:, None])
            present = present[:, :1]
        else:
            outputs = factors.apply(params, context)
        mean, raw = jnp.split(outputs, 2, axis=-1)
        if config.deterministic_latent:
            total = jnp.sum(jnp.where(present[..., None], mean, 0.0), axis=1)
            mean = total / jnp.maximum(jnp.sum(present, axis=1), 1)[:, None]
            return DiagonalGaussian(mean, jnp.zeros_like(mean))
        return product_of_gaussians(mean, jax.nn.softplus(raw), present)

    return Encoder(init, infer, draw)


# Losses


class Model(NamedTuple):
    """The networks as functions; inputs [..., O + Z] are observations beside z."""

    encoder: Encoder
    policy: Callable[[Params, jax.Array], DiagonalGaussian]  # params, inputs -> before the tanh, [..., D]
    critics: Callable[[Params, jax.Array, jax.Array], jax.Array]  # params [2], inputs, actions -> [2, ...]
    value: Callable[[Params, jax.Array], jax.Array]  # params, inputs -> [...]


def model_of(config: Config, actor: MLP, critic: MLP) -> Model:
    """Values are what the networks put out times the scale of the rewards."""

    def policy(params: Params, inputs: jax.Array) -> DiagonalGaussian:
        outputs: Any = actor.apply(params, inputs)
        return policy_of(outputs)

    def critics(params: Params, inputs: jax.Array, action: jax.Array) -> jax.Array:
        return config.reward_scale * ensemble(critic)(params, inputs, action)

    def value(params: Params, inputs: jax.Array) -> jax.Array:
        outputs: Any = critic.apply(params, inputs)
        return config.reward_scale * outputs[..., 0]

    return Model(context_encoder(config), policy, critics, value)


def beside(obs: jax.Array, z: jax.Array) -> jax.Array:
    """Observations [M, S, O] and z [M, Z] as inputs [M, S, O + Z]."""
    return jnp.concatenate([obs, jnp.broadcast_to(z[:, None], (*obs.shape[:2], z.shape[-1]))], axis=-1)


def losses(
    config: Config, model: Model, params: Networks, target: Params, batch: Batch, key: jax.Array
) -> tuple[dict[str, jax.Array], Metrics]:
    """The terms whose sum is descended, each of which reaches only the networks that the module names with it."""
    key_z, key_now, key_then = jax.random.split(key, 3)
    stop = jax.lax.stop_gradient
    belief = model.encoder.infer(params.encoder, batch.context, batch.present)
    z = model.encoder.draw(belief, key_z)
    now, then = beside(batch.obs, stop(z)), beside(batch.next_obs, stop(z))

    policy = model.policy(params.actor, now)
    action, log_prob = squashed_sample(policy, key_now)
    judged = soft_value(model.critics(stop(params.critics), now, action), log_prob, 1.0)
    if config.critic_target == "value":
        following = model.value(target, then)
    else:
        later, later_log_prob = squashed_sample(model.policy(params.actor, then), key_then)
        following = soft_value(model.critics(target, then, later), later_log_prob, 1.0)
    y = stop(config.reward_scale * batch.reward + config.discount * jnp.where(batch.terminated, 0.0, following))
    q = model.critics(params.critics, beside(batch.obs, z), batch.action)

    spread = jnp.mean(policy.mean**2) + jnp.mean(policy.log_std**2)
    terms = {
        "critics": jnp.sum(jnp.mean((q - y) ** 2, axis=(1, 2))),
        "actor": config.policy_regularization * spread - jnp.mean(judged),
    }
    if config.critic_target == "value":
        terms["value"] = jnp.mean((model.value(params.value, now) - stop(judged)) ** 2)
    told = jnp.zeros(())
    if not config.deterministic_latent:
        told = jnp.sum(belief.kl(standard_normal(config.latent_size)))
        terms["kl"] = config.kl_weight * told
    metrics = {
        "critic_loss": terms["critics"],
        "kl_of_task": told / len(z),
        "entropy": -jnp.mean(log_prob),
        "value": jnp.mean(q),
    }
    return terms, metrics


def followed(config: Config, params: Networks) -> Params:
    """What the slow copy is of."""
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
    """One gradient step of all networks at once, after which the slow copy moves."""

    def loss(params: Networks) -> tuple[jax.Array, Metrics]:
        terms, metrics = losses(config, model, params, learner.target, batch, key)
        return sum(terms.values(), jnp.zeros(())), metrics

    gradient, metrics = jax.grad(loss, has_aux=True)(params)  # zero for the prior, which stays
    step, state = optimizer.update(gradient, learner.optimizer, params)
    params = optax.apply_updates(params, step)
    return params, Learner(moved(learner.target, followed(config, params), config.target_rate), state), metrics


# Memory


def window(
    key: jax.Array, begin: jax.Array, count: jax.Array, capacity: int, size: int, in_order: bool = False
) -> tuple[jax.Array, jax.Array]:
    """`size` slots of a ring [M, size] for each window of `count` [M] slots that begins at `begin` [M], and how many of
    them count [M]: none of an empty window.

    They are drawn uniformly and independently. `in_order`: consecutive ones, from a uniform start; if the window has
    fewer, only those count, and they come first.
    """
    bits = jax.random.bits(key, (len(count), 1 if in_order else size))
    if in_order:
        starts = jnp.maximum(count - size, 0) + 1
        steps = (bits % starts[:, None].astype(jnp.uint32)).astype(jnp.int32) + jnp.arange(size)
        present = jnp.minimum(count, size)
    else:
        steps = (bits % jnp.maximum(count, 1)[:, None].astype(jnp.uint32)).astype(jnp.int32)
        present = jnp.where(count > 0, size, 0)
    return (begin[:, None] + steps) % capacity, present


def remember(memory: Memory, steps: Transition, recent: Any) -> Memory:
    """The memory with steps [B, T, ...]; contexts may show the first `recent` of them."""
    ring = replay_memory.add(memory.ring, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), steps))
    return Memory(ring, memory.begin, memory.recent + recent)


def first_of_each_task(steps: Transition) -> jax.Array:
    """Which of the steps [P, T, ...] belong to the first episode of each task, [P, T] float32 ones and zeros."""
    return first_episode(jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), steps)).T


def recalled(memory: Memory, task: jax.Array, slots: jax.Array) -> Transition:
    """The steps at `slots` [M, S] of the tasks [M]: [M, S, ...]."""
    return jax.tree.map(lambda x: x[task[:, None], slots], memory.ring.steps)


class Seen(NamedTuple):
    """How steps [P, N, ...] of P tasks are seen."""

    obs: Callable[[Any], jax.Array]  # observations -> [P, N, O]
    action: Callable[[jax.Array], jax.Array]  # actions -> [P, N, D] in [−1, 1]
    context: Callable[[Transition, EnvParams], jax.Array]  # steps, tasks [P] -> [P, N, F]


def believed(
    config: Config, seen: Seen, encoder: Encoder, params: Params, memory: Memory, world: EnvParams, key: jax.Array
) -> DiagonalGaussian:
    """The belief [B, Z] that the recent steps lead to; `params` of the encoder."""
    every, capacity = jnp.arange(len(memory.recent)), memory.ring.episode.shape[1]
    slots, present = window(key, memory.begin, memory.recent, capacity, config.context_size, config.recurrent_encoder)
    return encoder.infer(params, seen.context(recalled(memory, every, slots), world), present)


def training_batch(config: Config, seen: Seen, memory: Memory, world: EnvParams, key: jax.Array) -> Batch:
    """Of tasks drawn without replacement; the losses' steps are from all that is remembered, whatever contexts show."""
    key_task, key_context, key_steps = jax.random.split(key, 3)
    count, capacity = memory.ring.episode.shape
    task = jax.random.permutation(key_task, count)[: config.meta_batch_size]
    all_of_them = (memory.ring.slot - memory.ring.size)[task], memory.ring.size[task]
    recent = memory.begin[task], memory.recent[task]
    bounds = recent if config.context_source == "recent" else all_of_them
    slots, present = window(key_context, *bounds, capacity, config.context_size, config.recurrent_encoder)
    context = seen.context(recalled(memory, task, slots), jax.tree.map(lambda x: x[task], world))
    steps = recalled(memory, task, window(key_steps, *all_of_them, capacity, config.batch_size)[0])
    obs, next_obs = seen.obs(steps.obs), seen.obs(steps.next_obs)
    return Batch(context, present, obs, seen.action(steps.action), steps.reward, steps.terminated, next_obs)


QUANTITIES = {"adaptation_step": Quantity("episodes")}


# The algorithm


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """PEARL on a distribution of tasks with a flat, bounded Box of actions.

    `TrainState.world` is the tasks [B]. An agent whose `params.belief` is that of a context acts by it.

    Raises:
        UsageError: a setting that cannot work, or other actions.
    """
    horizon = tasks.time_limit()
    to_action, to_unit = action_scaling(env, "PEARL", instead="rl2 or maml")
    _check(config, env, tasks)
    num_tasks = tasks_of(config, how_many(tasks.train))
    sparse = describes(env, "sparse_reward")
    observations = env.observation_space(env.default_params)
    size = env.action_space(env.default_params).shape[0]
    encode = encoder_for(observations)
    actor, critic = MLP((*config.hidden, 2 * size)), MLP((*config.hidden, 1))
    capacity = config.capacity // num_tasks
    optimizer = optimizer_of(config, config.learning_rate, steps=config.updates)

    model = model_of(config, actor, critic)

    def init_params(key: jax.Array) -> Params:
        keys = jax.random.split(key, 5)
        obs = encode(observations.sample(keys[0]))
        inputs = jnp.append(obs, jnp.zeros(config.latent_size))
        features = len(obs) * (1 + config.next_obs_in_context) + size + 1
        return Networks(
            actor=actor.init(keys[1], inputs),
            critics=ensemble_init(critic, keys[2], 2, jnp.append(inputs, jnp.zeros(size))),
            value=critic.init(keys[3], inputs) if config.critic_target == "value" else (),
            encoder=model.encoder.init(keys[4], features),
            belief=standard_normal(config.latent_size),
        )

    def act(params: Networks, z: jax.Array, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        gaussian = model.policy(params.actor, jnp.append(encode(inp.obs), z))
        return to_action(jnp.tanh(gaussian.mode() if greedy else gaussian.sample(key))), z, ()

    agent = Agent(init=init_params, start=lambda params, key: model.encoder.draw(params.belief, key), act=act)

    # What happens in the worlds of P tasks

    def play(
        params: Networks, belief: DiagonalGaussian, world: EnvParams, key: jax.Array, greedy: bool = False
    ) -> Transition:
        """`horizon` steps of each task, [P, T, ...], with z drawn from `belief` [P, Z] when an episode begins."""

        def one(belief: DiagonalGaussian, task: EnvParams, key: jax.Array) -> Transition:
            params_of_task = params._replace(belief=belief)
            seen = play_episodes(env, agent, task, params_of_task, key, episodes=1, horizon=horizon, greedy=greedy)
            return jax.tree.map(lambda x: x[:, 0], seen)

        return jax.vmap(one)(belief, world, jax.random.split(key, len(belief.mean)))

    def shown_reward(steps: Transition, world: EnvParams) -> jax.Array:
        """What contexts and results tell of steps [P, N, ...]: [P, N]."""
        if not sparse:
            return steps.reward
        return jax.vmap(jax.vmap(env.sparse_reward, (0, None)))(steps.next_obs, world)

    def in_context(steps: Transition, reward: jax.Array) -> jax.Array:
        """Steps [..., N, ...] as context [..., N, F], with the reward [..., N] that it shows."""
        parts = [encode(steps.obs), to_unit(steps.action), reward[..., None]]
        if config.next_obs_in_context:
            parts.append(encode(steps.next_obs))
        return jnp.concatenate(parts, axis=-1)

    def shown(steps: Transition, world: EnvParams) -> jax.Array:
        """Steps [P, N, ...] as context [P, N, F]."""
        return in_context(steps, shown_reward(steps, world))

    seen_as = Seen(encode, to_unit, shown)

    def visit(
        params: Networks, memory: Memory, world: EnvParams, key: jax.Array, prior: int, recent: int, steps: int
    ) -> tuple[Memory, Metrics]:
        """`steps` of each task: z is from the prior in the first `prior`, contexts may show the first `recent`."""

        def episode(memory: Memory, now: tuple[jax.Array, jax.Array]) -> tuple[Memory, Any]:
            t, key = now
            key_belief, key_play = jax.random.split(key)
            belief = believed(config, seen_as, model.encoder, params.encoder, memory, world, key_belief)
            belief = jax.tree.map(lambda x, inferred: jnp.where(t < prior, x, inferred), params.belief, belief)
            seen = play(params, belief, world, key_play)
            first = first_of_each_task(seen)
            totals = [jnp.mean(jnp.sum(x * first, axis=1)) for x in (seen.reward, shown_reward(seen, world))]
            return remember(memory, seen, jnp.where(t < recent, horizon, 0)), totals

        memory = Memory(memory.ring, memory.ring.slot, jnp.zeros_like(memory.recent))
        times = jnp.arange(0, steps, horizon)
        memory, (plain, shown_return) = jax.lax.scan(episode, memory, (times, jax.random.split(key, len(times))))
        inferred = prior // horizon
        told = {"return": jnp.mean(plain[inferred:])}
        return memory, told | ({"sparse_return": jnp.mean(shown_return[inferred:])} if sparse else {})

    # Learning

    def init(key: jax.Array) -> TrainState:
        key, key_params, key_tasks, key_play = jax.random.split(key, 4)
        params, world = agent.init(key_params), tasks.train_batch(num_tasks, key_tasks)
        seen = jax.eval_shape(lambda: play(params, standard_normal(num_tasks, config.latent_size), world, key_play))
        ring = Ring.empty(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), seen), num_tasks, capacity)
        nothing = Memory(ring, jnp.zeros(num_tasks, jnp.int32), jnp.zeros(num_tasks, jnp.int32))
        memory, _ = visit(
            params, nothing, world, key_play, config.initial_steps, config.initial_steps, config.initial_steps
        )
        learner = Learner(followed(config, params), optimizer.init(params))
        return TrainState(params, learner, world, memory, key, jnp.zeros((), jnp.int32))

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        key_tasks, key_visit, key_learn = jax.random.split(jax.random.fold_in(state.key, state.iteration), 3)
        visited = jax.random.permutation(key_tasks, num_tasks)[: config.tasks_per_iteration]
        those, world = jax.tree.map(lambda x: x[visited], (state.memory, state.world))
        recent = config.prior_steps + config.posterior_steps
        those, collected = visit(
            state.params, those, world, key_visit, config.prior_steps, recent, recent + config.extra_posterior_steps
        )
        memory = jax.tree.map(lambda x, new: x.at[visited].set(new), state.memory, those)

        def once(carry: tuple[Networks, Learner], key: jax.Array) -> tuple[tuple[Networks, Learner], Metrics]:
            key_batch, key_update = jax.random.split(key)
            batch = training_batch(config, seen_as, memory, state.world, key_batch)
            params, learner, metrics = update(config, model, optimizer, *carry, batch, key_update)
            return (params, learner), metrics

        keys = jax.random.split(key_learn, config.updates)
        (params, learner), metrics = jax.lax.scan(once, (state.params, state.learner), keys)
        metrics = collected | jax.tree.map(jnp.mean, metrics)
        return TrainState(params, learner, state.world, memory, state.key, state.iteration + 1), metrics

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """Greedy episodes on the test tasks with 0 … `eval_episodes` earlier ones in the context.

        "return" is that of the reward which contexts show, "complete" whether the episode ended, "path" what it
        observed; "belief_mean" and "belief_std" are of the belief that its z was drawn from. "experience_episodes" and
        "experience_steps" are what had been played on the task before.
        """
        key_tasks, key_play = jax.random.split(key)
        world = tasks.test_batch(config.eval_tasks, key_tasks)
        episodes, params = config.eval_episodes + 1, state.params

        def episode(context: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, Any]:
            k, key = now
            known = jnp.where(k < config.eval_exploration_episodes, 0, k * horizon)
            belief = model.encoder.infer(params.encoder, context, jnp.full(config.eval_tasks, known))
            seen = play(params, belief, world, key, greedy=True)
            first = first_of_each_task(seen)
            total = jnp.sum(shown_reward(seen, world) * first, axis=1)
            complete = jnp.any(ended(seen), axis=1)
            context = jax.lax.dynamic_update_slice_in_dim(context, shown(seen, world), k * horizon, axis=1)
            begun = jnp.sum(seen.first, axis=1)
            return context, (total, complete, belief.mean, jnp.exp(belief.log_std), encode(seen.obs), begun)

        features = jax.eval_shape(lambda memory: shown(memory.ring.steps, state.world), state.memory).shape[-1]
        context = jnp.zeros((config.eval_tasks, episodes * horizon, features))
        _, told = jax.lax.scan(episode, context, (jnp.arange(episodes), jax.random.split(key_play, episodes)))
        total, complete, mean, std, path, begun = (jnp.swapaxes(x, 0, 1) for x in told)
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

    # Step by step: what is done in the meta-test, of one task

    longest = (config.eval_episodes + 1) * horizon

    def new_task(params: Networks, key: jax.Array) -> tuple[Known, jax.Array]:
        features = len(jax.eval_shape(lambda: encode(observations.sample(key))))
        features += features * config.next_obs_in_context + size + 1
        zero = jnp.zeros((), jnp.int32)
        return Known(jnp.zeros((longest, features)), zero, zero), jnp.zeros(config.latent_size)

    def new_episode(params: Networks, known: Known, z: jax.Array, key: jax.Array) -> jax.Array:
        told = jnp.where(known.episodes < config.eval_exploration_episodes, 0, known.steps)
        belief = model.encoder.infer(params.encoder, known.context[None], told[None])
        return model.encoder.draw(jax.tree.map(lambda x: x[0], belief), key)

    def learn(params: Networks, known: Known, steps: Transition, length: jax.Array) -> Known:
        episode = jax.tree.map(lambda x: x[:, 0], steps)
        context = in_context(episode, episode.reward)
        context = jax.lax.dynamic_update_slice_in_dim(known.context, context, known.steps, axis=0)
        return Known(context, known.steps + length[0], known.episodes + 1)

    player = Player(
        new_task=new_task,
        new_episode=new_episode,
        act=lambda params, known, z, inp, key, greedy: act(params, z, inp, key, greedy),
        learn=learn,
        episodes=1,
        horizon=horizon,
        most=config.eval_episodes,
        final_obs=config.next_obs_in_context,
    )

    def reward_of(steps: Transition, task: EnvParams) -> jax.Array:
        one = lambda x: jnp.swapaxes(x, 0, 1)
        return one(shown_reward(jax.tree.map(one, steps), jax.tree.map(lambda x: jnp.asarray(x)[None], task)))

    env_steps = config.tasks_per_iteration * (
        config.prior_steps + config.posterior_steps + config.extra_posterior_steps
    )
    adapt = adapter(env, player, reward_of)
    return Algorithm(init, step, evaluate, agent, env_steps, player=player, adapt=adapt)


def _check(config: Config, env: Any, tasks: Tasks) -> None:
    """Raises UsageError for a setting that cannot work."""
    require_positive(
        config,
        "train_tasks",
        "tasks_per_iteration",
        "initial_steps",
        "updates",
        "meta_batch_size",
        "batch_size",
        "context_size",
        "latent_size",
    )
    require_positive(config, "learning_rate", "reward_scale", "capacity", "eval_tasks")
    require_positive(
        config,
        "prior_steps",
        "posterior_steps",
        "extra_posterior_steps",
        "kl_weight",
        "policy_regularization",
        "eval_episodes",
        "eval_exploration_episodes",
        or_zero=True,
    )
    require_fraction(config, "discount", "target_rate")
    check_optimizer(config)
    require_choice(config, "context_source", ("recent", "all"))
    require_choice(config, "critic_target", ("value", "critics"))
    for name in ("hidden", "encoder_hidden"):
        if not getattr(config, name) or not all(size > 0 for size in getattr(config, name)):
            raise UsageError(f"{name} needs layers of positive sizes, got {getattr(config, name)}")
    require(config, config.relations(env, tasks))
