"""jaxrl_hier: hierarchical and meta reinforcement learning in JAX, on one engine.

import jaxrl_hier
run = jaxrl_hier.train("maml", seeds=5, out="runs/maml")         # the command line, as Python

algorithm = jaxrl_hier.make("maml", inner_steps=2)               # pure functions, yours to jit and vmap
state = jaxrl_hier.jit(algorithm.init)(jax.random.key(0))
state, metrics = jaxrl_hier.jit(algorithm.step)(state)           # jax.jit for whole programs: compiles sooner
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "train": "api",
    "make": "api",
    "evaluate": "api",
    "plot": "api",
    "sweep": "sweeps",
    "Range": "sweeps",
    "load": "run",
    "Run": "run",
    "compare": "reports.comparison",
    "register": "registry",
    "jit": "engine.compilation",
    "UsageError": "checks",
    "DivergedError": "checks",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(f"jaxrl_hier.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'jaxrl_hier' has no attribute {name!r}; it has {', '.join(_EXPORTS)}")


def __dir__() -> list[str]:
    return sorted(_EXPORTS)
