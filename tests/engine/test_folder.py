"""The folder of a run has one writer, and what is in it is read with care."""

import subprocess
import sys
import threading

import pytest

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.folder import writing
from jaxrl_hier.engine.train import RunConfig, train
from tests.engine.test_killed_runs import RUN, drift

HOLD = """
import sys
from pathlib import Path
from jaxrl_hier.engine.folder import writing
from jaxrl_hier.engine.train import RunConfig
with writing(Path(sys.argv[1]), None, RunConfig(seeds=2), False):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    folder = tmp_path / "run"
    command, pipe = [sys.executable, "-c", HOLD, str(folder)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "held\n"
        for resume in (True, False):
            with pytest.raises(UsageError, match=r"^another process is training in .*$|exists already"):
                train(drift(), RUN, directory=folder, resume=resume)
        process.kill()
    assert train(drift(), RUN, directory=folder, resume=True).rows[-1]["iteration"] == 6


def test_of_two_that_begin_at_once_one_wins(tmp_path):
    for attempt in range(20):
        folder, gate, answers = tmp_path / str(attempt), threading.Barrier(2), []

        def begin(folder=folder, gate=gate, answers=answers):
            gate.wait()
            try:
                with writing(folder, None, RunConfig(), False) as has_checkpoint:
                    answers.append(has_checkpoint)
            except UsageError as error:
                answers.append(str(error))

        threads = [threading.Thread(target=begin) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        won, lost = sorted(answers, key=lambda answer: answer is not False)
        assert won is False
        assert "another process is training in" in lost or "exists already" in lost


def test_a_run_that_was_killed_before_its_config_was_whole_begins_again(tmp_path):
    for name in ("lock", "config.partial", "partial-identity.npz"):
        (tmp_path / name).write_bytes(b"{")
    with writing(tmp_path, None, RunConfig(), False) as has_checkpoint:
        assert not has_checkpoint
        assert (tmp_path / "config.json").is_file()
