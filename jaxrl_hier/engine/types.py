"""The contracts: bundles of pure functions, and the data that flows between them.

Axes in shapes: B environments side by side, T time steps, N test tasks, K adaptation steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_envs.tasks import EnvParams, Tasks
from jaxrl_hier.engine.numerics import with_own_numerics

__all__ = [
    "ActInput",
    "Agent",
    "Algorithm",
    "Average",
    "EnvParams",
    "NamedArray",
    "Player",
    "Tasks",
    "TrainState",
    "Transition",
    "World",
]

Params = Any  # a pytree of arrays
Carry = Any  # what an agent remembers between two steps of an episode; () for a memoryless one
Metrics = dict[str, Any]  # name -> scalar, or an Average


class ActInput(NamedTuple):
    """What an agent sees before it acts (one environment)."""

    obs: Any
    prev_action: Any  # zeros on an episode's first step
    prev_reward: jax.Array  # [] float32, zero on an episode's first step
    first: jax.Array  # [] bool, True on an episode's first step


class Transition(NamedTuple):
    """One step of one environment; [T, B, ...] after a rollout."""

    obs: Any
    action: Any
    reward: jax.Array
    terminated: jax.Array  # bool: the task's own end, nothing follows
    truncated: jax.Array  # bool: the time limit; a value may be bootstrapped from `next_obs`. Never both.
    next_obs: Any  # the true successor, never the observation after a reset
    first: jax.Array  # bool: `obs` is an episode's first
    extras: Any  # what the agent's `act` returned beside the action
    # what the environment says of the step beside reward and end, by name, such as {"success": [] bool}, see
    # `jaxrl_envs.contract.Played.declared_facts`; () where it is not recorded, as in replay buffers
    facts: Any = ()


@struct.dataclass
class World:
    """Everything that one environment carries between two steps; batched: every leaf has leading axis [B]."""

    task: EnvParams
    env_state: Any
    inp: ActInput
    carry: Carry
    ep_return: jax.Array  # [] float32, undiscounted reward since the reset
    ep_length: jax.Array  # [] int32, steps since the reset
    key: jax.Array  # one key per environment, so results do not depend on batching, chunking or devices


@struct.dataclass
class TrainState:
    """The complete state of a run, which can be saved and resumed on another machine. One class for every algorithm."""

    params: Params
    learner: Any  # the rest of what learning changes: optimiser state, target networks, schedules
    world: Any  # training environments, every leaf with leading axis [B]
    # what the learner keeps of past steps: a replay buffer, an EpisodeLog, the steps that wait for their returns; every
    # leaf with leading axis [B]; () for nothing. What an agent remembers of its episode is in `world.carry`
    memory: Any
    key: jax.Array
    iteration: jax.Array  # [] int32, calls of `step` so far


def iteration_of(state: TrainState) -> int:
    """The iteration of a state with leading axis [seeds], which may be spread over processes."""
    return int(np.asarray(state.iteration)[0])


@struct.dataclass
class Average:
    """A metric over a number of events that varies, such as the episodes that ended: averaged over them, not over
    iterations, and left out of a logged row in which nothing happened."""

    total: jax.Array  # [] float32
    count: jax.Array  # [] number of events

    def mean(self) -> np.ndarray:
        """On the host, of one or of many; NaN where nothing happened."""
        total, count = np.asarray(self.total), np.asarray(self.count)
        return np.divide(total, count, out=np.full(total.shape, np.nan, total.dtype), where=count > 0)


@struct.dataclass
class NamedArray:
    """An array whose axes have names, as `evaluate` returns it: `NamedArray(x, ("task", "adaptation_step"))`."""

    values: jax.Array
    axes: tuple[str, ...] = struct.field(pytree_node=False)


class Agent(NamedTuple):
    """How to act. All functions are unbatched; the engine vmaps them."""

    init: Callable[[jax.Array], Params]  # key -> params
    start: Callable[[Params, jax.Array], Carry]  # params, key -> carry at an episode's first step
    # params, carry, input, key, greedy -> action, carry, extras
    act: Callable[[Params, Carry, ActInput, jax.Array, bool], tuple[Any, Carry, Any]]


class Player(NamedTuple):
    """How to act on a task and adapt to it, step by step. All functions are unbatched; the engine vmaps them.

    `memory` is what the agent knows of the task, which only `learn` changes; `carry` is what it remembers from step to
    step. `ActInput` shows the previous step on the same task, even across the end of an episode; zeros on the task's
    first step.
    """

    new_task: Callable[[Params, jax.Array], tuple[Any, Carry]]  # params, key -> memory, carry when nothing is known
    new_episode: Callable[[Params, Any, Carry, jax.Array], Carry]  # params, memory, carry, key -> carry
    # params, memory, carry, input, key, greedy -> action, carry, extras
    act: Callable[[Params, Any, Carry, ActInput, jax.Array, bool], tuple[Any, Carry, Any]]
    # params, memory, steps [T, E, ...], how many of each column were played, [E] -> memory. The rest are zeros. None:
    # whatever is learned of a task is in the carry
    learn: Callable[[Params, Any, Transition, jax.Array], Any] | None = None
    episodes: int = 0  # E, of experience in one step of adaptation; 0: nothing adapts
    horizon: int = 0  # T, steps of an episode that `learn` sees: the first
    most: int = 0  # steps of adaptation that a meta-test goes to, after which `learn` is not called
    final_obs: bool = False  # whether `learn` needs the observation that an episode ended with
    # whether `learn` takes a policy gradient, which needs sampling: a greedy policy samples up to `most`, too
    samples_to_learn: bool = False


def player_of(agent: Agent) -> Player:
    """An agent that does not adapt: each episode begins with a new carry, and shows nothing of the one before."""

    def act(params: Params, memory: Any, carry: Carry, inp: ActInput, key: jax.Array, greedy: bool) -> Any:
        before = jax.tree.map(lambda x: jnp.where(inp.first, jnp.zeros_like(x), x), (inp.prev_action, inp.prev_reward))
        return agent.act(params, carry, inp._replace(prev_action=before[0], prev_reward=before[1]), key, greedy)

    return Player(
        new_task=lambda params, key: ((), agent.start(params, key)),
        new_episode=lambda params, memory, carry, key: agent.start(params, key),
        act=act,
    )


class _Algorithm(NamedTuple):
    # key, and parameters to begin with or none: -> state. With the key alone a run cannot begin with another's
    init: Callable[..., TrainState]
    step: Callable[[TrainState], tuple[TrainState, Metrics]]  # one iteration; metrics are scalars or Averages
    evaluate: Callable[[TrainState, jax.Array], dict[str, NamedArray]]  # state, key -> measurements
    agent: Agent
    env_steps: int  # environment steps that one `step` takes
    # what `step` does after its rollout: state before, world after, transitions [T, B, ...] -> state, metrics. For
    # environments that are not compiled; None where an algorithm has no such half
    learn: Callable[[TrainState, World, Transition], tuple[TrainState, Metrics]] | None = None
    player: Player | None = None  # how it acts on a task and adapts to it; None: made from `agent`
    # params, task, key -> `engine.adapting.Known` of the task after as much experience as in a meta-test; None where
    # nothing adapts
    adapt: Callable[..., Any] | None = None


class Algorithm(_Algorithm):
    """A way to learn. `init` and `step` are pure, jittable and vmappable, with fixed shapes and no callbacks.

    Its functions compute in float32 whatever JAX's switches say, see `engine.numerics`.
    """

    __slots__ = ()

    def __new__(
        cls,
        init: Any,
        step: Any,
        evaluate: Any,
        agent: Agent,
        env_steps: int,
        learn: Any = None,
        player: Player | None = None,
        adapt: Any = None,
    ) -> Self:
        init, step, evaluate = map(with_own_numerics, (init, step, evaluate))
        learn, adapt = (f and with_own_numerics(f) for f in (learn, adapt))
        return super().__new__(cls, init, step, evaluate, agent, env_steps, learn, player or player_of(agent), adapt)
