"""The two tasks in which Sutton, Precup & Singh interrupt options (Artificial Intelligence 112, 1999, section 4).

Both are deterministic and continuous, and pay −1 in every step: the best way is the one with the fewest steps.

    Landmarks    a point in [0, 3]² moves by up to 0.01 in any direction; any action within 0.01 of the goal ends the
                 episode. The task has landmarks, the last of which is the goal, and a radius: from so far a controller
                 runs straight to its landmark (`jaxrl_hier.hierarchical.controllers`)
    MovingMass   a mass on a line begins at rest at 0, and must come to rest at 2, both to within 0.0001. An action is a
                 force: v ← v + force − 0.175 v, then x ← x + v

The mass (figure 8) is specified in full. Of the landmarks (figure 7) the paper gives the number, seven, and the axes of
the picture, from 0 to 3, but no coordinates and no radius. We assume that start and goal are opposite corners: they are
425 steps apart, as the paper says of the optimal policy. `random_landmarks` draws the rest, uniformly.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.tasks import Tasks

SIDE = 3.0  # of the square
STEP = 0.01  # the longest move
COUNT = 7  # landmarks
RADII = (0.8, 1.6)  # of the controllers, in random layouts
TARGET, EPSILON, FRICTION = 2.0, 1e-4, 0.175  # of the mass
SPACE = 10.0  # the mass stays within ± this


@struct.dataclass
class LandmarksState(environment.EnvState):
    """Where the point is."""

    position: jax.Array  # [2]
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class LandmarksParams(environment.EnvParams):
    """The task: start and landmarks."""

    landmarks: jax.Array = struct.field(default_factory=lambda: np.full((COUNT, 2), SIDE, np.float32))  # the goal last
    radius: jax.Array = struct.field(default_factory=lambda: np.float32(1.0))  # [] how far each controller reaches
    start: jax.Array = struct.field(default_factory=lambda: np.zeros(2, np.float32))  # [2]
    max_steps_in_episode: int = 2000


class Landmarks(environment.Environment[LandmarksState, LandmarksParams]):
    """Observation: position [2]. Action: the move [2] in hundredths, shortened to a length of 1. Reward: −1."""

    @property
    def default_params(self) -> LandmarksParams:
        return random_landmarks(jax.random.key(0))

    def reset_env(self, key: jax.Array, params: LandmarksParams) -> tuple[jax.Array, LandmarksState]:
        state = LandmarksState(position=jnp.asarray(params.start), time=jnp.zeros((), jnp.int32))
        return state.position, state

    def step_env(
        self, key: jax.Array, state: LandmarksState, action: jax.Array, params: LandmarksParams
    ) -> tuple[jax.Array, LandmarksState, jax.Array, jax.Array, dict[str, Any]]:
        ends = self.is_terminated(state, params)
        move = STEP * action / jnp.maximum(jnp.linalg.norm(action), 1.0)
        state = LandmarksState(position=jnp.clip(state.position + move, 0.0, SIDE), time=state.time + 1)
        return state.position, state, -jnp.ones(()), ends, {}

    def is_terminated(self, state: LandmarksState, params: LandmarksParams) -> jax.Array:
        """Whether any action in this state ends the episode."""
        return jnp.linalg.norm(state.position - params.landmarks[-1]) <= STEP

    @property
    def num_actions(self) -> int:
        return 2

    def action_space(self, params: LandmarksParams | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    def observation_space(self, params: LandmarksParams | None = None) -> spaces.Box:
        return spaces.Box(0.0, SIDE, (2,), jnp.float32)

    def draw(self, ax: Any, params: LandmarksParams) -> None:
        """The landmarks with their circles, start and goal, on a matplotlib axis."""
        from matplotlib.patches import Circle

        for landmark in np.asarray(params.landmarks):
            ax.add_patch(Circle(landmark, float(params.radius), fill=False, ec="0.75", lw=0.8))
        ax.plot(*np.asarray(params.landmarks).T, "o", ms=6, color="black")
        for name, place, side in (("S", params.start, (-3, 8)), ("G", params.landmarks[-1], (-14, -3))):
            ax.annotate(name, np.asarray(place), xytext=side, textcoords="offset points", weight="bold")
        ax.set(xlim=(-0.1, SIDE + 0.1), ylim=(-0.1, SIDE + 0.1), aspect="equal")


def random_landmarks(key: jax.Array) -> LandmarksParams:
    """A layout: start (0, 0), goal (3, 3), six landmarks anywhere in the square, and a radius between 0.8 and 1.6."""
    key_places, key_radius = jax.random.split(key)
    others = jax.random.uniform(key_places, (COUNT - 1, 2), maxval=SIDE)
    radius = jax.random.uniform(key_radius, minval=RADII[0], maxval=RADII[1])
    return LandmarksParams(landmarks=jnp.concatenate([others, jnp.full((1, 2), SIDE)]), radius=radius)


def landmarks_tasks() -> Tasks:
    """A random layout for each task."""
    return Tasks(sample=random_landmarks)


@struct.dataclass
class MassState(environment.EnvState):
    """Where the mass is and how it moves."""

    position: jax.Array  # []
    velocity: jax.Array  # []
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class MassParams(environment.EnvParams):
    """There is one task."""

    max_steps_in_episode: int = 1000


class MovingMass(environment.Environment[MassState, MassParams]):
    """Observation: position and velocity [2]. Action: the force in hundredths, [1] in [−2, 2]. Reward: −1."""

    @property
    def default_params(self) -> MassParams:
        return MassParams()

    def reset_env(self, key: jax.Array, params: MassParams) -> tuple[jax.Array, MassState]:
        state = MassState(position=jnp.zeros(()), velocity=jnp.zeros(()), time=jnp.zeros((), jnp.int32))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: MassState, action: jax.Array, params: MassParams
    ) -> tuple[jax.Array, MassState, jax.Array, jax.Array, dict[str, Any]]:
        velocity = state.velocity + 0.01 * jnp.clip(action[0], -2.0, 2.0) - FRICTION * state.velocity
        position = jnp.clip(state.position + velocity, -SPACE, SPACE)
        state = MassState(position=position, velocity=velocity, time=state.time + 1)
        return self.get_obs(state), state, -jnp.ones(()), self.is_terminated(state, params), {}

    def is_terminated(self, state: MassState, params: MassParams) -> jax.Array:
        return (jnp.abs(state.position - TARGET) < EPSILON) & (jnp.abs(state.velocity) < EPSILON)

    def get_obs(self, state: MassState, params: Any = None, key: Any = None) -> jax.Array:
        return jnp.stack([state.position, state.velocity])

    @property
    def num_actions(self) -> int:
        return 1

    def action_space(self, params: MassParams | None = None) -> spaces.Box:
        return spaces.Box(-2.0, 2.0, (1,), jnp.float32)

    def observation_space(self, params: MassParams | None = None) -> spaces.Box:
        return spaces.Box(-SPACE, SPACE, (2,), jnp.float32)
