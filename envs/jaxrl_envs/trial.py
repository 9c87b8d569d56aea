"""A trial: several episodes of one task, played as one long episode (RL², Duan et al., 2016, section 2.2).

An inner episode ends by itself or at its time limit, and the next begins at once with the same task. The agent's memory
persists through the trial. The end of a trial is a terminal state: returns are cut there and not before.

The observation is everything that a recurrent learner needs, one flat vector of float32:

    [inner observation | previous action | previous reward | 1 on an inner episode's first step | step]

Discrete observations and actions are one-hot, others flat. On a trial's first step there is no previous action or
reward, so both are zero, and the flag is 1; on a later first step they are those of the episode before. `step`, the
share of the time limit that is over, is there with `trial_number` only: Wang et al. (Learning to reinforcement learn,
2016) give the number of the trial, which in their bandits is the number of the pull.
"""

import math
from copy import copy
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.boxes import accepted
from jaxrl_envs.contract import Played, name_of
from jaxrl_envs.resetting import begun_where
from jaxrl_envs.tasks import Tasks


@struct.dataclass
class TrialState(environment.EnvState):
    """The state of the current inner episode, and the progress of the trial."""

    inner: Any  # state of the inner environment
    episode: jax.Array  # [] int32, inner episodes that have ended
    time: jax.Array  # [] int32, steps since the trial's start


@struct.dataclass
class NotingState(TrialState):
    """Of a trial that keeps notes; without any, states are stored in checkpoints as they always were."""

    notes: Any  # see `Trial.begun`


@struct.dataclass
class TrialParams(environment.EnvParams):
    """The task, and the steps of the longest trial."""

    task: Any = None  # EnvParams of the inner environment
    max_steps_in_episode: int = 1  # episodes × the inner time limit, where the trial has ended in any case


class Trial(environment.Environment[TrialState, TrialParams]):
    """`episodes` episodes of `env` as one. Actions and `info` are the inner environment's.

    Args:
        env: any environment of the gymnax contract whose observations and actions are Discrete or Box, and whose
            params have a time limit, `max_steps_in_episode`.
        episodes: inner episodes per trial; 1 only adds the previous action and reward to the observation.
        trial_number: whether the observation ends with `step`.
        limit: the steps that `step` is a share of; None: those of the own task's longest trial. Where tasks have
            different time limits, give that of the longest: `step` then means the same in every task, and does not
            tell an agent its own task's limit.

    Raises:
        ValueError: `episodes` below 1, another space, or no time limit.
    """

    shown_size = 0  # numbers that `shown` gives
    clips_actions = True  # what was done is shown as the agent gave it, and the inner environment gets what it accepts

    def __init__(self, env: Any, episodes: int = 1, trial_number: bool = False, limit: int | None = None):
        super().__init__()
        if episodes < 1:
            raise ValueError(f"a trial has at least one episode, not {episodes}")
        task = env.default_params
        for what, space in (("observations", env.observation_space(task)), ("actions", env.action_space(task))):
            if not isinstance(space, spaces.Discrete | spaces.Box):
                raise ValueError(
                    f"a trial needs Discrete or Box {what}; {name_of(env)} has {type(space).__name__} {what}"
                )
        if not hasattr(task, "max_steps_in_episode"):
            raise ValueError(f"a trial needs episodes that end: {name_of(env)} states no time limit")
        self.env, self.episodes, self.trial_number, self.limit = env, episodes, trial_number, limit
        self.costly_reset = getattr(env, "costly_reset", False)

    @property
    def name(self) -> str:
        return f"Trial({name_of(self.env)})"

    @property
    def facts(self) -> tuple[str, ...]:
        """What the inner environment declares of its `info`; an AttributeError, and so nothing, where it does not."""
        return self.env.facts

    @property
    def default_params(self) -> TrialParams:
        return self.params_of(self.env.default_params)

    def of_episodes(self, episodes: int) -> "Trial":
        """The same trial with another number of episodes."""
        found = copy(self)
        found.episodes = episodes
        return found

    def params_of(self, task: Any) -> TrialParams:
        """The trial's params with `task`, EnvParams of the inner environment."""
        return TrialParams(task=task, max_steps_in_episode=self.episodes * task.max_steps_in_episode)

    def tasks_of(self, tasks: Tasks) -> Tasks:
        """A distribution over trials: each trial has a task from `tasks`, drawn anew, and keeps it. A task that changes
        over a lifetime changes from trial to trial."""

        def following(key: jax.Array, params: TrialParams) -> TrialParams:
            return self.params_of(tasks.following(key, params.task))

        batch = lambda tasks: None if tasks is None else jax.vmap(self.params_of)(tasks)
        resample: Any = following if callable(tasks.resample) else "episode"
        sample = lambda key: self.params_of(tasks.sample(key))
        return Tasks(sample, resample, test=batch(tasks.test), train=batch(tasks.train))

    def reset_env(self, key: jax.Array, params: TrialParams) -> tuple[jax.Array, TrialState]:
        inner_obs, inner = Played(self.env).reset(key, params.task)
        zero = jnp.zeros((), jnp.int32)
        notes = self.begun(inner_obs)
        fields = {"inner": inner, "episode": zero, "time": zero}
        state = TrialState(**fields) if notes == () else NotingState(**fields, notes=notes)
        space, limit = self.env.action_space(params.task), self._longest(params)
        nothing = jnp.zeros(space.shape, space.dtype), jnp.zeros(())
        return self.observe(inner_obs, *nothing, jnp.ones((), bool), zero, limit, params.task, notes), state

    def step_env(
        self, key: jax.Array, state: TrialState, action: jax.Array, params: TrialParams
    ) -> tuple[jax.Array, TrialState, jax.Array, jax.Array, dict[str, Any]]:
        key_step, key_reset = jax.random.split(key)
        played = Played(self.env)
        sent = accepted(self.env, params.task, action)
        obs, inner, reward, terminated, truncated, info = played.step(key_step, state.inner, sent, params.task)
        ended = terminated | truncated
        state = replace(state, inner=inner, episode=state.episode + ended, time=state.time + 1)
        over = self.is_terminated(state, params)
        again = ended & ~over
        if self.episodes > 1:
            obs, inner = begun_where(self.env, again, played.reset, (key_reset, params.task), (obs, inner))
            state = replace(state, inner=inner)
        notes, limit = (), self._longest(params)
        if isinstance(state, NotingState):
            notes = self.noted(state.notes, action, reward, obs, again)
            state = replace(state, notes=notes)
        seen = self.observe(obs, action, reward, again, state.time, limit, params.task, notes)
        return seen, state, reward, over, info

    def is_terminated(self, state: TrialState, params: TrialParams) -> jax.Array:
        return state.episode >= self.episodes

    def begun(self, obs: Any) -> Any:
        """Notes that a trial keeps of what it has shown, from its first inner observation on: here none. A subclass may
        keep some and show what follows from them, without looking at the task."""
        return ()

    def noted(self, notes: Any, action: Any, reward: Any, obs: Any, first: Any) -> Any:
        """The notes after a step, from what the learner knows of it: `first` [] bool, `obs` begins another episode."""
        return notes

    def shown(self, notes: Any) -> list[jax.Array]:
        """What stands after the inner observation, [...] each."""
        return []

    def observe(
        self, obs: Any, action: Any, reward: Any, first: Any, time: Any, limit: Any, task: Any, notes: Any = ()
    ) -> jax.Array:
        """What a recurrent learner is given, [F] float32.

        Args:
            obs: of the inner environment.
            action, reward: of the step before; they do not show at time 0, when there is none.
            first: [] bool, `obs` is an inner episode's first.
            time: [] int32, steps since the trial's start.
            limit: the steps that `step` is a share of.
            task: EnvParams of the inner environment.
            notes: of the trial so far.
        """
        did = jnp.where(time > 0, _encode(self.env.action_space(task), action), 0.0)
        seen = [_encode(self.env.observation_space(task), obs), *self.shown(notes)]
        parts = [*seen, did, reward[None], first[None]]
        if self.trial_number:
            parts.append(time[None] / limit)
        return jnp.concatenate([part.astype(jnp.float32) for part in parts])

    def first_of_episode(self, obs: jax.Array) -> jax.Array:
        """Whether observations [..., F] are an inner episode's first, [...] bool."""
        return obs[..., -2 if self.trial_number else -1] > 0

    @property
    def num_actions(self) -> int:
        return self.env.num_actions

    def action_space(self, params: TrialParams | None = None) -> Any:
        return self.env.action_space(self._inner(params))

    def observation_space(self, params: TrialParams | None = None) -> spaces.Box:
        task = self._inner(params)
        size = _size(self.env.observation_space(task)) + _size(self.env.action_space(task)) + 2 + self.trial_number
        size += self.shown_size
        return spaces.Box(-jnp.inf, jnp.inf, (size,), jnp.float32)

    def _longest(self, params: TrialParams) -> Any:
        if self.limit is None:
            return params.max_steps_in_episode
        # by a constant XLA does not divide, but multiplies by its inverse, which rounds otherwise
        return jax.lax.optimization_barrier(jnp.int32(self.limit))

    def _inner(self, params: TrialParams | None) -> Any:
        return self.env.default_params if params is None else params.task


def _size(space: Any) -> int:
    """Numbers that `_encode` gives."""
    return int(space.n) if isinstance(space, spaces.Discrete) else math.prod(space.shape)


def _encode(space: Any, x: Any) -> jax.Array:
    """An element of a space as a vector."""
    return jax.nn.one_hot(x, space.n) if isinstance(space, spaces.Discrete) else jnp.ravel(x)
