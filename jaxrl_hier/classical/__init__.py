"""Classical agents for bandits, MDPs, the two-step task and hidden goals: baselines for learned agents."""
