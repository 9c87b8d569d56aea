"""Losses of policy gradients by hand."""

import jax
import numpy as np

from jaxrl_hier.learning.policy_losses import clipped_policy_loss
from tests.close import assert_close


def test_clipped_policy_loss_by_hand():
    ratio = np.array([1.0, 1.05, 1.3, 0.5, 1.3, 0.5])
    advantage = np.array([2.0, 1.0, 1.0, 1.0, -1.0, -1.0])
    old = np.log([0.2, 0.3, 0.4, 0.5, 0.1, 0.6])
    loss = lambda log_prob: clipped_policy_loss(log_prob, old, advantage, 0.1)
    # clipped where the ratio has moved far in the direction that the advantage wants, and without a gradient there
    assert_close(loss(old + np.log(ratio)), [-2.0, -1.05, -1.1, -0.5, 1.3, 0.9])
    slope = jax.grad(lambda log_prob: loss(log_prob).sum())(old + np.log(ratio))
    assert_close(slope, [-2.0, -1.05, 0.0, -0.5, 1.3, 0.0])
