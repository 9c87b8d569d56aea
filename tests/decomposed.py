"""What a program decomposes."""

from collections.abc import Iterator
from typing import Any

import jax

DECOMPOSITIONS = {"qr", "geqrf", "cholesky"}


def decomposed(f: Any, *args: Any) -> set[tuple[int, ...]]:
    """The shapes of what the program of f(*args) decomposes."""
    equations = _equations(jax.make_jaxpr(f)(*args).jaxpr)
    return {eqn.invars[0].aval.shape for eqn in equations if eqn.primitive.name in DECOMPOSITIONS}


def _equations(jaxpr: Any) -> Iterator[Any]:
    """All of a program, those of loops and calls included."""
    for eqn in jaxpr.eqns:
        yield eqn
        is_program = lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        for inner in jax.tree.leaves([*eqn.params.values()], is_leaf=is_program):
            if is_program(inner):
                yield from _equations(getattr(inner, "jaxpr", inner))
