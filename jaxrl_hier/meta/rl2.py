"""RL²: fast reinforcement learning via slow reinforcement learning (Duan et al., 2016), and the same thing as an
advantage actor-critic: Learning to reinforcement learn (Wang et al., 2016).

What learns a task is the hidden state of a recurrent policy. A trial is n episodes of one task played as one
(`jaxrl_envs.trial.Trial`, which `make` wraps around the environment), and an ordinary algorithm maximises the
discounted reward of the whole trial. The hidden state is kept from episode to episode and begins anew with a trial;
returns and back-propagation run across the episodes' ends.

    δ_t = r_t + γ V(h_{t+1}) − V(h_t),   A_t = δ_t + γ λ A_{t+1}       over the trial
    policy, ppo   −min(ρ_t A_t, clip(ρ_t, 1 − ε, 1 + ε) A_t),  ρ_t = π(a_t | h_t) / π_old(a_t | h_t), A standardised
    policy, a2c   −log π(a_t | h_t) A_t
    value         ½ (A_t + V_old(h_t) − V(h_t))²

A rollout is whole trials where trials are of one length. Where a trial goes on behind a rollout's end, the next one
goes on from the stored hidden state; of the last step only the value is used, to bootstrap those before it.

The preset is that of the paper's released results: λ = 0.3, γ = 0.99, ratios clipped at 0.1, 5 epochs of minibatches of
128 whole trials, Adam with 1e-3, gradients clipped at norm 40, no entropy bonus. Wang et al. is `learner = "a2c"`,
`memory = "lstm"`, `memory_size = 48`, `trial_number = True`, `entropy_weight = 1`, `entropy_decay_iterations`,
`optimizer = "rmsprop"`.

Departures from the released code:
- No line search on the KL after the update, and no weight normalisation.
- The GRU's candidate is bounded by tanh; the released code's ReLU is `memory = "gru-relu"`.
- The value is regressed on the λ-return, not on the return.
- Minibatches are stratified: each has one of every few neighbouring trials, in place of any trials (`shuffled`).
- A rollout is fewer steps than its 250 000 per iteration, and the hidden state smaller than its 256: what two cores
  learn most from in a given time. `environments` and `memory_size` set them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_envs.trial import Trial
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive, require_sizes
from jaxrl_hier.engine.adapting import adapter, experienced
from jaxrl_hier.engine.evaluation import play_first
from jaxrl_hier.engine.loops import online
from jaxrl_hier.engine.rollout import begin
from jaxrl_hier.engine.types import (
    ActInput,
    Agent,
    Algorithm,
    Metrics,
    NamedArray,
    Params,
    Player,
    Tasks,
    TrainState,
    Transition,
    World,
)
from jaxrl_hier.learning.advantages import generalized_advantage, standardize
from jaxrl_hier.learning.networks import MLP, NetworkConfig, check_network, picture_shape, policy_for
from jaxrl_hier.learning.normalization import Update, learned, normalizing
from jaxrl_hier.learning.optimization import OptimizerConfig, check_optimizer, clipped, linear_over, schedule
from jaxrl_hier.learning.recurrent import MEMORIES, encoded, memory, seeing
from jaxrl_hier.learning.tables import begin_learning
from jaxrl_hier.quantities import Quantity
from jaxrl_hier.relations import Relation, held_out, largest_divisor, multiple, next_multiple, require
from jaxrl_hier.settings import Rate


@dataclass(frozen=True)
class Config(OptimizerConfig, NetworkConfig):
    """Settings of RL²."""

    learner: Literal["ppo", "a2c"] = "ppo"
    """proximal policy optimisation, or one step of an advantage actor-critic per rollout"""
    episodes_per_trial: int = 1
    """inner episodes per trial; all pulls of a bandit are one episode"""
    trial_number: bool = False
    """tell the agent how much of the trial is over"""
    memory: Literal["gru", "gru-relu", "lstm", "linear", "none"] = "gru"
    """what carries information through a trial; the paper has gru-relu"""
    memory_size: int = 64
    """numbers in the hidden state"""
    separate_critic: bool = True
    """a memory of its own for the value"""
    encoder_hidden: tuple[int, ...] = ()
    """layers of ReLU between observation and memory"""
    remat_steps: int = 0
    """steps that back-propagation computes again at a time, to save memory; 0: it keeps everything"""
    environments: int = 1024
    """trials side by side"""
    rollout_length: int | None = None
    """steps of each per iteration; default: the time limit of a trial"""
    discount: float = 0.99
    """γ"""
    gae_lambda: float = 0.3
    """λ of the advantages"""
    clip: float = 0.1
    """ppo: ε, how far a ratio may move"""
    epochs: int = 5
    """ppo: times that each rollout is learned from"""
    minibatch_size: int = 128
    """ppo: trials per gradient step"""
    learning_rate: Rate = 1e-3
    """of the optimiser"""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """how gradients become steps"""
    max_grad_norm: float | None = 40.0
    """bound on the norm of the whole gradient"""
    critic_weight: float = 0.5
    """weight of the value's loss"""
    value_scale: float = 1.0
    """factor on the value head's output, of the order of the returns; it sets how fast values are learned"""
    entropy_weight: float = 0.0
    """weight of the entropy bonus"""
    entropy_decay_iterations: int = 0
    """iterations over which that weight falls to zero; 0: it stays"""
    normalize_observations: bool = False
    """scale observations, what was done and received included, by their running mean and standard deviation, and clip
    them to ±5"""
    eval_tasks: int = 1000
    """fresh tasks that an evaluation plays one trial of each"""

    renamed: ClassVar = {
        "learning_rate_anneal": lambda iterations, kept: linear_over(iterations),
        "episodes": "episodes_per_trial",
        "size": "memory_size",
        "separate": "separate_critic",
        "encoder": "encoder_hidden",
        "chunk": "remat_steps",
        "minibatch": "minibatch_size",
        "critic": "critic_weight",
        "entropy": "entropy_weight",
        "entropy_anneal": "entropy_decay_iterations",
        "normalize": "normalize_observations",
        "length": "rollout_length",
    }

    @staticmethod
    def relations(env: Any, tasks: Tasks) -> list[Relation]:
        trial = lambda s: tasks.time_limit() * (1 if isinstance(env, Trial) else s.episodes_per_trial)
        steps = lambda s: s.rollout_length or trial(s)
        parts = multiple("environments", "minibatch_size")
        return [
            parts._replace(
                fits=lambda s: s.learner != "ppo" or parts.fits(s),
                message=lambda s: (
                    f"environments ({s.environments}) must be a multiple of minibatch_size ({s.minibatch_size}), "
                    "the trials of a gradient step"
                ),
            ),
            Relation(
                counts=("rollout_length", "episodes_per_trial", "remat_steps"),
                fits=lambda s: steps(s) % s.remat_steps == 0,
                gives={
                    "rollout_length": lambda s: next_multiple(steps(s), s.remat_steps),
                    "remat_steps": lambda s: largest_divisor(steps(s), s.remat_steps),
                },
                message=lambda s: (
                    f"the steps of a rollout ({steps(s)}) must be a multiple of remat_steps ({s.remat_steps})"
                ),
            ),
            held_out("eval_tasks", tasks),
        ]


class Acted(NamedTuple):
    """What acting says about a step; the extras of a transition."""

    log_prob: jax.Array  # [] of the action
    value: jax.Array  # [] V(h_t)


class Batch(NamedTuple):
    """What is learned from: T steps of B trials."""

    carry: Any  # [1, B, ...] hidden state at the first step
    obs: jax.Array  # [T, B, F]
    first: jax.Array  # [T, B] bool, a trial's first step
    action: jax.Array  # [T, B, ...]
    log_prob: jax.Array  # [T, B]
    advantage: jax.Array  # [T, B]
    target: jax.Array  # [T, B] for the value
    weight: jax.Array  # [T, B] 1 on the steps that count, else 0


# Advantages and losses


def trial_advantage(
    reward: jax.Array, value: jax.Array, terminated: jax.Array, discount: Any, lam: Any
) -> tuple[jax.Array, jax.Array]:
    """A_t [T, B] over trials, and the weight [T, B] that a step has: 0 where nothing is known of what follows it.

    Args:
        terminated: [T, B], the trial's end. Where a trial goes on after the last row, that row's value bootstraps those
            before it, and its own advantage is zero.
    """
    cut = ~terminated[-1]
    weight = jnp.ones_like(reward).at[-1].set(jnp.where(cut, 0.0, 1.0))
    reward = reward.at[-1].set(jnp.where(cut, value[-1], reward[-1]))
    follows = jnp.where(terminated, 0.0, discount).at[-1].set(0.0)
    return generalized_advantage(reward, value, follows, lam), weight


def ppo_loss(log_prob: jax.Array, old: jax.Array, advantage: jax.Array, clip: Any) -> jax.Array:
    """−min(ρ A, clip(ρ, 1 − ε, 1 + ε) A), of each step."""
    ratio = jnp.exp(log_prob - old)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def annealed(iteration: jax.Array, iterations: int) -> Any:
    """1, falling to 0 in a line over so many iterations; 1 for 0 of them."""
    return jnp.maximum(1.0 - iteration / iterations, 0.0) if iterations else 1.0


def shuffled(key: jax.Array, tree: Any, minibatches: int) -> Any:
    """Leaves [T, B, ...] as `minibatches` random parts of the B columns, [minibatches, T, B / minibatches, ...].

    Each part takes one of every `minibatches` neighbours: on several devices no column leaves the one that holds it.
    """
    columns = jax.tree.leaves(tree)[0].shape[1]
    parts = jnp.broadcast_to(jnp.arange(minibatches), (columns // minibatches, minibatches))
    parts = jax.random.permutation(key, parts, axis=1, independent=True)

    def part(x: jax.Array) -> jax.Array:
        grouped = x.reshape(x.shape[0], *parts.shape, *x.shape[2:])
        take = jax.vmap(lambda group, order: jnp.moveaxis(group[:, order], 1, 0), in_axes=(1, 0), out_axes=2)
        return take(grouped, parts)

    return jax.tree.map(part, tree)


# The network


class Network(NamedTuple):
    """A memory for the policy and one for the value, or one for both, with a head each. A distribution and a value for
    every step come out."""

    init: Callable[[jax.Array], Params]  # key -> params
    start: Callable[[], Any]  # the hidden state before a trial's first step
    step: Callable[[Params, Any, jax.Array], tuple[Any, Any, jax.Array]]
    # params, hidden state, obs [F] -> hidden state, distribution, value []
    unroll: Callable[[Params, Any, jax.Array, jax.Array], tuple[Any, jax.Array]]
    # params, hidden state [B], obs [T, B, F], first [T, B] -> distribution, value [T, B]


def network(config: Config, env: Trial) -> Network:
    """What `config` says, for the observations and actions of `env`."""
    torso = encoded(config.encoder_hidden, memory(config.memory, config.memory_size, config.remat_steps))
    if config.network == "cnn":
        torso = seeing(picture_shape(env.env.observation_space(env.default_params.task)), config.channels, torso)
    torsos = (torso, torso) if config.separate_critic else (torso,)
    policy, value_head = policy_for(env.action_space(env.default_params), ()), MLP((1,))
    features = env.observation_space(env.default_params).shape[0]

    def init(key: jax.Array) -> Params:
        key_policy, key_value, *keys = jax.random.split(key, 4)
        return {
            "torsos": [torso.init(key, features) for torso, key in zip(torsos, keys)],
            "policy": policy.init(key_policy, jnp.zeros(config.memory_size)),
            "value": value_head.init(key_value, jnp.zeros(config.memory_size)),
        }

    def heads(params: Params, policy_hidden: jax.Array, value_hidden: jax.Array) -> tuple[Any, jax.Array]:
        value: Any = value_head.apply(params["value"], value_hidden)
        return policy.apply(params["policy"], policy_hidden), config.value_scale * value[..., 0]

    def step(params: Params, carry: Any, obs: jax.Array) -> tuple[Any, Any, jax.Array]:
        carry, hidden = zip(*(torso.step(p, c, obs) for torso, p, c in zip(torsos, params["torsos"], carry)))
        return carry, *heads(params, hidden[0], hidden[-1])

    def unroll(params: Params, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, jax.Array]:
        hidden = [torso.unroll(p, c, obs, first)[1] for torso, p, c in zip(torsos, params["torsos"], carry)]
        return heads(params, hidden[0], hidden[-1])

    return Network(init, lambda: tuple(torso.start() for torso in torsos), step, unroll)


def batch_loss(
    config: Config, net: Network, params: Params, batch: Batch, entropy_weight: Any
) -> tuple[jax.Array, Metrics]:
    """What is minimised on a batch, a mean over the steps that count, and its parts."""
    carry = jax.tree.map(lambda x: x[0], batch.carry)
    distribution, value = net.unroll(params, carry, batch.obs, batch.first)
    log_prob = distribution.log_prob(batch.action)
    mean = lambda x: jnp.sum(batch.weight * x) / jnp.sum(batch.weight)
    if config.learner == "ppo":
        per_step = ppo_loss(log_prob, batch.log_prob, batch.advantage, config.clip)
    else:
        per_step = -log_prob * batch.advantage
    value_loss, entropy = mean(0.5 * (batch.target - value) ** 2), mean(distribution.entropy())
    total = mean(per_step) + config.critic_weight * value_loss - entropy_weight * entropy
    kl = mean(batch.log_prob - log_prob)  # from the policy that acted, estimated
    return total, {"value_loss": value_loss, "policy_entropy": entropy, "kl": kl}


def over_epochs(
    gradient_step: Callable[[Any, Batch], tuple[Any, Any]],
    state: Any,
    batch: Batch,
    key: jax.Array,
    epochs: int,
    minibatches: int,
) -> tuple[Any, Any]:
    """`gradient_step(state, part)` on each minibatch, in `epochs` rounds, for each of which the batch is parted anew.

    Returns:
        The state after the last step, and what each step says besides, [epochs, minibatches, ...].
    """

    def epoch(state: Any, key: jax.Array) -> tuple[Any, Any]:
        return jax.lax.scan(gradient_step, state, shuffled(key, batch, minibatches))

    return jax.lax.scan(epoch, state, jax.random.split(key, epochs))


QUANTITIES = {
    "logged_return": Quantity("mean return of a trial"),
    "logged_episode_length": Quantity("mean steps of a trial", least=0.0),
    "trial_return": Quantity("mean return of a trial"),
    "adaptation_step": Quantity("episodes"),
}


# The algorithm


class Remembered(NamedTuple):
    """Within a trial, from step to step and from episode to episode."""

    hidden: Any
    time: jax.Array  # [] int32, steps since the trial's start
    limit: jax.Array  # [] int32, steps of the longest trial; no constant, by which XLA would divide in another way


def trial_player(agent: Agent, env: Trial, limit: int) -> Player:
    """Plays the environment that is inside the trials; what a trial shows beside its observations is made here."""

    def new_task(params: Params, key: jax.Array) -> tuple[Any, Remembered]:
        return (), Remembered(agent.start(params, key), jnp.zeros((), jnp.int32), jnp.full((), limit, jnp.int32))

    def act(params: Params, memory: Any, carry: Remembered, inp: ActInput, key: jax.Array, greedy: bool) -> Any:
        task = env.env.default_params
        obs = env.observe(inp.obs, inp.prev_action, inp.prev_reward, inp.first, carry.time, carry.limit, task)
        action, hidden, extras = agent.act(params, carry.hidden, inp._replace(obs=obs), key, greedy)
        return action, Remembered(hidden, carry.time + 1, carry.limit), extras

    return Player(new_task, lambda params, memory, carry, key: carry, act, episodes=1, most=env.episodes)


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """RL² on a distribution of tasks, with discrete or continuous actions.

    `env` is wrapped in a `Trial` of `episodes_per_trial` episodes, unless it is a `Trial` already; `tasks` are then the
    trial's own.

    Learner: the optimiser's state and the number of iterations.

    Raises:
        UsageError: a setting that cannot work, or an environment that cannot be played in trials.
    """
    require_choice(config, "learner", ("ppo", "a2c"))
    require_choice(config, "optimizer", ("adam", "rmsprop"))
    require_choice(config, "memory", tuple(MEMORIES))
    require_positive(config, "memory_size", "environments", "rollout_length", "epochs", "minibatch_size", "eval_tasks")
    require_positive(config, "learning_rate", "clip", "value_scale")
    require_positive(config, "remat_steps", "critic_weight", "entropy_weight", "entropy_decay_iterations", or_zero=True)
    check_optimizer(config)
    check_network(config)
    require_fraction(config, "discount", "gae_lambda")
    require_sizes(config, "encoder_hidden")
    ppo = config.learner == "ppo"
    own_trials = isinstance(env, Trial)  # of the user, who plays them as they are
    if not own_trials:
        try:
            env = Trial(env, config.episodes_per_trial, config.trial_number)
        except ValueError as error:
            raise UsageError(str(error)) from None
        tasks = env.tasks_of(tasks)
    horizon = tasks.time_limit()
    length = config.rollout_length or horizon
    require(config, config.relations(env, tasks))
    net = network(config, env)
    rule = {"adam": optax.adam, "rmsprop": optax.rmsprop}[config.optimizer](config.learning_rate)
    optimizer, share = clipped(config, rule), schedule(config, 1.0)

    def act(params: Params, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        carry, distribution, value = net.step(params, carry, inp.obs)
        action = distribution.mode() if greedy else distribution.sample(key)
        return action, carry, Acted(distribution.log_prob(action), value)

    agent = Agent(init=net.init, start=lambda params, key: net.start(), act=act)
    loss = partial(batch_loss, config, net)

    def update(
        params: Params, learner: Any, before: World, t: Transition, key: jax.Array
    ) -> tuple[Params, Any, Metrics]:
        optimizer_state, iteration = learner
        did: Acted = t.extras
        advantage, weight = trial_advantage(t.reward, did.value, t.terminated, config.discount, config.gae_lambda)
        target = advantage + did.value
        if ppo:
            advantage = standardize(advantage, weight)
        carry = jax.tree.map(lambda x: x[None], before.carry)
        batch = Batch(carry, t.obs, t.first, t.action, did.log_prob, advantage, target, weight)
        entropy_weight = config.entropy_weight * annealed(iteration, config.entropy_decay_iterations)
        rate = share(iteration)  # of the learning rate

        def gradient_step(state: tuple[Params, Any], part: Batch) -> tuple[tuple[Params, Any], Metrics]:
            params, optimizer_state = state
            gradient, metrics = jax.grad(loss, has_aux=True)(params, part, entropy_weight)
            step, optimizer_state = optimizer.update(gradient, optimizer_state, params)
            step = jax.tree.map(lambda x: rate * x, step)
            metrics["grad_norm"] = optax.global_norm(gradient)
            return (optax.apply_updates(params, step), optimizer_state), metrics

        state = (params, optimizer_state)
        if ppo:
            parts = config.environments // config.minibatch_size
            state, metrics = over_epochs(gradient_step, state, batch, key, config.epochs, parts)
        else:
            state, metrics = gradient_step(state, batch)
        params, optimizer_state = state
        return params, (optimizer_state, iteration + 1), jax.tree.map(jnp.mean, metrics)

    learn: Update = update
    if config.normalize_observations:
        agent, learn = normalizing(agent, update, env.observation_space(env.default_params))
    player = None if own_trials else trial_player(agent, env, horizon)

    def init(key: jax.Array) -> TrainState:
        state = begin_learning(env, agent, tasks, key, environments=config.environments)
        return replace(state, learner=(optimizer.init(learned(state.params)), jnp.zeros((), jnp.int32)))

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """One trial of each test task, actions drawn as in training: "trial_return" and "complete" [task], and of each
        inner episode "return" and "length" [task, adaptation_step]. "experience_episodes" and "experience_steps" are
        what had been played on the task before."""
        key_tasks, key_play = jax.random.split(key)
        test = tasks.test_batch(config.eval_tasks, key_tasks)
        keys = jax.random.split(key_play, config.eval_tasks)
        one = lambda task, key: begin(env, agent, Tasks(sample=lambda _: task), state.params, key)

        def add(inner: Any, t: Transition, success: jax.Array, on: jax.Array) -> Any:
            episode, returns, lengths = inner
            episode += env.first_of_episode(t.obs)
            belongs = on[:, None] * jax.nn.one_hot(episode, env.episodes)
            return episode, returns + t.reward[:, None] * belongs, lengths + belongs

        nothing = jnp.zeros((config.eval_tasks, env.episodes), jnp.float32)
        before = jnp.full(config.eval_tasks, -1, jnp.int32), nothing, nothing
        worlds = jax.vmap(one)(test, keys)
        axes = ("task", "adaptation_step")
        trials, (_, returns, lengths) = play_first(env, agent, tasks, state.params, worlds, add, before, greedy=False)
        return {
            "trial_return": NamedArray(trials.returns, ("task",)),
            "complete": NamedArray(trials.complete, ("task",)),
            "return": NamedArray(returns, axes),
            "length": NamedArray(lengths, axes),
            "experience_episodes": NamedArray(experienced(jnp.ones_like(lengths[:, :-1])), axes),
            "experience_steps": NamedArray(experienced(lengths[:, :-1]), axes),
        }

    step = online(env, agent, tasks, learn, length=length)
    env_steps = config.environments * length
    adapt = player and adapter(env.env, player)
    return Algorithm(init, step, evaluate, agent, env_steps, player=player, adapt=adapt)
