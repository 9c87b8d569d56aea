"""Controllers as options in continuous minimum-time tasks, and their interruption (Sutton, Precup & Singh, Artificial
Intelligence 112, 1999, section 4, figures 7 and 8).

A controller o may start in some states, acts by a rule of its own, and stops in one state, its target. In a
deterministic task that pays −1 in every step, without discount, running it from s is worth minus its duration d(s, o),
so that the semi-Markov process of the controllers has a decision in each target alone:

    V(x_o) = max_o' Q(x_o, o'), 0 where the task is over      Q(s, o) = −d(s, o) + V(x_o)

Over controllers that may start in s, V(s) = max_o Q(s, o). `execute` follows a best controller to its target or, with
`interrupt`, leaves it wherever Q(s, o) < V(s). By the paper's theorem that takes no more steps from any state.

Durations are whole numbers of steps: an interruption must save a step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_envs import controller_tasks
from jaxrl_envs.controller_tasks import LandmarksParams

State = Any  # [D] array


class Controllers(NamedTuple):
    """O controllers over states [D]."""

    act: Callable[[State, jax.Array], jax.Array]  # state, o [] -> action
    may_start: Callable[[State], jax.Array]  # state -> [O] bool
    duration: Callable[[State], jax.Array]  # state -> [O] int32, steps to each target; 0 in the target
    target: jax.Array  # [O, D] where each stops
    final: jax.Array  # [O] bool, whether the task is over there


class Execution(NamedTuple):
    """What happened, padded with the last state."""

    states: jax.Array  # [T + 1, D]
    option: jax.Array  # [T] int32, which controller acted
    steps: jax.Array  # [] int32, T if the task was not over by then


def target_values(controllers: Controllers) -> jax.Array:
    """V(x_o) [O]: minus the fewest steps from each target to the end of the task; −inf where there is no way."""
    count = len(controllers.target)
    duration = jax.vmap(controllers.duration)(controllers.target)  # [O, O']
    possible = jax.vmap(controllers.may_start)(controllers.target) & (duration > 0)
    values = jnp.where(controllers.final, 0.0, -jnp.inf)
    for _ in range(count):  # no best way has a target twice
        q = jnp.where(possible, values - duration, -jnp.inf)
        values = jnp.where(controllers.final, 0.0, jnp.max(q, axis=1))
    return values


def option_values(controllers: Controllers, values: jax.Array, state: State) -> jax.Array:
    """Q(s, o) [O] in one state, given `values` [O] of the targets; also where o may not start but runs."""
    return values - controllers.duration(state)


def state_value(controllers: Controllers, values: jax.Array, state: State) -> jax.Array:
    """V(s) [], −inf where no controller that may start leads to the end."""
    return jnp.max(jnp.where(_choices(controllers, state), option_values(controllers, values, state), -jnp.inf))


def execute(
    step: Callable[[State, jax.Array], tuple[State, jax.Array]],
    controllers: Controllers,
    values: jax.Array,
    state: State,
    limit: int,
    interrupt: bool = False,
) -> Execution:
    """Follow the best controllers from a state [D].

    Args:
        step: state, action -> next state, and whether the task is over.
        values: of the targets, as `target_values` finds them.
        limit: T.
        interrupt: leave a controller wherever another is better.
    """

    def advance(carry: tuple, _: None) -> tuple[tuple, tuple]:
        state, option, over = carry
        q = option_values(controllers, values, state)
        startable = jnp.where(_choices(controllers, state), q, -jnp.inf)
        stopped = (option < 0) | (controllers.duration(state)[option] == 0)
        left = stopped | (interrupt & (q[option] < jnp.max(startable)))
        option = jnp.where(left, jnp.argmax(startable), option).astype(jnp.int32)
        after, ends = step(state, controllers.act(state, option))
        state = jnp.where(over, state, after)
        return (state, option, over | ends), (state, option, ~over)

    start = (state, jnp.int32(-1), jnp.array(False))
    _, (states, option, counted) = jax.lax.scan(advance, start, length=limit)
    return Execution(jnp.concatenate([state[None], states]), option, jnp.sum(counted, dtype=jnp.int32))


def _choices(controllers: Controllers, state: State) -> jax.Array:
    """[O] bool, what may start in a state and does something there."""
    return controllers.may_start(state) & (controllers.duration(state) > 0)


# The paper's two sets


def landmark_controllers(params: LandmarksParams) -> Controllers:
    """A controller for each landmark, which may start within the radius and runs straight to it."""
    landmarks = jnp.asarray(params.landmarks)

    def act(position: jax.Array, option: jax.Array) -> jax.Array:  # a last move is as long as the way that is left
        return (landmarks[option] - position) / controller_tasks.STEP

    def duration(position: jax.Array) -> jax.Array:
        way = jnp.linalg.norm(landmarks - position, axis=1) / controller_tasks.STEP
        return jnp.ceil(way - jnp.sqrt(jnp.finfo(way.dtype).eps)).astype(jnp.int32)  # rounding is no step

    def may_start(position: jax.Array) -> jax.Array:
        return jnp.linalg.norm(landmarks - position, axis=1) <= params.radius

    return Controllers(act, may_start, duration, landmarks, jnp.arange(len(landmarks)) == len(landmarks) - 1)


def mass_controllers(from_position: float = 0.5) -> Controllers:
    """The two controllers of the moving mass, to rest at 1 and at 2, by a force of 0.01 (target − position).

    Args:
        from_position: the one to 2 may start beyond this position.
    """
    targets = jnp.array([1.0, controller_tasks.TARGET])
    env = controller_tasks.MovingMass()
    step = mass_step(env)

    def act(state: jax.Array, option: jax.Array) -> jax.Array:
        return (targets[option] - state[0])[None]

    def rests(state: jax.Array, target: jax.Array) -> jax.Array:
        return jnp.all(jnp.abs(state - jnp.stack([target, jnp.zeros_like(target)])) < controller_tasks.EPSILON)

    def run(state: jax.Array, option: jax.Array) -> jax.Array:
        going = lambda carry: ~rests(carry[0], targets[option]) & (carry[1] < 10_000)
        on = lambda carry: (step(carry[0], act(carry[0], option))[0], carry[1] + 1)
        return jax.lax.while_loop(going, on, (state, jnp.int32(0)))[1]

    def duration(state: jax.Array) -> jax.Array:
        return jax.vmap(lambda option: run(state, option))(jnp.arange(2))

    def may_start(state: jax.Array) -> jax.Array:
        return jnp.stack([jnp.array(True), state[0] > from_position])

    target = jnp.stack([targets, jnp.zeros(2)], axis=1)
    return Controllers(act, may_start, duration, target, jnp.array([False, True]))


def landmark_step(env: Any, params: LandmarksParams) -> Callable[[State, jax.Array], tuple[State, jax.Array]]:
    """The dynamics of `Landmarks` as `execute` takes them, states [2]."""

    def step(position: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = controller_tasks.LandmarksState(position=position, time=jnp.int32(0))
        obs, _, _, ends, _ = env.step_env(jax.random.key(0), state, action, params)
        return obs, ends

    return step


def mass_step(env: Any) -> Callable[[State, jax.Array], tuple[State, jax.Array]]:
    """The dynamics of `MovingMass` as `execute` takes them, states [2]."""

    def step(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        before = controller_tasks.MassState(position=state[0], velocity=state[1], time=jnp.int32(0))
        obs, _, _, ends, _ = env.step_env(jax.random.key(0), before, action, env.default_params)
        return obs, ends

    return step
