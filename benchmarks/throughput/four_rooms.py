"""Four rooms under a random policy: this project beside gymnax, navix and XLand-MiniGrid, in one run on the same cores.

    python -m benchmarks.throughput.four_rooms --navix-python PYTHON --xland-python PYTHON
    taskset -c 0 python -m benchmarks.throughput.four_rooms --out FILE ...      # one core: steadier

PYTHON is one that has the package (on PyPI: navix, which needs Python 3.12 since 0.7.5, and xminigrid); the rows of a
package without one are left out.

Counted: environment steps per second of 2048 environments × 5000 steps, one compiled scan with vmap inside; navix and
XLand-MiniGrid take a hundredth of the steps. A step draws a random action, moves, and resets the environment where its
episode ended. State and observation are carried from step to step and rewards are counted, so that none of them can be
dropped. Parameters are data of the compiled program where the package has any that can be. Compile seconds, tracing
included, are apart. Keys are fed in two ways, alike for all:

- batch: in every step one key is split into one for the batch of actions and one per environment for the steps;
- carried: every environment carries its key and splits it in every step, also for its action.

Ours and gymnax's each run twice: through gymnax's own `Environment.step`, which splits each key once more for the
reset, and through `step_env`, `reset_env` and a select, with two keys from the outset. Every contender has its own
process and runs while the others wait. The rounds alternate between them, so that a slow minute of the machine hits
all; medians and their ratio are reported.

The tasks: ours and gymnax's are the same (13 × 13, goal, start, noise and time limit) and reach the goal equally often
(`goals_per_million_steps`); ours observes row and column, gymnax's the goal's too. navix and XLand-MiniGrid have
MiniGrid's four rooms, made 13 × 13 as well: doors, goal and start drawn anew in each episode, turning and walking, no
noise, symbolic images as observations (navix also without). They keep keys of their own for the resets, so that only
actions need any.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Other packages are imported where they are needed: a contender's Python need not have them.

OURS, OURS_SELECT = "ours, Environment.step", "ours, step_env and reset_env"
GYMNAX, GYMNAX_SELECT = "gymnax, Environment.step", "gymnax, step_env and reset_env"
NAVIX, NAVIX_BLIND, XLAND = "navix", "navix, no observation", "XLand-MiniGrid"
PACKAGES = {  # on PyPI, of each contender
    OURS: "jaxrl-hier",
    OURS_SELECT: "jaxrl-hier",
    GYMNAX: "gymnax",
    GYMNAX_SELECT: "gymnax",
    NAVIX: "navix",
    NAVIX_BLIND: "navix",
    XLAND: "xminigrid",
}
SLOW = (NAVIX, NAVIX_BLIND, XLAND)
PEERS = {OURS: (GYMNAX, *SLOW), OURS_SELECT: (GYMNAX, GYMNAX_SELECT, *SLOW)}


@dataclass(frozen=True)
class Arguments:
    navix_python: str | None = None
    """a Python with navix"""
    xland_python: str | None = None
    """a Python with xminigrid"""
    rounds: int = 5
    """alternations of all contenders, after one that is not counted"""
    envs: int = 2048
    steps: int = 5000
    """of each environment, per contender, way of feeding keys and round"""
    out: Path | None = None
    """the JSON; default benchmarks/results/throughput/four_rooms-<device>.json"""


# A contender


class Contender(NamedTuple):
    reset: Callable[..., Any]  # key, params -> carry: state and observation
    step: Callable[..., Any]  # keys, carry, action, params -> carry, reward; resets where the episode ended
    keys: int  # that a step takes
    actions: int
    params: Any = None


def make(name: str) -> Contender:
    if name in (OURS, OURS_SELECT):
        from jaxrl_envs.four_rooms import FourRooms, cell_index

        env = FourRooms(observation="coordinates")
        task = env.default_params.replace(goal=cell_index(8, 9), start=cell_index(4, 1), max_steps_in_episode=500)
        return through_step(env, task) if name == OURS else through_select(env, task)
    if name in (GYMNAX, GYMNAX_SELECT):
        import gymnax

        env, task = gymnax.make("FourRooms-misc")
        return through_step(env, task) if name == GYMNAX else through_select(env, task)
    return minigrid_of_xland() if name == XLAND else minigrid_of_navix(observed=name == NAVIX)


def through_step(env: Any, params: Any) -> Contender:
    def step(keys: Any, carry: Any, action: Any, params: Any) -> Any:
        obs, state, reward, *_ = env.step(keys[0], carry[1], action, params)
        return (obs, state), reward

    return Contender(env.reset_env, step, 1, env.num_actions, params)


def through_select(env: Any, params: Any) -> Contender:
    def step(keys: Any, carry: Any, action: Any, params: Any) -> Any:
        obs, state, reward, terminated, _ = env.step_env(keys[0], carry[1], action, params)
        done = terminated | env.is_truncated(state, params)
        return jax.tree.map(partial(jnp.where, done), env.reset_env(keys[1], params), (obs, state)), reward

    return Contender(env.reset_env, step, 2, env.num_actions, params)


def minigrid_of_navix(observed: bool) -> Contender:
    import navix

    options = {} if observed else {"observation_fn": navix.observations.none}
    env = navix.make("Navix-FourRooms-13x13-v0", **options)

    def step(keys: Any, carry: Any, action: Any, params: Any) -> Any:
        carry = env.step(carry, action)  # a reset takes a step of its own, without a move
        return carry, carry.reward

    return Contender(lambda key, params: env.reset(key), step, 0, len(env.action_set))


def minigrid_of_xland() -> Contender:
    import xminigrid
    from xminigrid.wrappers import GymAutoResetWrapper

    env, params = xminigrid.make("MiniGrid-FourRooms", height=13, width=13)  # params: static fields only
    env = GymAutoResetWrapper(env)

    def step(keys: Any, carry: Any, action: Any, _: Any) -> Any:
        carry = env.step(params, carry, action)
        return carry, carry.reward

    return Contender(lambda key, _: env.reset(params, key), step, 0, env.num_actions(params))


# The loop, the same for all


def batch(contender: Contender, envs: int, steps: int) -> Callable[..., Any]:
    def body(params: Any, state: Any, _: None) -> Any:
        key, carry = state
        key, key_action, key_step = jax.random.split(key, 3)
        keys = jax.random.split(key_step, (envs, contender.keys))
        action = random_action(key_action, contender.actions, (envs,))
        carry, reward = jax.vmap(contender.step, in_axes=(0, 0, 0, None))(keys, carry, action, params)
        return (key, carry), jnp.sum(reward > 0)

    def run(keys: Any, carry: Any, params: Any) -> Any:
        (key, carry), goals = jax.lax.scan(partial(body, params), (keys[0], carry), length=steps)
        return keys.at[0].set(key), carry, jnp.sum(goals)

    return run


def carried(contender: Contender, envs: int, steps: int) -> Callable[..., Any]:
    def one(key: Any, carry: Any, params: Any) -> Any:
        key, key_action, *keys = jax.random.split(key, 2 + contender.keys)
        return key, *contender.step(keys, carry, random_action(key_action, contender.actions), params)

    def body(params: Any, state: Any, _: None) -> Any:
        keys, carry = state
        keys, carry, reward = jax.vmap(one, in_axes=(0, 0, None))(keys, carry, params)
        return (keys, carry), jnp.sum(reward > 0)

    def run(keys: Any, carry: Any, params: Any) -> Any:
        (keys, carry), goals = jax.lax.scan(partial(body, params), (keys, carry), length=steps)
        return keys, carry, jnp.sum(goals)

    return run


MODES = {"batch": batch, "carried": carried}


def random_action(key: jax.Array, actions: int, shape: tuple[int, ...] = ()) -> jax.Array:
    """Cheaper than `randint`, which draws twice to rule out a bias of 2⁻³⁰."""
    return (jax.random.bits(key, shape, jnp.uint32) % actions).astype(jnp.int32)


# Processes


def work(name: str, envs: int, steps: int) -> None:
    """A contender's process: compiles, then runs once for each line of its input, which names a way of feeding keys."""
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are reported
    contender = make(name)
    keys = jax.random.split(jax.random.key(0), envs)
    carry = jax.jit(jax.vmap(contender.reset, in_axes=(0, None)))(keys, contender.params)
    programs, states, compile_seconds = {}, {}, {}
    for mode, loop in MODES.items():
        begun = time.perf_counter()
        programs[mode] = jax.jit(loop(contender, envs, steps)).lower(keys, carry, contender.params).compile()
        compile_seconds[mode] = time.perf_counter() - begun
        states[mode] = (keys, carry)
    package = PACKAGES[name]
    versions = {package: version(package), "jax": jax.__version__, "python": sys.version.split()[0]}
    print(json.dumps({"compile_seconds": compile_seconds, "versions": versions}), flush=True)
    for line in sys.stdin:
        mode = line.strip()
        begun = time.perf_counter()
        *state, goals = jax.block_until_ready(programs[mode](*states[mode], contender.params))
        seconds = time.perf_counter() - begun
        states[mode] = tuple(state)
        print(json.dumps({"steps_per_second": envs * steps / seconds, "goals": int(goals)}), flush=True)


class Worker:
    """A contender's process, and what it measured."""

    def __init__(self, python: str, name: str, envs: int, steps: int):
        self.name = name
        self.million_steps = envs * steps / 1e6
        command = [python, __file__, "--work", name, str(envs), str(steps)]
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # the contenders share a GPU's memory
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.about = self.answer()
        self.speeds: dict[str, list[float]] = {mode: [] for mode in MODES}
        self.goals: dict[str, list[int]] = {mode: [] for mode in MODES}

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} failed, see above")
        return json.loads(line)

    def run(self, mode: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(mode + "\n")
        self.process.stdin.flush()
        measured = self.answer()
        self.speeds[mode].append(measured["steps_per_second"])
        self.goals[mode].append(measured["goals"])


def main(arguments: Arguments) -> None:
    from benchmarks.results import ROOT, provenance, write

    pythons = {"navix": arguments.navix_python, "xminigrid": arguments.xland_python}
    workers = {}
    for name, package in PACKAGES.items():
        if python := pythons.get(package, sys.executable):
            steps = max(1, arguments.steps // 100) if name in SLOW else arguments.steps
            workers[name] = Worker(python, name, arguments.envs, steps)
    for _ in range(1 + arguments.rounds):  # the first: page faults, thread pools
        for mode in MODES:
            for worker in workers.values():
                worker.run(mode)
    for worker in workers.values():
        worker.process.communicate()  # closes its input, which ends it

    table = {name: summary(worker) for name, worker in workers.items()}
    pairs = [(workers[us], workers[them]) for us in PEERS for them in PEERS[us] if them in workers]
    rows = [compare(us, them, mode) for mode in MODES for us, them in pairs]
    content = {**provenance(), "rows": rows, "contenders": table, "cpu_count": os.cpu_count()}
    for python in filter(None, pythons.values()):  # where it lies says nothing to a reader
        content["command"] = content["command"].replace(python, "PYTHON")
    device = jax.devices()[0]
    name = "cpu" if device.platform == "cpu" else device.device_kind.lower().replace(" ", "-")
    path = write(arguments.out or ROOT / "throughput" / f"four_rooms-{name}.json", content)
    for mode in MODES:
        for name, measured in table.items():
            cells = measured[mode]
            speed = f"{cells['steps_per_second'] / 1e6:7.3f} M steps/s, compiled in {cells['compile_seconds']:5.2f} s"
            print(f"{mode:<8} {name:<32}{speed}{cells['goals_per_million_steps']:6.0f} goals per million steps")
    for row in rows:
        print(f"{row['what']:<72}{row['ratio']:6.1f} × {row['peer']:<32}{row['note']}")
    print(path)


def summary(worker: Worker) -> dict[str, Any]:
    """Of the counted rounds; speeds are medians."""
    return {"versions": worker.about["versions"]} | {
        mode: {
            "steps_per_second": statistics.median(worker.speeds[mode][1:]),
            "rounds": worker.speeds[mode][1:],
            "goals_per_million_steps": statistics.mean(worker.goals[mode][1:]) / worker.million_steps,
            "compile_seconds": worker.about["compile_seconds"][mode],
        }
        for mode in MODES
    }


def compare(ours: Worker, theirs: Worker, mode: str) -> dict[str, Any]:
    pairs = [us / them for us, them in zip(ours.speeds[mode][1:], theirs.speeds[mode][1:])]
    us, them = (statistics.median(worker.speeds[mode][1:]) for worker in (ours, theirs))
    return {
        "what": f"four rooms, random policy, keys {mode}: {ours.name}",
        "unit": "environment steps per second",
        "ours": us,
        "peer": theirs.name,
        "theirs": them,
        "ratio": us / them,
        "compile_seconds": ours.about["compile_seconds"][mode],
        "their_compile_seconds": theirs.about["compile_seconds"][mode],
        "aggregate": False,
        "note": f"medians of {len(pairs)} rounds, ratios of single rounds {min(pairs):.1f} to {max(pairs):.1f}",
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        import tyro

        main(tyro.cli(Arguments))
