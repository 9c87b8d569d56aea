"""2-D navigation: a point that moves to a goal it cannot see (Finn, Abbeel & Levine, ICML 2017, section 5.3).

The point starts at (0, 0) and moves by `0.1 * clip(action, -1, 1)` in each axis; the goal is the task. The reward is
minus the distance to the goal after the move. The paper's text says squared distance, its code and all its numbers use
the plain distance, and so does this environment. Actions are normalised as in the paper's code: the policy acts in
[-1, 1]² and the environment scales to the ±0.1 box. An episode terminates once both coordinates are within
0.01 of the goal, and is truncated after 100 steps.

Other code calls other tasks 2-D navigation. Their returns cannot be compared, so they are separate classes:

    NavigationUnnormalised  an action is the move itself, clipped at ±0.1: a policy of standard deviation 1 nearly
                            always moves by the bounds (pytorch-maml-rl; ANIL, 2020)
    NavigationCorners       the goal is one of four far corners, and only progress once the start is left is rewarded
                            (ProMP, 2019)
    NavigationSparse        the goal lies on a half circle, and only its surroundings are rewarded (PEARL, 2019)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.tasks import Tasks, from_batch

STEP_SIZE = 0.1
TOLERANCE = 0.01
GOAL_RANGE = 0.5

CORNERS = np.array([(-2, -2), (2, -2), (-2, 2), (2, 2)], np.float32)
CORNERS_SILENCE = 0.5  # no reward while |x| + |y| is smaller
CORNERS_START = 0.2  # an episode starts anywhere in ± this

GOAL_RADIUS = 0.2  # NavigationSparse: the reward begins here


@struct.dataclass
class NavigationState(environment.EnvState):
    """Where the point is."""

    position: jax.Array  # [2]
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class NavigationParams(environment.EnvParams):
    """The task: where to go."""

    goal: jax.Array = struct.field(default_factory=lambda: np.zeros(2, np.float32))  # [2], the task
    max_steps_in_episode: int = 100


class Navigation2D(environment.Environment[NavigationState, NavigationParams]):
    """Observation: position [2] float32. Action: [2] float32 in [-1, 1]. Reward: minus the distance to the goal."""

    action_bound = 1.0  # actions are clipped to ± this
    step_size = STEP_SIZE  # what an action of 1 moves
    view = 0.7  # a picture shows at least ± this

    @property
    def default_params(self) -> NavigationParams:
        return NavigationParams()

    def reset_env(self, key: jax.Array, params: NavigationParams) -> tuple[jax.Array, NavigationState]:
        state = NavigationState(position=jnp.zeros(2), time=jnp.zeros((), jnp.int32))
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: NavigationState, action: jax.Array, params: NavigationParams
    ) -> tuple[jax.Array, NavigationState, jax.Array, jax.Array, dict[str, Any]]:
        position = state.position + self.step_size * jnp.clip(action, -self.action_bound, self.action_bound)
        reward = self.reward(state.position, position, params)
        state = NavigationState(position=position, time=state.time + 1)
        return self.get_obs(state, params), state, reward, self.is_terminated(state, params), {}

    def reward(self, before: jax.Array, after: jax.Array, params: NavigationParams) -> jax.Array:
        """The reward of a move from one position [2] to another."""
        return -jnp.linalg.norm(after - params.goal)

    def is_terminated(self, state: NavigationState, params: NavigationParams) -> jax.Array:
        return jnp.all(jnp.abs(state.position - params.goal) < TOLERANCE)

    def get_obs(self, state: NavigationState, params=None, key=None) -> jax.Array:
        return state.position

    @property
    def num_actions(self) -> int:
        return 2

    def action_space(self, params: NavigationParams | None = None) -> spaces.Box:
        bound = np.float32(self.action_bound)
        return spaces.Box(-bound, bound, (2,), jnp.float32)

    def observation_space(self, params: NavigationParams | None = None) -> spaces.Box:
        reach = self.step_size * self.action_bound * self.default_params.max_steps_in_episode + 1e-3
        return spaces.Box(-reach, reach, (2,), jnp.float32)

    def draw(self, ax, params: NavigationParams, paths=()) -> None:
        """Draw one task on a matplotlib axis: the goal, the region of goals, and paths, each [T, 2] positions."""
        self.draw_goals(ax, params)
        for path in paths:
            ax.plot(path[:, 0], path[:, 1], color="tab:blue", lw=1.2, alpha=0.7)
            ax.plot(path[-1, 0], path[-1, 1], "o", ms=3.5, color="tab:blue")
        ax.plot(0, 0, "s", ms=5, color="black")
        ax.plot(*np.asarray(params.goal), "*", ms=14, color="tab:orange", mec="black", mew=0.6)
        points = np.concatenate([np.asarray(p) for p in paths]) if len(paths) else np.zeros((1, 2))
        half = max(self.view, float(np.quantile(np.abs(points), 0.995)) * 1.08)
        ax.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[], aspect="equal")

    def draw_goals(self, ax, params: NavigationParams) -> None:
        """Where goals can lie, dotted."""
        ax.add_patch(_rectangle((-GOAL_RANGE, -GOAL_RANGE), 2 * GOAL_RANGE))

    def render(self, state: NavigationState, params: NavigationParams, size: int = 256) -> np.ndarray:
        """One state as a picture, uint8 [size, size, 3]: square start, star goal, disc the point. y points up."""
        from jaxrl_envs.rendering import picture

        def paint(ax):
            self.draw(ax, params)
            ax.plot(*np.asarray(state.position), "o", ms=9, color="tab:blue")
            half = max(self.view, 1.08 * float(np.abs(np.asarray(state.position)).max()))
            ax.set(xlim=(-half, half), ylim=(-half, half))

        return picture(paint, size)


class NavigationOracle(Navigation2D):
    """The same task with the goal beside the position, [4]: what a policy that is told the task can learn."""

    def get_obs(self, state: NavigationState, params: Any = None, key: Any = None) -> jax.Array:
        goal = self.default_params.goal if params is None else params.goal
        return jnp.concatenate([state.position, goal])

    def observation_space(self, params: NavigationParams | None = None) -> spaces.Box:
        reach = super().observation_space(params).high
        return spaces.Box(-reach, reach, (4,), jnp.float32)


class NavigationUnnormalised(Navigation2D):
    """The same task in the action units of pytorch-maml-rl: an action is the move itself, clipped at ±0.1."""

    action_bound = STEP_SIZE
    step_size = 1.0


class NavigationCorners(Navigation2D):
    """ProMP's point mass: goals at (±2, ±2), moves of up to 0.2, no end but the limit of 100 steps.

    Actions are those of the repository's normaliser, in ±10. The reward is the progress towards the goal made in a
    step that ends where the goal is the nearest corner, and 0 elsewhere and near the start (|x| + |y| < 0.5).
    """

    action_bound = 10.0
    step_size = 0.02
    view = 2.5

    @property
    def default_params(self) -> NavigationParams:
        return NavigationParams(goal=jnp.array(CORNERS[3]))

    def reset_env(self, key: jax.Array, params: NavigationParams) -> tuple[jax.Array, NavigationState]:
        position = jax.random.uniform(key, (2,), minval=-CORNERS_START, maxval=CORNERS_START)
        return position, NavigationState(position=position, time=jnp.zeros((), jnp.int32))

    def reward(self, before: jax.Array, after: jax.Array, params: NavigationParams) -> jax.Array:
        distance = lambda position: jnp.linalg.norm(position - params.goal)
        nearest = jnp.min(jnp.linalg.norm(after - CORNERS, axis=-1))
        rewarded = (jnp.sum(jnp.abs(after)) >= CORNERS_SILENCE) & (distance(after) <= nearest)
        return jnp.where(rewarded, distance(before) - distance(after), 0.0)

    def is_terminated(self, state: NavigationState, params: NavigationParams) -> jax.Array:
        return jnp.zeros((), bool)

    def observation_space(self, params: NavigationParams | None = None) -> spaces.Box:
        reach = super().observation_space(params).high + CORNERS_START
        return spaces.Box(-reach, reach, (2,), jnp.float32)

    def draw_goals(self, ax, params: NavigationParams) -> None:
        """The corners, and the region without reward around the start, dotted."""
        ax.plot(*CORNERS.T, "*", ms=11, mfc="none", mec="0.65", mew=0.8)
        diamond = CORNERS_SILENCE * np.array([(1, 0), (0, 1), (-1, 0), (0, -1), (1, 0)])
        ax.plot(*diamond.T, color="0.75", lw=0.8, ls=":")


class NavigationSparse(Navigation2D):
    """PEARL's sparse point robot: goals on the upper half of the unit circle, 20 steps, no other end.

    The reward is 1 minus the distance to the goal within 0.2 of it, and 0 elsewhere. PEARL trains on the distance
    itself and uses this reward for its task inference and its results; here it is the only one.
    """

    view = 1.35

    @property
    def default_params(self) -> NavigationParams:
        return NavigationParams(goal=jnp.array([0.0, 1.0]), max_steps_in_episode=20)

    def reward(self, before: jax.Array, after: jax.Array, params: NavigationParams) -> jax.Array:
        distance = jnp.linalg.norm(after - params.goal)
        return jnp.where(distance <= GOAL_RADIUS, 1.0 - distance, 0.0)

    def is_terminated(self, state: NavigationState, params: NavigationParams) -> jax.Array:
        return jnp.zeros((), bool)

    def draw_goals(self, ax, params: NavigationParams) -> None:
        """The half circle of goals and the rewarded disc around this task's, dotted."""
        angle = np.linspace(0, 2 * np.pi, 100)
        circle = np.stack([np.cos(angle), np.sin(angle)])
        ax.plot(*circle[:, :50], color="0.75", lw=0.8, ls=":")
        ax.plot(*(np.asarray(params.goal)[:, None] + GOAL_RADIUS * circle), color="tab:orange", lw=0.8, ls=":")


def _rectangle(corner, side):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, side, side, fill=False, ec="0.75", lw=0.8, ls=":")


def paper_goals(count: int = 40) -> np.ndarray:
    """The test goals of the paper's results, [count, 2]: NumPy's legacy generator with seed 1."""
    return np.random.RandomState(1).uniform(-GOAL_RANGE, GOAL_RANGE, (count, 2)).astype(np.float32)


def navigation_tasks() -> Tasks:
    """Goals uniform in [-0.5, 0.5]², and the paper's 40 fixed goals for the test."""

    def sample(key: jax.Array) -> NavigationParams:
        return NavigationParams(goal=jax.random.uniform(key, (2,), minval=-GOAL_RANGE, maxval=GOAL_RANGE))

    return Tasks(sample=sample, test=_goals(paper_goals()))


def corner_tasks() -> Tasks:
    """The four corners with equal probability; for the test each of them ten times."""
    return from_batch(_goals(CORNERS), test=_goals(np.tile(CORNERS, (10, 1))))


def sparse_tasks() -> Tasks:
    """PEARL's 100 goals on the half circle: 80 to train on, and the other 20, each twice, for the test."""
    angles = np.linspace(0, np.pi, 100)
    goals = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    np.random.RandomState(1337).shuffle(goals)
    steps = NavigationSparse().default_params.max_steps_in_episode
    return from_batch(_goals(goals[:80], steps), test=_goals(np.tile(goals[80:], (2, 1)), steps))


def _goals(goals: np.ndarray, steps: int = 100) -> NavigationParams:
    """Tasks with these goals [N, 2]."""
    return jax.vmap(lambda goal: NavigationParams(goal=goal, max_steps_in_episode=steps))(jnp.asarray(goals))
