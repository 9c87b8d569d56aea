"""Options from the graph: the Laplacian of a path, where its options lead, and diffusion against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_hier.abstractions.options import concatenate, primitive_options
from jaxrl_hier.checks import UsageError
from jaxrl_hier.exact.diffusion import diffusion
from jaxrl_hier.hierarchical.graph_options import adjacency, covering_options, eigenoptions, spectrum

SIZE = 7


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


def path():
    """P [S, A, S'] of left and right along a line with walls at its ends."""
    cells = np.arange(SIZE)
    P = np.zeros((SIZE, 2, SIZE))
    P[cells, 0, np.maximum(cells - 1, 0)] = P[cells, 1, np.minimum(cells + 1, SIZE - 1)] = 1
    return jnp.asarray(P)


def test_the_spectrum_of_a_path():
    """Eigenvalues 2 − 2 cos(π k / n), eigenvectors cos(π k (i + ½) / n); normalised 1 − cos(π k / (n − 1))."""
    edges = adjacency(path())
    k = np.arange(SIZE)
    found = spectrum(edges)
    np.testing.assert_allclose(found.values, 2 - 2 * np.cos(np.pi * k / SIZE), atol=1e-12)
    second = np.cos(np.pi * (k + 0.5) / SIZE)
    np.testing.assert_allclose(np.abs(found.vectors[:, 1]), np.abs(second) / np.linalg.norm(second), atol=1e-12)
    np.testing.assert_allclose(spectrum(edges, normalised=True).values, 1 - np.cos(np.pi * k / (SIZE - 1)), atol=1e-12)


def test_eigenoptions_climb_their_vectors():
    """By brute force: each option stops where no way on pays."""
    options = eigenoptions(path(), 3)
    vectors = spectrum(adjacency(path()), normalised=True).vectors[:, 1:4].T
    for o, vector in enumerate([*vectors, *-vectors]):
        values = np.zeros(SIZE)
        for _ in range(400):
            ways = [vector[to] - vector + 0.9 * values[to] for to in np.asarray(path()).argmax(axis=2).T]
            values = np.maximum(np.max(ways, axis=0), 0)
        np.testing.assert_array_equal(options.initiation[o], values > 1e-6)
        np.testing.assert_array_equal(options.termination[o], values <= 1e-6)
        runs = np.asarray(options.initiation[o])
        chosen = np.sum(np.asarray(options.policy[o]).T * ways, axis=0)  # both ways may pay the same
        np.testing.assert_allclose(chosen[runs], np.max(ways, axis=0)[runs], atol=1e-9)
    left, right = sorted(np.flatnonzero(options.termination[o]).tolist() for o in (0, 3))
    # the first vector is √degree cos(π i / (n − 1)), and has its extremes beside the ends
    assert (left, right) == ([1], [SIZE - 2])


def test_covering_options_join_the_ends_of_a_path():
    options, pairs = covering_options(path(), 2)
    assert sorted(pairs[0].tolist()) == [0, SIZE - 1]
    for o, (start, target) in enumerate((pairs[0], pairs[0][::-1])):
        assert np.flatnonzero(options.initiation[o]).tolist() == [start]
        assert np.flatnonzero(options.termination[o]).tolist() == [target]
        step = 1 if target > start else 0
        others = np.arange(SIZE) != target
        np.testing.assert_array_equal(np.argmax(options.policy[o], axis=1)[others], step)
    edges = adjacency(path())
    edges[0, -1] = edges[-1, 0] = True  # now a ring
    np.testing.assert_allclose(spectrum(edges).values[1], 2 - 2 * np.cos(2 * np.pi / SIZE), atol=1e-12)
    fiedler = spectrum(edges).vectors[:, 1]
    assert set(pairs[1]) == {fiedler.argmax(), fiedler.argmin()}


def test_diffusion_of_a_random_walk_on_a_path():
    """From i to j > i: j (j + 1) − i (i + 1) steps, since each end stays with probability ½."""
    found = diffusion(path(), primitive_options(SIZE, 2))
    start = np.arange(SIZE)
    up = lambda i, j: j * (j + 1) - i * (i + 1)
    expected = np.where(
        start[:, None] > start, up(start, start[:, None]), up(SIZE - 1 - start, SIZE - 1 - start[:, None])
    )
    expected[start, start] = 0
    np.testing.assert_allclose(found.steps, expected, atol=1e-8)
    np.testing.assert_allclose(found.decisions, expected, atol=1e-8)
    np.testing.assert_allclose(found.mean()[0], expected.sum() / (SIZE * (SIZE - 1)), atol=1e-8)


def test_options_count_once_as_decisions_and_end_in_goals_that_they_pass():
    """Three cells; from the left one, an option to the right one passes the middle."""
    P = path()[:3, :, :3].at[2, 1, 2].set(1)
    options, _ = covering_options(P, 1)
    found = diffusion(P, concatenate(primitive_options(3, 2), options))
    # to the right end, d(0) = 1 + (d(0) + d(1)) / 3 and d(1) = 1 + d(0) / 2 in decisions; an option takes two steps
    np.testing.assert_allclose(found.decisions[2], [8 / 3, 7 / 3, 0], atol=1e-9)
    np.testing.assert_allclose(found.steps[2], [10 / 3, 8 / 3, 0], atol=1e-9)
    # to the middle, from an end: wall, step, or an option that passes
    np.testing.assert_allclose(found.steps[1], [1.5, 0, 1.5], atol=1e-9)


def test_eigenvalues_of_0_make_no_options():
    """A graph of two chains has two; each chain's options stay on it."""
    P = np.zeros((7, 2, 7))
    for first, last in ((0, 2), (3, 6)):
        cells = np.arange(first, last + 1)
        P[cells, 0, np.maximum(cells - 1, first)] = P[cells, 1, np.minimum(cells + 1, last)] = 1
    options = eigenoptions(jnp.asarray(P), 2)
    assert spectrum(adjacency(P), normalised=True).values[:3] == pytest.approx([0, 0, 0.5], abs=1e-9)
    starts = np.asarray(options.initiation)
    assert starts[0, 3:].any()  # of .5, the longer chain's; as it is of no vector that is constant on each
    assert not starts[0, :3].any()
    with pytest.raises(UsageError, match="count must be from 1 to 5, the number of eigenvalues above 0, got 6"):
        eigenoptions(jnp.asarray(P), 6)
