"""Figures, tables and speeds: `python -m benchmarks --help`."""
