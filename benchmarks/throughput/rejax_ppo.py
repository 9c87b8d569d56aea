"""rejax's PPO on gymnax's Four Rooms, for `ppo.py`; needs a Python with rejax 0.1.3 and gymnax 0.0.9.

For each line of its input it trains for a block of iterations and prints the environment steps per second, after a line
with the seconds of compilation.
"""

import argparse
import json
import sys
import time

import jax
from rejax import PPO


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, required=True)
    iterations = parser.parse_args().iterations
    ppo = PPO.create(
        env="FourRooms-misc",
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
        num_envs=32,
        num_steps=64,
        num_epochs=4,
        num_minibatches=4,
        learning_rate=1e-3,
        max_grad_norm=0.5,
        gamma=0.99,
        gae_lambda=0.95,
        clip_eps=0.2,
        ent_coef=0.01,
    )
    state = ppo.init_state(jax.random.key(0))
    block = lambda state: jax.lax.fori_loop(0, iterations, lambda _, state: ppo.train_iteration(state), state)
    begun = time.perf_counter()
    compiled = jax.jit(block, donate_argnums=0).lower(state).compile()
    print(json.dumps(time.perf_counter() - begun), flush=True)
    state = jax.block_until_ready(compiled(state))  # first call: page faults, thread pools
    for _ in sys.stdin:
        begun = time.perf_counter()
        state = jax.block_until_ready(compiled(state))
        print(json.dumps(iterations * 32 * 64 / (time.perf_counter() - begun)), flush=True)


if __name__ == "__main__":
    main()
