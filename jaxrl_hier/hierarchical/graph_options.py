"""Options from the graph of a tabular process: eigenoptions and covering options, by the exact Laplacian.

States are the nodes of a graph, with an edge between two states where an action leads from one to the other. A is its
adjacency matrix, D has the degrees, without edges from a state to itself, and

    L = D − A                          the Laplacian
    L_n = D^−½ L D^−½                  the normalised Laplacian

Eigenoptions (Machado, Bellemare & Bowling, ICML 2017). Each eigenvector e of L_n, with either sign, from the smallest
eigenvalue above 0 on, pays e(s') − e(s) for a step. An option maximises what it is paid, with discount γ, and may stop
anywhere: V(s) = max(0, max_a E[e(s') − e(s) + γ V(s')]). It may start where V > 0, and stops where V = 0.

Covering options (Jinnai, Park, Abel & Konidaris, ICML 2019). The two states in which the eigenvector of L's second
smallest eigenvalue, the algebraic connectivity, is largest and smallest are joined by two options, one each way: it may
start in the one, takes a shortest way and stops in the other. With this edge in the graph the next pair is found.

Departures: eigenvectors whose eigenvalues are equal span a space in which any basis is as good; ours is that of LAPACK.
Jinnai's code may join several states of a tie; here it is the first of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_hier.abstractions.options import Options
from jaxrl_hier.checks import UsageError
from jaxrl_hier.exact import tabular

EQUAL = 1e-6  # values that are this close count as equal


class Spectrum(NamedTuple):
    """Eigenvalues of a symmetric matrix from the smallest on, and its eigenvectors."""

    values: np.ndarray  # [S]
    vectors: np.ndarray  # [S, S], a column each


def adjacency(P: np.ndarray | jax.Array) -> np.ndarray:
    """[S, S] bool, symmetric: an action leads from one state to the other, either way. P is [S, A, S']."""
    leads = np.any(np.asarray(P) > 0, axis=1) & ~np.eye(len(P), dtype=bool)
    return leads | leads.T


def spectrum(edges: np.ndarray, normalised: bool = False) -> Spectrum:
    """Of the Laplacian of a graph `edges` [S, S] bool without isolated nodes."""
    weights = np.asarray(edges, float)
    degree = weights.sum(axis=1)
    laplacian = np.diag(degree) - weights
    if normalised:
        laplacian = laplacian / np.sqrt(degree[:, None] * degree)
    return Spectrum(*np.linalg.eigh(laplacian))


def eigenoptions(P: jax.Array, count: int, gamma: float = 0.9) -> Options:
    """The options of the first `count` eigenvectors, [2 count] options: of each, then of each with the other sign.

    Raises:
        UsageError: there are fewer eigenvalues above 0, of which a graph has one less for each of its components.
    """
    found = spectrum(adjacency(P), normalised=True)
    above = np.flatnonzero(found.values > EQUAL)
    if not 1 <= count <= len(above):
        raise UsageError(f"count must be from 1 to {len(above)}, the number of eigenvalues above 0, got {count}")
    vectors = found.vectors[:, above[:count]].T
    return jax.vmap(lambda vector: eigenoption(jnp.asarray(P), vector, gamma))(jnp.concatenate([vectors, -vectors]))


def eigenoption(P: jax.Array, vector: jax.Array, gamma: float) -> Options:
    """The option that climbs a `vector` [S], without an axis of options."""
    R = tabular.einsum("sat,t->sa", P, vector) - vector[:, None]
    update = lambda values: jnp.maximum(jnp.max(tabular.action_values(P, R, values, gamma), axis=1), 0.0)
    values = tabular.fixed_point(update, jnp.zeros_like(vector), 1e-9, 10_000)
    runs = values > EQUAL
    best = jnp.argmax(tabular.action_values(P, R, values, gamma), axis=1)
    return Options(runs, jax.nn.one_hot(best, P.shape[1]) * runs[:, None], jnp.where(runs, 0.0, 1.0))


def covering_options(P: jax.Array, count: int) -> tuple[Options, np.ndarray]:
    """The options of the first `count` pairs.

    Returns:
        [2 count] options, both ways of each pair in turn; and the pairs of states [count, 2].
    """
    edges, pairs = adjacency(P), []
    for _ in range(count):
        fiedler = spectrum(edges).vectors[:, 1]
        pair = int(np.argmax(fiedler)), int(np.argmin(fiedler))
        pairs.append(pair)
        edges[pair] = edges[pair[::-1]] = True
    found = np.array(pairs).reshape(-1, 2)
    ways = np.stack([found, found[:, ::-1]], axis=1).reshape(-1, 2)
    return jax.vmap(lambda way: point_option(jnp.asarray(P), way[0], way[1]))(jnp.asarray(ways)), found


def point_option(P: jax.Array, start: jax.Array, target: jax.Array) -> Options:
    """The option from a state `start` [] to another, `target` [], by a way of the fewest expected steps; P [S, A, S'].
    It has no axis of options."""
    states = jnp.arange(len(P))
    there = states == target
    steps = tabular.minimal_expected_steps(jnp.where(there[:, None, None], jnp.eye(len(P))[:, None], P))
    best = jnp.argmin(tabular.action_values(P, jnp.zeros(P.shape[:2]), steps, 1.0), axis=1)
    return Options(states == start, jax.nn.one_hot(best, P.shape[1]) * ~there[:, None], jnp.where(there, 1.0, 0.0))
