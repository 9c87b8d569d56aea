"""Recurrent networks behind one interface: an agent's memory from step to step.

- `gru`: Cho et al. (2014), with the reset gate on the recurrent product, h' = (1 − u) h + u c. `gru-relu` has an
  unbounded candidate c, as in RL².
- `lstm`: Hochreiter & Schmidhuber (1997) with forget gates, whose bias starts at one.
- `linear`: layers of a diagonal linear recurrence h_t = a_t h_{t−1} + √(1 − a_t²) v_t, whose decay a_t and input v_t
  depend only on the layer's input, as in the RG-LRU of De et al. (Griffin, 2024). All steps can be computed in parallel
  by `jax.lax.associative_scan`.
- `none`: no memory, one layer of ReLU, for comparison.

Back-propagation stores the activations of every step. With `remat_steps` a network unrolls in checkpointed segments of
that many steps: only the carries between segments are stored, and the backward pass recomputes one segment at a time.
The gradients are the same.

Axes in shapes: T steps, B environments, F inputs, H outputs.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_hier.checks import UsageError, unknown
from jaxrl_hier.learning.networks import ACTIVATIONS, MLP, GridEncoder

Params = Any
Carry = Any

xavier = jax.nn.initializers.xavier_uniform()


class Memory(NamedTuple):
    """A recurrent network as pure functions."""

    init: Callable[[jax.Array, int], Params]  # key, F -> params
    start: Callable[[], Carry]  # initial carry of one environment
    # params, carry, x [..., F] -> carry, y [..., H]
    step: Callable[[Params, Carry, jax.Array], tuple[Carry, jax.Array]]
    # params, carry [B], x [T, B, F], first [T, B] bool -> carry after the last step [B], y [T, B, H]. Where `first`
    # holds, the carry is reset to that of `start`
    unroll: Callable[[Params, Carry, jax.Array, jax.Array], tuple[Carry, jax.Array]]


def gru(size: int, remat_steps: int = 0, activation: str = "tanh") -> Memory:
    """A GRU with H = `size` and carry h [H]; `activation` is that of the candidate."""
    act = ACTIVATIONS[activation]

    def cell(U: jax.Array, h: jax.Array, z: jax.Array) -> tuple[Carry, jax.Array]:
        z_r, z_u, z_c = jnp.split(z, 3, axis=-1)
        h_r, h_u, h_c = jnp.split(h @ U, 3, axis=-1)
        u = jax.nn.sigmoid(z_u + h_u)
        h = (1 - u) * h + u * act(z_c + jax.nn.sigmoid(z_r + h_r) * h_c)
        return h, h

    return _recurrent(cell, lambda: jnp.zeros(size), jnp.zeros(3 * size), size, remat_steps)


def lstm(size: int, remat_steps: int = 0) -> Memory:
    """An LSTM with H = `size` and carry (c, h), [H] each."""

    def cell(U: jax.Array, carry: Carry, z: jax.Array) -> tuple[Carry, jax.Array]:
        c, h = carry
        i, f, g, o = jnp.split(z + h @ U, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h

    bias = jnp.zeros((4, size)).at[1].set(1.0).ravel()
    return _recurrent(cell, lambda: (jnp.zeros(size), jnp.zeros(size)), bias, size, remat_steps)


@jax.custom_batching.sequential_vmap
def _orthogonal(like: jax.Array, key: jax.Array) -> jax.Array:
    """A random orthogonal matrix [size, size] of the shape and dtype of `like`.

    Vmapped over seeds, the matrices are made one after the other: jaxlib's batched QR decomposition waits, in a thread
    of XLA's pool, for work that it gives to that pool. Two of them side by side, of an actor's and a critic's memory,
    wait for ever on two cores (jaxlib 0.10.2).
    """
    return jax.nn.initializers.orthogonal()(key, like.shape, like.dtype)


def _recurrent(
    cell: Callable[[jax.Array, Carry, jax.Array], tuple[Carry, jax.Array]],
    start: Callable[[], Carry],
    bias: jax.Array,
    size: int,
    remat_steps: int,
) -> Memory:
    """A network of gated `cell`s: recurrent weights, carry, projected input -> carry, output."""
    gates = len(bias) // size

    def init(key: jax.Array, features: int) -> Params:
        key, *keys = jax.random.split(key, gates + 1)
        U = jnp.concatenate([_orthogonal(jnp.zeros((size, size)), k) for k in keys], axis=1)
        return {"W": xavier(key, (features, gates * size)), "b": bias, "U": U}

    def step(params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        return cell(params["U"], carry, x @ params["W"] + params["b"])

    def unroll(params: Params, carry: Carry, x: jax.Array, first: jax.Array) -> tuple[Carry, jax.Array]:
        def one(carry: Carry, row: tuple[jax.Array, jax.Array]) -> tuple[Carry, jax.Array]:
            x, first = row
            return step(params, jax.tree.map(partial(_reset, first), carry), x)

        # The input projection is inside the scan: one product for all steps, [T, B, gates H], does not fit into a CPU's
        # cache, and makes the unroll 1.2 to 3 times as slow. Not measured on a GPU
        return scan_in_segments(partial(jax.lax.scan, one), carry, (x, first), remat_steps)

    return Memory(init, start, step, unroll)


def linear(size: int, remat_steps: int = 0, layers: int = 2) -> Memory:
    """Layers of linear recurrences with H = `size` and carry h [layers, H].

    Each recurrence is followed by a ReLU layer with a residual connection around both.
    """

    def init(key: jax.Array, features: int) -> Params:
        key, *keys = jax.random.split(key, layers + 1)
        return {"embed": xavier(key, (features, size)), "layers": [layer_params(k) for k in keys]}

    def layer_params(key: jax.Array) -> Params:
        keys = jax.random.split(key, 5)
        # decays with half-lives from one to a thousand steps
        horizon = jnp.exp(jax.random.uniform(keys[0], (size,), maxval=jnp.log(1000.0)))
        decay = 0.5 ** (1 / horizon)
        return {
            "decay": 0.1 * xavier(keys[1], (size, size)),
            "decay_bias": jnp.log(decay / (1 - decay)),
            "value": xavier(keys[2], (size, size)),
            "up": xavier(keys[3], (2 * size, size)),
            "up_bias": jnp.zeros(size),
            "down": xavier(keys[4], (size, size)),
        }

    def terms(p: Params, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """a_t and √(1 − a_t²) v_t."""
        g = y @ p["decay"] + p["decay_bias"]
        a = jax.nn.sigmoid(g)
        scale = jnp.exp(0.5 * jax.nn.log_sigmoid(-g)) * jnp.sqrt(1 + a)  # √(1 − a) √(1 + a), smooth up to a = 1
        return a, scale * (y @ p["value"])

    def out(p: Params, y: jax.Array, h: jax.Array) -> jax.Array:
        return y + jax.nn.relu(jnp.concatenate([y, h], axis=-1) @ p["up"] + p["up_bias"]) @ p["down"]

    def step(params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        y, after = x @ params["embed"], []
        for i, p in enumerate(params["layers"]):
            a, b = terms(p, y)
            after.append(a * carry[..., i, :] + b)
            y = out(p, y, after[i])
        return jnp.stack(after, axis=-2), y

    def unroll(params: Params, carry: Carry, x: jax.Array, first: jax.Array) -> tuple[Carry, jax.Array]:
        def run(carry: Carry, rows: tuple[jax.Array, jax.Array]) -> tuple[Carry, jax.Array]:
            x, first = rows
            y, after = x @ params["embed"], []
            for i, p in enumerate(params["layers"]):
                a, b = terms(p, y)
                h = recurrence(_reset(first, a), b, carry[:, i])
                after.append(h[-1])
                y = out(p, y, h)
            return jnp.stack(after, axis=1), y

        return scan_in_segments(run, carry, (x, first), remat_steps)

    return Memory(init, lambda: jnp.zeros((layers, size)), step, unroll)


def none(size: int, remat_steps: int = 0) -> Memory:
    """A layer of ReLU with H = `size`, without a carry."""

    def init(key: jax.Array, features: int) -> Params:
        return {"W": xavier(key, (features, size)), "b": jnp.zeros(size)}

    def step(params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        return carry, jax.nn.relu(x @ params["W"] + params["b"])

    return Memory(init, lambda: (), step, lambda params, carry, x, first: step(params, carry, x))


MEMORIES: dict[str, Callable[..., Memory]] = {
    "gru": gru,
    "gru-relu": partial(gru, activation="relu"),
    "lstm": lstm,
    "linear": linear,
    "none": none,
}


def memory(name: str, size: int, remat_steps: int = 0) -> Memory:
    """The recurrent network called `name` with H = `size`; with `remat_steps` = 0 nothing is recomputed.

    Raises:
        UsageError: an unknown name, a size that is not positive, or negative `remat_steps`.
    """
    if name not in MEMORIES:
        raise unknown("memory", name, MEMORIES)
    if size < 1 or remat_steps < 0:
        raise UsageError(f"a memory needs a positive size and remat_steps of at least 0, got {size} and {remat_steps}")
    return MEMORIES[name](size, remat_steps)


def with_mlp(sizes: Sequence[int], memory: Memory) -> Memory:
    """`memory` behind an MLP with ReLU layers of these sizes; `memory` itself without sizes."""
    if not sizes:
        return memory
    encoder = MLP(tuple(sizes))

    def init(key: jax.Array, features: int) -> Params:
        key_encoder, key_memory = jax.random.split(key)
        return encoder.init(key_encoder, jnp.zeros(features)), memory.init(key_memory, sizes[-1])

    def encode(params: Params, x: jax.Array) -> jax.Array:
        y: Any = encoder.apply(params, x)
        return jax.nn.relu(y)

    def step(params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        return memory.step(params[1], carry, encode(params[0], x))

    def unroll(params: Params, carry: Carry, x: jax.Array, first: jax.Array) -> tuple[Carry, jax.Array]:
        return memory.unroll(params[1], carry, encode(params[0], x), first)

    return Memory(init, memory.start, step, unroll)


def with_cnn(shape: tuple[int, int, int], channels: Sequence[int], memory: Memory) -> Memory:
    """`memory` behind a convolutional network.

    Each input [F] begins with a flattened image of this shape (height, width, channels), which the convolutions encode;
    the remaining features go to `memory` unchanged.
    """
    encoder, numbers = GridEncoder(tuple(channels)), math.prod(shape)

    def init(key: jax.Array, features: int) -> Params:
        key_encoder, key_memory = jax.random.split(key)
        seen, params = encoder.init_with_output(key_encoder, jnp.zeros(shape))
        return params, memory.init(key_memory, seen.size + features - numbers)

    def encode(params: Params, x: jax.Array) -> jax.Array:
        seen: Any = encoder.apply(params, x[..., :numbers].reshape(*x.shape[:-1], *shape))
        return jnp.concatenate([seen, x[..., numbers:]], axis=-1)

    def step(params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        return memory.step(params[1], carry, encode(params[0], x))

    def unroll(params: Params, carry: Carry, x: jax.Array, first: jax.Array) -> tuple[Carry, jax.Array]:
        return memory.unroll(params[1], carry, encode(params[0], x), first)

    return Memory(init, memory.start, step, unroll)


def recurrence(a: jax.Array, b: jax.Array, before: jax.Array, parallel: bool | None = None) -> jax.Array:
    """The linear recurrence h_t = a_t h_{t−1} + b_t along axis 0.

    Args:
        a, b: [T, ...].
        before: [...], h_{−1}.
        parallel: use an associative scan of depth log T instead of T sequential steps. Default: not on a CPU, where the
            sequential gradient through 100 steps is 1.3 times as fast and compiles in a quarter of the time.

    Returns:
        h [T, ...].
    """
    if parallel is None:
        parallel = jax.default_backend() != "cpu"
    if not parallel:

        def one(h: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            h = row[0] * h + row[1]
            return h, h

        return jax.lax.scan(one, before, (a, b))[1]

    def after(early: tuple[jax.Array, jax.Array], late: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return early[0] * late[0], late[0] * early[1] + late[1]

    return jax.lax.associative_scan(after, (a, b.at[0].add(a[0] * before)))[1]


def scan_in_segments(
    run: Callable[[Carry, Any], tuple[Carry, Any]], carry: Carry, rows: Any, remat_steps: int
) -> tuple[Carry, Any]:
    """`run(carry, rows)` over rows [T, ...] in segments that the backward pass recomputes.

    Args:
        remat_steps: rows per segment, a divisor of T; 0: one segment, without recomputation.
    """
    length = jax.tree.leaves(rows)[0].shape[0]
    if not remat_steps or remat_steps >= length:
        return run(carry, rows)
    if length % remat_steps:
        raise UsageError(f"the steps of an unroll ({length}) must be a multiple of remat_steps ({remat_steps})")
    segments = jax.tree.map(lambda x: x.reshape(length // remat_steps, remat_steps, *x.shape[1:]), rows)
    carry, out = jax.lax.scan(jax.checkpoint(run, prevent_cse=False), carry, segments)
    return carry, jax.tree.map(lambda x: x.reshape(length, *x.shape[2:]), out)


def _reset(first: jax.Array, x: jax.Array) -> jax.Array:
    """`x` [..., H], or zero where `first` [...] holds."""
    return jnp.where(first[..., None], 0.0, x)
