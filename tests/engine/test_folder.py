"""The folder of a run has one writer, and what is in it is read with care."""

import json
import shutil
import signal
import subprocess
import sys
import threading

import pytest

import jaxrl_hier
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.folder import load_evaluations, writing
from jaxrl_hier.engine.logging import RunLog, read_jsonl
from jaxrl_hier.engine.stopping import SIGNALS, Stopping
from jaxrl_hier.engine.train import Compiled, RunConfig, train
from tests.engine.test_killed_runs import RUN, contents, drift

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


# Damaged checkpoints

DAMAGE = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "flipped": lambda file: file.write_bytes(bytes(b ^ 0xFF for b in file.read_bytes())),
    "gone": lambda file: file.unlink(),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train(drift(), RUN, directory=folder)
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("part", ["_METADATA", "manifest.ocdbt", "d"])
def test_a_damaged_checkpoint_is_left_out_for_the_one_before(undisturbed, tmp_path, capsys, damage, part):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    foreign = folder / "checkpoints"
    (foreign / "notes.txt").write_text("mine")
    for name in ("5", "²", "99999999", "07"):
        (foreign / name).mkdir()
    (foreign / "5" / "thesis.tex").write_text("mine")
    newest = foreign / "6" / part
    for file in newest.rglob("*") if newest.is_dir() else [newest]:
        if file.is_file():
            DAMAGE[damage](file)
    before = {p.relative_to(folder) for p in folder.rglob("*") if "6" not in p.parts}
    train(drift(), RUN, directory=folder, resume=True)
    assert contents(folder) == contents(undisturbed)
    said = capsys.readouterr().err
    assert "checkpoints/6 is damaged" in said
    assert "it is left out for that of iteration 4" in said
    assert (foreign / "6.aside").is_dir()
    assert before <= {p.relative_to(folder) for p in folder.rglob("*")}


def test_with_no_checkpoint_left_there_is_one_line(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "run")
    for number in (4, 6):
        (tmp_path / "run" / "checkpoints" / str(number) / "_METADATA").unlink()
    with pytest.raises(UsageError, match=r"checkpoints/6 is damaged .*; nor can any other of the 2 be read$"):
        train(drift(), RUN, directory=tmp_path / "run", resume=True)
    assert checkpoint.iterations(tmp_path / "run") == [4, 6]


def test_a_damaged_evaluation_is_made_again_or_left_out(undisturbed, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    (folder / "evaluations" / "6.npz").write_bytes(b"PK")
    train(drift(), RUN, directory=folder, resume=True)
    assert contents(folder) == contents(undisturbed)
    (folder / "evaluations" / "3.npz").write_bytes(b"PK")
    capsys.readouterr()
    assert list(load_evaluations(folder)) == [6]
    assert "evaluations/3.npz is damaged and left out" in capsys.readouterr().err


# Signals


@pytest.fixture(autouse=True)
def _signals_arrive():
    """Also where the tests run in the background of a shell, which has SIGINT ignored."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


def at_row(monkeypatch, row, do):
    """Do something when the rows of iteration `row` are written."""
    write = RunLog.write
    monkeypatch.setattr(RunLog, "write", lambda log, rows: (write(log, rows), rows[0]["iteration"] == row and do()))


@pytest.mark.parametrize(
    ("number", "stopped", "code"), [(signal.SIGTERM, SystemExit, 143), (signal.SIGINT, KeyboardInterrupt, None)]
)
@pytest.mark.parametrize("row", [3, 4])  # without and with a checkpoint that is due; 3 has an evaluation
def test_a_signal_saves_and_stops(undisturbed, tmp_path, capsys, number, stopped, code, row):
    earlier = [signal.getsignal(s) for s in SIGNALS]
    with pytest.MonkeyPatch.context() as patch:
        at_row(patch, row, lambda: signal.raise_signal(number))
        with pytest.raises(stopped) as caught:
            train(drift(), RUN, directory=tmp_path / "run")
    assert getattr(caught.value, "code", None) == code
    assert [signal.getsignal(s) for s in SIGNALS] == earlier
    assert f"stopped at iteration {row} by {number.name}; go on with --resume" in capsys.readouterr().err
    assert checkpoint.iterations(tmp_path / "run")[-1] == row
    train(drift(), RUN, directory=tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == contents(undisturbed)


def test_a_signal_during_compilation_stops_before_the_first_iteration(undisturbed, tmp_path, capsys, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Compiled, "compile", lambda *_: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit):
            train(drift(), RUN, directory=tmp_path / "run")
    assert "stopped before the first iteration by SIGTERM; go on with --resume" in capsys.readouterr().err
    train(drift(), RUN, directory=tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == contents(undisturbed)


def test_nothing_is_installed_where_the_signals_are_ignored():
    """As in the background of a shell: no handler, no thread, no descriptor that stays behind."""
    earlier = {s: signal.signal(s, signal.SIG_IGN) for s in SIGNALS}
    threads = threading.active_count()
    try:
        with Stopping():
            assert threading.active_count() == threads
            assert [signal.getsignal(s) for s in SIGNALS] == [signal.SIG_IGN] * 2
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def test_no_handler_is_installed_outside_of_the_main_thread():
    seen = []

    def enter():
        with Stopping():
            seen.extend(signal.getsignal(s) for s in SIGNALS)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(s) for s in SIGNALS]


TWICE = """
import os, signal, time
from jaxrl_hier.engine.stopping import Stopping
with Stopping():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)
"""


def test_a_second_signal_ends_at_once():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=19)
    assert done.returncode == 143
    assert done.stderr == "jaxrl-hier: SIGTERM: stopping after what is under way; a second signal ends at once\n"


# Disks


def test_a_folder_that_is_removed_while_it_is_written(tmp_path):
    for row, file in ((1, "metrics.jsonl"), (2, "checkpoints/2")):
        with pytest.MonkeyPatch.context() as patch:
            at_row(patch, row, lambda: shutil.rmtree(tmp_path / "run"))
            with pytest.raises(UsageError, match=rf"^cannot write .*{file}: No such file or directory; no checkpoint"):
                train(drift(), RUN, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


FULL = """
import os, resource, sys
from pathlib import Path
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # whose files the limit would cut
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.train import RunConfig, train
from tests.engine.test_killed_runs import drift
run = RunConfig(iterations=60, checkpoint_every=2, quiet=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    train(drift(), run, directory=Path(sys.argv[1]), resume="resume" in sys.argv)
except UsageError as error:
    sys.exit(f"one line: {error}")
"""


@pytest.mark.parametrize(("limit", "file"), [(400, "checkpoints/2"), (3_000, "tensorboard/seed0")])
def test_a_file_that_can_grow_no_more(tmp_path, limit, file):
    """A limit for the size of a file stands for a full disk: the same errors, at the same places."""
    command = [sys.executable, "-c", FULL, str(tmp_path / "run")]
    done = subprocess.run([*command, str(limit)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"one line: cannot write {tmp_path}/run/{file}: File too large")
    done = subprocess.run([*command, "-1", "resume"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert checkpoint.iterations(tmp_path / "run") == [58, 60]
    assert [row["iteration"] for row in read_jsonl(tmp_path / "run" / "metrics.jsonl")] == [*range(1, 61)]


# Hostile folders

IDENTITY = {"algorithm": "q-learning", "env": "four-rooms", "config": {}, "seed": 0, "seeds": 1}


def deep(levels):
    return "[" * levels + "]" * levels


HOSTILE = {
    "empty": "",
    "null": "null",
    "list": "[]",
    "no identity": '{"identity": null}',
    "empty identity": '{"identity": {}}',
    "not utf-8": b"\xff\xfe{",
    "deep": '{"identity": ' + deep(100_000) + "}",
    "rather deep": json.dumps({"identity": IDENTITY}).replace('"config": {}', f'"config": {{"a": {deep(300)}}}'),
    **{
        f"{name} {value!r}": json.dumps({"identity": IDENTITY | {name: value}})
        for name, value in [
            ("algorithm", None),
            ("algorithm", 3),
            ("algorithm", "evil_module:entry"),
            ("env", 3),
            ("env", "evil_module:make"),
            ("env", "gymnasium:evil_module:Evil-v0"),
            ("config", None),
            ("config", {"discount": "high"}),
            ("config", {"discount": 1e999}),
            ("seeds", 0),
            ("seeds", 10**30),
            ("seed", -1),
            ("seed", True),
        ]
    },
    "run": json.dumps({"identity": IDENTITY, "run": 3}),
    "iterations": json.dumps({"identity": IDENTITY, "run": {"iterations": "many"}}),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_config_gets_one_line_and_imports_nothing(tmp_path, monkeypatch, text):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    for use in (jaxrl_hier.load, jaxrl_hier.evaluate, jaxrl_hier.plot):
        with pytest.raises(UsageError) as refused:
            use(folder)
        assert "\n" not in str(refused.value)
    assert "evil_module" not in sys.modules
    assert [p.name for p in folder.iterdir()] == ["config.json"]
