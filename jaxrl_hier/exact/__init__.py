"""Exact solutions, against which learning algorithms are tested."""
