"""HIRO's ant in a maze and gathering, by MuJoCo on the host (Nachum, Gu, Lee & Levine, NeurIPS 2018).

    jaxrl-hier train hiro --env mujoco:ant-maze               pip install 'jaxrl-hier[mujoco]'

The worlds, targets and rewards are those of `jaxrl_envs.point_tasks`, where a point plays the ant's part: `ant-maze`,
`ant-push`, `ant-fall` and `ant-gather`. An episode takes 500 steps. In the first three it has no other end; gathering
ends where the ant falls over.

The ant is Gymnasium's with the changes of the authors' code: a simulator step of 0.02 s, five of them in each step, and
motors of ±30, to which actions in [−1, 1] are scaled. Walls are 4 high. A block is 8 wide (push) or 7.92 (fall), weighs
next to nothing and slides along x and y, or along y and down. An observation is the ant's 15 positions and 14
velocities, and the time; blocks are not seen. Departures: MuJoCo is today's.

Gathering, with its walls, its sensors, which turn with the ant, and −10 for a fall (a torso below 0.2 or above 1), is
rllab's (Duan et al., 2016), since the authors' code has none. Apples and bombs are no bodies: they are taken from
nearer than 1.
"""

import tempfile
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.adapters import package, raw_observations
from jaxrl_envs.adapters.mujoco import EXTRA, HostRobot, Mujoco
from jaxrl_envs.goals import GoalSpace
from jaxrl_envs.point_tasks import (
    ARENA,
    NEAR,
    SECTORS,
    SIZE,
    GatherParams,
    PointGather,
    PointMaze,
    PointParams,
    boxes,
    gathered,
    laid_out,
    paint_objects,
    sensed,
)

Kind = Literal["maze", "push", "fall"]
KINDS: tuple[Kind, ...] = ("maze", "push", "fall")
STANDING, FALLEN = (0.2, 1.0), -10.0  # heights of a torso that stands, and the reward of falling
LIMIT = 500  # steps of an episode
HEIGHT = 4.0  # of walls, blocks and, in fall, of the floor
POSITIONS, VELOCITIES = 15, 14  # of the ant; those of a block follow
TIME = 1e-3  # of a step, as observed
CAMERA = "above"
SOFT, HARD = ".8 .8 .01", ".995 .995 .01"  # contacts, without and with blocks: MuJoCo's solimp


def ant(solimp: str) -> Any:
    """The ant without a world, the root of MuJoCo's XML."""
    assets = Path(package("gymnasium.envs.mujoco", "Gymnasium", EXTRA).__file__).parent / "assets"
    tree: Any = ET.parse(assets / "ant.xml").getroot()
    found = lambda path: next(tree.iterfind(path))
    found("option").set("timestep", "0.02")
    found("default/geom").attrib.update(solimp=solimp, solref=".02 1")
    for motor in tree.iterfind("actuator/motor"):
        motor.set("gear", "30")
    return tree


def world(kind: Kind) -> str:
    """The model of a world, in MuJoCo's XML."""
    tree = ant(HARD if kind != "maze" else SOFT)
    body, rows = tree.find("worldbody"), PointMaze(kind).world.rows
    floor = HEIGHT if kind == "fall" else 0.0
    if floor:
        tree.find("worldbody/body[@name='torso']").set("pos", f"0 0 {0.75 + floor}")
        for low, high in boxes(rows, "# BS"):
            body.append(box(low, high, 0.0, rgba="0.9 0.9 0.9 1"))
    for low, high in boxes(rows, "#"):
        body.append(box(low, high, floor, rgba="0.4 0.4 0.4 1"))
    for low, high in boxes(rows, "B"):
        body.append(block(kind, (low + high) / 2, floor))
    x, y = boxes(rows, "#").mean(axis=(0, 1))
    ET.SubElement(body, "camera", name=CAMERA, pos=f"{x} {y} 62", xyaxes="1 0 0 0 1 0")
    return ET.tostring(tree, encoding="unicode")


def square() -> str:
    """The model of the square for gathering: the ant within four walls."""
    tree = ant(SOFT)
    body = tree.find("worldbody")
    inside, outside = np.full(2, ARENA), np.full(2, ARENA + 1)
    for sign in (-1.0, 1.0):
        for along in (np.array([1.0, 0.0]), np.array([0.0, 1.0])):  # which a wall stands across
            ends = [sign * along * inside - (1 - along) * outside, sign * along * outside + (1 - along) * outside]
            body.append(box(np.minimum(*ends), np.maximum(*ends), 0.0, rgba="0.4 0.4 0.4 1"))
    ET.SubElement(body, "camera", name=CAMERA, pos="0 0 24", xyaxes="1 0 0 0 1 0")
    return ET.tostring(tree, encoding="unicode")


def box(low: np.ndarray, high: np.ndarray, floor: float, **look: str) -> ET.Element:
    """What stands on the floor between two corners [2]."""
    (x, y), (dx, dy) = (low + high) / 2, (high - low) / 2
    place = {"pos": f"{x} {y} {floor + HEIGHT / 2}", "size": f"{dx} {dy} {HEIGHT / 2}"}
    return ET.Element("geom", place | look, type="box", contype="1", conaffinity="1")


def block(kind: Kind, middle: np.ndarray, floor: float) -> ET.Element:
    """The block that can be pushed. That of fall is narrower and heavier, so that it falls through a gap."""
    falls = kind == "fall"
    half = SIZE / 2 * (0.99 if falls else 1.0)
    body = ET.Element("body", name="block", pos=f"{middle[0]} {middle[1]} {floor + HEIGHT / 2}")
    mass = "0.001" if falls else "0.0002"
    size, rgba = f"{half} {half} {HEIGHT / 2}", "0.9 0.1 0.1 1"
    ET.SubElement(body, "geom", type="box", contype="1", conaffinity="1", size=size, mass=mass, rgba=rgba)
    slide = {"type": "slide", "armature": "0", "damping": "0", "margin": "0.01"}
    if falls:
        ET.SubElement(body, "joint", slide, name="block_y", axis="0 1 0", limited="true", range=f"{-SIZE} {SIZE}")
        ET.SubElement(body, "joint", slide, name="block_z", axis="0 0 1", limited="true", range=f"{-floor} 0")
    else:
        ET.SubElement(body, "joint", slide, name="block_x", axis="1 0 0", limited="false")
        ET.SubElement(body, "joint", slide, name="block_y", axis="0 1 0", limited="false")
    return body


def simulated(model: str, render_mode: str | None = None) -> Any:
    """A model as an environment of Gymnasium. Its reward is 0: the task's is computed from the observations."""
    base: Any = package("gymnasium.envs.mujoco", "Gymnasium", EXTRA).MujocoEnv
    spaces = package("gymnasium.spaces", "Gymnasium", EXTRA)

    class AntWorld(base):
        metadata: ClassVar[dict[str, Any]] = {
            "render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"],  # as MujocoEnv wants them
            "render_fps": 10,
        }

        def observed(self) -> np.ndarray:
            time = TIME * round(self.data.time / self.dt)
            return np.concatenate([self.data.qpos[:POSITIONS], self.data.qvel[:VELOCITIES], [time]])

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            self.do_simulation(action, self.frame_skip)
            return self.observed(), 0.0, False, False, {}

        def reset_model(self) -> np.ndarray:
            qpos, qvel = self.init_qpos.copy(), np.zeros(self.model.nv)  # a block starts where it lies, at rest
            qpos[:POSITIONS] += self.np_random.uniform(-0.1, 0.1, POSITIONS)
            qvel[:VELOCITIES] = 0.1 * self.np_random.standard_normal(VELOCITIES)
            self.set_state(qpos, qvel)
            return self.observed()

    seen = spaces.Box(-np.inf, np.inf, (POSITIONS + VELOCITIES + 1,), np.float64)
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(model)
        file.flush()
        return AntWorld(file.name, 5, seen, render_mode=render_mode, camera_name=CAMERA)


class AntMaze(Mujoco):
    """Maze, push or fall. Action: [8] float32 in [−1, 1], the torques.

    Observation: [30] float32, see above. Achieved: x, y and, in fall, the height of the torso. `default_params` have
    the target of the test.

    Args:
        kind: which world.

    Raises:
        ValueError: no such world, or MuJoCo is not installed.
    """

    def __init__(self, kind: Kind = "maze"):
        if kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
        self._first = PointMaze(kind).default_params
        super().__init__(HostRobot(f"ant-{kind}", make=partial(simulated, world(kind)), limit=LIMIT))

    def observation_space(self, params: Any = None) -> Any:
        return GoalSpace(self.robot.observations, raw_observations(self._first.goal.shape))

    @property
    def default_params(self) -> Any:
        return self._first

    def begin(self, key: jax.Array, params: PointParams) -> tuple[Any, Any]:
        state, seen = self.robot.reset(key)
        return self._observation(seen, params), state

    def go_on(
        self, key: jax.Array, inner: Any, action: jax.Array, params: PointParams
    ) -> tuple[Any, Any, jax.Array, jax.Array, dict[str, Any]]:
        seen = self.robot.step(inner, action)
        obs = self._observation(seen.obs, params)
        reward = self.compute_reward(obs["achieved_goal"], obs["desired_goal"], params)
        return obs, seen.state, reward, seen.terminated, {"success": -reward < NEAR}

    def compute_reward(self, achieved_goal: jax.Array, desired_goal: jax.Array, params: PointParams) -> jax.Array:
        """Minus the distance, [] float32."""
        return -jnp.linalg.norm(achieved_goal - desired_goal)

    def _observation(self, seen: jax.Array, params: PointParams) -> dict[str, jax.Array]:
        goal = jnp.asarray(params.goal)
        return {"observation": seen, "achieved_goal": seen[: len(goal)], "desired_goal": goal}


class Gathering(NamedTuple):
    """The state of `AntGather`."""

    ant: jax.Array  # as `HostRobot` has it
    objects: jax.Array  # [2, 8, 2] of apples and of bombs
    left: jax.Array  # [2, 8] bool, not taken yet
    position: jax.Array  # [2] of the torso


class AntGather(Mujoco):
    """Take apples and avoid bombs. Action: [8] float32 in [−1, 1], the torques.

    Observation: [50] float32, that of the other worlds, then what the ant senses (`point_tasks.sensed`).
    """

    def __init__(self) -> None:
        super().__init__(HostRobot("ant-gather", make=partial(simulated, square()), limit=LIMIT))
        self._observations = raw_observations((POSITIONS + VELOCITIES + 1 + 2 * SECTORS,))

    def begin(self, key: jax.Array, params: Any) -> tuple[jax.Array, Gathering]:
        key_ant, key_objects = jax.random.split(jax.random.wrap_key_data(key))
        ant, seen = self.robot.reset(jax.random.key_data(key_ant))
        objects = laid_out(key_objects)
        state = Gathering(ant, objects, jnp.ones(objects.shape[:2], bool), seen[:2])
        return self._observation(seen, state), state

    def go_on(
        self, key: jax.Array, inner: Gathering, action: jax.Array, params: Any
    ) -> tuple[jax.Array, Gathering, jax.Array, jax.Array, dict[str, Any]]:
        seen = self.robot.step(inner.ant, action)
        reward, left = gathered(inner.objects, inner.left, seen.obs[:2])
        state = Gathering(seen.state, inner.objects, left, seen.obs[:2])
        fallen = (seen.obs[2] < STANDING[0]) | (seen.obs[2] > STANDING[1])
        return self._observation(seen.obs, state), state, jnp.where(fallen, FALLEN, reward), fallen, {}

    def _observation(self, seen: jax.Array, state: Gathering) -> jax.Array:
        return jnp.concatenate([seen, sensed(state.objects, state.left, state.position, heading(seen[3:7]))])

    def render(self, state: Any, params: Any, size: int = 256) -> np.ndarray:
        """One state from above, uint8 [size, size, 3]: blue the torso, green apples, black bombs."""
        from jaxrl_envs.rendering import picture

        def paint(ax: Any) -> None:
            PointGather().draw(ax, GatherParams())
            paint_objects(ax, state.inner.objects, state.inner.left)
            ax.plot(*np.asarray(state.inner.position), "o", ms=12, color="tab:blue")

        return picture(paint, size)


def heading(turn: jax.Array) -> jax.Array:
    """The direction in the plane, in radians, to which a quaternion [4], real part first, turns that of x."""
    w, x, y, z = turn
    return jnp.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z)
