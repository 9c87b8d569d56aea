"""Tests of the packages and of the benchmarks, and what they share."""
