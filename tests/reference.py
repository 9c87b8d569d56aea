"""Slow and plain versions of computations, for tests to compare with."""

import numpy as np


def slow_advantage(reward, value, terminated, discount, lam):
    """GAE(λ) of one environment as sums over all later steps of the same episode [T]; 0 where the future is unknown."""
    T = len(reward)
    last_known = T - 1 if terminated[-1] else T - 2
    out = np.zeros(T)
    for t in range(last_known + 1):
        weight = 1.0
        for k in range(t, last_known + 1):
            after = 0.0 if terminated[k] else value[k + 1]
            out[t] += weight * (reward[k] + discount * after - value[k])
            if terminated[k]:
                break
            weight *= discount * lam
    return out
