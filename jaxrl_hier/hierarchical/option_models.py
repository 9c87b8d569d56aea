"""Learning the models of options, by intra-option and by SMDP methods (Sutton, Precup & Singh, Artificial Intelligence
112, 1999, section 6 and figure 9).

The model of option o consists of its expected discounted reward R(s, o) and of P(x | s, o) = Σ_k γ^k Pr(o stops in x
after k steps), for every state s in which it may run.

intra-option, after every step s, a, r, s' and for every option whose policy takes a in s:

    R(s, o)     += α [r + γ (1 − β_o(s')) R(s', o) − R(s, o)]
    P(x | s, o) += α [γ (1 − β_o(s')) P(x | s', o) + γ β_o(s') 1{s' = x} − P(x | s, o)]

smdp, when an option that started in s stops in s' after k steps with discounted reward R:

    R(s, o)     += α [R − R(s, o)]
    P(x | s, o) += α [γ^k 1{s' = x} − P(x | s, o)]

The behaviour chooses uniformly among the options that may start, and follows each until it stops. `noisy_rewards` makes
the task of figure 9. The end of an episode stops every option, in a terminal state, as in `jaxrl_hier.exact`.

Departure: the paper has no time limit. It is not part of the options' dynamics, so the smdp method drops the option
that a time limit cuts.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_envs.contract import Played, name_of, observed_model
from jaxrl_hier.abstractions.options import Options, OptionSet
from jaxrl_hier.checks import UsageError, require_choice, require_fraction, require_positive
from jaxrl_hier.engine.loops import begin_learning, online
from jaxrl_hier.engine.types import (
    Algorithm,
    Average,
    EnvParams,
    Metrics,
    NamedArray,
    Params,
    Tasks,
    TrainState,
    Transition,
)
from jaxrl_hier.exact import tabular
from jaxrl_hier.exact.smdp import OptionModels, option_models
from jaxrl_hier.hierarchical.call_and_return import call_and_return, option_end
from jaxrl_hier.hierarchical.intra_option_q import consistent_options
from jaxrl_hier.hierarchical.options import option_set
from jaxrl_hier.learning.tables import in_turn, table_sizes
from jaxrl_hier.settings import BaseConfig


@struct.dataclass
class NoisyParams:
    """A task with the mean of each action's additional reward."""

    task: EnvParams
    mean: jax.Array  # [S, A] float32


class NoisyRewards:
    """A tabular environment whose every step pays N(mean[s, a], scale²) in addition to the environment's own reward."""

    def __init__(self, env: Any, scale: float = 0.1):
        self.env, self.scale, self.name = env, scale, f"{name_of(env)} with noisy rewards"
        self.action_space = lambda params: env.action_space(params.task)
        self.observation_space = lambda params: env.observation_space(params.task)
        self.sizes = table_sizes(env)

    @property
    def default_params(self) -> NoisyParams:
        return NoisyParams(self.env.default_params, jnp.zeros(self.sizes))

    def reset_env(self, key: jax.Array, params: NoisyParams) -> tuple[jax.Array, Any]:
        return Played(self.env).reset(key, params.task)

    def step_env(self, key: jax.Array, state: Any, action: jax.Array, params: NoisyParams) -> tuple:
        key, key_noise = jax.random.split(key)
        mean = params.mean[self.env.get_obs(state), action]
        seen = Played(self.env).step(key, state, action, params.task)
        reward = seen.reward + mean + self.scale * jax.random.normal(key_noise)
        return seen.obs, seen.state, reward, seen.terminated, seen.info

    def is_truncated(self, state: Any, params: NoisyParams) -> jax.Array:
        return self.env.is_truncated(state, params.task)

    def model(self, params: NoisyParams) -> tuple[jax.Array, jax.Array]:
        """P [S, A, S'] and R [S, A] as of the environment's own `model`; absorbing states pay nothing."""
        P, R = self.env.model(params.task)
        return P, R + jnp.where(tabular.absorbing(P)[:, None], 0.0, params.mean)


def noisy_rewards(
    env: Any, tasks: Tasks, low: float = -1.0, high: float = 0.0, scale: float = 0.1
) -> tuple[NoisyRewards, Tasks]:
    """`env` with noisy rewards, and `tasks` with means drawn from U[low, high] for each state and action.

    All tasks are drawn, as `tasks.sample` does: its `train` and `test` have no means.
    """
    noisy = NoisyRewards(env, scale)

    def sample(key: jax.Array) -> NoisyParams:
        key_task, key_mean = jax.random.split(key)
        return NoisyParams(tasks.sample(key_task), jax.random.uniform(key_mean, noisy.sizes, minval=low, maxval=high))

    def following(key: jax.Array, params: NoisyParams) -> NoisyParams:
        return NoisyParams(tasks.following(key, params.task), params.mean)

    return noisy, Tasks(sample=sample, resample=following if callable(tasks.resample) else tasks.resample)


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of learning option models. The defaults are those of the paper's figure 9."""

    method: Literal["intra-option", "smdp"] = "intra-option"
    """update after every step all options that are consistent with it, or update an option when it stops"""
    options: OptionSet = "both"
    """the options to execute and learn about: primitive actions, the hallway options of four rooms, both, or primitive
    actions and each of them repeated for four steps on average"""
    step_size: float = 0.25
    """step size (α), in [0, 1]"""
    sample_average: bool = False
    """smdp: α = 1/t for the t-th stop of an option that started in the same state, in place of step_size"""
    discount: float = 0.9
    """discount per step (γ), in [0, 1]"""
    environments: int = 1
    """environments that share the models; their transitions update them one at a time"""


def learn_intra_option(
    config: Config, options: Options, takes: jax.Array, models: OptionModels, t: Transition
) -> OptionModels:
    """The models after one transition, by the intra-option method.

    Args:
        takes: [S, A, O] bool, `consistent_options`.
    """
    num_states = takes.shape[0]
    stop = jnp.where(t.terminated, 1.0, options.termination[:, t.next_obs])  # [O]
    going_on = config.discount * (1 - stop)
    arrived = config.discount * jnp.outer(stop, jax.nn.one_hot(t.next_obs, num_states))  # [O, X]
    reward = t.reward + going_on * models.reward[:, t.next_obs]
    transition = going_on[:, None] * models.transition[:, t.next_obs] + arrived
    step_size = config.step_size * takes[t.obs, t.action]
    return OptionModels(
        models.reward.at[:, t.obs].add(step_size * (reward - models.reward[:, t.obs])),
        models.transition.at[:, t.obs].add(step_size[:, None] * (transition - models.transition[:, t.obs])),
    )


def learn_smdp(
    config: Config, options: Options, models: OptionModels, t: Transition, stopped: jax.Array, count: jax.Array
) -> OptionModels:
    """The models after one transition, by the SMDP method.

    Args:
        stopped: [] bool, whether the option stops with it.
        count: [] how often the option has stopped after starting in the same state, this time included.
    """
    _, reward, discount = option_end(options, t, config.discount)
    at = (t.extras.option, t.extras.start)
    arrived = discount * jax.nn.one_hot(t.next_obs, models.reward.shape[1])
    step_size = stopped * (1 / jnp.maximum(count, 1) if config.sample_average else config.step_size)
    return OptionModels(
        models.reward.at[at].add(step_size * (reward - models.reward[at])),
        models.transition.at[at].add(step_size * (arrived - models.transition[at])),
    )


def model_errors(
    config: Config, options: Options, models: OptionModels, P: jax.Array, R: jax.Array
) -> dict[str, jax.Array]:
    """Errors [O] against the exact models on P [S, A, S'] and R [S, A], over each option's initiation states.

    "reward_error" and "reward_error_max" of R(s, o); "transition_error" and "transition_error_max" of P(x | s, o),
    where the error of a state is the largest over the outcomes x.
    """
    exact = option_models(P, R, options, config.discount)
    reward = jnp.abs(models.reward - exact.reward)  # [O, S]
    transition = jnp.max(jnp.abs(models.transition - exact.transition), axis=2)
    mean = lambda x: jnp.mean(x, axis=1, where=options.initiation)
    largest = lambda x: jnp.max(x, axis=1, where=options.initiation, initial=0.0)
    return {
        "reward_error": mean(reward),
        "reward_error_max": largest(reward),
        "transition_error": mean(transition),
        "transition_error_max": largest(transition),
    }


def make(config: Config, env: Any, tasks: Tasks, options: Options | None = None) -> Algorithm:
    """Model learning on an environment with Discrete observations and actions.

    Parameters: OptionModels, as `jaxrl_hier.exact.smdp.option_models` computes them. Learner: how often each option has
    stopped, [O, S] by option and by the state that it started in.

    Args:
        options: the options to learn about, in place of those that `config.options` names. The intra-option method
            needs deterministic ones.

    Raises:
        UsageError: a setting or an option that cannot work, or an environment without such spaces or without `model`.
    """
    require_choice(config, "method", ("intra-option", "smdp"))
    require_fraction(config, "step_size", "discount")
    require_positive(config, "environments")
    if config.sample_average and config.method != "smdp":
        raise UsageError("sample_average is for method='smdp': an intra-option target moves while it is learned")
    options = option_set(config.options, options, env, tasks)
    if not observed_model(env):
        raise UsageError(f"model learning is evaluated against the exact model, and {name_of(env)} has no `model`")
    intra_option = config.method == "intra-option"
    takes = consistent_options(options) if intra_option else jnp.zeros(())
    num_options, num_states, _ = options.policy.shape

    def init_params(key: jax.Array) -> OptionModels:
        shape = (num_options, num_states)
        return OptionModels(reward=jnp.zeros(shape), transition=jnp.zeros((*shape, num_states)))

    agent = call_and_return(
        options, init_params, lambda params, state: jnp.zeros(num_options), epsilon=1.0, discount=config.discount
    )

    def learn(models: Params, counts: jax.Array, t: Transition) -> tuple[Params, jax.Array, Metrics]:
        stopped = option_end(options, t, config.discount)[0] & ~t.truncated
        at = (t.extras.option, t.extras.start)
        counts = counts.at[at].add(stopped)
        if intra_option:
            models = learn_intra_option(config, options, takes, models, t)
        else:
            models = learn_smdp(config, options, models, t, stopped, counts[at])
        return models, counts, {"options_stopped": Average(stopped, jnp.ones(()))}

    def init(key: jax.Array, params: Any = None) -> TrainState:
        counts = jnp.zeros((num_options, num_states), jnp.int32)
        return begin_learning(env, agent, tasks, key, params, learner=counts, environments=config.environments)

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """`model_errors` [environment, option] on the environments' tasks; "options_stopped" [], how many so far."""
        errors = lambda task: model_errors(config, options, state.params, *env.model(task))
        measured = jax.vmap(errors)(state.world.task)
        found = {name: NamedArray(values, ("environment", "option")) for name, values in measured.items()}
        return found | {"options_stopped": NamedArray(jnp.sum(state.learner), ())}

    step = online(env, agent, tasks, in_turn(learn), length=1)
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=config.environments)
