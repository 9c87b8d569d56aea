"""Classical exploration of small Markov decision processes, the baselines of RL² (Duan et al., 2016, Table 2).

Each is an `Agent` without learning, for trials of several episodes of one task that are played as one long episode
(`jaxrl_envs.tabular_mdp`). Its carry holds the posterior over the process given the trial so far, and a plan Q(h, s, a)
for the steps h of an episode, computed before each episode by backward induction from Q_H = 0:

    greedy, epsilon_greedy   plan for the empirical means; act at random with probability ε
    psrl                     plan for a sample of the posterior (Osband et al., 2013)
    optimistic_psrl          take the elementwise maximum of Q over several samples
    ucrl2                    the best process in a confidence region (Jaksch et al., 2010), by extended value iteration:
                             rewards within c sqrt(4 L / N) and transitions within c sqrt(4 S L / (N' + S − 1)) of the
                             means, L = ln(2 S A t / δ) in episode t, δ = 0.05
    beb                      the posterior means, with the bonuses 1 / (N + 2) for rewards and, with k steps to go,
                             2 c H³ k / (N' + S + 1) for transitions, after Kolter & Ng (2009)

N counts the observed rewards of a state and action, N' the observed transitions; the last step of an episode gives no
transition. The prior is Dirichlet(1, …, 1) for transitions and Normal(0, 1) for rewards with unit noise. It differs
from the tasks' own prior only in the mean of rewards, which is 1 there. The paper's experiments did the same with the
agents of Osband's TabulaRL, whose confidence region and bonuses we also use. As in TabulaRL the greedy agents' prior
has the weight of a ten-thousandth of an observation; it matters only where nothing was observed, with uniform
transitions and reward 0. `epsilon_greedy` with ε = 1 acts at random.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jaxrl_hier.checks import UsageError
from jaxrl_hier.classical.posteriors import dirichlet, log_gamma_quantiles
from jaxrl_hier.engine.types import ActInput, Agent, Params
from jaxrl_hier.exact.tabular import action_values

DELTA = 0.05
FAINT = 1e-4  # the weight of the greedy agents' prior, in observations


class Posterior(NamedTuple):
    """Posterior over processes with S states and A actions."""

    alpha: jax.Array  # [S, A, S'] Dirichlet: the prior's weight + observed transitions
    mean: jax.Array  # [S, A] of the mean reward
    precision: jax.Array  # [S, A] of the mean reward: the prior's weight + observed rewards

    @property
    def transitions(self) -> jax.Array:
        """The expected transitions, [S, A, S']."""
        return self.alpha / jnp.sum(self.alpha, axis=2, keepdims=True)


class Memory(NamedTuple):
    """An agent's carry during a trial."""

    posterior: Posterior
    plan: jax.Array  # [H, S, A]
    time: jax.Array  # [] int32, steps since the trial began
    obs: jax.Array  # [] int32, the previous state


Planner = Callable[[Params, Posterior, jax.Array, jax.Array], jax.Array]
# setting, posterior, episodes so far, key -> Q [H, S, A]


def greedy(env: Any) -> Agent:
    """Acts optimally for the empirical means."""
    return epsilon_greedy(env, 0.0)


def epsilon_greedy(env: Any, epsilon: float = 0.1) -> Agent:
    """The greedy agent, with a random action with probability `epsilon` (the parameter)."""
    _require(0 <= epsilon <= 1, f"epsilon must lie in [0, 1], got {epsilon}")
    plan = lambda _, posterior, episode, key: _best(posterior.mean, posterior.transitions, env.horizon)
    return _agent(env, epsilon, plan, weight=FAINT, exploring=True)


def psrl(env: Any, longest: int = 10_000) -> Agent:
    """Acts optimally for one sample of the posterior; for trials of up to `longest` steps."""
    return optimistic_psrl(env, 1, longest)


def optimistic_psrl(env: Any, samples: int = 5, longest: int = 10_000) -> Agent:
    """Acts greedily on the maximum of Q over several posterior samples; `samples` is the parameter."""
    _require(samples >= 1, f"samples must be at least 1, got {samples}")
    table = log_gamma_quantiles(longest + 1)

    def plan(samples: jax.Array, posterior: Posterior, episode: jax.Array, key: jax.Array) -> jax.Array:
        def one_more(i: jax.Array, q: jax.Array) -> jax.Array:
            key_rewards, key_transitions = jax.random.split(jax.random.fold_in(key, i))
            noise = jax.random.normal(key_rewards, posterior.mean.shape)
            R = posterior.mean + noise / jnp.sqrt(posterior.precision)
            P = dirichlet(key_transitions, posterior.alpha, table)
            return jnp.maximum(q, _best(R, P, env.horizon))

        none = jnp.full((env.horizon, *posterior.mean.shape), -jnp.inf)
        return jax.lax.fori_loop(0, samples, one_more, none)

    return _agent(env, jnp.int32(samples), plan)


def ucrl2(env: Any, scaling: float = 0.1, piling: bool = False) -> Agent:
    """Acts optimally for the best process in the confidence region; `scaling` is c, the parameter.

    TabulaRL overwrites its mean transitions by the optimistic ones of each step, so that optimism accumulates from step
    to step in backward induction, except for transitions that have become deterministic. `piling` reproduces this. It
    lowers returns of the first 25 episodes a little, to within three standard errors of the paper's.
    """
    _require(scaling >= 0, f"scaling must be at least 0, got {scaling}")

    def plan(c: jax.Array, posterior: Posterior, episode: jax.Array, key: jax.Array) -> jax.Array:
        states, actions = posterior.mean.shape
        log = jnp.log(2 * states * actions * (episode + 1) / DELTA)
        reward_count = jnp.maximum(posterior.precision - 1, 1)
        transition_count = jnp.maximum(jnp.sum(posterior.alpha, axis=2) - 1, 1)
        R = posterior.mean + c * jnp.sqrt(4 * log / reward_count)
        slack = c * jnp.sqrt(4 * states * log / transition_count)

        def backup(values: jax.Array, k: jax.Array, P: jax.Array) -> tuple[jax.Array, jax.Array]:
            best = plausible(P, slack, values)
            certain = jnp.max(best, axis=2, keepdims=True) >= 1
            return action_values(best, R, values, 1.0), jnp.where(piling & ~certain, best, P)

        return _induction(backup, env.horizon, R, posterior.transitions)

    return _agent(env, scaling, plan)


def beb(env: Any, scaling: float = 0.01) -> Agent:
    """Acts optimally for the posterior means with exploration bonuses; `scaling` is c, the parameter."""
    _require(scaling >= 0, f"scaling must be at least 0, got {scaling}")

    def plan(c: jax.Array, posterior: Posterior, episode: jax.Array, key: jax.Array) -> jax.Array:
        P, R = posterior.transitions, posterior.mean + 1 / (posterior.precision + 1)
        bonus = 2 * c * env.horizon**3 / (jnp.sum(posterior.alpha, axis=2) + 1)
        backup = lambda values, k, P: (action_values(P, R, values, 1.0) + k * bonus, P)
        return _induction(backup, env.horizon, R, P)

    return _agent(env, scaling, plan)


def plausible(P: jax.Array, slack: jax.Array, values: jax.Array) -> jax.Array:
    """The transitions [S, A, S'] within L1 distance `slack` [S, A] of P with the largest expected `values` [S']: they
    move probability slack / 2 from the worst successors to the best one."""
    number = jnp.arange(len(values))
    # [S', S'] whether the first state is worse than the second; a product with this is faster than sorting
    worse = (values[:, None] < values) | ((values[:, None] == values) & (number[:, None] < number))
    best = ~jnp.any(worse, axis=1)
    added = jnp.minimum(1 - jnp.sum(P * best, axis=2), slack / 2)[..., None]
    before = jnp.matmul(P, worse.astype(P.dtype), precision=jax.lax.Precision.HIGHEST)
    removed = jnp.clip(added - before, 0, P)  # from the worst successors first
    return jnp.where(best, P + added, P - removed)


def _best(R: jax.Array, P: jax.Array, horizon: int) -> jax.Array:
    """Q [H, S, A] of the optimal policy for an episode."""
    return _induction(lambda values, k, P: (action_values(P, R, values, 1.0), P), horizon, R, P)


def _induction(
    backup: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    horizon: int,
    R: jax.Array,
    P: jax.Array,
) -> jax.Array:
    """Q [H, S, A] by backward induction; `backup` takes the next values [S], the number of later steps and the
    transitions, and returns the step's Q [S, A] and the transitions for the previous step."""

    def step(carry: tuple[jax.Array, jax.Array], k: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        q, P = backup(carry[0], k, carry[1])
        return (jnp.max(q, axis=1), P), q

    return jax.lax.scan(step, (jnp.zeros_like(R[:, 0]), P), jnp.arange(horizon))[1][::-1]


def _agent(env: Any, setting: Params, planner: Planner, weight: float = 1.0, exploring: bool = False) -> Agent:
    params = env.default_params
    states, actions = env.observation_space(params).n, env.action_space(params).n
    replan = _when_due(planner)

    def init(key: jax.Array) -> Params:
        setting_array = jnp.asarray(setting)
        return setting_array.astype(jnp.float32) if isinstance(setting, float) else setting_array

    def start(params: Params, key: jax.Array) -> Memory:
        prior = Posterior(
            alpha=jnp.full((states, actions, states), weight),
            mean=jnp.zeros((states, actions)),
            precision=jnp.full((states, actions), weight),
        )
        zero = jnp.zeros((), jnp.int32)
        return Memory(prior, jnp.zeros((env.horizon, states, actions)), zero, zero)

    def act(
        params: Params, memory: Memory, inp: ActInput, key: jax.Array, greedy: bool
    ) -> tuple[jax.Array, Memory, tuple[()]]:
        key_plan, key_act = jax.random.split(key)
        step = memory.time % env.horizon
        posterior = _learn(memory.posterior, memory.obs, inp, begins=step == 0)
        episode = memory.time // env.horizon
        plan = replan(step == 0, memory.plan, params, posterior, episode, jax.random.key_data(key_plan))
        q = plan[step, inp.obs]
        draws = jax.random.uniform(key_act, (actions + 1,))
        at_random = draws[actions] < (params if exploring else 0.0)
        action = jnp.argmax(jnp.where(at_random | (q == jnp.max(q)), draws[:actions], -1.0))  # ties at random
        return action.astype(jnp.int32), Memory(posterior, plan, memory.time + 1, inp.obs), ()

    return Agent(init=init, start=start, act=act)


def _learn(posterior: Posterior, obs: jax.Array, inp: ActInput, begins: jax.Array) -> Posterior:
    """The posterior after the step from `obs`; at the first step of an episode `inp.obs` is not its successor."""
    at = (obs, inp.prev_action)
    alpha = posterior.alpha.at[(*at, inp.obs)].add(jnp.where(begins, 0.0, 1.0))
    precision = posterior.precision.at[at].add(jnp.where(inp.first, 0.0, 1.0))
    error = jnp.where(inp.first, 0.0, inp.prev_reward - posterior.mean[at])
    return Posterior(alpha, posterior.mean.at[at].add(error / precision[at]), precision)


def _when_due(planner: Planner) -> Callable:
    """(due, old plan, setting, posterior, episode, key data) -> a new plan where `due`, otherwise the old one.

    A vmapped `lax.cond` computes both branches. Parallel worlds begin their episodes together, so a batch plans only in
    steps where at least one plan is due.
    """

    @custom_vmap
    def replan(due: jax.Array, old: Any, setting: Any, posterior: Posterior, episode: jax.Array, key: jax.Array) -> Any:
        make = lambda: planner(setting, posterior, episode, jax.random.wrap_key_data(key))
        return jax.lax.cond(due, make, lambda: old)

    @replan.def_vmap
    def replan_batch(size: int, batched: Sequence[Any], *arguments: Any) -> tuple[Any, bool]:
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(batched))

        def one(
            due: jax.Array, old: Any, setting: Any, posterior: Posterior, episode: jax.Array, key: jax.Array
        ) -> jax.Array:
            return jnp.where(due, planner(setting, posterior, episode, jax.random.wrap_key_data(key)), old)

        old = arguments[1] if batched[1] else jnp.broadcast_to(arguments[1], (size, *arguments[1].shape))
        renew = lambda: jax.vmap(one, axes, axis_size=size)(*arguments)
        return jax.lax.cond(jnp.any(arguments[0]), renew, lambda: old), True

    return replan


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise UsageError(problem)
