"""Bernoulli bandits: the tasks of RL² (Duan et al., 2016) and of Wang et al. (Learning to reinforcement learn, 2016).

One step is one pull: arm a pays `payouts[a]` with probability `probabilities[a]` and nothing otherwise. An episode is
all pulls of one task, `max_steps_in_episode` of them: RL²'s trial. It ends by termination, not truncation: the agent
knows how many pulls it has, and nothing has value after them. The observation is constant: all information about a task
is in the previous action and reward, which every agent of the engine receives. Each episode samples a new task, so an
agent without memory can only guess.

Task distributions: `independent_tasks` (arms uniform in [0, 1], both papers), `dependent_tasks` (two arms whose
probabilities add up to 1), `informative_tasks` (eleven arms, one of which reveals the best one) and
`restless_tasks` (two dependent arms that drift).

The process of the restless arms is not given in the text of Wang et al.: here p₁ takes a Gaussian random walk between
reflecting walls at 0 and 1, with a standard deviation per pull of 0.02 (low volatility) or 0.1 (high).
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxrl_envs.tasks import Tasks

DEPENDENT = {"easy": 0.1, "medium": 0.25, "hard": 0.4}  # the smaller probability; "uniform" draws p₁ from [0, 1]
VOLATILITIES = {"low": 0.02, "high": 0.1}


@struct.dataclass
class BanditState(environment.EnvState):
    """The number of pulls so far."""

    time: jax.Array  # [] int32, pulls since the reset


@struct.dataclass
class BanditParams(environment.EnvParams):
    """The task: what each of K arms pays, and how often."""

    probabilities: jax.Array | np.ndarray = struct.field(default_factory=lambda: np.full(2, 0.5, np.float32))  # [K]
    payouts: jax.Array | np.ndarray = struct.field(default_factory=lambda: np.ones(2, np.float32))  # [K]
    max_steps_in_episode: int = 100  # pulls


class Bandit(environment.Environment[BanditState, BanditParams]):
    """Action: an arm, 0..arms-1. Reward: `payouts[arm]` or 0. Observation: 0, always.

    The fact "regret" is the best arm's expected reward minus that of the pulled arm.
    """

    facts = ("regret",)
    finite_horizon = True  # nothing follows the last pull
    costly_reset = True  # a new task is drawn, and all episodes of a rollout end at once

    def __init__(self, arms: int = 2):
        super().__init__()
        if arms < 1:
            raise ValueError(f"a bandit has at least one arm, not {arms}")
        self.arms = arms

    @property
    def default_params(self) -> BanditParams:
        """Arms at equal distances, as independent uniform ones are on average when they are sorted."""
        probabilities = np.arange(1, self.arms + 1, dtype=np.float32) / (self.arms + 1)
        return BanditParams(probabilities=probabilities, payouts=np.ones(self.arms, np.float32))

    def reset_env(self, key: jax.Array, params: BanditParams) -> tuple[jax.Array, BanditState]:
        state = BanditState(time=jnp.zeros((), jnp.int32))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: BanditState, action: jax.Array, params: BanditParams
    ) -> tuple[jax.Array, BanditState, jax.Array, jax.Array, dict[str, Any]]:
        reward, regret = _pull(key, jnp.asarray(params.probabilities), params, action)
        state = BanditState(time=state.time + 1)
        return self.get_obs(state), state, reward, self.is_terminated(state, params), {"regret": regret}

    def is_terminated(self, state: Any, params: BanditParams) -> jax.Array:
        return state.time >= params.max_steps_in_episode

    def get_obs(self, state: Any, params=None, key=None) -> jax.Array:
        return jnp.zeros((), jnp.int32)

    @property
    def num_actions(self) -> int:
        return self.arms

    def action_space(self, params: BanditParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(self.arms)

    def observation_space(self, params: BanditParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(1)


def _pull(
    key: jax.Array, probabilities: jax.Array, params: BanditParams, arm: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Reward and expected regret of one pull."""
    payouts = jnp.asarray(params.payouts)
    means = probabilities * payouts
    pays = jax.random.uniform(key) < probabilities[arm]
    return jnp.where(pays, payouts[arm], 0.0), jnp.max(means) - means[arm]


@struct.dataclass
class RestlessState(environment.EnvState):
    """The time and the present probabilities of the arms."""

    probabilities: jax.Array  # [2]
    time: jax.Array  # [] int32, pulls since the reset


@struct.dataclass
class RestlessParams(BanditParams):
    """The task: where two dependent arms start, and how fast they drift."""

    volatility: jax.Array | np.float32 = struct.field(default_factory=lambda: np.float32(VOLATILITIES["low"]))  # []


class RestlessBandit(Bandit):
    """Two dependent arms, p₂ = 1 − p₁, whose p₁ drifts after every pull; `probabilities` is where they start."""

    def __init__(self):
        super().__init__(arms=2)

    @property
    def default_params(self) -> RestlessParams:
        return RestlessParams()

    def reset_env(self, key: jax.Array, params: RestlessParams) -> tuple[jax.Array, RestlessState]:
        state = RestlessState(probabilities=jnp.asarray(params.probabilities), time=jnp.zeros((), jnp.int32))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: RestlessState, action: jax.Array, params: RestlessParams
    ) -> tuple[jax.Array, RestlessState, jax.Array, jax.Array, dict[str, Any]]:
        key_pull, key_drift = jax.random.split(key)
        reward, regret = _pull(key_pull, state.probabilities, params, action)
        moved = state.probabilities[0] + params.volatility * jax.random.normal(key_drift)
        p = jnp.abs(jnp.mod(moved + 1, 2) - 1)  # reflected at 0 and 1
        state = RestlessState(probabilities=jnp.stack([p, 1 - p]), time=state.time + 1)
        return self.get_obs(state), state, reward, self.is_terminated(state, params), {"regret": regret}


def independent_tasks(arms: int, pulls: int) -> Tasks:
    """Each arm's probability uniform in [0, 1]; a new task every episode of `pulls`."""

    def sample(key: jax.Array) -> BanditParams:
        return BanditParams(
            probabilities=jax.random.uniform(key, (arms,)), payouts=jnp.ones(arms), max_steps_in_episode=pulls
        )

    return Tasks(sample=sample, resample="episode")


def dependent_tasks(kind: Literal["uniform", "easy", "medium", "hard"], pulls: int = 100) -> Tasks:
    """Two arms with p₂ = 1 − p₁: p₁ uniform in [0, 1], or one of {.1, .9}, {.25, .75}, {.4, .6}."""
    if kind != "uniform" and kind not in DEPENDENT:
        raise ValueError(f"kind is 'uniform', {', '.join(map(repr, DEPENDENT))}, not {kind!r}")

    def sample(key: jax.Array) -> BanditParams:
        draw = jax.random.uniform(key)
        p = draw if kind == "uniform" else jnp.where(draw < 0.5, DEPENDENT[kind], 1 - DEPENDENT[kind])
        return BanditParams(probabilities=jnp.stack([p, 1 - p]), payouts=jnp.ones(2), max_steps_in_episode=pulls)

    return Tasks(sample=sample, resample="episode")


def informative_tasks(pulls: int = 5) -> Tasks:
    """Eleven arms that always pay: a target among the first ten pays 5, the nine others 1, and the eleventh a tenth of
    the target's number, counted from 1. Pulling it first reveals the target, for 0.55 on average against 1.4."""

    def sample(key: jax.Array) -> BanditParams:
        target = jax.random.randint(key, (), 0, 10)
        arms = jnp.where(jnp.arange(10) == target, 5.0, 1.0)
        payouts = jnp.append(arms, 0.1 * (target + 1))
        return BanditParams(probabilities=jnp.ones(11), payouts=payouts, max_steps_in_episode=pulls)

    return Tasks(sample=sample, resample="episode")


def restless_tasks(pulls: int = 100) -> Tasks:
    """p₁ starts uniform in [0, 1] and drifts slowly or fast, half of the episodes each."""

    def sample(key: jax.Array) -> RestlessParams:
        key_start, key_speed = jax.random.split(key)
        p = jax.random.uniform(key_start)
        slow = jax.random.bernoulli(key_speed)
        volatility = jnp.where(slow, VOLATILITIES["low"], VOLATILITIES["high"])
        return RestlessParams(
            probabilities=jnp.stack([p, 1 - p]),
            payouts=jnp.ones(2),
            volatility=volatility,
            max_steps_in_episode=pulls,
        )

    return Tasks(sample=sample, resample="episode")
