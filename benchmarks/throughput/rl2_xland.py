"""RL² on XLand-MiniGrid: this project beside XLand-MiniGrid's own recurrent PPO, in one run on the same cores.

The peer is a public repository, corl-team/xland-minigrid, whose folder `training` is given by `--peers rl2_xland=…`;
its script needs the extra `xland` and distrax, pyrallis and wandb. Without it ours is measured alone.

Environment steps per second of meta-training: acting, advantages, and the epochs of clipped updates with full
back-propagation through the trial. The peer's is its `train_meta_task.py` as published, called from here, with its
`pmap` over one device. Equal on both sides: the environment (XLand-MiniGrid-R1-9x9, 16 384 rulesets of one hidden goal
among four objects), trials side by side, steps of a trial, minibatches of whole trials, epochs, Adam, the clipped loss
with an entropy bonus, and the network: a layer of ReLU over observation, previous action and previous reward, a GRU,
and a linear head each for policy and value. The peer's convolutions are replaced by that layer, its GRU is kept.
Three defaults in its `utils.py` are wrapped, without which Python 3.11 does not load it. What differs: ours sees the
flag of an episode's first step, one number more; the peer clips the value's loss, and evaluates after each update,
which is switched off here.

Blocks of ours and theirs alternate, so that a slow minute of the machine hits both; medians and their ratio are
reported. Compilation is timed apart.
"""

import importlib
import re
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_envs.xland import XLand, hidden_objects, xland_tasks
from jaxrl_hier.checks import unknown
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.meta import rl2

from ._timing import Setup

NAME = "XLand-MiniGrid-R1-9x9"
EPOCHS, MINIBATCHES, ENCODER = 2, 4, 64
UPDATES = 2  # trials of each environment in a block


@dataclass(frozen=True)
class Size:
    environments: int
    steps: int  # of a trial, all of them back-propagated through
    hidden: int


SIZES = {
    "8 trials": Size(8, 16, 16),  # to see that it runs
    "64 trials": Size(64, 256, 64),
    "256 trials": Size(256, 128, 128),
    "8192 trials": Size(8192, 256, 256),  # for a GPU, by `--only`
}
ON_CPU = ("64 trials", "256 trials")


class Program:
    """A compiled block of updates and the speeds that it ran at."""

    def __init__(self, lower: Callable[[], Any], arguments: tuple, steps: int):
        begun = time.perf_counter()
        self.block = lower().compile()
        self.compile_seconds = time.perf_counter() - begun
        self.arguments, self.steps = arguments, steps
        self.speeds: list[float] = []
        self.run()
        self.speeds.clear()  # first call: page faults, thread pools

    def run(self) -> None:
        begun = time.perf_counter()
        jax.block_until_ready(self.block(*self.arguments))
        self.speeds.append(self.steps / (time.perf_counter() - begun))


def ours(size: Size, updates: int) -> Program:
    env = XLand(NAME)
    config = rl2.Config(
        episodes_per_trial=4,
        memory="gru",
        memory_size=size.hidden,
        encoder_hidden=(ENCODER,),
        separate_critic=False,
        environments=size.environments,
        rollout_length=size.steps,
        minibatch_size=size.environments // MINIBATCHES,
        epochs=EPOCHS,
        gae_lambda=0.95,
        clip=0.2,
        entropy_weight=0.01,
        max_grad_norm=0.5,
    )
    algorithm = rl2.make(config, env, xland_tasks(env, hidden_objects(env)))
    state = jit(algorithm.init)(jax.random.key(0))
    block = jit(lambda state: jax.lax.fori_loop(0, updates, lambda _, state: algorithm.step(state)[0], state))
    return Program(lambda: block.lower(state), (state,), updates * algorithm.env_steps)


def theirs(peer: Any, size: Size, updates: int) -> Program:
    total = size.environments * size.steps * updates
    config = peer.TrainConfig(
        env_id=NAME,
        benchmark_id="hidden objects",
        rnn_hidden_dim=size.hidden,
        num_envs=size.environments,
        num_steps_per_env=size.steps,
        num_steps_per_update=size.steps,
        update_epochs=EPOCHS,
        num_minibatches=MINIBATCHES,
        total_timesteps=total,
        eval_num_envs=1,
        eval_num_episodes=0,
    )
    key, env, env_params, benchmark, hidden, train_state = peer.make_states(config)
    devices = jax.local_devices()[:1]
    arguments = (jax.random.split(key, 1), peer.replicate(train_state, devices), peer.replicate(hidden, devices))
    train = peer.make_train(env, env_params, benchmark, config)
    return Program(lambda: train.lower(*arguments), arguments, total)


def load_peer(folder: Path) -> Any:
    """The peer's script as a module, with our rulesets and the network that both have."""
    if not (folder / "train_meta_task.py").is_file():
        raise SystemExit(f"{folder} holds no train_meta_task.py; it is the folder `training` of the repository")
    sys.path.insert(0, str(folder))
    import xminigrid

    xminigrid.load_benchmark = lambda name: hidden_objects(XLand(NAME))
    # since Python 3.11 an array is no default of a dataclass's field
    utils, text = types.ModuleType("utils"), (folder / "utils.py").read_text()
    text = re.sub(r"jax\.Array = (jnp\.asarray\(.*\))", r"jax.Array = struct.field(default_factory=lambda: \1)", text)
    exec(compile(text, "utils.py", "exec"), utils.__dict__)
    sys.modules["utils"] = utils
    peer = importlib.import_module("train_meta_task")
    vars(peer)["ActorCriticRNN"] = same_network(importlib.import_module("nn"))
    return peer


def same_network(parts: Any) -> Any:
    """The peer's network with our layers before and after its GRU."""
    import distrax
    import flax.linen as nn

    class Network(nn.Module):
        num_actions: int
        action_emb_dim: int
        rnn_hidden_dim: int
        rnn_num_layers: int
        head_hidden_dim: int

        @nn.compact
        def __call__(self, inputs: Any, hidden: jax.Array) -> Any:
            obs = inputs["observation"]
            x = jnp.concatenate(
                [
                    obs.reshape(*obs.shape[:2], -1).astype(jnp.float32),
                    jax.nn.one_hot(inputs["prev_action"], self.num_actions),
                    inputs["prev_reward"][..., None],
                ],
                axis=-1,
            )
            x = nn.relu(nn.Dense(ENCODER)(x))
            x, hidden = parts.BatchedRNNModel(self.rnn_hidden_dim, self.rnn_num_layers)(x, hidden)
            return distrax.Categorical(logits=nn.Dense(self.num_actions)(x)), nn.Dense(1)(x)[..., 0], hidden

        def initialize_carry(self, batch_size: int) -> jax.Array:
            return jnp.zeros((batch_size, self.rnn_num_layers, self.rnn_hidden_dim))

    return Network


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    peer = load_peer(Path(setup.peers["rl2_xland"])) if "rl2_xland" in setup.peers else None
    for name in setup.only or (("8 trials",) if setup.smoke else ON_CPU):
        if name not in SIZES:
            raise unknown("size", name, set(SIZES))
        mine = ours(SIZES[name], UPDATES)
        other = None if peer is None else theirs(peer, SIZES[name], UPDATES)
        for _ in range(setup.rounds):
            mine.run()
            if other is not None:
                other.run()
        yield row(SIZES[name], mine, other)


def row(size: Size, mine: Program, other: Program | None) -> dict[str, Any]:
    ours, theirs = statistics.median(mine.speeds), None if other is None else statistics.median(other.speeds)
    return {
        "what": f"RL² on {NAME}, {size.environments} trials × {size.steps} steps, GRU {size.hidden}",
        "unit": "environment steps per second",
        "ours": ours,
        "peer": "XLand-MiniGrid, training/train_meta_task.py" if other else None,
        "theirs": theirs,
        "ratio": ours / theirs if theirs else None,
        "compile_seconds": mine.compile_seconds,
        "their_compile_seconds": other.compile_seconds if other else None,
        "aggregate": False,
        "note": f"medians of {len(mine.speeds)} blocks each; {EPOCHS} epochs of {MINIBATCHES} minibatches",
    }
