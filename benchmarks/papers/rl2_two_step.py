"""The two-step task (Wang et al., Learning to reinforcement learn, 2016): does a learned learner use a model?

    python -m benchmarks.papers.rl2_two_step               # 3 seeds
    python -m benchmarks.papers.rl2_two_step --scale smoke

An LSTM of 48 units, trained by advantage actor-critic and tested with frozen weights. A trial is a choice, a common
(3 of 4) or rare transition to one of two states, and a reward with probability 0.9 or 0.1; before each of the 100
trials of an episode the states exchange their probabilities with probability 0.025. How often is a choice repeated
after a reward or none, and a common or rare transition?

Beside it `flat.two_step_learners`: a model-free and a model-based learner, each with the learning rate and temperature
of a grid that pay it most, and the exact belief. Two measurements:

- In the task itself, as in the paper. There even the model-free learner has some interaction of reward and transition,
  because of what it has learned before; so the agent's is compared with that one's.
- With rewards by the toss of a coin, which say nothing about choices. There the interaction of any model-free learner
  is zero, and what is found is due to the last trial alone.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.papers._rl2 import Trained, recorder
from benchmarks.papers.options_planning import pyplot
from benchmarks.results import ROOT, Row, show, write_paper
from jaxrl_envs.tabular_mdp import TwoStep, TwoStepParams
from jaxrl_envs.tasks import single
from jaxrl_envs.trial import Trial
from jaxrl_hier.classical import two_step as two_step_learners
from jaxrl_hier.classical.two_step import interaction, stay_probabilities
from jaxrl_hier.engine.train import RunConfig
from jaxrl_hier.engine.types import Agent
from jaxrl_hier.meta import rl2
from jaxrl_hier.reports.statistics import FRACTION, band

PAPER = "Wang et al., Learning to reinforcement learn (2016)"
STEPS = 200  # two for each trial
TASK = TwoStepParams(common=np.float32(0.75), max_steps_in_episode=STEPS)
COIN = TASK.replace(high=np.float32(0.5), low=np.float32(0.5))
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
    max_grad_norm=40.0,
    eval_tasks=100,
)
ITERATIONS = 1200
LEARNING_RATES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
TEMPERATURES = (0.02, 0.05, 0.1, 0.2)
GROUPS = 40  # of episodes, for the intervals of players that are not trained


@dataclass(frozen=True)
class Arguments:
    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: a minute, to see that it runs"""
    seeds: int = 3
    """independent trainings"""
    episodes: int = 4000
    """that every player is tested on"""
    out: Path = ROOT / "papers"
    """folder for the JSON and the picture"""
    keep: Path | None = None
    """folder for trained agents; a second call does not train them again"""


def main(arguments: Arguments) -> None:
    begun = time.perf_counter()
    smoke = arguments.scale == "smoke"
    count = 400 if smoke else arguments.episodes
    settings = replace(SETTINGS, environments=16) if smoke else SETTINGS
    iterations = 4 if smoke else ITERATIONS
    run = RunConfig(
        iterations=iterations,
        seeds=arguments.seeds,
        log_every=iterations // 4,
        checkpoint_every=iterations // 4,
        tensorboard=False,
    )
    agent = Trained("two-step", settings, TwoStep(), single(TASK), run, arguments.keep)
    played = {"RL²": of_agent(agent, count), **of_references(count)}
    rows = made_rows(played)
    show(rows)
    picture(played, arguments.out / "rl2_two_step.png")
    path = write_paper(
        "rl2_two_step",
        PAPER,
        "stay probabilities in the two-step task",
        rows,
        arguments.scale,
        arguments.out,
        episodes=count,
        trained={"two-step": agent.about()},
        wall_seconds=time.perf_counter() - begun,
    )
    print(path)


@dataclass(frozen=True)
class Played:
    """What a player did in the task and with rewards by the toss of a coin; R seeds, or groups of episodes."""

    stay: np.ndarray  # [R, 2, 2], in the task
    stay_coin: np.ndarray  # [R, 2, 2]
    reward: np.ndarray  # [R] of an episode in the task


def copies(params: TwoStepParams, count: int) -> Any:
    """The same task `count` times."""
    return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x), (count,)), params)


def of_agent(agent: Trained, count: int) -> Played:
    env = Trial(TwoStep(), trial_number=True)
    play = recorder(env, agent.algorithm.agent, STEPS, lambda worlds: worlds.env_state.inner.state)

    def both(task: TwoStepParams) -> tuple[np.ndarray, np.ndarray]:
        batch = jax.vmap(env.params_of)(copies(task, count))
        seen = [play(params, batch) for params in agent.params]
        stay = np.stack([stay_probabilities(state, t.action, t.reward) for state, t in seen])
        return stay, np.array([t.reward.sum(axis=0).mean() for _, t in seen])

    (stay, reward), (stay_coin, _) = both(TASK), both(COIN)
    return Played(stay, stay_coin, reward)


def of_references(count: int) -> dict[str, Played]:
    learners = two_step_learners
    grid = {(a, tau): (jnp.float32(a), jnp.float32(tau)) for a in LEARNING_RATES for tau in TEMPERATURES}
    players: dict[str, tuple[Agent, dict[Any, Any]]] = {  # with the settings to choose from
        "model-free": (learners.model_free(), grid),
        "model-based": (learners.model_based(common=float(TASK.common)), grid),
        "exact belief": (learners.bayes_optimal(TASK), {None: ()}),
    }
    found = {}
    for name, (agent, settings) in players.items():
        play = recorder(TwoStep(), agent, STEPS, lambda worlds: worlds.env_state.state)
        total = lambda seen: seen.reward.sum(axis=0)
        batch = copies(TASK, count)
        rewards = {setting: total(play(params, batch)[1]) for setting, params in settings.items()}
        best = max(rewards, key=lambda setting: rewards[setting].sum())
        stay, stay_coin = (in_groups(*play(settings[best], copies(task, count))) for task in (TASK, COIN))
        reward = rewards[best].reshape(GROUPS, -1).mean(axis=1)
        found[name if best is None else f"{name} (α = {best[0]}, τ = {best[1]})"] = Played(stay, stay_coin, reward)
    return found


def in_groups(state: np.ndarray, seen: Any) -> np.ndarray:
    """Stay probabilities [GROUPS, 2, 2] of as many groups of episodes."""
    cut = lambda x: x.reshape(len(x), GROUPS, -1)
    return np.asarray(jax.vmap(stay_probabilities, 1)(cut(state), cut(seen.action), cut(seen.reward)))


# Rows


def made_rows(played: dict[str, Played]) -> list[Row]:
    rows = []
    free = next(p for name, p in played.items() if name.startswith("model-free"))
    optimum = float(played["exact belief"].reward.mean())
    for name, p in played.items():
        # players that are not trained: one of them, groups of its episodes
        row_of = partial(Row.measured, unit="seeds" if name == "RL²" else "groups of episodes")
        for label, stay in (("in the task", p.stay), ("rewards by the toss of a coin", p.stay_coin)):
            row = row_of(f"{name}, {label}: reward × transition", interaction(stay))
            if name == "RL²":
                at_least = float(interaction(free.stay).mean()) if stay is p.stay else 0.0
                row.judged(f"above {at_least:.4g}")
                row.note = f"reached: the interval lies above a model-free learner's {at_least:.3f}"
            rows.append(row)
            for i, j in np.ndindex(2, 2):
                case = f"{('no reward', 'reward')[i]}, {('rare', 'common')[j]} transition"
                row = row_of(
                    f"{name}, {label}: stays after {case}", stay[:, i, j], statistic="mean inside", bounds=FRACTION
                )
                rows.append(row)
        row = row_of(
            f"{name}: reward of {STEPS // 2} trials", p.reward, exact=optimum, note="exact: the belief, played"
        )
        if name == "RL²":
            row.judged(f"at least {0.95 * optimum:.4g}").note += "; reached: 95 % of it"
        rows.append(row)
    return rows


# Picture


def picture(played: dict[str, Played], path: Path) -> None:
    """A column for each player; above in the task, below with rewards by the toss of a coin."""
    plt = pyplot()
    from jaxrl_hier.reports.plotting import STYLE

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, len(played), figsize=(3.4 * len(played), 6.2), sharey=True)
        for column, (name, p) in zip(axes.T, played.items()):
            for ax, stay in zip(column, (p.stay, p.stay_coin)):
                mean = stay.mean(axis=0)
                half = band(stay.reshape(len(stay), 4))[1].reshape(2, 2) - mean
                for j, (label, color) in enumerate((("rare", "#e8710a"), ("common", "#1f6fb4"))):
                    x = np.array([1, 0]) + (0.2 if j == 0 else -0.2)
                    style = {"error_kw": {"lw": 1, "ecolor": "0.3"}, "capsize": 2, "color": color}
                    ax.bar(x, mean[:, j], 0.38, yerr=half[:, j], label=f"{label} transition", **style)
                value = float(interaction(stay).mean())
                ax.text(0.5, 1.045, f"reward × transition {value:+.2f}", ha="center", va="bottom", fontsize=9)
                ax.set(xticks=[0, 1], xticklabels=["reward", "no reward"], ylim=(0, 1.18), yticks=np.linspace(0, 1, 6))
                ax.grid(False, axis="x")
            column[0].set_title(name.replace(" (", "\n("))
        axes[0, 0].set_ylabel("in the task\nprobability of the same choice")
        axes[1, 0].set_ylabel("rewards by the toss of a coin\nprobability of the same choice")
        handles = axes[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncol=2, fontsize=9)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=140)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
