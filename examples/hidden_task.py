"""A hidden task: two doors, one of which always pays. Nothing shows which; RL² must try, and remember.

Observations say nothing of the task, so that whoever has no memory earns half of the steps, 2.5 of 5. With one, the
first door is a guess and tells all: 0.5 + 4 = 4.5, and no agent can do better.

    python -m examples.hidden_task
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl_hier
from jaxrl_envs import Bandit, BanditParams, Tasks

STEPS = 5
BEST = 0.5 + (STEPS - 1)
BLIND = 0.5 * STEPS


def doors() -> Tasks:
    """Either door with probability 1/2, anew for each episode: within one, the task stays what it is."""

    def sample(key: jax.Array) -> BanditParams:
        first = jax.random.bernoulli(key).astype(np.float32)
        return BanditParams(probabilities=jnp.stack([first, 1 - first]), max_steps_in_episode=STEPS)

    return Tasks(sample=sample, resample="episode")


def main(memories=("gru", "none"), **settings):
    """Train with a memory and without, and print what the evaluation's fresh tasks paid."""
    results = {}
    for memory in memories:
        results[memory] = jaxrl_hier.train("rl2", env=Bandit(2), tasks=doors(), memory=memory, **settings)
        earned = np.mean(results[memory].evaluation["return"].values)
        print(f"memory {memory}: {earned:.2f} (best {BEST}, without memory {BLIND})")
    return results


if __name__ == "__main__":
    main(iterations=100, log_every=10, environments=256, minibatch=64, size=16)
