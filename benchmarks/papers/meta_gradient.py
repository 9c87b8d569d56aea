"""Bias and variance of the estimators of MAML's gradient, against the exact one.

    python -m benchmarks.papers.meta_gradient            # a few minutes on two cores
    python -m benchmarks.papers.meta_gradient --scale smoke

Softmax tables on a bandit of ten arms, which pay with probability 1/11 … 10/11, and on a random process of 4 states, 3
actions and 6 steps, whose rewards are drawn with the probabilities R(s, a). The exact gradient of the meta-objective
J(θ + α ∇J(θ)) is that of `jaxrl_hier.exact.meta_gradient`; advantages are the returns less the exact values, so that
nothing but the estimator differs.

Two expectations are compared with it:

- "derivative of the step": (I + α Ĥ) ∇J(θ'), with the estimated Hessian Ĥ of N trajectories and the exact θ'. This is
  what the estimators differ in, and what it means that one is unbiased.
- "whole gradient": (I + α Ĥ) ∇Ĵ(θ + α ĝ), everything from samples, N before and N after adaptation, as an algorithm
  has it. The noise of ĝ adds a bias of order α² / N to every estimator, which no Hessian can remove: what N samples
  train is E J(θ + α ĝ). E-MAML is unbiased for that, and is here with its sum over all trajectories.

On the bandit every trajectory is one step, where low variance curvature is DiCE.

Everything is relative to the norm of the exact gradient. The bias is the mean error along its own direction, which one
half of the batches gives and the other is measured on; z is that in standard errors. The standard deviation is that of
one estimate, √(tr Cov).
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_hier.exact.meta_gradient import Process, adapted, bandit, expected_return, meta_gradient, state_values
from jaxrl_hier.learning.distributions import Categorical
from jaxrl_hier.meta.estimators import ESTIMATORS, PolicyBatch, inner_loss, naive
from jaxrl_hier.meta.inner import gradient_step
from jaxrl_hier.meta.outer import exploration_loss, surrogate_loss
from jaxrl_hier.reports.statistics import mean_of_moments

METHODS = ("first order", *ESTIMATORS, "E-MAML")
RATES = (0.5, 1.0, 2.0, 4.0)
BATCHES = (5, 20, 80)
COLORS = dict(zip(METHODS, ("0.6", "0.2", "#e8710a", "#1f6fb4", "#2a9d5c", "#a33a8e")))


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: seconds, to see that it runs"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


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


PROBLEMS = {
    "bandit of 10": Problem(bandit(jnp.arange(1, 11) / 11), jnp.zeros((1, 10)), 1),
    "process of 4 states": random_process(),
}
KINDS = ("derivative of the step", "whole gradient")


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


def measure(name: str, method: str, alpha: float, n: int, count: int) -> list[dict[str, Any]]:
    """A row for each kind, from `count` batches in two halves."""
    process, theta, horizon = PROBLEMS[name]
    size = float(jnp.linalg.norm(meta_gradient(theta, process, alpha, horizon)))
    half = functools.partial(moments, process, theta, alpha, horizon=horizon, method=method, n=n, count=count // 2)
    (first, spread), (second, other_spread) = (jax.device_get(half(jax.random.key(seed))) for seed in (0, 1))
    rows = []
    for k, kind in enumerate(KINDS):
        if k == 0 and method == "E-MAML":
            continue  # it changes what the samples are credited with, not the derivative of the step
        # the first half says where the error points, the second how far it goes there
        direction = first[k] / np.linalg.norm(first[k])
        covariance = (spread[k] + other_spread[k]) / 2
        along, variance = float(direction @ second[k]), max(float(direction @ covariance @ direction), 0.0)
        error = math.sqrt(variance / (count // 2))
        noisy = error > 1e-6 * abs(along)  # the first-order derivative of the step is a constant
        rows.append(
            {
                "problem": name,
                "kind": kind,
                "method": method,
                "alpha": alpha,
                "trajectories": n,
                "bias": along / size,
                "interval": mean_of_moments(
                    along / size, error / size * (count // 2) ** 0.5, count // 2, "batches"
                ).interval,
                "z": along / error if noisy else None,
                "std": math.sqrt(max(float(np.trace(covariance)), 0.0)) / size,
                "batches": count,
            }
        )
    return rows


def main(arguments: Arguments) -> None:
    trajectories = 40_000 if arguments.scale == "smoke" else 2_000_000  # for each estimate of a bias
    table = []
    for name in PROBLEMS:
        for method in METHODS:
            for n in BATCHES:
                for alpha in RATES:
                    table += measure(name, method, alpha, n, max(trajectories // n // 2000 * 2000, 2000))
            shown = [row for row in table if (row["problem"], row["method"]) == (name, method) and row["alpha"] == 2.0]
            for row in shown:
                print(
                    f"{name:<22}{row['kind']:<24}{method:<14}N = {row['trajectories']:<4}"
                    f"bias {row['bias']:8.5f}  z {row['z'] or math.inf:8.1f}  std {row['std']:.3f}",
                    flush=True,
                )
    rows = statements(table)
    path = write_paper(
        "meta_gradient",
        "Foerster et al., DiCE, 2018; Farquhar et al., Loaded DiCE, 2019; Rothfuss et al., ProMP, 2019; Stadie et al., "
        "E-MAML, 2018",
        "bias and variance of the meta-gradient, which no paper tabulates",
        rows,
        arguments.scale,
        arguments.out,
        table=table,
    )
    picture(table, path.with_suffix(".png"))
    show(rows)
    print(path)


def statements(table: list[dict[str, Any]]) -> list[Row]:
    """What theory says of the derivative of the step, at α = 2 and N = 20, as rows with verdicts."""

    def find(problem: str, method: str) -> dict[str, Any]:
        key = (problem, method, KINDS[0], 2.0, 20)
        return next(r for r in table if (r["problem"], r["method"], r["kind"], r["alpha"], r["trajectories"]) == key)

    rows = []
    for problem in PROBLEMS:
        for method in METHODS[:-1]:
            found = find(problem, method)
            unbiased = method in ("dice", "loaded-dice") or (method == "lvc" and problem == "bandit of 10")
            row = Row.computed(f"{problem}, {method}: relative bias", found["bias"], interval=found["interval"])
            row.seeds, row.unit = found["batches"] // 2, "batches"
            row.method = f"Student's t over {row.seeds:,} batches, along a direction that as many others gave"
            z = math.inf if found["z"] is None else found["z"]
            row.note = f"z = {z:.1f}, theory: {'unbiased' if unbiased else 'biased'}"
            if unbiased:
                row.exact, row.verdict = 0.0, "reached" if abs(z) < 4 else "short"
            else:
                row.verdict = "reached" if z > 5 else "short"
            rows.append(row)
    between = [find("process of 4 states", method)["bias"] for method in ("dice", "lvc", "naive")]
    holds = abs(between[0]) < between[1] < between[2]
    row = Row.computed("process of 4 states: bias of LVC between DiCE's and the naive one", between[1])
    row.verdict, row.note = "reached" if holds else "short", f"the other two: {between[0]:.3f} and {between[2]:.3f}"
    row.method = "no interval: an order of three numbers"
    return [*rows, row]


def picture(table: list[dict[str, Any]], path: Path) -> None:
    """A row for each problem: bias of the derivative of the step by α, bias of the whole gradient by N, and its
    standard deviation by N. Bars: 95 %; a bias that is not told apart from zero has a bar down to the axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE

    panels: dict[str, tuple[str, str, str, dict[str, Any]]] = {  # title -> kind, x, y, what is fixed
        "bias, derivative of the step, N = 20": (KINDS[0], "alpha", "bias", {"trajectories": 20}),
        "bias, whole gradient, α = 2": (KINDS[1], "trajectories", "bias", {"alpha": 2.0}),
        "standard deviation, whole gradient, α = 2": (KINDS[1], "trajectories", "std", {"alpha": 2.0}),
    }
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(PROBLEMS), len(panels), figsize=(13, 7.4), squeeze=False)
        for line, problem in zip(axes, PROBLEMS):
            for ax, (title, (kind, x, y, fixed)) in zip(line, panels.items()):
                for i, method in enumerate(METHODS):
                    wanted = {"problem": problem, "kind": kind, "method": method} | fixed
                    chosen = [row for row in table if all(row[k] == v for k, v in wanted.items())]
                    if not chosen:
                        continue
                    places = np.array([row[x] for row in chosen]) * 1.04 ** (i - 2.5)
                    values = np.array([row[y] for row in chosen])
                    style: dict[str, Any] = {"color": COLORS[method], "label": method, "ms": 4, "lw": 1.4}
                    if y == "std":
                        ax.plot(places, values, "o-", **style)
                    else:
                        low, values, high = np.maximum([np.insert(row["interval"], 1, row[y]) for row in chosen], 0).T
                        ax.errorbar(places, values, [values - low, high - values], fmt="o-", capsize=3, **style)
                ax.set_xscale("log")
                ax.set_xticks(RATES if x == "alpha" else BATCHES)
                ax.xaxis.set_major_formatter("{x:g}")
                ax.minorticks_off()
                if y == "std":
                    ax.set_yscale("log")
                else:
                    ax.set_yscale("symlog", linthresh=1e-3)
                    ax.set_ylim(0, 1)
                ax.set(title=f"{problem}\n{title}", xlabel="inner rate α" if x == "alpha" else "trajectories N")
            line[0].set_ylabel("relative to the exact gradient")
        handles = axes[0, 2].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=len(METHODS))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
