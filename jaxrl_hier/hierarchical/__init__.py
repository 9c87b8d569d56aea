"""Hierarchical reinforcement learning: options and the algorithms that learn with and about them."""
