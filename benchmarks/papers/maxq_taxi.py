"""MAXQ on fickle Taxi: Dietterich (JAIR 13, 2000), the comparison of flat Q-learning, MAXQ-Q without and with state
abstraction, and with abstraction and hierarchical greedy (polled) execution.

    python -m benchmarks.papers.maxq_taxi                  # some minutes on two cores
    python -m benchmarks.papers.maxq_taxi --scale smoke    # a minute, most of it compiling

The author's rules: moves go astray with probability .2, and the passenger may change his mind on his site (see
`jaxrl_envs.taxi`). 100 runs each with the paper's settings: initial values .123, Boltzmann exploration from T = 50, a
temperature for each subtask that cools whenever it ends in its goal; α = .25, without abstraction .5. Polled: control
goes back to the root after L steps; L is 500 at first and one less after each successful trial.

Measured is the mean reward of greedy trials without learning. A trial is cut after 100 steps: a greedy policy that has
not tried to pick up in some far state may think that best there (an illegal pick up costs 11, which is about what
Navigate costs from there) and, as it does not learn, repeat it for ever. Such a trial counts −1100. A few of them among
thousands are most of the mean's noise late in learning, so that the curves are interquartile means over the runs, and
the means are drawn thin.

The paper prints no numbers for the figure. The optima are exact (`jaxrl_hier.exact.hierarchy`): flat 5.603, for who
knows where the passenger got in; recursively optimal 3.514, what MAXQ-Q converges to; its polled execution 5.565. A
constant α keeps the values moving in a noisy task, and once exploration is over the values of what is not chosen stay
as they are: the policies end a little below their optimum. To see that it is that, the runs go on from their end with a
smaller α and some exploration again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy.stats import trim_mean

from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_envs.random_bits import uniforms
from jaxrl_envs.tasks import single
from jaxrl_envs.taxi import IN_TAXI, SITES, Taxi, decode, encode
from jaxrl_hier.abstractions.task_graph import TaskGraph
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.loops import begin_worlds, online
from jaxrl_hier.engine.rollout import first_episode, play_episodes
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk
from jaxrl_hier.engine.types import ActInput, Agent, Algorithm, Metrics, TrainState, Transition, World
from jaxrl_hier.exact import hierarchy, tabular
from jaxrl_hier.hierarchical import maxq
from jaxrl_hier.hierarchical.graphs import taxi_graph
from jaxrl_hier.learning.tables import boltzmann
from jaxrl_hier.reports.statistics import interquartile_mean, mean

FLAT, PLAIN, ABSTRACT, POLLED = "flat Q", "MAXQ-Q, no abstraction", "MAXQ-Q, abstraction", "MAXQ-Q, polled"
COLORS = {FLAT: "0.35", PLAIN: "#e8a010", ABSTRACT: "#1f6fb4", POLLED: "#c6306e"}
CUT = 100  # steps of a greedy trial
PER_CALL = 500  # steps of a run in one call of `step`


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: to see that it runs"""
    runs: int = 100
    """independent runs of each learner"""
    steps: int = 300_000
    """primitive steps of each run"""
    trials: int = 20
    """greedy trials of each run at each point of a curve"""
    final_trials: int = 500
    """the same at the end"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the pictures"""


# Flat Q-learning with a temperature that cools


class Flat(NamedTuple):
    q: jax.Array  # [S, A]
    temperature: jax.Array  # []


def flat_q(env: Any, alpha: float = 0.25, cooling: float = 0.9879) -> Algorithm:
    """One-step Q-learning, γ = 1, as the figure's: Boltzmann exploration, cooled with each successful trial."""
    tasks = single(env.default_params)

    def init_params(key: jax.Array) -> Flat:
        return Flat(jnp.full((env.num_observations, env.num_actions), 0.123), jnp.array(50.0))

    def act(params: Flat, carry: Any, inp: ActInput, key: jax.Array, greedy: bool) -> tuple[Any, Any, Any]:
        q = params.q[inp.obs]
        temperature = jnp.maximum(params.temperature, maxq.COLD)
        return jnp.argmax(q) if greedy else boltzmann(uniforms(key, 1)[0], q, temperature), carry, ()

    def update(params: Flat, learner: Any, before: World, t: Transition, key: jax.Array) -> tuple[Flat, Any, Metrics]:
        s, a, r, following, terminated = (x[0, 0] for x in (t.obs, t.action, t.reward, t.next_obs, t.terminated))
        error = r + jnp.where(terminated, 0.0, jnp.max(params.q[following])) - params.q[s, a]
        temperature = params.temperature * jnp.where(terminated, cooling, 1.0)
        return Flat(params.q.at[s, a].add(alpha * error), temperature), learner, {}

    agent = Agent(init=init_params, start=lambda params, key: (), act=act)
    one = online(env, agent, tasks, update, length=1)

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(lambda state, _: one(state), state, length=PER_CALL)[0], {}

    def init(key: jax.Array) -> TrainState:
        key, key_world = jax.random.split(key)
        params = init_params(key)
        world = begin_worlds(env, agent, tasks, params, key_world, 1)
        return TrainState(params, (), world, (), key, jnp.zeros((), jnp.int32))

    return Algorithm(init, step, lambda state, key: {}, agent, PER_CALL)


# Learning


@dataclass
class Learned:
    steps: np.ndarray  # [points]
    returns: np.ndarray  # [runs, points, trials]
    cut: np.ndarray  # [points] share of trials that were cut
    state: TrainState
    seconds: float
    compile_seconds: float
    final: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # returns and cut [runs, trials]


def learn(env: Any, algorithm: Algorithm, arguments: Arguments) -> Learned:
    # closer together at first
    calls = arguments.steps // PER_CALL
    at = np.unique(np.concatenate([np.arange(0, min(40, calls), 5), np.arange(min(40, calls), calls + 1, 10)]))
    begun = time.perf_counter()
    state = init_seeds(algorithm, RunConfig(seeds=arguments.runs))

    @partial(jax.jit, donate_argnums=0)
    def advance(state: TrainState, calls: jax.Array) -> TrainState:
        return jax.lax.fori_loop(0, calls, lambda _, state: jax.vmap(algorithm.step)(state)[0], state)

    program = advance.lower(state, jnp.int32(0)).compile()
    play = greedy_trials(env, algorithm.agent, arguments.trials)
    jax.block_until_ready(play(state.params, jax.random.key(0)))
    compiled = time.perf_counter()
    returns, cut = [], []
    for i, count in enumerate(np.diff(at, prepend=0)):
        state = program(state, jnp.int32(count))
        earned, ended = jax.device_get(play(state.params, jax.random.key(i)))
        returns.append(earned)
        cut.append(1 - ended.mean())
    seconds = time.perf_counter() - compiled
    return Learned(at * PER_CALL, np.stack(returns, 1), np.array(cut), state, seconds, compiled - begun)


def greedy_trials(env: Any, agent: Agent, trials: int) -> Callable[..., Any]:
    """params [runs, ...], key -> rewards and whether they ended by themselves, [runs, trials]."""

    @jax.jit
    def play(params: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        def one(params: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            seen = play_episodes(env, agent, env.default_params, params, key, episodes=trials, horizon=CUT, greedy=True)
            mask = first_episode(seen)
            return jnp.sum(seen.reward * mask, axis=0), jnp.any(seen.terminated & (mask > 0), axis=0)

        runs = jax.tree.leaves(params)[0].shape[0]
        return jax.vmap(one)(params, jax.random.split(key, runs))

    return play


def settings(label: str) -> maxq.Config:
    config = maxq.Config(rollout_length=PER_CALL)
    if label == PLAIN:
        return replace(config, state_abstraction=False, step_size=0.5)
    return replace(config, polling_interval_decrease=1.0) if label == POLLED else config


def main(arguments: Arguments) -> None:
    if arguments.scale == "smoke":
        arguments = replace(arguments, runs=4, steps=20_000, trials=4, final_trials=20)
    begun = time.perf_counter()
    env = Taxi(noise=True, fickle=True)
    tasks = single(env.default_params)
    exact = exact_optima(env)
    learned = {}
    for label in COLORS:
        algorithm = flat_q(env) if label == FLAT else maxq.make(settings(label), env, tasks)
        result = learned[label] = learn(env, algorithm, arguments)
        play = greedy_trials(env, algorithm.agent, arguments.final_trials)
        result.final["constant α"] = jax.device_get(play(result.state.params, jax.random.key(1000)))
        if label in (ABSTRACT, POLLED):
            result.final["then smaller α, exploring"] = jax.device_get(
                play(anneal(env, label, result.state, arguments).params, jax.random.key(1001))
            )
        print(f"{label}: {result.seconds:.0f} s, compiled in {result.compile_seconds:.0f} s", flush=True)
    wall = time.perf_counter() - begun

    rows = final_rows(learned, exact) + order_rows(learned) + size_rows(env)
    picture(learned, exact, arguments.out / "maxq_taxi.png")
    hierarchy_rows = hierarchy_picture(arguments, arguments.out / "maxq_taxi_hierarchy.png")
    path = write_paper(
        "maxq_taxi",
        "Dietterich, Hierarchical reinforcement learning with the MAXQ value function decomposition, JAIR 13, 2000",
        "the comparison of four learners on fickle Taxi; the value function's decomposition",
        rows + hierarchy_rows,
        arguments.scale,
        arguments.out,
        runs=arguments.runs,
        steps=arguments.steps,
        wall_seconds=wall,
        compile_seconds=sum(result.compile_seconds for result in learned.values()),
        seconds={label: result.seconds for label, result in learned.items()},
        seeds=f"0 to {arguments.runs - 1}",
        curves={
            label: {
                "steps": [int(s) for s in result.steps],
                "interquartile_mean": [float(x) for x in middle(result.returns.mean(2))],
                "mean": [float(x) for x in result.returns.mean((0, 2))],
                "cut": [float(x) for x in result.cut],
            }
            for label, result in learned.items()
        },
    )
    show(rows + hierarchy_rows)
    print(path)


def anneal(env: Any, label: str, state: TrainState, arguments: Arguments) -> TrainState:
    """The runs go on for half as many steps again, α at 1/5 and then at 1/25 of what it was, T = 1/2 throughout."""
    config, graph = settings(label), taxi_graph(env)
    warm = graph._replace(cooling=np.ones_like(graph.cooling))
    temperature = jnp.full_like(state.params.temperature, 0.5)
    state = replace(state, params=state.params._replace(temperature=temperature))
    for divisor in (5, 25):
        algorithm = maxq.make(
            replace(config, step_size=config.step_size / divisor), env, single(env.default_params), warm
        )
        chunk = jit(make_chunk(algorithm, max(1, arguments.steps // PER_CALL // 4)))
        state, _, _ = chunk(state)
    return state


def exact_optima(env: Taxi) -> dict[str, float]:
    P, R = env.model(env.default_params)
    start, seen, graph = env.start_distribution(env.default_params), env.observation_of_state, taxi_graph(env)
    solved = hierarchy.recursively_optimal(P, R, graph, observed=seen)
    going_on = jnp.where(tabular.absorbing(P), 0.0, P)
    update = lambda values: jnp.max(tabular.action_values(going_on, R, values, 1.0), axis=1)
    flat = jax.lax.fori_loop(0, 500, lambda _, values: update(values), jnp.zeros(len(P)))
    values = {
        "flat": flat,
        "committed": solved.value[-1],
        "hierarchical": hierarchy.hierarchically_optimal(P, R, graph, observed=seen),
        "polled": hierarchy.polled_values(P, R, graph, solved.choice, observed=seen),
    }
    return {name: float(start @ value) for name, value in values.items()}


# Rows


def middle(values: np.ndarray) -> np.ndarray:
    """Interquartile mean over the runs, of [runs, points]."""
    return trim_mean(values, 0.25, axis=0)


def final_rows(learned: dict[str, Learned], exact: dict[str, float]) -> list[Row]:
    targets = {FLAT: "flat", PLAIN: "committed", ABSTRACT: "committed", POLLED: "polled"}
    rows = []
    for label, result in learned.items():
        for phase, (returns, ended) in result.final.items():
            whole = np.array([r[e].mean() if e.any() else np.nan for r, e in zip(returns, ended)])
            whole = whole[np.isfinite(whole)]
            target = exact[targets[label]]
            every = mean(returns.mean(1), "runs")
            error = whole.std(ddof=1) / np.sqrt(len(whole))
            row = Row.measured(f"{label}, {phase}: greedy reward at the end", whole, exact=target, unit="runs")
            row.note = (
                f"mean of the greedy trials that end within {CUT} steps; {1 - ended.mean():.4%} do not, and with them, "
                f"at −1 or −11 a step, it is {every.value:.3f} {every.bracket('.3f')}. "
                f"{(whole.mean() - target) / error:+.1f} standard errors from the exact optimum"
            )
            rows.append(row.judged())
    return rows + [
        Row.computed(f"exact: {name}", value, exact=reference, tolerance=2e-4).judged()
        for (name, value), reference in zip(exact.items(), (5.603, 3.514, None, 5.565))
    ]


def order_rows(learned: dict[str, Learned]) -> list[Row]:
    """What the paper says of the figure."""
    # steps until a run's greedy reward, averaged over three points, first comes within 1 of its median at the end
    needed = {}
    for label, result in learned.items():
        curve = result.returns.mean(2)
        smooth = np.stack([np.convolve(row, np.ones(3) / 3, "same") for row in curve])
        level = np.median(curve[:, -10:]) - 1
        reached = smooth >= level
        needed[label] = np.where(reached.any(1), result.steps[reached.argmax(1)], result.steps[-1]).astype(float)
    rows = []

    def compare(text: str, slow: str, fast: str) -> None:
        row = Row.measured(f"claim: {text}", needed[slow], needed[fast], unit="runs").judged("above 0")
        row.note = (
            f"steps until within 1 of the learner's own final median: {slow} {needed[slow].mean():.0f}, "
            f"{fast} {needed[fast].mean():.0f}"
        )
        rows.append(row)

    compare("without abstraction slower than flat Q", PLAIN, FLAT)
    compare("with abstraction faster than flat Q", FLAT, ABSTRACT)
    compare("with abstraction faster than without", PLAIN, ABSTRACT)

    early = slice(1, 5)
    for label in (PLAIN, ABSTRACT, POLLED):
        at_first = [learned[name].returns[:, early].mean((1, 2)) for name in (label, FLAT)]
        first, last = learned[label].steps[[early.start, early.stop - 1]]
        row = Row.measured(f"claim: {label} better than flat Q at first", *at_first, unit="runs").judged("above 0")
        row.note = f"difference of the mean greedy reward between {first} and {last} steps"
        rows.append(row)

    late = learned[POLLED].returns.mean(2) - learned[ABSTRACT].returns.mean(2)
    middle_row = partial(Row.measured, statistic="interquartile mean", unit="runs")
    row = middle_row("claim: polled above committed in the end", late[:, -10:].mean(1)).judged("above 0")
    row.note = "interquartile mean over runs of the difference at the last ten points"
    rows.append(row)
    difference = middle(late)
    worst = int(difference[: len(difference) // 2].argmin())
    row = middle_row("claim: polled execution dips before it climbs", late[:, worst]).judged("below 0")
    row.note = (
        f"polled minus committed where that is smallest in the first half, at {learned[POLLED].steps[worst]} steps "
        "(chosen after the fact); interquartile mean over runs"
    )
    rows.append(row)
    return rows


def size_rows(env: Taxi) -> list[Row]:
    sizes = {
        "with abstraction": (taxi_graph(env).num_values, 632),
        "without abstraction": (taxi_graph(env, abstraction=False).num_values, 14_000),
        "flat Q": (500 * env.num_actions, 3_000),
    }
    return [
        Row.computed(f"values to learn, {name}", n, published=published, note="without the second set of C, C̃").judged()
        for name, (n, published) in sizes.items()
    ]


# Pictures


def picture(learned: dict[str, Learned], exact: dict[str, float], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(12, 4.8))
        for ax, limits in zip(axes, ((-1150, 60), (-4, 7.5))):
            for label, result in learned.items():
                per_run = result.returns.mean(2)
                points = [interquartile_mean(column, "runs") for column in per_run.T]
                x, color = result.steps / 1000, COLORS[label]
                low, high = np.array([p.interval or (np.nan, np.nan) for p in points]).T
                ax.fill_between(x, low, high, color=color, alpha=0.25, lw=0)
                ax.plot(x, [p.value for p in points], color=color, lw=1.8, label=label)
                ax.plot(x, per_run.mean(0), color=color, lw=0.5, alpha=0.7)
            ax.set(xlabel="primitive steps / 1000", ylim=limits, xlim=(0, None))
        axes[0].set(ylabel="mean reward of a greedy trial", title="learning")
        axes[0].legend(loc="lower right")
        axes[1].set(title="the same, near the optima")
        for name, text in (("flat", "flat"), ("polled", "polled"), ("committed", "recursive")):
            axes[1].axhline(exact[name], color="0.2", lw=0.8, ls=(0, (4, 2)))
            height = {"flat": 28, "polled": 16, "committed": 10}[name]  # clear of the bands
            axes[1].annotate(
                f"{text} optimum {exact[name]:.3f}",
                (0.99, exact[name]),
                xycoords=("axes fraction", "data"),
                xytext=(0, height),
                textcoords="offset points",
                ha="right",
                va="bottom",
                fontsize=8,
                color="0.2",
            )
        runs = len(next(iter(learned.values())).returns)
        figure.suptitle(
            f"fickle Taxi, {runs} runs: interquartile mean over runs with its 95 % interval; thin: mean, trials cut at "
            f"{CUT} steps",
            fontsize=10,
            color="0.3",
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def hierarchy_picture(arguments: Arguments, path: Path) -> list[Row]:
    """The graph with one run's learned V and C in a state of deterministic Taxi, beside the exact ones."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import STYLE

    env = Taxi()
    graph = taxi_graph(env)
    # so that everything is tried everywhere: always exploring, and often back at the root
    warm = graph._replace(cooling=np.ones_like(graph.cooling))
    config = maxq.Config(rollout_length=PER_CALL, temperature=20.0, polling_interval=5.0)
    algorithm = maxq.make(config, env, single(env.default_params), warm)
    calls = 4 if arguments.scale == "smoke" else 1000
    state, _, _ = jit(make_chunk(algorithm, calls))(init_seeds(algorithm, RunConfig(seeds=1)))
    values = jax.tree.map(lambda x: x[0], state.params)
    learned = jax.device_get(jax.vmap(lambda s: maxq.evaluate_graph(graph, values, s))(jnp.arange(500)))
    exact = jax.device_get(hierarchy.recursively_optimal(*env.model(env.default_params), graph))
    called = graph.child[:500]
    q = np.take_along_axis(exact.value.T[:500, None], np.maximum(called, 0), axis=2)
    error = np.abs(learned.q - q - np.moveaxis(exact.completion, 2, 0)[:500])[called >= 0]

    s = encode(1, 0, 0, 3)  # the paper's example
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, (ax, world) = plt.subplots(1, 2, figsize=(12, 6.2), width_ratios=(3, 1))
        draw_graph(ax, graph, learned, exact, s)
        env.draw(world, state=s)
        *_, passenger, destination = decode(s)
        names = list(SITES)
        where = "in the taxi" if passenger == IN_TAXI else f"at {names[passenger]}"
        world.set_title(f"passenger {where}, wants to {names[destination]}")
        figure.suptitle(
            "V(a, s) in the boxes, C(i, s, a) on the arrows, as learned (exact in brackets); bold: the greedy path; "
            "its C and the V at its end add up to V(Root, s)",
            fontsize=10,
            color="0.3",
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)
    worst = float(error.max())
    label = "deterministic Taxi: largest |Q(i, s, a) − exact| over all i, s, a"
    row = Row.computed(label, worst, exact=0.0, seeds=1, method="no interval: one value").judged("within 0.05")
    row.note = f"{error.size} values, mean {error.mean():.2g}; T = 20 throughout and L = 5; reached: below .05"
    return [row]


def draw_graph(ax: Any, graph: TaskGraph, learned: Any, exact: Any, s: int) -> None:
    actions = graph.num_actions
    child = graph.child[s]
    heights = np.repeat(np.arange(1, graph.height + 1), graph.levels)
    # only what can be called from here, and below it
    shown, queue = [len(graph.nodes) - 1], [len(graph.nodes) - 1]
    while queue:
        node = queue.pop(0)
        for n in child[node - actions] if node >= actions else ():
            if n >= 0 and n not in shown:
                shown.append(int(n))
                queue.append(int(n))
    levels: dict[int, list[int]] = {}
    for node in shown:
        levels.setdefault(0 if node < actions else int(heights[node - actions]), []).append(node)
    place = {}
    for level, nodes in levels.items():
        for j, node in enumerate(sorted(nodes)):
            place[node] = ((j + 0.5) / len(nodes), level / graph.height)
    path, node = [], len(graph.nodes) - 1
    while node >= actions:
        k = int(learned.best[s, node - actions])
        path.append((node, k))
        node = int(child[node - actions, k])
    for i, k in np.ndindex(child.shape):
        if actions + i in shown and (n := int(child[i, k])) >= 0:
            (x0, y0), (x1, y1) = place[actions + i], place[n]
            bold = (actions + i, k) in path
            ax.annotate(
                "",
                (x1, y1 + 0.05),
                (x0, y0 - 0.05),
                arrowprops={"arrowstyle": "-|>", "color": "black" if bold else "0.7", "lw": 1.8 if bold else 0.8},
            )
            # V + C = Q; the learned C is what is left of Q
            c = learned.q[s, i, k] - learned.value[s, n]
            ax.text(
                x0 + 0.6 * (x1 - x0),
                y0 - 0.05 + 0.6 * (y1 - y0 + 0.1),
                f"{c:.2f} ({exact.completion[i, k, s]:.0f})",
                fontsize=8,
                ha="center",
                va="center",
                color="black" if bold else "0.45",
                bbox={"fc": "white", "ec": "none", "pad": 1.0},
            )
    on_path = {node, *(n for n, _ in path)}
    for node, (x, y) in place.items():
        bold = node in on_path
        ax.text(
            x,
            y,
            f"{graph.nodes[node]}\n{learned.value[s, node]:.2f} ({exact.value[node, s]:.0f})",
            ha="center",
            va="center",
            fontsize=9,
            weight="bold" if bold else "normal",
            bbox={"boxstyle": "round,pad=0.4", "fc": "#e3eef7" if node >= actions else "#f4f4f4", "ec": "0.4"},
        )
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.12, 1.12))
    ax.axis("off")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
