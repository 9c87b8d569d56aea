"""Flat algorithms: building blocks of the hierarchical ones, and baselines for them."""
