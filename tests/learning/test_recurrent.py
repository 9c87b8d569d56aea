"""Memories: steps, unrolls and unrolls in segments agree, and resets forget the past; each against a slow version."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxrl_hier.checks import UsageError
from jaxrl_hier.learning.recurrent import (
    MEMORIES,
    gru,
    lstm,
    memory,
    recurrence,
    scan_in_segments,
    state_space,
    with_mlp,
)
from tests.close import assert_close
from tests.decomposed import decomposed

T, B, F, H = 12, 3, 4, 5
WINDOW = 7  # earlier steps that attention sees, fewer than an unroll has
REMEMBERING = [name for name in MEMORIES if name not in ("none", "gru-relu")]


@pytest.fixture(scope="module")
def inputs():
    x = jax.random.normal(jax.random.key(0), (T, B, F))
    first = jnp.zeros((T, B), bool).at[0, 0].set(True).at[5, 1].set(True).at[6, 1].set(True).at[11, 2].set(True)
    return x, first


def build(name, chunk=0):
    m = with_mlp((6,), memory("gru", H, chunk)) if name == "encoded" else memory(name, H, chunk, WINDOW)
    return m, m.init(jax.random.key(1), F)


def carry_like(m, params, key):
    """Carries [B] of environments T steps after a random start, and 5 and 2 after the start of an episode."""
    keys = jax.random.split(key)
    random = lambda x: x if jnp.issubdtype(x.dtype, jnp.integer) else jax.random.normal(keys[0], x.shape)
    carry = jax.tree.map(lambda x: jnp.broadcast_to(random(x), (B, *x.shape)), m.start())
    first = jnp.arange(T)[:, None] == T - jnp.array([0, 5, 2])
    return m.unroll(params, carry, jax.random.normal(keys[1], (T, B, F)), first)[0]


def loop(m, params, carry, x, first):
    """Step by step, with the carry of the start where an episode begins."""
    out = []
    for x_t, first_t in zip(x, first):
        begun = jax.tree.map(lambda s, c: jnp.broadcast_to(s, c.shape), m.start(), carry)
        choose = lambda s, c: jnp.where(first_t.reshape(-1, *[1] * (c.ndim - 1)), s, c)  # noqa: B023
        carry, y = m.step(params, jax.tree.map(choose, begun, carry), x_t)
        out.append(y)
    return carry, jnp.stack(out)


@pytest.mark.rounding
@pytest.mark.parametrize("name", [*MEMORIES, "encoded"])
@pytest.mark.parametrize("chunk", [0, 4])
def test_unroll_equals_the_steps(name, chunk, inputs):
    m, params = build(name, chunk)
    carry = carry_like(m, params, jax.random.key(2))
    assert_close(m.unroll(params, carry, *inputs), loop(m, params, carry, *inputs))


def both_ways(name):
    """From a key and first steps: what an unroll gives, and what the steps give, as 64-bit numbers."""

    @jax.jit
    def run(key, first):
        m, params = build(name)
        keys = jax.random.split(key)
        given = params, carry_like(m, params, keys[0]), jax.random.normal(keys[1], (T, B, F)), first
        return m.unroll(*given), loop(m, *given)

    return run


BOTH_WAYS = {name: both_ways(name) for name in REMEMBERING}


@pytest.mark.parametrize("name", BOTH_WAYS)
@settings(max_examples=60, deadline=None)
@given(first=arrays(bool, (T, B)), seed=st.integers(0, 1000))
def test_unroll_equals_the_steps_wherever_episodes_begin(name, first, seed):
    # in 32 bits some of so many inputs lie where a normalisation amplifies rounding
    with jax.enable_x64(True):
        unrolled, stepped = BOTH_WAYS[name](jax.random.key(seed), first)
        assert all(x.dtype != jnp.float32 for x in jax.tree.leaves(unrolled))
        assert_close(unrolled, stepped, 1e-12)


@pytest.mark.parametrize("name", REMEMBERING)
def test_what_comes_after_a_reset_knows_nothing_of_what_came_before(name, inputs):
    m, params = build(name)
    x, first = inputs
    carry = carry_like(m, params, jax.random.key(2))
    influence = jax.jacrev(lambda x: jnp.sum(m.unroll(params, carry, x, first)[1], axis=-1))(x)  # [T, B, T', B', F]
    influence = np.abs(influence).max(-1)
    for b in range(B):
        begins = np.flatnonzero(first[:, b])
        for t in range(T):
            since = max([s for s in begins if s <= t], default=0)
            assert (influence[t, b, since : t + 1, b] > 0).all()
            assert (influence[t, b, :since] == 0).all()
            assert (influence[t, b, t + 1 :] == 0).all()
    assert (np.delete(influence, 0, axis=3)[:, 0] == 0).all()  # nor of the other columns


@pytest.mark.rounding
@pytest.mark.parametrize("name", REMEMBERING)
@pytest.mark.parametrize("chunk", [1, 3, 12])
def test_gradients_through_chunks_equal_the_plain_ones(name, chunk, inputs):
    def gradient(chunk):
        m, params = build(name, chunk)
        carry = carry_like(m, params, jax.random.key(2))
        loss = lambda params, carry, x: jnp.sum(jnp.sin(3 * m.unroll(params, carry, x, inputs[1])[1]))
        gradient = jax.grad(loss, argnums=(0, 1, 2), allow_int=True)(params, carry, inputs[0])
        return [g for g in jax.tree.leaves(gradient) if g.dtype != jax.dtypes.float0]

    assert_close(gradient(chunk), gradient(0))


def test_chunks_save_memory():
    def bytes_of(chunk):
        m = gru(16, chunk)
        params = m.init(jax.random.key(0), F)
        loss = lambda params, x: jnp.sum(m.unroll(params, jnp.zeros((8, 16)), x, jnp.zeros((256, 8), bool))[1])
        compiled = jax.jit(jax.grad(loss)).lower(params, jnp.zeros((256, 8, F))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert bytes_of(16) < bytes_of(0) / 3


@pytest.mark.rounding
def test_cells_are_the_textbook_ones(inputs):
    """flax's cells with the same weights; flax's z keeps what our u replaces."""
    x, carry = inputs[0][0], jax.random.normal(jax.random.key(5), (B, H))
    m, p = build("gru")
    p = p | {"b": jax.random.normal(jax.random.key(6), p["b"].shape)}
    W, U, b = (np.split(p[k], 3, axis=-1) for k in ("W", "U", "b"))
    sign = {"r": 1, "z": -1, "n": 1}
    gates = {f"i{g}": {"kernel": sign[g] * w, "bias": sign[g] * c} for g, w, c in zip("rzn", W, b)}
    gates |= {f"h{g}": {"kernel": sign[g] * u} for g, u in zip("rzn", U)}
    gates["hn"]["bias"] = jnp.zeros(H)
    for name, activation in (("gru", nn.tanh), ("gru-relu", nn.relu)):
        cell = nn.GRUCell(H, activation_fn=activation)
        assert_close(build(name)[0].step(p, carry, x)[1], cell.apply({"params": gates}, carry, x)[1])

    m, p = build("lstm")
    W, U, b = (np.split(p[k], 4, axis=-1) for k in ("W", "U", "b"))
    gates = {f"i{g}": {"kernel": w} for g, w in zip("ifgo", W)}
    gates |= {f"h{g}": {"kernel": u, "bias": c} for g, u, c in zip("ifgo", U, b)}
    cell = nn.OptimizedLSTMCell(H)
    assert_close(m.step(p, (carry, carry / 2), x), cell.apply({"params": gates}, (carry, carry / 2), x))
    np.testing.assert_array_equal(b[1], 1)


@pytest.mark.rounding
def test_attention_against_a_slow_version(inputs):
    """Each step of each environment by itself, from all earlier steps of its episode: eqs. of GTrXL, in float64."""
    m, params = build("attention")
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(3), x.shape), params)
    x, first = inputs
    carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (B, *x.shape)), m.start())
    got = m.unroll(params, carry, x, first)[1]
    p, x = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, x))
    expected = np.zeros((T, B, H))
    for b in range(B):
        begins = sorted({0, *np.flatnonzero(first[:, b]), T})
        for begin, end in itertools.pairwise(begins):
            expected[begin:end, b] = slow_attention(p, x[begin:end, b])
    assert_close(got, expected)


def slow_attention(p, x):
    """The outputs [T, H] of an episode's inputs [T, F], with one head."""
    sigmoid, relu = lambda x: 1 / (1 + np.exp(-x)), lambda x: np.maximum(x, 0)
    norm = lambda x: (x - x.mean()) / np.sqrt(x.var() + 1e-5)

    def gate(p, x, y):
        (W_r, W_z, W_h), (U_r, U_z) = np.split(p["W"], 3, axis=1), np.split(p["U"], 2, axis=1)
        r, z = sigmoid(y @ W_r + x @ U_r), sigmoid(y @ W_z + x @ U_z - p["b"])
        return (1 - z) * x + z * np.tanh(y @ W_h + (r * x) @ p["U_h"])

    def score(q, k, distance):
        """Rotate the key back by the distance: complex numbers of each pair, and the last number as it is."""
        q, k, (q_last, k_last) = q[:2] + 1j * q[2:4], k[:2] + 1j * k[2:4], (q[4], k[4])
        turned = np.exp(1j * distance * np.array([1.0, 0.01]))
        return (np.sum((q * turned * k.conj()).real) + q_last * k_last) / np.sqrt(H)

    y = x @ p["embed"]
    for layer in p["layers"]:
        q, k, v = np.split(np.array([norm(row) for row in y]) @ layer["qkv"], 3, axis=1)
        out = []
        for t in range(len(y)):
            seen = range(max(0, t - WINDOW), t + 1)
            weight = np.exp([score(q[t], k[s], t - s) for s in seen])
            read = sum(w * v[s] for w, s in zip(weight / weight.sum(), seen))
            h = gate(layer["gate"], y[t], relu(read @ layer["out"]))
            hidden = relu(norm(h) @ layer["up"] + layer["up_bias"])
            out.append(gate(layer["out_gate"], h, relu(hidden @ layer["down"] + layer["down_bias"])))
        y = np.array(out)
    return y


def test_attention_begins_near_the_identity():
    m, params = build("attention")
    x = jax.random.normal(jax.random.key(0), (T, B, F))
    carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (B, *x.shape)), m.start())
    embedded = x @ params["embed"]
    change = m.unroll(params, carry, x, jnp.zeros((T, B), bool))[1] - embedded
    assert jnp.std(change) < 0.7 * jnp.std(embedded)


def test_the_state_space_is_that_of_hippo():
    """Its eigenvalues and vectors against the dense matrix of S5's equation 7."""
    n = np.arange(6)
    legs = -np.sqrt(np.outer(2 * n + 1, 2 * n + 1)) * (n[:, None] > n) - np.diag(n + 1.0)
    normal = legs + np.outer(np.sqrt(n + 0.5), np.sqrt(n + 0.5))
    frequency, basis = state_space.hippo(6)
    assert (frequency > 0).all()
    np.testing.assert_allclose(normal @ basis, basis * (-0.5 + 1j * frequency), atol=1e-5)
    np.testing.assert_allclose(basis.conj().T @ basis, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(basis.T @ basis, 0, atol=1e-6)  # the conjugates are the other half


@pytest.mark.rounding
def test_a_state_space_layer_against_the_dense_system(inputs):
    """Real matrices of both halves of the pairs, a matrix exponential of the input held for a step, in float64."""
    m = state_space.s5(H, layers=1)
    params = m.init(jax.random.key(1), F)
    x, first = inputs
    carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (B, *x.shape)), m.start())
    after, got = m.unroll(params, carry, x, first)

    p, x = jax.tree.map(lambda x: np.asarray(x, np.float64), (params["layers"][0], x @ params["embed"]))
    pairs = len(p["frequency"])
    step = np.tile(np.exp(p["log_step"]), 2)[:, None]
    decay, turn = np.diag(-np.exp(p["log_decay"])), np.diag(p["frequency"])
    A = step * np.block([[decay, -turn], [turn, decay]])  # of real and imaginary parts
    B_held = step * np.concatenate(p["B"])
    held = scipy.linalg.expm(np.block([[A, B_held], [np.zeros((H, 2 * pairs + H))]]))[: 2 * pairs]
    read = 2 * np.concatenate([p["C"][0], -p["C"][1]], axis=1)
    u = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    state, expected = np.zeros((B, 2 * pairs)), []
    for u_t, x_t, first_t in zip(u, x, np.asarray(first)):
        state[first_t] = 0
        state = np.concatenate([state, u_t], axis=1) @ held.T
        g = np.asarray(jax.nn.gelu(state @ read.T + p["D"] * u_t))
        expected.append(x_t + g / (1 + np.exp(-g @ p["gate"] - p["gate_bias"])))
    assert_close(got, np.array(expected))
    assert_close(after[:, 0], state.reshape(B, 2, pairs))


@pytest.mark.rounding
@pytest.mark.parametrize("parallel", [True, False, None])
def test_associative_scan_equals_the_loop(parallel):
    keys = jax.random.split(jax.random.key(0), 3)
    a, b = jax.random.uniform(keys[0], (T, B, H)), jax.random.normal(keys[1], (T, B, H))
    h = before = np.array(jax.random.normal(keys[2], (B, H)))
    expected = []
    for t in range(T):
        h = np.asarray(a[t]) * h + np.asarray(b[t])
        expected.append(h)
    assert_close(recurrence(a, b, before, parallel), np.array(expected))


def test_the_linear_recurrence_starts_with_long_and_short_memories_and_is_smooth_where_it_forgets_nothing():
    m = memory("linear", 256)
    params = m.init(jax.random.key(0), F)
    decay = jax.nn.sigmoid(params["layers"][0]["decay_bias"])
    assert decay.min() < 0.6
    assert decay.max() > 0.999
    sure = jax.tree.map(lambda x: x, params)
    sure["layers"][0]["decay_bias"] = jnp.full(256, 200.0)  # a = 1 in float32
    loss = lambda params: jnp.sum(m.step(params, jnp.ones((2, 256)), jnp.ones(F))[1])
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(jax.grad(loss)(sure)))


@pytest.mark.parametrize("name", MEMORIES)
def test_parameters_and_carries_have_strong_types(name):
    """A weak type becomes a strong one in the first update, and every program would be compiled twice."""
    m, params = build(name)
    assert not any(x.weak_type for x in jax.tree.leaves((params, m.start())))


def test_what_cannot_be():
    with pytest.raises(UsageError, match="unknown memory 'gro'; nearest: gru"):
        memory("gro", 4)
    with pytest.raises(UsageError, match="positive size"):
        memory("gru", 0)
    with pytest.raises(UsageError, match="got 4, 0 and 0"):
        memory("attention", 4, window=0)
    with pytest.raises(UsageError, match=r"\(12\) must be a multiple of remat_steps \(5\)"):
        scan_in_segments(lambda carry, rows: (carry, rows), (), jnp.zeros(12), 5)
    assert lstm(3).start()[0].shape == (3,)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_weights_of_many_seeds_are_decomposed_one_after_the_other(name):
    """Two batched QR decompositions side by side wait for each other for ever on two cores (jaxlib 0.10.2)."""
    m = memory(name, H)
    keys = jax.random.split(jax.random.key(0), 3)
    init = jax.vmap(lambda key: m.init(key, F)["U"])
    assert decomposed(init, keys) == {(H, H)}
    U = np.asarray(init(keys)).reshape(3, H, -1, H).swapaxes(1, 2)  # [seed, gate, H, H]
    np.testing.assert_allclose(U.swapaxes(-1, -2) @ U, np.broadcast_to(np.eye(H), U.shape), atol=1e-5)
    assert np.array_equal(init(keys)[1], m.init(keys[1], F)["U"])
