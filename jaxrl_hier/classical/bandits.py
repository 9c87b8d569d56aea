"""Classical strategies for Bernoulli bandits, the baselines of RL² (Duan et al., 2016, Table 1).

Each is an `Agent` without learning: its carry counts the successes s and failures f of every arm since the start of the
episode, and it pulls the arm with the largest index. The last two, for drifting arms (Wang et al., 2016), have other
carries. Rewards must be 0 or 1. `Agent.init` returns the strategy's setting as parameters, so that one compiled program
serves a whole grid of settings. Ties go to the arm with the lowest number; the argument `greedy` of `Agent.act` has no
effect.

    random                  uniform
    greedy                  m = (s + 1) / (s + f + 2)
    epsilon_greedy          m, or with probability ε a random arm
    ucb1                    m + c sqrt(2 ln t / (s + f + 2)), t pulls so far
    thompson                θ ~ Beta(s + 1, f + 1)
    optimistic_thompson     the θ of highest posterior density among several samples of all arms
    gittins                 the Gittins index of (s, f)
    finite_horizon_gittins  the undiscounted Gittins index for the remaining pulls
    bayes_optimal           the policy of `exact.bandits.two_arms`; two arms only
    rescorla_wagner         values v_a ← v_a + α (r − v_a), arms sampled by softmax of v / τ
    restless_optimal        the likelier of two dependent arms that drift

Means and UCB1's widths include one fictitious success and failure per arm, as in the paper. Optimistic Thompson
sampling follows the paper's published code: of several samples, each with a θ for every arm, it uses the most likely
one. The algorithm of that name by May et al. (2012), whose samples never fall below the mean, is a different one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_hier.checks import UsageError
from jaxrl_hier.classical.posteriors import log_gamma_quantiles, logit_beta
from jaxrl_hier.engine.types import ActInput, Agent, Params
from jaxrl_hier.exact.bandits import drift_matrix, finite_horizon_indices, gittins_indices, two_arms, two_arms_entry


class Counts(NamedTuple):
    """Outcomes of each arm so far."""

    successes: jax.Array  # [K]
    failures: jax.Array  # [K]

    @property
    def mean(self) -> jax.Array:
        """The posterior mean under a uniform prior, [K]."""
        return (self.successes + 1) / (self.successes + self.failures + 2)


Index = Callable[[Params, Counts, jax.Array], jax.Array]  # params, counts, key -> [K]


def random(arms: int) -> Agent:
    """Every arm with the same probability."""
    return _agent(arms, (), lambda params, counts, key: jax.random.uniform(key, (arms,)))


def greedy(arms: int) -> Agent:
    """The arm with the highest posterior mean."""
    return _agent(arms, (), lambda params, counts, key: counts.mean)


def epsilon_greedy(arms: int, epsilon: float = 0.1) -> Agent:
    """A random arm with probability `epsilon` (the parameter), else the greedy one."""
    _require(0 <= epsilon <= 1, f"epsilon must lie in [0, 1], got {epsilon}")

    def index(epsilon: jax.Array, counts: Counts, key: jax.Array) -> jax.Array:
        draws = jax.random.uniform(key, (arms + 1,))
        return jnp.where(draws[arms] < epsilon, draws[:arms], counts.mean)

    return _agent(arms, epsilon, index)


def ucb1(arms: int, c: float = 1.0) -> Agent:
    """UCB1 (Auer et al., 2002); `c`, the parameter, scales the confidence width, and is 1 in the original."""
    _require(c >= 0, f"c must be at least 0, got {c}")

    def index(c: jax.Array, counts: Counts, key: jax.Array) -> jax.Array:
        n = counts.successes + counts.failures
        return counts.mean + c * jnp.sqrt(2 * jnp.log(jnp.maximum(jnp.sum(n), 1)) / (n + 2))

    return _agent(arms, c, index)


def thompson(arms: int, pulls: int) -> Agent:
    """The best arm of one posterior sample; for episodes of up to `pulls` pulls."""
    table = log_gamma_quantiles(pulls + 1)
    return _agent(arms, (), lambda params, counts, key: logit_beta(key, *counts, table))


def optimistic_thompson(arms: int, pulls: int, samples: int = 5) -> Agent:
    """The best arm of the most likely of several posterior samples; `samples` is the parameter."""
    _require(samples >= 1, f"samples must be at least 1, got {samples}")
    table = log_gamma_quantiles(pulls + 1)

    def index(samples: jax.Array, counts: Counts, key: jax.Array) -> jax.Array:
        s, f = counts

        def one_more(i: jax.Array, best: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            logit = logit_beta(jax.random.fold_in(key, i), s, f, table)
            log_density = jnp.sum(s * jax.nn.log_sigmoid(logit) + f * jax.nn.log_sigmoid(-logit))
            better = log_density > best[0]
            return jnp.where(better, log_density, best[0]), jnp.where(better, logit, best[1])

        none = (jnp.array(-jnp.inf), jnp.zeros(arms))
        return jax.lax.fori_loop(0, samples, one_more, none)[1]

    return _agent(arms, jnp.int32(samples), index)


def gittins(arms: int, pulls: int, discount: float = 0.99) -> Agent:
    """The arm with the highest Gittins index for `discount`; for episodes of up to `pulls` pulls. Parameter: the
    indices, from `exact.bandits.gittins_indices`."""

    def index(indices: jax.Array, counts: Counts, key: jax.Array) -> jax.Array:
        return indices[counts.successes.astype(jnp.int32), counts.failures.astype(jnp.int32)]

    return _agent(arms, gittins_indices(pulls, discount), index)


def finite_horizon_gittins(arms: int, pulls: int) -> Agent:
    """The arm with the highest finite-horizon Gittins index, in an episode of `pulls` pulls. Parameter: the indices,
    from `exact.bandits.finite_horizon_indices`."""

    def index(indices: jax.Array, counts: Counts, key: jax.Array) -> jax.Array:
        s, f = (x.astype(jnp.int32) for x in counts)
        return indices[pulls - jnp.sum(s + f), s, f]

    return _agent(arms, finite_horizon_indices(pulls).astype("float32"), index)


def bayes_optimal(pulls: int) -> Agent:
    """The optimal policy for `pulls` pulls of two independent arms. Parameter: the policy, from `two_arms`."""

    def index(policy: jax.Array, counts: Counts, key: jax.Array) -> jax.Array:
        (s1, s2), (f1, f2) = (x.astype(jnp.int32) for x in counts)
        first = policy[two_arms_entry(s1 + s2 + f1 + f2, s1 + f1, s1, s2)]
        return jnp.stack([first, ~first])

    return _agent(2, two_arms(pulls)[1], index)


def rescorla_wagner(arms: int, learning_rate: float = 0.5, temperature: float = 0.1) -> Agent:
    """An exponential average of each arm's rewards, starting at ½, for drifting arms (Rescorla & Wagner, 1972).
    Parameters: learning rate α and temperature τ."""
    _require(arms >= 1, f"a bandit has at least one arm, not {arms}")
    _require(0 <= learning_rate <= 1, f"learning_rate must lie in [0, 1], got {learning_rate}")
    _require(temperature > 0, f"temperature must be positive, got {temperature}")

    def act(params: Params, v: jax.Array, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, jax.Array, Any]:
        pulled = jax.nn.one_hot(inp.prev_action, arms) * ~inp.first
        v = v + pulled * params[0] * (inp.prev_reward - v)
        return jax.random.categorical(key, v / params[1]).astype(jnp.int32), v, ()

    return Agent(
        init=lambda key: (jnp.float32(learning_rate), jnp.float32(temperature)),
        start=lambda params, key: jnp.full(arms, 0.5),
        act=act,
    )


def restless_optimal(volatilities: tuple[float, ...], grid: int = 201) -> Agent:
    """Bayes-optimal play of two dependent, drifting arms, with uniform priors over the initial p₁ and `volatilities`.

    The carry is the belief, a joint distribution over volatilities and the `grid` equal intervals of [0, 1] that p₁ may
    lie in. Both arms are equally informative about p₁, so exploration has no value and the likelier arm is optimal.
    Parameters: the matrices of `exact.bandits.drift_matrix`.
    """
    p = (jnp.arange(grid) + 0.5) / grid

    def act(params: Params, belief: jax.Array, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        favours_arm_0 = (inp.prev_action == 0) == (inp.prev_reward > 0)
        joint = belief * jnp.where(favours_arm_0, p, 1 - p)
        predicted = jnp.einsum("vp,vpq->vq", joint / jnp.sum(joint), params)
        belief = jnp.where(inp.first, belief, predicted)
        return (jnp.sum(belief * p) < 0.5).astype(jnp.int32), belief, ()

    return Agent(
        init=lambda key: jnp.stack([jnp.float32(drift_matrix(v, grid)) for v in volatilities]),
        start=lambda params, key: jnp.full((len(volatilities), grid), 1 / (len(volatilities) * grid)),
        act=act,
    )


def _agent(arms: int, setting: Params, index: Index) -> Agent:
    _require(arms >= 1, f"a bandit has at least one arm, not {arms}")

    def init(key: jax.Array) -> Params:
        return jax.tree.map(_array, setting)

    def start(params: Params, key: jax.Array) -> Counts:
        return Counts(jnp.zeros(arms), jnp.zeros(arms))

    def act(
        params: Params, counts: Counts, inp: ActInput, key: jax.Array, greedy: bool
    ) -> tuple[jax.Array, Counts, tuple[()]]:
        pulled = jax.nn.one_hot(inp.prev_action, arms) * ~inp.first
        paid = pulled * inp.prev_reward
        counts = Counts(counts.successes + paid, counts.failures + pulled - paid)
        return jnp.argmax(index(params, counts, key)).astype(jnp.int32), counts, ()

    return Agent(init=init, start=start, act=act)


def _array(x: jax.Array) -> jax.Array:
    """`x` as an array, float32 if it is real."""
    x = jnp.asarray(x)
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise UsageError(problem)
