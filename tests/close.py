"""How tests compare numbers that two programs compute."""

import jax
import numpy as np


def assert_close(actual, expected, tolerance=1e-5, *, scale=None):
    """Arrays, or pytrees of arrays, agree: in no array is an entry further off than `tolerance` times the largest
    magnitude that is expected in that array, or times `scale`.

    Programs that are compiled for another processor, for more devices or in other pieces add up in another order, which
    changes a sum by a share of its terms. An entry that is a small difference of large terms may be wrong in its first
    digit, so entries are measured by their array and not by themselves. Whatever is no floating-point number is equal,
    and so are infinities and NaN.
    """
    if isinstance(actual, (np.ndarray, jax.Array)) and isinstance(expected, (list, tuple)):
        expected = np.asarray(expected)
    expected, structure = jax.tree_util.tree_flatten_with_path(expected)
    for (path, wanted), found in zip(expected, structure.flatten_up_to(actual), strict=True):
        compare(found, wanted, tolerance, scale, jax.tree_util.keystr(path))


def compare(found, wanted, tolerance, scale, name):
    """`assert_close` for one array."""
    if jax.dtypes.issubdtype(getattr(wanted, "dtype", None), jax.dtypes.prng_key):
        found, wanted = jax.random.key_data(found), jax.random.key_data(wanted)
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert wanted.shape in (found.shape, ()), f"{name} has the shape {found.shape} and not {wanted.shape}"
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
    assert error[worst] <= tolerance * size, (
        f"{name}{entry} is {value:.9g} and not {right:.9g}: {error[worst]:.2g} off, where {tolerance:.2g} of "
        f"{size:.4g} is allowed"
    )
