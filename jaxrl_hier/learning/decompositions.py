"""Matrix decompositions under `vmap`."""

from collections.abc import Callable

import jax


def one_by_one(decompose: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`decompose`, a function of a matrix [n, n], applied to one matrix at a time on a CPU, even under `vmap`.

    LAPACK's decompositions of a batch wait, in a thread of XLA's pool, for work that they give to that pool. Those of
    several devices, or of two operations side by side, may wait for each other forever (jaxlib 0.10.2).
    """
    return jax.custom_batching.sequential_vmap(decompose) if jax.default_backend() == "cpu" else decompose
