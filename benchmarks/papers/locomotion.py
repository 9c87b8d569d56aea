"""Learning to run, in MuJoCo: MAML, RL² and PEARL on a half-cheetah whose task is hidden, PPO and SAC on one that runs.

Needs the extra `mujoco`. The half-cheetah is version 5 of Gymnasium's; MAML's was rllab's, with other time steps, and
had five times our steps of meta-training. So the published returns (table 5) are compared in shape alone: adaptation
pays, or it does not. Returns after each step of adaptation are compared with that before the first, on the same test
tasks, both directions 20 times.

MAML's settings were chosen by what adaptation added in five short runs of one seed each, four with seed 100 and one
with seed 0: step sizes from 0.1 to 0.3, bounds on the divergence from 0.01 to 0.03, half of the trajectories, PPO
outside, and ProMP.

RL² and PEARL meet speeds as PEARL's paper draws them, 100 to train on and 30 to test, and return is that of each
episode on a new test task. Beside them stands what can be had without knowing the task: the best single speed, from the
first step on and without cost. Who has more knows the task. PEARL's settings are those of a run with seed 100. RL²'s
follow one with that seed whose return rose and fell again: larger minibatches and a falling learning rate are the
answer. A run before it, with whole trials in each gradient step, had learned nothing.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxrl_envs.adapters.locomotion import FAMILIES, LIMIT

from ..drawing import BLUE, GREY, ORANGE, VERMILION, curve, subplots
from ..figure import Figure, Found, Scale, Training
from ..results import Row

MAML, PPO = "MAML, forward or backward", "PPO, forward"
ADAPTED: dict[str, Any] = {"inner_learning_rate": 0.2, "max_kl": 0.02, "fisher_episodes": None}
ADAPTED |= {"episodes_per_task": 20, "meta_batch_size": 20}
# as others train PPO on MuJoCo's robots: a million steps in rollouts of 2048
RUNNING: dict[str, Any] = {
    "environments": 16,
    "rollout_length": 128,
    "epochs": 10,
    "minibatch_size": 64,
    "learning_rate": 3e-4,
    "hidden": (64, 64),
    "normalize_observations": True,
    "normalize_rewards": True,
}
RL2, PEARL, SAC = "RL², at a speed", "PEARL, at a speed", "SAC, forward"
# rollouts of a hundred steps in small minibatches: 24 gradient steps for 3200 steps, a hidden state carried on
IN_CONTEXT: dict[str, Any] = {
    "episodes_per_trial": 2,
    "environments": 32,
    "rollout_length": 100,
    "minibatch_size": 8,
    "epochs": 6,
    "gae_lambda": 0.95,
    "clip": 0.2,
    "learning_rate": 5e-4,
    "learning_rate_schedule": "linear",
    "max_grad_norm": None,
    "encoder_hidden": (64,),
    "normalize_observations": True,
}
BY_BELIEF: dict[str, Any] = {
    "train_tasks": 100,
    "tasks_per_iteration": 5,
    "initial_steps": 200,
    "prior_steps": 200,
    "posterior_steps": 0,
    "extra_posterior_steps": 400,
    "updates": 500,
    "meta_batch_size": 8,
    "batch_size": 64,
    "kl_weight": 0.1,
    "discount": 0.99,
    "reward_scale": 5.0,
    "learning_rate": 3e-4,
    "hidden": (128, 128, 128),
    "encoder_hidden": (128, 128, 128),
}
OFF_POLICY: dict[str, Any] = {  # networks, batch and rates as published
    "environments": 1,
    "rollout_length": 1,
    "updates": 1,
    "batch_size": 256,
    "hidden": (256, 256),
    "learning_rate": 3e-4,
    "warmup_steps": 5000,
    "capacity": 200_000,
}
AT_A_SPEED = "cheetah-velocity-pearl"
PUBLISHED = (-50.69, 293.19, 313.48, 315.65)  # return after each step
STEPS = 3


class Size(NamedTuple):
    """How much of a part is run."""

    iterations: int
    points: int
    settings: dict[str, Any]
    seeds: int | None = None  # None: as many as the figure has


TESTED = {"eval_exploration_episodes": 2, "eval_episodes": 3}
SIZES: dict[Scale, dict[str, Size]] = {
    "smoke": {
        MAML: Size(
            2,
            2,
            {"episodes_per_task": 2, "meta_batch_size": 2, "horizon": 20, "eval_tasks": 2, "eval_episodes": 2},
        ),
        RL2: Size(2, 2, {"environments": 8, "memory_size": 8, "eval_tasks": 2, "learning_rate_iterations": 2}),
        PEARL: Size(
            2,
            2,
            TESTED | {"train_tasks": 4, "tasks_per_iteration": 2, "updates": 2, "meta_batch_size": 2, "eval_tasks": 2},
        ),
        SAC: Size(4, 2, {"warmup_steps": 300, "hidden": (16,), "eval_episodes": 2}),
    },
    "cpu": {
        MAML: Size(40, 4, {"eval_tasks": 40, "eval_episodes": 10}),
        PPO: Size(500, 10, {"eval_episodes": 20}),
        RL2: Size(2500, 10, {"eval_tasks": 30, "learning_rate_iterations": 2500}, 3),
        PEARL: Size(200, 10, TESTED | {"eval_tasks": 30}, 3),
        SAC: Size(50_000, 5, {"eval_episodes": 10}),
    },
    # the papers' sizes, or thousands of environments, which MJX steps on the device
    "gpu": {
        MAML: Size(200, 10, {"meta_batch_size": 40, "eval_tasks": 40, "eval_episodes": 10}),
        PPO: Size(
            500,
            10,
            {"environments": 2048, "rollout_length": 20, "minibatch_size": 1280, "epochs": 8, "eval_episodes": 20},
        ),
        RL2: Size(
            300,
            10,
            {"environments": 2048, "minibatch_size": 128, "memory_size": 128, "eval_tasks": 30}
            | {"learning_rate_iterations": 300},
        ),
        PEARL: Size(
            500,
            10,
            TESTED
            | {"meta_batch_size": 16, "batch_size": 256, "updates": 2000, "hidden": (300, 300, 300), "eval_tasks": 30},
        ),
        SAC: Size(10_000, 10, {"environments": 128, "updates": 8, "batch_size": 2048, "eval_episodes": 10}),
    },
}


def parts(scale: Scale) -> dict[str, Training]:
    physics = "mjx" if scale == "gpu" else "mujoco"
    found = {}
    for name, algorithm, settings, env in (
        (MAML, "maml", ADAPTED, "cheetah-direction"),
        (PPO, "ppo", RUNNING, "HalfCheetah-v5"),
        (RL2, "rl2", IN_CONTEXT, AT_A_SPEED),
        (PEARL, "pearl", BY_BELIEF, AT_A_SPEED),
        (SAC, "sac", OFF_POLICY, "HalfCheetah-v5"),
    ):
        if (size := SIZES[scale].get(name)) is None:
            continue
        found[name] = Training(
            algorithm,
            settings | size.settings,
            size.iterations,
            f"{physics}:{env}",
            points=size.points,
            from_start=True,
            seeds=size.seeds,
        )
    return found


def best_single_speed() -> float:
    """Return of an episode at the one speed that suits the test tasks best, in every step and at no cost."""
    test: Any = FAMILIES[AT_A_SPEED].tasks().test
    goals = np.asarray(test.goal)
    return -LIMIT * float(np.abs(goals - np.median(goals)).mean())


def rows(found: Found) -> list[Row]:
    made = []
    if MAML in found:
        returns = found[MAML]["return"][:, -1]  # [seeds, adaptation steps]
        for k in range(STEPS + 1):
            steps = f"{k} step{'s' * (k != 1)}"
            made.append(Row.measured(f"{MAML}: return after {steps}", returns[:, k], published=PUBLISHED[k]))
            if k > 0:
                gain = Row.measured(f"{MAML}: gain of {steps}", returns[:, k] - returns[:, 0])
                made.append(gain.judged("above 0"))
    if PPO in found:
        returns = found[PPO]["return"]
        made.append(Row.measured(f"{PPO}: return", returns[:, -1]))
        made.append(Row.measured(f"{PPO}: gain of training", returns[:, -1] - returns[:, 0]).judged("above 0"))
    for name in (RL2, PEARL):
        if name in found:
            returns = found[name]["return"]  # [seeds, points, episodes]
            line = best_single_speed()
            made.append(Row.measured(f"{name}: return of the first episode", returns[:, -1, 0]))
            last = Row.measured(f"{name}: return of the last episode", returns[:, -1, -1], exact=line)
            made.append(last.judged(f"above {line:.6g}"))
            least = float(returns[:, -1, -1].min())
            made.append(Row.computed(f"{name}: least of {len(returns)} seeds, last episode", least, exact=line))
            gain = Row.measured(f"{name}: gain of training, last episode", returns[:, -1, -1] - returns[:, 0, -1])
            made.append(gain.judged("above 0"))
            made.append(Row.measured(f"{name}: last less first episode", returns[:, -1, -1] - returns[:, -1, 0]))
    if SAC in found:
        returns = found[SAC]["return"]
        made.append(Row.measured(f"{SAC}: return", returns[:, -1]))
        made.append(Row.measured(f"{SAC}: gain of training", returns[:, -1] - returns[:, 0]).judged("above 0"))
    return made


def draw(found: Found) -> dict[str, Any]:
    """Return against steps of training, with its 95 % interval over the seeds."""
    figure, panels = subplots(2, 2)
    (direction, speed), (running, off_policy) = panels
    if MAML in found:
        measured = found[MAML]
        for k, color in zip(range(STEPS + 1), (GREY, ORANGE, VERMILION, BLUE)):
            label = "before adaptation" if k == 0 else f"after {k} step{'s' * (k > 1)}"
            curve(direction, measured["env_steps"] / 1e6, measured["return"][..., k], "MAML", label=label, color=color)
    for name in (RL2, PEARL):
        if name in found:
            measured, method = found[name], name.partition(",")[0]
            steps = measured["env_steps"] / 1e6
            curve(speed, steps, measured["return"][..., -1], method, label=f"{method}, last episode")
            curve(speed, steps, measured["return"][..., 0], method, label=f"{method}, first", linestyle="--")
    if RL2 in found or PEARL in found:
        speed.axhline(best_single_speed(), color=GREY, linestyle=":", label="best single speed")
    for name, ax in ((PPO, running), (SAC, off_policy)):
        if name in found:
            measured = found[name]
            curve(ax, measured["env_steps"] / 1e6, measured["return"], name.partition(",")[0])
    titles = ("forward or backward: MAML", "at a speed: RL², PEARL", "HalfCheetah-v5: PPO", "HalfCheetah-v5: SAC")
    for ax, title in zip(panels.flat, titles):
        ax.set(xlabel="million steps", ylabel="return", title=title)
        if ax.has_data():
            ax.legend(loc="best")
    return {"": figure}


FIGURE = Figure(
    name="locomotion",
    paper="Finn, Abbeel & Levine, Model-Agnostic Meta-Learning, ICML 2017",
    shows="table 5 in shape: a half-cheetah that runs forward or backward; at a speed, by RL² and PEARL; PPO and SAC",
    parts=parts,
    rows=rows,
    draw=draw,
)
