"""Training tasks and held-out test tasks: MAML on 2-D navigation, with a quarter of the goals held out.

`Tasks` holds both. `sample` draws from the training tasks alone; evaluations use `test` and nothing else.

    python -m examples.train_test_split
"""

import jax.numpy as jnp
import numpy as np

import jaxrl_hier
from jaxrl_envs import Navigation2D, NavigationParams, Tasks
from jaxrl_envs.tasks import from_batch


def split(goals: int = 80, test: int = 20, seed: int = 0) -> Tasks:
    """`goals` goals in [-0.5, 0.5]², of which `test` are held out; the same ones for the same seed."""
    places = np.random.default_rng(seed).uniform(-0.5, 0.5, (goals, 2)).astype(np.float32)
    tasks_at = lambda x: NavigationParams(goal=jnp.asarray(x), max_steps_in_episode=jnp.full(len(x), 100))
    return from_batch(tasks_at(places[test:]), test=tasks_at(places[:test]))


def main(**settings):
    """Train, and print the return on the held-out tasks after 0, 1, 2 and 3 gradient steps."""
    result = jaxrl_hier.train("maml", env=Navigation2D(), tasks=split(), **settings)
    curve = np.mean(result.evaluation["return"].values, axis=(0, 1))  # axes: seed, task, adaptation_step
    print("return on held-out goals:", *(f"{x:.1f}" for x in curve))
    return result


if __name__ == "__main__":
    main(iterations=50, meta_batch_size=10, episodes_per_task=10, eval_tasks=20)
