"""Temporal abstractions as data: options, and graphs of subtasks."""
