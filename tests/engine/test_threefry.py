"""Random numbers whose rounds are written out are JAX's own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.threefry import USUAL, WRITTEN_OUT, usual, written_out
from tests.close import assert_close

on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere `jit` is `jax.jit`")


def words(x):
    return np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


DRAWS = {
    "split": lambda key: jax.random.split(key, (3, 5)),
    "split once": lambda key: jax.random.split(key, 1),
    "fold in": lambda key: jax.random.fold_in(key, 2**31 + 7),
    "a number": lambda key: jax.random.uniform(key),
    "numbers": lambda key: jax.random.normal(key, (7, 3)),
    "many numbers": lambda key: jax.random.normal(key, (9, 11)),
    "many keys": lambda key: jax.random.split(key, 101),
    "none": lambda key: jax.random.normal(key, (0, 3)),
    "bits of 8": lambda key: jax.random.bits(key, (5,), jnp.uint8),
    "bits of 16": lambda key: jax.random.bits(key, (5,), jnp.uint16),
    "integers": lambda key: jax.random.randint(key, (11,), -3, 9),
    "permutation": lambda key: jax.random.permutation(key, 17),
    "many": lambda key: jax.vmap(lambda k: jax.random.categorical(k, jnp.arange(4.0)))(jax.random.split(key, 6)),
    "a chain": lambda key: jax.lax.scan(lambda k, _: tuple(jax.random.split(k)), key, length=4),
}


@pytest.mark.rounding
@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_bits_are_jaxs(name, seed):
    key = jax.random.key(seed)
    expected, found = DRAWS[name](key), DRAWS[name](written_out(key))
    # the words are equal; what becomes of them, such as a normal number, is rounded by the program that surrounds it
    assert_close(jax.tree.map(words, found), jax.tree.map(words, expected), 1e-6)


def test_bits_of_64():
    with jax.enable_x64(True):
        key = jax.random.key(5)
        draw = lambda key: np.asarray(jax.random.bits(key, (2, 3), jnp.uint64))
        np.testing.assert_array_equal(draw(key), draw(written_out(key)))


def test_only_usual_keys_are_replaced_and_come_back():
    tree: dict[str, Any] = {
        "key": jax.random.key(1),
        "keys": jax.random.split(jax.random.key(2), 3),
        "rbg": jax.random.key(3, impl="rbg"),
    }
    tree |= {"raw": jax.random.PRNGKey(4), "none": None, "name": "x"}
    inside = written_out(tree)
    assert [jax.random.key_impl(inside[name]) for name in ("key", "keys")] == [WRITTEN_OUT] * 2
    assert jax.random.key_impl(inside["rbg"]) == "rbg"
    back = usual(inside)
    assert [jax.random.key_impl(back[name]) for name in ("key", "keys")] == [USUAL] * 2
    np.testing.assert_array_equal(words(back["keys"]), words(tree["keys"]))
    assert inside["raw"] is tree["raw"]
    assert (inside["none"], inside["name"]) == (None, "x")


@on_cpu
@pytest.mark.rounding
def test_a_whole_program_gets_and_returns_usual_keys():
    seen = []

    def program(key, shape):
        seen.append(jax.random.key_impl(key))
        return jax.random.split(key), jax.random.normal(key, shape)

    keys, numbers = jit(program, static_argnames="shape")(jax.random.key(0), shape=(3,))
    expected_keys, expected_numbers = jax.jit(program, static_argnames="shape")(jax.random.key(0), shape=(3,))
    assert seen == [WRITTEN_OUT, USUAL]
    assert keys.dtype == expected_keys.dtype
    np.testing.assert_array_equal(words(keys), words(expected_keys))
    assert_close(numbers, expected_numbers, 1e-6)


@on_cpu
def test_a_program_that_makes_keys_of_its_own_keeps_the_usual_ones():
    seen = []

    def program(key):
        seen.append(jax.random.key_impl(key))
        again = lambda key, _: (
            jax.lax.cond(jax.random.bernoulli(key), lambda k: k, lambda k: jax.random.key(3), key),
            (),
        )
        return jax.lax.scan(again, key, length=4)[0]

    np.testing.assert_array_equal(words(jit(program)(jax.random.key(0))), words(jax.jit(program)(jax.random.key(0))))
    assert seen == [WRITTEN_OUT, USUAL, USUAL]
    with pytest.raises(TypeError, match="carry"):
        jit(lambda key: jax.lax.scan(lambda key, _: (1, ()), key, length=2))(jax.random.key(0))


def test_another_order_of_counters_is_left_alone():
    with jax.threefry_partitionable(False):
        assert jax.random.key_impl(written_out(jax.random.key(0))) == USUAL
