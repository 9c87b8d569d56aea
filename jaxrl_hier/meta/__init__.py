"""Meta-reinforcement learning: agents that adapt to a new task from little experience."""
