"""Randomness of the engine: a probe tells which keys it was given, and no two choices may share one.

The probe is an environment, a task, an agent and an update that report their keys. Two keys are related when they are
equal or one is made from the other by `split` or `fold_in`: what is drawn from both would depend on each other.
"""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import spaces

from jaxrl_envs.tasks import Tasks
from jaxrl_hier.engine import replay as memory
from jaxrl_hier.engine.loops import (
    MetaBatch,
    adaptation,
    begin_learning,
    begin_replay,
    begin_worlds,
    learning_from_memory,
    metagrad,
    metagrad_in_parts,
    online,
    replay,
)
from jaxrl_hier.engine.rollout import ended, play_episodes, rollout
from jaxrl_hier.engine.train import Evaluation
from jaxrl_hier.engine.types import Agent, Algorithm, NamedArray, TrainState
from tests.compiling import quick_jit
from tests.rings import stored

words = jax.random.key_data
ACTIONS = spaces.Discrete(2**20)


@struct.dataclass
class ProbeParams:
    key: jax.Array  # [2] that the task was drawn with
    end: int = 4  # steps until an episode terminates
    max_steps_in_episode: int = 3


class Probe:
    """Observes the key that its reset or step was given, and its task's."""

    name = "Probe"
    default_params = ProbeParams(jnp.zeros(2, jnp.uint32))

    def action_space(self, params):
        return ACTIONS

    def observation_space(self, params):
        return spaces.Box(0, 2**32, (4,), jnp.uint32)

    def reset_env(self, key, params):
        return jnp.concatenate([words(key), params.key]), jnp.zeros((), jnp.int32)

    def step_env(self, key, state, action, params):
        obs = jnp.concatenate([words(key), params.key])
        return obs, state + 1, jnp.ones(()), state + 1 >= params.end, {}

    def is_truncated(self, state, params):
        return state >= params.max_steps_in_episode


ENV = Probe()
AGENT = Agent(
    init=words,
    start=lambda params, key: words(key),
    act=lambda params, carry, inp, key, greedy: (
        jnp.zeros((), jnp.int32),
        carry,
        {"act": words(key), "start": carry, "params": params},
    ),
)


def redrawn(**settings):
    """Tasks that are drawn anew for each episode."""
    return Tasks(sample=lambda key: replace(ENV.default_params, key=words(key), **settings), resample="episode")


BLOCK = 256


@quick_jit
@jax.vmap
def descendants(key):
    """Keys [BLOCK, …, 2] that are made from others [BLOCK, 2] in one or two steps."""

    def made(key):
        key = jax.random.wrap_key_data(key)
        split = [words(jax.random.split(key, n)) for n in (2, 3, 4)]
        return jnp.concatenate([*split, jnp.stack([words(jax.random.fold_in(key, i)) for i in range(3)])])

    children = made(key)
    return jnp.concatenate([children, jax.vmap(made)(children).reshape(-1, 2)])


def assert_unrelated(*used):
    """Keys [..., 2] are all different, and none is made from another."""
    keys = np.concatenate([np.asarray(x).reshape(-1, 2) for x in used])
    found = {tuple(key) for key in keys.tolist()}
    assert len(found) == len(keys), f"{len(keys) - len(found)} of {len(keys)} keys are used twice"
    made = set()
    for i in range(0, len(keys), BLOCK):
        block = np.resize(keys[i : i + BLOCK], (BLOCK, 2))
        made |= {tuple(key) for key in np.asarray(descendants(block)).reshape(-1, 2).tolist()}
    assert not found & made, f"{len(found & made)} of {len(keys)} keys are made from another"


def played(tasks, length, key=0, worlds=3):
    """The worlds before and after a rollout, and what it saw."""

    @quick_jit
    def play(key):
        begun = begin_worlds(ENV, AGENT, tasks, jnp.zeros(2), key, worlds)
        return begun, *rollout(ENV, AGENT, tasks, jnp.zeros(2), begun, length)

    return play(jax.random.key(key))


def keys_of(seen):
    """All that a rollout [T, B] was given."""
    first = np.asarray(seen.first)
    obs, start = np.asarray(seen.obs)[first], np.asarray(seen.extras["start"])[first]
    return [obs[:, :2], obs[:, 2:], start, seen.next_obs[..., :2], seen.extras["act"]]


# Rollouts


@pytest.mark.parametrize("settings", [{}, {"end": 2}], ids=["truncated", "terminated"])
def test_task_start_memory_action_and_step_are_drawn_apart_in_every_step_of_every_world(settings):
    tasks = redrawn(**settings)
    _, final, seen = played(tasks, 8)
    assert len(keys_of(seen)[0]) >= 9  # episodes
    assert_unrelated(*keys_of(seen), words(final.key))
    other = Tasks(tasks.sample, resample=lambda key, task: task.replace(key=words(key)))
    jax.tree.map(np.testing.assert_array_equal, seen, played(other, 8)[2])


def test_a_task_that_is_kept_is_drawn_once():
    tasks = redrawn()._replace(resample="never")
    worlds, final, seen = played(tasks, 8)
    np.testing.assert_array_equal(seen.obs[..., 2:], np.broadcast_to(worlds.task.key, (8, 3, 2)))
    reset, _, *others = keys_of(seen)
    assert_unrelated(reset, worlds.task.key, *others, words(final.key))


def test_episodes_of_one_task_are_played_with_keys_of_their_own():
    play = partial(play_episodes, ENV, AGENT, ENV.default_params, jnp.zeros(2), episodes=3, horizon=5)
    reset, _, *others = keys_of(quick_jit(play)(jax.random.key(0)))
    assert_unrelated(reset, *others)


@pytest.mark.parametrize("end", [2, 3, 4])
def test_a_step_never_both_terminates_and_is_truncated(end):
    """With a time limit of three steps: the task's own end in the same step comes first."""
    _, _, seen = played(redrawn(end=end), 12, worlds=2)
    over = np.arange(1, 13) % min(end, 3) == 0
    np.testing.assert_array_equal(ended(seen), np.stack([over, over], axis=1))
    np.testing.assert_array_equal(seen.terminated, np.asarray(ended(seen)) & (end <= 3))
    np.testing.assert_array_equal(seen.truncated, np.asarray(ended(seen)) & (end > 3))


# Loops


def test_online_updates_have_keys_of_their_own():
    def update(params, learner, before, transitions, key):
        return params, learner, {"key": words(key), "rollout": transitions}

    state = quick_jit(lambda: begin_learning(ENV, AGENT, redrawn(), jax.random.key(0), environments=2))()
    step, seen = quick_jit(online(ENV, AGENT, redrawn(), update, length=3)), []
    used = [state.params]
    for _ in range(3):
        state, metrics = step(state)
        seen.append(metrics["rollout"])
        used.append(metrics["key"])
    assert_unrelated(*used, *keys_of(jax.tree.map(lambda *x: jnp.concatenate(x), *seen)), words(state.world.key))


@quick_jit
def begun():
    return begin_replay(ENV, AGENT, redrawn(), jax.random.key(0), environments=2, capacity=9, warmup=9)


def test_replay_draws_relabels_and_updates_anew_every_time():
    """In each of three updates of each of three iterations."""
    batch, updates = 5, 3

    def relabel(params, ring, places, key):
        by_this_key = memory.draw(ring, key, batch)
        seen = {"slot": ring.slot, "size": ring.size}
        return seen | {"places": jnp.stack(places), "by relabel": jnp.stack(by_this_key), "relabel": words(key)}

    def update(params, log, sample, key):
        ring = state.memory.replace(slot=sample.pop("slot"), size=sample.pop("size"))
        now = sample | {"update": words(key), "by update": jnp.stack(memory.draw(ring, key, batch))}
        at = log["count"]
        log = {name: log[name].at[at].set(x) for name, x in now.items()} | {"count": at + 1}
        return params, log, {}

    state = begun()
    drawn, key = jnp.zeros((9, 2, batch), jnp.int32), jnp.zeros((9, 2), jnp.uint32)
    log = dict.fromkeys(("places", "by relabel", "by update"), drawn) | dict.fromkeys(("relabel", "update"), key)
    state = state.replace(learner=log | {"count": 0})
    learn = learning_from_memory(update, updates=updates, batch=batch, relabel=relabel)
    step, resets = quick_jit(replay(ENV, AGENT, redrawn(), learn, length=2)), []
    for _ in range(3):
        state, _ = step(state)
        resets.append(state.world.inp.obs[:, :2])
    log = state.learner
    assert int(log["count"]) == 9
    assert len(np.unique(log["places"].reshape(9, -1), axis=0)) == 9
    assert not (log["places"] == log["by relabel"]).all(axis=(1, 2)).any()  # nor with the update's key
    assert not (log["places"] == log["by update"]).all(axis=(1, 2)).any()
    assert_unrelated(log["relabel"], log["update"], state.params, *resets, words(state.world.key))


def test_the_random_actions_of_a_warm_up_are_not_drawn_with_the_agents_key():
    state = begun()
    steps = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), stored(state.memory))
    assert len(np.unique(steps.action)) == 18
    by_the_agents = jax.vmap(jax.vmap(lambda key: ACTIONS.sample(jax.random.wrap_key_data(key))))(steps.extras["act"])
    assert not (steps.action == by_the_agents).any()
    assert_unrelated(*keys_of(steps), state.params, words(state.world.key))


def test_adaptation_collects_anew_before_every_step_with_what_was_learned():
    process = lambda seen: seen
    adapt = adaptation(ENV, AGENT, process, lambda params, batch, k: params + 10 + k, steps=2, episodes=2, horizon=3)
    params, (inner, outer, adapted) = quick_jit(adapt)(jnp.zeros(2), ENV.default_params, jax.random.key(0))
    assert adapted.tolist() == [[10, 10], [21, 21]]  # 10 + 0 and 10 + 1
    assert params.tolist() == [21, 21]
    shown = [batch.extras["params"][..., 0] for batch in (inner, outer)]
    np.testing.assert_array_equal(shown[0], np.broadcast_to([[[0]], [[10]]], (2, 3, 2)))
    np.testing.assert_array_equal(shown[1], np.full((3, 2), 21))
    first, second = (jax.tree.map(lambda x, i=i: x[i], inner) for i in range(2))
    both = jax.tree.map(lambda *x: jnp.concatenate(x), first, second, outer)
    reset, _, *others = keys_of(both)
    assert_unrelated(reset, *others)


def test_meta_learning_draws_tasks_and_episodes_anew_in_every_iteration():
    adapt = lambda params, task, key: (params, MetaBatch(words(key), task.key))
    report = lambda params, learner, batches: (params, learner, {"batches": batches})
    state = TrainState((), (), jax.random.split(jax.random.key(0), 4), (), jax.random.key(1), jnp.zeros((), jnp.int32))
    step, states, used = quick_jit(metagrad(redrawn(), adapt, report)), [state], []
    for _ in range(3):
        state, metrics = step(states[-1])
        states.append(state)
        used.extend(metrics["batches"][:2])
    assert_unrelated(*used, words(state.world))
    assert int(state.iteration) == 3

    # in parts: the same tasks and episodes, whose mean is descended once
    as_number = lambda batch: jnp.mean(batch.inner / 2.0**32 + batch.outer / 2.0**31, axis=0)
    gradient = lambda params, batch: (as_number(batch), {"told": as_number(batch)[0]})
    descend = lambda params, learner, slope: (slope, learner + 1)
    parts = quick_jit(metagrad_in_parts(redrawn(), adapt, gradient, descend, microbatch=2))
    for (before, after), batch in zip(pairwise(states), zip(used[::2], used[1::2])):
        ours, metrics = parts(replace(before, params=jnp.zeros(2), learner=jnp.zeros(())))
        np.testing.assert_array_equal(words(ours.world), words(after.world))
        np.testing.assert_allclose(ours.params, as_number(MetaBatch(*batch)), rtol=1e-5)
        np.testing.assert_allclose(metrics["told"], ours.params[0], rtol=1e-6)
        np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(ours.params), rtol=1e-6)
        assert (float(ours.learner), int(ours.iteration)) == (1, int(after.iteration))


def test_evaluations_have_keys_of_their_own():
    """Of every iteration and every seed, and the same again for the same state."""
    tell = lambda state, key: {"key": NamedArray(words(key), ("word",))}
    evaluate = Evaluation(Algorithm(init=None, step=None, evaluate=tell, agent=AGENT, env_steps=1))
    keys = jax.random.split(jax.random.key(0), 2)
    at = lambda i: evaluate(TrainState((), (), (), (), keys, jnp.full(2, i, jnp.int32)))["key"]
    assert at(0).axes == ("seed", "word")
    of_iterations = [words(jax.vmap(jax.random.fold_in, (0, None))(keys, i)) for i in range(4)]
    assert_unrelated(*(at(i).values for i in range(4)), *of_iterations)
    np.testing.assert_array_equal(at(2).values, at(2).values)
