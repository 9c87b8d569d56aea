"""Sets of options: the hallway options of four rooms, and checks of a user's own options."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.contract import name_of, observed_model
from jaxrl_hier.abstractions.options import OPTION_SETS, Options, concatenate, primitive_options, repeated_actions
from jaxrl_hier.checks import UsageError, unknown
from jaxrl_hier.engine.types import Params, Tasks
from jaxrl_hier.exact import smdp, tabular
from jaxrl_hier.learning.normalization import as_seen, learned
from jaxrl_hier.learning.tables import table_sizes

if TYPE_CHECKING:
    from jaxrl_envs.four_rooms import FourRooms

# clockwise by room, each room's two hallways clockwise; the order of `hallway_options`
HALLWAY_OPTIONS = ("NW to N", "NW to W", "NE to N", "NE to E", "SE to E", "SE to S", "SW to S", "SW to W")


def hallway_options(env: "FourRooms") -> Options:
    """The paper's eight options of four rooms, which leave each room through each of its hallways (`HALLWAY_OPTIONS`).

    An option may start in its room and in the room's other hallway. It stops outside the room, and both hallways are
    outside: an option that starts in the other hallway and bumps into a wall there stops after one step. The policy is
    greedy for value iteration within the room, with a reward of 1 for entering the target, 0 for any other way out, and
    discount 0.9; so it goes straight and avoids the other exit. It is zero where the option cannot run.
    """
    from jaxrl_envs.four_rooms import HALLWAYS, NUM_CELLS, ROOMS, cell_index, room_cells

    inside, target, other = [], [], []
    for option in HALLWAY_OPTIONS:
        room, to = option.split(" to ")
        (non_target,) = (hallway for hallway in ROOMS[room][-1] if hallway != to)
        inside.append(room_cells(room))
        target.append(cell_index(*HALLWAYS[to]))
        other.append(cell_index(*HALLWAYS[non_target]))
    room_mask = jnp.array(inside)  # [O, S]
    initiation = room_mask | jax.nn.one_hot(jnp.array(other), NUM_CELLS, dtype=bool)

    def policy(room: jax.Array, target: jax.Array) -> jax.Array:  # [S], [] -> [S, A]
        P = jnp.asarray(env.transitions)
        R = P[:, :, target]
        # rows of zeros outside the room, where the episode of this subproblem ends
        values = tabular.value_iteration(P * room[:, None, None], R * room[:, None], 0.9)
        best = jnp.argmax(tabular.action_values(P, R, values, 0.9), axis=1)
        return jax.nn.one_hot(best, P.shape[1])

    policies = jax.vmap(policy)(room_mask, jnp.array(target))
    return Options(initiation, policies * initiation[..., None], 1.0 - room_mask)


def learned_options(
    env: "FourRooms", params: Params, heads: Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]
) -> Options:
    """The options of networks in four rooms as arrays over its S cells; they may start anywhere.

    Args:
        params: of an agent, whose observations may be normalised.
        heads: the networks' parameters, observations of the cells [S, ...] -> logits of the actions [S, O, A] and of
            the terminations [S, O].
    """
    from jaxrl_envs.four_rooms import NUM_CELLS

    cells = as_seen(params, jax.vmap(env.encode)(jnp.arange(NUM_CELLS)))
    logits, stop = heads(learned(params), cells)
    return Options(
        initiation=jnp.ones(stop.T.shape, bool),
        policy=jax.nn.softmax(logits).transpose(1, 0, 2),
        termination=jax.nn.sigmoid(stop).T,
    )


def validate(options: Options, P: jax.Array | np.ndarray | None = None) -> Options:
    """Check options from a user's own arrays.

    Args:
        options: arrays of any kind; initiation may be 0 and 1.
        P: [S, A, S'] transition probabilities of the environment. With them the check finds every option that may run
            forever; without, only those whose termination is zero everywhere. Absorbing states end every option, and
            no option needs to start there.

    Returns:
        The options as jax arrays of the documented types.

    Raises:
        UsageError (a ValueError): one line that names the first thing wrong, and what would be right.
    """
    initiation, policy, termination = (np.asarray(array) for array in options)
    if policy.ndim != 3:
        raise UsageError(f"policy must be [options, states, actions], got shape {policy.shape}")
    count, states, actions = policy.shape
    for name, array in (("initiation", initiation), ("termination", termination)):
        if array.shape != (count, states):
            raise UsageError(
                f"{name} must be [options, states] = ({count}, {states}) to go with policy {policy.shape}, "
                f"got shape {array.shape}"
            )
    if P is not None and np.shape(P) != (states, actions, states):
        raise UsageError(
            f"P must be [states, actions, states] = ({states}, {actions}, {states}) to go with policy {policy.shape}, "
            f"got shape {np.shape(P)}"
        )
    if not np.isin(initiation, (0, 1)).all():
        raise UsageError("initiation must be boolean: whether an option may start in a state")
    initiation = initiation.astype(bool)
    if not ((termination >= 0) & (termination <= 1)).all():
        o, s = np.argwhere(~((termination >= 0) & (termination <= 1)))[0]
        raise UsageError(
            f"termination must be probabilities in [0, 1], option {o} has {termination[o, s]} in state {s}"
        )

    for o in np.flatnonzero(~initiation.any(1)):
        raise UsageError(f"option {o} can start nowhere: set initiation[{o}, s] for at least one state s, or drop it")
    proper = (policy >= 0).all(-1) & (np.abs(policy.sum(-1) - 1) < 1e-4)
    for o, s in np.argwhere(~proper & (initiation | (termination < 1))):
        raise UsageError(
            f"policy must be a distribution over actions wherever an option can run, option {o} has "
            f"{np.round(policy[o, s], 4).tolist()} in state {s}; set initiation[{o}, {s}] to False and "
            f"termination[{o}, {s}] to 1 if it cannot run there"
        )

    end = np.zeros(states, bool) if P is None else np.asarray(tabular.absorbing(jnp.asarray(P)))
    for s in np.flatnonzero(~initiation.any(0) & ~end):
        raise UsageError(
            f"no option can start in state {s}: add one, for instance by "
            "concatenate(options, primitive_options(states, actions))"
        )
    checked = Options(jnp.asarray(initiation), jnp.asarray(policy, float), jnp.asarray(termination, float))
    if P is None:
        endless = initiation & ~(termination > 0).any(1, keepdims=True)
    else:
        endless = initiation & ~end & np.isinf(smdp.option_durations(jnp.asarray(P), checked))
    for o, s in np.argwhere(endless):
        raise UsageError(
            f"option {o} started in state {s} may never terminate: give it a positive termination probability in the "
            "states where it can get caught"
        )
    return checked


def option_set(name: str, options: Options | None, env: Any, tasks: Tasks) -> Options:
    """The user's own `options`, checked, or else the set called `name`.

    Raises:
        UsageError: options that cannot work or do not fit the environment, or hallway options outside FourRooms.
    """
    sizes = table_sizes(env)
    if name not in OPTION_SETS:
        raise unknown("options", name, OPTION_SETS)
    # under a trace too, as in a sweep over traced settings: the checks need concrete numbers
    with jax.ensure_compile_time_eval():
        if options is not None:
            if (found := np.shape(options.policy)[1:]) != sizes:
                raise UsageError(
                    f"the options' policy must be [options, states, actions] with (states, actions) = {sizes} "
                    f"as in {name_of(env)}, got {found}"
                )
            return validate(options, env.model(tasks.sample(jax.random.key(0)))[0] if observed_model(env) else None)
        primitive = primitive_options(*sizes)
        if name == "primitive":
            return primitive
        if name == "repeats":
            return concatenate(primitive, repeated_actions(*sizes))
        hallways = hallway_options(four_rooms_of(env))
        return hallways if name == "hallway" else concatenate(primitive, hallways)


def four_rooms_of(env: Any) -> Any:
    """The FourRooms that `env` is or wraps; UsageError when it is another environment."""
    from jaxrl_envs.four_rooms import FourRooms

    rooms = getattr(env, "env", env)
    if not isinstance(rooms, FourRooms):
        raise UsageError(
            f"hallways exist in four rooms only, not in {name_of(env)}: use options='repeats', or give your own as "
            "the last argument of `make`"
        )
    return rooms
