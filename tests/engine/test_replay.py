"""The ring against a slow deque, and the replay loop's order of things."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl_envs
from jaxrl_hier.engine import replay as memory
from jaxrl_hier.engine.loops import begin_replay, learning_from_memory, replay
from jaxrl_hier.engine.old_rings import OldRing, converted, with_old_rings
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.types import Agent, Transition
from jaxrl_hier.flat import dqn
from tests.rings import stored

B, C = 2, 11
# size of an observation, and steps that are always held -> rows of observations
ROWS = {(1, 1): 2 * C, (128, 1): C + 2, (128, 8): 16}
KINDS = pytest.mark.parametrize("kind", ROWS, ids=["vectors", "pictures", "pictures, eight always"])
add = jax.jit(memory.add)
draw = jax.jit(memory.draw, static_argnums=2)
stored_with_episodes = jax.jit(
    lambda ring: (
        stored(ring),
        *jax.vmap(
            lambda env: tuple(
                count(ring, memory.Places(jnp.full(C, env), jnp.arange(C)))
                for count in (memory.following, memory.preceding)
            )
        )(jnp.arange(B)),
    )
)


def rows(first, number, size=1):
    """A rollout of numbered steps; `first`, `number` [T, B].

    An observation has `size` equal numbers: that of its step, and a half more where an episode begins, since that is
    not the one that the episode before ended with.
    """
    number, first = np.asarray(number, np.int32), np.asarray(first)
    nothing, false = np.zeros(first.shape, np.float32), np.zeros(first.shape, bool)
    picture = lambda x: np.repeat(np.float32(x)[..., None], size, axis=-1)
    return Transition(picture(number + 0.5 * first), number, nothing, false, false, picture(number + 1), first, ())


def emptied(kind):
    size, always = kind
    one_step = jax.tree.map(lambda x: x[0, 0], rows(np.zeros((1, 1), bool), np.zeros((1, 1)), size))
    ring = memory.Ring.empty(one_step, B, C, always)
    assert ring.rows == ROWS[kind]
    return ring


def filled(history, kind=(1, 1)):
    """A ring after rollouts, see `histories`, and what deques hold: (episode, number, first) of each step."""
    (firsts, lengths), ring = history, emptied(kind)
    held = [deque(maxlen=C) for _ in range(B)]
    number, episode = 0, [0] * B
    for length in lengths:
        block = firsts[number : number + length]
        ring = add(ring, rows(block, number + np.arange(length)[:, None] + 1000 * np.arange(B), kind[0]))
        for t in range(length):
            for b in range(B):
                episode[b] += int(block[t, b])
                held[b].append((episode[b], number + t + 1000 * b, bool(block[t, b])))
                while len(held[b]) + len({e for e, *_ in held[b]}) > ROWS[kind]:  # observations of steps, and last ones
                    held[b].popleft()
        number += length
    return ring, held


def assert_holds(ring, held):
    """What deques hold, with the number of earlier and later steps of each step's episode."""
    found, later, earlier = jax.tree.map(np.asarray, stored_with_episodes(ring))
    for b in range(B):
        size = len(held[b])
        assert int(ring.size[b]) == size
        slots = (np.asarray(ring.slot)[b] - size + np.arange(size)) % C  # oldest first
        episodes, numbers, first = (np.array(x) for x in zip(*held[b]))
        np.testing.assert_array_equal(found.action[b, slots], numbers)
        np.testing.assert_array_equal(found.first[b, slots], first)
        np.testing.assert_array_equal(
            found.obs[b, slots], np.broadcast_to((numbers + 0.5 * first)[:, None], found.obs[b, slots].shape)
        )
        np.testing.assert_array_equal(
            found.next_obs[b, slots] - 1, np.broadcast_to(numbers[:, None], found.obs[b, slots].shape)
        )
        np.testing.assert_array_equal(later[b, slots], [sum(episodes[i + 1 :] == e) for i, e in enumerate(episodes)])
        np.testing.assert_array_equal(earlier[b, slots], [sum(episodes[:i] == e) for i, e in enumerate(episodes)])


@st.composite
def histories(draw):
    """Episodes of at most C steps, in rollouts of at most C."""
    lengths = draw(st.lists(st.sampled_from([1, 2, 3, 7, 11]), min_size=1, max_size=12))
    total, longest = sum(lengths), draw(st.sampled_from([1, 2, 4, C]))
    firsts = np.zeros((total, B), bool)
    for b in range(B):
        t = 0
        while t < total:
            firsts[t, b] = True
            t += draw(st.integers(1, longest))
    return firsts, lengths


@KINDS
@settings(max_examples=100, deadline=None)
@given(history=histories())
def test_ring_is_a_deque_that_knows_its_episodes(kind, history):
    ring, held = filled(history, kind)
    assert_holds(ring, held)
    always = C if kind[0] == 1 else max(kind[1], ROWS[kind] // 2)
    assert min(ring.size) >= min(len(history[0]), always)


@settings(max_examples=30, deadline=None)
@given(history=histories(), large=st.booleans())
def test_rings_of_old_checkpoints_hold_the_same_steps(history, large):
    """Made again from one that stores every step with both of its observations; episodes and slots stay as well."""
    kind = (128, 1) if large else (1, 1)
    ring, _ = filled(history, (1, 1))
    twice = stored(ring)
    if large:
        twice = twice._replace(obs=jnp.tile(twice.obs, 128), next_obs=jnp.tile(twice.next_obs, 128))
    numbers = {name: getattr(ring, name) for name in ("episode", "begin", "end", "slot", "size", "current")}
    old = jax.tree.map(lambda x: x[None], OldRing(steps=twice, **numbers))  # of one seed
    template = jax.eval_shape(lambda: jax.tree.map(lambda x: x[None], emptied(kind)))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), with_old_rings(template)) == jax.tree.map(
        lambda x: (x.shape, x.dtype), old
    )
    new = jax.tree.map(lambda x: x[0], converted(old, template))
    assert_holds(new, filled(history, kind)[1])
    if not large:
        again = add(new, rows(np.zeros((1, B), bool), 7000 + np.zeros((1, B))))
        expected = add(ring, rows(np.zeros((1, B), bool), 7000 + np.zeros((1, B))))
        jax.tree.map(np.testing.assert_array_equal, again.size, expected.size)


@KINDS
def test_long_histories_overflow_nothing(kind):
    """Counters are modulo the capacity; after many times around the ring everything still holds."""
    rng = np.random.default_rng(0)
    total = 60 * C
    firsts = np.zeros((total, B), bool)
    for b in range(B):
        starts = np.cumsum(rng.integers(1, C + 1, total))
        firsts[np.append(0, starts[starts < total]), b] = True
    ring, held = filled((firsts, [6] * 110), kind)
    assert max(int(x.max()) for x in (ring.episode, ring.begin, ring.end, ring.slot, ring.current)) < C
    assert max(int(x.max()) for x in (ring.row, ring.newest)) < 3 * ROWS[kind]
    assert_holds(ring, held)


@pytest.mark.parametrize("steps", [4, 17])  # not full, full
def test_draws_are_uniform_over_what_is_held(steps):
    firsts = np.zeros((steps, B), bool)
    firsts[0] = True
    firsts[8:9] = True
    ring, held = filled((firsts, [1] * steps))
    count = 20_000
    numbers = np.asarray(memory.read(ring, draw(ring, jax.random.key(0), count)).action)
    expected = sorted(number for row in held for _, number, _ in row)
    values, frequency = np.unique(numbers, return_counts=True)
    np.testing.assert_array_equal(values, expected)
    mean = count / len(expected)
    chi2 = np.sum((frequency - mean) ** 2 / mean)
    assert chi2 < len(expected) - 1 + 4 * np.sqrt(2 * (len(expected) - 1))


# The loop


@pytest.fixture(scope="module")
def walk():
    """An agent on four rooms that walks right, and its state after a warm-up of 5 steps."""
    env, tasks = jaxrl_envs.make("four-rooms")
    agent = Agent(
        init=lambda key: jnp.zeros(()),
        start=lambda params, key: jnp.zeros((), jnp.int32),
        act=lambda params, carry, inp, key, greedy: (jnp.array(3, jnp.int32), carry + 1, carry),
    )
    state = begin_replay(env, agent, tasks, jax.random.key(1), environments=B, capacity=500, warmup=5)
    return env, tasks, agent, state


def test_warm_up_is_random_and_remembered(walk):
    _, _, _, state = walk
    assert state.memory.size.tolist() == [5, 5]
    steps = jax.tree.map(lambda x: np.asarray(x[:, :5]), stored(state.memory))
    assert len(np.unique(steps.action)) > 1  # the agent itself goes right alone
    np.testing.assert_array_equal(steps.extras, np.tile(np.arange(5), (B, 1)))  # and its carry goes on
    np.testing.assert_array_equal(steps.obs[:, 1:], steps.next_obs[:, :-1])
    np.testing.assert_array_equal(steps.next_obs[:, -1], state.world.inp.obs)


def test_an_iteration_acts_remembers_and_learns(walk):
    env, tasks, agent, state = walk

    def update(params, learner, sample, key):
        return params + 1, learner, {"seen": jnp.max(sample.reward) + params}

    def relabel(params, ring, places, key):
        return memory.read(ring, places)._replace(reward=jnp.full(places.slot.shape, 100.0 * (params + 1)))

    learn = learning_from_memory(update, updates=4, batch=7, relabel=relabel)
    after, metrics = jax.jit(replay(env, agent, tasks, learn, length=3))(state)
    assert after.memory.size.tolist() == [8, 8]
    np.testing.assert_array_equal(after.memory.steps.action[:, 5:8], 3)
    assert float(after.params) == 4  # one update after the other, each with what the one before learned
    assert float(metrics["seen"]) == np.mean([100 + 0, 200 + 1, 300 + 2, 400 + 3])
    world, _ = rollout(env, agent, tasks, state.params, state.world, 3)
    np.testing.assert_array_equal(world.env_state.cell, after.world.env_state.cell)
    assert int(after.iteration) == 1


def test_a_step_copies_no_ring():
    """In place in a loop, also with one environment and one step at a time, and whatever is read afterwards."""
    env, tasks = jaxrl_envs.make("bit-flipping-15")
    algorithm = dqn.make(
        dqn.Config(hidden=(8,), batch_size=8, capacity=50_000, warmup_steps=20, her="episode"), env, tasks
    )
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    loop = lambda state: jax.lax.fori_loop(0, 3, lambda _, s: algorithm.step(s)[0], state)
    memory = jax.jit(loop, donate_argnums=0).lower(state).compile().memory_analysis()
    smallest = 50_000  # bytes of a leaf of flags
    assert memory.temp_size_in_bytes < smallest
    assert memory.alias_size_in_bytes > 50 * smallest
