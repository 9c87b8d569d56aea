"""MAXQ-Q on fickle Taxi, 100 runs in one program, beside the same loop in plain Python.

    python -m benchmarks.throughput.maxq

The other side is written for this comparison, as one would in Python: recursion over the subtasks, dictionaries for
the tables, the same task (its tables of successors as lists), graph, state abstractions, pseudo-rewards, all-states
updating, Boltzmann exploration and cooling. The reward that both have learned to earn is given with the speeds. It runs
one run on one core, ours 100 runs on all; "aggregate": ours is a sum over independent learners, as in the figure.

Both learn from scratch for the same number of steps per run. The rounds alternate, so that a slow minute of the machine
hits both; medians, and the ratios of single rounds, are reported. Compile seconds, tracing included, are apart.
"""

import math
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import tyro

from benchmarks.results import ROOT, provenance, write
from jaxrl_envs.tasks import single
from jaxrl_envs.taxi import IN_TAXI, SITE_CELLS, Taxi, decode
from jaxrl_hier.engine.train import RunConfig, init_seeds, make_chunk
from jaxrl_hier.hierarchical import maxq


@dataclass(frozen=True)
class Arguments:
    runs: int = 100
    """in our one program"""
    steps: int = 50_000
    """of each run"""
    rounds: int = 3
    out: Path | None = None
    """the JSON; default benchmarks/results/throughput/maxq-<device>.json"""


class PlainMaxQ:
    """MAXQ-Q with dictionaries and recursion."""

    def __init__(self, env: Taxi, seed: int, alpha: float = 0.25):
        self.random, self.alpha = random.Random(seed), alpha
        self.successors, self.rewards = env.successors.tolist(), env.rewards.tolist()
        self.columns, self.starts, self.ended = env.columns.tolist(), env.starts.tolist(), env.ended.tolist()
        seen = env.observation_of_state
        self.factors = [tuple(map(int, row)) for row in zip(*decode(seen))]  # row, column, passenger, destination
        self.C: dict[Any, float] = {}
        self.inside: dict[Any, float] = {}
        self.V: dict[Any, float] = {}
        self.temperature = dict.fromkeys(("Root", "Get", "Put", "Navigate"), 50.0)
        self.cooling = {"Root": 0.9074, "Get": 0.9526, "Put": 0.9526, "Navigate": 0.9879}
        self.sites = [divmod(int(cell), 5) for cell in SITE_CELLS]

    def over(self, task: Any, s: int) -> bool:
        row, col, passenger, _ = self.factors[s]
        if self.ended[s]:
            return True
        if task == "Root":
            return False
        if task == "Get":
            return passenger == IN_TAXI
        if task == "Put":
            return passenger != IN_TAXI
        return (row, col) == self.sites[task[1]]

    def children(self, task: Any, s: int) -> list[Any]:
        _, _, passenger, destination = self.factors[s]
        if task == "Root":
            candidates: list[Any] = ["Get", "Put"]
        elif task == "Get":
            candidates = [("Navigate", passenger), 4]
        elif task == "Put":
            candidates = [("Navigate", destination), 5]
        else:
            return [0, 1, 2, 3]
        return [c for c in candidates if isinstance(c, int) or not self.over(c, s)]

    def key(self, task: Any, child: Any, s: int) -> Any:
        """What C(task, s, child) sees of the state; None where it is 0."""
        row, col, passenger, destination = self.factors[s]
        if task == "Root":
            return None if child == "Put" else (task, child, passenger, destination)
        if task == "Get":
            return (task, child, passenger, row, col) if child == 4 else (task, "Navigate", passenger)
        if task == "Put":
            return (task, child, destination, row, col) if child == 5 else (task, "Navigate", destination)
        return (task, child, row, col)

    def reward_key(self, action: int, s: int) -> Any:
        row, col, passenger, destination = self.factors[s]
        if action == 4:
            return action, passenger != IN_TAXI and (row, col) == self.sites[passenger]
        if action == 5:
            return action, passenger == IN_TAXI and (row, col) == self.sites[destination]
        return action

    def value(self, node: Any, s: int) -> float:
        if isinstance(node, int):
            return self.V.get(self.reward_key(node, s), 0.123)
        return self.best(node, s)[2]

    def options(self, task: Any, s: int) -> list[tuple[Any, float, float]]:
        """Children with Q̃ and Q."""
        found = []
        for child in self.children(task, s):
            key, v = self.key(task, child, s), self.value(child, s)
            if key is None:
                found.append((child, v, v))
            else:
                found.append((child, v + self.inside.get(key, 0.123), v + self.C.get(key, 0.123)))
        return found

    def best(self, task: Any, s: int) -> tuple[Any, float, float]:
        return max(self.options(task, s), key=lambda option: option[1])

    def choose(self, task: Any, s: int) -> Any:
        options = self.options(task, s)
        if len(options) == 1:
            return options[0][0]
        temperature = max(self.temperature[task if isinstance(task, str) else "Navigate"], maxq.COLD)
        highest = max(q for _, q, _ in options)
        weights = [math.exp((q - highest) / temperature) for _, q, _ in options]
        return self.random.choices([child for child, _, _ in options], weights)[0]

    def execute(self, task: Any, s: int) -> tuple[list[int], int]:
        """Run a subtask or an action from s: the states it went through, last first, and where it ended."""
        if isinstance(task, int):
            after = self.successors[s][task][self.columns[int(self.random.random() * len(self.columns))]]
            reward, key = self.rewards[s][task], self.reward_key(task, s)
            self.V[key] = (1 - self.alpha) * self.V.get(key, 0.123) + self.alpha * reward
            self.earned += reward
            self.left -= 1
            return [s], after
        sequence: list[int] = []
        while not self.over(task, s) and self.left > 0:
            child = self.choose(task, s)
            states, after = self.execute(child, s)
            if isinstance(child, int) or self.over(child, after):
                if self.over(task, after):
                    inside, outside = (0.0 if self.at_goal(task, after) else -100.0), 0.0
                else:
                    _, inside, outside = self.best(task, after)
                for state in states:
                    key = self.key(task, child, state)
                    if key is not None and child in self.children(task, state):
                        self.inside[key] = (1 - self.alpha) * self.inside.get(key, 0.123) + self.alpha * inside
                        self.C[key] = (1 - self.alpha) * self.C.get(key, 0.123) + self.alpha * outside
            sequence = states + sequence
            s = after
        if self.over(task, s) and self.at_goal(task, s):
            name = task if isinstance(task, str) else "Navigate"
            self.temperature[name] *= self.cooling[name]
        return sequence, s

    def at_goal(self, task: Any, s: int) -> bool:
        return self.ended[s] if task in ("Root", "Put") else self.over(task, s)

    def learn(self, steps: int) -> list[float]:
        """At least so many steps; the rewards of its trials of at most 500."""
        returns, taken = [], 0
        while taken < steps:
            self.left, self.earned = 500, 0.0
            self.execute("Root", self.random.choice(self.starts))
            taken += 500 - self.left
            returns.append(self.earned)
        self.taken = taken
        return returns


def main(arguments: Arguments) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    env = Taxi(noise=True, fickle=True)
    algorithm = maxq.make(maxq.Config(steps=500), env, single(env.default_params))
    states = [init_seeds(algorithm, RunConfig(seeds=arguments.runs, seed=1000 * i)) for i in range(arguments.rounds)]
    begun = time.perf_counter()
    # halves, so that the reward of the second is known apart
    chunk = jax.jit(make_chunk(algorithm, arguments.steps // 1000), donate_argnums=0).lower(states[0]).compile()
    compile_seconds = time.perf_counter() - begun

    ours, plain, rewards, plain_rewards = [], [], [], []
    for i, state in enumerate(states):
        begun = time.perf_counter()
        for _ in range(2):
            state, metrics, _ = jax.block_until_ready(chunk(state))
        seconds = time.perf_counter() - begun
        ours.append(arguments.runs * 2 * (arguments.steps // 1000) * 500 / seconds)
        rewards.append(float(metrics["return"].mean()))
        learner = PlainMaxQ(env, seed=i)
        begun = time.perf_counter()
        returns = learner.learn(arguments.steps)
        plain.append(learner.taken / (time.perf_counter() - begun))
        plain_rewards.append(statistics.mean(returns[-500:]))
        print(f"round {i}: ours {ours[-1]:.0f}, plain Python {plain[-1]:.0f} steps/s", flush=True)

    ratios = [us / them for us, them in zip(ours, plain)]
    device = jax.devices()[0]
    row = {
        "what": f"MAXQ-Q with state abstraction on fickle Taxi, learning from scratch, {arguments.runs} runs",
        "unit": "environment steps per second",
        "ours": statistics.median(ours),
        "peer": "plain Python, one run",
        "theirs": statistics.median(plain),
        "ratio": statistics.median(ours) / statistics.median(plain),
        "compile_seconds": compile_seconds,
        "aggregate": True,
        "note": (
            f"medians of {len(ratios)} rounds of {arguments.steps} steps per run, ratios of single rounds "
            f"{min(ratios):.1f} to {max(ratios):.1f}; mean reward of ours in the second half "
            f"{statistics.mean(rewards):.1f}, of the last 500 trials in Python {statistics.mean(plain_rewards):.1f}"
        ),
    }
    name = "cpu" if device.platform == "cpu" else device.device_kind.lower().replace(" ", "-")
    path = write(arguments.out or ROOT / "throughput" / f"maxq-{name}.json", {**provenance(), "rows": [row]})
    print(f"{row['what']}: {row['ours']:.0f} {row['unit']}, {row['ratio']:.1f} × plain Python; {row['note']}")
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
