"""Point reach and point push: goals for a point mass, with a sparse reward (after Andrychowicz et al., NeurIPS 2017).

Small relatives of FetchReach and FetchPush that run compiled. As there, an episode has 50 steps and no other end, the
reward after each step is 0 if the point or the disc is within the tolerance of the goal and −1 otherwise, and an
episode is a success if its last step is one. Sizes are our own.

The contract is jaxrl_envs.goals'; the goal is the task, `params.goal`, drawn anew in every episode.

The world is the square (or cube) [−1, 1]ᵈ, its unit of time the second; a step lasts dt = 0.1. The point has mass 1 and
is driven towards the velocity that the action a in [−1, 1]ᵈ asks for,

    dv/dt = (a − v) / 0.2,   dx/dt = v.

v is integrated exactly for the constant a of a step, and x then moves by dt times the new v; push takes five smaller
steps. Walls are inelastic: a body that would leave stays at the wall and loses its velocity across it.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.goals import GoalSpace
from jaxrl_envs.tasks import Tasks

STEP = 0.1  # dt, seconds
RESPONSE = 0.2  # seconds in which the point's velocity comes near the one asked for
SUBSTEPS = 5  # of push, in each step
POINT_RADIUS, DISC_RADIUS = 0.08, 0.12
POINT_MASS, DISC_MASS = 1.0, 0.25
DISC_DAMPING = 0.1  # seconds in which a free disc loses its velocity, all but 1/e; it glides on by 0.1 times its speed
SLACK = 1e-4  # a gap below this counts as contact
REGION = 0.5  # goals of push lie in [−REGION, REGION]²
APART = (0.3, 0.5)  # first distance between the centres of point and disc


@struct.dataclass
class ReachState(environment.EnvState):
    """Where the point is, and how fast."""

    position: jax.Array  # [D]
    velocity: jax.Array  # [D]
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class ReachParams(environment.EnvParams):
    """The task: where to go."""

    goal: jax.Array | np.ndarray = struct.field(default_factory=lambda: np.zeros(2, np.float32))  # [D], the task
    tolerance: float = 0.05  # distance from the goal that is near enough
    max_steps_in_episode: int = 50


@struct.dataclass
class PushState(environment.EnvState):
    """Where the two bodies are, and how fast; row 0 is the point, row 1 the disc."""

    position: jax.Array  # [2, 2]
    velocity: jax.Array  # [2, 2]
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class PushParams(environment.EnvParams):
    """The task: where to push the disc."""

    goal: jax.Array | np.ndarray = struct.field(default_factory=lambda: np.zeros(2, np.float32))  # [2], the task
    tolerance: float = 0.1  # distance of the disc's centre from the goal that is near enough
    max_steps_in_episode: int = 50


class _PointGoals(environment.Environment):
    """The common part of both tasks: reward, success, time limit, spaces."""

    def compute_reward(self, achieved_goal: jax.Array, desired_goal: jax.Array, params: Any) -> jax.Array:
        """0 within the tolerance and −1 beyond, [] float32."""
        return jnp.where(self._near(achieved_goal, desired_goal, params), 0.0, -1.0)

    def _near(self, achieved_goal: jax.Array, desired_goal: jax.Array, params: Any) -> jax.Array:
        return jnp.linalg.norm(achieved_goal - desired_goal, axis=-1) <= params.tolerance

    def _after(self, state: Any, params: Any) -> tuple[Any, Any, jax.Array, jax.Array, dict[str, Any]]:
        """What `step_env` returns of the state after the move."""
        obs = self.get_obs(state, params)
        achieved, desired = obs["achieved_goal"], obs["desired_goal"]
        info = {"success": self._near(achieved, desired, params)}
        return obs, state, self.compute_reward(achieved, desired, params), jnp.zeros((), bool), info

    def is_terminated(self, state: Any, params: Any) -> jax.Array:
        return jnp.zeros((), bool)

    @property
    def dimensions(self) -> int:
        """D, of the space that the point moves in."""
        return 2

    @property
    def num_actions(self) -> int:
        return self.dimensions

    def action_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (self.dimensions,), jnp.float32)

    def _space(self, observations: int) -> GoalSpace:
        box = lambda bound, size: spaces.Box(-bound, bound, (size,), jnp.float32)
        return GoalSpace(box(2.0, observations), box(1.0, self.dimensions))


class PointReach(_PointGoals):
    """Bring a point mass to the goal, and keep it there.

    Action: [D] float32 in [−1, 1], the velocity asked for. Observation: position and velocity [2 D]; achieved: the
    position. Starts at rest in the centre.

    Args:
        dimensions: D, 2 for the plane or 3 for space.
    """

    def __init__(self, dimensions: int = 2):
        super().__init__()
        if dimensions not in (2, 3):
            raise ValueError(f"dimensions is 2 (the plane) or 3 (space), not {dimensions}")
        self._dimensions = dimensions

    @property
    def dimensions(self) -> int:
        """D, of the space that the point moves in."""
        return self._dimensions

    @property
    def default_params(self) -> ReachParams:
        return ReachParams(goal=np.zeros(self.dimensions, np.float32))

    def reset_env(self, key: jax.Array, params: ReachParams) -> tuple[dict[str, jax.Array], ReachState]:
        still = jnp.zeros(self.dimensions)
        state = ReachState(position=still, velocity=still, time=jnp.zeros((), jnp.int32))
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: ReachState, action: jax.Array, params: ReachParams
    ) -> tuple[dict[str, jax.Array], ReachState, jax.Array, jax.Array, dict[str, Any]]:
        velocity = _driven(state.velocity, jnp.clip(action, -1.0, 1.0), STEP)
        position, velocity = _walls(state.position + STEP * velocity, velocity, 1.0)
        return self._after(ReachState(position=position, velocity=velocity, time=state.time + 1), params)

    def get_obs(self, state: ReachState, params: ReachParams | None = None, key=None) -> dict[str, jax.Array]:
        params = self.default_params if params is None else params
        return {
            "observation": jnp.concatenate([state.position, state.velocity]),
            "achieved_goal": state.position,
            "desired_goal": jnp.asarray(params.goal),
        }

    def observation_space(self, params: ReachParams | None = None) -> GoalSpace:
        return self._space(2 * self.dimensions)

    def draw(self, ax, params: ReachParams, paths=()) -> None:
        """Draw one task on a matplotlib axis, seen from above in space: the goal with its tolerance, and paths, each
        [T, D] positions."""
        _arena(ax, params)
        for path in paths:
            ax.plot(path[:, 0], path[:, 1], color="tab:blue", lw=1.2, alpha=0.7)

    def render(self, state: ReachState, params: ReachParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]: star goal, ring its tolerance, disc the point. y points up,
        the third axis towards the eye."""
        from jaxrl_envs.rendering import picture

        def paint(ax):
            self.draw(ax, params)
            ax.add_patch(_disc(state.position, 0.04, "tab:blue"))

        return picture(paint, size)


class PointPush(_PointGoals):
    """Push a disc to the goal with a point mass, and leave it there.

    Action: [2] float32 in [−1, 1], the velocity asked for. Observation [10]: position and velocity of the point, those
    of the disc, and where the disc is as seen from the point. Achieved: the position of the disc.

    The point is a disc too, of radius 0.08 and mass 1, the disc has radius 0.12 and mass 0.25. Left alone the disc
    slows down by dv/dt = −v / 0.1. Contact has no friction and no bounce: an impulse along the line of the centres,
    equal and opposite, takes away the velocity at which they approach. A straight push therefore settles at 2/3 of the
    point's own speed, and once the point stops the disc glides on for about 0.07. In a fifth of a step, after which
    contact is looked for again, bodies approach by less than 0.06, so none passes through the other. The disc starts at
    rest, 0.3 to 0.5 from the point, which starts at rest in the centre.
    """

    @property
    def default_params(self) -> PushParams:
        return PushParams()

    def reset_env(self, key: jax.Array, params: PushParams) -> tuple[dict[str, jax.Array], PushState]:
        turn, apart = jax.random.uniform(key, (2,))
        radius = jnp.sqrt(APART[0] ** 2 + apart * (APART[1] ** 2 - APART[0] ** 2))  # uniform over the ring
        angle = 2 * math.pi * turn
        disc = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        position = jnp.stack([jnp.zeros(2), disc])
        state = PushState(position=position, velocity=jnp.zeros((2, 2)), time=jnp.zeros((), jnp.int32))
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: PushState, action: jax.Array, params: PushParams
    ) -> tuple[dict[str, jax.Array], PushState, jax.Array, jax.Array, dict[str, Any]]:
        position, velocity = state.position, state.velocity
        action = jnp.clip(action, -1.0, 1.0)
        for _ in range(SUBSTEPS):
            position, velocity = push(position, velocity, action, STEP / SUBSTEPS)
        return self._after(PushState(position=position, velocity=velocity, time=state.time + 1), params)

    def get_obs(self, state: PushState, params: PushParams | None = None, key=None) -> dict[str, jax.Array]:
        params = self.default_params if params is None else params
        (point, disc), (point_velocity, disc_velocity) = state.position, state.velocity
        return {
            "observation": jnp.concatenate([point, point_velocity, disc, disc_velocity, disc - point]),
            "achieved_goal": disc,
            "desired_goal": jnp.asarray(params.goal),
        }

    def observation_space(self, params: PushParams | None = None) -> GoalSpace:
        return self._space(10)

    def draw(self, ax, params: PushParams, paths=()) -> None:
        """Draw one task on a matplotlib axis: the goal with its tolerance, and paths, each [T, 2, 2] positions of the
        point (thin) and of the disc."""
        _arena(ax, params)
        for path in paths:
            ax.plot(*path[:, 0].T, color="tab:blue", lw=0.8, alpha=0.7)
            ax.plot(*path[:, 1].T, color="0.3", lw=1.6, alpha=0.7)

    def render(self, state: PushState, params: PushParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]: star goal, ring its tolerance, blue the point, grey the disc.
        y points up."""
        from jaxrl_envs.rendering import picture

        def paint(ax):
            self.draw(ax, params)
            ax.add_patch(_disc(state.position[1], DISC_RADIUS, "0.55"))
            ax.add_patch(_disc(state.position[0], POINT_RADIUS, "tab:blue"))

        return picture(paint, size)


# Dynamics


def push(position: jax.Array, velocity: jax.Array, action: jax.Array, dt: float) -> tuple[jax.Array, jax.Array]:
    """Positions and velocities [2, 2] of point and disc after `dt` seconds."""
    velocity = jnp.stack([_driven(velocity[0], action, dt), velocity[1] * math.exp(-dt / DISC_DAMPING)])
    velocity = collide(position, velocity)
    position = position + dt * velocity
    # after an oblique push or rounding they overlap a little: the disc yields or, at a wall, the point; with both at
    # walls, an overlap of less than 0.01 may remain for a moment
    normal, gap = _contact(position)
    disc, disc_velocity = _walls(position[1] - normal * jnp.minimum(gap, 0.0), velocity[1], 1 - DISC_RADIUS)
    normal, gap = _contact(jnp.stack([position[0], disc]))
    point, point_velocity = _walls(position[0] + normal * jnp.minimum(gap, 0.0), velocity[0], 1 - POINT_RADIUS)
    return jnp.stack([point, disc]), jnp.stack([point_velocity, disc_velocity])


def collide(position: jax.Array, velocity: jax.Array) -> jax.Array:
    """Velocities [2, 2] after the contact of point and disc, if they touch; their total momentum is unchanged."""
    normal, gap = _contact(position)
    approach = jnp.maximum(jnp.dot(velocity[0] - velocity[1], normal), 0.0)
    impulse = jnp.where(gap <= SLACK, approach, 0.0) / (1 / POINT_MASS + 1 / DISC_MASS)
    return velocity + jnp.stack([-impulse / POINT_MASS * normal, impulse / DISC_MASS * normal])


def _contact(position: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Unit vector [2] from the point's centre to the disc's, and the gap [] between their rims, negative inside."""
    difference = position[1] - position[0]
    distance = jnp.linalg.norm(difference)
    return difference / jnp.maximum(distance, 1e-6), distance - (POINT_RADIUS + DISC_RADIUS)


def _driven(velocity: jax.Array, action: jax.Array, dt: float) -> jax.Array:
    return action + (velocity - action) * math.exp(-dt / RESPONSE)


def _walls(position: jax.Array, velocity: jax.Array, bound: float) -> tuple[jax.Array, jax.Array]:
    inside = jnp.clip(position, -bound, bound)
    return inside, jnp.where(inside == position, velocity, 0.0)


# Pictures


def _arena(ax, params) -> None:
    from matplotlib.patches import Circle

    x, y = np.asarray(params.goal)[:2]
    ax.add_patch(Circle((x, y), float(params.tolerance), fill=False, ec="tab:orange", lw=1.4))
    ax.plot(x, y, "*", ms=12, color="tab:orange", mec="black", mew=0.6)
    ax.set(xlim=(-1.02, 1.02), ylim=(-1.02, 1.02), xticks=[], yticks=[], aspect="equal")


def _disc(center, radius, color):
    from matplotlib.patches import Circle

    return Circle(tuple(np.asarray(center)[:2]), radius, fc=color, ec="white", lw=0.8)


# Tasks


def point_reach_tasks(env: PointReach) -> Tasks:
    """Goals uniform in [−1, 1]ᵈ, a new one in each episode."""

    def sample(key: jax.Array) -> ReachParams:
        return env.default_params.replace(goal=jax.random.uniform(key, (env.dimensions,), minval=-1.0))

    return Tasks(sample=sample, resample="episode")


def point_push_tasks(env: PointPush) -> Tasks:
    """Goals uniform in [−½, ½]², a new one in each episode. In one of thirty the disc starts on it."""

    def sample(key: jax.Array) -> PushParams:
        return env.default_params.replace(goal=jax.random.uniform(key, (2,), minval=-REGION, maxval=REGION))

    return Tasks(sample=sample, resample="episode")
