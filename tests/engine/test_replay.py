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
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.types import Agent, Transition
from jaxrl_hier.flat import dqn

B, C = 2, 11
add = jax.jit(memory.add)
draw = jax.jit(memory.draw, static_argnums=2)


def rows(first, number):
    """A rollout of numbered steps: obs is the number, next_obs the number after it; `first`, `number` [T, B]."""
    nothing = jnp.zeros(first.shape)
    false = jnp.zeros(first.shape, bool)
    number = jnp.asarray(number, jnp.int32)
    return Transition(number, number, nothing, false, false, number + 1, jnp.asarray(first), ())


def one_step():
    return jax.tree.map(lambda x: x[0, 0], rows(np.zeros((1, 1), bool), np.zeros((1, 1))))


def filled(firsts, lengths):
    """A ring after rollouts of `lengths`, and what a deque of the same size holds: (episode, step) for each number."""
    ring = memory.Ring.empty(one_step(), B, C)
    held = [deque(maxlen=C) for _ in range(B)]
    number, episode = 0, [0] * B
    for length in lengths:
        block = firsts[number : number + length]
        ring = add(ring, rows(block, number + np.arange(length)[:, None] + 1000 * np.arange(B)))
        for t in range(length):
            for b in range(B):
                episode[b] += int(block[t, b])
                held[b].append((episode[b], number + t + 1000 * b))
        number += length
    return ring, held


@st.composite
def histories(draw):
    """Episodes of at most C steps, in rollouts of at most C."""
    lengths = draw(st.lists(st.sampled_from([1, 2, 3, 7, 11]), min_size=1, max_size=12))
    total = sum(lengths)
    firsts = np.zeros((total, B), bool)
    for b in range(B):
        t = 0
        while t < total:
            firsts[t, b] = True
            t += draw(st.integers(1, C))
    return firsts, lengths


@settings(max_examples=60, deadline=None)
@given(histories())
def test_ring_is_a_deque_that_knows_its_episodes(history):
    ring, held = filled(*history)
    for b in range(B):
        size = len(held[b])
        assert int(ring.size[b]) == size
        slots = (np.asarray(ring.slot)[b] - size + np.arange(size)) % C  # oldest first
        places = memory.Places(jnp.full(size, b), jnp.asarray(slots))
        found = memory.read(ring, places)
        np.testing.assert_array_equal(found.obs, [number for _, number in held[b]])
        np.testing.assert_array_equal(found.next_obs, found.obs + 1)
        episodes = [episode for episode, _ in held[b]]
        later = [sum(e == episode for e in episodes[i + 1 :]) for i, episode in enumerate(episodes)]
        earlier = [sum(e == episode for e in episodes[:i]) for i, episode in enumerate(episodes)]
        np.testing.assert_array_equal(memory.following(ring, places), later)
        np.testing.assert_array_equal(memory.preceding(ring, places), earlier)


def test_long_histories_overflow_nothing():
    """Counters are modulo the capacity; after many times around the ring everything still holds."""
    rng = np.random.default_rng(0)
    total = 60 * C
    firsts = np.zeros((total, B), bool)
    for b in range(B):
        starts = np.cumsum(rng.integers(1, C + 1, total))
        firsts[np.append(0, starts[starts < total]), b] = True
    ring, held = filled(firsts, [6] * 110)
    assert max(int(x.max()) for x in (ring.episode, ring.begin, ring.end, ring.slot, ring.current)) < C
    slots = (np.asarray(ring.slot)[0] - C + np.arange(C)) % C
    places = memory.Places(jnp.zeros(C, jnp.int32), jnp.asarray(slots))
    episodes = [episode for episode, _ in held[0]]
    later = [sum(e == episode for e in episodes[i + 1 :]) for i, episode in enumerate(episodes)]
    np.testing.assert_array_equal(memory.following(ring, places), later)


@pytest.mark.parametrize("steps", [4, 17])  # not full, full
def test_draws_are_uniform_over_what_is_held(steps):
    firsts = np.zeros((steps, B), bool)
    firsts[0] = True
    firsts[8:9] = True
    ring, held = filled(firsts, [1] * steps)
    count = 20_000
    numbers = np.asarray(memory.read(ring, draw(ring, jax.random.key(0), count)).obs)
    expected = sorted(number for row in held for _, number in row)
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
    steps = jax.tree.map(lambda x: np.asarray(x[:, :5]), state.memory.steps)
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
