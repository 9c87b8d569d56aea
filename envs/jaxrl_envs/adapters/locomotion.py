"""Families of locomotion tasks, on which meta-learning is compared: a robot runs at a speed, in a direction or to a
place that it does not see.

    jaxrl-hier train maml --env mujoco:cheetah-direction      pip install 'jaxrl-hier[mujoco]'
    jaxrl-hier train maml --env mjx:cheetah-direction         pip install 'jaxrl-hier[mjx]'

Robots and physics are Gymnasium's, on the host (`jaxrl_envs.adapters.mujoco`) or compiled (`mjx`). The reward of
running forward is replaced by the task's; the costs of actions and contacts, and the reward for not falling, are those
of the paper. Episodes take 200 steps.

- MAML (Finn et al., 2017): `cheetah-velocity`, `cheetah-direction`, `ant-velocity`, `ant-direction`, `ant-goal`.
- ProMP (Rothfuss et al., 2019): `walker-direction`.
- PEARL (Rakelly et al., 2019), with 100 training and 30 test tasks: `cheetah-velocity-pearl`, `ant-goal-pearl`,
  `humanoid-direction`. Its half-cheetah that runs forward or backward is `cheetah-direction`.

Departures from the papers' code, for all: the robots are version 5 of Gymnasium's, MuJoCo is today's, and an
observation is Gymnasium's with the robot's position, where the papers add that of the torso or, for some robots, none.
MAML's robots were rllab's, with other time steps. So returns are comparable in shape, not in height.
"""

from collections.abc import Callable, Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_envs.adapters import AdaptedParams, ant_maze, require_name
from jaxrl_envs.adapters.mjx import RULES, CompiledRobot
from jaxrl_envs.adapters.mujoco import HostRobot, Mujoco, robots
from jaxrl_envs.point_tasks import PointMaze, point_maze_tasks
from jaxrl_envs.tasks import Tasks, from_batch

LIMIT = 200  # steps of an episode, in all three papers
TOLD = ("reward_forward", "x_velocity", "y_velocity", "x_position", "y_position")


@struct.dataclass
class LocomotionParams(AdaptedParams):
    """The task: a speed [] in m/s, a direction, a unit vector [2], or a place [2] in m, by the family."""

    goal: jax.Array = field(default_factory=lambda: jnp.zeros(()))
    max_steps_in_episode: int = LIMIT


# What the task pays in a step: (goal, velocity [2] in m/s, position [2] in m) -> []


def at_speed(goal: jax.Array, velocity: jax.Array, position: jax.Array) -> jax.Array:
    """−|v − g| of the speed v along x and a goal g []."""
    return -jnp.abs(velocity[0] - goal)


def in_direction(goal: jax.Array, velocity: jax.Array, position: jax.Array) -> jax.Array:
    """v · g of the velocity v and a unit vector g [2]."""
    return jnp.dot(goal, velocity)


def at_place(goal: jax.Array, velocity: jax.Array, position: jax.Array) -> jax.Array:
    """−‖p − g‖₁ of the position p and a goal g [2]."""
    return -jnp.sum(jnp.abs(position - goal))


# Goals. Finite sets are drawn by NumPy, as in the papers' code


def speeds(high: float) -> Tasks:
    """Uniform in [0, high]; the 40 test tasks are drawn with seed 1."""
    test = np.random.RandomState(1).uniform(0.0, high, 40).astype(np.float32)
    return Tasks(lambda key: _task(jax.random.uniform(key, maxval=high)), test=_tasks(test))


def places(side: float) -> Tasks:
    """Uniform in [−side, side]²; the 40 test tasks are drawn with seed 1."""
    test = np.random.RandomState(1).uniform(-side, side, (40, 2)).astype(np.float32)
    return Tasks(lambda key: _task(jax.random.uniform(key, (2,), minval=-side, maxval=side)), test=_tasks(test))


def forward_or_backward() -> Tasks:
    """Both directions along x, equally likely; the 40 test tasks are both in turn."""
    both = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    return from_batch(_tasks(both), test=_tasks(np.tile(both, (20, 1))))


def train_and_test(draw: Callable[[np.random.RandomState], np.ndarray]) -> Tasks:
    """The first 100 of 130 goals to train on, the others to test."""
    goals = draw(np.random.RandomState(1337)).astype(np.float32)
    return from_batch(_tasks(goals[:100]), test=_tasks(goals[100:]))


def in_a_disc(rng: np.random.RandomState) -> np.ndarray:
    """Uniform places at most 3 m from the start, [130, 2]."""
    angle = 2 * np.pi * rng.random_sample(130)
    return 3 * np.sqrt(rng.random_sample(130))[:, None] * unit(angle)


def all_around(rng: np.random.RandomState) -> np.ndarray:
    """Uniform directions, [130, 2]."""
    return unit(rng.uniform(0, 2 * np.pi, 130))


def unit(angle: np.ndarray) -> np.ndarray:
    """Unit vectors [N, 2] of angles [N] in radians."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _task(goal: jax.Array) -> LocomotionParams:
    return LocomotionParams(goal=goal)


def _tasks(goals: np.ndarray) -> LocomotionParams:
    return jax.vmap(_task)(jnp.asarray(goals))


class Family(NamedTuple):
    """A robot, what its tasks pay, and their distribution."""

    robot: str
    pays: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    tasks: Callable[[], Tasks]
    weight: float = 1.0  # of what the task pays
    bonus: float = 0.0  # in every step
    settings: Mapping[str, Any] = MappingProxyType({})  # of Gymnasium's robot


CHEETAH = {"ctrl_cost_weight": 0.05}
ANT = {"ctrl_cost_weight": 0.005, "healthy_reward": 0.05, "include_cfrc_ext_in_observation": False}
ANT_OF_PEARL = ANT | {"ctrl_cost_weight": 0.1, "healthy_reward": 0.0, "terminate_when_unhealthy": False}
FAMILIES = {
    "cheetah-velocity": Family("HalfCheetah-v5", at_speed, lambda: speeds(2.0), settings=CHEETAH),
    "cheetah-velocity-pearl": Family(
        "HalfCheetah-v5", at_speed, lambda: train_and_test(lambda rng: rng.uniform(0, 3, 130)), settings=CHEETAH
    ),
    "cheetah-direction": Family("HalfCheetah-v5", in_direction, forward_or_backward, settings=CHEETAH),
    "ant-velocity": Family("Ant-v5", at_speed, lambda: speeds(3.0), bonus=1.0, settings=ANT),
    "ant-direction": Family("Ant-v5", in_direction, forward_or_backward, settings=ANT),
    "ant-goal": Family("Ant-v5", at_place, lambda: places(3.0), bonus=4.0, settings=ANT),
    "ant-goal-pearl": Family("Ant-v5", at_place, lambda: train_and_test(in_a_disc), settings=ANT_OF_PEARL),
    "walker-direction": Family("Walker2d-v5", in_direction, forward_or_backward),
    "humanoid-direction": Family("Humanoid-v5", in_direction, lambda: train_and_test(all_around), weight=1.25),
}


class Locomotion(Mujoco):
    """A robot with the task in its params.

    Observation: Gymnasium's, with the robot's position. Action: a torque for each joint, within Gymnasium's bounds.

    Args:
        name: of a family, such as "cheetah-velocity".
        compiled: whether MJX simulates the robot, and not MuJoCo on the host.

    Raises:
        ValueError: no such family, MJX has none of its robot, or a package is not installed.
    """

    def __init__(self, name: str, compiled: bool = False):
        require_name(name, FAMILIES, "jaxrl_envs.adapters.locomotion")
        family = FAMILIES[name]
        settings = {**family.settings, "exclude_current_positions_from_observation": False}
        robot = (CompiledRobot if compiled else HostRobot)(family.robot, TOLD, **settings)
        self._pays, self._weight, self._bonus = family.pays, family.weight, family.bonus
        self._first = jax.tree.map(lambda x: x[0], family.tasks().test)
        super().__init__(robot, LIMIT, f"{'mjx' if compiled else 'mujoco'}:{name}")

    @property
    def default_params(self) -> LocomotionParams:
        return self._first

    def go_on(
        self, key: jax.Array, inner: Any, action: jax.Array, params: LocomotionParams
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, Any]]:
        seen = self.robot.step(inner, action)
        forward, velocity, position = seen.told[0], seen.told[1:3], seen.told[3:5]
        pays = self._weight * self._pays(params.goal, velocity, position) + self._bonus
        return seen.obs, seen.state, seen.reward - forward + pays, seen.terminated, {}


def mujoco(name: str) -> Any:
    """What "mujoco:NAME" stands for: a family or HIRO's ant, each with its tasks, or a robot with Gymnasium's own
    reward.

    Raises:
        ValueError: none of them, or MuJoCo is not installed.
    """
    mazes = {f"ant-{kind}": kind for kind in ant_maze.KINDS}
    require_name(name, [*FAMILIES, *mazes, "ant-gather", *robots()], "MuJoCo")
    if name == "ant-gather":
        return ant_maze.AntGather()
    if name in mazes:
        return ant_maze.AntMaze(mazes[name]), point_maze_tasks(PointMaze(mazes[name]))
    return (Locomotion(name), FAMILIES[name].tasks()) if name in FAMILIES else Mujoco(name)


def mjx(name: str) -> Any:
    """What "mjx:NAME" stands for: the same in compiled form.

    Raises:
        ValueError: neither of them, or MJX is not installed.
    """
    families = [family for family, about in FAMILIES.items() if about.robot in RULES]
    require_name(name, [*families, *RULES], "MJX")
    if name in FAMILIES:
        return Locomotion(name, compiled=True), FAMILIES[name].tasks()
    return Mujoco(CompiledRobot(name), name=f"mjx:{name}")
