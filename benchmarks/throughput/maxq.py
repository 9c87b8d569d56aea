"""MAXQ-Q on fickle Taxi, 100 runs in one program, beside the same loop in plain Python.

Ours: 100 seeds that `train` carries out in one program, on one device and, on a CPU of several cores, with a device for
each core, which share the seeds. The number of devices is fixed when jax starts, so that each has its own process,
which waits for its turn.

There are two others, both written for this comparison, without NumPy, a run at a time on one core; the same task,
graph, state abstractions, pseudo-rewards, all-states updating, Boltzmann exploration and cooling:

- "straightforward": as one writes it from the paper. The rules of the taxi, a task graph as data, EvaluateMaxNode as a
  recursion over it, execution as another, dictionaries for the tables.
- "tuned": written for this graph alone. The task's tables of successors as lists, a state's variables looked up, and
  the value of no child evaluated that cannot be called.

A third one is public and no copy of ours: `--peers maxq=Taxi.py`, the one file of github.com/Kirili4ik/HRL-taxi (commit
c76f4aa), which learns by MAXQ-0, without state abstraction, pseudo-reward and all-states updating, on gymnasium's Taxi.
It does less per step, and is run as it is, on a stand-in for the old gym that counts steps.

The reward that each has learned to earn is given with the speeds. "aggregate": ours is a sum over independent learners,
as in the figure.

All learn from scratch for the same number of steps per run. The rounds alternate, so that a slow minute of the machine
hits all; medians, and the ratios of single rounds, are reported. Seconds until the first step, most of which XLA
compiles, are apart.
"""

import contextlib
import json
import math
import random
import runpy
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import jax

from jaxrl_envs.tasks import single
from jaxrl_envs.taxi import IN_TAXI, SITE_CELLS, SITES, WALLS, Taxi, decode
from jaxrl_hier.allocator import keep_freed_memory
from jaxrl_hier.hierarchical import maxq

from ._over_devices import OverDevices
from ._timing import Setup, Worker, most_devices, own_process

RUNS, STEPS = 100, 50_000  # in our one program; of each run
PER_CALL = 500  # steps of a run in one call of `step`
TARGET = 50
PEERS = {
    "straightforward": "our own plain Python, straightforward, one run",
    "tuned": "our own plain Python, tuned, one run",
    "public": "a public MAXQ-0 in Python on gymnasium's Taxi, one run",
}


@dataclass
class Contender:
    run: Callable[[int], tuple[float, float, float]]  # round -> steps, seconds, mean reward at the end
    compile_seconds: float = 0.0
    speeds: list[float] = field(default_factory=list)  # steps per second, a round each
    rewards: list[float] = field(default_factory=list)

    def measure(self, i: int) -> None:
        steps, seconds, reward = self.run(i)
        self.speeds.append(steps / seconds)
        self.rewards.append(reward)

    @property
    def speed(self) -> float:
        return statistics.median(self.speeds)


# Ours


def work(runs: int, steps: int) -> None:
    """Our process: compiles, then learns from scratch for each line of its input, which is a round's number."""
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    env = Taxi(noise=True, fickle=True)
    algorithm = maxq.make(maxq.Config(rollout_length=PER_CALL), env, single(env.default_params))
    calls = steps // (2 * PER_CALL)  # in halves, so that the reward of the second is known apart
    begun = time.perf_counter()
    trained = OverDevices(algorithm, runs, calls)
    print(json.dumps(time.perf_counter() - begun), flush=True)
    for line in sys.stdin:
        trained.state = trained.begin(10 * runs * int(line))
        begun = time.perf_counter()
        trained.run()
        metrics = trained.run()
        seconds = time.perf_counter() - begun
        print(json.dumps((runs * 2 * calls * PER_CALL, seconds, float(metrics["return"].mean().mean()))), flush=True)


def ours(devices: int, runs: int, steps: int) -> tuple[Worker, Contender]:
    """A process with so many devices, and its contender."""
    worker = Worker(own_process("maxq", runs, steps), devices)
    compile_seconds = worker.answer()
    return worker, Contender(worker.ask, compile_seconds)


# Plain Python


def in_python(make: Callable[[int], Any], steps: int) -> Contender:
    def run(i: int) -> tuple[float, float, float]:
        learner, later = make(i), []
        begun = time.perf_counter()
        while learner.taken < steps:
            earned = learner.trial()
            if learner.taken > steps / 2:
                later.append(earned)
        return learner.taken, time.perf_counter() - begun, statistics.mean(later)

    return Contender(run)


MOVES = {"south": (1, 0), "north": (-1, 0), "east": (0, 1), "west": (0, -1)}
DELIVERED = IN_TAXI + 1
SITE_PLACES = list(SITES.values())


class State(NamedTuple):
    row: int
    column: int
    passenger: int  # the site where he waits, IN_TAXI or DELIVERED
    destination: int
    source: int  # the site where he was picked up, which nobody sees

    def at(self, site: int) -> bool:
        return (self.row, self.column) == SITE_PLACES[site]


class World:
    """Fickle Taxi with the author's rules."""

    def __init__(self, rng: random.Random):
        self.random = rng

    def begin(self) -> State:
        row, column, source, destination = (self.random.randrange(n) for n in (5, 5, 4, 4))
        return State(row, column, source, destination, source)

    def step(self, s: State, action: str) -> tuple[State, float]:
        if action == "pick up":
            if s.passenger < IN_TAXI and s.at(s.passenger):
                return s._replace(passenger=IN_TAXI), -1.0
            return s, -11.0
        if action == "put down":
            if s.passenger == IN_TAXI and s.at(s.destination):
                return s._replace(passenger=DELIVERED), 19.0
            return s, -11.0
        destination = s.destination
        if s.passenger == IN_TAXI and s.at(s.source) and self.random.random() < 0.3:
            destination = self.random.randrange(4)
        down, right = MOVES[action]
        astray = self.random.random()
        if astray < 0.2:
            down, right = (right, down) if astray < 0.1 else (-right, -down)
        row, column = s.row + down, s.column + right
        wall = right and (row, min(s.column, column)) in WALLS
        if wall or not (0 <= row < 5 and 0 <= column < 5):
            row, column = s.row, s.column
        return State(row, column, s.passenger, destination, s.source), -1.0


Sight = Callable[[State], tuple[int, ...]] | None


class Node(NamedTuple):
    """A subtask of the graph."""

    family: str  # with which it shares its temperature
    cooling: float
    over: Callable[[State], bool]
    goal: Callable[[State], bool]
    children: dict[str, Callable[[State], str]]  # slot -> the subtask or action that it is in a state
    sees: dict[str, Sight]  # slot -> what its completion sees of a state; None: it is 0


def nodes() -> dict[str, Node]:
    always = lambda name: lambda s: name
    delivered = lambda s: s.passenger == DELIVERED
    held = lambda s: s.passenger == IN_TAXI
    cell: Sight = lambda s: (s.row, s.column)
    graph = {}
    for site in range(4):
        there = lambda s, site=site: s.at(site) or delivered(s)
        children = {move: always(move) for move in MOVES}
        graph[f"Navigate({site})"] = Node("Navigate", 0.9879, there, there, children, dict.fromkeys(MOVES, cell))
    got = lambda s: held(s) or delivered(s)
    graph["Get"] = Node(
        "Get",
        0.9526,
        got,
        got,
        {"Navigate": lambda s: f"Navigate({s.passenger})", "pick up": always("pick up")},
        {"Navigate": lambda s: (s.passenger,), "pick up": lambda s: (s.passenger, s.row, s.column)},
    )
    graph["Put"] = Node(
        "Put",
        0.9526,
        lambda s: not held(s),
        delivered,
        {"Navigate": lambda s: f"Navigate({s.destination})", "put down": always("put down")},
        {"Navigate": lambda s: (s.destination,), "put down": lambda s: (s.destination, s.row, s.column)},
    )
    children = {"Get": always("Get"), "Put": always("Put")}
    sees: dict[str, Sight] = {"Get": lambda s: (s.passenger, s.destination), "Put": None}
    graph["Root"] = Node("Root", 0.9074, delivered, delivered, children, sees)
    return graph


class Choice(NamedTuple):
    slot: str
    child: str
    inside: float  # Q̃
    value: float  # Q


class StraightforwardMaxQ:
    """MAXQ-Q as in the paper, on any graph."""

    def __init__(self, seed: int, alpha: float = 0.25):
        self.random, self.alpha, self.taken = random.Random(seed), alpha, 0
        self.world, self.graph = World(self.random), nodes()
        self.V: dict[Any, float] = defaultdict(lambda: 0.123)
        self.C: dict[Any, float] = defaultdict(lambda: 0.123)
        self.inside: dict[Any, float] = defaultdict(lambda: 0.123)
        self.temperature = {node.family: 50.0 for node in self.graph.values()}

    def reward_key(self, action: str, s: State) -> Any:
        if action == "pick up":
            return action, s.passenger < IN_TAXI and s.at(s.passenger)
        if action == "put down":
            return action, s.passenger == IN_TAXI and s.at(s.destination)
        return action

    def may_call(self, child: str, s: State) -> bool:
        return child not in self.graph or not self.graph[child].over(s)

    def choices(self, i: str, s: State) -> list[Choice]:
        node, found = self.graph[i], []
        for slot, bound in node.children.items():
            child = bound(s)
            if self.may_call(child, s):
                v, sees = self.evaluate(child, s), node.sees[slot]
                if sees is None:
                    found.append(Choice(slot, child, v, v))
                else:
                    key = i, slot, sees(s)
                    found.append(Choice(slot, child, v + self.inside[key], v + self.C[key]))
        return found

    def best(self, i: str, s: State) -> Choice:
        return max(self.choices(i, s), key=lambda choice: choice.inside)

    def evaluate(self, i: str, s: State) -> float:
        """EvaluateMaxNode."""
        return self.best(i, s).value if i in self.graph else self.V[self.reward_key(i, s)]

    def choose(self, i: str, s: State) -> Choice:
        choices = self.choices(i, s)
        highest = max(choice.inside for choice in choices)
        temperature = max(self.temperature[self.graph[i].family], maxq.COLD)
        weights = [math.exp((choice.inside - highest) / temperature) for choice in choices]
        return self.random.choices(choices, weights)[0]

    def execute(self, i: str, s: State) -> tuple[list[State], State]:
        """Run a subtask or an action from s: the states it went through, last first, and where it ended."""
        if i not in self.graph:
            after, reward = self.world.step(s, i)
            key = self.reward_key(i, s)
            self.V[key] += self.alpha * (reward - self.V[key])
            self.earned += reward
            self.left -= 1
            return [s], after
        node = self.graph[i]
        sequence: list[State] = []
        while not node.over(s) and self.left > 0:
            choice = self.choose(i, s)
            states, after = self.execute(choice.child, s)
            if choice.child not in self.graph or self.graph[choice.child].over(after):
                self.learn(i, choice, states, after)
            sequence, s = states + sequence, after
        if node.goal(s):
            self.temperature[node.family] *= node.cooling
        return sequence, s

    def learn(self, i: str, choice: Choice, states: list[State], after: State) -> None:
        node, sees = self.graph[i], self.graph[i].sees[choice.slot]
        if sees is None:
            return
        if node.over(after):
            inside, outside = (0.0 if node.goal(after) else -100.0), 0.0
        else:
            _, _, inside, outside = self.best(i, after)
        for s in states:
            if node.children[choice.slot](s) == choice.child and self.may_call(choice.child, s) and not node.over(s):
                key = i, choice.slot, sees(s)
                self.inside[key] += self.alpha * (inside - self.inside[key])
                self.C[key] += self.alpha * (outside - self.C[key])

    def trial(self) -> float:
        """One of at most 500 steps; its reward."""
        self.left, self.earned = 500, 0.0
        self.execute("Root", self.world.begin())
        self.taken += 500 - self.left
        return self.earned


class TunedMaxQ:
    """MAXQ-Q for this graph alone."""

    def __init__(self, env: Taxi, seed: int, alpha: float = 0.25):
        self.random, self.alpha, self.taken = random.Random(seed), alpha, 0
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

    def trial(self) -> float:
        """One of at most 500 steps; its reward."""
        self.left, self.earned = 500, 0.0
        self.execute("Root", self.random.choice(self.starts))
        self.taken += 500 - self.left
        return self.earned


# The public MAXQ-0


class Enough(Exception):
    """So many steps are done."""


def public(script: Path, steps: int) -> Contender:
    """The public script, which is a program, until it has made so many steps."""
    import gymnasium

    def taxi() -> Any:
        return gymnasium.make(next(n for n in ("Taxi-v4", "Taxi-v3") if n in gymnasium.registry)).unwrapped

    class OldTaxi:
        """Taxi in the words of the old gym."""

        def __init__(self) -> None:
            self.taxi = taxi()
            self.action_space, self.observation_space = self.taxi.action_space, self.taxi.observation_space
            self.decode, self.reset = self.taxi.decode, self.taxi.reset
            self.taken, self.earned, self.env = 0, [0.0], self
            self.reset()

        @property
        def s(self) -> int:
            return self.taxi.s

        def step(self, action: int) -> tuple[int, float, bool, dict]:
            if self.taken == steps:
                raise Enough
            self.taken += 1
            state, reward, done, _, info = self.taxi.step(action)
            self.earned[-1] += reward
            if done:
                self.earned.append(0.0)
            return state, reward, done, info

    def run(i: int) -> tuple[float, float, float]:
        env = OldTaxi()
        stand_ins = {"gym": SimpleNamespace(make=lambda name: env), "seaborn": SimpleNamespace()}
        with mock.patch.dict(sys.modules, stand_ins), contextlib.redirect_stdout(None):
            begun = time.perf_counter()
            with contextlib.suppress(Enough):
                runpy.run_path(str(script))
            seconds = time.perf_counter() - begun
        later = env.earned[len(env.earned) // 2 : -1]
        return env.taken, seconds, statistics.mean(later) if later else math.nan

    return Contender(run)


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    env = Taxi(noise=True, fickle=True)
    runs, steps = (4, 2 * PER_CALL) if setup.smoke else (RUNS, STEPS)
    split = max(n for n in range(1, most_devices() + 1) if runs % n == 0)
    theirs = {
        "straightforward": in_python(StraightforwardMaxQ, steps),
        "tuned": in_python(lambda seed: TunedMaxQ(env, seed), steps),
    }
    if "maxq" in setup.peers:
        theirs["public"] = public(Path(setup.peers["maxq"]), steps)
    workers, mine = zip(*(ours(devices, runs, steps) for devices in sorted({1, split})))
    for i in range(setup.rounds):
        for contender in (*mine, *theirs.values()):
            contender.measure(i)
    for worker in workers:
        worker.close()
    ways = ["one device", f"split over {split} devices, one per core"]
    for name, them in theirs.items():
        for way, us in zip(ways, mine):
            yield row(runs, steps, way, us, name, them)


def row(runs: int, steps: int, way: str, us: Contender, name: str, them: Contender) -> dict[str, Any]:
    ratio, ratios = us.speed / them.speed, [a / b for a, b in zip(us.speeds, them.speeds)]
    return {
        "what": f"MAXQ-Q with state abstraction on fickle Taxi, learning from scratch, {runs} runs, {way}",
        "unit": "environment steps per second",
        "ours": us.speed,
        "peer": PEERS[name],
        "theirs": them.speed,
        "ratio": ratio,
        "target": TARGET,
        "verdict": "reached" if ratio >= TARGET else "short",
        "compile_seconds": us.compile_seconds,
        "aggregate": True,
        "note": (
            f"medians of {len(ratios)} rounds of {steps} steps per run, ratios of single rounds "
            f"{min(ratios):.1f} to {max(ratios):.1f}; mean reward of the trials in the second half: ours "
            f"{statistics.mean(us.rewards):.1f}, in Python {statistics.mean(them.rewards):.1f} "
            f"({min(them.rewards):.1f} to {max(them.rewards):.1f})"
        ),
    }


if __name__ == "__main__":
    keep_freed_memory()
    work(int(sys.argv[2]), int(sys.argv[3]))
