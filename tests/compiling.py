"""How tests compile: as packages with algorithms of their own do."""

from jaxrl_hier.testing import quick_jit

__all__ = ["quick_jit"]
