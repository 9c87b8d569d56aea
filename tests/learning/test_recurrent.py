"""Recurrent networks: steps, unrolls and unrolls in segments agree, and resets forget the past."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_hier.checks import UsageError
from jaxrl_hier.learning.recurrent import MEMORIES, gru, lstm, memory, recurrence, scan_in_segments, with_mlp
from tests.close import assert_close

T, B, F, H = 12, 3, 4, 5


@pytest.fixture(scope="module")
def inputs():
    x = jax.random.normal(jax.random.key(0), (T, B, F))
    first = jnp.zeros((T, B), bool).at[0, 0].set(True).at[5, 1].set(True).at[6, 1].set(True).at[11, 2].set(True)
    return x, first


def build(name, chunk=0):
    m = with_mlp((6,), memory("gru", H, chunk)) if name == "encoded" else memory(name, H, chunk)
    return m, m.init(jax.random.key(1), F)


def carry_like(m, key):
    """An arbitrary carry, [B]."""
    leaves, structure = jax.tree.flatten(m.start())
    keys = jax.random.split(key, max(len(leaves), 1))
    return jax.tree.unflatten(structure, [jax.random.normal(k, (B, *x.shape)) for k, x in zip(keys, leaves)])


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
    carry = carry_like(m, jax.random.key(2))
    assert_close(m.unroll(params, carry, *inputs), loop(m, params, carry, *inputs))


@pytest.mark.parametrize("name", ["gru", "lstm", "linear"])
def test_what_comes_after_a_reset_knows_nothing_of_what_came_before(name, inputs):
    m, params = build(name)
    x, first = inputs
    carry = carry_like(m, jax.random.key(2))
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
@pytest.mark.parametrize("name", ["gru", "lstm", "linear"])
@pytest.mark.parametrize("chunk", [1, 3, 12])
def test_gradients_through_chunks_equal_the_plain_ones(name, chunk, inputs):
    def gradient(chunk):
        m, params = build(name, chunk)
        carry = carry_like(m, jax.random.key(2))
        loss = lambda params, carry, x: jnp.sum(jnp.sin(3 * m.unroll(params, carry, x, inputs[1])[1]))
        return jax.grad(loss, argnums=(0, 1, 2))(params, carry, inputs[0])

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


def test_what_cannot_be():
    with pytest.raises(UsageError, match="unknown memory 'gro'; nearest: gru"):
        memory("gro", 4)
    with pytest.raises(UsageError, match="positive size"):
        memory("gru", 0)
    with pytest.raises(UsageError, match=r"\(12\) must be a multiple of remat_steps \(5\)"):
        scan_in_segments(lambda carry, rows: (carry, rows), (), jnp.zeros(12), 5)
    assert lstm(3).start()[0].shape == (3,)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_weights_of_many_seeds_are_decomposed_one_after_the_other(name):
    """Two batched QR decompositions side by side wait for each other for ever on two cores (jaxlib 0.10.2)."""
    m = memory(name, H)
    keys = jax.random.split(jax.random.key(0), 3)
    init = jax.vmap(lambda key: m.init(key, F)["U"])
    shapes = [x.aval.shape for eqn in equations(jax.make_jaxpr(init)(keys).jaxpr) for x in decomposed(eqn)]
    assert shapes
    assert set(shapes) == {(H, H)}
    U = np.asarray(init(keys)).reshape(3, H, -1, H).swapaxes(1, 2)  # [seed, gate, H, H]
    np.testing.assert_allclose(U.swapaxes(-1, -2) @ U, np.broadcast_to(np.eye(H), U.shape), atol=1e-5)
    assert np.array_equal(init(keys)[1], m.init(keys[1], F)["U"])


def decomposed(eqn):
    return eqn.invars[:1] if eqn.primitive.name in ("qr", "geqrf") else []


def equations(jaxpr):
    """All of a program, those of loops and calls included."""
    for eqn in jaxpr.eqns:
        yield eqn
        is_program = lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        for inner in jax.tree.leaves([*eqn.params.values()], is_leaf=is_program):
            if is_program(inner):
                yield from equations(getattr(inner, "jaxpr", inner))
