"""Hierarchy and meta-learning together."""
