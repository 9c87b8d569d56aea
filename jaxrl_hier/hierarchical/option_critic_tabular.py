"""The option-critic architecture in tables (Bacon, Harb & Precup, AAAI 2017).

Options are learned: each has a softmax policy over actions and a sigmoid termination, and all may start anywhere.

    π_o(a|s) ∝ exp(θ(s, o, a) / T)          β_o(s) = σ(ϑ(s, o))          π_Ω(o|s) ∝ exp(Q_Ω(s, o) / T)

On entering s' the running option o ends with probability β_o(s'), and another (perhaps the same) is drawn from π_Ω.
After every step s, a, r, s' of option o:

    U(s', o) = (1 − β_o(s')) Q_Ω(s', o) + β_o(s') V_Ω(s')       V_Ω(s') = max_o' Q_Ω(s', o')      0 where the task ended
    Q_Ω(s, o)    += α [r + γ U(s', o) − Q_Ω(s, o)]                                     the critic
    Q_U(s, o, a) += α [r + γ U(s', o) − Q_U(s, o, a)]
    θ(s, o, ·)   += α_θ T ∇_θ log π_o(a|s) [Q_U(s, o, a) − Q_Ω(s, o)]                  the intra-option policy
    ϑ(s, o)      −= α_ϑ β_o'(s) [Q_Ω(s, o) − V_Ω(s) + ξ]                               the termination

ξ is the deliberation cost, 0 in this paper. With `num_options=1` it is the primitive actor-critic (AC-PG in the paper's
figure 2): terminations change nothing, for there is one option to choose.

The details are those of the published code, which the figure came from, where they differ from the text: Q_Ω and Q_U
are tables of their own, learned from the same target (the text has Q_Ω = Σ_a π_o Q_U); the gradient of the policy is
not divided by T, so its step is T times the theorem's; π_Ω is a softmax and not ε-greedy; the actor learns from every
pair (s, o), (a) but an episode's first; and ϑ(s, o) is that of the option that acts in s, which may have been chosen
there a moment ago, where the theorem has the option that arrives in s and could end. The paper's T is .001, the code's
is .01.

Departures: the option and action of a step are chosen after the critic has learned from the step before, and not just
before, which makes a difference only where that step led back to its own state. And no option is chosen in the state
that ends the task: the code chooses one and lets its actor learn from it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_envs.random_bits import uniforms
from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.checks import UsageError, require_fraction, require_positive
from jaxrl_hier.engine.loops import online
from jaxrl_hier.engine.types import (
    ActInput,
    Agent,
    Algorithm,
    Average,
    Metrics,
    NamedArray,
    Params,
    Tasks,
    TrainState,
    Transition,
    World,
)
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.hierarchical.usage import usage_metrics
from jaxrl_hier.learning.tables import begin_learning, boltzmann, in_turn, measure, table_sizes
from jaxrl_hier.settings import BaseConfig


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of the tabular option-critic."""

    renamed: ClassVar = {"record": "recorded_episodes"}

    num_options: int = 4
    """O; 1 is the primitive actor-critic"""
    critic_step_size: float = 0.5
    """α"""
    policy_step_size: float = 0.25
    """α_θ"""
    termination_step_size: float = 0.25
    """α_ϑ"""
    temperature: float = 0.01
    """T of all softmax policies"""
    deliberation_cost: float = 0.0
    """ξ, added to the advantage of going on: options last longer"""
    discount: float = 0.99
    """γ"""
    environments: int = 1
    """environments that feed the tables; what they bring is learned from in turn"""
    recorded_episodes: int = 1000
    """episodes of each environment whose length and return are kept"""


class Tables(NamedTuple):
    """What is learned; all zero at first."""

    Q_omega: jax.Array  # [S, O] value of running o from s
    Q_u: jax.Array  # [S, O, A] value of a as the action of o in s
    theta: jax.Array  # [S, O, A] preferences for actions
    vartheta: jax.Array  # [S, O] logits of termination


class Chosen(NamedTuple):
    """What `act` returns beside the action."""

    option: jax.Array  # [] int32, the option that acts
    new: jax.Array  # [] bool, whether it was chosen in this state
    previous: jax.Array  # [] int32, the option before; it and β mean nothing on an episode's first step
    beta: jax.Array  # [] its probability of ending here


def policy_gradient(theta: jax.Array, action: jax.Array, advantage: jax.Array, temperature: Any) -> jax.Array:
    """T ∇_θ log π(a) · advantage, [A]: a sample of the intra-option policy gradient (theorem 1), T times.

    Args:
        theta: [A] preferences of one option in one state.
    """
    return (jax.nn.one_hot(action, theta.shape[0]) - jax.nn.softmax(theta / temperature)) * advantage


def termination_gradient(vartheta: jax.Array, advantage: jax.Array) -> jax.Array:
    """−β' · advantage: a sample of the termination gradient (theorem 2), the advantage that of going on."""
    beta = jax.nn.sigmoid(vartheta)
    return -beta * (1 - beta) * advantage


def make(config: Config, env: Any, tasks: Tasks) -> Algorithm:
    """The option-critic on an environment with Discrete observations and actions; parameters: `Tables`.

    Raises:
        UsageError: a setting that cannot work, or an environment without such spaces.
    """
    if config.num_options < 1:
        raise UsageError(f"num_options must be at least 1, got {config.num_options}")
    require_positive(config, "temperature", "environments")
    require_positive(
        config, "recorded_episodes", "critic_step_size", "policy_step_size", "termination_step_size", or_zero=True
    )
    require_fraction(config, "critic_step_size", "discount")
    num_states, num_actions = table_sizes(env)
    num_options, temperature = config.num_options, config.temperature

    def init_params(key: jax.Array) -> Tables:
        table = jnp.zeros((num_states, num_options, num_actions))
        return Tables(Q_omega=table[..., 0], Q_u=table, theta=table, vartheta=table[..., 0])

    def start(params: Params, key: jax.Array) -> jax.Array:
        return jnp.zeros((), jnp.int32)

    def act(params: Tables, before: jax.Array, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        """The carry is the option. Greedy, the best option and the likeliest action; options end at random."""
        draws = uniforms(key, 3)
        beta = jax.nn.sigmoid(params.vartheta[inp.obs, before])
        new = inp.first | (draws[0] < beta)
        q = params.Q_omega[inp.obs]
        another = jnp.argmax(q).astype(jnp.int32) if greedy else boltzmann(draws[1], q, temperature)
        option = jnp.where(new, another, before)
        theta = params.theta[inp.obs, option]
        action = jnp.argmax(theta).astype(jnp.int32) if greedy else boltzmann(draws[2], theta, temperature)
        return action, option, Chosen(option, new, before, beta)

    agent = Agent(init=init_params, start=start, act=act)

    def learn(params: Tables, learner: Any, t: Transition) -> tuple[Tables, Any, Metrics]:
        s, o, a, following = t.obs, t.extras.option, t.action, t.next_obs
        Q_omega, Q_u, theta, vartheta = params

        going_on = Q_omega[s, o] - jnp.max(Q_omega[s]) + config.deliberation_cost
        improved = policy_gradient(theta[s, o], a, Q_u[s, o, a] - Q_omega[s, o], temperature)
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

    learn_in_turn = in_turn(learn)

    def update(
        params: Tables, learner: Any, before: World, t: Transition, key: jax.Array
    ) -> tuple[Tables, Any, Metrics]:
        params, learner, metrics = learn_in_turn(params, learner, before, t, key)
        chosen: Chosen = t.extras
        usage = usage_metrics(
            chosen.option, chosen.new, chosen.beta, num_options, previous=chosen.previous, first=t.first
        )
        return params, learner, metrics | usage

    def init(key: jax.Array) -> TrainState:
        return begin_learning(
            env, agent, tasks, key, environments=config.environments, recorded_episodes=config.recorded_episodes
        )

    def evaluate(state: TrainState, key: jax.Array) -> dict[str, NamedArray]:
        """The policy as it acts in training, see `tables.measure`; "termination" [state, option]: β."""
        options, over_options = as_options(state.params, temperature)

        def solve(P: jax.Array, R: jax.Array) -> tuple[jax.Array, jax.Array]:
            models = smdp.option_models(P, R, options, config.discount)
            models = models._replace(transition=jnp.where(tabular.absorbing(P), 0.0, models.transition))
            steps = smdp.option_expected_steps(P, options, over_options)
            return steps, smdp.option_policy_evaluation(models, over_options)

        termination = NamedArray(options.termination.T, ("state", "option"))
        return measure(env, agent, state, key, solve, config.discount) | {"termination": termination}

    step = online(env, agent, tasks, update, length=1)
    return Algorithm(init=init, step=step, evaluate=evaluate, agent=agent, env_steps=config.environments)


def as_options(params: Tables, temperature: Any) -> tuple[Options, jax.Array]:
    """The learned options as arrays, and the policy over them π_Ω [S, O]."""
    options = Options(
        initiation=jnp.ones(params.vartheta.T.shape, bool),
        policy=jax.nn.softmax(params.theta / temperature).transpose(1, 0, 2),
        termination=jax.nn.sigmoid(params.vartheta.T),
    )
    return options, jax.nn.softmax(params.Q_omega / temperature)
