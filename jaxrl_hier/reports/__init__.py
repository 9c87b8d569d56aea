"""Rows, statistics, tables and plots of runs."""
