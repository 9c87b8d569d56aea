"""Bias and variance of the estimators of MAML's gradient, against the exact one.

Softmax tables on a bandit of ten arms, which pay with probability 1/11 … 10/11, and on a random process of 4 states, 3
actions and 6 steps, whose rewards are drawn with the probabilities R(s, a). The exact gradient of the meta-objective
J(θ + α ∇J(θ)) is that of `jaxrl_hier.exact.meta_gradient`; advantages are the returns less the exact values, so that
nothing but the estimator differs.

Two expectations are compared with it:

- "derivative of the step": (I + α Ĥ) ∇J(θ'), with the estimated Hessian Ĥ of N trajectories and the exact θ'. The
  estimators differ in this alone; one is called unbiased if its expectation of this is exact.
- "whole gradient": (I + α Ĥ) ∇Ĵ(θ + α ĝ), everything from samples, N before and N after adaptation, as an algorithm
  has it. The noise of ĝ adds a bias of order α² / N to every estimator, which no Hessian can remove: what N samples
  train is E J(θ + α ĝ). E-MAML is unbiased for that, and is here with its sum over all trajectories.

On the bandit every trajectory is one step, where low variance curvature is DiCE.

All numbers are relative to the norm of the exact gradient. One half of the batches gives the direction of the mean
error; the bias is the mean error of the other half along it, and z is the bias in standard errors. The standard
deviation is that of one estimate, √(tr Cov).
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_hier.exact.meta_gradient import Process, adapted, bandit, expected_return, meta_gradient, state_values
from jaxrl_hier.learning.distributions import Categorical
from jaxrl_hier.meta.estimators import ESTIMATORS, PolicyBatch, inner_loss, naive
from jaxrl_hier.meta.inner import gradient_step
from jaxrl_hier.meta.outer import exploration_loss, surrogate_loss

from ..drawing import colour, legend_below, subplots
from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row

RATES = (0.5, 1.0, 2.0, 4.0)
BATCHES = (5, 20, 80)
METHODS = {  # of rows -> in words, the colour's name, the marker
    "first order": ("first order", "FOMAML", "o"),
    "naive": ("naive, as in MAML", "MAML", "s"),
    "lvc": ("low variance curvature", "LVC", "^"),
    "dice": ("DiCE", "DiCE", "D"),
    "loaded-dice": ("loaded DiCE", "loaded DiCE", "v"),
    "E-MAML": ("E-MAML", "E-MAML", "P"),
}


class Problem(NamedTuple):
    """A process, where θ is, and how long an episode is."""

    process: Process
    theta: jax.Array  # [S, A]
    horizon: int


class Table:
    """Softmax tables as a policy network: apply(θ [S, A], states) -> Categorical."""

    @staticmethod
    def apply(theta: jax.Array, states: jax.Array) -> Categorical:
        return Categorical(theta[states])


def random_process() -> Problem:
    """4 states, 3 actions, 6 steps from the first state on."""
    rng = np.random.default_rng(0)
    process = Process(
        P=jnp.asarray(rng.dirichlet(0.5 * np.ones(4), (4, 3)), jnp.float32),
        R=jnp.asarray(rng.uniform(size=(4, 3)), jnp.float32),
        start=jnp.array([1.0, 0.0, 0.0, 0.0]),
    )
    return Problem(process, jnp.asarray(0.5 * rng.normal(size=(4, 3)), jnp.float32), 6)


def bandit_of_10() -> Problem:
    """The policy draws the arms uniformly."""
    return Problem(bandit(jnp.arange(1, 11) / 11), jnp.zeros((1, 10)), 1)


PROBLEMS = {"bandit of 10": bandit_of_10, "process of 4 states": random_process}
TRAJECTORIES = 2_000_000  # for each estimate of a bias


def parts(scale: Scale) -> dict[str, Computation]:
    smoke = scale == "smoke"
    sizes: dict[str, Any] = {"rates": (2.0,), "batches": (20,), "trajectories": 40_000}
    sizes = sizes if smoke else {"rates": RATES, "batches": BATCHES, "trajectories": TRAJECTORIES}
    chosen = [("bandit of 10", "naive"), ("bandit of 10", "dice")]
    chosen = chosen if smoke else [(problem, method) for problem in PROBLEMS for method in METHODS]
    return {
        f"{problem}, {method}": Computation(measure, sizes | {"problem": problem, "method": method}, seeds=0)
        for problem, method in chosen
    }


def collect(problem: Problem, theta: jax.Array, key: jax.Array, n: int) -> PolicyBatch:
    """n episodes of π_θ; weights of 1 / n, so that a loss is the mean over episodes of the sum over steps."""
    process, _, horizon = problem
    key_start, key_steps = jax.random.split(key)
    logits = jnp.log(process.P)

    def step(state: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        key_action, key_reward, key_move = jax.random.split(key, 3)
        action = jax.random.categorical(key_action, theta[state])
        reward = (jax.random.uniform(key_reward, (n,)) < process.R[state, action]).astype(theta.dtype)
        return jax.random.categorical(key_move, logits[state, action]), (state, action, reward)

    first = jax.random.categorical(key_start, jnp.log(process.start), shape=(n,))
    _, (states, actions, rewards) = jax.lax.scan(step, first, jax.random.split(key_steps, horizon))
    baseline = jnp.take_along_axis(state_values(theta, process, horizon), states, axis=1)
    distribution = Table.apply(theta, states)
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    return PolicyBatch(
        obs=flat(states),
        action=flat(actions),
        acted=jax.tree.map(flat, distribution),
        log_prob=flat(distribution.log_prob(actions)),
        advantage=flat(jnp.cumsum(rewards[::-1], axis=0)[::-1] - baseline),
        weight=jnp.full(n * horizon, 1 / n),
        reward=rewards,
        discount=jnp.ones((horizon, n)).at[-1].set(0.0),
        ended=jnp.zeros((horizon, n)).at[-1].set(1.0),
        episode_return=jnp.mean(jnp.sum(rewards, axis=0)),
        completed_return=jnp.mean(jnp.sum(rewards, axis=0)),
        complete=jnp.ones(()),
        path=first,
    )


def estimates(problem: Problem, method: str, alpha: float, n: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One estimate of the derivative of the step and one of the whole gradient, both [S · A]."""
    theta = problem.theta
    key_inner, key_outer = jax.random.split(key)
    inner = jax.lax.stop_gradient(collect(problem, theta, key_inner, n))
    estimator = ESTIMATORS.get(method, naive)
    step = lambda theta: gradient_step(
        functools.partial(inner_loss, Table, estimator), theta, inner, alpha, first_order=method == "first order"
    )
    exact_slope = jax.grad(expected_return)(
        adapted(theta, problem.process, alpha, problem.horizon), problem.process, problem.horizon
    )
    theta_new, pull_back = jax.vjp(step, theta)
    outer = collect(problem, theta_new, key_outer, n)
    old = Table.apply(theta_new, outer.obs)
    slope = jax.grad(lambda new: -surrogate_loss(old, Table.apply(new, outer.obs), outer))(theta_new)
    whole = pull_back(slope)[0]
    if method == "E-MAML":
        # credited with the return after adaptation, less what an unadapted policy expects: any constant is unbiased
        credit = outer.episode_return - expected_return(theta, problem.process, problem.horizon)
        everything = inner._replace(weight=jnp.ones_like(inner.weight))
        whole += jax.grad(lambda theta: -exploration_loss(Table.apply(theta, inner.obs), everything, credit))(theta)
    return pull_back(exact_slope)[0].ravel(), whole.ravel()


@functools.partial(jax.jit, static_argnames=("horizon", "method", "n", "count"))
def moments(
    process: Process, theta: jax.Array, alpha: float, key: jax.Array, *, horizon: int, method: str, n: int, count: int
) -> tuple[jax.Array, jax.Array]:
    """Mean [2, D] and covariance [2, D, D] of the errors of the two estimates over `count` batches."""
    problem = Problem(process, theta, horizon)
    one = lambda key: jnp.stack(estimates(problem, method, alpha, n, key))
    exact = meta_gradient(theta, process, alpha, horizon).ravel()
    chunk = 1000

    def part(total: Any, key: jax.Array) -> tuple[Any, None]:
        x = jax.vmap(one)(jax.random.split(key, chunk)) - exact  # [chunk, 2, D]
        return jax.tree.map(jnp.add, total, (x.sum(0), jnp.einsum("nki,nkj->kij", x, x))), None

    zeros = (jnp.zeros((2, exact.size)), jnp.zeros((2, exact.size, exact.size)))
    (total, squares), _ = jax.lax.scan(part, zeros, jax.random.split(key, count // chunk))
    mean = total / count
    return mean, squares / count - mean[:, :, None] * mean[:, None, :]


def measure(
    problem: str, method: str, rates: tuple[float, ...], batches: tuple[int, ...], trajectories: int
) -> dict[str, np.ndarray]:
    """Bias, its standard error, and standard deviation of one estimate, relative to the norm of the exact gradient:
    [kinds, N, α]. NaN where a method does not change the derivative of the step.

    batches: numbers of trajectories N of an estimate; of all trajectories half say where the error points, and the
    others how far it goes there.
    """
    process, theta, horizon = PROBLEMS[problem]()
    table = np.full((3, 2, len(batches), len(rates)), np.nan)
    counts = [max(trajectories // n // 2000 * 2000, 2000) for n in batches]
    for i, (n, count) in enumerate(zip(batches, counts)):
        for j, alpha in enumerate(rates):
            half = functools.partial(
                moments, process, theta, alpha, horizon=horizon, method=method, n=n, count=count // 2
            )
            (first, spread), (second, other) = (jax.device_get(half(jax.random.key(seed))) for seed in (0, 1))
            size = float(jnp.linalg.norm(meta_gradient(theta, process, alpha, horizon)))
            for k in range(2) if method != "E-MAML" else (1,):  # which changes what the samples are credited with
                direction, covariance = first[k] / np.linalg.norm(first[k]), (spread[k] + other[k]) / 2
                variance = max(float(direction @ covariance @ direction), 0.0)
                error, deviation = math.sqrt(variance / (count // 2)), math.sqrt(max(float(np.trace(covariance)), 0.0))
                table[:, k, i, j] = np.array([float(direction @ second[k]), error, deviation]) / size
    return {
        "bias": table[0], "error": table[1], "deviation": table[2], "batches": np.array(counts),
        "N": np.array(batches), "α": np.array(rates),
    }  # fmt: skip


# Rows


def rows(found: Found) -> list[Row]:
    """What theory says of the derivative of the step, at α = 2 and N = 20, as rows with verdicts."""
    made = []
    for problem in PROBLEMS:
        for method in METHODS:
            if method != "E-MAML" and f"{problem}, {method}" in found:
                made.append(bias_row(problem, method, found[f"{problem}, {method}"]))
    compared = [f"process of 4 states, {method}" for method in ("dice", "lvc", "naive")]
    if all(name in found for name in compared):
        made.append(order_row([float(found[name]["bias"][at(found[name])]) for name in compared]))
    return made


def at(measured: Measured, alpha: float = 2.0, n: int = 20) -> tuple[int, int, int]:
    """Where the derivative of the step is in its arrays."""
    return 0, list(measured["N"]).index(n), list(measured["α"]).index(alpha)


def bias_row(problem: str, method: str, measured: Measured) -> Row:
    where = at(measured)
    bias, error = float(measured["bias"][where]), float(measured["error"][where])
    half = int(measured["batches"][where[1]]) // 2  # the rest gave the direction
    row = Row.summarised(f"{problem}, {method}: relative bias", bias, error * half**0.5, half, "batches")
    # the first-order derivative of the step is a constant up to rounding
    z = bias / error if error > 1e-4 * abs(bias) else math.inf
    unbiased = method in ("dice", "loaded-dice") or (method == "lvc" and problem == "bandit of 10")
    theory = "unbiased" if unbiased else "biased"
    row.note = f"z = {z:.1f}, theory: {theory}; along a direction that as many other batches gave"
    if unbiased:
        row.exact, row.verdict = 0.0, "reached" if abs(z) < 4 else "short"
    else:
        row.verdict = "reached" if z > 5 else "short"
    return row


def order_row(biases: list[float]) -> Row:
    dice, lvc, plain = biases
    row = Row.computed("process of 4 states: bias of LVC between DiCE's and the naive one", lvc)
    row.verdict = "reached" if abs(dice) < lvc < plain else "short"
    row.note, row.method = f"the other two: {dice:.3f} and {plain:.3f}", "no interval: an order of three numbers"
    return row


# Picture


def draw(found: Found) -> dict[str, Any]:
    """A row for each problem: bias of the derivative of the step by α, bias of the whole gradient by N, and its
    standard deviation by N. Bars: 95 %; a bias that is not told apart from zero has a bar down to the axis."""
    panels = {  # title -> kind, what is on the horizontal axis, the array
        "bias, derivative of the step, N = 20": (0, "α", "bias"),
        "bias, whole gradient, α = 2": (1, "N", "bias"),
        "standard deviation, whole gradient, α = 2": (1, "N", "deviation"),
    }
    figure, axes = subplots(len(PROBLEMS), len(panels), width=4.4, height=3.8)
    for line, problem in zip(axes, PROBLEMS):
        for ax, (title, (kind, x, y)) in zip(line, panels.items()):
            for i, method in enumerate(METHODS):
                if measured := found.get(f"{problem}, {method}"):
                    one_line(ax, measured, kind, x, y, method, 1.04 ** (i - 2.5))
            ax.set_xscale("log")
            ax.set_xticks(RATES if x == "α" else BATCHES)
            ax.xaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
            if y == "deviation":
                ax.set_yscale("log")
            else:
                ax.set_yscale("symlog", linthresh=1e-3)
                ax.set_ylim(0, 1)
            ax.set(title=f"{problem}\n{title}", xlabel="inner rate α" if x == "α" else "trajectories N")
        line[0].set_ylabel("relative to the exact gradient")
    legend_below(figure, axes, len(METHODS))
    return {"": figure}


def one_line(ax: Any, measured: Measured, kind: int, x: str, y: str, method: str, shift: float) -> None:
    """One method in one panel, moved aside by a factor."""
    _, n, alpha = at(measured)
    chosen = (kind, n, slice(None)) if x == "α" else (kind, slice(None), alpha)
    words, color, marker = METHODS[method]
    style: dict[str, Any] = {"color": colour(color), "label": words, "marker": marker, "ms": 5, "lw": 1.4}
    values, places = measured[y][chosen], measured[x] * shift
    if y == "deviation":
        ax.plot(places, values, **style)
    elif np.isfinite(values).all():
        half = 1.96 * measured["error"][chosen]
        low, values, high = np.maximum([values - half, values, values + half], 0)
        ax.errorbar(places, values, [values - low, high - values], ls="", capsize=3, **style)


FIGURE = Figure(
    name="meta_gradient",
    paper="Foerster et al., DiCE, 2018; Farquhar et al., Loaded DiCE, 2019; Rothfuss et al., ProMP, 2019; Stadie et "
    "al., E-MAML, 2018",
    shows="bias and variance of the meta-gradient, which no paper tabulates",
    parts=parts,
    rows=rows,
    draw=draw,
)
