"""Two processes that train one run agree with one process that has both devices; of two, one may be lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.folder import load_evaluations
from jaxrl_hier.engine.logging import read_jsonl
from tests.sizes import SIZES

CHEAP = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
RUN = {"iterations": 4, "log_every": 1, "checkpoint_every": 2, "evaluate_every": 2, "tensorboard": False}


def command(name, out, settings, *more):
    """`jaxrl-hier train` with small sizes."""
    flags = []
    for key, value in (SIZES[name] | RUN | settings).items():
        flag = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            flags += [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    return [sys.executable, "-m", "jaxrl_hier.cli", "train", name, *flags, "--no-plots", "--out", str(out), *more]


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def start(name, out, settings, *more):
    """Two processes on one device each."""
    others = ["--distributed", "--coordinator", f"localhost:{free_port()}", "--processes", "2", *more]
    env = os.environ | {"XLA_FLAGS": CHEAP}
    return [
        subprocess.Popen(
            command(name, out, settings, *others, "--process", str(i)), env=env, text=True, stderr=subprocess.PIPE
        )
        for i in range(2)
    ]


@contextmanager
def both(processes):
    """The processes, of which none is left at the end."""
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def await_rows(out, process):
    """Wait until a process has trained for some iterations."""
    rows = out / "metrics.jsonl"
    while not (rows.exists() and len(rows.read_text().splitlines()) > 2):
        assert process.poll() is None
        time.sleep(0.2)


def alone(name, out, settings, *more):
    """One process on two devices."""
    env = os.environ | {"XLA_FLAGS": f"{CHEAP} --xla_force_host_platform_device_count=2"}
    subprocess.run(command(name, out, settings, "--devices", "2", *more), env=env, check=True, capture_output=True)


def require_equal(folder, other):
    """Rows and evaluations are equal but for the order in which numbers of two devices are added up."""
    assert checkpoint.iterations(folder) == checkpoint.iterations(other)
    ours, theirs = (
        [{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows]
        for rows in map(lambda run: read_jsonl(run / "metrics.jsonl"), (folder, other))
    )
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    for one, two in zip(ours, theirs):
        np.testing.assert_allclose([*one.values()], [*two.values()], rtol=1e-4, atol=1e-4)
    measured, again = load_evaluations(folder), load_evaluations(other)
    assert measured.keys() == again.keys()
    for iteration, found in measured.items():
        np.testing.assert_allclose(
            found["return"].values, again[iteration]["return"].values, rtol=1e-3, atol=1e-3, err_msg=str(iteration)
        )


@pytest.mark.parametrize("name", ["maml", "her-dqn"])
def test_two_processes_agree_with_one_of_two_devices(name, tmp_path):
    with both(start(name, tmp_path / "two", {})) as processes:
        for process in processes:
            _, said = process.communicate(timeout=600)
            assert process.returncode == 0, said
    alone(name, tmp_path / "one", {})
    require_equal(tmp_path / "two", tmp_path / "one")
    about = json.loads((tmp_path / "two" / "config.json").read_text())
    assert about["run"]["devices"] == 2


def test_a_signal_to_one_process_stops_and_saves_all(tmp_path):
    out = tmp_path / "run"
    with both(start("maml", out, {"iterations": 400, "evaluate_every": 0})) as (first, second):
        await_rows(out, first)
        second.send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=120)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [143, 143], said
    reached = checkpoint.iterations(out)[-1]
    assert f"stopped at iteration {reached} by process 1; go on with --resume" in said[0]
    assert f"stopped at iteration {reached} by SIGTERM; go on with --resume" in said[1]


def test_a_process_that_is_lost_is_named_and_the_run_goes_on_with_one(tmp_path):
    often = {"checkpoint_every": 1, "evaluate_every": 0}  # so that most of the time something is saved
    out, longer = tmp_path / "run", often | {"iterations": 400}
    with both(start("maml", out, longer)) as (first, second):
        await_rows(out, first)
        second.send_signal(signal.SIGKILL)
        _, said = first.communicate(timeout=120)
    assert first.returncode == 1, said
    assert "process 1 of 2 is lost; the checkpoint of iteration" in said.splitlines()[-1]
    reached = checkpoint.iterations(out)[-1]
    shorter = often | {"iterations": reached + 2}
    alone("maml", out, shorter, "--resume")
    alone("maml", tmp_path / "undisturbed", shorter)
    require_equal(out, tmp_path / "undisturbed")
