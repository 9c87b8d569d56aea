"""What the benchmarks of recurrent meta-learners share: trained agents that are kept, and trials that are recorded."""

from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_hier.engine.identity import Identity
from jaxrl_hier.engine.rollout import begin, rollout
from jaxrl_hier.engine.train import RunConfig, train
from jaxrl_hier.engine.types import Agent, Algorithm, Params, Tasks, Transition, World
from jaxrl_hier.meta import rl2


class Trained:
    """Agents of all seeds, trained on one distribution of tasks."""

    def __init__(self, name: str, config: rl2.Config, env: Any, tasks: Tasks, run: RunConfig, keep: Path | None):
        """`keep`: a folder; what was trained there before is gone on with, which is nothing when it is done."""
        self.algorithm: Algorithm = rl2.make(config, env, tasks)
        folder = None if keep is None else keep / name
        resume = folder is not None and (folder / "config.json").is_file()
        result = train(
            self.algorithm, run, directory=folder, identity=Identity({"config": asdict(config)}), resume=resume
        )
        self.name, self.run, self.config, self.compile_seconds = name, run, config, result.compile_seconds
        speeds = {row["iteration"]: row["steps_per_second"] for row in result.rows}
        stretches = zip(pairwise([0, *speeds]), speeds.values())
        steps = self.algorithm.env_steps * run.seeds
        self.seconds = sum(steps * (after - before) / speed for (before, after), speed in stretches)
        self.params: list[Params] = [jax.tree.map(lambda x, i=i: x[i], result.state.params) for i in range(run.seeds)]

    def about(self) -> dict[str, Any]:
        """What it took, for the JSON."""
        steps = self.run.iterations * self.algorithm.env_steps
        return {
            "environment_steps_of_each_seed": steps,
            "train_seconds_of_all_seeds": self.seconds,
            "compile_seconds": self.compile_seconds or None,  # None: kept from an earlier call
            "settings": asdict(self.config),
        }


def recorder(
    env: Any, agent: Agent, length: int, record: Callable[[World], Any]
) -> Callable[[Params, Any], tuple[Any, Transition]]:
    """(params, tasks [N]) -> what `record` says of the worlds before each step, and the steps: [length, N].

    One compiled program for all tasks and params of the same shapes.
    """

    @jax.jit
    def play(params: Params, batch: Any) -> tuple[Any, Transition]:
        never = Tasks(sample=lambda key: None)

        def start(task: Any, key: jax.Array) -> World:
            return begin(env, agent, Tasks(sample=lambda _: task), params, key)

        def step(worlds: World, _: None) -> tuple[World, Any]:
            after, seen = rollout(env, agent, never, params, worlds, 1)
            return after, (record(worlds), jax.tree.map(lambda x: x[0], seen))

        count = jax.tree.leaves(batch)[0].shape[0]
        worlds = jax.vmap(start)(batch, jax.random.split(jax.random.key(0), count))
        return jax.lax.scan(step, worlds, length=length)[1]

    return lambda params, batch: jax.device_get(play(params, batch))


def fresh(tasks: Tasks, count: int, seed: int = 2016) -> Any:
    """`count` tasks to test on, the same for everyone, leading axis [count]."""
    return jax.vmap(tasks.sample)(jax.random.split(jax.random.key(seed), count))


def standard_error(values: Any) -> float:
    """Of the mean of independent values."""
    values = np.asarray(values, np.float64).ravel()
    return float(values.std(ddof=1) / len(values) ** 0.5)
