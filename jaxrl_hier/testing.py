"""Checks of what the engine guarantees for every algorithm, for the tests of your own algorithms.

    import pytest
    from jaxrl_hier import testing

    algorithm = mine.make(mine.Config(environments=8), env, tasks)  # at small sizes

    @pytest.mark.parametrize("check", testing.INVARIANTS, ids=testing.name_of)
    def test_invariants(check):
        check(algorithm)

    def test_actions():
        testing.actions_are_of_their_space(algorithm, env, tasks)

A check returns None or raises an AssertionError that says what failed. Programs are compiled without optimisation and
shared between the checks of one algorithm. To check several devices on a CPU, set
XLA_FLAGS=--xla_force_host_platform_device_count=8 before JAX is imported.
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.contract import is_key
from jaxrl_envs.tasks import Tasks
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.chunk import init_seeds, make_chunk
from jaxrl_hier.engine.loops import begin_worlds
from jaxrl_hier.engine.rollout import rollout
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.sharding import device_mesh, layout, sharing
from jaxrl_hier.engine.types import Algorithm, NamedArray, TrainState, World

# Comparisons


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-5, *, scale: float | None = None) -> None:
    """Arrays, or pytrees of arrays, agree: no entry is off by more than `tolerance` times the largest magnitude that is
    expected in its array, or times `scale`.

    Programs compiled for another processor, for more devices or in other pieces sum in another order, with an error
    relative to the terms. A small difference of large terms may be wrong in its first digit, so errors are measured
    against the whole array. Infinities, NaN and everything but floating-point numbers must be equal.
    """
    if isinstance(actual, (np.ndarray, jax.Array)) and isinstance(expected, (list, tuple)):
        expected = np.asarray(expected)
    leaves, structure = _flat(expected)
    for (path, wanted), found in zip(leaves, structure.flatten_up_to(actual), strict=True):
        compare(found, wanted, tolerance, scale, jax.tree_util.keystr(path))


def compare(found: Any, wanted: Any, tolerance: float, scale: float | None, name: str) -> None:
    """`assert_close` for one array."""
    found, wanted = _numbers(found), _numbers(wanted)
    _hold(wanted.shape in (found.shape, ()), f"{name} has the shape {found.shape} and not {wanted.shape}")
    if not any(np.issubdtype(x.dtype, np.floating) for x in (found, wanted)):
        np.testing.assert_array_equal(found, wanted, err_msg=name)
        return
    found, wanted = found.astype(np.float64), np.broadcast_to(wanted, found.shape).astype(np.float64)
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(found[~finite], wanted[~finite], err_msg=name)
    error = np.abs(found[finite] - wanted[finite])
    if not error.size:
        return
    size = np.abs(wanted[finite]).max() if scale is None else scale
    worst = error.argmax()
    entry, value, right = np.argwhere(finite)[worst].tolist(), found[finite][worst], wanted[finite][worst]
    _hold(
        error[worst] <= tolerance * size,
        f"{name}{entry} is {value:.9g} and not {right:.9g}: {error[worst]:.2g} off, where {tolerance:.2g} of "
        f"{size:.4g} is allowed",
    )


def assert_equal(actual: Any, expected: Any) -> None:
    """Two pytrees of arrays agree bit for bit, typed keys included."""
    leaves, structure = _flat(expected)
    for (path, wanted), found in zip(leaves, structure.flatten_up_to(actual), strict=True):
        np.testing.assert_array_equal(_numbers(found), _numbers(wanted), err_msg=jax.tree_util.keystr(path))


def assert_split(state: TrainState, devices: int) -> None:
    """Each device holds its part of world and memory [seeds, B, ...] along B, and a full copy of everything else."""
    for path, x in jax.tree.leaves_with_path(state):
        name = jax.tree_util.keystr(path)
        axis = 1 if name.startswith((".world", ".memory")) else None
        expected = tuple(size // devices if i == axis else size for i, size in enumerate(x.shape))
        found = {shard.data.shape for shard in x.addressable_shards}
        _hold(found == {expected}, f"{name}: the devices hold {found} of it and not {expected}")
        holders = len({shard.device for shard in x.addressable_shards})
        _hold(holders == devices, f"{name} is on {holders} of {devices} devices")


def _flat(tree: Any) -> tuple[list[tuple[Any, Any]], Any]:
    """Leaves with their paths, and the structure."""
    return jax.tree_util.tree_flatten_with_path(tree)


def _numbers(x: Any) -> np.ndarray:
    """As a NumPy array; a key as its words."""
    return np.asarray(jax.random.key_data(x) if is_key(x) else x)


def _hold(condition: Any, message: str) -> None:
    """`assert` that also works under python -O, with a message that needs no pytest."""
    if not condition:
        raise AssertionError(message)


def quick_jit(f: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit` that compiles in half the time but runs several times slower, for programs that run a few times."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0}, **options)


# The run that the checks share


class TwoSeeds(NamedTuple):
    """Seeds 5 and 6 in one program."""

    begun: TrainState  # before the first iteration; never donated, so that the checks can share it
    chunk: Callable[[TrainState, int], tuple[TrainState, Any, Any]]  # (state, ONE or TWO), as of `make_chunk`
    traces: list[int]  # one entry for each time that `step` was traced


ONE, TWO = 1, 2  # lengths of chunks


@lru_cache(maxsize=1)
def two_seeds(algorithm: Algorithm) -> TwoSeeds:
    """Two seeds of an algorithm, as `train` runs them, in chunks of any length."""
    traces: list[int] = []

    def step(state: TrainState) -> Any:
        traces.append(1)
        return algorithm.step(state)

    counted = algorithm._replace(step=step)
    compiled = quick_jit(lambda state, length: make_chunk(counted, length)(state))
    lengths = {length: jnp.int32(length) for length in (ONE, TWO)}  # on the device before transfers are forbidden
    begun = init_seeds(algorithm, RunConfig(seeds=2, seed=5))
    # placed as `train` places it, and as a restored state is, so that one program serves both
    begun = jax.device_put(begun, layout(begun, device_mesh(1)))
    return TwoSeeds(begun, lambda state, n: compiled(state, lengths[n]), traces)


# Invariants, each of an algorithm


def the_state_keeps_its_types(algorithm: Algorithm) -> None:
    """A step keeps the state's structure, shapes and dtypes, without weak types; metrics are scalars, "return" among
    them; measurements of `evaluate` name each axis."""
    key = jax.random.key(0)
    state = jax.eval_shape(lambda key: jax.tree.map(_strong, algorithm.init(key)), key)
    after, metrics = jax.eval_shape(algorithm.step, state)
    before, now = _flat(state), _flat(after)
    _hold(before[1] == now[1], f"a step changes the state's structure, from {before[1]} to {now[1]}")
    for (path, x), (_, y) in zip(before[0], now[0]):
        name = jax.tree_util.keystr(path)
        types = [f"{z.dtype}{list(z.shape)}{', weakly typed' * bool(z.weak_type)}" for z in (x, y)]
        _hold(types[0] == types[1], f"a step changes {name} from {types[0]} to {types[1]}")
    for name, metric in metrics.items():
        shapes = {m.shape for m in jax.tree.leaves(metric)}
        _hold(shapes == {()}, f"the metric {name} must be a scalar or an Average of scalars, it has shapes {shapes}")
    _hold("return" in metrics, f"a step must measure return, it measures {', '.join(metrics)}")
    for name, m in jax.eval_shape(algorithm.evaluate, state, key).items():
        _hold(isinstance(m, NamedArray), f"evaluate must give NamedArrays, {name} is {type(m).__name__}")
        _hold(len(m.axes) == m.values.ndim, f"{name} of evaluate has axes {m.axes} and the shape {m.values.shape}")


def _strong(x: Any) -> Any:
    return x if is_key(x) else jax.lax.convert_element_type(x, x.dtype)


def functions_are_pure(algorithm: Algorithm) -> None:
    """`init`, `step` and `evaluate` trace to the same programs a second time: they use no NumPy random numbers, no
    clock and nothing that an earlier call left behind."""
    state, key = jax.eval_shape(algorithm.init, jax.random.key(0)), jax.random.key(0)
    for name, inputs in (("init", (key,)), ("step", (state,)), ("evaluate", (state, key))):
        first, second = (_program(getattr(algorithm, name), inputs) for _ in range(2))
        _hold(first[0] == second[0], f"{name}, traced twice, is two different programs")
        assert_equal(second[1], first[1])


def _program(f: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[str, list[Any]]:
    """The jaxpr of `f` as text without addresses, and its constants."""
    uncached = lambda *x: f(*x)
    closed = jax.make_jaxpr(uncached)(*inputs)
    return re.sub(r"0x[0-9a-f]+", "", str(closed)), list(closed.consts)


def no_key_is_used_twice(algorithm: Algorithm, parts: Sequence[str] = ("init", "step", "evaluate")) -> None:
    """JAX's key-reuse check, made stricter: reading a key's words is a use, and a state must not keep a key that its
    step has used, or every iteration would draw the same numbers.

    It needs a module of `jax.experimental`, and checks nothing in versions of JAX without it.
    """
    try:
        from jax.experimental.key_reuse import _core as reuse
    except ImportError:
        return
    state, key = jax.eval_shape(algorithm.init, jax.random.key(0)), jax.random.key(0)
    inputs = {"init": (key,), "step": (state,), "evaluate": (state, key)}
    with _every_use_counts(reuse):
        for part in parts:
            uncached = lambda *x, part=part: getattr(algorithm, part)(*x)
            program = jax.make_jaxpr(uncached)(*inputs[part])
            try:
                signature = reuse.jaxpr_type_signature(program.jaxpr)
            except jax.errors.KeyReuseError as error:
                raise AssertionError(f"{part} uses a key twice: {error}") from error
            kept = {s.idx for s in signature.sinks} & {f.in_idx for f in signature.forwards}
            _hold(not kept, f"{part} keeps a key that it has used")


@contextmanager
def _every_use_counts(reuse: Any) -> Iterator[None]:
    """JAX's key-reuse rules, made stricter."""
    primitive = {p.name: p for p in reuse.key_reuse_signatures}
    primitive |= {"select_n": jax.lax.select_n_p, "transpose": jax.lax.transpose_p}
    effects = {
        "random_unwrap": reuse.Sink(0),
        "select_n": reuse.Forward(1, 0),  # continuing and restarting worlds share their key
        "transpose": reuse.Forward(0, 0),
        "dynamic_slice": reuse.Source(0),  # one of several keys, not all of them
    }
    stricter = {primitive[name]: reuse.KeyReuseSignature(effect) for name, effect in effects.items()}
    # uses a key twice by design, for independent draws
    another = mock.patch("jaxrl_envs.random_bits.another_key", lambda key: jax.random.fold_in(key, 0))
    # reads the words of a key that stays, and folds in what tells iterations apart
    folded = mock.patch("jaxrl_envs.random_bits.fold_in", jax.random.fold_in)
    with mock.patch.dict(reuse.key_reuse_signatures, stricter), another, folded:
        yield


def a_seed_is_a_run_of_its_own(algorithm: Algorithm) -> None:
    """Seed i of a vmapped run equals the single run of that seed."""
    begun, chunk, _ = two_seeds(algorithm)
    together = chunk(begun, TWO)[0]
    alone = quick_jit(algorithm.init)(jax.random.key(6))
    step = quick_jit(algorithm.step)
    for _ in range(TWO):
        alone, _ = step(alone)
    second = jax.tree.map(lambda x: x[1], together)
    # another program may round continuous actions, and the states after them, differently in the last bits
    assert_close({"world": second.world}, {"world": alone.world})
    assert_close({"params": second.params}, {"params": alone.params}, 1e-4)


def one_trace_and_no_transfer(algorithm: Algorithm) -> None:
    """A second chunk compiles nothing, and nothing crosses to the host inside one."""
    state, chunk, traces = two_seeds(algorithm)
    state = chunk(state, TWO)[0]
    count = len(traces)
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state = chunk(state, TWO)[0]
        jax.block_until_ready(state)
    _hold(len(traces) == count, "step is traced again in a later chunk: does the state change its types?")
    _hold(state.iteration.tolist() == [6, 6], f"after 6 iterations, iteration is {state.iteration.tolist()}")


def chunks_and_resuming_change_nothing(algorithm: Algorithm) -> None:
    """A chunk of two iterations equals one iteration, a checkpoint on disk and another iteration, bit for bit, and
    repeats itself."""
    begun, chunk, _ = two_seeds(algorithm)
    before = jax.tree.map(_numbers, begun)
    together = chunk(begun, TWO)[0]
    halfway = chunk(begun, ONE)[0]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), halfway, ONE)
        resumed = checkpoint.restore(Path(folder), begun)
    assert_equal(resumed, halfway)
    assert_equal(chunk(resumed, ONE)[0], together)
    assert_equal(chunk(begun, TWO)[0], together)
    assert_equal(begun, before)


def everything_is_finite(algorithm: Algorithm) -> None:
    """Metrics and parameters of the first iterations are finite."""
    begun, chunk, _ = two_seeds(algorithm)
    bad = chunk(begun, TWO)[2]
    infinite = sorted(name for name, position in bad.items() if (np.asarray(position) < TWO).any())
    _hold(not infinite, f"not finite in the first {TWO} iterations: {', '.join(infinite)}")


def iterations_draw_anew(algorithm: Algorithm) -> None:
    """No two worlds, of any seeds and iterations, begin with the same key."""
    state, chunk, _ = two_seeds(algorithm)
    seen = []
    for _ in range(3):
        parts = jax.tree.leaves(state.world, is_leaf=lambda x: isinstance(x, World))
        keys = [part.key if isinstance(part, World) else part for part in parts]
        seen += [words for key in keys if is_key(key) for words in _numbers(key).reshape(-1, 2).tolist()]
        state = chunk(state, ONE)[0]
    _hold(len(set(map(tuple, seen))) == len(seen), "worlds, or iterations of one, begin with the same key")


def devices_agree(algorithm: Algorithm, devices: int | None = None) -> None:
    """Several devices, each with its part of the worlds, compute the same as one.

    Args:
        devices: how many; None: the largest available number that divides the worlds; if that is 1, no check.
    """
    state, chunk, _ = two_seeds(algorithm)
    _hold(jax.tree.leaves(state.world), "there is no world that devices could share")
    if devices is None:
        worlds = jax.tree.leaves(state.world)[0].shape[1]
        devices = max(n for n in range(1, len(jax.devices()) + 1) if worlds % n == 0)
        if devices == 1:
            return
    one = chunk(state, TWO)[0]
    split = jax.device_put(state, layout(state, device_mesh(devices)))
    with sharing(split):
        several = chunk(split, TWO)[0]
    assert_split(split, devices)
    assert_split(several, devices)
    # gradients are summed in another order, which changes the last bits of everything that depends on parameters:
    # recurrent states, continuous actions and the states after them
    assert_close({"world": several.world}, {"world": one.world}, 1e-4)
    assert_close({"params": several.params}, {"params": one.params}, 1e-4)


INVARIANTS: tuple[Callable[[Algorithm], None], ...] = (
    the_state_keeps_its_types,
    functions_are_pure,
    no_key_is_used_twice,
    a_seed_is_a_run_of_its_own,
    one_trace_and_no_transfer,
    chunks_and_resuming_change_nothing,
    everything_is_finite,
    iterations_draw_anew,
    devices_agree,
)


def name_of(check: Callable[..., None]) -> str:
    """The name of a check, as an id for pytest."""
    return check.__name__


# The agent in an environment


def actions_are_of_their_space(
    algorithm: Algorithm, env: Any, tasks: Tasks, *, worlds: int = 4, steps: int = 16
) -> None:
    """Untrained agents, exploring and greedy, give finite actions of the space's shape, within a Discrete space.

    Actions beyond the bounds of a Box are allowed: the engine clips them for the environment, and an unbounded policy
    learns from the actions that it sampled.
    """
    space = env.action_space(env.default_params)

    def play(key: jax.Array, greedy: bool) -> Any:
        key, key_params = jax.random.split(key)
        params = algorithm.agent.init(key_params)
        begun = begin_worlds(env, algorithm.agent, tasks, params, key, worlds)
        return rollout(env, algorithm.agent, tasks, params, begun, steps, greedy)[1].action

    for greedy in (False, True):
        actions = np.asarray(quick_jit(lambda key, greedy=greedy: play(key, greedy))(jax.random.key(0)))
        how = "a greedy agent" if greedy else "an exploring agent"
        _hold(actions.shape[2:] == tuple(space.shape), f"{how} gives actions {actions.shape[2:]}, not {space.shape}")
        _hold(np.isfinite(actions).all(), f"{how} gives actions that are not finite")
        if hasattr(space, "n"):
            _hold(0 <= actions.min() <= actions.max() < space.n, f"{how} gives actions outside of {space}")
