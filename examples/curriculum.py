"""A curriculum: Q-learning in four rooms that begins near the goal, and further away with every episode.

What the next task is may depend on the last one: `Tasks.resample` is a function of it. So a task that counts its
episodes is a curriculum, each world at its own pace, inside the compiled program.

    python -m examples.curriculum
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

import jaxrl_hier
from jaxrl_envs import FourRooms, FourRoomsParams, Tasks
from jaxrl_hier.exact import tabular


@struct.dataclass
class Lesson(FourRoomsParams):
    """A task that knows which episode it is."""

    episode: jax.Array | int = 0  # [] int32, episodes before this one


def curriculum(env: FourRooms, pace: float = 0.5, first: float = 3.0) -> Tasks:
    """Starts uniform over the cells from which the best policy takes at most `first` + `pace` · episode steps on
    average, at least over the nearest."""
    goal = env.default_params.goal
    P, _ = env.model(env.default_params)
    away = tabular.minimal_expected_steps(P).at[goal].set(jnp.inf)  # nobody begins on the goal

    def lesson(key: jax.Array, episode: jax.Array) -> Lesson:
        near = away <= jnp.maximum(first, jnp.min(away)) + pace * episode
        start = jax.random.categorical(key, jnp.where(near, 0.0, -jnp.inf)).astype(jnp.int32)
        return Lesson(goal=jnp.int32(goal), start=start, max_steps_in_episode=10_000, episode=episode)

    return Tasks(
        sample=lambda key: lesson(key, jnp.int32(0)),
        resample=lambda key, task: lesson(key, task.episode + 1),
    )


def main(**settings):
    """Train with and without, and print the steps of the first episodes. Without it, the first one is a random walk."""
    env = FourRooms()
    anywhere = Tasks(sample=lambda key: env.default_params.replace(start=np.int32(-1)), resample="episode")
    results = {}
    for name, tasks in (("curriculum", curriculum(env)), ("from anywhere", anywhere)):
        results[name] = jaxrl_hier.train("q-learning", env=env, tasks=tasks, record=50, **settings)
        steps = results[name].evaluation["training_length"].values.astype(float)  # axes: seed, environment, episode
        steps[steps == 0] = np.nan  # has not ended
        print(f"{name}: {np.nanmean(steps[..., 0]):.0f} steps in the first episode, {np.nanmean(steps):.0f} in 50")
    return results


if __name__ == "__main__":
    main(iterations=50_000, log_every=5_000, checkpoint_every=50_000, seeds=10)
