"""The option-critic architecture in tables (Bacon, Harb & Precup, AAAI 2017).

Each option has a learned softmax policy over actions and a learned sigmoid termination, and may start anywhere.

    π_o(a|s) ∝ exp(θ(s, o, a) / T)          β_o(s) = σ(ϑ(s, o))          π_Ω(o|s) ∝ exp(Q_Ω(s, o) / T)

On entering s' the running option o ends with probability β_o(s'), and an option, perhaps the same, is drawn from π_Ω.
After every step s, a, r, s' of option o:

    U(s', o) = (1 − β_o(s')) Q_Ω(s', o) + β_o(s') V_Ω(s')       V_Ω(s') = max_o' Q_Ω(s', o')      0 where the task ended
    Q_Ω(s, o)    += α [r + γ U(s', o) − Q_Ω(s, o)]                                     critic
    Q_U(s, o, a) += α [r + γ U(s', o) − Q_U(s, o, a)]
    θ(s, o, ·)   += α_θ T ∇_θ log π_o(a|s) [Q_U(s, o, a) − Q_Ω(s, o)]                  intra-option policy
    ϑ(s, o)      −= α_ϑ β_o'(s) [Q_Ω(s, o) − V_Ω(s) + ξ]                               termination

ξ is the deliberation cost, 0 in this paper. With `num_options=1` this is the primitive actor-critic (AC-PG in the
paper's figure 2): terminations have no effect, since there is only one option to choose.

Where the published code, which produced the figure, differs from the text, this follows the code: Q_Ω and Q_U are
separate tables learned from the same target (the text has Q_Ω = Σ_a π_o Q_U); the policy gradient is not divided by T,
so its step is T times that of the theorem; π_Ω is a softmax and not ε-greedy; the actor learns from every step except
an episode's first; and ϑ(s, o) is updated for the option that acts in s, which may have been chosen there just now,
where the theorem means the option that arrives in s and may end there. T is 0.001 in the paper and 0.01 in the code.

Departures: the option and action of a step are chosen after the critic has learned from the previous step, not just
before, which matters only where that step returned to its own state. And no option is chosen in the state that ends the
task; the code chooses one and lets its actor learn from it.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_envs.random_bits import uniforms
from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.checks import UsageError, require_fraction, require_positive
from jaxrl_hier.engine.types import (
    ActInput,
    Agent,
    Algorithm,
    Average,
    Metrics,
    NamedArray,
    Tasks,
    TrainState,
    Transition,
    World,
)
from jaxrl_hier.exact import smdp
from jaxrl_hier.hierarchical.usage import usage_metrics
from jaxrl_hier.learning.tables import boltzmann, in_turn, learner_from_steps, measure, table_sizes
from jaxrl_hier.settings import BaseConfig


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of the tabular option-critic."""

    num_options: int = 4
    """number of options (O); 1: the primitive actor-critic"""
    critic_step_size: float = 0.5
    """step size of the critic (α), in [0, 1]"""
    policy_step_size: float = 0.25
    """step size of the options' policies (α_θ), at least 0"""
    termination_step_size: float = 0.25
    """step size of the terminations (α_ϑ), at least 0"""
    temperature: float = 0.01
    """temperature of all softmax policies (T), positive"""
    deliberation_cost: float = 0.0
    """added to the advantage of continuing an option (ξ), in units of the return; larger values make options longer"""
    discount: float = 0.99
    """discount per step (γ), in [0, 1]"""
    environments: int = 1
    """environments that share the tables; their transitions update them one at a time"""
    recorded_episodes: int = 1000
    """first episodes of each environment whose length and return are kept"""

    renamed: ClassVar = {"record": "recorded_episodes"}


class Tables(NamedTuple):
    """The parameters; zero at first."""

    Q_omega: jax.Array  # [S, O] value of running o from s
    Q_u: jax.Array  # [S, O, A] value of a as the action of o in s
    theta: jax.Array  # [S, O, A] preferences for actions
    vartheta: jax.Array  # [S, O] logits of termination


class Chosen(NamedTuple):
    """The extras of a transition."""

    option: jax.Array  # [] int32, the option that acts
    new: jax.Array  # [] bool, whether it was chosen in this state
    previous: jax.Array  # [] int32, the option of the step before; it and β are arbitrary on an episode's first step
    beta: jax.Array  # [] the probability with which that option ended here


def policy_gradient(theta: jax.Array, action: jax.Array, advantage: jax.Array, temperature: Any) -> jax.Array:
    """T ∇_θ log π(a) · advantage [A]: T times a sample of the intra-option policy gradient (theorem 1).

    Args:
        theta: [A] preferences of one option in one state. action, advantage: [].
    """
    return (jax.nn.one_hot(action, theta.shape[0]) - jax.nn.softmax(theta / temperature)) * advantage


def termination_gradient(vartheta: jax.Array, advantage: jax.Array) -> jax.Array:
    """−β' · advantage []: a sample of the termination gradient (theorem 2), for the advantage [] of continuing."""
    beta = jax.nn.sigmoid(vartheta)
    return -beta * (1 - beta) * advantage


def act(
    config: Config, params: Tables, before: jax.Array, inp: ActInput, key: jax.Array, greedy: bool
) -> tuple[jax.Array, jax.Array, Chosen]:
    """An action []; the carry is the option [] that acts, `before` the one that acted last.

    Greedily it is the best option and its likeliest action; whether an option ends is drawn.
    """
    draws, temperature = uniforms(key, 3), config.temperature
    beta = jax.nn.sigmoid(params.vartheta[inp.obs, before])
    new = inp.first | (draws[0] < beta)
    q = params.Q_omega[inp.obs]
    another = jnp.argmax(q).astype(jnp.int32) if greedy else boltzmann(draws[1], q, temperature)
    option = jnp.where(new, another, before)
    theta = params.theta[inp.obs, option]
    action = jnp.argmax(theta).astype(jnp.int32) if greedy else boltzmann(draws[2], theta, temperature)
    return action, option, Chosen(option, new, before, beta)


def learn(config: Config, params: Tables, learner: Any, t: Transition) -> tuple[Tables, Any, Metrics]:
    """The tables after one transition: first the actor's update, then the critic's."""
    s, o, a, following = t.obs, t.extras.option, t.action, t.next_obs
    Q_omega, Q_u, theta, vartheta = params

    going_on = Q_omega[s, o] - jnp.max(Q_omega[s]) + config.deliberation_cost
    improved = policy_gradient(theta[s, o], a, Q_u[s, o, a] - Q_omega[s, o], config.temperature)
    theta = theta.at[s, o].add(jnp.where(t.first, 0.0, config.policy_step_size * improved))
    ended = termination_gradient(vartheta[s, o], going_on)
    vartheta = vartheta.at[s, o].add(jnp.where(t.first, 0.0, config.termination_step_size * ended))

    beta = jax.nn.sigmoid(vartheta[following, o])
    u = (1 - beta) * Q_omega[following, o] + beta * jnp.max(Q_omega[following])
    target = t.reward + config.discount * jnp.where(t.terminated, 0.0, u)
    error = target - Q_omega[s, o]
    learned = Tables(
        Q_omega=Q_omega.at[s, o].add(config.critic_step_size * error),
        Q_u=Q_u.at[s, o, a].add(config.critic_step_size * (target - Q_u[s, o, a])),
        theta=theta,
        vartheta=vartheta,
    )
    return learned, learner, {"td_error": Average(jnp.abs(error), jnp.ones(()))}


def update(
    config: Config, params: Tables, learner: Any, before: World, t: Transition, key: jax.Array
) -> tuple[Tables, Any, Metrics]:
    """`learn` from transitions [T, B, ...] one at a time, with metrics of how options are used."""
    params, learner, metrics = in_turn(partial(learn, config))(params, learner, before, t, key)
    did: Chosen = t.extras
    usage = usage_metrics(did.option, did.new, did.beta, config.num_options, previous=did.previous, first=t.first)
    return params, learner, metrics | usage


def solve(config: Config, params: Tables, P: jax.Array, R: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Expected steps [S] and values [S] of the policy as it acts in training, exactly, on P [S, A, S'] and R [S, A]."""
    options, over_options = as_options(params, config.temperature)
    return smdp.steps_and_values(P, R, options, over_options, config.discount)


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """The option-critic on an environment with Discrete observations and actions; parameters: `Tables`.

    Raises:
        UsageError: a setting that cannot work, or an environment without such spaces.
    """
    if config.num_options < 1:
        raise UsageError(f"num_options must be at least 1, got {config.num_options}")
    require_positive(config, "temperature", "environments")
    require_positive(config, "recorded_episodes", "critic_step_size", or_zero=True)
    require_positive(config, "policy_step_size", "termination_step_size", or_zero=True)
    require_fraction(config, "critic_step_size", "discount")
    num_states, num_actions = table_sizes(env)

    def init_params(key: jax.Array) -> Tables:
        table = jnp.zeros((num_states, config.num_options, num_actions))
        return Tables(Q_omega=table[..., 0], Q_u=table, theta=table, vartheta=table[..., 0])

    agent = Agent(init=init_params, start=lambda params, key: jnp.zeros((), jnp.int32), act=partial(act, config))

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """`tables.measure` of the policy as it acts in training, and β as "termination" [state, option]."""
        termination = NamedArray(jax.nn.sigmoid(state.params.vartheta), ("state", "option"))
        measured = measure(env, agent, tasks, state, key, partial(solve, config, state.params), config.discount)
        return measured | {"termination": termination}

    return learner_from_steps(config, env, tasks, agent, partial(update, config), evaluate)


def as_options(params: Tables, temperature: Any) -> tuple[Options, jax.Array]:
    """The learned options as arrays, and π_Ω [S, O], the policy over them."""
    options = Options(
        initiation=jnp.ones(params.vartheta.T.shape, bool),
        policy=jax.nn.softmax(params.theta / temperature).transpose(1, 0, 2),
        termination=jax.nn.sigmoid(params.vartheta.T),
    )
    return options, jax.nn.softmax(params.Q_omega / temperature)
