"""Thousands of tasks: seconds and memory of one outer step of MAML, from 20 to 5000 tasks.

    python -m benchmarks.throughput.maml_tasks

2-D navigation at the published size, 20 trajectories × 100 steps for each task before and after adaptation, second
order, Adam. Trajectories are sampled and differentiated ten tasks at a time and the gradient is accumulated, so that
memory stays where it is; beside it, the memory of the program that holds all trajectories at once, which is compiled
and not run. Seconds include the rollouts.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import tyro

import jaxrl_envs
from benchmarks.results import ROOT, provenance, write
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.meta import maml


@dataclass(frozen=True)
class Arguments:
    tasks: tuple[int, ...] = (20, 50, 100, 200, 500, 1000, 2000, 5000)
    """tasks per outer step"""
    microbatch: int = 10
    """tasks at a time; divides each of them"""
    seconds: float = 15.0
    """to spend on each number of tasks, at least one step after the first"""
    out: Path | None = None
    """folder of JSON and picture; default benchmarks/results/throughput"""


def compiled(tasks: int, microbatch: int | None) -> tuple[Any, Any, int, float]:
    """An iteration, how to begin, its environment steps, and its temporary memory in MiB."""
    env, distribution = jaxrl_envs.make("navigation2d")
    config = maml.Config(meta_batch_size=tasks, microbatch_size=microbatch, outer="adam")
    algorithm = maml.make(config, env, distribution)
    init = jit(algorithm.init)
    state = jax.eval_shape(init, jax.random.key(0))
    step = jit(algorithm.step, donate_argnums=0).lower(state).compile()
    return step, init, algorithm.env_steps, step.memory_analysis().temp_size_in_bytes / 2**20


def measure(tasks: int, arguments: Arguments) -> dict[str, Any]:
    """Time and memory of an outer step over so many tasks."""
    step, init, env_steps, bounded = compiled(tasks, arguments.microbatch)
    state, begun = init(jax.random.key(0)), time.perf_counter()
    seconds: list[float] = []
    while len(seconds) < 2 or (time.perf_counter() - begun < arguments.seconds and len(seconds) < 20):
        start = time.perf_counter()
        state, _ = step(state)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - start)
    return {
        "tasks": tasks,
        "seconds": statistics.median(seconds[1:]),
        "steps_timed": len(seconds) - 1,
        "env_steps_per_second": env_steps / statistics.median(seconds[1:]),
        "temporary_mib": bounded,
        "temporary_mib_all_at_once": compiled(tasks, None)[3],
    }


def main(arguments: Arguments) -> None:
    rows = []
    for tasks in arguments.tasks:
        rows.append(measure(tasks, arguments))
        print(rows[-1], flush=True)
    folder = arguments.out or ROOT / "throughput"
    device = jax.devices()[0]
    name = "cpu" if device.platform == "cpu" else device.device_kind.lower().replace(" ", "-")
    content = {**provenance(), "microbatch": arguments.microbatch, "rows": rows}
    path = write(folder / f"maml_tasks-{name}.json", content)
    picture(rows, folder / f"maml_tasks-{name}.png")
    print(path)


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds, and memory with and without microbatches, against the number of tasks."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from jaxrl_hier.reports.plotting import BLUE, GREY, STYLE

    column = lambda name: [row[name] for row in rows]
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8))
        left.loglog(column("tasks"), column("seconds"), "o-", color=BLUE)
        left.set(title="time", ylabel="seconds per outer step, rollouts included")
        right.loglog(column("tasks"), column("temporary_mib"), "o-", color=BLUE, label="in microbatches")
        right.loglog(column("tasks"), column("temporary_mib_all_at_once"), "s--", color=GREY, label="all tasks at once")
        right.set(title="memory", ylabel="temporary memory, MiB")
        right.legend()
        for ax in (left, right):
            ax.set_xlabel("tasks per outer step")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
        plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
