"""RL² whose actions are options: a recurrent policy that chooses among courses of action learns to learn.

The hidden state learns a task as in RL² (`meta.rl2`), from every step. A decision is taken only where an episode begins
or the running option stops (Sutton, Precup & Singh, 1999), and credit is assigned to decisions. If the option chosen at
t runs for k steps, and the next is chosen at t + k,

    δ_t = Σ_{i<k} γ^i r_{t+i} + γ^k V(h_{t+k}) − V(h_t)
    A_t = δ_t + γ^k λ A_{t+k}

and the losses are those of RL², means over decisions. So exploration moves from hallway to hallway instead of from cell
to cell. Time limits, returns and lengths count steps of the environment, as without options. Options are tables over
the states that the environment shows: those of a set by name, or one's own (`make`).

Departures: neither paper combines the two. An option is never left before it stops, but for the end of an episode, and
which option runs is not among the observations, which show its actions. Where a rollout ends while an option runs, the
value there bootstraps, though no option is chosen in that state.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from jaxrl_envs.random_bits import another_key, uniforms
from jaxrl_envs.trial import Trial
from jaxrl_hier.abstractions.options import Options, OptionSet
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import ActInput, Agent, Algorithm, Params, Tasks, Transition, World
from jaxrl_hier.hierarchical.options import option_set
from jaxrl_hier.learning.distributions import Categorical
from jaxrl_hier.meta import rl2
from jaxrl_hier.meta.rl2 import Batch, Network

QUANTITIES = rl2.QUANTITIES
NEVER = -1e9  # a logit without probability; finite, so that entropies are


@dataclass(frozen=True)
class Config(rl2.Config):
    """Settings of RL² over options."""

    options: OptionSet = "both"
    """options to choose from: each action for one step, the hallway options of four rooms, both, or each action for one
    step and repeated for four on average"""


class Acted(NamedTuple):
    """The extras of a transition."""

    log_prob: jax.Array  # [] of the option drawn
    value: jax.Array  # [] V(h_t)
    option: jax.Array  # [] int32, the option drawn
    chosen: jax.Array  # [] bool, an option is chosen on this step; else one is running, and the draw is not used


# The policy over options


def network_of(config: Config, trial: Trial, options: Options, steps: int | None = None) -> Network:
    """RL²'s network, with a policy over the options that may start; `steps` as there."""
    choices = spaces.Discrete(len(options.initiation))
    return rl2.network(config, trial, steps, choices, partial(that_may_start, options))


def state_in(options: Options, obs: jax.Array) -> jax.Array:
    """The state [...] in observations [..., F] of trials, which begin with it, one-hot."""
    return jnp.argmax(obs[..., : options.initiation.shape[1]], axis=-1)


def that_may_start(options: Options, distribution: Categorical, obs: jax.Array) -> Categorical:
    """The distribution over the options that may start in the state that obs [..., F] shows."""
    available = options.initiation.T[state_in(options, obs)]
    return Categorical(jnp.where(available, distribution.logits, NEVER))


# Acting


class Following(NamedTuple):
    """The carry of an agent that follows options."""

    hidden: Any
    option: jax.Array  # [] int32, the one that runs
    draw: jax.Array  # [] float32 in [0, 1), drawn one step ahead: on entering s' it stops if draw < β(s')


def follow(
    net: Network,
    trial: Trial,
    options: Options,
    params: Params,
    before: Following,
    inp: ActInput,
    key: jax.Array,
    greedy: bool,
) -> tuple[Any, Following, Acted]:
    """An action of the running option, which is chosen where an episode begins or the one before has stopped.

    The network sees every step, also those between two choices.
    """
    state = state_in(options, inp.obs)
    hidden, distribution, value = net.step(params, before.hidden, inp.obs)
    drawn = distribution.mode() if greedy else distribution.sample(key)
    chosen = trial.first_of_episode(inp.obs) | (before.draw < options.termination[before.option, state])
    option = jnp.where(chosen, drawn, before.option)
    draws = uniforms(another_key(key), 2)
    action = jnp.sum(jnp.cumsum(options.policy[option, state])[:-1] <= draws[0], dtype=jnp.int32)
    acted = Acted(distribution.log_prob(drawn), value, drawn, chosen)
    return action, Following(hidden, option, draws[1]), acted


def agent_of(net: Network, trial: Trial, options: Options) -> Agent:
    """The policy over options as an agent; an episode of its environment is a trial."""
    start = lambda params, key: Following(net.start(), jnp.zeros((), jnp.int32), jnp.zeros(()))
    return Agent(init=net.init, start=start, act=partial(follow, net, trial, options))


# Learning


def batch_of(config: rl2.Config, before: World, t: Transition) -> Batch:
    """The batch of a rollout [T, B, ...] that started from the worlds `before` [B]; the extras are `Acted`."""
    acted: Acted = t.extras
    lam = between_choices(config.gae_lambda, acted.chosen)
    return rl2.batch_from(config, t, before.carry.hidden, acted.option, lam, acted.chosen)


def between_choices(lam: Any, chosen: jax.Array) -> jax.Array:
    """λ for each step [T, B] such that the values of states in which nothing is chosen, [T, B] bool, do not matter.

    With 1 before such a state its value cancels out of the sum of errors δ. What is left, at the steps where an option
    is chosen, is the GAE of the decision process over options (Sutton, Precup & Singh, 1999): an option that runs for k
    steps has the reward Σ_{i<k} γ^i r_i and the discount γ^k.
    """
    then = jnp.concatenate([chosen[1:], jnp.ones_like(chosen[:1])])
    return jnp.where(then, lam, 1.0)


# The algorithm


def make(config: Config, env: Any, tasks: Tasks, options: Options | None = None) -> Algorithm:
    """RL² over options, on an environment with Discrete observations and actions, which `make` plays in trials.

    Args:
        options: the options to choose from, over the environment's states as it shows them, in the place of those that
            `config.options` names. Each runs until it stops or the episode ends.

    Raises:
        UsageError: a setting or an option that cannot work, or an environment without such spaces.
    """
    options = option_set(config.options, options, env, tasks)
    if config.normalize_observations:
        raise UsageError("normalize_observations must be off with options, which read the state that is observed")
    trial, tasks = rl2.in_trials(config, env, tasks)
    net = network_of(config, trial, options, tasks.time_limit())
    return rl2.made_of(config, env, trial, tasks, net, agent_of(net, trial, options), batch_of)
