"""Shared parts of learners: networks, recurrent cells, advantages, replay learners, tables, optimisers."""
