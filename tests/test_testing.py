"""The checks for other packages: who keeps the promises passes, and who breaks one is told which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs.tasks import single
from jaxrl_hier import testing
from jaxrl_hier.engine.types import Agent, Algorithm, NamedArray, TrainState
from tests.line import Line


def walk(change=lambda state, metrics: (state, metrics), draw=None, **parts):
    """Parameters drift by one normal draw for each of 8 worlds, a key each.

    Args:
        change: of what a step returns.
        draw: keys [8] -> the drift [3], in place of the mean of normals.
        parts: of the Algorithm.
    """

    def init(key):
        key, key_world = jax.random.split(key)
        return TrainState(jnp.zeros(3), jnp.zeros(()), jax.random.split(key_world, 8), (), key, jnp.int32(0))

    def step(state):
        keys = jax.vmap(jax.random.split)(state.world)
        drift = draw or (lambda keys: jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys).mean(0))
        drift = drift(keys[:, 0])
        after = TrainState(state.params + drift, state.learner, keys[:, 1], (), state.key, state.iteration + 1)
        return change(after, {"return": jnp.sum(drift)})

    evaluate = lambda state, key: {"return": NamedArray(state.params, ("coordinate",))}
    agent = Agent(init=lambda key: jnp.zeros(3), start=lambda params, key: (), act=None)
    return Algorithm(init, step, evaluate, agent, env_steps=8)._replace(**parts)


@pytest.fixture(scope="module")
def good():
    return walk()


@pytest.mark.parametrize("check", testing.INVARIANTS, ids=testing.name_of)
def test_what_keeps_the_promises_passes(good, check):
    check(good)


def changed(**fields):
    """A walk whose state after a step has other fields, each a function of the state."""
    return walk(lambda state, metrics: (state.replace(**{k: f(state) for k, f in fields.items()}), metrics))


def measured(**metrics):
    """A walk with these metrics."""
    return walk(lambda state, _: (state, metrics))


def same_draw_twice(keys):
    one = jax.vmap(lambda key: jax.random.normal(key, (3,)))
    return (one(keys) + one(keys)).mean(0)


def from_numpy(keys):
    return jnp.asarray(np.random.normal(size=3), jnp.float32)  # noqa: NPY002 what nobody should do


def counting():
    """A draw that depends on how often it was called."""
    calls = []

    def call():
        calls.append(1)
        return np.full(3, len(calls), np.float32)

    return lambda keys: jax.pure_callback(call, jax.ShapeDtypeStruct((3,), jnp.float32), vmap_method="sequential")


SPOILT = {
    "another dtype": (
        testing.the_state_keeps_its_types,
        lambda: changed(params=lambda state: state.params.astype(jnp.bfloat16)),
        r"a step changes .params from float32\[3\] to bfloat16\[3\]",
    ),
    "a weak type": (
        testing.the_state_keeps_its_types,
        lambda: changed(learner=lambda state: jnp.where(state.iteration > 0, 1.0, 0.0)),
        r"a step changes .learner from float32\[\] to float32\[\], weakly typed",
    ),
    "another structure": (
        testing.the_state_keeps_its_types,
        lambda: changed(memory=lambda state: (state.params,)),
        "a step changes the state's structure",
    ),
    "a vector for a metric": (
        testing.the_state_keeps_its_types,
        lambda: measured(**{"return": jnp.zeros(2)}),
        r"the metric return must be a scalar or an Average of scalars, it has shapes \{\(2,\)\}",
    ),
    "no return": (
        testing.the_state_keeps_its_types,
        lambda: measured(loss=jnp.zeros(())),
        "a step must measure return, it measures loss",
    ),
    "a missing axis": (
        testing.the_state_keeps_its_types,
        lambda: walk(evaluate=lambda state, key: {"return": NamedArray(state.params, ())}),
        r"return of evaluate has axes \(\) and the shape \(3,\)",
    ),
    "no named array": (
        testing.the_state_keeps_its_types,
        lambda: walk(evaluate=lambda state, key: {"return": state.params}),
        "evaluate must give NamedArrays, return is ShapeDtypeStruct",
    ),
    "NumPy's randomness": (
        testing.functions_are_pure,
        lambda: walk(draw=from_numpy),
        "step, traced twice, is two different programs|not equal",
    ),
    "NumPy's randomness, by seeds": (testing.a_seed_is_a_run_of_its_own, lambda: walk(draw=from_numpy), "params"),
    "one key for two draws": (
        testing.no_key_is_used_twice,
        lambda: walk(draw=same_draw_twice),
        "step uses a key twice",
    ),
    "a key that is kept": (
        testing.no_key_is_used_twice,
        lambda: walk(lambda state, m: (state, m | {"noise": jax.random.normal(state.key)})),
        "step keeps a key that it has used",
    ),
    "iterations that are not counted": (
        testing.one_trace_and_no_transfer,
        lambda: changed(iteration=lambda state: state.iteration + 1),
        r"after 6 iterations, iteration is \[12, 12\]",
    ),
    "a state outside of the state": (
        testing.chunks_and_resuming_change_nothing,
        lambda: walk(draw=counting()),
        "params",
    ),
    "NaN": (
        testing.everything_is_finite,
        lambda: changed(params=lambda state: state.params / jnp.where(state.iteration > 1, 0.0, 1.0)),
        "not finite in the first 2 iterations: params",
    ),
    "the same draws again": (
        testing.iterations_draw_anew,
        lambda: changed(world=lambda state: jax.random.split(state.key, 8)),
        "worlds, or iterations of one, begin with the same key",
    ),
    "no worlds": (
        testing.devices_agree,
        lambda: walk(init=lambda key: walk().init(key).replace(world=()), step=lambda state: (state, {})),
        "there is no world that devices could share",
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_what_breaks_a_promise_is_told(fault):
    check, spoilt, message = SPOILT[fault]
    with pytest.raises(AssertionError, match=message):
        check(spoilt())


# Actions


def acting(act, discrete=True):
    """Actions of an agent on a line, checked."""
    env = Line(discrete=discrete)
    agent = Agent(
        init=lambda key: (), start=lambda params, key: (), act=lambda p, c, inp, key, greedy: (act(key), c, ())
    )
    testing.actions_are_of_their_space(walk(agent=agent), env, single(env.default_params))


def test_actions_are_of_their_space():
    acting(lambda key: jax.random.randint(key, (), 0, 2))
    acting(lambda key: 5 * jax.random.normal(key, (1,)), discrete=False)  # clipped by the engine
    with pytest.raises(AssertionError, match=r"gives actions outside of Discrete\(2"):
        acting(lambda key: jnp.int32(2))
    with pytest.raises(AssertionError, match="gives actions that are not finite"):
        acting(lambda key: jnp.full(1, jnp.nan), discrete=False)
