"""The opponents of RL²: Duan et al., RL²: Fast reinforcement learning via slow reinforcement learning (2016).

    python -m benchmarks.papers.rl2_opponents        # every cell of the opponents, some minutes on two cores
    python -m benchmarks.papers.rl2_opponents --scale smoke

Table 1, Bernoulli bandits with k arms and n pulls, and table 2, random tabular processes with n episodes: total reward
of a trial, mean over 1000 fresh tasks. Nothing here depends on n but the setting that was found best for it, so one run
of the longest trial holds the shorter ones. Settings are tuned over the published grids on other tasks than those that
are reported; the published code reports the best of its grid on the tasks that it was tuned on. For the two samplers
that cost the most, optimistic Thompson sampling and optimistic PSRL, the grid 1..20 is thinned out; these and the
planners are tuned on 250 tasks, whose totals differ little between neighbours of the grid, the others on as many as are
reported.

"Reached" is within three standard errors of the difference between two means over 1000 tasks, and half a unit of the
last printed digit, or above the published value. Exact values stand beside them: Bayes-optimal play of 10 pulls, and
the regret of Bayes-optimal play in 100 pulls of two arms, independent and dependent (Wang et al., Learning to
reinforcement learn, 2016), against which their learners are measured. 100 pulls of more arms, which cannot be solved,
have the finite-horizon Gittins index in its place, over 20 times as many tasks.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.papers._rl2 import standard_error
from benchmarks.papers.options_planning import pyplot
from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_envs.bandits import Bandit, dependent_tasks, independent_tasks
from jaxrl_envs.tabular_mdp import HORIZON, TabularMDP, random_mdp_tasks
from jaxrl_hier.classical import bandits as bandit_opponents
from jaxrl_hier.classical import mdps as mdp_opponents
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.types import Agent, Tasks
from jaxrl_hier.exact.bandits import dependent_arms, gittins_indices, independent_value, two_arms
from jaxrl_hier.exact.tabular import value_sweeps

PAPER = "Duan et al., RL²: Fast reinforcement learning via slow reinforcement learning (2016)"
BATCH = 250  # tasks side by side

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
DEPENDENT: tuple[Literal["uniform", "easy", "medium", "hard"], ...] = ("uniform", "easy", "medium", "hard")
FINITE = "finite-horizon Gittins"
SOLVED = 100  # the pulls that it is solved for: fewer have exact play, more take long
SAMPLES = (1, 2, 3, 4, 5, 7, 10, 15, 20)
FRACTIONS = tuple(i / 10 for i in range(11))
SCALINGS = tuple(np.geomspace(1e-4, 1, 21))


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: seconds, to see that it runs"""
    tasks: int = 1000
    """fresh tasks for each cell; the paper's number"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""


@dataclass(frozen=True)
class Opponent:
    """An agent and the settings to choose from, by what they are called."""

    agent: Agent
    settings: dict[Any, Any]  # name -> params; one entry: nothing to tune
    cheap: bool = False  # tune on as many tasks as are reported, else on one batch


def main(arguments: Arguments) -> None:
    begun = time.perf_counter()
    smoke = arguments.scale == "smoke"
    arms, pulls = (ARMS[:1], PULLS[:1]) if smoke else (ARMS, PULLS)
    episodes = EPISODES[:1] if smoke else EPISODES
    count = BATCH if smoke else arguments.tasks

    rows: list[Row] = []
    for k in arms:
        env, tasks = Bandit(k), independent_tasks(k, pulls[-1])
        for name, opponent in bandit_players(k, pulls[-1]).items():
            published = BANDITS[name][ARMS.index(k)]
            found = best_of(opponent, env, tasks, pulls[-1], pulls, count)[0]
            rows += [cell(f"k = {k}, n = {n}: {name}", *found[n], p) for n, p in zip(pulls, published)]
            show(rows[-len(pulls) :])
        if SOLVED in pulls:
            rows.append(best_known(k, SOLVED, 20 * count))
            show(rows[-1:])
    processes, curves = TabularMDP(), {}
    for name, opponent in process_players(processes).items():
        tasks = random_mdp_tasks(episodes[-1])
        at = [n * HORIZON for n in episodes]
        found, curves[name] = best_of(opponent, processes, tasks, at[-1], at, count)
        rows += [cell(f"MDP, n = {n}: {name}", *found[t], p) for n, t, p in zip(episodes, at, PROCESSES[name])]
        show(rows[-len(episodes) :])
    optimum = omniscient(count)
    rows.append(exact_row("MDP: best policy of the known process, total reward of an episode", optimum, 21.852))
    regrets = wang(100, count)
    rows += optimal_rows(rows, arms, regrets)
    show(rows[-len(regrets) - 1 :])

    picture(rows, arms, regrets, curves, float(optimum.mean()), arguments.out / "rl2_opponents.png")
    path = write_paper(
        "rl2_opponents",
        PAPER,
        "tables 1 and 2, all columns but RL²",
        rows,
        arguments.scale,
        arguments.out,
        tasks=count,
        wall_seconds=time.perf_counter() - begun,
    )
    print(path)


# Players


def bandit_players(arms: int, pulls: int) -> dict[str, Opponent]:
    o = bandit_opponents
    numbers = lambda values: {round(float(v), 4): jnp.float32(v) for v in values}
    discounts = {g: jnp.asarray(gittins_indices(pulls, g), jnp.float32) for g in (0.9, 0.99, 0.999, 0.9999)}
    return {
        "random": fixed(o.random(arms)),
        "Gittins": Opponent(o.gittins(arms, pulls), discounts, cheap=True),
        "Thompson": fixed(o.thompson(arms, pulls)),
        "optimistic Thompson": Opponent(o.optimistic_thompson(arms, pulls), {m: jnp.int32(m) for m in SAMPLES}),
        "UCB1": Opponent(o.ucb1(arms), numbers(FRACTIONS), cheap=True),
        "ε-greedy": Opponent(o.epsilon_greedy(arms), numbers(FRACTIONS), cheap=True),
        "greedy": fixed(o.greedy(arms)),
    }


def process_players(env: TabularMDP) -> dict[str, Opponent]:
    o = mdp_opponents
    numbers = lambda values: {float(f"{v:.3g}"): jnp.float32(v) for v in values}
    return {
        "random": fixed(o.epsilon_greedy(env, 1.0)),
        "PSRL": fixed(o.psrl(env)),
        "optimistic PSRL": Opponent(o.optimistic_psrl(env), {m: jnp.int32(m) for m in SAMPLES}),
        "UCRL2": Opponent(o.ucrl2(env), numbers(SCALINGS)),
        PILING: Opponent(o.ucrl2(env, piling=True), numbers(SCALINGS)),
        "BEB": Opponent(o.beb(env), numbers(SCALINGS)),
        "ε-greedy": Opponent(o.epsilon_greedy(env), numbers(FRACTIONS[1:])),
        "greedy": fixed(o.greedy(env)),
    }


def fixed(agent: Agent) -> Opponent:
    return Opponent(agent, {None: agent.init(jax.random.key(0))})


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


def best_of(
    opponent: Opponent, env: Any, tasks: Tasks, length: int, at: Any, count: int
) -> tuple[dict[int, tuple[np.ndarray, Any]], np.ndarray]:
    """For each number of steps in `at` the totals [count] with the setting that is best for it, and that setting; and
    the rewards [count, length] with the one that is best for the whole length."""
    play = player(opponent.agent, env, tasks, length)
    best = dict.fromkeys(at, next(iter(opponent.settings)))
    if len(opponent.settings) > 1:
        many = count if opponent.cheap else BATCH
        tuned = {name: play(params, many, 1).mean(0).cumsum() for name, params in opponent.settings.items()}
        best = {n: max(tuned, key=lambda name: tuned[name][n - 1]) for n in at}
    rewards = {name: play(opponent.settings[name], count, 0) for name in set(best.values())}
    return {n: (rewards[best[n]][:, :n].sum(axis=1), best[n]) for n in at}, rewards[best[at[-1]]]


def omniscient(count: int) -> np.ndarray:
    """The optimal total reward of an episode in each of `count` random processes, [count]."""
    tasks = random_mdp_tasks()
    params = jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), count))
    sweeps = jax.vmap(lambda P, R: value_sweeps(P, R, 1.0, HORIZON)[-1, 0])
    return np.asarray(sweeps(params.transitions, params.rewards))


def wang(pulls: int, count: int) -> dict[str, dict[str, Any]]:
    """Two arms, each kind of task: expected regret of each pull, the optimum's [n] and the players' [count, n]."""
    o = bandit_opponents
    optimal, policy = two_arms(pulls)
    everyone = {
        "Bayes-optimal": (o.bayes_optimal(pulls), jnp.asarray(policy)),
        "Thompson": (o.thompson(2, pulls), ()),
        "UCB1": (o.ucb1(2), jnp.float32(1)),
        "greedy": (o.greedy(2), ()),
        "random": (o.random(2), ()),
    }
    regrets: dict[str, dict[str, Any]] = {}
    kinds = {"independent": (independent_tasks(2, pulls), optimal)}
    kinds |= {kind: (dependent_tasks(kind, pulls), dependent_arms(kind, pulls)) for kind in DEPENDENT}
    for kind, (tasks, play) in kinds.items():
        regrets[kind] = {"exact": play.regret}
        for name, (agent, params) in everyone.items():
            if kind == "independent" or name == "Thompson":
                regrets[kind][name] = expected_regret(agent, params, tasks, pulls, count)
    return regrets


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


def cell(label: str, totals: np.ndarray, setting: Any, published: float) -> Row:
    """One cell of a table."""
    row = Row.measured(label, totals, published=published, unit="tasks")
    error = 2**0.5 * standard_error(totals)  # of the difference, theirs being as uncertain
    away = (row.ours - published) / error
    reached = abs(row.ours - published) <= 3 * error + 0.05
    row.verdict = "reached" if reached or row.ours > published else "short"
    above = "" if reached or row.ours < published else "; above the published value"
    tuned = "" if setting is None else f"setting {setting}; "
    row.note = f"{tuned}{away:+.1f} standard errors of the difference{above}"
    return row


def best_known(arms: int, pulls: int, count: int) -> Row:
    """What the finite-horizon Gittins index gets, which the paper does not have."""
    agent = bandit_opponents.finite_horizon_gittins(arms, pulls)
    play = player(agent, Bandit(arms), independent_tasks(arms, pulls), pulls)
    totals = play(agent.init(jax.random.key(0)), count, 0).sum(axis=1)
    note = "not in the paper; over 20 times as many tasks as the other players"
    return Row.measured(f"k = {arms}, n = {pulls}: {FINITE}", totals, unit="tasks", note=note)


def exact_row(label: str, values: np.ndarray, exact: float, note: str = "") -> Row:
    """A mean beside what it should be."""
    row = Row.measured(label, values, exact=exact, unit="tasks", note=note)
    row.verdict = "reached" if abs(row.ours - exact) <= 3 * standard_error(values) else "short"
    return row


def optimal_rows(rows: list[Row], arms: Any, regrets: dict[str, dict[str, Any]]) -> list[Row]:
    """Bayes-optimal play, exact, and the best opponent beside it."""
    made = []
    for k in arms:
        exact = independent_value(k, 10)
        best = max((row for row in rows if row.label.startswith(f"k = {k}, n = 10:")), key=lambda row: row.ours)
        row = replace(best, label=f"k = {k}, n = 10: the best of them", published=None, exact=exact)
        row.verdict = "not comparable"
        row.note = f"{best.label.split(': ')[1]}; exact: Bayes-optimal play, which none can exceed"
        made.append(row)
    for kind, found in regrets.items():
        exact = float(found["exact"].sum())
        if "Bayes-optimal" in found:
            label = f"two {kind} arms, 100 pulls: regret of Bayes-optimal play"
            made.append(exact_row(label, found["Bayes-optimal"].sum(axis=1), exact, "the exact policy, played"))
        row = exact_row(f"two {kind} arms, 100 pulls: regret of Thompson sampling", found["Thompson"].sum(1), exact)
        row.verdict, row.note = "not comparable", "exact: Bayes-optimal play; a good learner lies between the two"
        made.append(row)
    return made


# Picture

COLOURS = {
    "Bayes-optimal": "black",
    "Gittins": "#1f6fb4",
    FINITE: "black",
    "Thompson": "#e8710a",
    "optimistic Thompson": "#b5501b",
    "UCB1": "#2c9a6b",
    "ε-greedy": "#b59a00",
    "greedy": "#8a5fbf",
    "random": "0.6",
    "PSRL": "#e8710a",
    "optimistic PSRL": "#b5501b",
    "UCRL2": "#2c9a6b",
    PILING: "#9ccfb8",
    "BEB": "#1f6fb4",
}


def picture(
    rows: list[Row], arms: Any, regrets: dict[str, Any], curves: dict[str, np.ndarray], optimum: float, path: Path
) -> None:
    """Left: 10 pulls as a share of Bayes-optimal play. Middle: regret on two independent arms. Right: random processes,
    reward of each episode."""
    plt = pyplot()
    from jaxrl_hier.reports.plotting import STYLE

    with plt.rc_context(STYLE):
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14.5, 4.6))
        names = [name for name in BANDITS if name != "random"]
        for i, name in enumerate(names):
            cells = {row.label: row for row in rows}
            shown = [cells[f"k = {k}, n = 10: {name}"] for k in arms]
            best = np.array([independent_value(k, 10) for k in arms])
            share = np.array([row.ours for row in shown]) / best
            half = np.array([np.ptp(row.interval or 0.0) / 2 for row in shown]) / best
            x = np.arange(len(arms)) + 0.12 * (i - (len(names) - 1) / 2)
            left.errorbar(x, 100 * share, 100 * half, fmt="o", ms=5, color=COLOURS[name], label=name, capsize=2, lw=1)
        left.axhline(100, color="black", lw=1.2)
        left.text(-0.5, 100.3, "Bayes-optimal", va="bottom", fontsize=9)
        left.set(xticks=range(len(arms)), xticklabels=[f"k = {k}" for k in arms], xlim=(-0.55, len(arms) - 0.45))
        left.set(ylabel="total reward, % of Bayes-optimal play", title="10 pulls of k arms")
        left.set(ylim=(68, 103))
        left.legend(loc="lower center", fontsize=9, ncol=3)

        independent = regrets["independent"]
        pulls = np.arange(1, len(independent["exact"]) + 1)
        curve = {name: independent[name].mean(axis=0).cumsum() for name in ("UCB1", "greedy", "Thompson")}
        curve["Bayes-optimal"] = independent["exact"].cumsum()
        for name, values in curve.items():
            label = f"{name}{', c = 1' if name == 'UCB1' else ''}: {values[-1]:.2f}"
            middle.plot(pulls, values, color=COLOURS[name], lw=1.7, label=label)
        middle.legend(loc="upper left", fontsize=9)
        middle.set(xlabel="pull", ylabel="expected regret so far", title="two independent arms, 100 pulls")
        middle.set(xlim=(0, 101), ylim=(0, None))

        for name, rewards in curves.items():
            by_episode = rewards.reshape(len(rewards), -1, HORIZON).sum(axis=2).mean(axis=0)
            right.plot(np.arange(1, len(by_episode) + 1), by_episode, color=COLOURS[name], lw=1.5, label=name)
        right.axhline(optimum, color="black", lw=1.2)
        right.text(1, optimum + 0.2, "best policy of the known process", fontsize=9, va="bottom")
        right.set(xlabel="episode", ylabel="reward of the episode", title="random processes")
        right.set(ylim=(9, optimum + 1.5))
        right.legend(loc="lower right", fontsize=9, ncol=2, bbox_to_anchor=(1.0, 0.1))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
