"""Flat algorithms: the bases of the hierarchical ones, and what those are compared with."""
