"""A curriculum: Q-learning in four rooms that starts near the goal, and further away with every episode.

`Tasks.resample` is a function of the last task. So a task that counts its episodes is a curriculum, each environment at
its own pace, inside the compiled program.

    python -m examples.curriculum
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

import jaxrl_hier
from jaxrl_envs import FourRooms, FourRoomsParams, Tasks, four_rooms_tasks
from jaxrl_envs.four_rooms import G1
from jaxrl_hier.exact import tabular


@struct.dataclass
class Lesson(FourRoomsParams):
    """A task that counts its episodes."""

    episode: jax.Array | int = 0  # [] int32, episodes before this one


def curriculum(env: FourRooms, pace: float = 0.5, first: float = 3.0) -> Tasks:
    """Starts uniform over the cells from which the best policy takes at most `first` + `pace` · episode steps on
    average, at least over the nearest."""
    goal = env.default_params.goal
    P, _ = env.model(env.default_params)
    away = tabular.minimal_expected_steps(P).at[goal].set(jnp.inf)  # no start on the goal

    def lesson(key: jax.Array, episode: jax.Array) -> Lesson:
        near = away <= jnp.maximum(first, jnp.min(away)) + pace * episode
        start = jax.random.categorical(key, jnp.where(near, 0.0, -jnp.inf)).astype(jnp.int32)
        return Lesson(goal=jnp.int32(goal), start=start, max_steps_in_episode=10_000, episode=episode)

    return Tasks(
        sample=lambda key: lesson(key, jnp.int32(0)),
        resample=lambda key, task: lesson(key, task.episode + 1),
    )


def main(**settings):
    """Train with a curriculum and from uniform starts, and print the greedy policies' values, averaged over starts."""
    env = FourRooms()
    anywhere = four_rooms_tasks(env, [G1], start="uniform")
    P, R = env.model(env.default_params)
    best = np.mean(tabular.value_iteration(P, R, 0.9))
    results = {}
    for name, tasks in (("curriculum", curriculum(env)), ("from anywhere", anywhere)):
        results[name] = jaxrl_hier.train("q-learning", env=env, tasks=tasks, recorded_episodes=50, **settings)
        values = results[name].evaluation["value"].values  # axes: seed, environment, state
        print(f"{name}: {np.mean(values):.3f} (best {best:.3f})")
    return results


if __name__ == "__main__":
    main(iterations=10_000, log_every=1_000, checkpoint_every=10_000, seeds=20)
