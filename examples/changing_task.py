"""Tasks that change over a lifetime: a two-armed bandit whose arms swap at some episode.

The learner keeps its table while the task changes. `Tasks.resample` computes the next episode's task from the last one,
so a task that counts its episodes can change at any of them: goals that move, masses that drift.

    python -m examples.changing_task
"""

import jax
import jax.numpy as jnp
from flax import struct

import jaxrl_hier
from jaxrl_envs import Bandit, BanditParams, Tasks


@struct.dataclass
class Reversal(BanditParams):
    """A bandit that counts its episodes."""

    episode: jax.Array | int = 0  # [] int32, episodes before this one


def reversal(at: int, good: float = 0.9, bad: float = 0.1) -> Tasks:
    """Arm 0 is the good one in episodes 0 to `at` − 1, from then on arm 1; an episode is one pull."""

    def bandit(episode: jax.Array) -> Reversal:
        probabilities = jnp.where(episode < at, jnp.array([good, bad]), jnp.array([bad, good]))
        return Reversal(probabilities=probabilities, max_steps_in_episode=1, episode=episode)

    return Tasks(
        sample=lambda key: bandit(jnp.int32(0)),
        resample=lambda key, task: bandit(task.episode + 1),
    )


def main(episodes: int = 2000, **settings):
    """Train over the change, and print what was earned per pull: before it, right after, and at the end."""
    result = jaxrl_hier.train(
        "q-learning",
        env=Bandit(2),
        tasks=reversal(at=episodes // 2),
        iterations=episodes,
        recorded_episodes=episodes,
        **settings,
    )
    earned = result.evaluation["training_return"].values.mean(axis=(0, 1))  # axes: seed, environment, episode
    tenth = episodes // 10
    parts = {
        "before": slice(4 * tenth, 5 * tenth),
        "after": slice(5 * tenth, 5 * tenth + 5),
        "end": slice(-tenth, None),
    }
    for name, part in parts.items():
        print(f"{name}: {earned[part].mean():.2f} a pull")
    return result


if __name__ == "__main__":
    main(log_every=100, checkpoint_every=2000, seeds=100)
