"""Learning to run, in MuJoCo: MAML on a half-cheetah that is to run forward or backward, and PPO on one that runs.

Needs the extra `mujoco`. The half-cheetah is version 5 of Gymnasium's; MAML's was rllab's, with other time steps, and
had five times our steps of meta-training. So the published returns (table 5) are compared in shape alone: adaptation
pays, or it does not. Returns after each step of adaptation are compared with that before the first, on the same test
tasks, both directions 20 times.

MAML's settings were chosen by what adaptation added in five short runs of one seed each, four with seed 100 and one
with seed 0: step sizes from 0.1 to 0.3, bounds on the divergence from 0.01 to 0.03, half of the trajectories, PPO
outside, and ProMP.
"""

from typing import Any

from ..drawing import BLUE, GREY, ORANGE, VERMILION, curve, subplots
from ..figure import Figure, Found, Scale, Training
from ..results import Row

MAML, PPO = "MAML, forward or backward", "PPO, forward"
ADAPTED = {"inner_learning_rate": 0.2, "max_kl": 0.02, "episodes_per_task": 20, "meta_batch_size": 20}
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
PUBLISHED = (-50.69, 293.19, 313.48, 315.65)  # return after each step
STEPS = 3


def parts(scale: Scale) -> dict[str, Training]:
    smoke = scale == "smoke"
    small = {"episodes_per_task": 2, "meta_batch_size": 2, "horizon": 20, "eval_tasks": 2, "eval_episodes": 2}
    adapted = ADAPTED | (small if smoke else {"eval_tasks": 40, "eval_episodes": 10})
    return {
        MAML: Training(
            "maml", adapted, 2 if smoke else 40, "mujoco:cheetah-direction", points=2 if smoke else 4, from_start=True
        ),
        PPO: Training(
            "ppo",
            RUNNING | {"eval_episodes": 2 if smoke else 20},
            2 if smoke else 500,
            "mujoco:HalfCheetah-v5",
            points=2 if smoke else 10,
            from_start=True,
        ),
    }


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
    return made


def draw(found: Found) -> dict[str, Any]:
    """Return against steps of training, with its 95 % interval over the seeds."""
    figure, (panels,) = subplots(1, 2)
    if MAML in found:
        measured = found[MAML]
        for k, color in zip(range(STEPS + 1), (GREY, ORANGE, VERMILION, BLUE)):
            label = "before adaptation" if k == 0 else f"after {k} step{'s' * (k > 1)}"
            curve(panels[0], measured["env_steps"] / 1e6, measured["return"][..., k], "MAML", label=label, color=color)
    if PPO in found:
        measured = found[PPO]
        curve(panels[1], measured["env_steps"] / 1e6, measured["return"], "PPO")
    for ax, title in zip(panels, ("half-cheetah, forward or backward: MAML", "HalfCheetah-v5: PPO")):
        ax.set(xlabel="million steps", ylabel="return", title=title)
        if ax.has_data():
            ax.legend(loc="upper left")
    return {"": figure}


FIGURE = Figure(
    name="locomotion",
    paper="Finn, Abbeel & Levine, Model-Agnostic Meta-Learning, ICML 2017",
    shows="table 5 in shape: a half-cheetah that runs forward or backward; and PPO on Gymnasium's",
    parts=parts,
    rows=rows,
    draw=draw,
)
