"""How tests compare numbers that two programs compute: as packages with algorithms of their own do."""

from jaxrl_hier.testing import assert_close, compare

__all__ = ["assert_close", "compare"]
