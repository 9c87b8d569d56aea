"""PEARL's two point robots (Rakelly et al., ICML 2019): 20 steps of at most 0.1 in each axis, towards a hidden goal.

Both start at (0, 0), take actions in [−1, 1]², observe their position, and end only at the time limit.

    PointRobot        goals anywhere in [−1, 1]²; the reward is minus the distance to the goal after the move
    SparsePointRobot  goals on the upper half of the unit circle; `sparse_reward` is 1 minus the distance within 0.2 of
                      the goal and 0 elsewhere. Learners infer the task from it, and results are reported in it. The
                      losses of meta-training may use the distance: the reward of a `shaped` environment

The authors' point robot resets to a random position although its code intends the origin; ours starts at the origin.
Goals: theirs on the half circle, in their order (NumPy's legacy generator, seed 1337), 80 to train on and 20 for the
test; those in the square are drawn by the same generator and split alike.

Some paths touch the rim of the rewarded disc: eight full steps towards (1, 0) end 0.2 from it. In float32 the distance
may round to either side, a difference of 0.8 in return, so the disc's radius is 1e-5 larger.

The optimum is known exactly: each axis moves to its goal at full speed and then by the remainder, and no path is nearer
to the goal at any time (`best_return`). On the half circle its mean over all goals is 13.375.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.navigation2d import GOAL_RADIUS, STEP_SIZE, Navigation2D, NavigationParams, NavigationSparse
from jaxrl_envs.tasks import Tasks, from_batch

STEPS = 20
GOALS, TRAINED = 100, 80  # all, and how many of them are trained on
SLACK = 1e-5  # how much farther than its radius the rewarded disc reaches


class PointRobot(Navigation2D):
    """Observation: position [2] float32. Action: [2] float32 in [−1, 1]. Reward: minus the distance to the goal."""

    view = 1.35

    @property
    def default_params(self) -> NavigationParams:
        return NavigationParams(goal=jnp.array([0.0, 1.0]), max_steps_in_episode=STEPS)

    def is_terminated(self, state, params: NavigationParams) -> jax.Array:
        return jnp.zeros((), bool)

    def draw_goals(self, ax, params: NavigationParams) -> None:
        """The square of goals, dotted."""
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)])
        ax.plot(*corners.T, color="0.75", lw=0.8, ls=":")


class SparsePointRobot(NavigationSparse):
    """The same on the half circle. `shaped`: the reward is minus the distance; otherwise it is the sparse one."""

    def __init__(self, shaped: bool = True):
        super().__init__()
        self.shaped = shaped

    def reward(self, before: jax.Array, after: jax.Array, params: NavigationParams) -> jax.Array:
        return -jnp.linalg.norm(after - params.goal) if self.shaped else self.sparse_reward(after, params)

    def sparse_reward(self, next_obs: jax.Array, params: NavigationParams) -> jax.Array:
        """The sparse reward of a step that ends at `next_obs` [2]: [] float32."""
        distance = jnp.linalg.norm(next_obs - params.goal)
        return jnp.where(distance <= GOAL_RADIUS + SLACK, 1.0 - distance, 0.0)


def half_circle_goals() -> np.ndarray:
    """The goals of the paper's sparse task, [100, 2] float64; the first 80 are trained on."""
    angles = np.linspace(0, np.pi, GOALS)
    goals = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    np.random.RandomState(1337).shuffle(goals)
    return goals


def square_goals() -> np.ndarray:
    """Goals in the square, [100, 2] float64; the first 80 are trained on."""
    return np.random.RandomState(1337).uniform(-1, 1, (GOALS, 2))


def point_robot_tasks(goals: np.ndarray) -> Tasks:
    """Uniform over the first 80 of `goals` [100, 2]; the others are for the test."""
    params = lambda goal: NavigationParams(goal=goal, max_steps_in_episode=STEPS)
    batch = jax.vmap(params)(jnp.asarray(goals, jnp.float32))
    return from_batch(jax.tree.map(lambda x: x[:TRAINED], batch), test=jax.tree.map(lambda x: x[TRAINED:], batch))


def best_return(goals: np.ndarray, sparse: bool) -> np.ndarray:
    """The highest return of an episode for each of `goals` [N, 2], exact: [N] float64."""
    reach = STEP_SIZE * np.arange(1, STEPS + 1)[:, None, None]
    distance = np.linalg.norm(goals - np.clip(goals, -reach, reach), axis=-1)  # [steps, N], least at each time
    reward = np.where(distance <= GOAL_RADIUS + SLACK, 1 - distance, 0) if sparse else -distance
    return reward.sum(axis=0)
