"""Meta-learning shared hierarchies (MLSH; Frans, Ho, Chen, Abbeel & Schulman, 2018): sub-policies that are learned from
many tasks so that a new master, which only chooses among them, learns a new task quickly.

    φ_1, …, φ_K     sub-policies π_φk(a | s), shared by all tasks
    θ               the master π_θ(k | s), which every task learns anew: it chooses a sub-policy for N steps

For each of B tasks, side by side (the paper's algorithm 1):

    draw a new θ
    W times    act; update θ                                 the warm-up, φ is fixed
    U times    act; update θ, and φ at every step            the joint updates

To the master, N steps are one action of a decision process, whose reward is their sum. If it chooses at t and again at
t + n, where n = N unless the episode ends,

    δ_t = Σ_{i<n} r_{t+i} + γ_θ V_θ(s_{t+n}) − V_θ(s_t)      V_θ is 0 after a termination
    A_t = δ_t + γ_θ λ A_{t+n}

so γ_θ counts choices and not steps. To the sub-policies the master is a part of the environment. If k acts at t,

    δ_t = r_t + γ v(s_{t+1}) − V_φk(s_t)                     v = V_φk while k goes on, Σ_j π_θ(j | s) V_φj(s) after it
    A_t = δ_t + γ λ A_{t+1}

Both levels descend PPO's loss, and fit their values to A_t + V(s_t), averaged over each level's own steps:

    θ     steps at which it chooses                          one Adam for each task, new with θ
    φ_k   steps at which k acts                              the mean of the tasks' gradients, one Adam for each k

Advantages of a master are standardised over its choices, those of the sub-policies over all steps of all tasks, so that
a task in which nothing is earned teaches them little. With K = 1 and N = 1 the update of φ on one task is that of PPO
(`flat.policy_gradient`). On a new task φ stays fixed and a new master learns, as in the warm-up.

Departures from the paper and its code (github.com/openai/mlsh):
- All tasks begin together. In the code groups of workers begin at different times, so that φ learns all the time.
- Every update plays new episodes; the code goes on with those of the last rollout. An episode's end ends the choice; in
  the code, episodes end only where a choice does.
- V(s_{t+1}) stands for what follows a time limit or the end of a rollout; the code takes zero. Where these cut a choice
  short, V_θ is not discounted.
- v after a choice is the mean over the master's next one; the code takes the value of the sub-policy that it drew.
- The master takes one gradient step on all its choices in an epoch, as they are few; the code has minibatches of 64.
- A task whose minibatch has no step of k is excluded from the mean over tasks, and where no task has one, φ_k and its
  Adam stay as they are.
- In the code the advantages of each sub-policy are standardised by themselves in each worker, and those of the masters
  over all workers.
- Adam is new with θ; in the code its moments outlive the task. The master's choices have an entropy bonus; in the code
  every tenth is random. Observations are not normalised and the values' losses not clipped.

Axes in shapes: B tasks, E environments of a task, T steps of each, K sub-policies.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from gymnax.environments import spaces

from jaxrl_envs import random_bits
from jaxrl_envs.resetting import select
from jaxrl_hier.checks import require_choice, require_fraction, require_positive, require_sizes
from jaxrl_hier.engine.adapting import adapter, experienced
from jaxrl_hier.engine.rollout import ended, first_episode, play_episodes
from jaxrl_hier.engine.sharding import each_device, mean_over_devices
from jaxrl_hier.engine.types import (
    ActInput,
    Agent,
    Algorithm,
    EnvParams,
    Metrics,
    NamedArray,
    Player,
    Tasks,
    TrainState,
    Transition,
)
from jaxrl_hier.flat.policy_gradient import ActorCritic, Networks, networks_for
from jaxrl_hier.learning.advantages import bootstrapped_advantage, standardize
from jaxrl_hier.learning.minibatches import GradientStep, descent, in_minibatches
from jaxrl_hier.learning.networks import ACTIVATIONS, NetworkConfig, check_network
from jaxrl_hier.learning.optimization import OptimizerConfig, apart, check_optimizer, clipped, schedule
from jaxrl_hier.learning.policy_losses import clipped_policy_loss
from jaxrl_hier.quantities import Quantity
from jaxrl_hier.relations import Relation, held_out, largest_divisor, next_multiple, require, require_fixed_tasks
from jaxrl_hier.settings import Rate


@dataclass(frozen=True)
class Config(OptimizerConfig, NetworkConfig):
    """Settings of MLSH. A learning rate's schedule is that of the sub-policies: every master begins anew."""

    num_sub_policies: int = 4
    """number of sub-policies (K)"""
    steps_per_choice: int = 10
    """steps for which the master chooses a sub-policy (N)"""
    meta_batch_size: int = 8
    """tasks per iteration (B)"""
    episodes_per_task: int = 16
    """environments of each task (E), in every update; when an episode ends early, its environment begins another"""
    horizon: int | None = None
    """steps of each environment in an update (T); default: the time limit. Longer episodes are cut there"""
    warmup_updates: int = 10
    """updates of a task's master alone, before the joint ones (W)"""
    joint_updates: int = 5
    """updates of master and sub-policies together (U)"""
    discount: float = 0.99
    """discount factor of the sub-policies, for a step (γ), in [0, 1]"""
    master_discount: float = 0.99
    """discount factor of the master, for a choice, however many steps it lasts (γ_θ), in [0, 1]"""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation, of both, in [0, 1]"""
    epochs: int = 4
    """passes of the sub-policies over each rollout"""
    minibatch_size: int = 400
    """steps of each task per gradient step of the sub-policies"""
    master_epochs: int = 10
    """gradient steps of the master on each rollout"""
    clip: float = 0.2
    """how far the probability ratios may move from 1 before they are clipped (ε)"""
    learning_rate: Rate = 1e-3
    """learning rate of the sub-policies' Adam"""
    master_learning_rate: Rate = 1e-2
    """learning rate of the master's Adam"""
    max_grad_norm: float | None = 0.5
    """bound on the norm of each network's gradient; none: no bound"""
    entropy_weight: float = 0.01
    """weight of the entropy bonus of the sub-policies, at least 0"""
    master_entropy_weight: float = 0.01
    """weight of the entropy bonus of the master, at least 0"""
    hidden: tuple[int, ...] = (64, 64)
    """sizes of the hidden layers of each network"""
    activation: Literal["relu", "tanh", "silu"] = "tanh"
    """activation of the hidden layers"""
    eval_tasks: int = 40
    """number of test tasks"""
    eval_updates: int = 10
    """updates of the master on a test task"""

    side_by_side = "meta_batch_size"

    @staticmethod
    def relations(env: Any, tasks: Tasks) -> list[Relation]:
        length = lambda s: s.horizon or tasks.time_limit()
        whole = Relation(
            counts=("episodes_per_task", "horizon", "minibatch_size"),
            fits=lambda s: s.episodes_per_task * length(s) % s.minibatch_size == 0,
            gives={
                "minibatch_size": lambda s: largest_divisor(s.episodes_per_task * length(s), s.minibatch_size),
                "episodes_per_task": lambda s: next_multiple(
                    s.episodes_per_task, s.minibatch_size // math.gcd(s.minibatch_size, length(s))
                ),
            },
            message=lambda s: (
                f"episodes_per_task times the steps of each ({s.episodes_per_task} × {length(s)}) must be a multiple "
                f"of minibatch_size ({s.minibatch_size})"
            ),
        )
        return [whole, held_out("eval_tasks", tasks)]


QUANTITIES = {"adaptation_step": Quantity("updates of the master")}


class Policies(NamedTuple):
    """The parameters of both levels."""

    master: ActorCritic  # θ
    sub: ActorCritic  # φ, every leaf [K, ...]


class Carry(NamedTuple):
    """What an agent remembers."""

    sub_policy: jax.Array  # [] int32, the one that acted last
    time: jax.Array  # [] int32, steps since it was chosen


class Did(NamedTuple):
    """What an agent did, beside its action."""

    sub_policy: jax.Array  # [] int32, the one that acted
    chosen: jax.Array  # [] bool, whether the master chose it in this step
    last: jax.Array  # [] bool, whether this is the last of its N steps


class Learner(NamedTuple):
    """A master that learns a task."""

    master: ActorCritic  # θ
    optimizer: Any


class Batch(NamedTuple):
    """Steps that one level learns from."""

    obs: Any  # [T, E, ...]
    action: jax.Array  # [T, E, ...]; of the master the number of a sub-policy
    log_prob: jax.Array  # [T, E] in the policy that acted
    advantage: jax.Array  # [T, E]
    target: jax.Array  # [T, E] for the value
    own: jax.Array  # [T, E] of the master, bool: where it chose; of sub-policies, int32: which one acted


class Outcome(NamedTuple):
    """What a rollout on a task gave."""

    returns: jax.Array  # [], mean over the first episodes
    complete: jax.Array  # [], the share of these that ended within the rollout
    episodes: jax.Array  # [], episodes begun


class Setup(NamedTuple):
    """What acting and learning need to know."""

    config: Config
    env: Any
    horizon: int  # T
    master: Networks
    sub: Networks  # of one sub-policy
    master_rule: optax.GradientTransformation
    sub_rule: optax.GradientTransformation  # with a constant learning rate


# Networks and acting


def setup_of(config: Config, env: Any, tasks: Tasks) -> Setup:
    """The setup for an environment with discrete or continuous actions."""
    observations, actions = env.observation_space(env.default_params), env.action_space(env.default_params)
    rule = lambda rate: apart(clipped(config, optax.adam(rate, eps=1e-5)))
    return Setup(
        config,
        env,
        config.horizon or tasks.time_limit(),
        master=networks_for(config, observations, spaces.Discrete(config.num_sub_policies)),
        sub=networks_for(config, observations, actions),
        master_rule=rule(config.master_learning_rate),
        sub_rule=rule(config.learning_rate),
    )


def init_params(setup: Setup, key: jax.Array) -> Policies:
    """Sub-policies, and a master that knows no task."""
    key_master, key_sub = jax.random.split(key)
    sub = jax.vmap(setup.sub.init)(jax.random.split(key_sub, setup.config.num_sub_policies))
    return Policies(setup.master.init(key_master), sub)


def start(params: Any, key: Any) -> Carry:
    """The carry at an episode's start, where the master chooses."""
    return Carry(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def act(
    setup: Setup, params: Policies, before: Carry, inp: ActInput, key: jax.Array, greedy: bool
) -> tuple[Any, Carry, Did]:
    """An action of the sub-policy that the master has chosen. Greedily both take what is likeliest."""
    lasts = setup.config.steps_per_choice
    chosen = inp.first | (before.time == lasts)
    master = setup.master.policy(params.master.policy, inp.obs)
    drawn = master.mode() if greedy else master.sample(random_bits.another_key(key))
    sub_policy = jnp.where(chosen, drawn, before.sub_policy)
    time = jnp.where(chosen, 1, before.time + 1)
    each = jax.vmap(setup.sub.policy, (0, None))(params.sub.policy, inp.obs)
    policy = jax.tree.map(lambda x: x[sub_policy], each)
    action = policy.mode() if greedy else policy.sample(key)
    return action, Carry(sub_policy, time), Did(sub_policy, chosen, time == lasts)


# What each level learns from: a rollout [T, E, ...] of one task, in which `params` acted


def master_batch(setup: Setup, params: Policies, t: Transition) -> Batch:
    """The master's choices.

    At steps in between, the discount and λ of the sum are 1, so that the values of their states cancel out, and rewards
    add up to those of a choice.
    """
    config, net, did = setup.config, setup.master, t.extras
    value, after = (net.value(params.master.value, obs) for obs in (t.obs, t.next_obs))
    advantage = bootstrapped_advantage(
        t.reward,
        value,
        after,
        t.terminated,
        t.truncated,
        discount=jnp.where(did.last, config.master_discount, 1.0),
        lam=jnp.where(did.last, config.gae_lambda, 1.0),
    )
    log_prob = net.policy(params.master.policy, t.obs).log_prob(did.sub_policy)
    standard = standardize(advantage, did.chosen.astype(jnp.float32))
    return Batch(t.obs, did.sub_policy, log_prob, standard, advantage + value, did.chosen)


def sub_batch(setup: Setup, params: Policies, t: Transition) -> Batch:
    """The steps of the sub-policies, with advantages that are not standardised yet."""
    config, net, did = setup.config, setup.sub, t.extras
    acting = lambda x: jnp.take_along_axis(x, did.sub_policy[None], axis=0)[0]  # [K, T, E] -> [T, E]
    value, after = (jax.vmap(net.value, (0, None))(params.sub.value, obs) for obs in (t.obs, t.next_obs))
    choice = jax.nn.softmax(setup.master.policy(params.master.policy, t.next_obs).logits)  # [T, E, K]
    following = jnp.where(did.last, jnp.einsum("tek,kte->te", choice, after), acting(after))
    advantage = bootstrapped_advantage(
        t.reward, acting(value), following, t.terminated, t.truncated, config.discount, config.gae_lambda
    )
    each = jax.vmap(lambda params: net.policy(params, t.obs).log_prob(t.action))(params.sub.policy)
    return Batch(t.obs, t.action, acting(each), advantage, advantage + acting(value), did.sub_policy)


def loss(
    net: Networks, clip: Any, entropy_weight: Any, params: ActorCritic, batch: Batch, own: jax.Array
) -> tuple[jax.Array, Metrics]:
    """PPO's loss [] of one policy and its value, a mean over its `own` steps [...] bool, 0 without any; and metrics."""
    policy, value = net.policy(params.policy, batch.obs), net.value(params.value, batch.obs)
    # elsewhere another policy acted, and the ratio of probabilities may overflow
    log_prob = jnp.where(own, policy.log_prob(batch.action), batch.log_prob)
    mean = lambda x: jnp.sum(jnp.where(own, x, 0.0)) / jnp.maximum(jnp.sum(own), 1)
    error = mean(0.5 * (batch.target - value) ** 2)
    entropy = mean(policy.entropy())
    total = mean(clipped_policy_loss(log_prob, batch.log_prob, batch.advantage, clip)) + error
    return total - entropy_weight * entropy, {
        "value_loss": error,
        "policy_entropy": entropy,
        "kl": mean(batch.log_prob - log_prob),  # an estimate of KL(π_old ‖ π)
    }


# Updates


def new_master(setup: Setup, key: jax.Array) -> Learner:
    """A master that knows nothing of its task."""
    master = setup.master.init(key)
    return Learner(master, setup.master_rule.init(master))


def learn_master(setup: Setup, sub: ActorCritic, learner: Learner, t: Transition) -> Learner:
    """Update θ on a rollout [T, E, ...]."""
    config = setup.config
    batch = master_batch(setup, Policies(learner.master, sub), t)
    of_master = partial(loss, setup.master, config.clip, config.master_entropy_weight)
    step = descent(lambda params, batch: of_master(params, batch, batch.own), setup.master_rule, 1.0)
    return Learner(*jax.lax.scan(lambda state, _: step(state, batch), tuple(learner), length=config.master_epochs)[0])


def sub_gradient(setup: Setup, sub: ActorCritic, batch: Batch) -> tuple[ActorCritic, Metrics, jax.Array]:
    """Of each sub-policy, on steps [n, ...] of one task: gradient and metrics [K, ...], and whether it acted [K]."""
    config = setup.config
    own = batch.own == jnp.arange(config.num_sub_policies)[:, None]
    slope = jax.grad(partial(loss, setup.sub, config.clip, config.entropy_weight), has_aux=True)
    gradient, metrics = jax.vmap(slope, (0, None, 0))(sub, batch, own)
    return gradient, metrics, jnp.any(own, axis=1).astype(jnp.float32)


def sub_step(setup: Setup, rate: Any) -> GradientStep:
    """A gradient step of the sub-policies on steps [n, B, ...] of all tasks; `rate` multiplies the learning rate."""

    def mean_gradient(sub: ActorCritic, batch: Batch) -> Any:
        each = jax.vmap(partial(sub_gradient, setup), (None, 1))(sub, batch)
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), each)

    def one(gradient: ActorCritic, acted: jax.Array, state: Any) -> Any:
        params, optimizer = state
        step, after = setup.sub_rule.update(gradient, optimizer, params)
        moved = optax.apply_updates(params, jax.tree.map(lambda x: rate * x, step))
        return select(acted > 0, (moved, after), (params, optimizer))

    def step(state: tuple[ActorCritic, Any], batch: Batch) -> tuple[tuple[ActorCritic, Any], Metrics]:
        total, metrics, acted = mean_over_devices(mean_gradient, (None, 1))(state[0], batch)
        those = jnp.where(acted > 0, acted, 1.0)  # the share of the tasks in which a sub-policy acted
        gradient = jax.tree.map(lambda x: x / those.reshape(-1, *[1] * (x.ndim - 1)), total)
        metrics = {name: jnp.sum(x) / jnp.sum(acted) for name, x in metrics.items()}
        return jax.vmap(one)(gradient, acted, state), metrics | {"grad_norm": optax.global_norm(gradient)}

    return step


def practise(
    setup: Setup, sub: ActorCritic, task: EnvParams, learner: Learner, key: jax.Array
) -> tuple[Learner, Batch, Outcome]:
    """Act on a task and update its master; also what the sub-policies may learn from."""
    config, params = setup.config, Policies(learner.master, sub)
    agent = agent_of(setup)
    t = play_episodes(setup.env, agent, task, params, key, episodes=config.episodes_per_task, horizon=setup.horizon)
    first, over = first_episode(t), ended(t)
    outcome = Outcome(
        returns=jnp.mean(jnp.sum(t.reward * first, axis=0)),
        complete=jnp.mean(jnp.any(over, axis=0).astype(jnp.float32)),
        episodes=jnp.sum(t.first),
    )
    return learn_master(setup, sub, learner, t), sub_batch(setup, params, t), outcome


def warm_up(
    setup: Setup, sub: ActorCritic, task: EnvParams, learner: Learner, keys: jax.Array
) -> tuple[Learner, Outcome]:
    """As many updates of a task's master as there are `keys`, φ being fixed; what each rollout gave, [keys]."""

    def update(learner: Learner, key: jax.Array) -> tuple[Learner, Outcome]:
        learner, _, outcome = practise(setup, sub, task, learner, key)
        return learner, outcome

    return jax.lax.scan(update, learner, keys)


def begin_tasks(setup: Setup, tasks: Tasks, sub: ActorCritic, key: jax.Array) -> Any:
    """A new task with its master after the warm-up: key for the next one, task, master, returns [W], keys [U]."""
    config = setup.config
    key, key_task, key_master, key_warm, key_joint = jax.random.split(key, 5)
    task = tasks.sample(key_task)
    keys = jax.random.split(key_warm, config.warmup_updates)
    learner, played = warm_up(setup, sub, task, new_master(setup, key_master), keys)
    return key, task, learner, played.returns, jax.random.split(key_joint, config.joint_updates)


def iteration(setup: Setup, tasks: Tasks, state: TrainState) -> tuple[TrainState, Metrics]:
    """The algorithm's `step`: B new tasks, from a new master to the last joint update."""
    config, sub = setup.config, state.params.sub
    begin = each_device(jax.vmap(partial(begin_tasks, setup, tasks), (None, 0)), (None, 0), 0)
    world, task, learners, returns, keys = begin(sub, state.world)
    axes: Any = (None, 0, 0, 0), (0, 2, 0)
    act_and_learn = each_device(jax.vmap(partial(practise, setup), *axes), *axes)
    step = sub_step(setup, schedule(config, 1.0)(state.iteration))

    def joint(carry: Any, keys: tuple[jax.Array, jax.Array]) -> Any:
        shared, learners = carry
        learners, batch, played = act_and_learn(shared[0], task, learners, keys[0])
        batch = batch._replace(advantage=standardize(batch.advantage, jnp.ones_like(batch.advantage)))
        shared, metrics = in_minibatches(step, shared, batch, keys[1], epochs=config.epochs, size=config.minibatch_size)
        return (shared, learners), (played.returns, metrics)

    shuffling = jax.random.split(random_bits.fold_in(state.key, state.iteration), config.joint_updates)
    ((sub, optimizer), _), (later, metrics) = jax.lax.scan(
        joint, ((sub, state.learner), learners), (keys.swapaxes(0, 1), shuffling)
    )
    returns = jnp.concatenate([returns.T, later]).mean(axis=1)  # [W + U]
    metrics = {"return": returns[-1], "return_before": returns[0]} | jax.tree.map(jnp.mean, metrics)
    params = state.params._replace(sub=sub)
    return replace(state, params=params, learner=optimizer, world=world, iteration=state.iteration + 1), metrics


# The algorithm


def agent_of(setup: Setup) -> Agent:
    """Acts with `Policies`."""
    return Agent(init=partial(init_params, setup), start=start, act=partial(act, setup))


def player_of(setup: Setup) -> Player:
    """On each task a new master, which learns as in the warm-up. Its memory is a `Learner`."""
    config = setup.config

    def do(params: Policies, memory: Learner, carry: Carry, inp: ActInput, key: jax.Array, greedy: bool) -> Any:
        return act(setup, Policies(memory.master, params.sub), carry, inp, key, greedy)

    return Player(
        new_task=lambda params, key: (new_master(setup, key), start(params, key)),
        new_episode=lambda params, memory, carry, key: start(params, key),
        act=do,
        learn=lambda params, memory, steps, length: learn_master(setup, params.sub, memory, steps),
        episodes=config.episodes_per_task,
        horizon=setup.horizon,
        most=config.eval_updates,
        samples_to_learn=True,
    )


def init(setup: Setup, key: jax.Array, params: Any = None) -> TrainState:
    """Parameters, new ones unless given, and a key for each task of an iteration."""
    key, key_params, key_world = jax.random.split(key, 3)
    params = init_params(setup, key_params) if params is None else params
    return TrainState(
        params=params,
        learner=jax.vmap(setup.sub_rule.init)(params.sub),
        world=jax.random.split(key_world, setup.config.meta_batch_size),
        memory=(),
        key=key,
        iteration=jnp.zeros((), jnp.int32),
    )


def evaluate(setup: Setup, tasks: Tasks, state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
    """New masters learn the test tasks with φ fixed: what they earn after 0 … `eval_updates` updates.

    Returns:
        With axes [task, adaptation_step]: "return", the mean over the first episodes of all environments; "complete",
        the share of environments in which an episode ended; "experience_episodes" and "experience_steps", what had been
        learned from, and played, on the task before.
    """
    config = setup.config
    key_tasks, key_master, key_play = jax.random.split(key, 3)
    test = tasks.test_batch(config.eval_tasks, key_tasks)
    learners = jax.vmap(partial(new_master, setup))(jax.random.split(key_master, config.eval_tasks))
    keys = jax.random.split(key_play, (config.eval_tasks, config.eval_updates + 1))  # nothing acts after the last one
    _, played = jax.vmap(partial(warm_up, setup), (None, 0, 0, 0))(state.params.sub, test, learners, keys)
    episodes = played.episodes[:, :-1].astype(jnp.float32)
    measured = {
        "return": played.returns,
        "complete": played.complete,
        "experience_episodes": experienced(episodes),
        "experience_steps": experienced(jnp.full_like(episodes, config.episodes_per_task * setup.horizon)),
    }
    return {name: NamedArray(x, ("task", "adaptation_step")) for name, x in measured.items()}


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """MLSH on a distribution of tasks, with discrete or continuous actions.

    The parameters are `Policies`; their master knows no task, and learns nothing: every task draws its own.

    Raises:
        UsageError: a setting, or a space, that cannot work.
    """
    check(config)
    require_fixed_tasks(tasks)
    require(config, config.relations(env, tasks))
    setup = setup_of(config, env, tasks)
    player = player_of(setup)
    updates = config.warmup_updates + config.joint_updates
    return Algorithm(
        init=partial(init, setup),
        step=partial(iteration, setup, tasks),
        evaluate=partial(evaluate, setup, tasks),
        agent=agent_of(setup),
        env_steps=config.meta_batch_size * updates * config.episodes_per_task * setup.horizon,
        player=player,
        adapt=adapter(env, player),
    )


def check(config: Config) -> None:
    """Raises UsageError for a setting that cannot work in any environment."""
    require_positive(config, "num_sub_policies", "steps_per_choice", "meta_batch_size", "episodes_per_task", "horizon")
    require_positive(config, "joint_updates", "epochs", "minibatch_size", "master_epochs", "eval_tasks")
    require_positive(config, "clip", "learning_rate", "master_learning_rate")
    require_positive(config, "warmup_updates", "eval_updates", or_zero=True)
    require_positive(config, "entropy_weight", "master_entropy_weight", or_zero=True)
    require_fraction(config, "discount", "master_discount", "gae_lambda")
    check_optimizer(config)
    check_network(config)
    require_choice(config, "activation", tuple(ACTIVATIONS))
    require_sizes(config, "hidden")
