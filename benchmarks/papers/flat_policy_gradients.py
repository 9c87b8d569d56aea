"""The policy gradients on the classic tasks of gymnax: PPO on CartPole-v1, Acrobot-v1 and Pendulum-v1; TRPO, A2C and
REINFORCE on CartPole-v1.

The mean return of 100 greedy episodes at the end of training, with settings that were chosen on other seeds. The rows
compare with what gymnax's README (version 0.0.9) says of PPO and evolution strategies there: 500, −80 and −130, one
number each, without steps or spread. RL Zoo's trained PPO agents have 500, −74.6 ± 11.5 (standard deviation over
episodes) and −230 ± 143 (model cards sb3/ppo-CartPole-v1, -Acrobot-v1 and -Pendulum-v1).

Breakout in MinAtar, for which gymnax's README has 28, takes hours on two cores:

    jaxrl-hier train ppo --env Breakout-MinAtar --network cnn --environments 64 --rollout-length 128 \\
        --minibatch-size 1024 --normalize-rewards --entropy-weight 0.01 --iterations 1220 --seeds 10
"""

from typing import Any

from jaxrl_hier.learning.optimization import linear_over
from jaxrl_hier.reports.statistics import Bounds

from ..drawing import curve, subplots
from ..figure import Figure, Found, Scale, Training
from ..results import Row

OBSERVATIONS = {"normalize_observations": True}  # beside the rewards, which the presets normalise
# part -> algorithm, environment, iterations, settings; the learning rate falls to zero
CASES: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "PPO on CartPole-v1": ("ppo", "CartPole-v1", 100, {}),
    "TRPO on CartPole-v1": ("trpo", "CartPole-v1", 100, {}),
    "A2C on CartPole-v1": ("a2c", "CartPole-v1", 3000, {}),
    "REINFORCE on CartPole-v1": ("reinforce", "CartPole-v1", 60, {}),
    "PPO on Acrobot-v1": ("ppo", "Acrobot-v1", 150, OBSERVATIONS),
    "PPO on Pendulum-v1": ("ppo", "Pendulum-v1", 200, OBSERVATIONS | {"discount": 0.95, "epochs": 10}),
}
PUBLISHED = {"CartPole-v1": 500.0, "Acrobot-v1": -80.0, "Pendulum-v1": -130.0}
# wanted: the return that counts as solved where gymnax's number has no spread to compare with
SOLVED = {"CartPole-v1": 475.0, "Acrobot-v1": -85.0, "Pendulum-v1": -200.0}
BOUNDS: dict[str, Bounds] = {"CartPole-v1": (0.0, 500.0), "Acrobot-v1": (-500.0, 0.0)}
POINTS = 10


def parts(scale: Scale) -> dict[str, Training]:
    found = {}
    smoke = scale == "smoke"
    for name, (algorithm, env, iterations, settings) in CASES.items():
        if smoke and name not in ("PPO on CartPole-v1", "PPO on Pendulum-v1"):
            continue
        count, points = (2, 2) if smoke else (iterations, POINTS)
        found[name] = Training(algorithm, settings | linear_over(count), count, env, points=points, first_seed=100)
    return found


def rows(found: Found) -> list[Row]:
    return [at_the_end(name, measured) for name, measured in found.items()]


def at_the_end(name: str, measured: Any) -> Row:
    env = CASES[name][1]
    what = f"{name}, {measured['env_steps'][-1]} steps"
    row = Row.measured(what, measured["return"][:, -1], bounds=BOUNDS.get(env))
    row.published, row.note = PUBLISHED[env], f"gymnax's README; at least {SOLVED[env]:g} counts as solved"
    return row.judged(f"at least {SOLVED[env]}")


def draw(found: Found) -> dict[str, Any]:
    """Mean return against steps with its 95 % interval over the seeds."""
    figure, axes = subplots(1, 3)
    for name, measured in found.items():
        label, _, env = name.partition(" on ")
        ax = axes[0, [*SOLVED].index(env)]
        curve(ax, measured["env_steps"] / 1000, measured["return"], label, BOUNDS.get(env))
    for ax, (env, target) in zip(axes[0], SOLVED.items()):
        ax.axhline(target, color="0.5", ls="--", lw=1, label="counts as solved")
        ax.set(xlabel="thousand steps", ylabel="mean return", title=env)
        ax.legend(loc="lower right")
    return {"": figure}


FIGURE = Figure(
    name="flat_policy_gradients",
    paper="none: the baselines of later comparisons",
    shows="mean return on gymnax's CartPole-v1, Acrobot-v1 and Pendulum-v1",
    parts=parts,
    rows=rows,
    draw=draw,
    seeds=10,
)
