"""The cheap draws: uniform, and those of a key and of its other key have nothing to do with each other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from jaxrl_envs.random_bits import another_key, fold_in, random_bits, split, uniforms

COUNT = 200_000


def plausible(cells, number):
    """Chi-square of uniformity over `number` cells, at 99.99 %."""
    observed, expected = np.bincount(cells, minlength=number), len(cells) / number
    return np.sum((observed - expected) ** 2 / expected) < chi2.ppf(0.9999, number - 1)


@pytest.mark.parametrize("origin", ["split", "legacy"])
def test_a_keys_two_draws_are_uniform_and_independent(origin):
    keys = jax.random.split(jax.random.key(0) if origin == "split" else jax.random.PRNGKey(0), COUNT)
    draw = jax.jit(jax.vmap(lambda key: (random_bits(key), random_bits(another_key(key)))))
    first, second = (np.asarray(bits).astype(np.int64) for bits in draw(keys))
    for bits in (first, second):
        for number in (9, 103, 104, 36):  # what environments take the remainder of
            assert plausible(bits % number, number)
    assert plausible(first % 9 * 103 + second % 103, 9 * 103)
    assert plausible((first >> 28) * 16 + (second >> 28), 256)


def test_another_key_keeps_its_kind():
    typed, legacy = jax.random.key(3), jax.random.PRNGKey(3)
    assert another_key(typed).dtype == typed.dtype
    assert another_key(legacy).dtype == jnp.uint32
    np.testing.assert_array_equal(jax.random.key_data(another_key(typed)), another_key(legacy))


def test_both_words_of_a_key_count():
    words = jnp.array([[1, 2], [1, 3], [4, 2], [2, 1]], jnp.uint32)
    for key in (words, jax.vmap(another_key)(words)):
        assert len(np.unique(jax.vmap(random_bits)(key))) == 4
        assert len(np.unique(jax.vmap(lambda key: uniforms(key, 3))(key))) == 12


@pytest.mark.parametrize("origin", ["split", "fold_in", "seeds"])
def test_uniforms_are_uniform_and_independent(origin):
    """Chi-square, of each draw, of all pairs from one key, and of each draw with that of the key before; 99.99 %."""
    keys = {
        "split": lambda: jax.random.split(jax.random.key(0), COUNT),
        "fold_in": lambda: jax.vmap(lambda i: jax.random.fold_in(jax.random.key(1), i))(jnp.arange(COUNT)),
        "seeds": lambda: jax.vmap(jax.random.key)(jnp.arange(COUNT)),
    }[origin]()
    draws = np.asarray(jax.jit(jax.vmap(lambda key: uniforms(key, 4)))(keys))
    assert draws.min() >= 0
    assert draws.max() < 1

    coarse = (draws * 16).astype(int)
    for i in range(4):
        assert plausible((draws[:, i] * 1000).astype(int), 1000)
        assert plausible((draws[:, i] * 2**23).astype(int) % 256, 256)  # the low bits
        assert plausible(coarse[1:, i] * 16 + coarse[:-1, i], 256)
        for j in range(i):
            assert plausible(coarse[:, i] * 16 + coarse[:, j], 256)
    assert plausible(coarse[:, 0] * 256 + coarse[:, 1] * 16 + coarse[:, 2], 4096)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_keys_are_those_of_jax(implementation):
    roots = jax.random.split(jax.random.key(7, impl=implementation), 50)
    for number in (1, 2, 4):
        compare(roots, partial(split, number=number), partial(jax.random.split, num=number))
    for count in (0, 1, 12345, 2**31 - 1):
        compare(roots, partial(fold_in, data=jnp.int32(count)), partial(jax.random.fold_in, data=count))


def compare(roots, ours, theirs):
    of_each = lambda f: jax.random.key_data(jax.jit(jax.vmap(f))(roots))
    np.testing.assert_array_equal(of_each(ours), of_each(theirs))


def test_keys_that_split_otherwise_are_left_to_jax():
    with jax.threefry_partitionable(False):
        key = jax.random.key(3)
        ours, theirs = split(key, 3), jax.random.split(key, 3)
    np.testing.assert_array_equal(jax.random.key_data(ours), jax.random.key_data(theirs))
