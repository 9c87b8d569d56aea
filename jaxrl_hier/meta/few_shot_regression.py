"""Few-shot regression: gradient-based meta-learning without reinforcement, the smallest check of its machinery.

    θ'_i = θ − α ∇L_i(θ; D_i)                    inner: the mean squared error of task i on K points, once or more
    θ   ← Adam(θ, Σ_i ∇_θ L_i(θ'_i(θ); D'_i))    outer: the same error on other points, after adapting

The methods differ in one place each:

    maml        as above (Finn, Abbeel & Levine, ICML 2017)
    fomaml      dθ'/dθ = 1: the Hessian of L_i is dropped
    anil        only the last layer is adapted (Raghu et al., ICLR 2020)
    meta-sgd    each weight has its own α, which is learned with θ (Li et al., 2017)
    reptile     θ ← θ + ε mean_i(θ'_i − θ), after several steps on fresh points each, with ε falling linearly to 0
                (Nichol, Achiam & Schulman, 2018); no outer points, no Adam
    pretrained  θ' = θ in training: one network for all tasks, fine-tuned at test time

Sizes are those of MAML's experiment on sinusoids, and `REPTILE` those of Reptile's own.

Departures:
- Weights start from Xavier's distribution, in MAML's code from a normal one of standard deviation .01.
- Meta-SGD starts all its rates at `inner_learning_rate`, in the paper at random ones in [.005, .1].
- Reptile's demonstration divides a grid of 50 points into its five minibatches. Ours draws them.
- The test error is taken on 100 points of each task; MAML's code takes it on as many as it adapts to. The mean is the
  same.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

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
from jaxrl_hier.meta.inner import adapt as adapt_to
from jaxrl_hier.meta.inner import gradient_step
from jaxrl_hier.quantities import Quantity
from jaxrl_hier.relations import Relation, held_out, require
from jaxrl_hier.settings import Rate

METHODS = ("maml", "fomaml", "anil", "meta-sgd", "reptile", "pretrained")


@dataclass(frozen=True)
class Config(OptimizerConfig):
    """Settings of few-shot regression. The defaults are those of MAML on sinusoids."""

    method: Literal["maml", "fomaml", "anil", "meta-sgd", "reptile", "pretrained"] = "maml"
    """what is learned for adapting from"""
    meta_batch_size: int = 25
    """tasks per iteration"""
    shots: int = 10
    """points that an adaptation step sees; only Reptile sees other ones in the next step"""
    outer_points: int = 10
    """points for the error after adaptation"""
    inner_steps: int = 1
    """adaptation steps in training"""
    inner_learning_rate: Rate = 0.01
    """α; where meta-sgd starts"""
    outer_learning_rate: Rate = 1e-3
    """Adam's learning rate; Reptile's ε"""
    hidden: tuple[int, ...] = (40, 40)
    """hidden layers"""
    activation: Literal["relu", "tanh", "silu"] = "relu"
    """between the layers"""
    eval_tasks: int = 600
    """test tasks"""
    eval_shots: int = 5
    """points to adapt to at test time, the same in every step"""
    eval_inner_steps: int = 10
    """adaptation steps at test time"""
    eval_inner_learning_rate: Rate | None = None
    """α at test time, but for meta-sgd; default: inner_learning_rate"""

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


QUANTITIES = {
    "return": Quantity("mean squared error", factor=-1.0, log=True),
    "adaptation_step": Quantity("gradient steps"),
}
EVAL_POINTS = 100

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
    """What is meta-learned: where adaptation starts, and how far it goes."""

    weights: Params  # θ
    rates: Params  # α of each weight for meta-sgd, else ()


class Points(NamedTuple):
    """A data set, [..., n, 1] each."""

    x: jax.Array
    y: jax.Array


def network_of(config: Config) -> Any:
    """[..., 1] -> [..., 1]."""
    return MLP((*config.hidden, 1), config.activation)


def squared_error(config: Config, weights: Params, points: Points) -> jax.Array:
    """L, the mean over the points."""
    return jnp.mean((network_of(config).apply(weights, points.x) - points.y) ** 2)


def last_layer_only(weights: Params, lr: Any) -> Params:
    """Inner rates for `gradient_step` that leave all layers of an MLP but its last as they are."""
    layers = weights["params"]
    last = f"Dense_{len(layers) - 1}"
    return {"params": {name: lr if name == last else None for name in layers}}


def inner_rates(config: Config, learned: Learned, lr: Any) -> Any:
    """What `gradient_step` takes as α: learned ones for meta-sgd, else `lr` for what the method adapts."""
    if config.method == "meta-sgd":
        return learned.rates
    return last_layer_only(learned.weights, lr) if config.method == "anil" else lr


def adapted(config: Config, learned: Learned, batches: Points) -> Params:
    """θ', after a step on each of the batches [K, n, 1]."""
    if config.method == "pretrained":
        return learned.weights
    lr = inner_rates(config, learned, config.inner_learning_rate)
    loss = partial(squared_error, config)
    return adapt_to(loss, learned.weights, batches, lr, first_order=config.method == "fomaml")


def meta_loss(config: Config, learned: Learned, data: MetaBatch) -> jax.Array:
    """The error after adaptation, mean over tasks; leaves of `data` have a leading axis [tasks]."""
    one_task = lambda batch: squared_error(config, adapted(config, learned, batch.inner), batch.outer)
    return jnp.mean(jax.vmap(one_task)(data))


def step_at_test_time(config: Config, learned: Learned, weights: Params, points: Points) -> Params:
    """`weights` after a gradient step of test time, from those that were learned or from adapted ones."""
    lr = inner_rates(
        config,
        learned,
        config.inner_learning_rate if config.eval_inner_learning_rate is None else config.eval_inner_learning_rate,
    )
    return gradient_step(partial(squared_error, config), weights, points, lr)


def fitted(config: Config, learned: Learned, points: Points, x: jax.Array) -> jax.Array:
    """Predictions at x [n, 1] after 0 … `eval_inner_steps` gradient steps on `points`: [eval_inner_steps + 1, n, 1]."""
    network = network_of(config)

    def step(weights: Params, _: None) -> tuple[Params, jax.Array]:
        weights = step_at_test_time(config, learned, weights, points)
        return weights, network.apply(weights, x)

    after = jax.lax.scan(step, learned.weights, length=config.eval_inner_steps)[1]
    return jnp.concatenate([network.apply(learned.weights, x)[None], after])


def reptile_step(weights: Params, after: Params, epsilon: Any) -> Params:
    """θ + ε mean_i(θ'_i − θ); leaves of `after` have a leading axis [tasks]."""
    return jax.tree.map(lambda w, a: w + epsilon * jnp.mean(a - w, axis=0), weights, after)


def task_data(config: Config, env: Any, task: EnvParams, key: jax.Array) -> MetaBatch:
    """What the adaptation steps on a task see, [K, shots, 1], and the outer points, [outer_points, 1]."""
    inner_key, outer_key = jax.random.split(key)
    batches = config.inner_steps if config.method == "reptile" else 1
    points = Points(*env.points(inner_key, task, batches * config.shots))
    inner = jax.tree.map(lambda p: p.reshape(batches, config.shots, -1), points)
    inner = jax.tree.map(lambda p: jnp.broadcast_to(p, (config.inner_steps, *p.shape[1:])), inner)
    return MetaBatch(inner, Points(*env.points(outer_key, task, config.outer_points)))


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """Few-shot regression on the tasks of an environment that has data sets (`points`), such as the sinusoid.

    Raises:
        UsageError: an environment without data sets, or a setting that cannot work.
    """
    if not hasattr(env, "points"):
        raise UsageError(f"few-shot regression needs tasks with data sets, such as sinusoid; {env.name} has none")
    require_choice(config, "method", METHODS)
    require_choice(config, "activation", tuple(ACTIVATIONS))
    require_positive(
        config, "meta_batch_size", "shots", "outer_points", "inner_steps", "inner_learning_rate", "outer_learning_rate"
    )
    require_positive(config, "eval_tasks", "eval_shots", "eval_inner_learning_rate")
    require_positive(config, "eval_inner_steps", or_zero=True)
    require_sizes(config, "hidden")
    check_optimizer(config)
    if config.method == "reptile" and config.max_grad_norm is not None:
        raise UsageError("max_grad_norm is for methods with a gradient; reptile has none")
    require(config, config.relations(env, tasks))

    method = config.method
    network = network_of(config)
    optimizer, epsilon = optimizer_of(config, config.outer_learning_rate), schedule(config, config.outer_learning_rate)

    def init_params(key: jax.Array) -> Learned:
        weights = network.init(key, jnp.zeros(1))
        rates = (
            jax.tree.map(lambda w: jnp.full_like(w, config.inner_learning_rate), weights)
            if method == "meta-sgd"
            else ()
        )
        return Learned(weights, rates)

    def act(params: Learned, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        return network.apply(params.weights, inp.obs), carry, ()

    def draw(params: Learned, task: EnvParams, key: jax.Array) -> tuple[Learned, MetaBatch]:
        return params, task_data(config, env, task, key)

    def outer_update(params: Learned, learner: Any, data: MetaBatch) -> tuple[Learned, Any, Metrics]:
        if method == "reptile":
            after = jax.vmap(partial(adapted, config, params))(data.inner)
            error = jnp.mean(jax.vmap(partial(squared_error, config))(after, data.outer))
            weights = reptile_step(params.weights, after, epsilon(learner))
            return Learned(weights, ()), learner + 1, {"return": -error}
        error, gradient = jax.value_and_grad(partial(meta_loss, config))(params, data)
        updates, learner = optimizer.update(gradient, learner, params)
        return optax.apply_updates(params, updates), learner, {"return": -error}

    def init(key: jax.Array) -> TrainState:
        key, key_params, key_world = jax.random.split(key, 3)
        params = init_params(key_params)
        return TrainState(
            params=params,
            learner=jnp.zeros((), jnp.int32) if method == "reptile" else optimizer.init(params),
            world=jax.random.split(key_world, config.meta_batch_size),
            memory=(),
            key=key,
            iteration=jnp.zeros((), jnp.int32),
        )

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """Minus the squared error on fresh points of the test tasks after 0 … `eval_inner_steps` gradient steps, which
        all see the same points; "experience_steps" counts these."""

        def one_task(task: EnvParams, key: jax.Array) -> jax.Array:
            key_points, key_test = jax.random.split(key)
            x, y = env.points(key_test, task, EVAL_POINTS)
            points = Points(*env.points(key_points, task, config.eval_shots))
            return jnp.mean((fitted(config, state.params, points, x) - y) ** 2, axis=(1, 2))

        key_tasks, key_points = jax.random.split(key)
        test_tasks = tasks.test_batch(config.eval_tasks, key_tasks)
        errors = jax.vmap(one_task)(test_tasks, jax.random.split(key_points, config.eval_tasks))
        seen = jnp.full(errors.shape, config.eval_shots).at[:, 0].set(0)
        axes = ("task", "adaptation_step")
        return {"return": NamedArray(-errors, axes), "experience_steps": NamedArray(seen, axes)}

    agent = Agent(init=init_params, start=lambda params, key: (), act=act)

    # A step shows how wrong a prediction was and not what would have been right, so that acting teaches nothing of a
    # task; `adapt` fits its points

    player = Player(
        new_task=lambda params, key: (params.weights, ()),
        new_episode=lambda params, weights, carry, key: carry,
        act=lambda params, weights, carry, inp, key, greedy: (network.apply(weights, inp.obs), carry, ()),
    )

    def adapt(params: Learned, task: EnvParams, key: jax.Array, steps: int = config.eval_inner_steps) -> Known:
        points = Points(*env.points(key, task, config.eval_shots))
        once = lambda weights, _: (step_at_test_time(config, params, weights, points), None)
        return Known(jax.lax.scan(once, params.weights, length=steps)[0], (), jnp.zeros(1), jnp.zeros(()))

    seen = config.shots * (config.inner_steps if method == "reptile" else 1)
    env_steps = config.meta_batch_size * (seen + config.outer_points)
    step = metagrad(tasks, draw, outer_update)
    return Algorithm(init, step, evaluate, agent, env_steps, player=player, adapt=adapt)
