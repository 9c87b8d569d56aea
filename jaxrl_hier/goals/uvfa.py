"""Universal value function approximators (Schaul, Horgan, Gregor & Silver, ICML 2015): one value function, all goals.

No text of that paper was at hand: what follows is from memory, and is to be read so.

A goal has a pseudo-reward of 1 on arriving and a pseudo-discount that is 0 there, whatever the task itself pays:

    Q(s, a, g) = E[ 1 if s' = g, else γ V(s', g) ],     V(s, g) = max_a Q(s, a, g),

the expected γ^(steps to the goal − 1). In s = g it is what going away and coming back is worth. Two architectures:

    concatenated   Q(s, ·, g) = MLP([s, g])
    two-stream     Q(s, a, g) = φ(s, a) · ψ(g)             vectors of n components; V(s, g) = φ(s) · ψ(g)

Two ways to train them:

- Supervised from a table M of exact values, rows s (or s, a) and columns g. End to end; or for two streams in two
  stages: factorise M ≈ Φ̂ Ψ̂ᵀ with rank n, then regress φ(s) on Φ̂ and ψ(g) on Ψ̂, two separate problems. The paper
  factorises by OptSpace; here it is the singular value decomposition, from which alternating least squares go on
  where entries of the table are missing.
- By bootstrapping, the registered algorithm "uvfa": Q-learning from transitions, each of which teaches about several
  goals at once, those that the environments are after. A target network follows slowly. With the concatenated network
  each pair of a step and a goal is a pass of its own; with two streams steps and goals are embedded once each and
  every pair is an inner product.

Departures: the targets are clipped to [0, 1], where all values lie, and nothing is replayed: many environments side by
side take the place of a memory.
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

from jaxrl_envs.goals import is_goal_env
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive, require_sizes
from jaxrl_hier.engine.evaluation import play_first
from jaxrl_hier.engine.loops import begin_worlds, online
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
from jaxrl_hier.learning.networks import ACTIVATIONS, MLP, kind_of
from jaxrl_hier.learning.optimization import OptimizerConfig, check_optimizer, optimizer_of
from jaxrl_hier.learning.tables import begin_learning, epsilon_greedy
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
    """V*(s, g) [S, S] for γ < 1, by value iteration for all goals at once; Q* is the `backup` of it."""
    start = jnp.zeros((P.shape[0], P.shape[0]), P.dtype)
    update = lambda values: jnp.max(backup(P, values, gamma), axis=1)
    return fixed_point(update, start, tolerance * (1 - gamma), 100_000)


@partial(jax.jit, static_argnames="steps")
def policy_values(P: jax.Array, policies: jax.Array, gamma: float, steps: int) -> jax.Array:
    """V(s, g) [S, S] of a policy for each goal, [S, A, S], that has `steps` steps to get there.

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

    Without `observed` it is the best approximation of this rank, by the singular value decomposition, each factor
    with the square root of the singular values. With it, alternating least squares start from that of the table whose
    missing entries are 0, all scaled up by their share, and reduce

        Σ_observed (M − Φ̂ Ψ̂ᵀ)² + ridge (‖Φ̂‖² + ‖Ψ̂‖²).

    Args:
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
    """The other factor [R, n], row by row, for `fixed` [C, n]."""
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
    """States [..., F], goals [..., F'] -> values [..., outputs]; leading axes are broadcast after the two networks."""

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
    return lambda x: 2 * (x.astype(jnp.float32) - low) / (high - low) - 1


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
    """Least squares by Adam, its rate falling to 0 as a cosine; returns params and the mean squared error of each step.

    Args:
        network: with fields that can be hashed; compiled once for all seeds.
        inputs: each [N, ...]. targets: [N, ...]. A step sees `batch` of the N, drawn with replacement.
        method: of the network, by name, *inputs -> predictions.
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
    """Either network trained end to end on a table of values.

    Args:
        states: [S, F] inputs. goals: [G, F']. table: [S, outputs, G].
        settings: of `regress`; a row is a pair of a state and a goal.
    """
    s, g = (x.reshape(-1) for x in jnp.meshgrid(jnp.arange(len(states)), jnp.arange(len(goals)), indexing="ij"))
    key_init, key = jax.random.split(key)
    params = network.init(key_init, states[:1], goals[:1])
    return regress(network, params, (states[s], goals[g]), table[s, :, g], key, **settings)[0]


def fit_two_stage(
    network: TwoStream, states: jax.Array, goals: jax.Array, table: jax.Array, key: jax.Array, **settings: Any
) -> Params:
    """Two streams, each regressed on its factor of the table; arguments as of `fit_values`, a row is a state or a goal.

    The factors have the scale of the singular values, by which components weigh in the regression.
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
    """Settings of the value function of all goals that is learned from transitions."""

    architecture: Literal["two-stream", "concatenated"] = "two-stream"
    """an inner product of two embeddings, or one network of both inputs"""
    rank: int = 32
    """n, components of the embeddings; for two streams"""
    hidden: tuple[int, ...] = (128, 128)
    """layers of each network"""
    activation: Literal["relu", "tanh", "silu"] = "relu"
    """after each of them"""
    discount: float = 0.97
    """γ. A step at distance d is worth γ^d (1 − γ), most for γ = d / (d + 1): the longest way is 37 steps"""
    epsilon: float = 0.3
    """ε, probability of a random action"""
    learning_rate: Rate = 1e-3
    """of Adam"""
    target_rate: float = 0.05
    """how far the target network moves towards the learned one with each update"""
    environments: int = 64
    """environments side by side"""
    rollout_length: int = 8
    """steps of each environment per update"""
    goals_per_update: int = 16
    """goals that each step teaches about, drawn from those of the environments"""
    eval_goals: int = 10
    """goals of the evaluation, on either side: held out, and drawn as in training"""
    eval_episodes: int = 16
    """episodes for each"""

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


def value_function(
    config: Config, env: Any
) -> tuple[Callable[[jax.Array], Params], Callable[[Params, Any, jax.Array], Any]]:
    """The network of an environment with goals and Discrete actions.

    Returns:
        init: key -> params.
        values: params, observations and goals, whose leading axes are broadcast -> Q [..., A].

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


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """A value function of all goals, on an environment with goals (jaxrl_envs.goals) and Discrete actions.

    Its `compute_reward` must be 0 where the goal is reached and negative elsewhere. Learner: target network and state
    of Adam.

    Raises:
        UsageError: a setting that cannot work, or an environment without goals, bounds or Discrete actions.
    """
    require_positive(
        config,
        "rank",
        "learning_rate",
        "environments",
        "rollout_length",
        "goals_per_update",
        "eval_goals",
        "eval_episodes",
    )
    require_fraction(config, "discount", "epsilon", "target_rate")
    check_optimizer(config)
    require_choice(config, "architecture", ("two-stream", "concatenated"))
    require_choice(config, "activation", tuple(ACTIVATIONS))
    require_sizes(config, "hidden")
    if not is_goal_env(env):
        raise UsageError(f"uvfa needs an environment with goals, such as four-rooms-goals; {env.name} has none")
    actions = env.action_space(env.default_params)
    if not isinstance(actions, spaces.Discrete):
        raise UsageError(f"uvfa needs discrete actions; {env.name} has {type(actions).__name__} actions")
    require(config, config.relations(env, tasks))
    init_params, values = value_function(config, env)
    optimizer = optimizer_of(config, config.learning_rate)
    every_action = jnp.ones(actions.n, bool)

    def arrived(obs: Any, goal: jax.Array) -> jax.Array:  # one step
        return env.compute_reward(obs["achieved_goal"], goal, env.default_params) >= 0

    def act(params: Params, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        q = values(params, inp.obs, inp.obs["desired_goal"])
        draws = jax.random.uniform(key, (2,))
        return epsilon_greedy(draws, q, every_action, 0.0 if greedy else config.epsilon), carry, ()

    agent = Agent(init=init_params, start=lambda params, key: (), act=act)

    def update(
        params: Params, learner: Any, before: World, t: Transition, key: jax.Array
    ) -> tuple[Params, Any, Metrics]:
        target, optimizer_state = learner
        rows: Transition = jax.tree.map(lambda x: x.reshape(-1, 1, *x.shape[2:]), t)  # [N, 1, ...]
        drawn = jax.random.permutation(key, config.environments)[: config.goals_per_update]
        goals = t.obs["desired_goal"][-1][drawn]  # [G, ...]
        each_goal = jax.vmap(arrived, (None, 0))
        there = jax.vmap(jax.vmap(each_goal, (0, None)), (0, None))(t.next_obs, goals).reshape(-1, len(goals))
        following = jnp.clip(jnp.max(values(target, rows.next_obs, goals[None]), axis=-1), 0.0, 1.0)
        wanted = jnp.where(there, 1.0, config.discount * jnp.where(rows.terminated, 0.0, following))  # [N, G]

        def loss(params: Params) -> tuple[jax.Array, jax.Array]:
            q = values(params, rows.obs, goals[None])  # [N, G, A]
            error = jnp.take_along_axis(q, rows.action[..., None], axis=-1)[..., 0] - wanted
            return jnp.mean(error**2), jnp.mean(jnp.abs(error))

        gradient, error = jax.grad(loss, has_aux=True)(params)
        change, optimizer_state = optimizer.update(gradient, optimizer_state)
        params = optax.apply_updates(params, change)
        target = optax.incremental_update(params, target, config.target_rate)
        metrics = {"td_error": error, "arrivals": jnp.mean(there)}
        return params, (target, optimizer_state), metrics

    def init(key: jax.Array) -> TrainState:
        state = begin_learning(env, agent, tasks, key, environments=config.environments)
        return replace(state, learner=(state.params, optimizer.init(state.params)))

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """Played greedily: shares of episodes that arrive within the time limit, "success" [task] for goals held out
        and "success_on_learned" [task] for goals drawn as in training."""

        def add(ever: jax.Array, t: Transition, on: jax.Array) -> jax.Array:
            return ever | (on & jax.vmap(arrived)(t.next_obs, t.obs["desired_goal"]))

        def share(task: Any, key: jax.Array) -> jax.Array:
            only, never = Tasks(sample=lambda _: task), jnp.zeros(config.eval_episodes, bool)
            worlds = begin_worlds(env, agent, only, state.params, key, config.eval_episodes)
            return jnp.mean(play_first(env, agent, only, state.params, worlds, add, never)[1])

        key_test, key_learned, key = jax.random.split(key, 3)
        keys = jax.random.split(key, config.eval_goals)
        learned = jax.vmap(tasks.sample)(jax.random.split(key_learned, config.eval_goals))
        groups = {"success": tasks.test_batch(config.eval_goals, key_test), "success_on_learned": learned}
        return {name: NamedArray(jax.vmap(share)(batch, keys), ("task",)) for name, batch in groups.items()}

    step = online(env, agent, tasks, update, length=config.rollout_length)
    env_steps = config.environments * config.rollout_length
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=env_steps)
