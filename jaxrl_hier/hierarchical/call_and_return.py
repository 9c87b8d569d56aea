"""Call-and-return execution of options: choose one that may start, follow it until it stops, choose again.

The agent, and the exact evaluation of a policy over options, that the learners of options share.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_envs.random_bits import uniforms
from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.engine.types import ActInput, Agent, Params
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.learning.tables import epsilon_greedy


class Running(NamedTuple):
    """The running option before a step: the agent's carry, and the extras of its transitions."""

    option: jax.Array  # [] int32
    start: jax.Array  # [] int32, the state in which it was chosen
    reward: jax.Array  # [] float32, Σ_{i<k} γ^i r_i over the k steps that it has taken
    discount: jax.Array  # [] float32, γ^k
    draw: jax.Array  # [] float32 in [0, 1), drawn one step ahead: on entering s' it stops if draw < β(s')


def can_run(initiation: jax.Array, termination: jax.Array) -> jax.Array:
    """The states in which options may be running, [O, S] bool: where they may start, or may continue on arrival.

    Args:
        initiation: [O, S] bool. termination: [O, S] probabilities.
    """
    return initiation | (termination < 1)


def call_and_return(
    options: Options,
    init: Callable[[jax.Array], Params],
    values: Callable[[Params, jax.Array], jax.Array],
    *,
    epsilon: Any,
    discount: Any,
    interrupt: bool = False,
) -> Agent:
    """An agent that is ε-greedy over the options that may start, or greedy. Its carry is a `Running`.

    Whether an option stops in s' is drawn one step ahead, together with the action. So the learner knows it when it
    learns from the step, and the next option is chosen with the updated values.

    Args:
        init: key -> params. values: params, state -> Q(s, ·) [O].
        epsilon, discount: ε and γ.
        interrupt: leave an option also where Q(s, o) < max Q(s, ·).
    """
    available = options.initiation.T  # [S, O]
    cumulative = jnp.cumsum(options.policy, axis=2)[..., :-1]  # [O, S, A - 1]

    def start(params: Params, key: jax.Array) -> Running:
        return Running(
            option=jnp.zeros((), jnp.int32),
            start=jnp.zeros((), jnp.int32),
            reward=jnp.zeros(()),
            discount=jnp.ones(()),
            draw=jnp.zeros(()),
        )

    def act(params: Params, before: Running, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        draws = uniforms(key, 4)
        q = values(params, inp.obs)
        over = inp.first | (before.draw < options.termination[before.option, inp.obs])
        if interrupt:
            over |= q[before.option] < jnp.max(jnp.where(available[inp.obs], q, -jnp.inf))
        chosen = epsilon_greedy(draws[:2], q, available[inp.obs], 0.0 if greedy else epsilon)
        running = Running(
            option=jnp.where(over, chosen, before.option),
            start=jnp.where(over, inp.obs, before.start),
            reward=jnp.where(over, 0.0, before.reward + before.discount * inp.prev_reward),
            discount=jnp.where(over, 1.0, before.discount * discount),
            draw=draws[2],
        )
        action = jnp.sum(cumulative[running.option, inp.obs] <= draws[3], dtype=jnp.int32)
        return action, running, running

    return Agent(init=init, start=start, act=act)


def option_end(options: Options, t: Any, discount: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Whether the running option stops after a step, and its return, from one transition of `call_and_return`.

    Returns:
        stopped: [] bool, whether it ends with this step, by its β or because the episode does.
        reward: [] R = r_1 + γ r_2 + … + γ^(k-1) r_k of all its k steps so far.
        discount: [] γ^k.
    """
    running: Running = t.extras
    stopped = t.terminated | t.truncated | (running.draw < options.termination[running.option, t.next_obs])
    return stopped, running.reward + running.discount * t.reward, running.discount * discount


def solve_over_options(
    P: jax.Array, R: jax.Array, options: Options, q: jax.Array, discount: Any, interrupt: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Exact expected steps [S] and values [S] of the policy over options that is greedy for the table `q` [S, O].

    Args:
        P: [S, A, S']. R: [S, A]. discount: γ.
        interrupt: options are left wherever the table prefers another.
    """
    available = options.initiation.T
    if interrupt:
        best = jnp.max(jnp.where(available, q, -jnp.inf), axis=1, keepdims=True)
        options = options._replace(termination=jnp.where((q < best).T, 1.0, options.termination))
    policy = tabular.greedy_policy(q, available, tolerance=0.0)
    return smdp.steps_and_values(P, R, options, policy, discount)
