"""Training PPO over eight options beside flat PPO with the same network, in one process on the same cores.

Environment steps per second of training: 32 environments × 64 steps, 4 epochs of 4 minibatches, separate networks for
policy and value with the same hidden layers. The options add their heads: on top of the last hidden layer of 64 units
eight policies, π(o | s), β and eight values stand where flat PPO has one policy and one value. How much that is depends
on what is below; the rows are a table as input, the same with layers of 256 units, and pictures with convolutions.

Blocks of the two alternate, so that a slow minute of the machine hits both; medians and their ratio are reported.
"""

from collections.abc import Iterator
from typing import Any

import jaxrl_envs
from jaxrl_hier.flat import policy_gradient
from jaxrl_hier.hierarchical import option_ppo

from ._timing import Setup, row, training

# what -> environment, settings of both, iterations of a block
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "four rooms, layers 64-64": ("four-rooms-option-critic", {}, 40),
    "four rooms, layers 256-256": ("four-rooms-option-critic", {"hidden": (256, 256)}, 10),
    "CartPole, layers 64-64": ("CartPole-v1", {}, 40),
    "Breakout in MinAtar, convolutions and layers 64-64": ("Breakout-MinAtar", {"network": "cnn"}, 5),
}


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    for what in setup.chosen(CASES, smoke=("four rooms, layers 64-64",)):
        name, settings, iterations = CASES[what]
        env, tasks = jaxrl_envs.make(name)
        settings = settings | {"environments": 32, "rollout_length": 64, "epochs": 4, "minibatch_size": 512}
        count = 2 if setup.smoke else iterations
        ours = training(option_ppo.make(option_ppo.Config(num_options=8, **settings), env, tasks), count)
        flat = training(policy_gradient.make(policy_gradient.Config(**settings), env, tasks), count)
        for _ in range(setup.rounds):
            ours.run()
            flat.run()
        unit = "environment steps per second"
        yield row(f"PPO over 8 options, {what}", unit, ours, "flat PPO, ours", flat.speeds)
