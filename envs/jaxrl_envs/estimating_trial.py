"""A trial that also shows estimates of the task's action values, for RL³ (Bhatia, Nashed & Zilberstein, 2023).

The task is a small Markov decision process. What has happened in the trial is counted, with the rewards, and before
each step the process that was counted is solved by k sweeps of value iteration:

    P̂(s'|s, a) = N(s, a, s') / N(s, a),   R̂(s, a) = mean reward        0 where N(s, a) = 0
    Q̂_1 = R̂,   Q̂_{i+1}(s, a) = R̂(s, a) + Σ_s' P̂(s'|s, a) max_b Q̂_i(s', b)

Shown are Q̂_k(s, ·) / k, in units of a reward, and ln(1 + N(s, ·)) of the state s that is observed. An episode's end
counts as a transition into a state without rewards, also where it is a time limit.

That the estimates are values of k steps without discount, and counts logarithms, are our choices.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from jaxrl_envs.contract import name_of
from jaxrl_envs.trial import Trial


class Counted(NamedTuple):
    """What has happened in a trial."""

    state: jax.Array  # [] int32, the one that was observed last
    transitions: jax.Array  # [S, A, S'] float32, those within an episode
    visits: jax.Array  # [S, A] float32, all
    rewards: jax.Array  # [S, A] sums


class EstimatingTrial(Trial):
    """A `Trial` whose observation continues with Q̂ / k [A] and ln(1 + N) [A].

    Args:
        sweeps: of value iteration (k), at least 1.

    Raises:
        ValueError: no sweep, or observations or actions that are not Discrete; and as for `Trial`.
    """

    def __init__(
        self, env: Any, episodes: int = 1, trial_number: bool = False, limit: int | None = None, *, sweeps: int
    ):
        super().__init__(env, episodes, trial_number, limit)
        task = env.default_params
        found = env.observation_space(task), env.action_space(task)
        if sweeps < 1 or not all(isinstance(space, spaces.Discrete) for space in found):
            raise ValueError(
                f"estimates of action values need at least one sweep, and Discrete observations and actions; {sweeps} "
                f"sweeps were asked for, and {name_of(env)} has {' and '.join(type(space).__name__ for space in found)}"
            )
        self.sweeps, self.sizes = sweeps, (int(found[0].n), int(found[1].n))
        self.shown_size = 2 * self.sizes[1]

    def begun(self, obs: Any) -> Counted:
        states, actions = self.sizes
        each = jnp.zeros((states, actions))
        return Counted(jnp.asarray(obs, jnp.int32), jnp.zeros((states, actions, states)), each, each)

    def noted(self, notes: Counted, action: Any, reward: Any, obs: Any, first: Any) -> Counted:
        at = (notes.state, action)
        return Counted(
            state=jnp.asarray(obs, jnp.int32),
            transitions=notes.transitions.at[(*at, obs)].add(jnp.where(first, 0.0, 1.0)),
            visits=notes.visits.at[at].add(1.0),
            rewards=notes.rewards.at[at].add(reward),
        )

    def shown(self, notes: Counted) -> list[jax.Array]:
        values = estimates(notes, self.sweeps)[notes.state]
        return [values / self.sweeps, jnp.log1p(notes.visits[notes.state])]


def estimates(counted: Counted, sweeps: int) -> jax.Array:
    """Q̂_k [S, A] after k = `sweeps`."""
    visits = jnp.maximum(counted.visits, 1.0)
    P, R = counted.transitions / visits[..., None], counted.rewards / visits
    sweep = lambda _, Q: R + jnp.matmul(P, jnp.max(Q, axis=1), precision=jax.lax.Precision.HIGHEST)
    return jax.lax.fori_loop(1, sweeps, sweep, R)
