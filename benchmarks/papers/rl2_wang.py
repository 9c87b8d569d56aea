"""Learning to reinforcement learn (Wang et al., 2016): two-armed bandits, an informative arm, arms that drift.

    python -m benchmarks.papers.rl2_wang                 # 3 seeds
    python -m benchmarks.papers.rl2_wang --scale smoke

An LSTM of 48 units, trained by advantage actor-critic on episodes of 100 pulls and tested with frozen weights on fresh
tasks, actions drawn. Input: previous action, previous reward, and how much of the episode is over. One agent for each
distribution of tasks: independent arms, and dependent ones, p₂ = 1 − p₁, with p₁ uniform, or easy, medium, hard.

- Expected regret so far, pull by pull, beside Bayes-optimal play, which is exact and below which nobody can be, and
  beside Gittins indices, Thompson sampling and UCB1, which take arms for independent. Gittins' discount and UCB1's
  width are the best of their grids, on the tasks reported.
- Each of the five agents on each of the five distributions.
- The informative arm: ten arms of which one pays 5 and the others 1, and an eleventh that pays a tenth of the good
  one's number. Best play pulls that one first. Departure: a layer of ReLU between input and LSTM.
- Arms that drift, beside Rescorla and Wagner's rule with the best learning rate and temperature of a grid, on the tasks
  reported, and beside the exact belief.
- What the hidden state holds: its principal components over an episode, coloured by the posterior of a Bayesian.

All players have the same 4 000 tasks. Every seed that was trained is reported. The paper trains 100 random settings and
shows the best five by their first 150 test episodes; here one setting was chosen by a few short trainings on
independent arms. It trains on 20 000 episodes, here on more: `environment_steps_of_each_seed`.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.papers._rl2 import Trained, fresh, recorder, standard_error
from benchmarks.papers.options_planning import pyplot
from benchmarks.results import ROOT, Row, show, write_paper
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
from jaxrl_hier.classical import bandits as bandit_opponents
from jaxrl_hier.engine.train import RunConfig
from jaxrl_hier.engine.types import Agent, World
from jaxrl_hier.exact.bandits import dependent_arms, gittins_indices, two_arms
from jaxrl_hier.meta import rl2
from jaxrl_hier.reports.statistics import FRACTION, mean

PAPER = "Wang et al., Learning to reinforcement learn (2016)"
PULLS = 100
KINDS = ("independent", "uniform", "easy", "medium", "hard")
# the paper fixes learner, memory, size and inputs; the rest is from its ranges, or chosen as the module says
SETTINGS = rl2.Config(
    learner="a2c",
    trial_number=True,
    memory="lstm",
    memory_size=48,
    separate_critic=False,
    environments=64,
    discount=0.9,
    gae_lambda=1.0,
    critic_weight=0.05,
    value_scale=10.0,
    entropy_weight=0.05,
    optimizer="rmsprop",
    learning_rate=2e-3,
    eval_tasks=100,
)
ITERATIONS = {"independent": 2500, "uniform": 1200, "easy": 800, "medium": 800, "hard": 1600}
ITERATIONS |= {"informative": 3000, "restless": 1000}
# at the start; elsewhere there is less to find out, or to gain, by it
ENTROPY = {"independent": 0.3, "uniform": 0.3, "informative": 1.0}
# Which of ten arms is meant is a number from 0.1 to 1; an LSTM that sees it through one linear map did not learn to
# tell the ten apart, with three weights of the entropy and up to 25 million steps
ENCODERS = {"informative": (64,)}
SHORT_TRIALS = 512  # side by side where there are 5 pulls
LEARNING_RATES = tuple(i / 10 for i in range(1, 11))
TEMPERATURES = (0.01, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: a minute, to see that it runs"""
    seeds: int = 3
    """independent trainings of each agent"""
    tasks: int = 4000
    """fresh tasks that every player is tested on"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the pictures"""
    keep: Path | None = None
    """folder for trained agents; a second call does not train them again"""


def main(arguments: Arguments) -> None:
    begun = time.perf_counter()
    smoke = arguments.scale == "smoke"
    count = 200 if smoke else arguments.tasks

    def train(name: str, env: Any, tasks: Tasks, environments: int = SETTINGS.environments) -> Trained:
        iterations = 4 if smoke else ITERATIONS[name]
        stretch = 1 if smoke else 100
        run = RunConfig(
            iterations=iterations,
            seeds=arguments.seeds,
            log_every=stretch,
            checkpoint_every=stretch,
            tensorboard=False,
        )
        # exploring is rewarded less and less, and no more in the last tenth
        settings = replace(
            SETTINGS,
            environments=16 if smoke else environments,
            entropy_weight=ENTROPY.get(name, SETTINGS.entropy_weight),
            entropy_decay_iterations=iterations * 9 // 10,
            encoder_hidden=ENCODERS.get(name, ()),
        )
        return Trained(name, settings, env, tasks, run, arguments.keep)

    agents = {kind: train(kind, Bandit(2), tasks_of(kind)) for kind in KINDS}
    matrix, opponents = tested(agents, count), classical(count)
    rows = regret_rows(matrix, opponents)
    show(rows)
    rows += matrix_rows(matrix)

    informative = train("informative", Bandit(11), informative_tasks(), SHORT_TRIALS)
    first, made = informative_arm(informative, count)
    show(made)
    rows += made
    restless = train("restless", RestlessBandit(), restless_tasks())
    drifting, made = drifting_arms(restless, count)
    show(made)
    rows += made
    hidden = {kind: hidden_states(agents[kind], kind) for kind in ("independent", "uniform")}
    made = [explained(kind, *states) for kind, states in hidden.items()]
    show(made)
    rows += made

    arguments.out.mkdir(parents=True, exist_ok=True)
    curves_picture(matrix, opponents, arguments.out / "rl2_wang.png")
    tables_picture(matrix, first, drifting, arguments.out / "rl2_wang_tasks.png")
    hidden_picture(hidden, arguments.out / "rl2_wang_hidden.png")
    trained = {
        name: agent.about() for name, agent in (agents | {"informative": informative, "restless": restless}).items()
    }
    path = write_paper(
        "rl2_wang",
        PAPER,
        "regret on two-armed bandits, training and testing on different ones, the informative arm, drifting arms",
        rows,
        arguments.scale,
        arguments.out,
        tasks=count,
        trained=trained,
        wall_seconds=time.perf_counter() - begun,
    )
    print(path)


def tasks_of(kind: Any) -> Tasks:
    return independent_tasks(2, PULLS) if kind == "independent" else dependent_tasks(kind, PULLS)


def exact_regret(kind: Any) -> np.ndarray:
    """Of Bayes-optimal play, expected, [PULLS]."""
    return two_arms(PULLS)[0].regret if kind == "independent" else dependent_arms(kind, PULLS).regret


# Play


def regret_of(p: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """What each pull falls short of the better arm in expectation, [tasks, pulls], of [pulls, tasks, ...]."""
    return (p.max(axis=-1) - np.take_along_axis(p, actions[..., None], -1)[..., 0]).T


def tested(agents: dict[str, Trained], count: int) -> dict[tuple[str, str], np.ndarray]:
    """(trained on, tested on) -> regret [seeds, count, PULLS] on fresh tasks."""
    env = Trial(Bandit(2), trial_number=True)
    play = recorder(env, agents["independent"].algorithm.agent, PULLS, lambda worlds: worlds.task.task.probabilities)
    found = {}
    for on in KINDS:
        batch = fresh(env.tasks_of(tasks_of(on)), count)
        for trained, agent in agents.items():
            played = [play(params, batch) for params in agent.params]
            found[trained, on] = np.stack([regret_of(p, seen.action) for p, seen in played])
    return found


def classical(count: int) -> dict[str, dict[str, np.ndarray]]:
    """kind -> opponent, with its setting in its name -> regret [count, PULLS]."""
    o = bandit_opponents
    indices = {g: jnp.asarray(gittins_indices(PULLS, g), jnp.float32) for g in (0.9, 0.99, 0.999, 0.9999)}
    widths = {c / 10: jnp.float32(c / 10) for c in range(11)}
    players: dict[str, tuple[Agent, dict[Any, Any]]] = {  # with the settings to choose from
        "Gittins (γ = {})": (o.gittins(2, PULLS), indices),
        "Thompson": (o.thompson(2, PULLS), {None: ()}),
        "UCB1 (c = {})": (o.ucb1(2), widths),
    }
    found: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in KINDS}
    for name, (agent, settings) in players.items():
        play = recorder(Bandit(2), agent, PULLS, lambda worlds: worlds.task.probabilities)
        for kind in KINDS:
            batch = fresh(tasks_of(kind), count)
            played = {setting: play(params, batch) for setting, params in settings.items()}
            regret = {setting: regret_of(p, seen.action) for setting, (p, seen) in played.items()}
            best = min(regret, key=lambda setting: regret[setting].sum())
            found[kind][name.format(best)] = regret[best]
    return found


# Rows


def regret_rows(matrix: dict[tuple[str, str], np.ndarray], opponents: dict[str, dict[str, np.ndarray]]) -> list[Row]:
    """Each agent where it was trained, and its opponents there."""
    rows = []
    for kind in KINDS:
        exact = float(exact_regret(kind).sum())
        total = matrix[kind, kind].sum(axis=2)  # [seeds, tasks]
        thompson = opponents[kind]["Thompson"].sum(axis=1)
        below = (total.mean() - exact) / standard_error(total)
        row = Row.measured(f"{kind}: RL²", total.mean(axis=1), exact=exact)
        row.note = f"exact: Bayes-optimal; Thompson {thompson.mean():.3f}"
        beats = total.mean() < thompson.mean()
        row.verdict = "reached" if beats and below > -3 else "short"
        if below <= -3:
            row.note += f"; {-below:.1f} standard errors below what is possible: a leak"
        rows.append(row)
        for name, regret in opponents[kind].items():
            rows.append(Row.measured(f"{kind}: {name}", regret.sum(axis=1), exact=exact, unit="tasks"))
    return rows


def matrix_rows(matrix: dict[tuple[str, str], np.ndarray]) -> list[Row]:
    rows = []
    for (trained, on), regret in matrix.items():
        exact = float(exact_regret(on).sum())
        label = f"trained on {trained}, tested on {on}: regret"
        rows.append(Row.measured(label, regret.sum(2).mean(1), exact=exact))
    return rows


def informative_arm(agent: Trained, count: int) -> tuple[np.ndarray, list[Row]]:
    """How often each arm is pulled first [11], over all seeds, and rows."""
    env = Trial(Bandit(11), trial_number=True)
    play = recorder(env, agent.algorithm.agent, 5, lambda worlds: worlds.task.task.payouts)
    batch = fresh(env.tasks_of(informative_tasks()), count)
    share, total, then = [], [], []
    for params in agent.params:
        payouts, seen = play(params, batch)
        target = payouts[0, :, :10].argmax(axis=1)
        share.append(np.bincount(seen.action[0], minlength=11) / count)
        total.append(seen.reward.sum(axis=0).mean())
        then.append(np.mean(seen.action[1:] == target))
    best = 0.55 + 4 * 5
    rows = [
        Row.measured(f"informative arm: {what}", values, exact=exact, statistic=statistic, bounds=bounds)
        for what, values, exact, statistic, bounds in (
            ("share of first pulls", np.array(share)[:, 10], 1.0, "mean", FRACTION),  # an agent asks, or does not
            ("share of later pulls that hit the target", then, 1.0, "mean inside", FRACTION),
            ("return of 5 pulls", total, best, "mean", None),
        )
    ]
    for row in rows:
        assert row.exact is not None
        row.judged(f"at least {0.99 * row.exact:.4g}").note = "exact: best play; reached: 99 % of it"
    return np.mean(share, axis=0), rows


def drifting_arms(agent: Trained, count: int) -> tuple[dict[str, np.ndarray], list[Row]]:
    """Total regret of each player [tasks], that of the agent [seeds, tasks]; and rows."""
    o, tasks, drift = bandit_opponents, restless_tasks(PULLS), RestlessBandit()
    env, batch = Trial(drift, trial_number=True), fresh(tasks, count)
    total = lambda played: regret_of(played[0], played[1].action).sum(axis=1)
    play = recorder(env, agent.algorithm.agent, PULLS, lambda worlds: worlds.env_state.inner.probabilities)
    ours = [total(play(params, fresh(env.tasks_of(tasks), count))) for params in agent.params]

    def opponent(player: Any) -> Any:
        play = recorder(drift, player, PULLS, lambda worlds: worlds.env_state.probabilities)
        return lambda params: total(play(params, batch))

    rescorla_wagner = opponent(o.rescorla_wagner(2))
    tried = {
        (alpha, tau): rescorla_wagner((jnp.float32(alpha), jnp.float32(tau)))
        for alpha in LEARNING_RATES
        for tau in TEMPERATURES
    }
    alpha, tau = min(tried, key=lambda setting: tried[setting].sum())
    optimal = o.restless_optimal(tuple(VOLATILITIES.values()))
    found = {
        "RL²": np.stack(ours),
        "exact belief": opponent(optimal)(optimal.init(jax.random.key(0))),
        f"Rescorla-Wagner (α = {alpha}, τ = {tau})": tried[alpha, tau],
        "UCB1 (c = 1)": opponent(o.ucb1(2))(jnp.float32(1)),
        "Thompson": opponent(o.thompson(2, PULLS))(()),
    }
    exact = float(found["exact belief"].mean())
    row = Row.measured("drifting arms: regret of RL²", found["RL²"].mean(axis=1), exact=exact)
    best = float(tried[alpha, tau].mean())
    possible = row.ours - exact > -3 * standard_error(found["RL²"].mean(axis=0) - found["exact belief"])
    row.verdict = "reached" if row.ours < best and possible else "short"
    row.note = f"exact: the belief, played; reached: below Rescorla-Wagner's {best:.3f}"
    players = {name: x for name, x in found.items() if name != "RL²"}
    others = [Row.measured(f"drifting arms: regret of {name}", x, unit="tasks") for name, x in players.items()]
    return found, [row, *others]


# The hidden state


def hidden_states(agent: Trained, kind: str, count: int = 400) -> tuple[np.ndarray, np.ndarray, float]:
    """Of the first seed: hidden states after each pull [pulls, tasks, H], the posterior's mean of p₁ − p₂ then, and
    the share of its variance that is linear in the hidden state, on tasks that the line was not fitted to."""
    env = Trial(Bandit(2), trial_number=True)

    def record(worlds: World) -> jax.Array:
        return worlds.carry[0][1]  # h of the LSTM; the carry is (c, h)

    play = recorder(env, agent.algorithm.agent, PULLS, record)
    h, seen = play(agent.params[0], fresh(env.tasks_of(tasks_of(kind)), count))
    h = h[2:]  # what is in the carry before step t has seen the pulls up to t − 2
    paid, arm = seen.reward > 0, seen.action == 0
    if kind == "independent":
        mean = lambda of: (np.cumsum(paid & of, 0) + 1) / (np.cumsum(of, 0) + 2)
        posterior = mean(arm) - mean(~arm)
    else:  # either arm speaks for p₁ or against it
        posterior = 2 * (np.cumsum(paid == arm, 0) + 1) / (np.arange(1, PULLS + 1)[:, None] + 2) - 1
    posterior = posterior[: len(h)]
    half = count // 2
    features = lambda x: np.column_stack([x.reshape(-1, x.shape[-1]), np.ones(x[..., 0].size)])
    line = np.linalg.lstsq(features(h[:, :half]), posterior[:, :half].ravel(), rcond=None)[0]
    missed = posterior[:, half:].ravel() - features(h[:, half:]) @ line
    return h, posterior, float(1 - missed.var() / posterior[:, half:].var())


def explained(kind: str, h: np.ndarray, posterior: np.ndarray, share: float) -> Row:
    label = f"{kind}: share of the posterior mean of p₁ − p₂ that is linear in the hidden state"
    note = "R² of least squares over 200 tasks, on 200 others; first seed"
    return Row.computed(label, share, seeds=1, note=note, method="no interval: one seed")


# Pictures

COLOURS = {"RL²": "#1f6fb4", "Gittins": "#2c9a6b", "Thompson": "#e8710a", "UCB1": "#8a5fbf"}


def curves_picture(matrix: dict[tuple[str, str], np.ndarray], opponents: dict[str, Any], path: Path) -> None:
    """Expected regret so far, a panel for each kind of task."""
    plt = pyplot()
    from jaxrl_hier.reports.plotting import STYLE, draw_curve

    pulls = np.arange(1, PULLS + 1)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(KINDS), figsize=(17, 3.8))
        for ax, kind in zip(axes, KINDS):
            for name, regret in opponents[kind].items():
                color = COLOURS[name.split()[0]]
                ax.plot(pulls, regret.mean(axis=0).cumsum(), color=color, lw=1.3, label=name.split()[0])
            draw_curve(ax, pulls, matrix[kind, kind].mean(axis=1).cumsum(axis=1), "RL²", COLOURS["RL²"])
            ax.plot(pulls, exact_regret(kind).cumsum(), color="black", lw=1.6, ls=(0, (4, 2)), label="Bayes-optimal")
            title = "independent arms" if kind == "independent" else f"p₂ = 1 − p₁, {kind}"
            ax.set(xlabel="pull", title=title, xlim=(0, PULLS), ylim=(0, None))
        axes[0].set_ylabel("expected regret so far")
        axes[0].legend(loc="lower right", fontsize=9)
        figure.savefig(path, dpi=140)
        plt.close(figure)


def tables_picture(
    matrix: dict[tuple[str, str], np.ndarray], first: np.ndarray, drifting: dict[str, np.ndarray], path: Path
) -> None:
    """Left: each agent on each kind of task. Middle: first pulls with an informative arm. Right: arms that drift."""
    plt = pyplot()
    from jaxrl_hier.reports.plotting import STYLE

    with plt.rc_context(STYLE):
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(16, 4.6), width_ratios=(1.15, 1, 1))
        regret = np.array([[matrix[a, b].sum(axis=2).mean() for b in KINDS] for a in KINDS])
        exact = np.array([exact_regret(kind).sum() for kind in KINDS])
        image = left.imshow(regret - exact, cmap="YlGnBu", vmin=0)
        dark = (regret - exact) > 0.6 * (regret - exact).max()
        for (i, j), value in np.ndenumerate(regret):
            left.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if dark[i, j] else "black")
        labels = [f"{kind}\n({value:.2f})" for kind, value in zip(KINDS, exact)]
        left.set(xticks=range(5), xticklabels=labels, yticks=range(5), yticklabels=KINDS)
        left.set(xlabel="tested on (Bayes-optimal)", ylabel="trained on", title="regret of 100 pulls")
        left.grid(False)
        figure.colorbar(image, ax=left, label="above Bayes-optimal", shrink=0.9)

        arms = np.arange(1, 12)
        middle.bar(arms, 100 * first, color=["0.7"] * 10 + [COLOURS["RL²"]])
        middle.set(xticks=arms, xlabel="arm; the 11th tells where the target is", ylabel="% of first pulls")
        middle.set(title="first pulls with an informative arm", ylim=(0, 100))

        names = list(drifting)
        totals = [np.asarray(drifting[name]) for name in names]
        means = np.array([x.mean() for x in totals])
        # over seeds where there are several, else over the tasks of the one player
        errors = [np.ptp(mean(x.mean(axis=1) if x.ndim == 2 else x).interval or 0.0) / 2 for x in totals]
        colors = [COLOURS["RL²"], "black", *["0.65"] * (len(names) - 2)]
        y = np.arange(len(names))[::-1]
        right.barh(y, means, xerr=errors, color=colors, height=0.62, error_kw={"lw": 1, "ecolor": "0.35"})
        for at, value in zip(y, means):
            right.text(value + 0.25, at + 0.2, f"{value:.2f}", va="center", fontsize=9)
        right.set(yticks=y, yticklabels=[name.replace(" (", "\n(") for name in names])
        right.set(xlabel="expected regret of 100 pulls", title="arms that drift", xlim=(0, 1.15 * means.max()))
        right.grid(False, axis="y")
        figure.savefig(path, dpi=140)
        plt.close(figure)


def hidden_picture(hidden: dict[str, tuple[np.ndarray, np.ndarray, float]], path: Path) -> None:
    """The first two principal components of the hidden state after each pull."""
    plt = pyplot()
    from jaxrl_hier.reports.plotting import STYLE

    titles = {"independent": "independent arms", "uniform": "p₂ = 1 − p₁, p₁ uniform"}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(11.5, 4.8))
        for ax, (kind, (h, posterior, share)) in zip(axes, hidden.items()):
            flat = h.reshape(-1, h.shape[-1])
            _, size, directions = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
            part = size**2 / np.sum(size**2)
            at = (h - flat.mean(axis=0)) @ directions[:2].T
            if np.corrcoef(at[..., 0].ravel(), posterior.ravel())[0, 1] < 0:
                at[..., 0] *= -1  # a component's sign means nothing: the first arm's side is on the right
            order = np.random.default_rng(0).permutation(posterior.size)
            style = {"cmap": "coolwarm", "vmin": -1, "vmax": 1, "s": 5, "lw": 0, "alpha": 0.7, "rasterized": True}
            points = ax.scatter(*at.reshape(-1, 2)[order].T, c=posterior.ravel()[order], **style)
            for task, color in zip(range(3), ("black", "0.35", "0.6")):
                ax.plot(*at[:, task].T, color=color, lw=0.8)
                ax.plot(*at[-1, task], "o", ms=5, color=color, mec="white", mew=0.7)
            ax.set(xlabel=f"first component ({part[0]:.0%})", ylabel=f"second component ({part[1]:.0%})")
            ax.set_title(f"{titles[kind]}: linear read-out R² = {share:.2f}")
        figure.colorbar(points, ax=axes, label="posterior mean of p₁ − p₂")
        figure.savefig(path, dpi=140)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
