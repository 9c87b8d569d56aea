"""MAML over an option-critic: options whose policies, terminations and choice are one initialisation, which adapts to a
task in a few gradient steps (Finn, Abbeel & Levine, 2017; Bacon, Harb & Precup, 2017).

What happens in a step is an option and its action. Where the option o' led to the state s,

    π(o, a | o', s) = π^H(o | o', s) π_o(a | s)
    π^H(o | o', s) = (1 − β_{o'}(s)) 1[o = o'] + β_{o'}(s) μ(o | s)        μ(o | s) on an episode's first step

which is one distribution over pairs, in a process whose states are pairs (o', s). So all three, the options' policies,
their terminations β and the choice μ, learn by the policy gradient of pairs, in the inner and in the outer loop. MAML
(`meta.maml`) needs nothing else: its estimators, outer optimisers and switches are those of the distribution of pairs.
With one option the policy is that of MAML, number for number.

Departures: no paper combines the two. The intra-option policy gradient and the gradient of terminations of Bacon, Harb
& Precup are expectations over what the options would go on to do, and need a critic of options; here they are sampled,
as is usual in MAML, with the advantages of `meta.maml`, whose linear baseline also sees the option that ran before (of
one option: whether a step is an episode's first).
The options' features are shared, as in `hierarchical.option_ppo`, and there is no deliberation cost.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_envs.contract import name_of
from jaxrl_hier.checks import UsageError, require_positive
from jaxrl_hier.engine.rollout import Played
from jaxrl_hier.engine.types import ActInput, Agent, Algorithm, Params, Tasks, Transition
from jaxrl_hier.hierarchical.option_ppo import OptionPolicies, high_policy
from jaxrl_hier.learning.distributions import Categorical
from jaxrl_hier.learning.networks import action_size, encoder_for, kind_of
from jaxrl_hier.meta import maml
from jaxrl_hier.meta.maml import Setup


@dataclass(frozen=True)
class Config(maml.Config):
    """Settings of MAML over options."""

    num_options: int = 4
    """number of options (O); with 1 the policy is that of MAML"""


class Chosen(NamedTuple):
    """`Transition.extras`: what was decided in a step."""

    before: jax.Array  # [] int32, the option o' that led here; O: none, on an episode's first step
    pair: jax.Array  # [] int32, o A + a
    distribution: Categorical  # of the pairs


class PairPolicy(nn.Module):
    """Features and the option before, one-hot with a place for none [..., F + O + 1], -> Categorical over O A pairs."""

    options: OptionPolicies

    @nn.compact
    def __call__(self, x: jax.Array) -> Categorical:
        count = self.options.num_options
        features, before = x[..., : -count - 1], x[..., -count - 1 :]
        heads = self.options(features)
        high = high_policy(heads, jnp.argmax(before[..., :-1], axis=-1), before[..., -1] > 0)
        pairs = high.log_probs()[..., None] + jax.nn.log_softmax(heads.actions.logits)  # [..., O, A]
        return Categorical(pairs.reshape(*x.shape[:-1], -1))


def setup_of(config: Config, env: Any, tasks: Tasks) -> Setup:
    """MAML's setup, in which an observation is a pair of what the environment shows and the option before."""
    actions = env.action_space(env.default_params)
    size, encode = action_size(actions), encoder_for(env.observation_space(env.default_params))
    one_hot = lambda option: jax.nn.one_hot(option, config.num_options + 1)
    seen = lambda pair: jnp.concatenate([encode(pair[0]), one_hot(pair[1])], axis=-1)
    options = OptionPolicies(config.num_options, size, True, config.hidden, config.activation)
    horizon = config.horizon or tasks.time_limit()
    return Setup(config, env, horizon, seen, PairPolicy(options), partial(told, size))


def told(size: int, t: Transition) -> Transition:
    """The transitions of the process of pairs: its states are (s, o'), its actions the pairs (o, a)."""
    did: Chosen = t.extras
    return t._replace(
        obs=(t.obs, did.before),
        next_obs=(t.next_obs, did.pair // size),
        action=did.pair,
        extras=did.distribution,
    )


def init_params(setup: Setup, tasks: Tasks, key: jax.Array) -> Params:
    """New variables of the network."""
    key_task, key_reset, key = jax.random.split(key, 3)
    obs, _ = Played(setup.env).reset(key_reset, tasks.sample(key_task))
    return maml.with_rates(setup.config, setup.policy.init(key, setup.encode((obs, setup.policy.options.num_options))))


def act(
    setup: Setup, size: int, params: Params, before: jax.Array, inp: ActInput, key: jax.Array, greedy: bool
) -> tuple[jax.Array, jax.Array, Chosen]:
    """An action [], the option that took it [], and what was decided; greedily the likeliest pair."""
    distribution = setup.policy.apply(params, setup.encode((inp.obs, before)))
    pair = distribution.mode() if greedy else distribution.sample(key)
    return pair % size, pair // size, Chosen(before, pair, distribution)


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """MAML over options on a distribution of tasks, with discrete actions. The parameters are the network's variables.

    Raises:
        UsageError: a setting that cannot work, or actions that are not Discrete.
    """
    check(config, env, tasks)
    setup = setup_of(config, env, tasks)
    agent = Agent(
        init=partial(init_params, setup, tasks),
        start=lambda params, key: jnp.full((), config.num_options, jnp.int32),
        act=partial(act, setup, action_size(env.action_space(env.default_params))),
    )
    return maml.made_of(setup, agent, tasks)


def check(config: Config, env: Any, tasks: Tasks) -> None:
    """Raises UsageError for a setting that cannot work."""
    maml.check(config, env, tasks)
    require_positive(config, "num_options")
    actions = env.action_space(env.default_params)
    if not hasattr(actions, "n"):
        raise UsageError(
            f"maml-options needs Discrete actions; {name_of(env)} has {kind_of(actions)} actions. Use maml or mlsh"
        )
    if config.context_parameters:
        raise UsageError("context_parameters is for maml: options adapt by their weights")
