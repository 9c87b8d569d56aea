"""What the figures of recurrent meta-learners share: test tasks, and trials that are recorded."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxrl_hier import Run
from jaxrl_hier.engine.rollout import begin, rollout
from jaxrl_hier.engine.types import Agent, Params, Tasks, Transition, World

DUAN = "Duan et al., RL²: Fast reinforcement learning via slow reinforcement learning (2016)"
WANG = "Wang et al., Learning to reinforcement learn (2016)"
# the paper fixes learner, memory, size and inputs; the rest is from its ranges, or chosen as the figures say
WANG_SETTINGS: dict[str, Any] = {
    "learner": "a2c",
    "trial_number": True,
    "memory": "lstm",
    "memory_size": 48,
    "separate_critic": False,
    "environments": 64,
    "discount": 0.9,
    "gae_lambda": 1.0,
    "critic_weight": 0.05,
    "value_scale": 10.0,
    "entropy_weight": 0.05,
    "optimizer": "rmsprop",
    "learning_rate": 2e-3,
    "eval_tasks": 100,
}


def each_seed(run: Run) -> Iterator[Params]:
    """What each seed has learned."""
    for i in range(run.settings.seeds):
        yield jax.tree.map(lambda x, i=i: x[i], run.state.params)


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


def pooled_deviation(means: np.ndarray, deviations: np.ndarray, count: int) -> float:
    """The standard deviation of `count` values for each of S groups together, from those of the groups [S]."""
    total = np.sum((count - 1) * deviations**2 + count * (means - means.mean()) ** 2)
    return float((total / (count * len(means) - 1)) ** 0.5)
