"""Classical players of bandits, MDPs and the two-step task, which learned ones are compared with."""
