"""MAXQ on fickle Taxi: Dietterich (JAIR 13, 2000), the comparison of flat Q-learning, MAXQ-Q without and with state
abstraction, and with abstraction and hierarchical greedy (polled) execution.

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
as they are: the policies end a little below their optimum. To test this explanation, the runs go on from their end with
a smaller α and some exploration again.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import trim_mean

from jaxrl_envs.random_bits import uniforms
from jaxrl_envs.tasks import single
from jaxrl_envs.taxi import IN_TAXI, SITES, Taxi, decode, encode
from jaxrl_hier.abstractions.task_graph import TaskGraph
from jaxrl_hier.engine.chunk import init_seeds, make_chunk
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.loops import begin_worlds, online
from jaxrl_hier.engine.rollout import first_episode, play_episodes
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.types import ActInput, Agent, Algorithm, Metrics, TrainState, Transition, World
from jaxrl_hier.exact import hierarchy, tabular
from jaxrl_hier.hierarchical import maxq
from jaxrl_hier.hierarchical.graphs import taxi_graph
from jaxrl_hier.learning.tables import boltzmann
from jaxrl_hier.reports.statistics import interquartile_mean, mean

from ..drawing import colour, legend_below, subplots
from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row
from ._options import Runs

FLAT, PLAIN, ABSTRACT, POLLED = "flat Q", "MAXQ-Q, no abstraction", "MAXQ-Q, abstraction", "MAXQ-Q, polled"
LEARNERS = {FLAT: "flat", PLAIN: "committed", ABSTRACT: "committed", POLLED: "polled"}  # and the optimum of each
OPTIMA = {"flat": 5.603, "committed": 3.514, "hierarchical": None, "polled": 5.565}  # references, by another program
SIZES = {"with abstraction": 632, "without abstraction": 14_000, "flat Q": 3_000}  # published
PHASES = ("constant α", "then smaller α, exploring")
CUT = 100  # steps of a greedy trial
PER_CALL = 500  # steps of a run in one call of `step`
EXAMPLE = encode(1, 0, 0, 3)  # the paper's state, whose decomposition is drawn


def parts(scale: Scale) -> dict[str, Computation]:
    smoke = scale == "smoke"
    trials = {"trials": 2 if smoke else 20, "final_trials": 4 if smoke else 500}
    about = trials | {"steps": 2000 if smoke else 300_000}
    found = {
        label: Computation(learn, about | {"label": label, "anneal": label in (ABSTRACT, POLLED)}, shared=("at",))
        for label in LEARNERS
    }
    found["exact"] = Computation(exact_values, seeds=0)
    found["decomposition"] = Computation(decomposition, {"calls": 4 if smoke else 1000}, seeds=1)
    return {name: found[name] for name in (FLAT, "decomposition")} if smoke else found


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


def learn(seeds: Sequence[int], label: str, steps: int, trials: int, final_trials: int, anneal: bool) -> dict[str, Any]:
    """One learner.

    Returns:
        "reward" [seeds, points] of greedy trials, mean over them, after "at" [points] steps; and for each of PHASES
        that it had "<phase>: whole" [seeds], the mean over the trials that ended by themselves (NaN: none did),
        "<phase>: every" [seeds] over all, and "<phase>: ended" [seeds], the share that did.
    """
    env = Taxi(noise=True, fickle=True)
    algorithm = flat_q(env) if label == FLAT else maxq.make(settings(label), env, single(env.default_params))
    calls = steps // PER_CALL
    # closer together at first
    at = np.unique(np.concatenate([np.arange(0, min(40, calls), 5), np.arange(min(40, calls), calls + 1, 10)]))
    runs = Runs(lambda: algorithm, [{}], seeds)
    keys = lambda i: jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), i))(jnp.array(seeds))
    play, rewards = greedy_trials(env, algorithm.agent, trials), []
    for i, count in enumerate(np.diff(at, prepend=0)):
        reward, _ = play(runs.advance(count).params, keys(1 + i))
        rewards.append(np.asarray(reward).mean(axis=1))
    play = greedy_trials(env, algorithm.agent, final_trials)
    found = at_the_end(PHASES[0], *play(runs.state.params, keys(10_000)))
    if anneal:
        params = annealed(env, label, runs.state, calls // 4).params
        found |= at_the_end(PHASES[1], *play(params, keys(10_001)))
    about = {"at": at * PER_CALL, "compile_seconds": runs.compile_seconds}
    return {"reward": np.stack(rewards, axis=1)} | found | about


def at_the_end(phase: str, rewards: Any, ended: Any) -> dict[str, np.ndarray]:
    """See `learn`; both arguments are [seeds, trials]."""
    rewards, ended = np.asarray(rewards, np.float64), np.asarray(ended)
    whole = np.array([r[e].mean() if e.any() else np.nan for r, e in zip(rewards, ended)])
    found: dict[str, np.ndarray] = {"whole": whole, "every": rewards.mean(axis=1), "ended": ended.mean(axis=1)}
    return {f"{phase}: {name}": x for name, x in found.items()}


def annealed(env: Any, label: str, state: TrainState, calls: int) -> TrainState:
    """The runs go on for 2 × `calls`, α at 1/5 and then at 1/25 of what it was, T = 1/2 throughout."""
    config, graph = settings(label), taxi_graph(env)
    warm = graph._replace(cooling=np.ones_like(graph.cooling))
    temperature = jnp.full_like(state.params.temperature, 0.5)
    state = replace(state, params=state.params._replace(temperature=temperature))
    for divisor in (5, 25):
        slower = replace(config, step_size=config.step_size / divisor)
        state, _, _ = jit(make_chunk(maxq.make(slower, env, single(env.default_params), warm), max(1, calls)))(state)
    return state


def greedy_trials(env: Any, agent: Agent, trials: int) -> Callable[..., Any]:
    """params [runs, ...], keys [runs] -> rewards and whether they ended by themselves, [runs, trials]."""

    @jax.jit
    def play(params: Any, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        def one(params: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            seen = play_episodes(env, agent, env.default_params, params, key, episodes=trials, horizon=CUT, greedy=True)
            mask = first_episode(seen)
            return jnp.sum(seen.reward * mask, axis=0), jnp.any(seen.terminated & (mask > 0), axis=0)

        return jax.vmap(one)(params, keys)

    return play


def settings(label: str) -> maxq.Config:
    config = maxq.Config(rollout_length=PER_CALL)
    if label == PLAIN:
        return replace(config, state_abstraction=False, step_size=0.5)
    return replace(config, polling_interval_decrease=1.0) if label == POLLED else config


def exact_values() -> dict[str, np.ndarray]:
    """Exact: the expected reward of each of OPTIMA, and how many values each of SIZES has to learn."""
    env = Taxi(noise=True, fickle=True)
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
    sizes = {
        "with abstraction": graph.num_values,
        "without abstraction": taxi_graph(env, abstraction=False).num_values,
        "flat Q": 500 * env.num_actions,
    }
    return {name: np.asarray(start @ value) for name, value in values.items()} | {
        f"size {name}": np.array(size) for name, size in sizes.items()
    }


def decomposition(seeds: Sequence[int], calls: int) -> dict[str, np.ndarray]:
    """One run on deterministic Taxi beside the exact solution, [seeds, …].

    Returns:
        "worst", "mean" and "count" of the errors of all Q(i, s, a); and in the state EXAMPLE learned "q", "value" and
        "best", exact "completion" and "exact value", as `maxq.evaluate_graph` and `hierarchy.recursively_optimal` have
        them.
    """
    env = Taxi()
    graph = taxi_graph(env)
    # so that everything is tried everywhere: always exploring, and often back at the root
    warm = graph._replace(cooling=np.ones_like(graph.cooling))
    config = maxq.Config(rollout_length=PER_CALL, temperature=20.0, polling_interval=5.0)
    algorithm = maxq.make(config, env, single(env.default_params), warm)
    state, _, _ = jit(make_chunk(algorithm, calls))(init_seeds(algorithm, RunConfig(seed=seeds[0], seeds=1)))
    values = jax.tree.map(lambda x: x[0], state.params)
    learned = jax.device_get(jax.vmap(lambda s: maxq.evaluate_graph(graph, values, s))(jnp.arange(500)))
    exact = jax.device_get(hierarchy.recursively_optimal(*env.model(env.default_params), graph))
    called = graph.child[:500]
    q = np.take_along_axis(exact.value.T[:500, None], np.maximum(called, 0), axis=2)
    error = np.abs(learned.q - q - np.moveaxis(exact.completion, 2, 0)[:500])[called >= 0]
    found: dict[str, Any] = {"worst": error.max(), "mean": error.mean(), "count": error.size}
    found |= {"q": learned.q[EXAMPLE], "value": learned.value[EXAMPLE], "best": learned.best[EXAMPLE]}
    found |= {"completion": exact.completion[:, :, EXAMPLE], "exact value": exact.value[:, EXAMPLE]}
    return {name: np.asarray(x)[None] for name, x in found.items()}


# Rows


def middle(values: np.ndarray) -> np.ndarray:
    """Interquartile mean over the runs, of [runs, points]."""
    return trim_mean(values, 0.25, axis=0)


def rows(found: Found) -> list[Row]:
    learned = {label: found[label] for label in LEARNERS if label in found}
    exact = found.get("exact")
    made = [row for label, measured in learned.items() for row in final_rows(label, measured, exact)]
    made += optimum_rows(exact) if exact else []
    made += order_rows(learned)
    made += size_rows(exact) if exact else []
    return made + (decomposition_rows(found["decomposition"]) if "decomposition" in found else [])


def optimum_rows(exact: Measured) -> list[Row]:
    of = lambda name: Row.computed(f"exact: {name}", float(exact[name]), exact=OPTIMA[name], tolerance=2e-4)
    return [of(name).judged() for name in OPTIMA]


def size_rows(exact: Measured) -> list[Row]:
    note = "without the second set of C, C̃"
    of = lambda name: Row.computed(f"values to learn, {name}", int(exact[f"size {name}"]), note=note)
    return [replace(of(name), published=published).judged() for name, published in SIZES.items()]


def final_rows(label: str, measured: Measured, exact: Measured | None) -> list[Row]:
    made = []
    for phase in (phase for phase in PHASES if f"{phase}: whole" in measured):
        whole = measured[f"{phase}: whole"]
        whole = whole[np.isfinite(whole)]
        if not len(whole):
            continue
        every = mean(measured[f"{phase}: every"], "runs")
        row = Row.measured(f"{label}, {phase}: greedy reward at the end", whole, unit="runs")
        row.note = (
            f"mean of the greedy trials that end within {CUT} steps; {1 - measured[f'{phase}: ended'].mean():.4%} do "
            f"not, and with them, at −1 or −11 a step, it is {every.value:.3f} {every.bracket('.3f')}"
        )
        if exact:
            row.exact = float(exact[LEARNERS[label]])
            errors = (whole.mean() - row.exact) / (whole.std(ddof=1) / np.sqrt(len(whole)))
            row.note += f". {errors:+.1f} standard errors from the exact optimum"
        made.append(row.judged())
    return made


def order_rows(learned: Found) -> list[Row]:
    """What the paper says of the figure."""
    made = []
    for text, slow, fast in (
        ("without abstraction slower than flat Q", PLAIN, FLAT),
        ("with abstraction faster than flat Q", FLAT, ABSTRACT),
        ("with abstraction faster than without", PLAIN, ABSTRACT),
    ):
        if {slow, fast} <= learned.keys():
            slower, faster = (steps_needed(learned[label]) for label in (slow, fast))
            row = Row.measured(f"claim: {text}", slower, faster, unit="runs").judged("above 0")
            row.note = (
                f"steps until within 1 of the learner's own final median: {slow} {slower.mean():.0f}, "
                f"{fast} {faster.mean():.0f}"
            )
            made.append(row)
    early = slice(1, 5)
    for label in (PLAIN, ABSTRACT, POLLED):
        if {label, FLAT} <= learned.keys():
            ours, flat = (learned[name]["reward"][:, early].mean(axis=1) for name in (label, FLAT))
            first, last = learned[label]["at"][[early.start, early.stop - 1]]
            row = Row.measured(f"claim: {label} better than flat Q at first", ours, flat, unit="runs").judged("above 0")
            row.note = f"difference of the mean greedy reward between {first} and {last} steps"
            made.append(row)
    return made + (polled_rows(learned) if {POLLED, ABSTRACT} <= learned.keys() else [])


def steps_needed(measured: Measured) -> np.ndarray:
    """Steps until a run's greedy reward, averaged over three points, first comes within 1 of its median at the end."""
    rewards, at = measured["reward"], measured["at"]
    smooth = np.stack([np.convolve(row, np.ones(3) / 3, "same") for row in rewards])
    reached = smooth >= np.median(rewards[:, -10:]) - 1
    return np.where(reached.any(1), at[reached.argmax(1)], at[-1]).astype(float)


def polled_rows(learned: Found) -> list[Row]:
    """Polled against committed execution."""
    gain = learned[POLLED]["reward"] - learned[ABSTRACT]["reward"]
    row_of = partial(Row.measured, statistic="interquartile mean", unit="runs")
    end = row_of("claim: polled above committed in the end", gain[:, -10:].mean(axis=1)).judged("above 0")
    end.note = "interquartile mean over runs of the difference at the last ten points"
    typical = middle(gain)
    worst = int(typical[: len(typical) // 2].argmin())
    dip = row_of("claim: polled execution dips before it climbs", gain[:, worst]).judged("below 0")
    dip.note = (
        f"polled minus committed where that is smallest in the first half, at {learned[POLLED]['at'][worst]} steps "
        "(chosen after the fact); interquartile mean over runs"
    )
    return [end, dip]


def decomposition_rows(measured: Measured) -> list[Row]:
    worst = float(measured["worst"][0])
    label = "deterministic Taxi: largest |Q(i, s, a) − exact| over all i, s, a"
    row = Row.computed(label, worst, exact=0.0, seeds=1, method="no interval: one value").judged("within 0.05")
    row.note = f"{measured['count'][0]} values, mean {measured['mean'][0]:.2g}; T = 20 throughout and L = 5; "
    row.note += "reached: below .05"
    return [row]


# Pictures


def draw(found: Found) -> dict[str, Any]:
    learned = {label: found[label] for label in LEARNERS if label in found}
    pictures = {"": learning_figure(learned, found.get("exact"))} if learned else {}
    return pictures | ({"hierarchy": hierarchy_figure(found["decomposition"])} if "decomposition" in found else {})


def learning_figure(learned: Found, exact: Measured | None) -> Any:
    figure, ((left, right),) = subplots(1, 2, 6, 4.8)
    for ax, limits in ((left, (-1150, 60)), (right, (-4, 7.5))):
        for label, measured in learned.items():
            points = [interquartile_mean(column, "runs") for column in measured["reward"].T]
            x, color = measured["at"] / 1000, colour(label)
            low, high = np.array([p.interval or (np.nan, np.nan) for p in points]).T
            ax.fill_between(x, low, high, color=color, alpha=0.25, lw=0)
            ax.plot(x, [p.value for p in points], color=color, lw=1.8, label=label)
            ax.plot(x, measured["reward"].mean(axis=0), color=color, lw=0.5, alpha=0.7)
        ax.set(xlabel="primitive steps / 1000", ylim=limits, xlim=(0, None))
    left.set(ylabel="mean reward of a greedy trial", title="learning")
    right.set(title="the same, near the optima")
    for name, text, ls in (("flat", "flat", "--"), ("polled", "polled", ":"), ("committed", "recursive", "-.")):
        if exact:
            value = float(exact[name])
            right.axhline(value, color="0.2", lw=1, ls=ls, label=f"{text} optimum {value:.3f}")
    legend_below(figure, right, columns=4)
    runs = len(next(iter(learned.values()))["reward"])
    title = f"fickle Taxi, {runs} runs: interquartile mean over runs with its 95 % interval; thin: mean, trials cut at "
    figure.suptitle(f"{title}{CUT} steps", fontsize=10, color="0.3")
    return figure


def hierarchy_figure(measured: Measured) -> Any:
    """The graph with one run's learned V and C in a state of deterministic Taxi, beside the exact ones."""
    env = Taxi()
    figure, ((ax, world),) = subplots(1, 2, figsize=(12, 6.2), width_ratios=(3, 1))
    draw_graph(ax, taxi_graph(env), measured)
    env.draw(world, state=EXAMPLE)
    world.grid(False)
    *_, passenger, destination = decode(EXAMPLE)
    names = list(SITES)
    where = "in the taxi" if passenger == IN_TAXI else f"at {names[passenger]}"
    world.set_title(f"passenger {where}, wants to {names[destination]}")
    figure.suptitle(
        "V(a, s) in the boxes, C(i, s, a) on the arrows, as learned (exact in brackets); bold: the greedy path; "
        "its C and the V at its end add up to V(Root, s)",
        fontsize=10,
        color="0.3",
    )
    return figure


def draw_graph(ax: Any, graph: TaskGraph, measured: Measured) -> None:
    q, value, best, completion, exact_value = (
        measured[name][0] for name in ("q", "value", "best", "completion", "exact value")
    )
    actions = graph.num_actions
    child = graph.child[EXAMPLE]
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
        k = int(best[node - actions])
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
            c = q[i, k] - value[n]
            ax.text(
                x0 + 0.6 * (x1 - x0),
                y0 - 0.05 + 0.6 * (y1 - y0 + 0.1),
                f"{c:.2f} ({completion[i, k]:.0f})",
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
            f"{graph.nodes[node]}\n{value[node]:.2f} ({exact_value[node]:.0f})",
            ha="center",
            va="center",
            fontsize=9,
            weight="bold" if bold else "normal",
            bbox={"boxstyle": "round,pad=0.4", "fc": "#e3eef7" if node >= actions else "#f4f4f4", "ec": "0.4"},
        )
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.12, 1.12))
    ax.axis("off")


FIGURE = Figure(
    name="maxq_taxi",
    paper="Dietterich, Hierarchical reinforcement learning with the MAXQ value function decomposition, JAIR 13, 2000",
    shows="the comparison of four learners on fickle Taxi; the value function's decomposition",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=100,
    threads=2,
    minutes=26,
)
