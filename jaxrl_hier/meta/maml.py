"""MAML for reinforcement learning (Finn, Abbeel & Levine, ICML 2017, algorithm 3), and methods derived from it.

    θ'_i = θ − α ∇_θ L_i(θ; D_i)                inner: policy gradient on task i, K times, D_i from π_θ
    θ   ← argmin_θ Σ_i L_i(θ'_i(θ); D'_i)       outer: one trust-region step (TRPO), Adam, SGD, or epochs of PPO

The inner loss is L(θ; D) = −mean(log π_θ(a|s) · A), the outer one −mean(π_θ'(a|s) / π_old(a|s) · A). The advantages A
come from the linear feature baseline, which is fitted for each task on its own batch, with γ = .99 and λ = 1, and are
standardised over the batch.

Each of the other methods is a switch, and a preset is named after it (`jaxrl-hier list`):

    first_order          FOMAML: dθ'/dθ is taken as the identity
    reptile              Reptile (Nichol et al., 2018): θ ← θ + ε mean_i(θ'_i − θ)
    head_only            ANIL (Raghu et al., 2020): only the last layer adapts
    context_parameters   CAVIA (Zintgraf et al., 2019): only a vector beside the observations adapts
    learn_inner_rates    Meta-SGD (Li et al., 2017): α is learned, one for each weight
    credit_exploration   E-MAML (Stadie et al., 2018): a task's D is credited with the return after adaptation
    estimator            LVC, DiCE, loaded DiCE: inner losses with a better Hessian (see `estimators`)
    outer                with "ppo", LVC and a KL penalty it is ProMP (Rothfuss et al., 2019)

`inner_steps = 0` is the paper's "pre-trained" baseline: the policy that is best on average, then fine-tuned.

Where the paper and its code differ we follow the code, since the published numbers come from it: α = .5 on 2-D
navigation (the paper says .1), rewards are plain distances, and test-time steps see twice the data of training.

Departures:
- Each environment takes `horizon` steps, and learning uses every episode that it completes in them; the code goes on
  until the completed episodes fill a step budget. Reported returns are those of each environment's first episode. The
  code reports the mean over all episodes, which counts short ones more often: on 2-D navigation, the good ones.
- At test time α falls to 35 % after the first step, in the paper to 50 %. Our policies end with a smaller standard
  deviation, which makes the policy gradient larger, and half of α overshoots in the second step. The factor was chosen
  on goals used neither for training nor for testing; benchmarks/papers/maml_navigation.py publishes both.
- The Fisher product is exact (see `trust_region`), not a finite difference, and damped by 1e-2 instead of 1e-5. With
  1e-5 the conjugate gradients, in float32, go far along directions that change the unadapted policy but not the adapted
  ones: one seed of five diverged from the origin and did not return. The presets evaluate it on the trajectories of 4
  of a task's 20 environments (`fisher_episodes`), which halves the time of an iteration
  (`python -m benchmarks throughput maml`).
- The default inner Hessian is that of the surrogate with its samples fixed, as in the code. The meta-gradient is
  biased, since it drops how the distribution of the inner batch depends on θ (Rothfuss et al., 2019, section 4).
- Reptile takes its last step on D', so that it learns from the same trajectories as the others: K + 1 steps.
- E-MAML's credit is the return after adaptation, standardised over the tasks, and multiplies the mean over D's steps,
  not the sum: there are thousands of them.
- ANIL also adapts the logarithm of the standard deviation. Meta-SGD's rates all start at α instead of at random.
- Where the context vector begins is learned, as in the comparison of MAML's table 4 (after Rei, 2015), not zero as in
  CAVIA. The first layer's bias can make up for either.
- ProMP keeps the same data over its epochs, and each epoch is one step on all of them.

Axes in shapes: N tasks, K adaptation steps, T steps of B environments of a task, F numbers of an observation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_envs.contract import Played
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive, require_sizes
from jaxrl_hier.engine.adapting import adapter, experienced
from jaxrl_hier.engine.loops import MetaBatch, adaptation, metagrad, metagrad_in_parts
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
from jaxrl_hier.learning.networks import ACTIVATIONS, WithContext, encoder_for, policy_for
from jaxrl_hier.learning.optimization import check_optimizer, optimizer_of
from jaxrl_hier.meta.estimators import ESTIMATORS, PolicyBatch, inner_loss, naive, policy_batch
from jaxrl_hier.meta.inner import (
    adapt,
    adapt_with_derivative,
    adaptation_path,
    context_rates,
    gradient_step,
    head_rates,
)
from jaxrl_hier.meta.outer import (
    OuterConfig,
    Predicted,
    descend,
    epochs_update,
    meta_gradient,
    reptile_gradient,
    trust_region_update,
)
from jaxrl_hier.quantities import Quantity
from jaxrl_hier.relations import Relation, at_most, held_out, multiple, require, require_fixed_tasks
from jaxrl_hier.settings import Rate

Adapt = Callable[[Params, EnvParams, jax.Array], tuple[Params, MetaBatch]]  # params, task, key
Step = Callable[[TrainState], tuple[TrainState, Metrics]]


@dataclass(frozen=True)
class Config(OuterConfig):
    """Settings of MAML. The defaults are the published ones for 2-D navigation."""

    meta_batch_size: int = 20
    """tasks per iteration"""
    episodes_per_task: int = 20
    """environments of each task, before each adaptation step and after the last; when an episode ends early, its
    environment begins another"""
    horizon: int | None = None
    """steps of each environment; default: the time limit. Longer episodes are cut there"""
    inner_steps: int = 1
    """adaptation steps in meta-training (K); 0 trains one policy for all tasks ("pre-trained")"""
    inner_learning_rate: Rate = 0.5
    """learning rate of the adaptation (α)"""
    estimator: Literal["naive", "lvc", "dice", "loaded-dice"] = "naive"
    """inner surrogate loss; all have the policy gradient as their gradient, and differ in its derivative"""
    first_order: bool = False
    """drop the Hessian term of the meta-gradient (FOMAML)"""
    reptile: bool = False
    """follow θ − θ' instead of a meta-gradient (Reptile); outer must be adam or sgd"""
    head_only: bool = False
    """adapt only the last layer and the standard deviation (ANIL)"""
    context_parameters: int = 0
    """numbers of a vector beside the observations that alone adapts (CAVIA); 0: there is none, the policy adapts"""
    learn_inner_rates: bool = False
    """learn an inner learning rate for each weight, starting at inner_learning_rate (Meta-SGD)"""
    discount: float = 0.99
    """discount factor (γ), in [0, 1]"""
    gae_lambda: float = 1.0
    """λ of generalised advantage estimation, in [0, 1]"""
    hidden: tuple[int, ...] = (100, 100)
    """sizes of the policy's hidden layers"""
    activation: Literal["relu", "tanh", "silu"] = "relu"
    """activation after each hidden layer"""
    remat: bool = False
    """recompute the inner steps in the backward pass: less memory for several inner steps, more time"""
    task_chunk: int | None = None
    """tasks to differentiate at a time; default: 1 on a CPU, where a task's arrays fit into its cache, else all"""
    microbatch_size: int | None = None
    """adam, sgd, ppo: tasks whose trajectories are held at a time, a divisor of meta_batch_size; default: all. ppo
    plays them again in each epoch"""
    eval_tasks: int = 40
    """number of test tasks"""
    eval_episodes: int = 40
    """environments of each test task, before each adaptation step and after the last"""
    eval_inner_steps: int = 3
    """adaptation steps at test time"""
    eval_inner_rate_decay: float = 0.35
    """factor on the inner learning rate after the first adaptation step at test time; the paper's is 0.5"""

    side_by_side = "meta_batch_size"
    renamed: ClassVar = {
        "meta_batch": "meta_batch_size",
        "episodes": "episodes_per_task",
        "inner_lr": "inner_learning_rate",
        "learn_rates": "learn_inner_rates",
        "microbatch": "microbatch_size",
        "eval_steps": "eval_inner_steps",
        "eval_lr_decay": "eval_inner_rate_decay",
    }

    @staticmethod
    def relations(env: Any, tasks: Tasks) -> list[Relation]:
        return [
            multiple("meta_batch_size", "microbatch_size"),
            at_most("fisher_episodes", "episodes_per_task"),
            held_out("eval_tasks", tasks),
        ]


QUANTITIES = {"adaptation_step": Quantity("gradient steps")}


class Published(NamedTuple):
    """Mean returns after 0, 1, 2, … gradient steps, with half-widths of 95 % intervals where they are known."""

    label: str
    values: tuple[float, ...]
    half_widths: tuple[float | None, ...]

    def text(self, step: int) -> str:
        """The result after `step` gradient steps, as text; "" where none is known."""
        if step >= len(self.values):
            return ""
        half = self.half_widths[step]
        return f"{self.values[step]:.2f}" + (f" ± {half:.2f}" if half is not None else "")


def published(config: Config, env_name: str) -> Published | None:
    """The paper's results for these settings, from table 4; the intervals are from the authors' released result files.

    They are over the 40 test tasks of one trained model. None where the paper has no such result.
    """
    plain = Config(inner_steps=config.inner_steps)
    switches = ("estimator", "first_order", "reptile", "head_only", "learn_inner_rates", "credit_exploration", "outer")
    if env_name != "navigation2d" or any(getattr(config, name) != getattr(plain, name) for name in switches):
        return None
    if config.inner_steps == 0:
        trained = Published("pre-trained, published", (-40.81, -19.73, -11.72, -8.47), (None,) * 4)
        return None if config.context_parameters else trained
    if config.context_parameters:
        return Published("context vector, published", (-42.42, -13.90, -5.17, -3.18), (None,) * 4)
    return Published("MAML, published", (-40.41, -11.68, -3.33, -3.23), (4.0, 2.2, 0.55, 0.58))


class Setup(NamedTuple):
    """What acting and learning need to know: settings, environment and policy network."""

    config: Config
    env: Any
    horizon: int  # steps of each environment
    encode: Callable[[Any], jax.Array]  # observations -> [..., F]
    policy: Any  # flax module: [..., F] -> distributions of actions
    told: Callable[[Transition], Transition] = lambda t: t  # what the policy saw and chose, and its distributions


def setup_of(config: Config, env: Any, tasks: Tasks) -> Setup:
    """The setup for an environment with discrete or continuous actions."""
    encode = encoder_for(env.observation_space(env.default_params))
    policy = policy_for(env.action_space(env.default_params), config.hidden, config.activation)
    policy = WithContext(policy, config.context_parameters) if config.context_parameters else policy
    return Setup(config, env, config.horizon or tasks.time_limit(), encode, policy)


# Parameters and acting


def initial_rates(config: Config, params: Params) -> Any:
    """The inner learning rates of MAML, ANIL and CAVIA, as `gradient_step` takes them."""
    if config.context_parameters:
        return context_rates(params, config.inner_learning_rate)
    if config.head_only:
        return head_rates(params, config.inner_learning_rate, len(config.hidden))
    return config.inner_learning_rate


def inner_rates(config: Config, params: Params) -> Any:
    """The inner learning rates: learned ones from the collection "rates" (Meta-SGD), or the initial ones."""
    if config.learn_inner_rates:
        return {"params": params["rates"], "rates": None}
    return initial_rates(config, params)


def init_params(setup: Setup, tasks: Tasks, key: jax.Array) -> Params:
    """New variables of the policy, `with_rates`."""
    obs, _ = Played(setup.env).reset(key, tasks.sample(key))  # for its shape alone, so the key may be used again
    return with_rates(setup.config, setup.policy.init(key, setup.encode(obs)))


def with_rates(config: Config, params: Params) -> Params:
    """Variables of a policy; with `learn_inner_rates` also "rates", one for each weight that adapts."""
    if config.learn_inner_rates:
        prefix = initial_rates(config, params["params"])
        spread = lambda rate, part: None if rate is None else jax.tree.map(lambda x: jnp.full_like(x, rate), part)
        params["rates"] = jax.tree.map(spread, prefix, params["params"], is_leaf=lambda rate: rate is None)
    return params


def act(setup: Setup, params: Params, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
    """An action, the carry unchanged, and the distribution of the action."""
    distribution = setup.policy.apply(params, setup.encode(inp.obs))
    return distribution.mode() if greedy else distribution.sample(key), carry, distribution


def agent_of(setup: Setup, tasks: Tasks) -> Agent:
    """The policy as an agent without memory."""
    return Agent(init=partial(init_params, setup, tasks), start=lambda params, key: (), act=partial(act, setup))


# Inner loop


def batch_of(setup: Setup, transitions: Transition) -> PolicyBatch:
    """The trajectories [T, B, ...] of one task as a batch."""
    return policy_batch(setup.told(transitions), setup.encode, setup.config.discount, setup.config.gae_lambda)


def parallel_tasks(config: Config) -> int:
    """Tasks that are differentiated at the same time."""
    return config.task_chunk or (
        1 if jax.default_backend() == "cpu" else config.microbatch_size or config.meta_batch_size
    )


def adaptation_step(setup: Setup, params: Params, batch: PolicyBatch, k: jax.Array, *, decay: Any = 1.0) -> Params:
    """Adaptation step k [] = 0, 1, …: θ − α_k ∇L(θ; D), with α_0 = α and α_k = α · `decay` after it."""
    step = partial(gradient_step, partial(inner_loss, setup.policy, naive))  # all estimators have the same gradient
    if parallel_tasks(setup.config) == 1 and setup.config.outer != "trpo":
        # On a CPU tasks act side by side but learn one after the other, each in cache. Not for TRPO, which would gain
        # little, and whose committed results would change in their last bits
        step = jax.custom_batching.sequential_vmap(step)
    rates = jax.tree.map(lambda rate: rate * jnp.where(k == 0, 1.0, decay), inner_rates(setup.config, params))
    return step(params, batch, rates)


def adapt_by_acting(setup: Setup, agent: Agent, *, steps: int, episodes: int, decay: Any = 1.0) -> Adapt:
    """(params, task, key) -> adapted params and MetaBatch, by acting and adapting in turn; see `engine.loops`."""
    process, inner_step = partial(batch_of, setup), partial(adaptation_step, setup, decay=decay)
    return adaptation(setup.env, agent, process, inner_step, steps=steps, episodes=episodes, horizon=setup.horizon)


# Outer loop: the adaptation once more, on the stored batches, to be differentiated


def predict(setup: Setup, params: Params, batch: MetaBatch) -> Predicted:
    """The distributions of one task's policies before and after the adaptation, as a function of the parameters."""
    config = setup.config
    loss = partial(inner_loss, setup.policy, ESTIMATORS[config.estimator])
    rates, switches = inner_rates(config, params), {"first_order": config.first_order, "remat": config.remat}
    adapted, path = adaptation_path(loss, params, batch.inner, rates, **switches)
    before = jax.vmap(setup.policy.apply)(path, batch.inner.obs)
    return Predicted(setup.policy.apply(adapted, batch.outer.obs), before)


def predict_part(setup: Setup, params: Params, part: MetaBatch) -> Predicted:
    """The distributions of one task's adapted policy on a part of D', with the derivative of the adaptation to a part
    of D. Those before the adaptation are left out.

    With J the Jacobian of this and M the Hessian of the KL divergence on the part, Jᵀ M J is the Fisher matrix of the
    part. M and the Hessian H of the inner loss are means over fewer trajectories, and keep their expectations where
    episodes are equally long. But J has factors I − α H and enters twice, so that the variance of H adds to the
    expectation of Jᵀ M J. The matrix is positive semidefinite like that of all trajectories, and larger on average.
    """
    config = setup.config
    loss = partial(inner_loss, setup.policy, ESTIMATORS[config.estimator])
    rates = inner_rates(config, params)
    adapted = adapt_with_derivative(loss, params, part.inner, part.adapted, rates, first_order=config.first_order)
    return Predicted(setup.policy.apply(adapted, part.outer.obs), ())


def adapt_on_all(setup: Setup, params: Params, batch: MetaBatch) -> Params:
    """Reptile's θ': a step on each of the inner batches and one on the outer batch."""
    loss = partial(inner_loss, setup.policy, ESTIMATORS[setup.config.estimator])
    every = jax.tree.map(lambda inner, outer: jnp.concatenate([inner, outer[None]]), batch.inner, batch.outer)
    return adapt(loss, params, every, setup.config.inner_learning_rate)


def outer_optimizer(config: Config) -> optax.GradientTransformation:
    """SGD, or Adam for "adam" and "ppo"; TRPO does not use it."""
    rule = optax.sgd if config.outer == "sgd" else optax.adam
    steps = config.outer_epochs if config.outer == "ppo" else 1
    return optimizer_of(config, config.outer_learning_rate, rule=rule, steps=steps)


def outer_step(setup: Setup, tasks: Tasks, collect: Adapt, optimizer: optax.GradientTransformation) -> Step:
    """The algorithm's `step`, for the outer optimiser that the settings name."""
    config, chunk = setup.config, parallel_tasks(setup.config)
    if config.outer == "trpo":
        update = trust_region_update(config, partial(predict, setup), chunk, partial(predict_part, setup))
        return metagrad(tasks, collect, update)
    if config.reptile:
        gradient = reptile_gradient(partial(adapt_on_all, setup), chunk)
    else:
        gradient = meta_gradient(config, partial(predict, setup), chunk)
    if config.outer == "ppo" and config.microbatch_size is None:
        return metagrad(tasks, collect, epochs_update(config, optimizer, gradient))
    sizes = {
        "microbatch": config.microbatch_size or config.meta_batch_size,
        "epochs": config.outer_epochs if config.outer == "ppo" else 1,
    }
    return metagrad_in_parts(tasks, collect, gradient, partial(descend, optimizer), **sizes)


# The algorithm


def init(
    setup: Setup, agent: Agent, optimizer: optax.GradientTransformation, key: jax.Array, params: Any = None
) -> TrainState:
    """Parameters, new ones unless given, and a key for each task of an iteration."""
    key, key_params, key_world = jax.random.split(key, 3)
    params = agent.init(key_params) if params is None else params
    return TrainState(
        params=params,
        learner=() if setup.config.outer == "trpo" else optimizer.init(params),
        world=jax.random.split(key_world, setup.config.meta_batch_size),
        memory=(),
        key=key,
        iteration=jnp.zeros((), jnp.int32),
    )


def evaluate(setup: Setup, tasks: Tasks, meta_test: Adapt, state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
    """Adaptation to the test tasks: what the policy earns after 0 … `eval_inner_steps` gradient steps.

    Returns:
        With axes [task, adaptation_step]: "return", the mean over the first episodes of all environments; "complete",
        the share of these that ended within `horizon` steps, the others being counted up to there;
        "experience_episodes" and "experience_steps", what had been learned from, and played, on the task before. Where
        every environment ends an episode: "return_completed", which the paper's code reports, the mean over all
        episodes that fit the step budget, so that environments with short episodes count more often. And "path"
        [task, adaptation_step, time, observation], the observations of a first episode.
    """
    config, horizon, axes = setup.config, setup.horizon, ("task", "adaptation_step")
    key_tasks, key_adapt = jax.random.split(key)
    test = tasks.test_batch(config.eval_tasks, key_tasks)
    keys = jax.random.split(key_adapt, config.eval_tasks)
    _, seen = jax.vmap(meta_test, (None, 0, 0))(state.params, test, keys)
    joined = lambda name: jnp.concatenate([getattr(seen.inner, name), getattr(seen.outer, name)[:, None]], axis=1)
    values = {"return": joined("episode_return"), "complete": joined("complete")}
    if tasks.has_time_limit() and horizon >= tasks.time_limit():
        values["return_completed"] = joined("completed_return")
    ends = jnp.sum(seen.inner.ended, axis=(2, 3))  # [N, K]
    cut = (1.0 - seen.inner.complete) * config.eval_episodes
    values["experience_episodes"] = experienced(jnp.round(ends + cut))
    values["experience_steps"] = experienced(jnp.full_like(ends, config.eval_episodes * horizon))
    path = {"path": NamedArray(joined("path"), (*axes, "time", "observation"))}
    return {name: NamedArray(x, axes) for name, x in values.items()} | path


class Adapted(NamedTuple):
    """What gradient steps have made of the meta-parameters on one task."""

    params: Params
    k: jax.Array  # [] int32, steps so far


def player_of(setup: Setup, agent: Agent) -> Player:
    """The adaptation of the meta-test, on as many episodes in each step as in training."""
    config = setup.config
    step = partial(adaptation_step, setup, decay=config.eval_inner_rate_decay)

    def learn(params: Params, memory: Adapted, steps: Transition, length: jax.Array) -> Adapted:
        return Adapted(step(memory.params, batch_of(setup, steps), memory.k), memory.k + 1)

    return Player(
        new_task=lambda params, key: (Adapted(params, jnp.zeros((), jnp.int32)), agent.start(params, key)),
        new_episode=lambda params, memory, carry, key: agent.start(memory.params, key),
        act=lambda params, memory, carry, inp, key, greedy: agent.act(memory.params, carry, inp, key, greedy),
        learn=learn,
        episodes=config.episodes_per_task,
        horizon=setup.horizon,
        most=config.eval_inner_steps,
        samples_to_learn=True,
    )


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """MAML on a distribution of tasks, with discrete or continuous actions.

    The parameters are the policy's variables; with `learn_inner_rates` they hold another collection, "rates", which the
    policy does not read.

    Raises:
        UsageError: a setting that cannot work, such as a size that is not positive.
    """
    check(config, env, tasks)
    setup = setup_of(config, env, tasks)
    return made_of(setup, agent_of(setup, tasks), tasks)


def made_of(setup: Setup, agent: Agent, tasks: Tasks) -> Algorithm:
    """MAML for a policy of one's own."""
    config, env, optimizer = setup.config, setup.env, outer_optimizer(setup.config)
    collect = adapt_by_acting(setup, agent, steps=config.inner_steps, episodes=config.episodes_per_task)
    test_sizes = {"steps": config.eval_inner_steps, "episodes": config.eval_episodes}
    meta_test = adapt_by_acting(setup, agent, **test_sizes, decay=config.eval_inner_rate_decay)
    player = player_of(setup, agent)
    return Algorithm(
        init=partial(init, setup, agent, optimizer),
        step=outer_step(setup, tasks, collect, optimizer),
        evaluate=partial(evaluate, setup, tasks, meta_test),
        agent=agent,
        env_steps=config.meta_batch_size * (config.inner_steps + 1) * config.episodes_per_task * setup.horizon,
        player=player,
        adapt=adapter(env, player),
    )


def check(config: Config, env: Any, tasks: Tasks) -> None:
    """Raises UsageError for a setting or tasks that cannot work."""
    require_fixed_tasks(tasks)
    require_positive(
        config, "meta_batch_size", "episodes_per_task", "horizon", "task_chunk", "microbatch_size", "outer_epochs"
    )
    require_positive(
        config, "inner_learning_rate", "outer_learning_rate", "clip", "max_kl", "cg_iterations", "line_search_steps"
    )
    require_positive(config, "line_search_shrink", "fisher_episodes", "eval_tasks", "eval_episodes")
    require_positive(
        config, "inner_steps", "eval_inner_steps", "eval_inner_rate_decay", "cg_damping", "kl_weight", or_zero=True
    )
    require_positive(config, "context_parameters", or_zero=True)
    require_fraction(config, "discount", "gae_lambda", "line_search_shrink")
    require_choice(config, "outer", ("trpo", "ppo", "adam", "sgd"))
    check_optimizer(config)
    if config.outer == "trpo" and (config.learning_rate_schedule != "constant" or config.max_grad_norm is not None):
        raise UsageError("learning_rate_schedule and max_grad_norm are for outer adam, ppo or sgd, got trpo")
    require_choice(config, "estimator", tuple(ESTIMATORS))
    require_choice(config, "activation", tuple(ACTIVATIONS))
    require_sizes(config, "hidden")
    if config.estimator == "dice" and isinstance(config.gae_lambda, float) and config.gae_lambda != 1:
        raise UsageError(f"dice needs gae_lambda = 1, got {config.gae_lambda}; loaded-dice takes any advantage")
    if config.credit_exploration and not config.inner_steps:
        raise UsageError("credit_exploration needs an adaptation: inner_steps must be positive")
    if config.reptile and (
        config.outer not in ("adam", "sgd") or config.learn_inner_rates or config.credit_exploration
    ):
        raise UsageError("reptile has no loss: outer must be adam or sgd, learn_inner_rates and credit_exploration off")
    if config.reptile and (config.head_only or config.context_parameters):
        raise UsageError("reptile learns only what adapts: head_only must be off and context_parameters 0")
    if config.head_only and config.context_parameters:
        raise UsageError(
            "head_only adapts the last layer and context_parameters a vector beside the observations: choose one"
        )
    if config.microbatch_size is not None and config.outer == "trpo":
        raise UsageError("microbatch_size needs outer adam, sgd or ppo; trpo uses all trajectories at once")
    if config.microbatch_size is not None and config.credit_exploration:
        raise UsageError("microbatch_size must be none with credit_exploration, which compares all tasks")
    require(config, config.relations(env, tasks))
