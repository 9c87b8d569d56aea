"""RL²: fast reinforcement learning via slow reinforcement learning (Duan et al., 2016), and the same idea as an
advantage actor-critic: Learning to reinforcement learn (Wang et al., 2016).

The hidden state of a recurrent policy learns a task. A trial is n episodes of one task played as one
(`jaxrl_envs.trial.Trial`, which `make` wraps around the environment), and an ordinary algorithm maximises the
discounted reward of the whole trial. The hidden state persists from episode to episode and is reset between trials;
returns and back-propagation cross the ends of the episodes.

    δ_t = r_t + γ V(h_{t+1}) − V(h_t),   A_t = δ_t + γ λ A_{t+1}       over the trial
    policy, ppo   −min(ρ_t A_t, clip(ρ_t, 1 − ε, 1 + ε) A_t),  ρ_t = π(a_t | h_t) / π_old(a_t | h_t), A standardised
    policy, a2c   −log π(a_t | h_t) A_t
    value         ½ (A_t + V_old(h_t) − V(h_t))²

The loss is the policy's plus `critic_weight` times the value's, less an entropy bonus, a mean over steps.

With `value_sweeps` the observations also show estimates of the task's action values, from a model that is counted in
the trial: RL³ (Bhatia, Nashed & Zilberstein, 2023; `jaxrl_envs.estimating_trial`), the preset `rl3`.

With options in the place of actions (`make`, `combined.rl2_options`) the same holds for the decision process over them.

Nothing follows the end of a trial: what is maximised is its reward, also with one episode a trial (`recurrent-ppo`),
whose time limit PPO would bootstrap beyond.

By default a rollout is a whole trial, where trials have one length. Where a trial continues after the end of a rollout,
the next rollout resumes from the stored hidden state; of the last step only the value is used, to bootstrap the steps
before it. No gradient crosses that end: a memory learns to keep only what is seen and used within one rollout. Trials
that end before their time limit begin anywhere in a rollout, so rollouts should then be several times as long as a
trial (`python -m benchmarks run memories`: four times the way through a T-maze).

The preset is that of the paper's released results: λ = 0.3, γ = 0.99, ratios clipped at 0.1, 5 epochs of minibatches of
128 whole trials, Adam with 1e-3, gradients clipped at norm 40, no entropy bonus. Wang et al. is `learner = "a2c"`,
`memory = "lstm"`, `memory_size = 48`, `trial_number = True`, `entropy_weight = 1`, `entropy_decay_iterations`,
`optimizer = "rmsprop"`.

Departures from the released code:
- No line search on the KL divergence after the update, and no weight normalisation.
- The GRU's candidate is bounded by tanh; the released code's ReLU is `memory = "gru-relu"`.
- The value is regressed on the λ-return, not on the return.
- Minibatches are stratified: each takes one of every few neighbouring trials, not any trials (`learning.minibatches`).
- A rollout is shorter than its 250 000 steps per iteration, and the hidden state smaller than its 256 numbers; these
  sizes learned most in a given time on two cores. `environments` and `memory_size` set them.

Axes in shapes: B trials side by side, T steps of a rollout, F numbers of an observation, n episodes of a trial, N test
tasks.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_envs.estimating_trial import EstimatingTrial
from jaxrl_envs.trial import Trial
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive, require_sizes
from jaxrl_hier.engine.adapting import adapter, experienced
from jaxrl_hier.engine.evaluation import play_first, present
from jaxrl_hier.engine.loops import Update, begin_learning, online
from jaxrl_hier.engine.rollout import begin, ended
from jaxrl_hier.engine.sharding import each_device
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
from jaxrl_hier.learning.advantages import rollout_advantage, standardize, weighted_mean
from jaxrl_hier.learning.minibatches import descent, over_epochs
from jaxrl_hier.learning.networks import MLP, NetworkConfig, check_network, picture_shape, policy_for
from jaxrl_hier.learning.normalization import learned, normalizing
from jaxrl_hier.learning.optimization import (
    OptimizerConfig,
    check_optimizer,
    clipped,
    linear_decay,
    linear_over,
    schedule,
)
from jaxrl_hier.learning.policy_losses import clipped_policy_loss
from jaxrl_hier.learning.recurrent import MEMORIES, memory, with_cnn, with_mlp
from jaxrl_hier.quantities import Quantity
from jaxrl_hier.relations import Relation, held_out, largest_divisor, multiple, next_multiple, require
from jaxrl_hier.settings import Rate


def trial_steps(env: Any, tasks: Tasks, episodes: int) -> int:
    """The time limit of a trial; `tasks` are those of the environment, or of its trials where it is a `Trial`."""
    return tasks.time_limit() * (1 if isinstance(env, Trial) else episodes)


def bootstrapped(env: Any, tasks: Tasks) -> Relation:
    """A rollout ends with its trials or has a step to learn from before the last one, which gives it its value."""
    return Relation(
        counts=("rollout_length",),
        fits=lambda s: s.rollout_length != 1 or trial_steps(env, tasks, s.episodes_per_trial) == 1,
        gives={"rollout_length": lambda s: 2},
        message=lambda s: (
            "rollout_length must be at least 2, got 1: the value of its last step stands for what follows, and nothing "
            "is learned from that step itself"
        ),
    )


@dataclass(frozen=True)
class Config(OptimizerConfig, NetworkConfig):
    """Settings of RL²."""

    learner: Literal["ppo", "a2c"] = "ppo"
    """proximal policy optimisation, or one step of an advantage actor-critic per rollout"""
    episodes_per_trial: int = 1
    """episodes of a trial (n); all pulls of a bandit are one episode"""
    trial_number: bool = False
    """add the elapsed share of the trial to the observations"""
    value_sweeps: int = 0
    """add estimates of action values and numbers of visits to the observations (RL³): so many sweeps of value iteration
    on what was counted in the trial, before each step; for Discrete observations and actions. 0: none"""
    memory: Literal["gru", "gru-relu", "lstm", "linear", "s5", "attention", "none"] = "gru"
    """what carries information through a trial; the paper has gru-relu"""
    memory_size: int = 64
    """outputs of the memory, and numbers of its hidden state"""
    memory_window: int | None = None
    """attention: earlier steps of the trial that are seen, at least 1; each environment holds their keys and values,
    4 memory_size numbers a step. Default: the steps of a trial"""
    separate_critic: bool = True
    """give the value a recurrent network of its own, instead of a head on the policy's"""
    encoder_hidden: tuple[int, ...] = ()
    """sizes of the layers of ReLU between observation and recurrent cell"""
    remat_steps: int = 0
    """recompute the activations in segments of so many steps during back-propagation, to save memory; 0: keep all"""
    environments: int = 1024
    """trials side by side"""
    rollout_length: int | None = None
    """steps of each trial per iteration; default: the time limit of a trial"""
    discount: float = 0.99
    """discount factor (γ), in [0, 1]"""
    gae_lambda: float = 0.3
    """λ of generalised advantage estimation, in [0, 1]"""
    clip: float = 0.1
    """ppo: how far a probability ratio may move from 1 before it is clipped (ε)"""
    epochs: int = 5
    """ppo: passes over each rollout"""
    minibatch_size: int = 128
    """ppo: trials per gradient step"""
    learning_rate: Rate = 1e-3
    """learning rate of the optimiser"""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """optimiser"""
    max_grad_norm: float | None = 40.0
    """bound on the norm of the whole gradient; none: no bound"""
    critic_weight: float = 0.5
    """weight of the value's loss, at least 0"""
    value_scale: float = 1.0
    """factor on the value head's output, best of the order of the returns; it sets how fast values are learned"""
    entropy_weight: float = 0.0
    """weight of the entropy bonus in the loss, at least 0"""
    entropy_decay_iterations: int = 0
    """iterations over which that weight falls linearly to zero; 0: it stays constant"""
    normalize_observations: bool = False
    """standardise the observations, previous action and reward included, by their running statistics, clipped to ±5"""
    eval_tasks: int = 1000
    """test tasks of an evaluation, which plays one trial of each"""
    eval_episodes: int | None = None
    """episodes of each trial of an evaluation, also more than in training, whose limit the elapsed share of
    `trial_number` then exceeds; none: episodes_per_trial"""

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
        steps = lambda s: s.rollout_length or trial_steps(env, tasks, s.episodes_per_trial)
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
            bootstrapped(env, tasks),
        ]


QUANTITIES = {
    "logged_return": Quantity("mean return of a trial"),
    "logged_episode_length": Quantity("mean steps of a trial", least=0.0),
    "trial_return": Quantity("mean return of a trial"),
    "adaptation_step": Quantity("episodes"),
}


class Acted(NamedTuple):
    """The extras of a transition."""

    log_prob: jax.Array  # [] of the action
    value: jax.Array  # [] V(h_t)


class Batch(NamedTuple):
    """T steps of B trials to learn from."""

    carry: Any  # [1, B, ...] hidden state before the first step
    obs: jax.Array  # [T, B, F]
    first: jax.Array  # [T, B] bool, a trial's first step
    action: jax.Array  # [T, B, ...] what was chosen
    log_prob: jax.Array  # [T, B] of the policy that acted
    advantage: jax.Array  # [T, B]
    target: jax.Array  # [T, B] for the value
    weight: jax.Array  # [T, B] 1 on the steps that count, else 0


# The network


class Network(NamedTuple):
    """A recurrent network for the policy and one for the value, or one for both, with a head for each."""

    init: Callable[[jax.Array], Params]  # key -> params
    start: Callable[[], Any]  # the hidden state before a trial's first step
    step: Callable[[Params, Any, jax.Array], tuple[Any, Any, jax.Array]]
    # params, hidden state, obs [F] -> hidden state, distribution, value []
    unroll: Callable[[Params, Any, jax.Array, jax.Array], tuple[Any, jax.Array]]
    # params, hidden state [B], obs [T, B, F], first [T, B] -> distribution, value [T, B]


def network(
    config: Config,
    env: Trial,
    steps: int | None = None,
    choices: Any = None,
    possible: Callable[[Any, jax.Array], Any] = lambda distribution, obs: distribution,
) -> Network:
    """The network for the observations and actions of the trials `env`.

    Args:
        steps: of the longest trial, which attention sees at most; default: that of the environment's own params.
        choices: space of what the policy chooses; default: the actions.
        possible: distribution of choices, obs [..., F] -> that over the choices which are possible there.
    """
    trial_steps = steps or int(env.default_params.max_steps_in_episode)
    window = min(config.memory_window or trial_steps, trial_steps)
    torso = with_mlp(config.encoder_hidden, memory(config.memory, config.memory_size, config.remat_steps, window))
    if config.network == "cnn":
        torso = with_cnn(picture_shape(env.env.observation_space(env.default_params.task)), config.channels, torso)
    torsos = (torso, torso) if config.separate_critic else (torso,)
    choices = env.action_space(env.default_params) if choices is None else choices
    policy, value_head = policy_for(choices, ()), MLP((1,))
    features = env.observation_space(env.default_params).shape[0]

    def init(key: jax.Array) -> Params:
        key_policy, key_value, *keys = jax.random.split(key, 4)
        return {
            "torsos": [torso.init(key, features) for torso, key in zip(torsos, keys)],
            "policy": policy.init(key_policy, jnp.zeros(config.memory_size)),
            "value": value_head.init(key_value, jnp.zeros(config.memory_size)),
        }

    def heads(
        params: Params, policy_hidden: jax.Array, value_hidden: jax.Array, obs: jax.Array
    ) -> tuple[Any, jax.Array]:
        value: Any = value_head.apply(params["value"], value_hidden)
        distribution = possible(policy.apply(params["policy"], policy_hidden), obs)
        return distribution, config.value_scale * value[..., 0]

    def step(params: Params, carry: Any, obs: jax.Array) -> tuple[Any, Any, jax.Array]:
        carry, hidden = zip(*(torso.step(p, c, obs) for torso, p, c in zip(torsos, params["torsos"], carry)))
        return carry, *heads(params, hidden[0], hidden[-1], obs)

    def unroll(params: Params, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, jax.Array]:
        alone = [each_device(torso.unroll, (None, 0, 1, 1), (0, 1)) for torso in torsos]
        hidden = [of(p, c, obs, first)[1] for of, p, c in zip(alone, params["torsos"], carry)]
        return heads(params, hidden[0], hidden[-1], obs)

    return Network(init, lambda: tuple(torso.start() for torso in torsos), step, unroll)


# Learning


def batch_of(config: Config, before: World, t: Transition) -> Batch:
    """The batch of a rollout [T, B, ...] that started from the worlds `before` [B]; the extras are `Acted`."""
    return batch_from(config, t, before.carry, t.action, config.gae_lambda)


def batch_from(config: Config, t: Transition, hidden: Any, action: Any, lam: Any, chosen: Any = 1.0) -> Batch:
    """The batch of a rollout [T, B, ...], whose extras have the fields of `Acted`.

    Args:
        hidden: state of the network before the first step, [B, ...].
        action: what was chosen, [T, B, ...].
        lam: λ of the advantages, a number or [T, B].
        chosen: the steps on which something was chosen, 1 or 0, a number or [T, B]; the others do not count.
    """
    advantage, weight = rollout_advantage(t.reward, t.extras.value, ended(t), config.discount, lam)
    weight, target = weight * chosen, advantage + t.extras.value
    if config.learner == "ppo":
        advantage = standardize(advantage, weight)
    carry = jax.tree.map(lambda x: x[None], hidden)
    return Batch(carry, t.obs, t.first, action, t.extras.log_prob, advantage, target, weight)


def batch_loss(
    config: Config, net: Network, params: Params, batch: Batch, entropy_weight: Any
) -> tuple[jax.Array, Metrics]:
    """The loss [] of a batch, a mean over the steps that count, and its terms as metrics."""
    carry = jax.tree.map(lambda x: x[0], batch.carry)
    distribution, value = net.unroll(params, carry, batch.obs, batch.first)
    clip = config.clip if config.learner == "ppo" else None
    return actor_critic_loss(distribution, value, batch, config.critic_weight, entropy_weight, clip)


def actor_critic_loss(
    distribution: Any, value: jax.Array, batch: Any, critic_weight: Any, entropy_weight: Any, clip: Any
) -> tuple[jax.Array, Metrics]:
    """The loss [] of a policy and a value [T, B] on what a `Batch` holds, a mean over the steps that count, and its
    terms as metrics.

    Args:
        clip: ε of PPO's ratios; None: the policy gradient.
    """
    log_prob = distribution.log_prob(batch.action)
    mean = partial(weighted_mean, weight=batch.weight)
    if clip is not None:
        per_step = clipped_policy_loss(log_prob, batch.log_prob, batch.advantage, clip)
    else:
        per_step = -log_prob * batch.advantage
    value_loss, entropy = mean(0.5 * (batch.target - value) ** 2), mean(distribution.entropy())
    total = mean(per_step) + critic_weight * value_loss - entropy_weight * entropy
    kl = mean(batch.log_prob - log_prob)  # an estimate of KL(π_old ‖ π)
    return total, {"value_loss": value_loss, "policy_entropy": entropy, "kl": kl}


def update(
    config: Config,
    net: Network,
    batch_of: Callable[[Config, World, Transition], Batch],
    optimizer: optax.GradientTransformation,
    share: optax.Schedule,
    params: Params,
    learner: Any,
    before: World,
    t: Transition,
    key: jax.Array,
) -> tuple[Params, Any, Metrics]:
    """The `update` of the online loop: learn from the rollout t [T, B, ...].

    Args:
        optimizer: with a constant learning rate.
        share: iterations so far -> factor on the learning rate; the same for all steps of an iteration.
        learner: the optimiser's state and the number of iterations.
    """
    optimizer_state, iteration = learner
    batch = batch_of(config, before, t)
    entropy_weight = config.entropy_weight * linear_decay(iteration, config.entropy_decay_iterations)
    loss = lambda params, part: batch_loss(config, net, params, part, entropy_weight)
    gradient_step = descent(loss, optimizer, share(iteration))
    state = (params, optimizer_state)
    if config.learner == "ppo":
        count = config.environments // config.minibatch_size
        state, metrics = over_epochs(gradient_step, state, batch, key, config.epochs, count)
    else:
        state, metrics = gradient_step(state, batch)
    params, optimizer_state = state
    return params, (optimizer_state, iteration + 1), jax.tree.map(jnp.mean, metrics)


# Acting


def act(
    net: Network, params: Params, carry: Any, inp: ActInput, key: jax.Array, greedy: bool
) -> tuple[Any, Any, Acted]:
    """An action, the next hidden state, and what learning needs to know of the step."""
    carry, distribution, value = net.step(params, carry, inp.obs)
    action = distribution.mode() if greedy else distribution.sample(key)
    return action, carry, Acted(distribution.log_prob(action), value)


def agent_of(net: Network) -> Agent:
    """The recurrent policy as an agent; an episode of its environment is a trial."""
    return Agent(init=net.init, start=lambda params, key: net.start(), act=partial(act, net))


class TrialCarry(NamedTuple):
    """What persists through a trial, from step to step and from episode to episode."""

    hidden: Any
    time: jax.Array  # [] int32, steps since the trial's start
    limit: jax.Array  # [] int32, steps of the longest trial; no constant, as XLA rounds a division by one differently
    notes: Any = ()  # see `Trial.begun`


def trial_player(agent: Agent, env: Trial, limit: int) -> Player:
    """Acts in the plain environment inside the trials: it adds to the observations what a trial would show."""

    def new_task(params: Params, key: jax.Array) -> tuple[Any, TrialCarry]:
        zero, space = jnp.zeros((), jnp.int32), env.env.observation_space(env.env.default_params)
        notes = env.begun(jnp.zeros(space.shape, space.dtype))
        return (), TrialCarry(agent.start(params, key), zero, jnp.full((), limit, jnp.int32), notes)

    def act(params: Params, memory: Any, carry: TrialCarry, inp: ActInput, key: jax.Array, greedy: bool) -> Any:
        task = env.env.default_params
        noted = env.noted(carry.notes, inp.prev_action, inp.prev_reward, inp.obs, inp.first)
        notes = jax.tree.map(partial(jnp.where, carry.time > 0), noted, env.begun(inp.obs))
        before = inp.prev_action, inp.prev_reward, inp.first
        obs = env.observe(inp.obs, *before, carry.time, carry.limit, task, notes)
        action, hidden, extras = agent.act(params, carry.hidden, inp._replace(obs=obs), key, greedy)
        return action, TrialCarry(hidden, carry.time + 1, carry.limit, notes), extras

    return Player(new_task, lambda params, memory, carry, key: carry, act, episodes=1, most=env.episodes)


# The algorithm


def trials_of(config: Config, env: Any, tasks: Tasks) -> Trial:
    """The environment in trials; UsageError for one that cannot be played in trials, or in those that are asked for."""
    if isinstance(env, Trial):
        if config.value_sweeps:
            raise UsageError("value_sweeps must be 0 with trials of your own: pass an EstimatingTrial instead")
        return env
    limit = config.episodes_per_trial * tasks.time_limit() if config.trial_number else None
    about = config.episodes_per_trial, config.trial_number, limit
    try:
        if config.value_sweeps:
            return EstimatingTrial(env, *about, sweeps=config.value_sweeps)
        return Trial(env, *about)
    except ValueError as error:
        raise UsageError(str(error)) from None


def init(
    config: Config,
    trial: Trial,
    agent: Agent,
    tasks: Tasks,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    params: Any = None,
) -> TrainState:
    """Parameters, new ones unless given, and new trials, before the first iteration."""
    state = begin_learning(trial, agent, tasks, key, params, environments=config.environments)
    return replace(state, learner=(optimizer.init(learned(state.params)), jnp.zeros((), jnp.int32)))


def evaluate(
    config: Config, trial: Trial, agent: Agent, tasks: Tasks, state: TrainState, key: jax.Array
) -> dict[str, NamedArray]:
    """One trial of each test task, with actions drawn as in training.

    Returns:
        With axes [task]: "trial_return" and "complete", whether the trial ended. With axes [task, adaptation_step], of
        each episode of the trial: "return", "length" in steps, and "experience_episodes" and "experience_steps", what
        had been played on the task before.
    """
    key_tasks, key_play = jax.random.split(key)
    test = present(tasks, state.world).test_batch(config.eval_tasks, key_tasks)
    if config.eval_episodes is not None:
        trial = trial.of_episodes(config.eval_episodes)
        test = jax.vmap(lambda params: trial.params_of(params.task))(test)
    keys = jax.random.split(key_play, config.eval_tasks)
    one = lambda task, key: begin(trial, agent, Tasks(sample=lambda _: task), state.params, key)

    def add(total: Any, t: Transition, on: jax.Array) -> Any:
        episode, returns, lengths = total
        episode += trial.first_of_episode(t.obs)
        belongs = on[:, None] * jax.nn.one_hot(episode, trial.episodes)
        return episode, returns + t.reward[:, None] * belongs, lengths + belongs

    zeros = jnp.zeros((config.eval_tasks, trial.episodes), jnp.float32)
    before = jnp.full(config.eval_tasks, -1, jnp.int32), zeros, zeros
    worlds = jax.vmap(one)(test, keys)
    axes = ("task", "adaptation_step")
    trials, (_, returns, lengths) = play_first(trial, agent, tasks, state.params, worlds, add, before, greedy=False)
    return {
        "trial_return": NamedArray(trials.returns, ("task",)),
        "complete": NamedArray(trials.complete, ("task",)),
        "return": NamedArray(returns, axes),
        "length": NamedArray(lengths, axes),
        "experience_episodes": NamedArray(experienced(jnp.ones_like(lengths[:, :-1])), axes),
        "experience_steps": NamedArray(experienced(lengths[:, :-1]), axes),
    }


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """RL² on a distribution of tasks, with discrete or continuous actions.

    `env` is wrapped in a `Trial` of `episodes_per_trial` episodes, unless it is a `Trial` already; `tasks` are then the
    trial's own. `TrainState.learner` is the optimiser's state and the number of iterations.

    Raises:
        UsageError: a setting that cannot work, or an environment that cannot be played in trials.
    """
    trial, tasks = in_trials(config, env, tasks)
    net = network(config, trial, tasks.time_limit())
    return made_of(config, env, trial, tasks, net, agent_of(net), batch_of)


def in_trials(config: Config, env: Any, tasks: Tasks) -> tuple[Trial, Tasks]:
    """The environment and its tasks in trials, for settings that can work there; UsageError for others."""
    check(config)
    trial = trials_of(config, env, tasks)
    if trial is not env:
        tasks = trial.tasks_of(tasks)
    require(config, config.relations(trial, tasks))
    return trial, tasks


def made_of(
    config: Config,
    env: Any,
    trial: Trial,
    tasks: Tasks,
    net: Network,
    agent: Agent,
    batch_of: Callable[[Config, World, Transition], Batch],
) -> Algorithm:
    """The algorithm, of the parts that a variant of RL² may have of its own.

    Args:
        env: what was wrapped in `trial`, or `trial` itself.
        tasks: of the trials.
        batch_of: settings, worlds before a rollout [B], the rollout [T, B, ...] -> what is learned from it.
    """
    horizon = tasks.time_limit()
    length = config.rollout_length or horizon
    rule = {"adam": optax.adam, "rmsprop": optax.rmsprop}[config.optimizer](config.learning_rate)
    optimizer = clipped(config, rule)
    learn: Update = partial(update, config, net, batch_of, optimizer, schedule(config, 1.0))
    if config.normalize_observations:
        agent, learn = normalizing(agent, learn, trial.observation_space(trial.default_params))
    player = None if trial is env else trial_player(agent, trial, horizon)  # a user's own trials are played as they are
    return Algorithm(
        init=partial(init, config, trial, agent, tasks, optimizer),
        step=online(trial, agent, tasks, learn, length=length),
        evaluate=partial(evaluate, config, trial, agent, tasks),
        agent=agent,
        env_steps=config.environments * length,
        player=player,
        adapt=player and adapter(trial.env, player),
    )


def check(config: Config) -> None:
    """Raises UsageError for a setting that cannot work in any environment."""
    require_choice(config, "learner", ("ppo", "a2c"))
    require_choice(config, "optimizer", ("adam", "rmsprop"))
    require_choice(config, "memory", tuple(MEMORIES))
    require_positive(
        config,
        "memory_size",
        "memory_window",
        "environments",
        "rollout_length",
        "epochs",
        "minibatch_size",
        "eval_tasks",
        "eval_episodes",
    )
    require_positive(config, "learning_rate", "clip", "value_scale")
    require_positive(config, "remat_steps", "critic_weight", "entropy_weight", "entropy_decay_iterations", or_zero=True)
    require_positive(config, "value_sweeps", or_zero=True)
    check_optimizer(config)
    check_network(config)
    require_fraction(config, "discount", "gae_lambda")
    require_sizes(config, "encoder_hidden")
