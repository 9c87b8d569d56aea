"""The opponents of RL²: Duan et al., RL²: Fast reinforcement learning via slow reinforcement learning (2016).

Table 1, Bernoulli bandits with k arms and n pulls, and table 2, random tabular processes with n episodes: total reward
of a trial, mean over 1000 fresh tasks. Only the best setting depends on n, so one run of the longest trial contains the
shorter ones. Settings are tuned over the published grids on other tasks than those that are reported; the published
code reports the best of its grid on the tasks that it was tuned on. For the two samplers that cost the most, optimistic
Thompson sampling and optimistic PSRL, the grid 1..20 is thinned out; these and the planners are tuned on 250 tasks,
whose totals differ little between neighbours of the grid, the others on as many as are reported.

"Reached" means above the published value, or below it by at most three standard errors of the difference between two
means over 1000 tasks plus half a unit of the last printed digit. Exact values stand beside them: Bayes-optimal play of
10 pulls, and the regret of Bayes-optimal play in 100 pulls of two arms, independent and dependent (Wang et al.,
Learning to reinforcement learn, 2016), against which their learners are measured. 100 pulls of more arms, which cannot
be solved, have the finite-horizon Gittins index in its place, over 20 times as many tasks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.bandits import Bandit, dependent_tasks, independent_tasks
from jaxrl_envs.tabular_mdp import HORIZON, TabularMDP, random_mdp_tasks
from jaxrl_hier.classical import bandits as bandit_players
from jaxrl_hier.classical import mdps as process_players
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.types import Agent, Tasks
from jaxrl_hier.exact.bandits import dependent_arms, gittins_indices, independent_value, two_arms
from jaxrl_hier.exact.tabular import value_sweeps

from ..drawing import colour, subplots, with_intervals
from ..figure import Computation, Figure, Found, Measured, Scale
from ..results import Row
from ._rl2 import DUAN

BATCH = 250  # tasks side by side
TASKS = 1000  # fresh ones for each cell; the paper's number

PULLS, ARMS = (10, 100, 500), (5, 10, 50)
BANDITS = {  # by arms, then pulls
    "random": ((5.0, 49.9, 249.8), (5.0, 49.9, 249.0), (5.1, 49.8, 249.6)),
    "Gittins": ((6.6, 78.3, 405.8), (6.6, 82.8, 437.8), (6.5, 85.2, 463.7)),
    "Thompson": ((5.7, 74.7, 402.0), (5.5, 76.7, 429.5), (5.2, 64.5, 427.2)),
    "optimistic Thompson": ((6.5, 77.9, 406.7), (6.2, 81.4, 438.9), (5.5, 67.7, 437.6)),
    "UCB1": ((6.7, 78.0, 405.8), (6.7, 82.4, 437.1), (6.6, 84.3, 457.6)),
    "ε-greedy": ((6.6, 75.4, 388.2), (6.6, 77.4, 408.0), (6.5, 78.3, 413.6)),
    "greedy": ((6.6, 74.8, 380.6), (6.6, 77.1, 395.0), (6.5, 78.0, 402.8)),
}
EPISODES = (10, 25, 50, 75, 100)
PILING = "UCRL2, optimism piling up"  # as in the code that the paper used
PROCESSES = {
    "random": (100.1, 250.2, 499.7, 749.9, 999.4),
    "PSRL": (138.1, 408.8, 904.4, 1417.1, 1939.5),
    "optimistic PSRL": (144.1, 425.2, 930.7, 1449.2, 1973.9),
    "UCRL2": (146.6, 424.1, 918.9, 1427.6, 1942.1),
    PILING: (146.6, 424.1, 918.9, 1427.6, 1942.1),
    "BEB": (150.2, 427.8, 917.8, 1422.6, 1935.1),
    "ε-greedy": (132.8, 377.3, 823.3, 1293.9, 1778.2),
    "greedy": (134.8, 368.8, 769.3, 1172.9, 1578.5),
}
OMNISCIENT = "MDP: best policy of the known process, total reward of an episode"
TWO_ARMS = ("independent", "uniform", "easy", "medium", "hard")
FINITE = "finite-horizon Gittins"
SOLVED = 100  # the pulls that it is solved for: fewer have exact play, more take long
SAMPLES = (1, 2, 3, 4, 5, 7, 10, 15, 20)
FRACTIONS = tuple(i / 10 for i in range(11))
SCALINGS = tuple(np.geomspace(1e-4, 1, 21))


def parts(scale: Scale) -> dict[str, Computation]:
    if scale == "smoke":
        run = lambda function, **arguments: Computation(function, arguments | {"count": 20}, seeds=0)
        return {
            "k = 5: UCB1": run(bandit_cells, name="UCB1", arms=5, at=PULLS[:1]),
            "MDP: PSRL": run(process_cells, name="PSRL", at=(EPISODES[0] * HORIZON,)),
            "two arms, independent": run(two_armed, kind="independent", pulls=10),
        }
    run = lambda function, **arguments: Computation(function, arguments | {"count": TASKS}, seeds=0)
    found = {f"k = {k}: {name}": run(bandit_cells, name=name, arms=k, at=PULLS) for k in ARMS for name in BANDITS}
    found |= {f"k = {k}: {FINITE}": run(best_known, arms=k, pulls=SOLVED) for k in ARMS}
    at = tuple(n * HORIZON for n in EPISODES)
    found |= {f"MDP: {name}": run(process_cells, name=name, at=at) for name in PROCESSES}
    found |= {OMNISCIENT: run(omniscient)}
    return found | {f"two arms, {kind}": run(two_armed, kind=kind, pulls=100) for kind in TWO_ARMS}


# Players: an agent, its settings to choose from by what they are called, and whether it is cheap to tune


Player = tuple[Agent, dict[Any, Any], bool]


def bandit_player(name: str, arms: int, pulls: int) -> Player:
    o = bandit_players
    match name:
        case "random":
            return fixed(o.random(arms))
        case "greedy":
            return fixed(o.greedy(arms))
        case "Thompson":
            return fixed(o.thompson(arms, pulls))
        case "optimistic Thompson":
            return o.optimistic_thompson(arms, pulls), {m: jnp.int32(m) for m in SAMPLES}, False
        case "UCB1":
            return o.ucb1(arms), numbers(FRACTIONS), True
        case "ε-greedy":
            return o.epsilon_greedy(arms), numbers(FRACTIONS), True
        case "Gittins":
            indices = {g: jnp.asarray(gittins_indices(pulls, g), jnp.float32) for g in (0.9, 0.99, 0.999, 0.9999)}
            return o.gittins(arms, pulls), indices, True
    raise KeyError(name)


def process_player(name: str, env: TabularMDP) -> Player:
    o = process_players
    match name:
        case "random":
            return fixed(o.epsilon_greedy(env, 1.0))
        case "greedy":
            return fixed(o.greedy(env))
        case "PSRL":
            return fixed(o.psrl(env))
        case "optimistic PSRL":
            return o.optimistic_psrl(env), {m: jnp.int32(m) for m in SAMPLES}, False
        case "ε-greedy":
            return o.epsilon_greedy(env), numbers(FRACTIONS[1:]), False
        case "BEB":
            return o.beb(env), numbers(SCALINGS), False
    return o.ucrl2(env, piling=name == PILING), numbers(SCALINGS), False


def numbers(values: Sequence[float]) -> dict[Any, Any]:
    return {float(f"{v:.3g}"): jnp.float32(v) for v in values}


def fixed(agent: Agent) -> Player:
    return agent, {None: agent.init(jax.random.key(0))}, False


# Play


def player(agent: Agent, env: Any, tasks: Tasks, length: int) -> Callable[[Any, int, int], np.ndarray]:
    """(params, tasks, seed) -> rewards [tasks, length] of a trial in each of so many tasks, the same for a seed."""

    @jax.jit
    def trials(params: Any, key: jax.Array) -> jax.Array:
        worlds = begin_worlds(env, agent, tasks, params, key, BATCH)
        return rollout(env, agent, tasks, params, worlds, length)[1].reward.T

    def play(params: Any, count: int, seed: int) -> np.ndarray:
        keys = jax.random.split(jax.random.key(seed), -(-count // BATCH))
        return np.concatenate([jax.device_get(trials(params, key)) for key in keys])[:count]

    return play


def cells(who: Player, env: Any, tasks: Tasks, at: Sequence[int], count: int, horizon: int) -> dict[str, np.ndarray]:
    """For each number of steps in `at` mean and deviation of the total reward with the setting that is best for it, and
    that setting (NaN: there is none); and the mean reward of each episode with the one that is best in the longest."""
    agent, settings, cheap = who
    play = player(agent, env, tasks, at[-1])
    best = dict.fromkeys(at, next(iter(settings)))
    if len(settings) > 1:
        many = count if cheap else min(count, BATCH)
        tuned = {name: play(params, many, 1).mean(0).cumsum() for name, params in settings.items()}
        best = {n: max(tuned, key=lambda name: tuned[name][n - 1]) for n in at}
    rewards = {name: play(settings[name], count, 0) for name in set(best.values())}
    found = moments([rewards[best[n]][:, :n].sum(axis=1) for n in at])
    found["setting"] = np.array([np.nan if best[n] is None else best[n] for n in at])
    found["by episode"] = rewards[best[at[-1]]].reshape(count, -1, horizon).sum(axis=2).mean(axis=0)
    return found


def moments(totals: Any) -> dict[str, np.ndarray]:
    """Mean and deviation over tasks of [..., tasks], and how many there are."""
    totals = np.asarray(totals, np.float64)
    return {"mean": totals.mean(-1), "deviation": totals.std(-1, ddof=1), "tasks": np.array(totals.shape[-1])}


def bandit_cells(name: str, arms: int, at: Sequence[int], count: int) -> dict[str, np.ndarray]:
    who = bandit_player(name, arms, at[-1])
    return cells(who, Bandit(arms), independent_tasks(arms, at[-1]), at, count, horizon=1)


def process_cells(name: str, at: Sequence[int], count: int) -> dict[str, np.ndarray]:
    env = TabularMDP()
    return cells(process_player(name, env), env, random_mdp_tasks(at[-1] // HORIZON), at, count, HORIZON)


def best_known(arms: int, pulls: int, count: int) -> dict[str, np.ndarray]:
    """What the finite-horizon Gittins index gets, which the paper does not have; over 20 times as many tasks."""
    agent = bandit_players.finite_horizon_gittins(arms, pulls)
    play = player(agent, Bandit(arms), independent_tasks(arms, pulls), pulls)
    return moments(play(agent.init(jax.random.key(0)), 20 * count, 0).sum(axis=1))


def omniscient(count: int) -> dict[str, np.ndarray]:
    """The optimal total reward of an episode in random processes."""
    params = jax.vmap(random_mdp_tasks().sample)(jax.random.split(jax.random.key(0), count))
    sweeps = jax.vmap(lambda P, R: value_sweeps(P, R, 1.0, HORIZON)[-1, 0])
    return moments(sweeps(params.transitions, params.rewards))


def two_armed(kind: Any, pulls: int, count: int) -> dict[str, np.ndarray]:
    """Expected regret of each pull, the optimum's, exact, and the players' means [pulls]; mean and deviation over tasks
    of their totals."""
    o = bandit_players
    who: dict[str, tuple[Agent, Any]] = {"Thompson": (o.thompson(2, pulls), ())}
    if kind == "independent":
        tasks, (optimal, policy) = independent_tasks(2, pulls), two_arms(pulls)
        who |= {"Bayes-optimal": (o.bayes_optimal(pulls), jnp.asarray(policy))}
        who |= {"UCB1": (o.ucb1(2), jnp.float32(1)), "greedy": (o.greedy(2), ())}
    else:
        tasks, optimal = dependent_tasks(kind, pulls), dependent_arms(kind, pulls)
    found = {"exact": np.asarray(optimal.regret)}
    for name, (agent, params) in who.items():
        regret = expected_regret(agent, params, tasks, pulls, count)
        found |= {name: regret.mean(axis=0)} | {f"{name}: {k}": x for k, x in moments(regret.sum(axis=1)).items()}
    return found


def expected_regret(agent: Agent, params: Any, tasks: Tasks, pulls: int, count: int) -> np.ndarray:
    """[count, pulls] of what each pull falls short of the best arm's probability."""
    env = Bandit(2)

    @jax.jit
    def trials(params: Any) -> jax.Array:
        worlds = begin_worlds(env, agent, tasks, params, jax.random.key(0), count)
        p = worlds.task.probabilities
        arms = rollout(env, agent, tasks, params, worlds, pulls)[1].action.T
        return jnp.max(p, axis=1, keepdims=True) - jnp.take_along_axis(p, arms, axis=1)

    return np.asarray(trials(params))


# Rows


def rows(found: Found) -> list[Row]:
    made: list[Row] = []
    for k in ARMS:
        for name, by_arms in BANDITS.items():
            if x := found.get(f"k = {k}: {name}"):
                made += table_cells(f"k = {k}, n = {{}}: {name}", PULLS, by_arms[ARMS.index(k)], x)
        if x := found.get(f"k = {k}: {FINITE}"):
            note = "not in the paper; over 20 times as many tasks as the other players"
            made.append(of_moments(f"k = {k}, n = {SOLVED}: {FINITE}", x, note=note))
    for name, published in PROCESSES.items():
        if x := found.get(f"MDP: {name}"):
            made += table_cells(f"MDP, n = {{}}: {name}", EPISODES, published, x)
    if OMNISCIENT in found:
        made.append(exact_row(OMNISCIENT, found[OMNISCIENT], 21.852))
    for k in ARMS:
        made += best_of_them(k, made)
    for kind in TWO_ARMS:
        if f"two arms, {kind}" in found:
            made += regret_rows(kind, found[f"two arms, {kind}"])
    return made


def of_moments(label: str, x: Any, i: Any = (), **about: Any) -> Row:
    return Row.summarised(label, float(x["mean"][i]), float(x["deviation"][i]), int(x["tasks"]), "tasks", **about)


def table_cells(label: str, numbers: Sequence[int], published: Sequence[float], x: Measured) -> list[Row]:
    """One cell for each n that was measured, the shortest trials first."""
    return [cell(label.format(n), p, x, i) for i, (n, p, _) in enumerate(zip(numbers, published, x["mean"]))]


def cell(label: str, published: float, x: Measured, i: int) -> Row:
    """One cell of a table."""
    row = of_moments(label, x, i, published=published)
    error = 2**0.5 * float(x["deviation"][i]) / int(x["tasks"]) ** 0.5  # of the difference, theirs being as uncertain
    reached = abs(row.ours - published) <= 3 * error + 0.05
    row.verdict = "reached" if reached or row.ours > published else "short"
    above = "" if reached or row.ours < published else "; above the published value"
    setting = float(x["setting"][i])
    tuned = "" if np.isnan(setting) else f"setting {int(setting) if x['setting'].dtype.kind == 'i' else setting}; "
    row.note = f"{tuned}{(row.ours - published) / error:+.1f} standard errors of the difference{above}"
    return row


def exact_row(label: str, x: Any, exact: float, note: str = "") -> Row:
    """A mean beside what it should be."""
    row = of_moments(label, x, exact=exact, note=note)
    row.verdict = "reached" if abs(row.ours - exact) <= 3 * float(x["deviation"]) / int(x["tasks"]) ** 0.5 else "short"
    return row


def best_of_them(k: int, made: list[Row]) -> list[Row]:
    """The best player of 10 pulls beside Bayes-optimal play."""
    them = [row for row in made if row.label.startswith(f"k = {k}, n = 10:")]
    if not them:
        return []
    best = max(them, key=lambda row: row.ours)
    note = f"{best.label.split(': ')[1]}; exact: Bayes-optimal play, which none can exceed"
    about: Any = {"published": None, "exact": optimum(k), "verdict": "not comparable", "note": note}
    return [replace(best, label=f"k = {k}, n = 10: the best of them", **about)]


@cache
def optimum(arms: int) -> float:
    """Of 10 pulls."""
    return independent_value(arms, 10)


def regret_rows(kind: str, x: Measured) -> list[Row]:
    exact, made = float(x["exact"].sum()), []
    of = lambda name: {key: x[f"{name}: {key}"] for key in ("mean", "deviation", "tasks")}
    if "Bayes-optimal" in x:
        label = f"two {kind} arms, 100 pulls: regret of Bayes-optimal play"
        made.append(exact_row(label, of("Bayes-optimal"), exact, "the exact policy, played"))
    note = "exact: Bayes-optimal play; a good learner lies between the two"
    label = f"two {kind} arms, 100 pulls: regret of Thompson sampling"
    return [*made, of_moments(label, of("Thompson"), exact=exact, note=note)]


# Picture

BELOW: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "fontsize": 9, "ncol": 2}  # a panel's legend


def draw(found: Found) -> dict[str, Any]:
    """Left: 10 pulls as a share of Bayes-optimal play. Middle: regret on two independent arms. Right: random processes,
    reward of each episode."""
    figure, ((left, middle, right),) = subplots(1, 3, width=5.0, height=4.9)
    cells_of = {row.label: row for row in rows(found)}
    names = [name for name in BANDITS if name != "random"]
    for i, name in enumerate(names):
        labels = {j: f"k = {k}, n = 10: {name}" for j, k in enumerate(ARMS)}
        shown = [(j, share_of(cells_of[label], ARMS[j])) for j, label in labels.items() if label in cells_of]
        if shown:
            at = np.array([j for j, _ in shown]) + 0.12 * (i - (len(names) - 1) / 2)
            with_intervals(left, at, [row for _, row in shown], colour(name), name, fmt="o", ms=5, lw=1, capsize=2)
    left.axhline(100, color="black", lw=1.2, ls="--", label="Bayes-optimal play, exact")
    left.set(xticks=range(len(ARMS)), xticklabels=[f"k = {k}" for k in ARMS], xlim=(-0.55, len(ARMS) - 0.45))
    left.set(ylabel="total reward, % of Bayes-optimal play", title="10 pulls of k arms")
    left.legend(**BELOW)

    if x := found.get("two arms, independent"):
        pulls = np.arange(1, len(x["exact"]) + 1)
        for name in ("UCB1", "greedy", "Thompson", "exact"):
            if name in x:
                label = {"UCB1": "UCB1, c = 1", "exact": "Bayes-optimal, exact"}.get(name, name)
                look = {"color": colour("Bayes-optimal"), "ls": "--"} if name == "exact" else {"color": colour(name)}
                middle.plot(pulls, x[name].cumsum(), lw=1.7, label=f"{label}: {x[name].sum():.2f}", **look)
        middle.legend(**BELOW)
        middle.set(xlim=(0, len(pulls) + 1), ylim=(0, None))
    middle.set(xlabel="pull", ylabel="expected regret so far", title="two independent arms")

    for name in PROCESSES:
        if x := found.get(f"MDP: {name}"):
            look = {"color": colour(name.split(",")[0]), "ls": "--" if name == PILING else "-"}
            right.plot(np.arange(1, len(x["by episode"]) + 1), x["by episode"], lw=1.5, label=name, **look)
    if OMNISCIENT in found:
        best = found[OMNISCIENT]["mean"]
        right.axhline(best, color="black", lw=1.2, ls=":", label="best policy of the known process")
    right.set(xlabel="episode", ylabel="reward of the episode", title="random processes")
    right.legend(**BELOW)
    return {"": figure}


def share_of(row: Row, arms: int) -> Row:
    """A row in % of Bayes-optimal play of 10 pulls."""
    percent = 100 / optimum(arms)
    low, high = row.interval or (row.ours, row.ours)
    return replace(row, ours=percent * row.ours, interval=(percent * low, percent * high))


FIGURE = Figure(
    name="rl2_opponents",
    paper=DUAN,
    shows="tables 1 and 2, all columns but RL²",
    parts=parts,
    rows=rows,
    draw=draw,
)
