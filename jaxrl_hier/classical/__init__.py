"""Classical agents for bandits, MDPs and the two-step task: baselines for learned agents."""
