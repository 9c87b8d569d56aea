"""How tests compile."""

import jax


def quick_jit(f, **options):
    """`jax.jit` that compiles in half the time and runs several times as long: for programs that run a few times."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0}, **options)
