"""What to measure when a GPU is at hand for minutes: steps in order of worth, each a process with a time limit.

    python -m benchmarks gpu --minutes 12                # into runs/gpu
    python -m benchmarks gpu --smoke                     # does it run? also on a CPU

A step may use its share of the minutes that are left, so that what one saves goes to those behind it. Then it is
stopped, and what it has written stays: every step writes as it measures, into a folder of its own with a log.
`summary.json` is written after every step. A step that fails, or whose packages are missing, stops no other.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxrl_hier.checks import UsageError, unknown

from .results import provenance, write

GRACE = 20.0  # seconds to save after a step is stopped


@dataclass(frozen=True)
class Step:
    """A command of `python -m`, to which `--out` and its folder are added, and how much time it is worth."""

    name: str
    weight: float  # its share of the minutes left is that of its weight among the steps left
    command: tuple[str, ...]
    smoke: tuple[str, ...]  # the same at a size for tests
    needs: str = ""  # a module of another package


def figure(name: str, *chosen: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    run = (__package__, "run", name, "--scale")
    return (*run, "gpu", *chosen), (*run, "smoke")


def speed(name: str, *chosen: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    run = (__package__, "throughput", name)
    return (*run, *chosen), (*run, "--scale", "smoke")


# of each kind one: replay, policy gradients, tables, hierarchies, adaptation by gradients, by memory, by inference
COMPARED = ("sac", "ppo", "q-learning", "hiro", "fun", "maml", "rl2", "pearl")
MONTEZUMA = ("jaxrl_hier.cli", "train", "fun", "--env", "atari-montezumarevenge-pixels", "--no-plots")
SIZES = "--channels 16 32 32 32 --hidden 256 --goal-size 256 --worker-size 256 --worker-discount 0.99"
SIZES += " --manager-discount 0.999 --rollout-length 400 --iterations 20 --log-every 1 --checkpoint-every 20"
SMALL = "--environments 2 --channels 4 8 --hidden 16 --goal-size 32 --rollout-length 20 --iterations 2"
DETERMINISM = (__package__, "determinism")
STEPS = (
    Step("every-algorithm", 3, (f"{__package__}.gpu",), (f"{__package__}.gpu", "q-learning", "dqn")),
    Step("determinism", 2, (*DETERMINISM, *COMPARED), (*DETERMINISM, "q-learning")),
    Step("limits", 2, *speed("limits")),
    Step("maml", 1, *speed("maml", "--only", "TRPO, second order", "Adam, second order")),
    Step("rl2-xland", 1, *speed("rl2_xland", "--only", "8192 trials"), needs="xminigrid"),
    Step("rl2-processes", 2, *figure("rl2_tables", "--parts", "MDP, n = 10")),
    Step("pearl", 1, *figure("pearl_point_robot", "--parts", "PEARL", "--seeds", "1")),
    Step("locomotion", 1, *figure("locomotion", "--parts", "PPO*", "RL²*", "--seeds", "1"), needs="mujoco.mjx"),
    Step("montezuma", 1, (*MONTEZUMA, *SIZES.split()), (*MONTEZUMA, *SMALL.split()), needs="jaxtari"),
)


def run(minutes: float, smoke: bool, names: Sequence[str], peers: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """Run the steps, print and write the summary, and return its rows.

    Args:
        names: of the steps to run; (): all.
        peers: NAME=PATH of public programs to time beside ours, see `throughput`.

    Raises:
        UsageError: an unknown step, or no time.
    """
    known = [step.name for step in STEPS]
    if wrong := [name for name in names if name not in known]:
        raise unknown("step", wrong[0], known)
    if minutes <= 0:
        raise UsageError(f"minutes must be positive, got {minutes:g}")
    steps = [replace(step, command=step.smoke) if smoke else step for step in STEPS if step.name in (names or known)]
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # this process and those of the steps share the GPU
    end, about, rows = time.monotonic() + 60 * minutes, provenance(), list[dict[str, Any]]()
    for i, step in enumerate(steps):
        limit = (end - time.monotonic()) * step.weight / sum(other.weight for other in steps[i:])
        rows.append(carried_out(step, limit, peers, out / step.name))
        print("{name:16} {state:8} {seconds:6.0f} of {limit:.0f} s  {last}".format(**rows[-1]), flush=True)
        write(out / "summary.json", {"name": "gpu", "paper": "", **about, "minutes": minutes, "steps": rows})
    return rows


def carried_out(step: Step, limit: float, peers: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run one step for so many seconds at most; its row of the summary, with the last line that it printed."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["--peers", *peers] if peers and step.command[1:2] == ("throughput",) else []
    command = ["-m", *step.command, *flags, "--out", str(folder)]
    begun, row = time.monotonic(), {"name": step.name, "command": " ".join(["python", *command]), "limit": limit}
    if step.needs and not is_installed(step.needs):
        return row | {"state": "left out", "seconds": 0.0, "last": f"{step.needs} is not installed"}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log, start_new_session=True)
        try:
            state = "failed" if process.wait(max(limit, 0.0)) else "done"
        except subprocess.TimeoutExpired:
            state = "cut"
        finally:
            stop(process)
    lines = (folder / "log.txt").read_text().strip().splitlines()
    return row | {"state": state, "seconds": time.monotonic() - begun, "last": lines[-1] if lines else ""}


def is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that holds it
        return False


def stop(process: subprocess.Popen) -> None:
    """End a process and those that it has started: by SIGTERM, which lets training save, then by force."""
    for number, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
            process.wait(seconds)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def trained(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Of each preset, at a small size: seconds of training, compilation among them, or why it failed."""
    import jaxrl_hier
    from jaxrl_hier import registry

    from .determinism import RUN, small

    for name in names or registry.ALGORITHMS:
        begun, error = time.perf_counter(), ""
        try:
            jaxrl_hier.train(name, **RUN, **small(name))
        except Exception as failure:  # the others are tried all the same
            error = f"{type(failure).__name__}: {failure}"
        yield {"algorithm": name, "seconds": round(time.perf_counter() - begun, 2), "error": error}


if __name__ == "__main__":
    *presets, _, target = sys.argv[1:]
    failed = False
    with (Path(target) / "algorithms.jsonl").open("w") as file:
        for found in trained(presets):
            print(json.dumps(found), file=file, flush=True)
            print(found, flush=True)
            failed |= bool(found["error"])
    sys.exit(failed)
