"""The eight hallway options as the paper defines them, and clear errors for a user's own options."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_envs.four_rooms import (
    FREE,
    HALLWAYS,
    NUM_CELLS,
    ROOMS,
    FourRooms,
    cell_coordinates,
    cell_index,
    room_cells,
)
from jaxrl_envs.grids import DIRECTIONS
from jaxrl_envs.random_bits import uniforms
from jaxrl_hier.abstractions.options import Options, concatenate, primitive_options
from jaxrl_hier.engine.types import ActInput
from jaxrl_hier.exact import smdp
from jaxrl_hier.hierarchical.call_and_return import call_and_return
from jaxrl_hier.hierarchical.options import HALLWAY_OPTIONS, hallway_options, validate


@pytest.fixture(scope="module")
def env():
    return FourRooms()


@pytest.fixture(scope="module")
def hallways(env):
    return jax.tree.map(np.asarray, hallway_options(env))


def parts(option):
    """Room cells [S], target and other hallway of an option's name."""
    room, to = option.split(" to ")
    (other,) = (hallway for hallway in ROOMS[room][-1] if hallway != to)
    return room_cells(room), HALLWAYS[to], HALLWAYS[other]


@pytest.mark.parametrize("option", range(8))
def test_hallway_option(hallways, option):
    room, target, other = parts(HALLWAY_OPTIONS[option])
    initiation, policy, termination = (array[option] for array in hallways)
    assert set(np.flatnonzero(initiation)) == {*np.flatnonzero(room), cell_index(*other)}
    np.testing.assert_array_equal(termination, np.where(room, 0, 1))  # both hallways are outside
    np.testing.assert_array_equal(np.sort(policy[initiation], axis=1), [[0, 0, 0, 1]] * initiation.sum())
    assert not policy[~initiation].any()
    for cell in np.flatnonzero(initiation):  # as short as a way within the room can be, and not into the other exit
        position, steps = np.array(cell_coordinates(cell)), 0
        distance = np.abs(position - target).sum()
        while tuple(position) != target:
            position, steps = position + DIRECTIONS[policy[cell_index(*position)].argmax()], steps + 1
            assert FREE[tuple(position)]
            assert tuple(position) != other
        assert steps == distance


def test_hallway_options_are_two_everywhere(hallways):
    np.testing.assert_array_equal(hallways.initiation.sum(0), np.full(NUM_CELLS, 2))
    for hallway in HALLWAYS.values():  # one into each adjoining room, none that leads to the hallway itself
        here = [HALLWAY_OPTIONS[o] for o in np.flatnonzero(hallways.initiation[:, cell_index(*hallway)])]
        assert [parts(option)[2] for option in here] == [hallway, hallway]


def test_hallway_options_keep_clear_of_the_other_exit(env, hallways):
    """Of two equally short paths, an option takes the one that is less likely to leave by the wrong exit."""
    option = HALLWAY_OPTIONS.index("NW to N")
    _, _, other = parts("NW to N")
    corner = cell_index(5, 1)  # beside the west hallway: right leads past it, up does not
    assert hallways.policy[option, corner].argmax() == 0

    def stumble(policy):
        options = Options(*(jnp.asarray(a)[option : option + 1] for a in hallways))._replace(policy=policy[None])
        models = smdp.option_models(jnp.asarray(env.transitions), jnp.zeros((NUM_CELLS, 4)), options, 0.9)
        return models.transition[0, corner, cell_index(*other)]

    straight = jnp.asarray(hallways.policy[option]).at[corner].set(jax.nn.one_hot(3, 4))
    assert stumble(jnp.asarray(hallways.policy[option])) < stumble(straight)


def test_hallway_options_of_the_other_dynamics():
    env = FourRooms("option-critic")
    validate(hallway_options(env), env.transitions)


def test_primitive_options():
    options = primitive_options(5, 3)
    assert options.initiation.shape == options.termination.shape == (3, 5)
    assert options.initiation.all()
    assert (options.termination == 1).all()
    np.testing.assert_array_equal(options.policy[2], np.eye(3)[[2] * 5])


def test_concatenate(hallways):
    both = concatenate(primitive_options(NUM_CELLS, 4), Options(*hallways))
    assert both.policy.shape == (12, NUM_CELLS, 4)
    np.testing.assert_array_equal(both.initiation[4:], hallways.initiation)
    assert both.initiation.dtype == bool
    with pytest.raises(ValueError, match="same states and actions only, got 5 states and 3 actions, 104 states and 4"):
        concatenate(primitive_options(5, 3), both)
    with pytest.raises(ValueError, match="got none given"):
        concatenate()


# A user's own: a corridor of four states, actions left and right

LEFT_RIGHT = np.stack([np.eye(4)[[0, 0, 1, 2]], np.eye(4)[[1, 2, 3, 3]]], axis=1)  # [S, A, S']


def own(**change):
    """A valid pair of options, to the left end and to the right end, with some arrays replaced."""
    arrays = {
        "initiation": np.array([[0, 1, 1, 1], [1, 1, 1, 0]]),
        "policy": np.array([[[0, 0], [1, 0], [1, 0], [1, 0]], [[0, 1], [0, 1], [0, 1], [0, 0]]]),
        "termination": np.array([[1, 0, 0, 0], [0, 0, 0, 1]]),
    }
    return Options(**{**arrays, **change})


def changed(name, index, value):
    array = getattr(own(), name).astype(float)
    array[index] = value
    return own(**{name: array})


def test_validate_passes_what_is_right(hallways, env):
    options = validate(own(), LEFT_RIGHT)
    assert [array.dtype for array in options] == [bool, jnp.float32, jnp.float32]
    np.testing.assert_array_equal(options.policy, own().policy)
    validate(own())
    validate(Options(*hallways), env.transitions)
    validate(concatenate(primitive_options(4, 2), options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (own(policy=np.ones((2, 4))), r"policy must be \[options, states, actions\], got shape \(2, 4\)"),
        (
            own(initiation=np.ones((4, 2))),
            r"initiation must be \[options, states\] = \(2, 4\) to go with policy \(2, 4, 2\), got shape \(4, 2\)",
        ),
        (own(termination=np.ones(4)), r"termination must be \[options, states\] = \(2, 4\).*got shape \(4,\)"),
        (changed("initiation", (0, 0), 0.5), "initiation must be boolean"),
        (changed("termination", (1, 2), 1.5), r"termination must be probabilities.*option 1 has 1.5 in state 2"),
        (changed("termination", (1, 2), np.nan), r"termination must be probabilities.*option 1 has nan in state 2"),
        (changed("initiation", 1, 0), r"option 1 can start nowhere: set initiation\[1, s\] for at least one state s"),
        (
            changed("policy", (0, 2), [0.5, 0.6]),
            r"policy must be a distribution.*option 0 has \[0.5, 0.6\] in state 2; set initiation\[0, 2\] to False",
        ),
        (
            changed("policy", (0, 2), [1.5, -0.5]),
            r"policy must be a distribution.*option 0 has \[1.5, -0.5\] in state 2",
        ),
        (changed("policy", (1, 1), 0), r"policy must be a distribution.*option 1 has \[0.0, 0.0\] in state 1"),
        (changed("initiation", (1, 0), 0), r"no option can start in state 0: add one, for instance by concatenate"),
        (changed("termination", 1, 0), "policy must be a distribution"),  # it would run on at the right end, aimlessly
        (
            own(termination=np.zeros((2, 4)), policy=np.full((2, 4, 2), 0.5)),
            "option 0 started in state 1 may never terminate: give it a positive termination probability",
        ),
    ],
)
def test_validate_says_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message) as error:
        validate(options)
    assert "\n" not in str(error.value)


def test_validate_finds_endless_options_in_the_dynamics():
    turned = own().policy[[0, 0]].copy()  # the second option goes left too and never meets its right end
    turned[1, 0] = [1, 0]
    validate(own(policy=turned))
    with pytest.raises(ValueError, match="option 1 started in state 0 may never terminate"):
        validate(own(policy=turned), LEFT_RIGHT)
    half = own().policy.astype(float)
    half[1, 0] = [0.5, 0.5]  # a random walk away from the end still gets there
    validate(own(policy=half), LEFT_RIGHT)


def test_absorbing_states_end_options_and_need_none():
    end = LEFT_RIGHT.copy()
    end[0] = np.eye(4)[0]
    turned = own().policy[[0, 0]].copy()
    turned[1, 0] = [1, 0]
    validate(own(policy=turned), end)
    validate(changed("initiation", (1, 0), 0), end)


def test_validate_wants_matching_dynamics():
    with pytest.raises(ValueError, match=r"P must be \[states, actions, states\] = \(4, 2, 4\).*got shape \(4, 4\)"):
        validate(own(), np.eye(4))


# Execution, against a slow version

O, S, A, T = 3, 4, 2, 12
EPSILON, DISCOUNT = 0.3, 0.5


@partial(jax.jit, static_argnames="interrupt")
def executed(options, q, states, first, rewards, keys, interrupt):
    """What an agent does in `states` [T]: actions, and its `Running` before each step; and what it draws, [T, 4]."""
    values = lambda params, state: q[state]
    agent = call_and_return(options, None, values, epsilon=EPSILON, discount=DISCOUNT, interrupt=interrupt)

    def step(carry, now):
        state, first, reward, key = now
        inp = ActInput(state, jnp.int32(0), reward, first)
        action, carry, running = agent.act((), carry, inp, key, False)
        return carry, (action, running)

    draws = jax.vmap(lambda key: uniforms(key, 4))(keys)
    return jax.lax.scan(step, agent.start((), keys[0]), (states, first, rewards, keys))[1], draws


@pytest.mark.parametrize("interrupt", [False, True])
@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), ends=st.sampled_from([0.0, 0.3, 1.0]))
def test_options_start_run_and_stop_as_a_slow_version_has_it(interrupt, seed, ends):
    """Random options, of which some may start in each state; an option is chosen among those alone."""
    rng = np.random.default_rng(seed)
    initiation = rng.random((O, S)) < 0.5
    initiation[rng.integers(O, size=S), np.arange(S)] = True
    policy = np.float32(rng.dirichlet(np.ones(A), (O, S)))
    termination = np.float32(np.where(rng.random((O, S)) < ends, 1, rng.random((O, S))))
    q = np.float32(rng.integers(0, 3, (S, O)))  # with ties
    states, first, rewards = rng.integers(S, size=T), rng.random(T) < 0.2, np.float32(rng.integers(-2, 3, T))
    first[0] = True
    keys = jax.random.split(jax.random.key(seed), T)
    options = Options(initiation, policy, termination)
    (actions, running), draws = jax.device_get(executed(options, q, states, first, rewards, keys, interrupt))

    option = start = value = factor = drawn = None
    for t, s in enumerate(states):
        allowed = [o for o in range(O) if initiation[o, s]]
        best = max(q[s, o] for o in allowed)
        stops = first[t] or drawn < termination[option, s] or (interrupt and q[s, option] < best)
        if stops:
            pool = allowed if draws[t, 0] < np.float32(EPSILON) else [o for o in allowed if q[s, o] == best]
            option, start, value, factor = pool[int(np.floor(draws[t, 1] * np.float32(len(pool))))], s, 0.0, 1.0
        else:
            value, factor = value + factor * rewards[t], factor * DISCOUNT
        drawn = draws[t, 2]
        assert (running.option[t], running.start[t], running.draw[t]) == (option, start, drawn)
        assert (running.reward[t], running.discount[t]) == (value, factor)
        assert actions[t] == int(policy[option, s, 0] <= draws[t, 3])
