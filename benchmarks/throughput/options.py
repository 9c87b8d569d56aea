"""Tabular learners in four rooms: 1000 of them in one program beside a plain NumPy loop of one, on the same cores.

Counted: learner-steps per second; a learner-step is one step in the environment and what is learned from it. Goal G1,
from the upper left corner, ε = .1, α = 1/8, γ = .9, over the four actions and the eight hallway options: intra-option
Q-learning by ε-greedy options and by random actions, SMDP Q-learning, and Q-learning over the actions alone.

- Ours: 1000 independent learners, seeds that `train` carries out in one program, with metrics, episode log and checks
  for divergence. On one device; and, on a CPU of several cores, with a device for each core, which share the seeds: XLA
  runs such small operations on a single core otherwise. The number of devices is fixed when jax starts, so that each
  has its own process, which waits for its turn.
- NumPy: one learner in a loop, as a textbook has it: the same tables for the environment and the options, one row of Q
  at a time, random numbers from `numpy.random.Generator`, no metrics and no log. It uses one core.

So ours is the sum over independent learners ("aggregate"); a single learner of ours is no faster than NumPy's. Rounds
alternate between the contenders; medians are reported, ratios of medians, and the range of the ratios of single rounds.
Compile seconds are apart. Both start from tables of zeros and go on from round to round.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl_envs.four_rooms import NUM_CELLS, FourRooms
from jaxrl_envs.tasks import single
from jaxrl_hier.abstractions.options import concatenate, primitive_options
from jaxrl_hier.allocator import keep_freed_memory
from jaxrl_hier.flat import q_learning
from jaxrl_hier.hierarchical import intra_option_q, smdp_q
from jaxrl_hier.hierarchical.call_and_return import can_run
from jaxrl_hier.hierarchical.options import hallway_options

from ._over_devices import OverDevices
from ._timing import Setup, Worker, most_devices, own_process

EPSILON, ALPHA, GAMMA = 0.1, 0.125, 0.9
COMMON: dict[str, Any] = {"epsilon": EPSILON, "step_size": ALPHA, "discount": GAMMA}
OURS: dict[str, tuple[Any, Any]] = {
    "intra-option-q": (intra_option_q, intra_option_q.Config(**COMMON)),
    "intra-option-q, random actions": (intra_option_q, intra_option_q.Config(behaviour="random", **COMMON)),
    "smdp-q": (smdp_q, smdp_q.Config(**COMMON)),
    "q-learning": (q_learning, q_learning.Config(**COMMON)),
}


@dataclass
class Contender:
    run: Callable[[], float]  # one round, its seconds
    learner_steps: int  # of a round
    compile_seconds: float = 0.0
    speeds: list[float] = field(default_factory=list)  # learner-steps per second, a round each

    def measure(self) -> None:
        self.speeds.append(self.learner_steps / self.run())


def seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


# Ours


def compiled(name: str, learners: int, steps: int) -> Callable[[], Any]:
    """A round of our learners, whom all devices of this process share."""
    module, config = OURS[name]
    env = FourRooms()
    return OverDevices(module.make(config, env, single(env.default_params)), learners, steps).run


def work(learners: int, steps: int, *names: str) -> None:
    """Our process: compiles these learners, then runs one for each line of its input, which names it."""
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    runs: dict[str, Callable[[], Any]] = {}
    for name in names:
        begun = time.perf_counter()
        runs[name] = compiled(name, learners, steps)
        print(json.dumps(time.perf_counter() - begun), flush=True)
    for line in sys.stdin:
        print(json.dumps(seconds(runs[line.strip()])), flush=True)


def ours(names: list[str], devices: int, learners: int, steps: int) -> tuple[Worker, dict[str, Contender]]:
    """A process with so many devices, and its contenders."""
    worker = Worker(own_process("options", learners, steps, *names), devices)
    took = {name: worker.answer() for name in names}
    return worker, {name: Contender(partial(worker.ask, name), learners * steps, took[name]) for name in names}


# NumPy: generators that learn for so many steps between two yields


def numpy_q_learning(env: FourRooms, steps: int) -> Iterator[None]:
    rng = np.random.default_rng(0)
    start, goal = env.default_params.start, env.default_params.goal
    every = np.ones(env.num_actions, bool)
    q, s = np.zeros((NUM_CELLS, env.num_actions)), start
    while True:
        for _ in range(steps):
            a = epsilon_greedy(rng, q[s], every)
            s2 = env.outcomes[s, a, rng.integers(env.outcomes.shape[2])]
            end = s2 == goal
            target = 1.0 if end else GAMMA * q[s2].max()
            q[s, a] += ALPHA * (target - q[s, a])
            s = start if end else s2
        yield


def numpy_smdp_q(env: FourRooms, steps: int) -> Iterator[None]:
    rng = np.random.default_rng(0)
    start, goal = env.default_params.start, env.default_params.goal
    available, action, stop, _ = option_tables(env)
    q, s, option = np.zeros(available.shape), start, None
    while True:
        for _ in range(steps):
            if option is None:
                option, begun, reward, discount = epsilon_greedy(rng, q[s], available[s]), s, 0.0, 1.0
            s2 = env.outcomes[s, action[s, option], rng.integers(env.outcomes.shape[2])]
            end = s2 == goal
            reward += discount * end
            discount *= GAMMA
            if end or rng.random() < stop[s2, option]:
                target = reward if end else reward + discount * q[s2][available[s2]].max()
                q[begun, option] += ALPHA * (target - q[begun, option])
                option = None
            s = start if end else s2
        yield


def numpy_intra_option_q(env: FourRooms, steps: int, random: bool = False) -> Iterator[None]:
    rng = np.random.default_rng(0)
    start, goal = env.default_params.start, env.default_params.goal
    available, action, stop, takes = option_tables(env)
    q, s, option = np.zeros(available.shape), start, None
    while True:
        for _ in range(steps):
            if random:
                a = rng.integers(env.num_actions)
            else:
                if option is None:
                    option = epsilon_greedy(rng, q[s], available[s])
                a = action[s, option]
            s2 = env.outcomes[s, a, rng.integers(env.outcomes.shape[2])]
            end = s2 == goal
            if end:
                target = 1.0
            else:
                best = q[s2][available[s2]].max()
                target = GAMMA * ((1 - stop[s2]) * q[s2] + stop[s2] * best)
            q[s] += ALPHA * takes[s, a] * (target - q[s])
            if end or (not random and rng.random() < stop[s2, option]):
                option = None
            s = start if end else s2
        yield


NUMPY: dict[str, Callable[[FourRooms, int], Iterator[None]]] = {
    "intra-option-q": numpy_intra_option_q,
    "intra-option-q, random actions": lambda env, steps: numpy_intra_option_q(env, steps, random=True),
    "smdp-q": numpy_smdp_q,
    "q-learning": numpy_q_learning,
}


def option_tables(env: FourRooms) -> tuple[np.ndarray, ...]:
    """Where options may start [S, O], their actions [S, O], where they stop [S, O], which take an action [S, A, O]."""
    options = concatenate(primitive_options(NUM_CELLS, env.num_actions), hallway_options(env))
    runs = np.asarray(can_run(options.initiation, options.termination))
    takes = np.asarray(options.policy) * runs[..., None]
    tables = options.initiation.T, np.argmax(options.policy, axis=2).T, options.termination.T, takes.transpose(1, 2, 0)
    return tuple(np.array(table, order="C") for table in tables)


def epsilon_greedy(rng: np.random.Generator, values: np.ndarray, allowed: np.ndarray) -> int:
    """Ties at random, as ours."""
    if rng.random() < EPSILON:
        pool = np.flatnonzero(allowed)
    else:
        pool = np.flatnonzero(allowed & (values == values[allowed].max()))
    return pool[rng.integers(len(pool))]


def in_numpy(name: str, steps: int) -> Contender:
    learner = NUMPY[name](FourRooms(), steps)
    return Contender(lambda: seconds(lambda: next(learner)), steps)


# All together


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    learners, steps, numpy_steps = (8, 50, 100) if setup.smoke else (1000, 1000, 10_000)  # of a round
    names = setup.chosen(OURS, smoke=("intra-option-q",))
    devices = sorted({1, most_devices()})
    theirs = {name: in_numpy(name, numpy_steps) for name in names}
    workers, mine = {}, {}
    for n in devices:
        workers[n], mine[n] = ours(names, n, learners, steps)
    for _ in range(1 + (1 if setup.smoke else 5 * setup.rounds)):  # the first: page faults, thread pools
        for name in names:
            for contender in (theirs[name], *(mine[n][name] for n in devices)):
                contender.measure()
    for worker in workers.values():
        worker.close()
    for name in names:
        for n in reversed(devices):
            yield row(name, n, mine[n][name], theirs[name], learners)


def row(name: str, devices: int, mine: Contender, theirs: Contender, learners: int) -> dict[str, Any]:
    us, them = statistics.median(mine.speeds[1:]), statistics.median(theirs.speeds[1:])
    ratios = [a / b for a, b in zip(mine.speeds[1:], theirs.speeds[1:])]
    on = "one device" if devices == 1 else f"seeds split over {devices} devices, one per core"
    verdict = "not comparable"
    if name == "intra-option-q":  # what the target is about
        verdict = "reached" if us / them >= 100 else "short"
    return {
        "what": f"{name}, {learners} learners in one program, {on}",
        "unit": "learner-steps per second",
        "ours": us,
        "peer": "a plain NumPy loop of one learner",
        "theirs": them,
        "ratio": us / them,
        "target": 100 if name == "intra-option-q" else None,
        "verdict": verdict,
        "compile_seconds": mine.compile_seconds,
        "aggregate": True,
        "note": f"medians of {len(ratios)} rounds, ratios of single rounds {min(ratios):.0f} to {max(ratios):.0f}",
    }


if __name__ == "__main__":
    keep_freed_memory()
    work(int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
