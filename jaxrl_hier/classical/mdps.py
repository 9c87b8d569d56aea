"""Classical ways to explore a small Markov decision process, the opponents of RL² (Duan et al., 2016, Table 2).

Each is an agent of the engine without anything to learn, for trials of several episodes of one task that are played as
one long episode (`jaxrl_envs.tabular_mdp`). Its carry holds the posterior of the process since the trial began, and a
plan Q(h, s, a) for the steps h of an episode, made anew before each of them by backward induction, Q_H = 0:

    greedy, epsilon_greedy   the means of what was seen; a random action with probability ε
    psrl                     a sample of the posterior (Osband et al., 2013)
    optimistic_psrl          the largest Q of several samples, entry by entry
    ucrl2                    the best process in a confidence region (Jaksch et al., 2010), by extended value iteration:
                             rewards within c sqrt(4 L / N) and transitions within c sqrt(4 S L / (N' + S − 1)) of the
                             means, L = ln(2 S A t / δ) in episode t, δ = 0.05
    beb                      the posterior means, with the bonuses 1 / (N + 2) for rewards and, with k steps to go,
                             2 c H³ k / (N' + S + 1) for transitions, after Kolter & Ng (2009)

N counts the rewards seen of a state and action, N' the transitions, of which the last step of an episode shows none.
The prior is Dirichlet(1, …, 1) for transitions and Normal(0, 1) for rewards with unit noise: the tasks' own prior but
for its mean of 1, as in the experiments of the paper, which used the agents of Osband's TabulaRL; the formulas of the
confidence region and of the bonuses are that package's too. There the greedy agents' prior weighs a ten-thousandth of
an observation: what was seen counts in full, and where nothing was seen all successors are as likely and the reward is
0. Random actions are `epsilon_greedy` with ε = 1.
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
    """What is believed of a process of S states and A actions."""

    alpha: jax.Array  # [S, A, S'] Dirichlet: the prior's weight + transitions seen
    mean: jax.Array  # [S, A] of the mean reward
    precision: jax.Array  # [S, A] of the mean reward: the prior's weight + rewards seen

    @property
    def transitions(self) -> jax.Array:
        """The expected transitions, [S, A, S']."""
        return self.alpha / jnp.sum(self.alpha, axis=2, keepdims=True)


class Memory(NamedTuple):
    """What an opponent carries through a trial."""

    posterior: Posterior
    plan: jax.Array  # [H, S, A]
    time: jax.Array  # [] int32, steps since the trial began
    obs: jax.Array  # [] int32, the state before


Planner = Callable[[Params, Posterior, jax.Array, jax.Array], jax.Array]
# setting, posterior, episodes so far, key -> Q [H, S, A]


def greedy(env: Any) -> Agent:
    """Plays what is best for the means of what was seen."""
    return epsilon_greedy(env, 0.0)


def epsilon_greedy(env: Any, epsilon: float = 0.1) -> Agent:
    """The greedy agent, with a random action with probability `epsilon` (the parameter)."""
    _require(0 <= epsilon <= 1, f"epsilon must lie in [0, 1], got {epsilon}")
    plan = lambda _, posterior, episode, key: _best(posterior.mean, posterior.transitions, env.horizon)
    return _agent(env, epsilon, plan, weight=FAINT, exploring=True)


def psrl(env: Any, longest: int = 10_000) -> Agent:
    """Plays what is best for one sample of the posterior; for trials of up to `longest` steps."""
    return optimistic_psrl(env, 1, longest)


def optimistic_psrl(env: Any, samples: int = 5, longest: int = 10_000) -> Agent:
    """Plays by the largest Q of several samples; `samples` is the parameter."""
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
    """Plays what is best for the best process that is plausible; `scaling` is c, the parameter.

    With `piling` the optimistic transitions of a step become the means that the step before is optimistic about, as
    TabulaRL does, which writes them over its means; transitions that end up in one state for certain stay out of it.
    It earns a little less in the first 25 episodes, which brings those cells of the paper within three standard errors.
    """
    _require(scaling >= 0, f"scaling must be at least 0, got {scaling}")

    def plan(c: jax.Array, posterior: Posterior, episode: jax.Array, key: jax.Array) -> jax.Array:
        states, actions = posterior.mean.shape
        log = jnp.log(2 * states * actions * (episode + 1) / DELTA)
        rewards_seen = jnp.maximum(posterior.precision - 1, 1)
        transitions_seen = jnp.maximum(jnp.sum(posterior.alpha, axis=2) - 1, 1)
        R = posterior.mean + c * jnp.sqrt(4 * log / rewards_seen)
        slack = c * jnp.sqrt(4 * states * log / transitions_seen)

        def backup(values: jax.Array, k: jax.Array, P: jax.Array) -> tuple[jax.Array, jax.Array]:
            best = plausible(P, slack, values)
            certain = jnp.max(best, axis=2, keepdims=True) >= 1
            return action_values(best, R, values, 1.0), jnp.where(piling & ~certain, best, P)

        return _induction(backup, env.horizon, R, posterior.transitions)

    return _agent(env, scaling, plan)


def beb(env: Any, scaling: float = 0.01) -> Agent:
    """Plays by the posterior means with a bonus for what was seen little; `scaling` is c, the parameter."""
    _require(scaling >= 0, f"scaling must be at least 0, got {scaling}")

    def plan(c: jax.Array, posterior: Posterior, episode: jax.Array, key: jax.Array) -> jax.Array:
        P, R = posterior.transitions, posterior.mean + 1 / (posterior.precision + 1)
        bonus = 2 * c * env.horizon**3 / (jnp.sum(posterior.alpha, axis=2) + 1)
        backup = lambda values, k, P: (action_values(P, R, values, 1.0) + k * bonus, P)
        return _induction(backup, env.horizon, R, P)

    return _agent(env, scaling, plan)


def plausible(P: jax.Array, slack: jax.Array, values: jax.Array) -> jax.Array:
    """The transitions [S, A, S'] within an L1 distance of `slack` [S, A] from P that lead to the largest `values` [S']:
    half of it more for the best successor, taken from the worst ones."""
    number = jnp.arange(len(values))
    # [S', S'] whether the first is worse than the second; a product with this is faster than sorting
    worse = (values[:, None] < values) | ((values[:, None] == values) & (number[:, None] < number))
    best = ~jnp.any(worse, axis=1)
    added = jnp.minimum(1 - jnp.sum(P * best, axis=2), slack / 2)[..., None]
    before = jnp.matmul(P, worse.astype(P.dtype), precision=jax.lax.Precision.HIGHEST)
    taken = jnp.clip(added - before, 0, P)  # what is worse goes first
    return jnp.where(best, P + added, P - taken)


def _best(R: jax.Array, P: jax.Array, horizon: int) -> jax.Array:
    """Q [H, S, A] of the best policy of an episode."""
    return _induction(lambda values, k, P: (action_values(P, R, values, 1.0), P), horizon, R, P)


def _induction(
    backup: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    horizon: int,
    R: jax.Array,
    P: jax.Array,
) -> jax.Array:
    """Q [H, S, A] from the last step backwards; `backup` takes the values [S] of what follows, the steps left and the
    transitions, and returns the step's Q [S, A] and the transitions for the step before."""

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
    """The posterior after the step from `obs`; where an episode begins, what follows that step is not its successor."""
    at = (obs, inp.prev_action)
    alpha = posterior.alpha.at[(*at, inp.obs)].add(jnp.where(begins, 0.0, 1.0))
    precision = posterior.precision.at[at].add(jnp.where(inp.first, 0.0, 1.0))
    error = jnp.where(inp.first, 0.0, inp.prev_reward - posterior.mean[at])
    return Posterior(alpha, posterior.mean.at[at].add(error / precision[at]), precision)


def _when_due(planner: Planner) -> Callable:
    """(due, old plan, setting, posterior, episode, key data) -> the old plan, or a new one where it is due.

    A vmapped `lax.cond` computes both branches. Worlds that run side by side begin their episodes together, so asking
    whether any plan is due spares the planning in all other steps.
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
