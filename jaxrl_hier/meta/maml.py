"""MAML for reinforcement learning (Finn, Abbeel & Levine, ICML 2017, algorithm 3).

    θ'_i = θ − α ∇_θ L_i(θ; D_i)                inner: vanilla policy gradient on task i, K times
    θ   ← argmin_θ Σ_i L_i(θ'_i(θ); D'_i)       outer: one trust-region step (TRPO), or Adam

L(θ; D) = −mean(log π_θ(a|s) · A) inside, −mean(π_θ'(a|s) / π_old(a|s) · A) outside. A comes from the linear feature
baseline, fitted for each task on its own batch, with γ = .99 and λ = 1, and is standardised over the batch.

Where paper and code differ the code is followed, since the published numbers come from it: α = .5 on 2-D navigation
(the paper says .1), rewards are plain distances, and test-time steps see twice the data of training.

Departures:
- Each environment takes `horizon` steps, and every episode that it completes in them is learned from; the code goes on
  until the completed episodes fill a step budget. Reported returns are those of each environment's first episode: the
  code's mean over all episodes counts short ones more often, and on 2-D navigation short ones are the good ones.
- At test time α falls to 35 % after the first step; in the paper to 50 %. Our policies end with a smaller standard
  deviation, which makes the policy gradient larger, and half of α overshoots in the second step. The factor was chosen
  on goals that are neither trained nor tested on; benchmarks/papers/maml_navigation.py publishes both.
- The Fisher product is exact (see `trust_region`), not a finite difference, and damped by 1e-2 instead of 1e-5. With
  1e-5 the conjugate gradients, in float32, go far along directions that the adapted policies do not feel but the
  unadapted one does: on one seed of five it ran away from the origin for good.
- The inner Hessian is that of the surrogate with its samples fixed, as in the code: a biased meta-gradient, since the
  dependence of the inner batch's distribution on θ is dropped (Rothfuss et al., 2019, section 4).

`inner_steps = 0` is the paper's "pre-trained" baseline: the policy that is best on average, then fine-tuned.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_hier.advantages import discounted_sum, generalized_advantage, linear_baseline, standardize, time_features
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive
from jaxrl_hier.engine.loops import MetaBatch, adaptation, metagrad
from jaxrl_hier.engine.rollout import complete_episodes, ended, episode_time, first_episode
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
)
from jaxrl_hier.networks import ACTIVATIONS, encoder_for, policy_for
from jaxrl_hier.trust_region import trust_region_step


@dataclass(frozen=True)
class Config:
    """Settings of MAML. The defaults are the published ones for 2-D navigation."""

    meta_batch: int = 20
    """tasks per iteration"""
    episodes: int = 20
    """environments per task, before each adaptation step and after the last; an early end makes room for more"""
    horizon: int | None = None
    """steps per environment; default: the time limit. A first episode that is longer is cut there"""
    inner_steps: int = 1
    """K, adaptation steps in meta-training; 0 trains one policy for all tasks ("pre-trained")"""
    inner_lr: float = 0.5
    """α"""
    first_order: bool = False
    """drop the Hessian term (FOMAML)"""
    outer: Literal["trpo", "adam"] = "trpo"
    """the outer optimiser"""
    max_kl: float = 0.01
    """trpo: bound on the mean KL between adapted policies before and after the step"""
    cg_iterations: int = 10
    """trpo: conjugate-gradient iterations"""
    cg_damping: float = 1e-2
    """trpo: λ in F + λ I; the paper's is 1e-5"""
    line_search_shrink: float = 0.8
    """trpo: factor per backtracking step"""
    line_search_steps: int = 15
    """trpo: lengths to try at most"""
    outer_lr: float = 1e-3
    """adam: learning rate"""
    discount: float = 0.99
    """γ"""
    gae_lambda: float = 1.0
    """λ of the advantage estimate"""
    hidden: tuple[int, ...] = (100, 100)
    """hidden layers of the policy"""
    activation: Literal["relu", "tanh", "silu"] = "relu"
    """between the layers"""
    remat: bool = False
    """recompute the inner step in the backward pass: less memory for K > 1, more time"""
    task_chunk: int | None = None
    """tasks at a time in the outer update; default: 1 on a CPU, where a task's arrays fit the cache, else all"""
    eval_tasks: int = 40
    """test tasks"""
    eval_episodes: int = 40
    """environments per test task and adaptation step"""
    eval_steps: int = 3
    """adaptation steps at test time"""
    eval_lr_decay: float = 0.35
    """factor on α after the first adaptation step at test time; the paper's is 0.5"""


Loss = Callable[[Params, Any], jax.Array]  # params, batch -> scalar


class PolicyBatch(NamedTuple):
    """The trajectories of one task, flattened over time and episodes: n = horizon · episodes."""

    obs: jax.Array  # [n, F]
    action: jax.Array  # [n, ...]
    advantage: jax.Array  # [n], standardised
    weight: jax.Array  # [n], sums to one over the steps that count
    episode_return: jax.Array  # [], undiscounted, mean over each environment's first episode
    completed_return: jax.Array  # [], mean over all complete episodes: more of the short ones
    path: jax.Array  # [horizon + 1, F], what the first episode observed; stands still after its end


def policy_gradient_loss(policy: Any, params: Params, batch: PolicyBatch) -> jax.Array:
    """−mean(log π_θ(a|s) · A): equation 4's loss, whose gradient is the policy gradient."""
    log_prob = policy.apply(params, batch.obs).log_prob(batch.action)
    return -jnp.sum(batch.weight * log_prob * batch.advantage)


def surrogate_loss(old: Any, new: Any, batch: PolicyBatch) -> jax.Array:
    """−mean(π_new(a|s) / π_old(a|s) · A)."""
    ratio = jnp.exp(new.log_prob(batch.action) - old.log_prob(batch.action))
    return -jnp.sum(batch.weight * ratio * batch.advantage)


def mean_kl(old: Any, new: Any, batch: PolicyBatch) -> jax.Array:
    """mean KL(π_old ‖ π_new) over the batch's states."""
    return jnp.sum(batch.weight * old.kl(new))


def gradient_step(loss: Loss, params: Params, batch: Any, lr: Any, *, first_order: bool = False) -> Params:
    """θ − α ∇L(θ; D). With `first_order` the step is a constant to differentiation, so dθ'/dθ is the identity."""
    gradient = jax.grad(loss)(params, batch)
    if first_order:
        gradient = jax.lax.stop_gradient(gradient)
    return jax.tree.map(lambda p, g: p - lr * g, params, gradient)


def adapt(
    loss: Loss, params: Params, batches: Any, lr: Any, *, first_order: bool = False, remat: bool = False
) -> Params:
    """θ -> θ': one gradient step on each of the stored batches [K, ...], to be differentiated through.

    With `remat` the backward pass recomputes each step instead of keeping its activations.
    """

    def step(params: Params, batch: Any) -> tuple[Params, None]:
        return gradient_step(loss, params, batch, lr, first_order=first_order), None

    if remat:
        step = jax.checkpoint(step, prevent_cse=False)
    return jax.lax.scan(step, params, batches)[0]


class Published(NamedTuple):
    """Mean return after 0, 1, 2, … gradient steps, with the half-width of its 95 % interval where one is known."""

    label: str
    values: tuple[float, ...]
    half_widths: tuple[float | None, ...]

    def text(self, step: int) -> str:
        if step >= len(self.values):
            return ""
        half = self.half_widths[step]
        return f"{self.values[step]:.2f}" + (f" ± {half:.2f}" if half is not None else "")


def published(config: Config, env_name: str) -> Published | None:
    """What the paper reports for this setting: table 4, and the authors' released result files for intervals.

    The intervals are over the 40 test tasks of one trained model.
    """
    if env_name != "navigation2d":
        return None
    if config.inner_steps == 0:
        return Published("pre-trained, published", (-40.81, -19.73, -11.72, -8.47), (None,) * 4)
    return Published("MAML, published", (-40.41, -11.68, -3.33, -3.23), (4.0, 2.2, 0.55, 0.58))


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """MAML on a distribution of tasks; discrete and continuous actions.

    Raises:
        UsageError: a setting that cannot work, such as a size that is not positive.
    """
    require_positive(config, "meta_batch", "episodes", "horizon", "task_chunk", "cg_iterations", "line_search_steps")
    require_positive(config, "inner_lr", "max_kl", "outer_lr", "line_search_shrink", "eval_tasks", "eval_episodes")
    require_positive(config, "inner_steps", "eval_steps", "eval_lr_decay", "cg_damping", or_zero=True)
    require_fraction(config, "discount", "gae_lambda", "line_search_shrink")
    require_choice(config, "outer", ("trpo", "adam"))
    require_choice(config, "activation", tuple(ACTIVATIONS))
    if tasks.test is not None:
        try:
            tasks.test_batch(config.eval_tasks, jax.random.key(0))
        except ValueError as error:
            raise UsageError(str(error)) from None
    if not all(size > 0 for size in config.hidden):
        raise UsageError(f"hidden layers must have positive sizes, got {config.hidden}")

    horizon = config.horizon or int(getattr(env.default_params, "max_steps_in_episode", 0))
    if not horizon:
        raise UsageError(f"{env.name} states no time limit: set horizon")
    policy = policy_for(env.action_space(env.default_params), config.hidden, config.activation)
    encode = encoder_for(env.observation_space(env.default_params))
    optimizer = optax.adam(config.outer_lr)

    def init_params(key: jax.Array) -> Params:
        obs, _ = env.reset_env(key, tasks.sample(key))
        return policy.init(key, encode(obs))

    def act(params: Params, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        distribution: Any = policy.apply(params, encode(inp.obs))
        return distribution.mode() if greedy else distribution.sample(key), carry, ()

    agent = Agent(init=init_params, start=lambda params, key: (), act=act)

    def process(transitions: Transition) -> PolicyBatch:
        first = first_episode(transitions)  # [T, B]
        mask = jnp.maximum(first, complete_episodes(transitions))
        obs = encode(transitions.obs)
        discount = config.discount * (1.0 - ended(transitions))  # [T, B], 0 on an episode's last step
        returns = discounted_sum(transitions.reward, discount)
        value = linear_baseline(time_features(obs, episode_time(transitions)), returns, mask)
        advantage = generalized_advantage(transitions.reward, value, discount, config.gae_lambda)
        flat = lambda x: x.reshape(-1, *x.shape[2:])
        length = jnp.sum(first[:, 0]).astype(jnp.int32)
        seen = jnp.concatenate([obs[:1, 0], encode(transitions.next_obs)[:, 0]])
        return PolicyBatch(
            obs=flat(obs),
            action=flat(transitions.action),
            advantage=flat(standardize(advantage, mask)),
            weight=flat(mask / jnp.sum(mask)),
            episode_return=jnp.mean(jnp.sum(transitions.reward * first, axis=0)),
            completed_return=jnp.sum(transitions.reward * mask) / jnp.sum(transitions.first * mask),
            path=seen[jnp.minimum(jnp.arange(horizon + 1), length)],
        )

    chunk = config.task_chunk or (1 if jax.default_backend() == "cpu" else config.meta_batch)
    inner_loss = partial(policy_gradient_loss, policy)
    adapt_stored = partial(adapt, inner_loss, lr=config.inner_lr, first_order=config.first_order, remat=config.remat)

    def outer_update(params: Params, learner: Any, data: MetaBatch) -> tuple[Params, Any, Metrics]:
        def predict(params: Params) -> Any:  # the adapted policies on their own outer states
            def one_task(batch: MetaBatch) -> Any:
                return policy.apply(adapt_stored(params, batch.inner), batch.outer.obs)

            if chunk >= config.meta_batch:
                return jax.vmap(one_task)(data)
            return jax.lax.map(one_task, data, batch_size=chunk if chunk > 1 else None)

        def loss(old: Any, new: Any) -> jax.Array:
            return jnp.mean(jax.vmap(surrogate_loss)(old, new, data.outer))

        def divergence(old: Any, new: Any) -> jax.Array:
            return jnp.mean(jax.vmap(mean_kl)(old, new, data.outer))

        metrics = {"return": jnp.mean(data.outer.episode_return)}
        if config.inner_steps:
            metrics["return_before"] = jnp.mean(data.inner.episode_return[:, 0])
        if config.outer == "trpo":
            params, info = trust_region_step(
                params,
                predict,
                loss,
                divergence,
                max_divergence=config.max_kl,
                cg_iterations=config.cg_iterations,
                damping=config.cg_damping,
                shrink=config.line_search_shrink,
                max_backtracks=config.line_search_steps,
            )
            improvement = info.loss_before - info.loss_after
            metrics |= {"kl": info.divergence, "improvement": improvement, "backtracks": info.backtracks.astype(float)}
            metrics |= {"accepted": info.accepted.astype(float), "grad_norm": info.grad_norm}
        else:
            old = jax.lax.stop_gradient(predict(params))  # the ratio is 1: only its gradient matters
            gradient = jax.grad(lambda params: loss(old, predict(params)))(params)
            updates, learner = optimizer.update(gradient, learner, params)
            params = optax.apply_updates(params, updates)
            metrics |= {"grad_norm": optax.global_norm(gradient)}
        return params, learner, metrics

    def init(key: jax.Array) -> TrainState:
        key, key_params, key_world = jax.random.split(key, 3)
        params = agent.init(key_params)
        return TrainState(
            params=params,
            learner=optimizer.init(params) if config.outer == "adam" else (),
            world=jax.random.split(key_world, config.meta_batch),
            memory=(),
            key=key,
            iteration=jnp.zeros((), jnp.int32),
        )

    def train_lr(k: jax.Array) -> Any:
        return config.inner_lr

    def eval_lr(k: jax.Array) -> jax.Array:
        return config.inner_lr * jnp.where(k == 0, 1.0, config.eval_lr_decay)

    def adapter(lr: Any, **sizes: int) -> Any:
        step = lambda params, batch, k: gradient_step(inner_loss, params, batch, lr(k))
        return adaptation(env, agent, process, step, horizon=horizon, **sizes)

    meta_test = adapter(eval_lr, steps=config.eval_steps, episodes=config.eval_episodes)

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """Adaptation on the test tasks after 0 … `eval_steps` gradient steps.

        "return" is the mean over one episode per environment. "return_completed" is what the paper's code reports: the
        mean over all episodes that fit the step budget, so that an environment which ends early counts more often.
        "path" is what the first episode observed.
        """
        key_tasks, key_adapt = jax.random.split(key)
        test = tasks.test_batch(config.eval_tasks, key_tasks)
        keys = jax.random.split(key_adapt, config.eval_tasks)
        _, seen = jax.vmap(meta_test, (None, 0, 0))(state.params, test, keys)
        joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b[:, None]], axis=1), seen.inner, seen.outer)
        return {
            "return": NamedArray(joined.episode_return, ("task", "adaptation_step")),
            "return_completed": NamedArray(joined.completed_return, ("task", "adaptation_step")),
            "path": NamedArray(joined.path, ("task", "adaptation_step", "time", "observation")),
        }

    step = metagrad(tasks, adapter(train_lr, steps=config.inner_steps, episodes=config.episodes), outer_update)
    env_steps = config.meta_batch * (config.inner_steps + 1) * config.episodes * horizon
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=env_steps)
