"""PPO on gymnax's Four Rooms: this project beside rejax's, in one run on the same cores.

The peer needs a Python with rejax 0.1.3 and gymnax 0.0.9, given by `--pythons rejax=…`: rejax does not run with the
gymnax that we need.

Environment steps per second of training, on equal sizes: 32 environments × 64 steps, 4 epochs of 4 minibatches, two
networks of 64-64 with tanh, Adam, an entropy bonus. What differs: rejax also clips the value's loss, standardises the
advantages of each minibatch, takes values and log-probabilities while it acts, and takes the value of a reset state for
that of the successor where an episode is truncated. Ours takes them in one pass after the rollout, for each step's true
successor, and draws its random numbers from a key for each environment.

Blocks of ours and theirs alternate, so that a slow minute of the machine hits both; medians and their ratio are
reported.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxrl_envs
from jaxrl_hier.flat.policy_gradient import Config, make

from ._timing import Setup, Worker, row, training


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    iterations = 2 if setup.smoke else 50
    config = Config(environments=32, rollout_length=64, epochs=4, minibatch_size=512, entropy_weight=0.01)
    program = training(make(config, *jaxrl_envs.make("FourRooms-misc")), iterations)
    script = str(Path(__file__).with_name("rejax_ppo.py"))
    peer = Worker([setup.python("rejax"), script, "--iterations", str(iterations)])
    compile_seconds = peer.answer()
    theirs = []
    for _ in range(setup.rounds):
        program.run()
        theirs.append(peer.ask("again"))
    peer.close()
    measured = row(
        "PPO on FourRooms-misc, 32 environments × 64 steps", "environment steps per second", program, "rejax", theirs
    )
    yield measured | {"their_compile_seconds": compile_seconds}
