"""This project and its peers on the same work, in one run."""

from jaxrl_hier.allocator import keep_freed_memory

keep_freed_memory()
