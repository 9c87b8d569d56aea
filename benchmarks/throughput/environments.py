"""Steps per second of every environment of this package under a random policy, over numbers of environments.

All environments of a row run side by side in one compiled scan with vmap inside: an action drawn from the action space,
a step, and a reset where the episode ended, through gymnax's own `Environment.step`. Observations are summed, so that
none is left out of the program. Each environment has a task of its own. Blocks alternate between the numbers of
environments; medians are reported, compilation apart. A row is one program on all cores; its memory is that of states
and of what XLA keeps on the way.

Gymnasium's own speed stands beside the environments that it has too: one environment in a Python loop. `four_rooms`
compares with gymnax, navix and XLand-MiniGrid.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_envs.registry import ENVIRONMENTS
from jaxrl_hier.building import environment
from jaxrl_hier.engine.compilation import jit

from ..drawing import BLACK, BLUE, GREEN, VERMILION, subplots
from ._timing import Program, Setup, device_in_words

NUMBERS = (1, 64, 4096)
STEPS = 2**18  # of all environments, in a block; at least 64 of each
GYMNASIUM = {"taxi": "Taxi-v4", "CartPole-v1": "CartPole-v1", "Pendulum-v1": "Pendulum-v1"}
GYMNASIUM_STEPS = 5_000


def rows(setup: Setup) -> Iterator[dict[str, Any]]:
    names = list(dict.fromkeys([*ENVIRONMENTS, *GYMNASIUM]))
    for name in setup.chosen(names, smoke=("four-rooms", "CartPole-v1")):
        numbers = NUMBERS[:2] if setup.smoke else NUMBERS
        programs = {count: program(name, count, 64 if setup.smoke else max(64, STEPS // count)) for count in numbers}
        gymnasium: list[float] = []
        for _ in range(setup.rounds):
            for timed in programs.values():
                timed.run()
            if name in GYMNASIUM:
                gymnasium.append(gymnasium_speed(GYMNASIUM[name], 100 if setup.smoke else GYMNASIUM_STEPS))
        for count, timed in programs.items():
            yield row(name, count, timed, gymnasium)


def program(name: str, count: int, steps: int) -> Program:
    """So many environments, each with a task of its own, for so many steps."""
    env, tasks = environment(name)
    task = jit(jax.vmap(tasks.sample))(jax.random.split(jax.random.key(0), count))
    space = env.action_space(jax.tree.map(lambda x: x[0], task))

    def step(carry: Any, _: None) -> tuple[Any, None]:
        key, state, total = carry
        key, key_action, key_step = jax.random.split(key, 3)
        actions = jax.vmap(space.sample)(jax.random.split(key_action, count))
        obs, state, reward, *_ = jax.vmap(env.step)(jax.random.split(key_step, count), state, actions, task)
        seen = sum(jnp.sum(x.astype(jnp.float32)) for x in jax.tree.leaves((obs, reward)))
        return (key, state, total + seen), None

    begin = jit(lambda key: jax.vmap(env.reset)(jax.random.split(key, count), task)[1])
    carry = (jax.random.key(1), begin(jax.random.key(2)), jnp.zeros(()))
    return Program(lambda carry: jax.lax.scan(step, carry, length=steps)[0], carry, count * steps)


def gymnasium_speed(name: str, steps: int) -> float:
    """Steps per second of Gymnasium's own environment in a Python loop."""
    import gymnasium

    env = gymnasium.make(name)
    env.reset(seed=0)
    env.action_space.seed(0)
    begun = time.perf_counter()
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    return steps / (time.perf_counter() - begun)


def row(name: str, count: int, timed: Program, gymnasium: Sequence[float]) -> dict[str, Any]:
    ours, theirs = statistics.median(timed.speeds), statistics.median(gymnasium) if gymnasium else None
    return {
        "what": f"{name}, {count} environment{'s' if count > 1 else ''}",
        "unit": "environment steps per second",
        "ours": ours,
        "peer": "Gymnasium, one environment in a Python loop" if theirs else None,
        "theirs": theirs,
        "ratio": ours / theirs if theirs else None,
        "compile_seconds": timed.compile_seconds,
        "aggregate": False,
        "note": f"median of {len(timed.speeds)} blocks; one program on {device_in_words()}; "
        f"{timed.bytes / count / 1024:.3g} KiB for each environment",
    }


def draw(rows: list[dict[str, Any]]) -> Any:
    """A line for each environment: its speed for each number of environments, and Gymnasium's."""
    named = [(*row["what"].split(", "), row) for row in rows]
    names = list(dict.fromkeys(name for name, _, _ in named))
    figure, ((ax,),) = subplots(figsize=(8.0, 1.2 + 0.19 * len(names)))
    numbers = list(dict.fromkeys(number for _, number, _ in named))
    for number, color, marker in zip(numbers, (BLUE, GREEN, VERMILION), "osD"):
        found = [(row["ours"], names.index(name)) for name, of_it, row in named if of_it == number]
        ax.plot(*zip(*found), marker, color=color, ms=5, label=number)
    if theirs := {(row["theirs"], names.index(name)) for name, _, row in named if row["theirs"]}:
        ax.plot(*zip(*theirs), "x", color=BLACK, ms=6, label="Gymnasium, one in a Python loop")
    ax.set(xscale="log", xlabel="environment steps per second", ylim=(len(names) - 0.3, -0.7))
    ax.set_yticks(range(len(names)), names, fontsize=7)
    figure.legend(loc="outside upper center", ncols=2)
    return figure
