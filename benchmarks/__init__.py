"""Measurements: run from the checkout's root as modules, `python -m benchmarks.papers.maml_navigation`."""
