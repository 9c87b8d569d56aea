"""What a call of `policy.act` costs: the presets of the registered algorithms, one agent, NumPy in and out.

Counted: microseconds of a call, from the observation as a NumPy array to the action as one, with the reward of the step
before. Greedy, untrained parameters, an episode that goes on; each call is timed alone, the first hundred are not.
Medians, with the lowest tenth in the note: on a machine that does other work as well the median holds its waiting too.
Left out are those that act as another one does: MAML's family, DDPG, intra-option Q-learning, SARSA, and most of the
learners with hindsight.
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs.contract import Played
from jaxrl_hier import registry
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.policy import Policy

from ._timing import Setup

NAMES = (
    "q-learning",
    "smdp-q",
    "option-critic",
    "option-critic-tabular",
    "maxq",
    "dqn",
    "td3",
    "sac",
    "ppo",
    "her-sac",
    "uvfa",
    "fun",
    "hiro",
    "maml",
    "rl2",
    "pearl",
)
MOST = 300.0  # microseconds that a call may cost
FIRST, CALLS = 100, 3000


def timed(name: str, calls: int) -> dict[str, Any]:
    """The row of one algorithm."""
    env, tasks = jaxrl_envs.make(registry.entry(name).env)
    algorithm = jaxrl_hier.make(name, env, tasks)
    key, task = jax.random.key(0), tasks.sample(jax.random.key(1))
    begun = time.perf_counter()
    policy = Policy(algorithm, jit(algorithm.agent.init)(key), env, tasks)
    obs = jax.tree.map(np.asarray, jit(lambda: Played(env).reset(key, task)[0])())
    policy.act(obs)
    compile_seconds = time.perf_counter() - begun
    taken = []
    for _ in range(FIRST + calls):
        start = time.perf_counter()
        policy.act(obs, 0.5)
        taken.append(1e6 * (time.perf_counter() - start))
    taken = taken[FIRST:]
    ours, low = statistics.median(taken), float(np.percentile(taken, 10))
    return {
        "what": f"policy.act, {name} on {registry.entry(name).env}",
        "unit": "microseconds per call",
        "ours": ours,
        "peer": "what a call may cost",
        "theirs": MOST,
        "ratio": MOST / ours,
        "compile_seconds": compile_seconds,
        "aggregate": False,
        "note": f"median of {calls} calls; a tenth took at most {low:.0f}",
    }


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    for name in setup.chosen(NAMES, smoke=("q-learning", "dqn")):
        yield timed(name, 20 if setup.smoke else CALLS)
