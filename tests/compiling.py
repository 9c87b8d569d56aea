"""How tests compile. Without a word, and by `quick_jit`, programs are not optimised: most run for milliseconds."""

from functools import partial

import jax
import numpy as np
import pytest

from jaxrl_hier.testing import quick_jit

__all__ = ["needs_float16", "optimised_jit", "quick_jit"]

# for programs that run for seconds, such as those that learn until they are near an exact solution
optimised_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 2})


def _compiles_float16() -> bool:
    try:
        jax.jit(lambda x: x * x)(np.float16(1))
    except jax.errors.JaxRuntimeError:
        return False
    return True


needs_float16 = pytest.mark.skipif(not _compiles_float16(), reason="XLA has no float16 for processors without F16C")
