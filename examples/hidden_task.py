"""A hidden task: two doors, one pays three times in four and the other once. RL² must infer which is which.

Observations say nothing of the task, and one pull says little: an agent that remembers only the last one does best with
win-stay, lose-shift, and earns 6.1 in ten pulls. One that remembers all of them can earn 6.6.

    python -m examples.hidden_task
"""

from math import comb

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl_hier
from jaxrl_envs import Bandit, BanditParams, Tasks

GOOD, BAD, PULLS = 0.75, 0.25, 10


def doors() -> Tasks:
    """Either door is the good one with probability 1/2, anew for each episode; within one, the task stays the same."""

    def sample(key: jax.Array) -> BanditParams:
        probabilities = jnp.where(jax.random.bernoulli(key), jnp.array([GOOD, BAD]), jnp.array([BAD, GOOD]))
        return BanditParams(probabilities=probabilities, max_steps_in_episode=PULLS)

    return Tasks(sample=sample, resample="episode")


def best(remembered: int = PULLS) -> float:
    """The highest expected return of an agent that remembers the last pull (1), or all of them.

    With GOOD = 1 − BAD each pull, of either door, speaks for the good one with probability GOOD: a majority decides.
    """

    def right(t: int) -> float:
        """The probability that the majority of t pulls is right; where there is none, 1/2."""
        votes = lambda k: comb(t, k) * GOOD**k * BAD ** (t - k)
        return sum(votes(k) * (1.0 if 2 * k > t else 0.5) for k in range(t + 1) if 2 * k >= t)

    chances = [right(min(t, remembered)) for t in range(PULLS)]
    return sum(p * GOOD + (1 - p) * BAD for p in chances)


def main(memories=("gru", "none"), **settings):
    """Train with a memory and without, and print what fresh tasks paid. RL² always sees its last action and reward."""
    results = {}
    for memory in memories:
        results[memory] = jaxrl_hier.train("rl2", env=Bandit(2), tasks=doors(), memory=memory, **settings)
        earned = np.mean(results[memory].evaluation["return"].values)
        print(f"memory {memory}: {earned:.2f} of {best(1 if memory == 'none' else PULLS):.2f} that are possible")
    return results


if __name__ == "__main__":
    main(
        iterations=150,
        log_every=10,
        environments=512,
        minibatch_size=128,
        memory_size=16,
        eval_tasks=4000,
        gae_lambda=1.0,
        discount=1.0,
    )
