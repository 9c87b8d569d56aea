"""Shared parts of tabular learners: table sizes, exploration, sequential updates, exact evaluation.

Axes in shapes: S states, A actions, O options, N of either.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from jaxrl_envs.contract import Played, name_of, observed_model
from jaxrl_envs.random_bits import uniforms
from jaxrl_envs.tasks import number_of
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.evaluation import of_worlds, play
from jaxrl_hier.engine.loops import EpisodeLog, Update, begin_learning, online
from jaxrl_hier.engine.types import Agent, Algorithm, Metrics, NamedArray, Params, Tasks, TrainState, Transition, World
from jaxrl_hier.exact import tabular

LearnFromStep = Callable[[Params, Any, Transition], tuple[Params, Any, Metrics]]  # the metrics are Averages


def table_sizes(env: Any) -> tuple[int, int]:
    """S and A of an environment with Discrete observations and actions; UsageError for any other."""
    observations, actions = env.observation_space(env.default_params), env.action_space(env.default_params)
    for name, space in (("observations", observations), ("actions", actions)):
        if not isinstance(space, spaces.Discrete):
            raise UsageError(
                f"a table needs discrete observations and actions, such as those of four-rooms; {name_of(env)} has "
                f"{type(space).__name__} {name}"
            )
    return observations.n, actions.n


def epsilon_greedy(draws: jax.Array, values: jax.Array, allowed: jax.Array, epsilon: Any) -> jax.Array:
    """An index [] int32 into `values` [N]: with probability ε any `allowed` [N] one, otherwise a best allowed one.

    Ties are broken uniformly at random, so that the first episode with a table of zeros is a random walk, as in the
    papers; an argmax would always take the first.

    Args:
        draws: [2] uniform in [0, 1).
    """
    best = jnp.max(jnp.where(allowed, values, -jnp.inf))
    pool = allowed & ((values == best) | (draws[0] < epsilon))
    place = jnp.cumsum(pool)  # 1, 2, … at the members of the pool
    return jnp.sum(place <= jnp.floor(draws[1] * place[-1]), dtype=jnp.int32)


def boltzmann(draw: jax.Array, values: jax.Array, temperature: Any) -> jax.Array:
    """An index [] int32 into `values` [N], with probability proportional to exp(values / temperature).

    Args:
        draw: [] uniform in [0, 1).
    """
    cumulative = jnp.cumsum(jax.nn.softmax(values / temperature))
    return jnp.sum(cumulative[:-1] <= draw * cumulative[-1], dtype=jnp.int32)


def random_action(key: jax.Array, num_actions: int) -> jax.Array:
    """Uniform over the actions, [] int32."""
    return jnp.floor(uniforms(key, 1)[0] * num_actions).astype(jnp.int32)


def in_turn(learn: LearnFromStep) -> Update:
    """An `update` for the online loop that applies `learn` to one transition at a time, as in textbooks."""

    def update(
        params: Params, learner: Any, before: World, transitions: Transition, key: jax.Array
    ) -> tuple[Params, Any, Metrics]:
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), transitions)

        def one(carry: tuple[Params, Any], row: Transition) -> tuple[tuple[Params, Any], Metrics]:
            params, learner, metrics = learn(*carry, row)
            return (params, learner), metrics

        single = rows.reward.shape[0] == 1
        (params, learner), metrics = jax.lax.scan(one, (params, learner), rows, unroll=single)
        return params, learner, jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)

    return update


def learner_from_steps(
    config: Any, env: Any, tasks: Tasks, agent: Agent, update: Update, evaluate: Callable[..., Any]
) -> Algorithm:
    """The algorithm that takes a step in each environment and learns from these, iteration by iteration.

    Args:
        config: its settings, of which `environments` and `recorded_episodes` are used.
        update: of `engine.loops.online`. evaluate: of `Algorithm`.
    """

    def init(key: jax.Array, params: Any = None) -> TrainState:
        counts = {"environments": config.environments, "recorded_episodes": config.recorded_episodes}
        return begin_learning(env, agent, tasks, key, params, **counts)

    step = online(env, agent, tasks, update, length=1)
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=config.environments)


STARTS = 64  # sampled initial states, over which quantities from the start are averaged


def measure(
    env: Any,
    agent: Agent,
    tasks: Tasks,
    state: TrainState,
    key: jax.Array,
    solve: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    discount: Any = None,
    *,
    greedy: bool = True,
) -> dict[str, NamedArray]:
    """Performance of a learned policy, with that of the optimal policy, on held-out tasks, or on those of its worlds
    where none are held out.

    Args:
        solve: P [S, A, S'] and R [S, A] of a task -> expected steps [S] and discounted values [S] of the policy. The
            states of `env.model` are its observations.
        discount: γ of the values; None: omit the optimal values.
        greedy: whether that policy is the greedy one, and not the one that acts in training.

    Returns:
        With a first axis [environment], or [task] of held-out tasks: "steps" and "start_value" from the initial state,
        "steps_from" and "value" [state]: exact, except that random initial states are averaged over 64 samples;
        "best_steps" and "best_start_value", the minimum of steps and maximum of value over all policies of primitive
        actions. Without a `model`: "steps", "return" and "complete" [episode] of 64 episodes.
        "training_length" and "training_return" [environment, episode]: the first episodes of training; length 0 means
        that the episode has not ended.
    """

    def exact(task: Any, key: jax.Array) -> dict[str, NamedArray]:
        P, R = env.model(task)
        steps, values = solve(P, R)
        first, _ = jax.vmap(Played(env).reset, (0, None))(jax.random.split(key, STARTS), task)
        from_start = {"steps": steps, "best_steps": tabular.minimal_expected_steps(P), "start_value": values}
        if discount is not None:
            from_start["best_start_value"] = tabular.value_iteration(P, R, discount)
        return {name: NamedArray(jnp.mean(x[first]), ()) for name, x in from_start.items()} | {
            "steps_from": NamedArray(steps, ("state",)),
            "value": NamedArray(values, ("state",)),
        }

    def played(task: Any, key: jax.Array) -> dict[str, NamedArray]:
        seen = play(env, agent, Tasks(sample=lambda _: task), state.params, key, STARTS, greedy=greedy)
        return {{"length": "steps"}.get(name, name): m for name, m in seen.items()}

    axis, those = of_worlds(tasks, state.world)
    keys = jax.random.split(key, number_of(those))
    measured = jax.vmap(exact if observed_model(env) else played)(those, keys)
    measured = {name: NamedArray(m.values, (axis, *m.axes)) for name, m in measured.items()}
    if isinstance(state.memory, EpisodeLog):
        measured["training_length"] = NamedArray(state.memory.lengths, ("environment", "episode"))
        measured["training_return"] = NamedArray(state.memory.returns, ("environment", "episode"))
    return measured
