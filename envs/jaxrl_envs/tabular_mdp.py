"""Small Markov decision processes whose tables are the task, for learning how to explore.

- `TabularMDP` with `random_mdp_tasks`: the random processes of RL² (Duan et al., 2016). 10 states and 5 actions;
  transitions Dirichlet(1, …, 1), mean rewards Normal(1, 1), rewards with unit Gaussian noise around them; episodes of
  10 steps that begin in state 0.
- `TwoStep`: the two-step task of Daw et al. (2011) as Wang et al. (Learning to reinforcement learn, 2016) use it.

A trial of n episodes of one task can be played as one: `max_steps_in_episode` of 10 n puts the agent back into state 0
every 10 steps, and what it observes then is that state. The end is the task's own, no time limit.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.tasks import Tasks

NUM_STATES, NUM_ACTIONS, HORIZON = 10, 5, 10


@struct.dataclass
class TabularState(environment.EnvState):
    """Where the agent is."""

    state: jax.Array  # [] int32
    time: jax.Array  # [] int32, steps since the reset


def _example() -> tuple[np.ndarray, np.ndarray]:
    """One random process, always the same."""
    rng = np.random.default_rng(0)
    P = rng.dirichlet(np.ones(NUM_STATES), (NUM_STATES, NUM_ACTIONS))
    return P.astype(np.float32), rng.normal(1, 1, (NUM_STATES, NUM_ACTIONS)).astype(np.float32)


@struct.dataclass
class TabularParams(environment.EnvParams):
    """The task: the tables."""

    transitions: jax.Array = struct.field(default_factory=lambda: _example()[0])  # [S, A, S'] probabilities
    rewards: jax.Array = struct.field(default_factory=lambda: _example()[1])  # [S, A] means
    noise: jax.Array | np.float32 = struct.field(default_factory=lambda: np.float32(1))  # [] standard deviation
    max_steps_in_episode: int = HORIZON  # a multiple of the horizon


class TabularMDP(environment.Environment[TabularState, TabularParams]):
    """Observation: the state, 0..9. Action: 0..4. Reward: the mean of (state, action) plus Gaussian noise.

    Args:
        horizon: steps after which the process starts again in state 0.
    """

    finite_horizon = True  # nothing follows the last step
    costly_reset = True  # a new task is a process, hundreds of random numbers

    def __init__(self, horizon: int = HORIZON):
        super().__init__()
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon}")
        self.horizon = horizon

    @property
    def default_params(self) -> TabularParams:
        return TabularParams(max_steps_in_episode=self.horizon)

    def reset_env(self, key: jax.Array, params: TabularParams) -> tuple[jax.Array, TabularState]:
        state = TabularState(state=jnp.zeros((), jnp.int32), time=jnp.zeros((), jnp.int32))
        return state.state, state

    def step_env(
        self, key: jax.Array, state: TabularState, action: jax.Array, params: TabularParams
    ) -> tuple[jax.Array, TabularState, jax.Array, jax.Array, dict[str, Any]]:
        key_next, key_noise = jax.random.split(key)
        reward = jnp.asarray(params.rewards)[state.state, action] + params.noise * jax.random.normal(key_noise)
        successor = _draw(key_next, jnp.asarray(params.transitions)[state.state, action])
        time = state.time + 1
        state = TabularState(state=jnp.where(time % self.horizon == 0, 0, successor), time=time)
        return state.state, state, reward, self.is_terminated(state, params), {}

    def is_terminated(self, state: TabularState, params: TabularParams) -> jax.Array:
        return state.time >= params.max_steps_in_episode

    def get_obs(self, state: TabularState, params=None, key=None) -> jax.Array:
        return state.state

    @property
    def num_actions(self) -> int:
        return NUM_ACTIONS

    def action_space(self, params: TabularParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(NUM_ACTIONS)

    def observation_space(self, params: TabularParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(NUM_STATES)

    def model(self, params: TabularParams) -> tuple[jax.Array, jax.Array]:
        """P [S, A, S'] probabilities and R [S, A] mean rewards between two restarts.

        The optimum of an episode is `value_sweeps(P, R, 1.0, horizon)[-1, 0]`.
        """
        return jnp.asarray(params.transitions), jnp.asarray(params.rewards)


def _draw(key: jax.Array, probabilities: jax.Array) -> jax.Array:
    """An index with these probabilities, [] int32."""
    total = jnp.cumsum(probabilities)
    return jnp.sum(total[:-1] <= jax.random.uniform(key) * total[-1]).astype(jnp.int32)


def random_mdp_tasks(episodes: int = 1, horizon: int = HORIZON) -> Tasks:
    """Random processes, drawn anew every trial of `episodes`."""

    def sample(key: jax.Array) -> TabularParams:
        key_transitions, key_rewards = jax.random.split(key)
        # normalised exponential variables are Dirichlet(1, …, 1)
        weights = jax.random.exponential(key_transitions, (NUM_STATES, NUM_ACTIONS, NUM_STATES))
        return TabularParams(
            transitions=weights / jnp.sum(weights, axis=2, keepdims=True),
            rewards=1 + jax.random.normal(key_rewards, (NUM_STATES, NUM_ACTIONS)),
            noise=jnp.ones(()),
            max_steps_in_episode=episodes * horizon,
        )

    return Tasks(sample=sample, resample="episode")


@struct.dataclass
class TwoStepState(environment.EnvState):
    """Where the agent is, and which second-stage state pays."""

    state: jax.Array  # [] int32: 0 first stage, 1 and 2 second stage
    better: jax.Array  # [] int32, 1 or 2: pays with the high probability
    time: jax.Array  # [] int32, steps since the reset


@struct.dataclass
class TwoStepParams(environment.EnvParams):
    """The task: probabilities of the common transition, of the rewards, and of their change."""

    common: jax.Array | np.float32 = struct.field(default_factory=lambda: np.float32(0.8))  # []
    high: jax.Array | np.float32 = struct.field(default_factory=lambda: np.float32(0.9))  # []
    low: jax.Array | np.float32 = struct.field(default_factory=lambda: np.float32(0.1))  # []
    switch: jax.Array | np.float32 = struct.field(default_factory=lambda: np.float32(0.025))  # [] per trial
    max_steps_in_episode: int = 200  # two for each trial


class TwoStep(environment.Environment[TwoStepState, TwoStepParams]):
    """A choice, a second-stage state that it usually leads to, and a reward that depends on that state.

    In state 0 action 0 leads to state 1 and action 1 to state 2 with probability `common`, each to the other state
    otherwise (a rare transition), and pays nothing. State 1 or 2 pays 1 with its probability whatever the action, and
    leads back to 0. Before each later trial the two states exchange their probabilities with probability `switch`.
    Observation: the state, 0..2. A model-free learner repeats what was rewarded; one that knows the transitions takes
    a reward after a rare transition as a reason to change.

    The text of Wang et al. fixes the probabilities 0.9 and 0.1; that there is no choice in the second stage, the 0.8
    and the 0.025 are those of re-implementations, other texts have 0.75.
    """

    finite_horizon = True  # nothing follows the last step

    @property
    def default_params(self) -> TwoStepParams:
        return TwoStepParams()

    def reset_env(self, key: jax.Array, params: TwoStepParams) -> tuple[jax.Array, TwoStepState]:
        better = 1 + jax.random.bernoulli(key).astype(jnp.int32)
        state = TwoStepState(state=jnp.zeros((), jnp.int32), better=better, time=jnp.zeros((), jnp.int32))
        return state.state, state

    def step_env(
        self, key: jax.Array, state: TwoStepState, action: jax.Array, params: TwoStepParams
    ) -> tuple[jax.Array, TwoStepState, jax.Array, jax.Array, dict[str, Any]]:
        u, v = jax.random.uniform(key, (2,))
        choosing = state.state == 0
        led_to = jnp.where(u < params.common, action, 1 - action).astype(jnp.int32) + 1
        pays = u < jnp.where(state.state == state.better, params.high, params.low)
        reward = jnp.where(choosing, 0.0, pays.astype(jnp.float32))
        switches = ~choosing & (v < params.switch)
        state = TwoStepState(
            state=jnp.where(choosing, led_to, 0),
            better=jnp.where(switches, 3 - state.better, state.better),
            time=state.time + 1,
        )
        return state.state, state, reward, self.is_terminated(state, params), {}

    def is_terminated(self, state: TwoStepState, params: TwoStepParams) -> jax.Array:
        return state.time >= params.max_steps_in_episode

    def get_obs(self, state: TwoStepState, params=None, key=None) -> jax.Array:
        return state.state

    @property
    def num_actions(self) -> int:
        return 2

    def action_space(self, params: TwoStepParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: TwoStepParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(3)
