"""Learning to reinforcement learn (Wang et al., 2016): two-armed bandits, an informative arm, arms that drift.

An LSTM of 48 units, trained by advantage actor-critic on episodes of 100 pulls and tested with frozen weights on fresh
tasks, actions drawn. Input: previous action, previous reward, and how much of the episode is over. One agent for each
distribution of tasks: independent arms, and dependent ones, p₂ = 1 − p₁, with p₁ uniform, or easy, medium, hard.

- Expected regret so far, pull by pull, beside that of Bayes-optimal play, which is exact and a lower bound, and that of
  Gittins indices, Thompson sampling and UCB1, which assume independent arms. Gittins' discount and UCB1's width are the
  best of their grids, on the tasks reported.
- Each of the five agents on each of the five distributions.
- The informative arm: ten arms of which one pays 5 and the others 1, and an eleventh that pays a tenth of the good
  one's number. Best play pulls that one first. Departure: a layer of ReLU between input and LSTM.
- Arms that drift, beside Rescorla and Wagner's rule with the best learning rate and temperature of a grid, on the tasks
  reported, and beside the exact belief.
- What the hidden state holds: its principal components over an episode, coloured by the posterior of a Bayesian.

All players have the same 4 000 tasks. Every seed that was trained is reported. The paper trains 100 random settings and
shows the best five by their first 150 test episodes; here one setting was chosen by a few short trainings on
independent arms. It trains on 20 000 episodes, here on more: iterations × `environments`, see AGENTS.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.bandits import (
    VOLATILITIES,
    Bandit,
    RestlessBandit,
    dependent_tasks,
    independent_tasks,
    informative_tasks,
    restless_tasks,
)
from jaxrl_envs.tasks import Tasks
from jaxrl_envs.trial import Trial
from jaxrl_hier import Run
from jaxrl_hier.classical import bandits as players
from jaxrl_hier.exact.bandits import dependent_arms, two_arms
from jaxrl_hier.reports.statistics import FRACTION

from ..drawing import colour, curve, legend_below, subplots
from ..figure import Computation, Figure, Found, Measured, Scale, Training
from ..results import Row
from ._rl2 import WANG, WANG_SETTINGS, each_seed, fresh, pooled_deviation, recorder, standard_error
from .rl2_opponents import bandit_player

PULLS = 100
KINDS = ("independent", "uniform", "easy", "medium", "hard")
HIDDEN = KINDS[:2]  # whose hidden states are looked at
# iterations, and settings. Exploring is rewarded less and less, and no more in the last tenth; at first more where more
# is to be found out, or to be gained by it.
# Which of ten arms is meant is a number from 0.1 to 1; an LSTM that sees it through one linear map did not learn to
# tell the ten apart, with three weights of the entropy and up to 25 million steps
AGENTS: dict[str, tuple[int, dict[str, Any]]] = {
    "independent": (2500, {"entropy_weight": 0.3}),
    "uniform": (1200, {"entropy_weight": 0.3}),
    "easy": (800, {}),
    "medium": (800, {}),
    "hard": (1600, {}),
    "informative": (3000, {"entropy_weight": 1.0, "encoder_hidden": (64,), "environments": 512}),  # trials of 5 pulls
    "restless": (1000, {}),
}
CLASSICAL = ("Gittins", "Thompson", "UCB1")
OTHERS = "drifting arms, other players"
RESCORLA_WAGNER = [(i / 10, temperature) for i in range(1, 11) for temperature in (0.01, 0.05, 0.1, 0.2)]
BEST_OF_5 = 0.55 + 4 * 5  # return of 5 pulls with an informative arm: the informative arm, then the target
DRAWN = 50  # tasks whose hidden states are drawn


def parts(scale: Scale) -> dict[str, Any]:
    smoke = scale == "smoke"
    small = {"environments": 4, "memory_size": 8} if smoke else {}
    count = 100 if smoke else 4000
    found: dict[str, Any] = {}
    for name in ("uniform",) if smoke else AGENTS:
        iterations, settings = (2 if smoke else AGENTS[name][0]), WANG_SETTINGS | AGENTS[name][1] | small
        settings["entropy_decay_iterations"] = iterations * 9 // 10
        measure = {"informative": informative, "restless": drifting}.get(name)
        measure = measure or partial(tested, on=("uniform",) if smoke else KINDS, own=name)
        about: dict[str, Any] = {"points": 2 if smoke else 10, "curves": ()}
        found[name] = Training(
            "rl2", settings, iterations, f"bandit-{name}", measure=partial(measure, count=count), **about
        )
    kinds, names = (("uniform",), ("Thompson",)) if smoke else (KINDS, CLASSICAL)
    found |= {name: Computation(classical, {"name": name, "kinds": kinds, "count": count}, seeds=0) for name in names}
    others = Computation(drifting_players, {"count": count, "grid": RESCORLA_WAGNER}, seeds=0)
    return found if smoke else found | {OTHERS: others}


# Two arms


def tasks_of(kind: Any) -> Tasks:
    return independent_tasks(2, PULLS) if kind == "independent" else dependent_tasks(kind, PULLS)


@cache
def exact_regret(kind: Any) -> np.ndarray:
    """Of Bayes-optimal play, expected, [PULLS]."""
    return two_arms(PULLS)[0].regret if kind == "independent" else dependent_arms(kind, PULLS).regret


def regret_of(p: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """What each pull falls short of the better arm in expectation, [tasks, pulls], of [pulls, tasks, ...]."""
    return (p.max(axis=-1) - np.take_along_axis(p, actions[..., None], -1)[..., 0]).T


def tested(run: Run, on: tuple[str, ...], own: str, count: int) -> dict[str, np.ndarray]:
    """Mean total regret on fresh tasks of each kind [seeds]; of the own kind also its deviation over tasks [seeds], and
    the mean regret of each pull [seeds, PULLS]."""
    env = Trial(Bandit(2), trial_number=True)
    play = recorder(env, run.algorithm.agent, PULLS, lambda worlds: worlds.task.task.probabilities)
    found = {"tasks": np.full(run.settings.seeds, count)}
    for kind in on:
        batch = fresh(env.tasks_of(tasks_of(kind)), count)
        played = (play(params, batch) for params in each_seed(run))
        regret = np.stack([regret_of(p, seen.action) for p, seen in played])
        found[f"on {kind}"] = regret.sum(axis=2).mean(axis=1)
        if kind == own:
            found["deviation"] = regret.sum(axis=2).std(axis=1, ddof=1)
            found["regret"] = regret.mean(axis=1)
    return found | (hidden_states(run, own) if own in HIDDEN else {})


def classical(name: str, kinds: tuple[str, ...], count: int) -> dict[str, np.ndarray]:
    """For each kind of task mean and deviation over tasks of the total regret, and the mean regret of each pull, with
    the setting that has the least."""
    agent, settings, _ = bandit_player(name, 2, PULLS)
    play = recorder(Bandit(2), agent, PULLS, lambda worlds: worlds.task.probabilities)
    found = {"tasks": np.array(count)}
    for kind in kinds:
        batch = fresh(tasks_of(kind), count)
        played = {setting: play(params, batch) for setting, params in settings.items()}
        regret = {setting: regret_of(p, seen.action) for setting, (p, seen) in played.items()}
        best = min(regret, key=lambda setting: regret[setting].sum())
        total = regret[best].sum(axis=1)
        found |= {f"{kind}: mean": total.mean(), f"{kind}: deviation": total.std(ddof=1)}
        found |= {f"{kind}: setting": np.array(best or 0.0), f"{kind}: regret": regret[best].mean(axis=0)}
    return found


# The informative arm, and arms that drift


def informative(run: Run, count: int) -> dict[str, np.ndarray]:
    """Shares of first pulls [seeds, 11] and of later ones that hit the target [seeds], and the return [seeds]."""
    env = Trial(Bandit(11), trial_number=True)
    play = recorder(env, run.algorithm.agent, 5, lambda worlds: worlds.task.task.payouts)
    batch = fresh(env.tasks_of(informative_tasks()), count)
    found = []
    for params in each_seed(run):
        payouts, seen = play(params, batch)
        target = payouts[0, :, :10].argmax(axis=1)
        first = np.bincount(seen.action[0], minlength=11) / count
        found.append((first, np.mean(seen.action[1:] == target), seen.reward.sum(axis=0).mean()))
    return {name: np.array(values) for name, values in zip(("first", "then", "total"), zip(*found))}


def drifting(run: Run, count: int) -> dict[str, np.ndarray]:
    """Total regret of each seed's agent in the tasks, [seeds, count]."""
    env = Trial(RestlessBandit(), trial_number=True)
    play = recorder(env, run.algorithm.agent, PULLS, lambda worlds: worlds.env_state.inner.probabilities)
    batch = fresh(env.tasks_of(restless_tasks(PULLS)), count)
    return {"total": np.stack([total_regret(play(params, batch)) for params in each_seed(run)])}


def drifting_players(count: int, grid: list[tuple[float, float]]) -> dict[str, np.ndarray]:
    """Total regret of each other player in the tasks, [count]."""
    batch = fresh(restless_tasks(PULLS), count)

    def regret_with(agent: Any) -> Callable[[Any], np.ndarray]:
        play = recorder(RestlessBandit(), agent, PULLS, lambda worlds: worlds.env_state.probabilities)
        return lambda params: total_regret(play(params, batch))

    rescorla_wagner = regret_with(players.rescorla_wagner(2))
    tried = {setting: rescorla_wagner(tuple(map(jnp.float32, setting))) for setting in grid}
    best = min(tried, key=lambda setting: tried[setting].sum())
    optimal = players.restless_optimal(tuple(VOLATILITIES.values()))
    return {
        "exact belief": regret_with(optimal)(optimal.init(jax.random.key(0))),
        "Rescorla-Wagner": tried[best],
        "UCB1 (c = 1)": regret_with(players.ucb1(2))(jnp.float32(1)),
        "Thompson": regret_with(players.thompson(2, PULLS))(()),
        "setting": np.array(best),
    }


def total_regret(played: tuple[np.ndarray, Any]) -> np.ndarray:
    return regret_of(played[0], played[1].action).sum(axis=1).astype(np.float32)


def of_drifting(found: Found) -> dict[str, np.ndarray]:
    """Total regret of each player by what its row calls it: the agent's [seeds, tasks], the others' [tasks]."""
    agent = {"RL²": found["restless"]["total"]} if "restless" in found else {}
    if OTHERS not in found:
        return agent
    alpha, tau = found[OTHERS]["setting"]
    names = {"Rescorla-Wagner": f"Rescorla-Wagner (α = {alpha:g}, τ = {tau:g})"}
    return agent | {names.get(name, name): x for name, x in found[OTHERS].items() if name != "setting"}


# The hidden state


def hidden_states(run: Run, kind: str, count: int = 400) -> dict[str, np.ndarray]:
    """Of each seed: the share of the posterior's mean of p₁ − p₂ that is linear in the hidden state [seeds], on tasks
    that the line was not fitted to; of the tasks to draw the first two principal components of the hidden state after
    each pull [seeds, pulls, DRAWN, 2], the share of the variance in them [seeds, 2], and the posterior's mean."""
    env = Trial(Bandit(2), trial_number=True)
    record = lambda worlds: worlds.carry[0][1]  # h of the LSTM; the carry is (c, h)
    play, batch = recorder(env, run.algorithm.agent, PULLS, record), fresh(env.tasks_of(tasks_of(kind)), count)
    found = []
    for params in each_seed(run):
        h, seen = play(params, batch)
        h = h[2:]  # what is in the carry before step t has seen the pulls up to t − 2
        mean = posterior(kind, seen)[: len(h)]
        flat = h.reshape(-1, h.shape[-1])
        _, size, directions = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
        at = (h - flat.mean(axis=0)) @ directions[:2].T
        if np.corrcoef(at[..., 0].ravel(), mean.ravel())[0, 1] < 0:
            at[..., 0] *= -1  # a component's sign means nothing: the first arm's side is on the right
        drawn = at[:, :DRAWN].astype(np.float16), mean[:, :DRAWN].astype(np.float16)
        found.append((linear_share(h, mean), *drawn, size[:2] ** 2 / np.sum(size**2)))
    names = ("linear share", "components", "posterior", "variance")
    return {name: np.stack(values) for name, values in zip(names, zip(*found))}


def posterior(kind: str, seen: Any) -> np.ndarray:
    """The mean of p₁ − p₂ after each pull, for a Bayesian who knows the kind of task, [pulls, tasks]."""
    paid, arm = seen.reward > 0, seen.action == 0
    if kind == "independent":
        mean = lambda of: (np.cumsum(paid & of, 0) + 1) / (np.cumsum(of, 0) + 2)
        return mean(arm) - mean(~arm)
    # either arm speaks for p₁ or against it
    return 2 * (np.cumsum(paid == arm, 0) + 1) / (np.arange(1, PULLS + 1)[:, None] + 2) - 1


def linear_share(h: np.ndarray, posterior: np.ndarray) -> float:
    """R² of least squares over the first half of the tasks, on the second."""
    half = h.shape[1] // 2
    features = lambda x: np.column_stack([x.reshape(-1, x.shape[-1]), np.ones(x[..., 0].size)])
    line = np.linalg.lstsq(features(h[:, :half]), posterior[:, :half].ravel(), rcond=None)[0]
    missed = posterior[:, half:].ravel() - features(h[:, half:]) @ line
    return float(1 - missed.var() / posterior[:, half:].var())


# Rows


def rows(found: Found) -> list[Row]:
    agents = [kind for kind in KINDS if kind in found]
    made = [row for kind in KINDS for row in regret_rows(kind, found)]
    for on in KINDS:
        for kind in agents:
            if f"on {on}" in found[kind]:
                label, exact = f"trained on {kind}, tested on {on}: regret", float(exact_regret(on).sum())
                made.append(Row.measured(label, found[kind][f"on {on}"], exact=exact))
    if "informative" in found:
        made += informative_rows(found["informative"])
    made += drifting_rows(of_drifting(found))
    for kind in HIDDEN:
        if kind in found:
            label = f"{kind}: share of the posterior mean of p₁ − p₂ that is linear in the hidden state"
            note = "R² of least squares over 200 tasks, on 200 others; first seed"
            share, method = float(found[kind]["linear share"][0]), "no interval: one seed"
            made.append(Row.computed(label, share, seeds=1, note=note, method=method))
    return made


def regret_rows(kind: str, found: Found) -> list[Row]:
    """The agent where it was trained, and its opponents there."""
    exact, made = float(exact_regret(kind).sum()), []
    opponents = [name for name in CLASSICAL if f"{kind}: mean" in found.get(name, {})]
    if kind in found:
        measured = found[kind]
        total, count = measured[f"on {kind}"], measured["tasks"][0]
        row = Row.measured(f"{kind}: RL²", total, exact=exact)
        below = (row.ours - exact) / (
            pooled_deviation(total, measured["deviation"], count) / measured["tasks"].sum() ** 0.5
        )
        row.note = "exact: Bayes-optimal"
        if "Thompson" in opponents:
            thompson = float(found["Thompson"][f"{kind}: mean"])
            row.note += f"; Thompson {thompson:.3f}"
            row.verdict = "reached" if row.ours < thompson and below > -3 else "short"
        if below <= -3:
            row.note += f"; {-below:.1f} standard errors below what is possible: a leak"
        made.append(row)
    for name in opponents:
        x = found[name]
        label = {"Gittins": "Gittins (γ = {:g})", "Thompson": "Thompson", "UCB1": "UCB1 (c = {:g})"}[name]
        label = f"{kind}: {label.format(x[f'{kind}: setting'])}"
        moments = float(x[f"{kind}: mean"]), float(x[f"{kind}: deviation"]), int(x["tasks"])
        made.append(Row.summarised(label, *moments, "tasks", exact=exact))
    return made


def informative_rows(measured: Measured) -> list[Row]:
    made = [
        Row.measured(f"informative arm: {what}", values, exact=exact, statistic=statistic, bounds=bounds)
        for what, values, exact, statistic, bounds in (
            ("share of first pulls", measured["first"][:, 10], 1.0, "mean", FRACTION),  # an agent asks, or does not
            ("share of later pulls that hit the target", measured["then"], 1.0, "mean inside", FRACTION),
            ("return of 5 pulls", measured["total"], BEST_OF_5, "mean", None),
        )
    ]
    for row in made:
        row.judged(f"at least {0.99 * (row.exact or 0):.4g}").note = "exact: best play; reached: 99 % of best play"
    return made


def drifting_rows(total: dict[str, np.ndarray]) -> list[Row]:
    made = []
    if "RL²" in total:
        ours = total["RL²"].astype(float)
        row = Row.measured("drifting arms: regret of RL²", ours.mean(axis=1))
        if len(total) > 1:
            row.exact = float(total["exact belief"].astype(float).mean())
            best = min(float(x.astype(float).mean()) for name, x in total.items() if name.startswith("Rescorla"))
            possible = row.ours - row.exact > -3 * standard_error(ours.mean(axis=0) - total["exact belief"])
            row.verdict = "reached" if row.ours < best and possible else "short"
            row.note = f"exact: the belief, played; reached: below Rescorla-Wagner's {best:.3f}"
        made.append(row)
    others = {name: x.astype(float) for name, x in total.items() if name != "RL²"}
    return made + [Row.measured(f"drifting arms: regret of {name}", x, unit="tasks") for name, x in others.items()]


# Pictures


def draw(found: Found) -> dict[str, Any]:
    return {"": curves(found), "tasks": tables(found), "hidden": hidden(found)}


def curves(found: Found) -> Any:
    """Expected regret so far, a panel for each kind of task."""
    pulls = np.arange(1, PULLS + 1)
    figure, axes = subplots(1, len(KINDS), width=3.4, height=3.8)
    for ax, kind in zip(axes[0], KINDS):
        for name in CLASSICAL:
            if f"{kind}: regret" in found.get(name, {}):
                ax.plot(pulls, found[name][f"{kind}: regret"].cumsum(), color=colour(name), lw=1.3, label=name)
        if kind in found:
            curve(ax, pulls, found[kind]["regret"].cumsum(axis=1), "RL²", lw=1.8)
        ax.plot(
            pulls, exact_regret(kind).cumsum(), color=colour("Bayes-optimal"), ls="--", label="Bayes-optimal, exact"
        )
        title = "independent arms" if kind == "independent" else f"p₂ = 1 − p₁, {kind}"
        ax.set(xlabel="pull", title=title, xlim=(0, PULLS), ylim=(0, None))
    axes[0, 0].set_ylabel("expected regret so far")
    legend_below(figure, axes, 5)
    return figure


def tables(found: Found) -> Any:
    """Left: each agent on each kind of task. Middle: an informative arm. Right: arms that drift."""
    figure, ((left, middle, right),) = subplots(1, 3, figsize=(16.5, 4.8), width_ratios=(1.25, 0.85, 1))
    exact = np.array([exact_regret(kind).sum() for kind in KINDS])
    mean = lambda a, b: found[a][f"on {b}"].mean() if a in found and f"on {b}" in found[a] else np.nan
    regret = np.array([[mean(a, b) for b in KINDS] for a in KINDS])
    above = regret - exact
    image = left.imshow(above, cmap="YlGnBu", vmin=0)
    for (i, j), value in np.ndenumerate(regret):
        dark = above[i, j] > 0.6 * np.nanmax(above)
        if np.isfinite(value):
            left.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black")
    labels = [f"{kind}\n({value:.2f})" for kind, value in zip(KINDS, exact)]
    left.set_xticks(range(5), labels, fontsize=9)
    left.set(yticks=range(5), yticklabels=KINDS, xlabel="tested on (Bayes-optimal regret)", ylabel="trained on")
    left.set_title("regret of 100 pulls")
    left.grid(False)
    figure.colorbar(image, ax=left, label="above Bayes-optimal", shrink=0.9)

    if "informative" in found:
        made = informative_rows(found["informative"])
        bars(middle, ["first pulls on\nthe informative arm", "later pulls\non the target", "return"], made, "RL²", True)
        middle.axvline(100, color="black", ls="--", lw=1.2, label="best play")
        middle.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14))
    middle.set(xlabel="% of best play", title="an informative arm, 5 pulls", xlim=(0, 112))

    made = drifting_rows(of_drifting(found))
    names = [row.label.removeprefix("drifting arms: regret of ") for row in made]
    bars(right, [name.replace(" (", "\n(") for name in names], made)
    right.set(xlabel="expected regret of 100 pulls", title="arms that drift")
    return figure


def bars(ax: Any, names: list[str], made: list[Row], method: str = "", percent: bool = False) -> None:
    """A horizontal bar for each row with its interval and value, the first on top."""
    for y, (name, row) in enumerate(zip(names, made)):
        scale = 100 / row.exact if percent and row.exact else 1.0
        color = colour(method or name.split("\n")[0], "black")
        error = scale * np.abs(np.array(row.interval or (row.ours, row.ours)) - row.ours)[:, None]
        look: dict[str, Any] = {"height": 0.62, "error_kw": {"lw": 1, "ecolor": "0.35", "capsize": 3}}
        ax.barh(y, scale * row.ours, xerr=error, color=color, **look)
        text = f"{scale * row.ours:.1f} %" if percent else f"{row.ours:.2f}"
        ax.text(0.02, y, text, transform=ax.get_yaxis_transform(), color="white", va="center", fontsize=9)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.grid(False, axis="y")


def hidden(found: Found) -> Any:
    """The first two principal components of the first seed's hidden state after each pull; lines: three tasks."""
    titles = {"independent": "independent arms", "uniform": "p₂ = 1 − p₁, p₁ uniform"}
    figure, axes = subplots(1, 2, width=5.7, height=4.8)
    for ax, kind in zip(axes[0], HIDDEN):
        if kind not in found:
            continue
        at, mean = (found[kind][name][0].astype(float) for name in ("components", "posterior"))
        order = np.random.default_rng(0).permutation(mean.size)
        style: dict[str, Any] = {"cmap": "coolwarm", "vmin": -1, "vmax": 1, "s": 8, "lw": 0, "rasterized": True}
        points = ax.scatter(*at.reshape(-1, 2)[order].T, c=mean.ravel()[order], **style)
        for task, color in zip(range(3), ("black", "0.35", "0.6")):
            label = "an episode; dot: its end" if task == 0 else None
            ax.plot(*at[:, task].T, color=color, lw=0.8, marker="o", markevery=[-1], ms=5, mec="white", label=label)
        part = found[kind]["variance"][0]
        ax.set(xlabel=f"first component ({part[0]:.0%})", ylabel=f"second component ({part[1]:.0%})")
        ax.set_title(f"{titles[kind]}: linear read-out R² = {found[kind]['linear share'][0]:.2f}")
        ax.legend(loc="lower right", fontsize=9)
        if kind == "uniform" or "uniform" not in found:
            figure.colorbar(points, ax=axes, label="posterior mean of p₁ − p₂")
    return figure


FIGURE = Figure(
    name="rl2_wang",
    paper=WANG,
    shows="regret on two-armed bandits, training and testing on different ones, the informative arm, drifting arms",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=10,
)
