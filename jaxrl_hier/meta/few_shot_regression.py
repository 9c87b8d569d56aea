"""Few-shot regression: gradient-based meta-learning without reinforcement, the smallest check of its machinery.

    θ'_i = θ − α ∇L_i(θ; D_i)                    inner: the mean squared error on K points of task i, one or more steps
    θ   ← Adam(θ, Σ_i ∇_θ L_i(θ'_i(θ); D'_i))    outer: the same error on other points, after adaptation

The methods differ in one place each:

    maml        as above (Finn, Abbeel & Levine, ICML 2017)
    fomaml      dθ'/dθ = 1: the Hessian of L_i is dropped
    anil        only the last layer adapts (Raghu et al., ICLR 2020)
    meta-sgd    each weight has its own α, which is learned together with θ (Li et al., 2017)
    reptile     θ ← θ + ε mean_i(θ'_i − θ), after several steps on fresh points each, with ε falling linearly to 0
                (Nichol, Achiam & Schulman, 2018); no outer points, no Adam
    pretrained  θ' = θ in training: one network for all tasks, fine-tuned at test time

The sizes are those of MAML's experiment on sinusoids; `REPTILE` has those of Reptile's own.

Departures:
- Weights start from Xavier's distribution, in MAML's code from a normal one with standard deviation .01.
- All of Meta-SGD's rates start at `inner_learning_rate`, in the paper at random values in [.005, .1].
- Reptile's demonstration divides a grid of 50 points into its five minibatches. Ours draws them.
- The test error is taken on 100 points of each task, in MAML's code on as many as it adapts to. The mean is the same.

Axes in shapes: K adaptation steps, n points.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_envs.contract import name_of
from jaxrl_hier.checks import UsageError, require_choice, require_positive, require_sizes
from jaxrl_hier.engine.adapting import Known
from jaxrl_hier.engine.loops import MetaBatch, metagrad
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
)
from jaxrl_hier.learning.networks import ACTIVATIONS, MLP
from jaxrl_hier.learning.optimization import OptimizerConfig, check_optimizer, linear_over, optimizer_of, schedule
from jaxrl_hier.meta.inner import adapt, gradient_step, head_rates
from jaxrl_hier.quantities import Quantity
from jaxrl_hier.relations import Relation, held_out, require
from jaxrl_hier.settings import Rate


@dataclass(frozen=True)
class Config(OptimizerConfig):
    """Settings of few-shot regression. The defaults are those of MAML on sinusoids."""

    method: Literal["maml", "fomaml", "anil", "meta-sgd", "reptile", "pretrained"] = "maml"
    """meta-learning method"""
    meta_batch_size: int = 25
    """tasks per iteration"""
    shots: int = 10
    """points that an adaptation step sees; the same in every step, except with reptile"""
    outer_points: int = 10
    """points for the error after adaptation"""
    inner_steps: int = 1
    """adaptation steps in training"""
    inner_learning_rate: Rate = 0.01
    """learning rate of the adaptation (α); with meta-sgd, where the learned rates start"""
    outer_learning_rate: Rate = 1e-3
    """learning rate of Adam; with reptile, the step size ε"""
    hidden: tuple[int, ...] = (40, 40)
    """sizes of the hidden layers"""
    activation: Literal["relu", "tanh", "silu"] = "relu"
    """activation after each hidden layer"""
    eval_tasks: int = 600
    """number of test tasks"""
    eval_shots: int = 5
    """points to adapt to at test time, the same in every step"""
    eval_inner_steps: int = 10
    """adaptation steps at test time"""
    eval_inner_learning_rate: Rate | None = None
    """learning rate of the adaptation at test time, except with meta-sgd; default: inner_learning_rate"""

    side_by_side = "meta_batch_size"
    renamed: ClassVar = {
        "decay_iterations": lambda iterations, kept: linear_over(iterations),
        "meta_batch": "meta_batch_size",
        "inner_lr": "inner_learning_rate",
        "outer_lr": "outer_learning_rate",
        "eval_steps": "eval_inner_steps",
        "eval_lr": "eval_inner_learning_rate",
    }

    @staticmethod
    def relations(env: Any, tasks: Tasks) -> list[Relation]:
        return [held_out("eval_tasks", tasks)]


METHODS = ("maml", "fomaml", "anil", "meta-sgd", "reptile", "pretrained")
QUANTITIES = {
    "return": Quantity("mean squared error", factor=-1.0, log=True),
    "adaptation_step": Quantity("gradient steps"),
}
EVAL_POINTS = 100  # of a test task, for its error

REPTILE = Config(
    method="reptile",
    meta_batch_size=1,
    inner_steps=5,
    inner_learning_rate=0.02,
    outer_learning_rate=0.1,
    learning_rate_schedule="linear",
    learning_rate_iterations=30_000,
    hidden=(64, 64),
    activation="tanh",
    eval_shots=10,
    eval_inner_steps=32,
)


class Learned(NamedTuple):
    """The meta-parameters: where adaptation starts, and the learned rates."""

    weights: Params  # θ
    rates: Params  # α of each weight with meta-sgd, else ()


class Points(NamedTuple):
    """A data set."""

    x: jax.Array  # [..., n, 1]
    y: jax.Array  # [..., n, 1]


def network_of(config: Config) -> Any:
    """The network as a flax module, [..., 1] -> [..., 1]."""
    return MLP((*config.hidden, 1), config.activation)


def init_params(config: Config, key: jax.Array) -> Learned:
    """New meta-parameters."""
    weights = network_of(config).init(key, jnp.zeros(1))
    if config.method != "meta-sgd":
        return Learned(weights, ())
    return Learned(weights, jax.tree.map(lambda w: jnp.full_like(w, config.inner_learning_rate), weights))


def squared_error(config: Config, weights: Params, points: Points) -> jax.Array:
    """The mean squared error L [] on some points."""
    return jnp.mean((network_of(config).apply(weights, points.x) - points.y) ** 2)


# Adaptation


def inner_rates(config: Config, learned: Learned, rate: Any) -> Any:
    """α as `gradient_step` takes it: the learned rates with meta-sgd, else `rate` for all that the method adapts."""
    if config.method == "meta-sgd":
        return learned.rates
    return head_rates(learned.weights, rate, len(config.hidden)) if config.method == "anil" else rate


def adapted_weights(config: Config, learned: Learned, batches: Points) -> Params:
    """θ' after a step on each of the batches [K, n, 1], as in training."""
    if config.method == "pretrained":
        return learned.weights
    rates = inner_rates(config, learned, config.inner_learning_rate)
    loss = partial(squared_error, config)
    return adapt(loss, learned.weights, batches, rates, first_order=config.method == "fomaml")


def adaptation_step(config: Config, learned: Learned, weights: Params, points: Points) -> Params:
    """The weights after one gradient step at test time, from `weights`."""
    rate = config.inner_learning_rate if config.eval_inner_learning_rate is None else config.eval_inner_learning_rate
    return gradient_step(partial(squared_error, config), weights, points, inner_rates(config, learned, rate))


def adapted_predictions(config: Config, learned: Learned, points: Points, x: jax.Array) -> jax.Array:
    """Predictions at x [n, 1] after 0 … K = `eval_inner_steps` gradient steps on `points`: [K + 1, n, 1]."""
    network = network_of(config)

    def step(weights: Params, _: None) -> tuple[Params, jax.Array]:
        weights = adaptation_step(config, learned, weights, points)
        return weights, network.apply(weights, x)

    after = jax.lax.scan(step, learned.weights, length=config.eval_inner_steps)[1]
    return jnp.concatenate([network.apply(learned.weights, x)[None], after])


def adapt_to_task(
    config: Config, env: Any, params: Learned, task: EnvParams, key: jax.Array, steps: int | None = None
) -> Known:
    """What is known of a task after gradient steps on `eval_shots` of its points; default: `eval_inner_steps`."""
    points = Points(*env.points(key, task, config.eval_shots))
    once = lambda weights, _: (adaptation_step(config, params, weights, points), None)
    length = config.eval_inner_steps if steps is None else steps
    return Known(jax.lax.scan(once, params.weights, length=length)[0], (), jnp.zeros(1), jnp.zeros(()))


# Meta-learning


def task_data(config: Config, env: Any, task: EnvParams, key: jax.Array) -> MetaBatch:
    """The data of a task: points for each adaptation step [K, shots, 1], and the outer points [outer_points, 1]."""
    inner_key, outer_key = jax.random.split(key)
    batches = config.inner_steps if config.method == "reptile" else 1
    points = Points(*env.points(inner_key, task, batches * config.shots))
    inner = jax.tree.map(lambda p: p.reshape(batches, config.shots, -1), points)
    inner = jax.tree.map(lambda p: jnp.broadcast_to(p, (config.inner_steps, *p.shape[1:])), inner)
    return MetaBatch(inner, Points(*env.points(outer_key, task, config.outer_points)))


def meta_loss(config: Config, learned: Learned, data: MetaBatch) -> jax.Array:
    """The error [] after adaptation, mean over tasks; leaves of `data` have a leading axis [tasks]."""
    one_task = lambda batch: squared_error(config, adapted_weights(config, learned, batch.inner), batch.outer)
    return jnp.mean(jax.vmap(one_task)(data))


def meta_update(
    config: Config, optimizer: optax.GradientTransformation, params: Learned, learner: Any, data: MetaBatch
) -> tuple[Learned, Any, Metrics]:
    """A step of Adam on the meta-loss."""
    error, gradient = jax.value_and_grad(partial(meta_loss, config))(params, data)
    updates, learner = optimizer.update(gradient, learner, params)
    return optax.apply_updates(params, updates), learner, {"return": -error}


def reptile_step(weights: Params, adapted: Params, epsilon: Any) -> Params:
    """θ + ε mean_i(θ'_i − θ); leaves of `adapted` have a leading axis [tasks]."""
    return jax.tree.map(lambda w, a: w + epsilon * jnp.mean(a - w, axis=0), weights, adapted)


def reptile_update(config: Config, params: Learned, iteration: jax.Array, data: MetaBatch) -> tuple[Any, Any, Metrics]:
    """A step of Reptile towards the adapted weights; the learner is the number of iterations so far, []."""
    after = jax.vmap(partial(adapted_weights, config, params))(data.inner)
    error = jnp.mean(jax.vmap(partial(squared_error, config))(after, data.outer))
    epsilon = schedule(config, config.outer_learning_rate)(iteration)
    return Learned(reptile_step(params.weights, after, epsilon), ()), iteration + 1, {"return": -error}


# The algorithm


def act(
    config: Config, params: Learned, carry: Any, inp: ActInput, key: jax.Array, greedy: bool
) -> tuple[Any, Any, Any]:
    """The prediction at an input, without adaptation."""
    return network_of(config).apply(params.weights, inp.obs), carry, ()


def init(config: Config, optimizer: optax.GradientTransformation, key: jax.Array, params: Any = None) -> TrainState:
    """Meta-parameters, new ones unless given, and a key for each task of an iteration."""
    key, key_params, key_world = jax.random.split(key, 3)
    params = init_params(config, key_params) if params is None else params
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        params=params,
        learner=zero if config.method == "reptile" else optimizer.init(params),
        world=jax.random.split(key_world, config.meta_batch_size),
        memory=(),
        key=key,
        iteration=zero,
    )


def evaluate(config: Config, env: Any, tasks: Tasks, state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
    """The error on the test tasks after 0 … `eval_inner_steps` gradient steps on the same points.

    Returns:
        With axes [task, adaptation_step]: "return", minus the mean squared error on other points of the task, and
        "experience_steps", the points that the steps so far have seen.
    """

    def one_task(task: EnvParams, key: jax.Array) -> jax.Array:
        key_points, key_test = jax.random.split(key)
        x, y = env.points(key_test, task, EVAL_POINTS)
        points = Points(*env.points(key_points, task, config.eval_shots))
        return jnp.mean((adapted_predictions(config, state.params, points, x) - y) ** 2, axis=(1, 2))

    key_tasks, key_points = jax.random.split(key)
    test_tasks = tasks.test_batch(config.eval_tasks, key_tasks)
    errors = jax.vmap(one_task)(test_tasks, jax.random.split(key_points, config.eval_tasks))
    seen = jnp.full(errors.shape, config.eval_shots).at[:, 0].set(0)
    axes = ("task", "adaptation_step")
    return {"return": NamedArray(-errors, axes), "experience_steps": NamedArray(seen, axes)}


def player_of(config: Config) -> Player:
    """Predictions by the weights in the memory.

    A reward tells how wrong a prediction was and not what would have been right, so acting does not adapt; use
    `Algorithm.adapt`, which fits points of the task.
    """
    network = network_of(config)
    return Player(
        new_task=lambda params, key: (params.weights, ()),
        new_episode=lambda params, weights, carry, key: carry,
        act=lambda params, weights, carry, inp, key, greedy: (network.apply(weights, inp.obs), carry, ()),
    )


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """Few-shot regression on the tasks of an environment that has data sets (`points`), such as the sinusoid.

    Raises:
        UsageError: an environment without data sets, or a setting that cannot work.
    """
    check(config, env, tasks)
    optimizer = optimizer_of(config, config.outer_learning_rate)
    reptile = config.method == "reptile"
    outer_update = partial(reptile_update, config) if reptile else partial(meta_update, config, optimizer)
    draw = lambda params, task, key: (params, task_data(config, env, task, key))
    points = config.shots * (config.inner_steps if reptile else 1) + config.outer_points
    return Algorithm(
        init=partial(init, config, optimizer),
        step=metagrad(tasks, draw, outer_update),
        evaluate=partial(evaluate, config, env, tasks),
        agent=Agent(init=partial(init_params, config), start=lambda params, key: (), act=partial(act, config)),
        env_steps=config.meta_batch_size * points,
        player=player_of(config),
        adapt=partial(adapt_to_task, config, env),
    )


def check(config: Config, env: Any, tasks: Tasks) -> None:
    """Raises UsageError for an environment without data sets, or a setting that cannot work."""
    if not hasattr(env, "points"):
        raise UsageError(f"few-shot regression needs tasks with data sets, such as sinusoid; {name_of(env)} has none")
    require_choice(config, "method", METHODS)
    require_choice(config, "activation", tuple(ACTIVATIONS))
    require_positive(config, "meta_batch_size", "shots", "outer_points", "inner_steps")
    require_positive(config, "inner_learning_rate", "outer_learning_rate")
    require_positive(config, "eval_tasks", "eval_shots", "eval_inner_learning_rate")
    require_positive(config, "eval_inner_steps", or_zero=True)
    require_sizes(config, "hidden")
    check_optimizer(config)
    if config.method == "reptile" and config.max_grad_norm is not None:
        raise UsageError("max_grad_norm is for methods with a gradient; reptile has none")
    require(config, config.relations(env, tasks))
