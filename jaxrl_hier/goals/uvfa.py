"""Universal value function approximators (Schaul, Horgan, Gregor & Silver, ICML 2015): one value function for all
goals.

The paper's text was not available; this follows it from memory.

A goal has a pseudo-reward of 1 on arrival and a pseudo-discount that is 0 there, whatever the task itself pays:

    Q(s, a, g) = E[ 1 if s' = g, else γ V(s', g) ],     V(s, g) = max_a Q(s, a, g)

This is the expected γ^(steps to the goal − 1). In s = g it is the value of leaving and coming back. Two architectures:

    concatenated   Q(s, ·, g) = MLP([s, g])
    two-stream     Q(s, a, g) = φ(s, a) · ψ(g)             vectors of n components; V(s, g) = φ(s) · ψ(g)

Two ways to train them:

- Supervised, from a table M of exact values with rows s (or s, a) and columns g: end to end, or for two streams in two
  stages. These factorise M ≈ Φ̂ Ψ̂ᵀ with rank n, and then regress φ(s) on Φ̂ and ψ(g) on Ψ̂ separately. The paper
  factorises by OptSpace; here it is the singular value decomposition, followed by alternating least squares where
  entries of the table are missing.
- By bootstrapping, the registered algorithm "uvfa": Q-learning from transitions, each of which is used for several
  goals at once, sampled from those of the environments. A target network follows slowly. The concatenated network
  evaluates every pair of a step and a goal; two streams embed steps and goals once each, and every pair is an inner
  product.

Departures: targets are clipped to [0, 1], which contains all values, and there is no replay: many environments side by
side take its place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from gymnax.environments import spaces

from jaxrl_envs.contract import Played, name_of
from jaxrl_envs.goals import is_goal_env
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive, require_sizes
from jaxrl_hier.engine.evaluation import play_first, present
from jaxrl_hier.engine.loops import begin_learning, begin_worlds, online
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
from jaxrl_hier.exact.tabular import einsum, fixed_point
from jaxrl_hier.learning.hindsight import require_ends_independent_of_goals
from jaxrl_hier.learning.networks import ACTIVATIONS, MLP, kind_of, require_discrete_actions
from jaxrl_hier.learning.optimization import OptimizerConfig, check_optimizer, optimizer_of
from jaxrl_hier.learning.tables import epsilon_greedy
from jaxrl_hier.relations import Relation, at_most, bounded, how_many, require
from jaxrl_hier.settings import Rate

# Exact values, where every state is a goal


@jax.jit
def backup(P: jax.Array, values: jax.Array, gamma: float) -> jax.Array:
    """Q(s, a, g) = Σ P(s'|s, a) (1 if s' = g, else γ V(s', g)), [S, A, S], of V [S, S].

    Args:
        P: [S, A, S'] transitions that no goal changes.
    """
    arriving = jnp.eye(P.shape[0], dtype=bool)
    return einsum("sat,tg->sag", P, jnp.where(arriving, 1.0, gamma * values))


@jax.jit
def exact_values(P: jax.Array, gamma: float, tolerance: float = 1e-6) -> jax.Array:
    """V*(s, g) [S, S] for γ < 1, by value iteration for all goals at once; its `backup` is Q*."""
    start = jnp.zeros((P.shape[0], P.shape[0]), P.dtype)
    update = lambda values: jnp.max(backup(P, values, gamma), axis=1)
    return fixed_point(update, start, tolerance * (1 - gamma), 100_000)


@partial(jax.jit, static_argnames="steps")
def policy_values(P: jax.Array, policies: jax.Array, gamma: float, steps: int) -> jax.Array:
    """V(s, g) [S, S] of a policy for each goal, [S, A, S], within `steps` steps.

    With γ = 1 it is the probability of arriving in time.
    """
    transition = einsum("sag,sat->gst", policies, P)
    arriving = jnp.eye(P.shape[0], dtype=bool)

    def step(values: jax.Array, _: None) -> tuple[jax.Array, None]:
        return einsum("gst,tg->sg", transition, jnp.where(arriving, 1.0, gamma * values)), None

    return jax.lax.scan(step, jnp.zeros(arriving.shape), length=steps)[0]


# Factorisation


def factorise(table: Any, rank: int, observed: Any = None, sweeps: int = 50, ridge: float = 1e-3) -> tuple[Any, Any]:
    """Φ̂ [R, n] and Ψ̂ [C, n] with Φ̂ Ψ̂ᵀ ≈ `table` [R, C], on the host in float64.

    Without `observed` it is the best approximation of this rank, by the singular value decomposition, with the square
    roots of the singular values in each factor. With it, alternating least squares start from the factors of the table
    whose missing entries are 0 and whose others are divided by their share, and minimise

        Σ_observed (M − Φ̂ Ψ̂ᵀ)² + ridge (‖Φ̂‖² + ‖Ψ̂‖²).

    Args:
        rank: n. sweeps: of alternating least squares. ridge: weight of the penalty.
        observed: [R, C] bool, the entries to fit; a row or column without any becomes 0.

    Raises:
        UsageError: a rank that the table cannot have.
    """
    table = np.asarray(table, np.float64)
    if not 0 < rank <= min(table.shape):
        raise UsageError(f"a table of {table.shape[0]} × {table.shape[1]} has no rank {rank}")
    weight = np.ones_like(table) if observed is None else np.asarray(observed, np.float64)
    table = np.where(weight > 0, table, 0.0)
    left, size, right = np.linalg.svd(table / weight.mean(), full_matrices=False)
    phi, psi = left[:, :rank] * np.sqrt(size[:rank]), right[:rank].T * np.sqrt(size[:rank])
    if observed is not None:
        for _ in range(sweeps):
            phi = _least_squares(table, weight, psi, ridge)
            psi = _least_squares(table.T, weight.T, phi, ridge)
    return phi, psi


def _least_squares(table: np.ndarray, weight: np.ndarray, fixed: np.ndarray, ridge: float) -> np.ndarray:
    """The factor [R, n] that fits `table` [R, C] with `weight` [R, C], for the other factor `fixed` [C, n]."""
    normal = np.einsum("rc,cn,cm->rnm", weight, fixed, fixed) + ridge * np.eye(fixed.shape[1])
    right = np.einsum("rc,cn->rn", weight * table, fixed)
    return np.linalg.solve(normal, right[..., None])[..., 0]


# Networks


class Concatenated(nn.Module):
    """States [..., F], goals [..., F'] -> values [..., outputs]; leading axes are broadcast."""

    outputs: int
    hidden: Sequence[int]
    activation: str = "relu"

    @nn.compact
    def __call__(self, s: jax.Array, g: jax.Array) -> jax.Array:
        shape = jnp.broadcast_shapes(s.shape[:-1], g.shape[:-1])
        both = [jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in (s, g)]
        return MLP((*self.hidden, self.outputs), self.activation)(jnp.concatenate(both, axis=-1))


class TwoStream(nn.Module):
    """States [..., F], goals [..., F'] -> values [..., outputs]; leading axes are broadcast after the two streams."""

    outputs: int
    rank: int
    hidden: Sequence[int]
    activation: str = "relu"

    def setup(self) -> None:
        self.states = MLP((*self.hidden, self.outputs * self.rank), self.activation)
        self.goals = MLP((*self.hidden, self.rank), self.activation)

    def phi(self, s: jax.Array) -> jax.Array:
        """Embeddings of states, [..., outputs, rank]."""
        return self.states(s).reshape(*s.shape[:-1], self.outputs, self.rank)

    def psi(self, g: jax.Array) -> jax.Array:
        """Embeddings of goals, [..., rank]."""
        return self.goals(g)

    def __call__(self, s: jax.Array, g: jax.Array) -> jax.Array:
        return jnp.sum(self.phi(s) * self.psi(g)[..., None, :], axis=-1)


def features(space: Any) -> Callable[[Any], jax.Array]:
    """Network inputs [..., F] float32 of a state or goal: one-hot for Discrete, a flat Box scaled to [−1, 1].

    Raises:
        UsageError: a Box that is not flat or has no bounds.
    """
    if isinstance(space, spaces.Discrete):
        return lambda x: jax.nn.one_hot(x, space.n)
    if not isinstance(space, spaces.Box):
        raise UsageError(f"states and goals must be Discrete or flat vectors with bounds, got {kind_of(space)}")
    low, high = (np.broadcast_to(np.asarray(x, np.float32), space.shape) for x in (space.low, space.high))
    if len(space.shape) != 1 or not np.isfinite(high - low).all():
        raise UsageError(f"states and goals must be Discrete or flat vectors with bounds, got {space}")
    span = np.where(high > low, high - low, np.inf)  # a number that is always the same says nothing: 0
    return lambda x: jnp.where(high > low, 2 * (x.astype(jnp.float32) - low) / span - 1, 0.0)


# Supervised


@partial(jax.jit, static_argnames=("network", "method", "steps", "batch"))
def regress(
    network: nn.Module,
    params: Params,
    inputs: tuple[jax.Array, ...],
    targets: jax.Array,
    key: jax.Array,
    *,
    steps: int,
    batch: int,
    learning_rate: Rate = 1e-3,
    method: str = "__call__",
) -> tuple[Params, jax.Array]:
    """Least squares by Adam, with a cosine schedule that ends at 0.

    Args:
        network: with hashable fields; compiled once for all seeds.
        inputs: each [N, ...]. targets: [N, ...]. steps: gradient steps. batch: rows in each, sampled with replacement.
        method: name of the network's method, *inputs -> predictions.

    Returns:
        The parameters, and the mean squared error of each step's batch [steps].
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def loss(params: Params, rows: jax.Array) -> jax.Array:
        predictions: Any = network.apply(params, *(x[rows] for x in inputs), method=method)
        return jnp.mean((predictions - targets[rows]) ** 2)

    def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        params, state = carry
        error, gradient = jax.value_and_grad(loss)(params, jax.random.randint(key, (batch,), 0, targets.shape[0]))
        change, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, change), state), error

    (params, _), errors = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, steps))
    return params, errors


def fit_values(
    network: nn.Module, states: jax.Array, goals: jax.Array, table: jax.Array, key: jax.Array, **settings: Any
) -> Params:
    """The parameters of either network, trained end to end on a table of values.

    Args:
        states: [S, F] inputs. goals: [G, F']. table: [S, outputs, G].
        settings: keyword arguments of `regress`; a row is a pair of a state and a goal.
    """
    s, g = (x.reshape(-1) for x in jnp.meshgrid(jnp.arange(len(states)), jnp.arange(len(goals)), indexing="ij"))
    key_init, key = jax.random.split(key)
    params = network.init(key_init, states[:1], goals[:1])
    return regress(network, params, (states[s], goals[g]), table[s, :, g], key, **settings)[0]


def fit_two_stage(
    network: TwoStream, states: jax.Array, goals: jax.Array, table: jax.Array, key: jax.Array, **settings: Any
) -> Params:
    """The parameters of two streams, each regressed on its factor of the table.

    Arguments are those of `fit_values`, but a row is a state [S, ...] or a goal [G, ...], and the table is [S, G]. The
    factors keep the scale of the singular values, so larger components weigh more in the regression.
    """
    phi, psi = factorise(np.asarray(table).reshape(-1, len(goals)), network.rank)
    targets = jnp.asarray(phi.reshape(len(states), network.outputs, network.rank), jnp.float32)
    key_init, key_phi, key_psi = jax.random.split(key, 3)
    params = network.init(key_init, states[:1], goals[:1])
    params, _ = regress(network, params, (states,), targets, key_phi, method="phi", **settings)
    return regress(network, params, (goals,), jnp.asarray(psi, jnp.float32), key_psi, method="psi", **settings)[0]


# By bootstrapping


@dataclass(frozen=True)
class Config(OptimizerConfig):
    """Settings of learning one value function for all goals from transitions."""

    architecture: Literal["two-stream", "concatenated"] = "two-stream"
    """an inner product of two embeddings, or one network of state and goal"""
    rank: int = 32
    """components of the embeddings (n); for two streams"""
    hidden: tuple[int, ...] = (128, 128)
    """hidden layers of each network"""
    activation: Literal["relu", "tanh", "silu"] = "relu"
    """activation function of the hidden layers"""
    discount: float = 0.97
    """discount per step (γ), in [0, 1]. At distance d one step changes the value by γ^d (1 − γ), most for γ = d / (d +
    1); in four rooms the longest way is 37 steps"""
    epsilon: float = 0.3
    """probability of a random action (ε), in [0, 1]"""
    learning_rate: Rate = 1e-3
    """learning rate of Adam"""
    target_rate: float = 0.05
    """share by which the target network moves towards the learned one with each update, in [0, 1]"""
    environments: int = 64
    """environments side by side"""
    rollout_length: int = 8
    """steps of each environment per iteration, which is one update"""
    goals_per_update: int = 16
    """goals that every step of an update is used for, sampled from those of the environments"""
    eval_goals: int = 10
    """goals per evaluation, of each kind: held out, and sampled as in training"""
    eval_episodes: int = 16
    """episodes per goal of an evaluation"""

    renamed: ClassVar = {"length": "rollout_length", "goals": "goals_per_update"}

    @staticmethod
    def relations(env: Any, tasks: Tasks) -> list[Relation]:
        return [
            at_most("goals_per_update", "environments")._replace(
                message=lambda s: (
                    f"goals_per_update must be at most environments ({s.environments}), from whose goals they are "
                    f"drawn, got {s.goals_per_update}"
                )
            ),
            bounded("eval_goals", how_many(tasks.test), "which the tasks hold out"),
        ]


Values = Callable[[Params, Any, jax.Array], Any]  # params, observations, goals -> Q [..., A]
Arrived = Callable[[Any, jax.Array], jax.Array]  # observation, goal -> [] bool


def value_function(config: Config, env: Any) -> tuple[Callable[[jax.Array], Params], Values]:
    """The network for an environment with goals and Discrete actions.

    Returns:
        init: key -> params.
        values: params, observations, goals -> Q [..., A]; leading axes are broadcast.

    Raises:
        UsageError: an observation or a goal that is neither Discrete nor a vector with bounds.
    """
    spaces_of = env.observation_space(env.default_params).spaces
    num_actions = env.action_space(env.default_params).n
    state_of, goal_of = features(spaces_of["observation"]), features(spaces_of["desired_goal"])
    if config.architecture == "concatenated":
        network: nn.Module = Concatenated(num_actions, config.hidden, config.activation)
    else:
        network = TwoStream(num_actions, config.rank, config.hidden, config.activation)

    def init(key: jax.Array) -> Params:
        state, goal = (jnp.zeros((1, *s.shape), s.dtype) for s in map(spaces_of.get, ("observation", "desired_goal")))
        return network.init(key, state_of(state), goal_of(goal))

    def values(params: Params, obs: Any, goal: jax.Array) -> Any:
        return network.apply(params, state_of(obs["observation"]), goal_of(goal))

    return init, values


def act(
    config: Config, values: Values, params: Params, carry: Any, inp: ActInput, key: jax.Array, greedy: bool
) -> tuple[jax.Array, Any, Any]:
    """An ε-greedy action [] for the environment's goal."""
    q = values(params, inp.obs, inp.obs["desired_goal"])
    draws, every_action = jax.random.uniform(key, (2,)), jnp.ones(q.shape, bool)
    return epsilon_greedy(draws, q, every_action, 0.0 if greedy else config.epsilon), carry, ()


def arrived(env: Any, task: Any, obs: Any, goal: jax.Array) -> jax.Array:
    """Whether one observation is at one goal, [] bool. `task` is any: tasks differ in their goals alone."""
    return env.compute_reward(obs["achieved_goal"], goal, task) >= 0


def targets(
    config: Config, there: Arrived, values: Values, target: Params, t: Transition, goals: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The targets of Q for transitions [T, B, ...] and goals [G, ...], and whether they arrive, [T B, G] each.

    Args:
        target: parameters of the target network.
    """
    rows: Transition = jax.tree.map(lambda x: x.reshape(-1, 1, *x.shape[2:]), t)  # [T B, 1, ...]
    each_goal = jax.vmap(there, (None, 0))
    arrive = jax.vmap(jax.vmap(each_goal, (0, None)), (0, None))(t.next_obs, goals).reshape(-1, len(goals))
    following = jnp.clip(jnp.max(values(target, rows.next_obs, goals[None]), axis=-1), 0.0, 1.0)
    return jnp.where(arrive, 1.0, config.discount * jnp.where(rows.terminated, 0.0, following)), arrive


def loss(
    params: Params, values: Values, t: Transition, goals: jax.Array, target_values: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The mean squared error [] of Q to its `target_values` [T B, G], and the mean absolute error []."""
    rows: Transition = jax.tree.map(lambda x: x.reshape(-1, 1, *x.shape[2:]), t)  # [T B, 1, ...]
    q = values(params, rows.obs, goals[None])  # [T B, G, A]
    error = jnp.take_along_axis(q, rows.action[..., None], axis=-1)[..., 0] - target_values
    return jnp.mean(error**2), jnp.mean(jnp.abs(error))


def update(
    config: Config,
    there: Arrived,
    values: Values,
    optimizer: optax.GradientTransformation,
    params: Params,
    learner: Any,
    before: World,
    t: Transition,
    key: jax.Array,
) -> tuple[Params, Any, Metrics]:
    """One gradient step on a rollout [T, B, ...], for goals sampled from its environments; the `update` of `online`."""
    target, optimizer_state = learner
    drawn = jax.random.permutation(key, config.environments)[: config.goals_per_update]
    goals = t.obs["desired_goal"][-1][drawn]  # [G, ...]

    def slope(params: Params, target: Params, t: Transition, goals: jax.Array) -> tuple[Params, jax.Array, jax.Array]:
        target_values, arrive = targets(config, there, values, target, t, goals)
        return *jax.grad(loss, has_aux=True)(params, values, t, goals, target_values), jnp.mean(arrive)

    gradient, error, arrivals = mean_over_devices(slope, (None, None, 1, None))(params, target, t, goals)
    change, optimizer_state = optimizer.update(gradient, optimizer_state)
    params = optax.apply_updates(params, change)
    target = optax.incremental_update(params, target, config.target_rate)
    return params, (target, optimizer_state), {"td_error": error, "arrivals": arrivals}


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """A value function for all goals, on an environment with goals (jaxrl_envs.goals) and Discrete actions.

    Its `compute_reward` must be 0 where the goal is reached and negative elsewhere. Learner: the target network and the
    state of Adam.

    Raises:
        UsageError: a setting that cannot work, or an environment without goals, bounds or Discrete actions.
    """
    check(config, env, tasks)
    there = partial(arrived, env, jax.jit(tasks.sample)(jax.random.key(0)))
    init_params, values = value_function(config, env)
    optimizer = optimizer_of(config, config.learning_rate)
    agent = Agent(init=init_params, start=lambda params, key: (), act=partial(act, config, values))

    def init(key: jax.Array, params: Any = None) -> TrainState:
        state = begin_learning(env, agent, tasks, key, params, environments=config.environments)
        return replace(state, learner=(state.params, optimizer.init(state.params)))

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """Shares of greedy episodes that arrive within the time limit: "success" [task] for held-out goals, and
        "success_on_learned" [task] for goals sampled as in training."""

        def add(ever: jax.Array, t: Transition, on: jax.Array) -> jax.Array:
            return ever | (on & jax.vmap(there)(t.next_obs, t.obs["desired_goal"]))

        def share(task: Any, key: jax.Array) -> jax.Array:
            only, never = Tasks(sample=lambda _: task), jnp.zeros(config.eval_episodes, bool)
            worlds = begin_worlds(env, agent, only, state.params, key, config.eval_episodes)
            return jnp.mean(play_first(env, agent, only, state.params, worlds, add, never)[1])

        key_test, key_learned, key = jax.random.split(key, 3)
        keys = jax.random.split(key, config.eval_goals)
        learned = jax.vmap(present(tasks, state.world).sample)(jax.random.split(key_learned, config.eval_goals))
        groups = {"success": tasks.test_batch(config.eval_goals, key_test), "success_on_learned": learned}
        return {name: NamedArray(jax.vmap(share)(batch, keys), ("task",)) for name, batch in groups.items()}

    learn = partial(update, config, there, values, optimizer)
    step = online(env, agent, tasks, learn, length=config.rollout_length)
    env_steps = config.environments * config.rollout_length
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=env_steps)


def check(config: Config, env: Any, tasks: Tasks) -> None:
    """Raises UsageError for settings or an environment that cannot work."""
    require_positive(config, "rank", "learning_rate", "environments", "rollout_length", "goals_per_update")
    require_positive(config, "eval_goals", "eval_episodes")
    require_fraction(config, "discount", "epsilon", "target_rate")
    check_optimizer(config)
    require_choice(config, "architecture", ("two-stream", "concatenated"))
    require_choice(config, "activation", tuple(ACTIVATIONS))
    require_sizes(config, "hidden")
    if not is_goal_env(env):
        raise UsageError(f"uvfa needs an environment with goals, such as four-rooms-goals; {name_of(env)} has none")
    require_discrete_actions(env, "uvfa")
    require(config, config.relations(env, tasks))
    require_zero_at_goals(env, tasks)
    require_ends_independent_of_goals(env, tasks)


GOALS = 32  # that are compared


def require_zero_at_goals(env: Any, tasks: Tasks) -> None:
    """UsageError unless rewards are 0 at a goal, below 0 at some other, and nowhere above."""

    def extremes() -> jax.Array:
        goal = lambda key: Played(env).reset(key, tasks.sample(key))[0]["desired_goal"]
        goals = jax.vmap(goal)(jax.random.split(jax.random.key(0), GOALS))
        reward = lambda at, wanted: env.compute_reward(at, wanted, tasks.sample(jax.random.key(0)))
        paid = jax.vmap(jax.vmap(reward, (None, 0)), (0, None))(goals, goals)
        return jnp.stack([jnp.min(jnp.diagonal(paid)), jnp.min(paid), jnp.max(paid)])

    found = jax.jit(extremes).lower().compile()()  # compiled explicitly: we may be inside a trace
    at_goal, least, most = np.asarray(found).tolist()
    if not (at_goal == 0 == most and least < 0):
        raise UsageError(
            f"uvfa needs rewards of 0 at the goal and below 0 elsewhere; those of {name_of(env)} go from {least:g} to "
            f"{most:g}, with {at_goal:g} at a goal"
        )
