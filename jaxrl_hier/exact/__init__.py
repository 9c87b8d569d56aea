"""Ground truth: exact solutions that every learning algorithm is held to."""
