"""How tests compile. Without a word, and by `quick_jit`, programs are not optimised: most run for milliseconds."""

from functools import partial

import jax

from jaxrl_hier.testing import quick_jit

__all__ = ["optimised_jit", "quick_jit"]

# for programs that run for seconds, such as those that learn until they are near an exact solution
optimised_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 2})
