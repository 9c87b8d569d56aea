"""The compiled programs of a run: initial states of all seeds, chunks of iterations, and evaluations.

Every function here takes or returns states with leading axis [seeds].
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine import contract
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.numerics import with_own_numerics
from jaxrl_hier.engine.room import compiled, out_of_memory
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.sharding import by_seed
from jaxrl_hier.engine.types import Algorithm, Average, NamedArray, TrainState


@with_own_numerics
def init_seeds(algorithm: Algorithm, run: RunConfig) -> TrainState:
    """The initial states of all seeds, [seeds, ...]; seed i is `algorithm.init(key(seed + i))`, compiled."""
    return initial(algorithm, run)[1]()


def initial(algorithm: Algorithm, run: RunConfig, starts: Any = None) -> tuple[Any, Callable[..., TrainState]]:
    """The shapes of the initial states of all seeds, and a function that makes them; the program is traced once.

    The function takes the layout of the states over devices (`sharding.layout`), in which they are made; None: on one.

    Args:
        starts: what `algorithm.init` takes, [seeds, ...]; None: the keys of the seeds.
    """
    traced = isinstance(jnp.zeros(()), jax.core.Tracer)  # such as in `jax.eval_shape` of this
    init = lambda keys: jax.tree.map(_strong, jax.vmap(contract.of_init(algorithm.init))(keys))
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.jit(init).eval_shape(jax.ShapeDtypeStruct((run.seeds,), key.dtype) if starts is None else starts)

    def make(spread: Any = None) -> TrainState:
        given = seed_keys(run) if starts is None else starts
        if traced:
            return jax.jit(init)(given)
        made = compiled(jit(init, out_shardings=spread), "state", given)
        with out_of_memory("state"):
            return jax.block_until_ready(made(given))

    return shapes, make


def begun_with(algorithm: Algorithm, run: RunConfig, params: Any = None) -> tuple[Algorithm, Any]:
    """The algorithm of a run, and the `starts` of `initial` for it.

    Args:
        params: parameters to begin with, [seeds, ...]; None: new ones.
    """
    if params is None:
        return algorithm, None
    try:
        inspect.signature(algorithm.init).bind(None, None)
    except TypeError:
        how = "whose init takes parameters after the key: init(key, params=None)"
        raise UsageError(f"initial needs an algorithm {how}") from None
    return algorithm._replace(init=lambda start: algorithm.init(*start)), (seed_keys(run), params)


def seed_keys(run: RunConfig) -> jax.Array:
    """The key of each seed, [seeds]: `jax.random.key`, into which the upper half of a seed beyond 32 bits is folded."""
    seeds = [run.seed + i for i in range(run.seeds)]
    lower, upper = (np.array(x, np.uint32) for x in ([s % 2**32 for s in seeds], [s >> 32 for s in seeds]))
    keys = jax.vmap(jax.random.key)(lower)
    return jnp.where(upper > 0, jax.vmap(jax.random.fold_in)(keys, upper), keys) if upper.any() else keys


def _strong(x: jax.Array) -> jax.Array:
    """`x` without weak type: a weakly typed leaf would make the second call of a compiled chunk recompile."""
    return x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(x, x.dtype)


def make_chunk(
    algorithm: Algorithm, length: int, *, skip: bool = False
) -> Callable[[TrainState], tuple[TrainState, Any, Any]]:
    """`length` iterations of all seeds as one function, to be jitted with its state donated.

    Args:
        skip: leave out updates that are not finite, see `finite_update`.

    Returns:
        A function, state -> (state, metrics, bad). `metrics` has an Average over the chunk for each metric, [seeds].
        `bad` has, for each metric, the position in the chunk of its first value that is not finite, or `length` when
        there is none, [seeds] int32; and "params", which are checked after the last iteration. Memory does not grow
        with `length`.
    """

    @partial(jax.jit, inline=True)  # traced once, for its shapes and for the loop
    def step(before: TrainState) -> tuple[TrainState, dict[str, Average]]:
        state, metrics = over_seeds(contract.of_step(algorithm.step))(before)
        averages = jax.tree.map(lambda x: x.astype(jnp.float32), metrics)
        return finite_update(before, state, averages) if skip else (state, averages)

    @with_own_numerics
    def chunk(state: TrainState) -> tuple[TrainState, Any, Any]:
        shapes = jax.eval_shape(step, state)[1]
        zeros = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)
        bad = {name: jnp.full(m.total.shape, length, jnp.int32) for name, m in shapes.items()}

        def iterate(i: jax.Array, carry: Any) -> Any:
            state, sums, bad = carry
            state, metrics = step(state)
            sums = jax.tree.map(jnp.add, sums, metrics)
            bad = {k: jnp.where(jnp.isfinite(metrics[k].total), b, jnp.minimum(b, i)) for k, b in bad.items()}
            return state, sums, bad

        def block(i: jax.Array, carry: Any) -> Any:
            state, sums, bad = carry
            ends = i * BLOCK, jnp.minimum((i + 1) * BLOCK, length)
            state, new, bad = jax.lax.fori_loop(*ends, iterate, (state, zeros, bad))
            return state, jax.tree.map(jnp.add, sums, new), bad

        if isinstance(length, int) and length <= BLOCK:
            state, sums, bad = jax.lax.fori_loop(0, length, iterate, (state, zeros, bad))
        else:
            state, sums, bad = jax.lax.fori_loop(0, -(-length // BLOCK), block, (state, zeros, bad))
        finite = finite_per_seed(state.params, len(state.iteration))
        return state, sums, bad | {"params": jnp.where(finite, length, length - 1)}

    return chunk


# iterations whose metrics are summed up first: one sum of millions of float32 drifts by percents, a count stops at 2²⁴
BLOCK = 4096

LEFT_OUT = "left_out"  # the share of updates that were left out, a metric


def finite_update(
    before: TrainState, after: TrainState, metrics: dict[str, Average]
) -> tuple[TrainState, dict[str, Average]]:
    """One iteration of all seeds, without its update where a metric or parameter of the seed is not finite.

    There, parameters and learner stay as they were before; environments, memory and the number of the iteration go on.
    The metrics then have no weight, except `LEFT_OUT`.
    """
    finite = finite_per_seed(after.params, len(after.iteration))
    for metric in metrics.values():
        finite &= jnp.isfinite(metric.total)
    where = lambda new, old: jnp.where(finite.reshape(-1, *[1] * (new.ndim - 1)), new, old)
    counted = lambda m: Average(jnp.where(finite, m.total, 0), jnp.where(finite, m.count, 0))
    params, learner = jax.tree.map(where, (after.params, after.learner), (before.params, before.learner))
    left_out = Average(1 - finite.astype(jnp.float32), jnp.ones_like(finite, jnp.float32))
    kept = {name: counted(m) for name, m in metrics.items()} | {LEFT_OUT: left_out}
    return replace(after, params=params, learner=learner), kept


def over_seeds(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` of one seed's states, for states [seeds, ...].

    A single seed is not vmapped: under `vmap`, `lax.cond` would compute both of its branches, and with them every reset
    that `jaxrl_envs.resetting` leaves out.
    """

    def of_all(*states: Any) -> Any:
        if jax.tree.leaves(states)[0].shape[0] > 1:
            return jax.vmap(f)(*states)
        return jax.tree.map(lambda x: x[None], f(*jax.tree.map(lambda x: x[0], states)))

    return of_all


def finite_per_seed(tree: Any, seeds: int) -> jax.Array:
    """Whether all real numbers in a tree of arrays [seeds, ...], if there are any, are finite, [seeds] bool."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    finite = [jnp.all(jnp.isfinite(x), axis=range(1, x.ndim)) for x in floats]
    return reduce(jnp.logical_and, finite, jnp.ones(seeds, bool))


def measurements(algorithm: Algorithm, states: TrainState) -> tuple[dict[str, Any], list[str]]:
    """What an algorithm measures in such states, shapes with leading axis [seeds]; nothing is compiled.

    Returns:
        The measurements of an evaluation of one seed, with shapes for values, and the names of the metrics of a row.
    """
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), states)
    key = jax.eval_shape(lambda: jax.random.key(0))
    evaluated = jax.eval_shape(contract.of_evaluate(algorithm.evaluate), one, key)
    return evaluated, list(jax.eval_shape(contract.of_step(algorithm.step), one)[1])


def evaluation_key(state: TrainState) -> jax.Array:
    """The key [] of an evaluation of one seed's state, which no iteration uses: theirs is that of `iteration` alone."""
    return jax.random.fold_in(jax.random.fold_in(state.key, state.iteration), np.uint32(2**32 - 1))


class Evaluation:
    """`algorithm.evaluate` of every seed, compiled once: state -> measurements, axes ("seed", …). The key follows from
    the state alone."""

    def __init__(self, algorithm: Algorithm):
        self._one = contract.of_evaluate(lambda state: algorithm.evaluate(state, evaluation_key(state)))
        # by the shapes of a state and where its arrays are
        self._programs: dict[Any, Any] = {}
        self._compiled: dict[Any, Any] = {}

    @with_own_numerics
    def trace(self, state: TrainState) -> None:
        """Trace it for such a state, which the first evaluation then need not do: mistakes in it show up here."""
        if not getattr(jax.config, "jax_disable_jit"):  # noqa: B009 - no part of its type
            self._program(state)[1].eval_shape(state)

    @with_own_numerics
    def __call__(self, state: TrainState) -> dict[str, NamedArray]:
        kind, program = self._program(state)
        if kind not in self._compiled:
            self._compiled[kind] = compiled(program, "evaluation", state)
        with out_of_memory("evaluation"):
            measured = jax.device_get(self._compiled[kind](state))
        return {name: NamedArray(m.values, ("seed", *m.axes)) for name, m in measured.items()}

    def _program(self, state: TrainState) -> tuple[Any, Any]:
        kind = tuple((x.shape, x.dtype, getattr(x, "sharding", None)) for x in jax.tree.leaves(state))
        if kind not in self._programs:  # every process gets the measurements
            self._programs[kind] = jit(by_seed(jax.vmap(self._one), state), out_shardings=state.iteration.sharding)
        return kind, self._programs[kind]
