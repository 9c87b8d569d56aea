"""What every algorithm runs on. The engine calls `init`, `step` and `evaluate` and imports no algorithm."""
