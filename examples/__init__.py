"""To copy from: tasks, an environment, an algorithm."""
