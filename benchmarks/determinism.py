"""Whether two runs of the same seeds are equal bit for bit: every preset, on one device and on several.

    python -m benchmarks determinism                # as many devices as there are; on a CPU 1 and 8 virtual ones
    python -m benchmarks determinism --publish

Each preset is trained in two processes. The second loads the programs that the first has compiled. What is compared is
every number of the final state, the metrics of every chunk, and the evaluation.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxrl_hier
from jaxrl_hier import registry
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import NamedArray

from .results import ROOT, Row, provenance, show, write
from .throughput._timing import device_in_words, processor

VIRTUAL = 8  # devices of a CPU
RUN: dict[str, Any] = {"iterations": 6, "log_every": 2, "checkpoint_every": 6, "quiet": True, "plots": False}


def small(name: str) -> dict[str, Any]:
    """Settings that make a preset small and leave its structure: the same losses, loops and updates.

    Every number of environments or tasks is a multiple of `VIRTUAL`.
    """
    replay: dict[str, Any] = {"environments": 16, "batch_size": 64, "updates": 2, "capacity": 8192, "warmup_steps": 640}
    replay |= {"hidden": (32, 32), "eval_episodes": 8}
    meta: dict[str, Any] = {
        "meta_batch_size": 8,
        "episodes_per_task": 4,
        "horizon": 20,
        "hidden": (32, 32),
        "eval_tasks": 8,
    }
    meta |= {"eval_episodes": 4, "eval_inner_steps": 2}
    tables: dict[str, Any] = {"recorded_episodes": 2, "environments": 16}
    by_module: dict[str, dict[str, Any]] = {
        "dqn": replay,
        "td3": replay,
        "sac": replay,
        "policy_gradient": {"environments": 16, "rollout_length": 16, "minibatch_size": 64, "hidden": (32, 32)}
        | {"eval_episodes": 8},
        "q_learning": tables,
        "sarsa": tables,
        "smdp_q": tables,
        "intra_option_q": tables,
        "option_critic_tabular": tables,
        "option_critic": {"environments": 16, "hidden": (32,), "eval_episodes": 8},
        "option_ppo": {"environments": 16, "rollout_length": 16, "minibatch_size": 64, "hidden": (32, 32)}
        | {"eval_episodes": 8},
        "maxq": {"environments": 16, "rollout_length": 20, "eval_episodes": 8, "eval_horizon": 50},
        "uvfa": {"environments": 16, "hidden": (32,), "eval_goals": 8, "eval_episodes": 2},
        "fun": {"environments": 16, "channels": (8,), "hidden": (32,), "goal_size": 32, "eval_episodes": 8},
        "hiro": {"environments": 16, "batch_size": 32, "manager_updates": 2, "capacity": 8192, "warmup_steps": 160}
        | {"hidden": (32, 32), "eval_episodes": 8},
        "maml": meta,
        "few_shot_regression": {"meta_batch_size": 8, "hidden": (32, 32), "eval_tasks": 8},
        "rl2": {"environments": 32, "minibatch_size": 16, "memory_size": 32, "eval_tasks": 8},
        "rl2_options": {"environments": 32, "minibatch_size": 16, "memory_size": 32, "eval_tasks": 8},
        "varibad": {"environments": 32, "minibatch_size": 16, "elbo_minibatch_size": 16, "memory_size": 32}
        | {"eval_tasks": 8},
        "maml_options": meta,
        "mlsh": {"episodes_per_task": 4, "horizon": 20, "warmup_updates": 2, "joint_updates": 2, "minibatch_size": 40}
        | {"hidden": (32, 32), "eval_tasks": 8, "eval_updates": 2},
        "pearl": {
            "train_tasks": 8,
            "tasks_per_iteration": 8,
            "initial_steps": 20,
            "prior_steps": 20,
            "posterior_steps": 20,
            "updates": 2,
            "meta_batch_size": 8,
            "batch_size": 16,
            "context_size": 8,
            "hidden": (32, 32),
            "encoder_hidden": (32, 32),
            "capacity": 800,
            "eval_tasks": 8,
            "eval_episodes": 2,
        },
    }
    return by_module[str(registry.ALGORITHMS[name].module).rpartition(".")[2]]


def digests(name: str, devices: int) -> dict[str, str]:
    """A hash of each part of what a run gives."""
    trained = jaxrl_hier.train(name, devices=devices, **RUN, **small(name))
    rows = [{k: v for k, v in row.items() if k != "steps_per_second"} for row in trained.rows]
    return {
        "state": digest(trained.state),
        "rows": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "evaluation": digest({k: m.values if isinstance(m, NamedArray) else m for k, m in trained.evaluation.items()}),
    }


def digest(tree: Any) -> str:
    """A hash of all numbers of a tree of arrays."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        numbers = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        found.update(f"{numbers.dtype}{numbers.shape}".encode() + numbers.tobytes())
    return found.hexdigest()


@contextmanager
def trained_elsewhere(devices: int, cache: str) -> Iterator[Callable[[str], dict[str, Any]]]:
    """A function that trains the preset of a name in a process of its own, the same for all names."""
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    if jax.default_backend() == "cpu":
        env["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
    env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    command = [sys.executable, "-m", f"{__package__}.determinism", "--work", str(devices)]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        asked, answers = process.stdin, process.stdout
        assert asked is not None
        assert answers is not None

        def train(name: str) -> dict[str, Any]:
            print(name, file=asked, flush=True)
            if not (line := answers.readline()):
                raise UsageError(f"{' '.join(command[1:])} failed at {name}, see above")
            return json.loads(line)

        yield train  # the process ends with its input


def compared(names: Sequence[str], devices: int) -> Iterator[tuple[str, list[str]]]:
    """Of each preset the parts in which two runs differ, or what it says where it cannot run on so many devices."""
    with (
        tempfile.TemporaryDirectory() as cache,
        trained_elsewhere(devices, cache) as first,
        trained_elsewhere(devices, cache) as second,
    ):
        for name in names:
            one, other = first(name), second(name)
            if "refused" in one:
                yield name, [one["refused"]]
            else:
                yield name, [part for part in one["digests"] if one["digests"][part] != other["digests"][part]]


def measure(
    names: Sequence[str] = (),
    out: Path = Path("runs") / "determinism",
    publish: bool = False,
    counts: Sequence[int] = (),
) -> Path:
    """Compare, print, and write <out>/determinism-<device>.json, or the published file.

    Args:
        counts: numbers of devices; default: 1 and, on a CPU, `VIRTUAL`, elsewhere all that there are.

    Raises:
        UsageError: an unknown preset, or a part of them to publish.
    """
    if unknown := [name for name in names if name not in registry.ALGORITHMS]:
        raise UsageError(f"no preset is called {unknown[0]}; there are {', '.join(registry.ALGORITHMS)}")
    if publish and names:
        raise UsageError("some of the presets are not published: leave out their names")
    begun, about = time.perf_counter(), provenance()
    platform = jax.default_backend()
    kind = "cpu" if platform == "cpu" else jax.devices()[0].device_kind.lower().replace(" ", "-")
    content: dict[str, Any] = {"name": "determinism", "paper": "", **about, "hardware": device_in_words()}
    content["command"] = f"python -m {__package__} determinism"
    content |= {"artifact": "parts (state, rows, evaluation) in which two runs differ", "processor": processor()}
    content["xla_flags"] = os.environ.get("XLA_FLAGS", "")
    rows: list[Row] = []

    def written(folder: Path) -> Path:
        taken = {"wall_seconds": time.perf_counter() - begun, "rows": [row.as_json() for row in rows]}
        return write(folder / f"determinism-{kind}.json", content | taken)

    for count in counts or sorted({1, VIRTUAL if platform == "cpu" else jax.device_count()}):
        virtual = "virtual " if platform == "cpu" and count > 1 else ""
        for name, differ in compared(names or [*registry.ALGORITHMS], count):
            label = f"{name}, {count} {virtual}device{'s' if count > 1 else ''}"
            note = f"different: {', '.join(differ)}" if differ else ""
            made = Row.computed(label, len(differ), method="two processes compared", note=note)
            rows.append(made.judged("at most 0"))
            show(rows[-1:])
            path = written(out)  # if it is stopped, what has been compared is there
    return written(ROOT / "robustness") if publish else path


if __name__ == "__main__":
    for preset in map(str.strip, sys.stdin):
        try:
            print(json.dumps({"digests": digests(preset, int(sys.argv[2]))}), flush=True)
        except UsageError as refusal:
            print(json.dumps({"refused": str(refusal)}), flush=True)
