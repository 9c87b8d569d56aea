"""Measurements: run from the checkout's root as modules, `python -m benchmarks.papers.maml_navigation`.

Their processes keep freed memory, as those of `jaxrl-hier train` do, also where they compile loops of their own.
"""

from jaxrl_hier.allocator import keep_freed_memory

keep_freed_memory()
