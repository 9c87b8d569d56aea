"""The folder of a run has one writer, and what is in it is read with care."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jaxrl_hier
from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine import checkpoint, logging, writers
from jaxrl_hier.engine.chunk import init_seeds
from jaxrl_hier.engine.folder import (
    FOLDERS,
    FORMAT,
    best_checkpoint,
    evaluation_files,
    load_evaluations,
    read_config,
    writing,
)
from jaxrl_hier.engine.logging import Progress, RunLog, parse_metrics, read_jsonl
from jaxrl_hier.engine.stopping import SIGNALS, Stopping
from jaxrl_hier.engine.train import Compiled, RunConfig, train
from jaxrl_hier.engine.types import NamedArray
from jaxrl_hier.reports.records import export_csv
from tests.engine.test_killed_runs import RUN, contents, drift

HOLD = """
import sys
from pathlib import Path
from jaxrl_hier.engine.chunk import init_seeds
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
    for name in ("lock", "partial-config.json", "partial-identity.npz"):
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
    with pytest.raises(UsageError, match=r"checkpoints/6 is damaged.*; nor can any other of the 2 be read$"):
        train(drift(), RUN, directory=tmp_path / "run", resume=True)
    assert checkpoint.iterations(tmp_path / "run") == [4, 6]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_none_is_refused_before_anything_is_dropped(undisturbed, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).write_text("mine")
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match=rf"^cannot write to .*/{name}: it is no folder$"):
        train(drift(), RUN, directory=folder, resume=True)
    assert (folder / "metrics.jsonl").read_bytes() == before
    assert (folder / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["metrics.jsonl", "written.json", "report.json", "evaluations/3.npz"])
def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_is_changed(undisturbed, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    before = {p: p.is_file() and p.read_bytes() for p in folder.rglob("*")}
    with pytest.raises(UsageError, match=rf"^cannot write .*/{name}: it is a folder$"):
        train(drift(), replace(RUN, iterations=12), directory=folder, resume=True)
    assert {p: p.is_file() and p.read_bytes() for p in folder.rglob("*")} == before


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
    for row, file in ((1, "metrics.jsonl"), (2, "written.json")):  # 2: with a checkpoint, before which that is written
        with pytest.MonkeyPatch.context() as patch:
            at_row(patch, row, lambda: shutil.rmtree(tmp_path / "run"))
            with pytest.raises(UsageError, match=rf"^cannot write .*/{file}: No such file or directory; no checkpoint"):
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


@pytest.mark.parametrize(("limit", "file"), [(1_000, "checkpoints/2"), (3_000, "tensorboard/seed0")])
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


# of some 90 moments in which something is written or synced
@pytest.mark.parametrize(
    ("moment", "error"),
    [*[(moment, errno.EDQUOT) for moment in (1, 3, 6, 9, 40, 57)], (6, errno.EROFS), (40, errno.EIO)],
)
def test_a_disk_that_refuses_stops_in_one_line(undisturbed, tmp_path, moment, error):
    folder, count = tmp_path / "run", 0

    def refusing(do):
        def patched(*arguments, **named):
            nonlocal count
            count += 1
            if count >= moment:
                raise OSError(error, os.strerror(error))
            return do(*arguments, **named)

        return patched

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", refusing(os.fsync))
        patch.setattr(Path, "write_text", refusing(Path.write_text))
        refused = rf"^cannot write (to )?.*run.*: {os.strerror(error)}(; \w+ checkpoint.*)?$"
        with pytest.raises(UsageError, match=refused):
            train(drift(), RUN, directory=folder)
    train(drift(), RUN, directory=folder, resume=folder.exists() and (folder / "config.json").exists())
    assert contents(folder) == contents(undisturbed)


def test_a_slow_disk_is_told(undisturbed, tmp_path, monkeypatch, capsys):
    """Rows and checkpoints wait for it; nothing is lost, and the user knows."""
    sync, write = os.fsync, RunLog.write

    def after(seconds, do, *arguments):
        time.sleep(seconds)
        do(*arguments)

    monkeypatch.setattr(Progress, "PATIENCE", 0.1)
    monkeypatch.setattr(os, "fsync", partial(after, 0.02, sync))
    monkeypatch.setattr(RunLog, "write", lambda log, rows: after(0.3, write, log, rows))
    train(drift(), replace(RUN, quiet=False), directory=tmp_path / "run")
    said = capsys.readouterr().err
    assert "still writing rows after 0 s\n" in said
    assert "still writing the checkpoint of iteration 2 after 0 s\n" in said
    assert contents(tmp_path / "run") == contents(undisturbed)


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


LINKS = ("plots", "checkpoints", "metrics.jsonl", "tensorboard/seed0", "evaluations/6.npz", "checkpoints/6/d")


@pytest.mark.parametrize("name", LINKS)
def test_nothing_is_written_through_a_link_out_of_the_folder(undisturbed, tmp_path, name):
    folder, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(undisturbed, folder)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        shutil.move(path, outside)
    path.symlink_to(outside)
    before = {p: p.stat().st_mtime_ns for p in outside.rglob("*")}
    for use in (lambda: train(drift(), RUN, directory=folder, resume=True), lambda: export_csv(folder)):
        with pytest.raises(UsageError, match=rf"^.*/{name} is a link that leads out of the run's folder"):
            use()
    assert {p: p.stat().st_mtime_ns for p in outside.rglob("*")} == before


def test_a_folder_says_what_trained_it_and_of_a_later_format_it_is_refused(tmp_path):
    folder = tmp_path / "run"
    train(drift(), RunConfig(iterations=2, seeds=2, quiet=True), directory=folder)
    about = json.loads((folder / "config.json").read_text())
    (made,) = about["trained_by"]
    assert (about["format"], made["from"], made["jax"]) == (FORMAT, 0, jax.__version__)
    made["jaxrl_hier"] = "0.0.1"
    (folder / "config.json").write_text(json.dumps(about))
    train(drift(), RunConfig(iterations=4, seeds=2, keep=3, quiet=True), directory=folder, resume=True)
    about = read_config(folder)
    assert [(by["from"], by["jaxrl_hier"]) for by in about["trained_by"]] == [(0, "0.0.1"), (2, jaxrl_hier.__version__)]
    assert (about["run"]["iterations"], about["run"]["keep"]) == (4, 3)
    (folder / "config.json").write_text(json.dumps(about | {"format": FORMAT + 1}))
    with pytest.raises(
        UsageError, match=f"a later version wrote it, in format {FORMAT + 1}; this one reads up to {FORMAT}"
    ):
        train(drift(), RunConfig(iterations=6, seeds=2, quiet=True), directory=folder, resume=True)


# Which checkpoints stay


def peaked():
    """`drift` whose evaluated return is best at iteration 4."""

    def evaluate(state, key):
        return {"return": NamedArray(-jnp.abs(state.iteration - 4)[None] * jnp.ones(3), ("coordinate",))}

    return drift()._replace(evaluate=evaluate)


@pytest.mark.parametrize("stop_after", [None, 3, 4, 5])
def test_the_newest_checkpoints_and_the_best_stay(tmp_path, stop_after):
    run = RunConfig(
        iterations=9, checkpoint_every=3, evaluate_every=2, keep=1, keep_best="return", tensorboard=False, quiet=True
    )
    if stop_after:
        first = train(peaked(), replace(run, iterations=stop_after), directory=tmp_path / "run")
        assert first.rows[-1]["iteration"] == stop_after
    train(peaked(), run, directory=tmp_path / "run", resume=bool(stop_after))
    assert checkpoint.iterations(tmp_path / "run") == [4, 9]
    assert best_checkpoint(tmp_path / "run", "return") == (0.0, 4)


def test_the_best_checkpoint_outlives_a_stop_before_a_later_evaluation(tmp_path):
    run = RunConfig(
        iterations=9, checkpoint_every=2, evaluate_every=2, keep=1, keep_best="return", tensorboard=False, quiet=True
    )
    with pytest.raises(SystemExit):
        train(peaked(), run, directory=tmp_path / "run", stop=lambda: 6 in checkpoint.iterations(tmp_path / "run"))
    assert 6 not in evaluation_files(tmp_path / "run")
    train(peaked(), run, directory=tmp_path / "run", resume=True)
    assert checkpoint.iterations(tmp_path / "run") == [4, 9]


def test_the_lowest_may_be_the_best(tmp_path):
    flipped = lambda state, key: {"steps": NamedArray(-peaked().evaluate(state, key)["return"].values, ("coordinate",))}
    run = RunConfig(iterations=6, evaluate_every=2, checkpoint_every=2, keep=1, keep_best="steps", quiet=True)
    with pytest.raises(UsageError, match="keep_best steps would keep the evaluation of most steps: set keep_lowest"):
        run.validate()
    lowest = replace(run, keep_lowest=True, tensorboard=False)
    train(drift()._replace(evaluate=flipped), lowest, directory=tmp_path / "run")
    assert checkpoint.iterations(tmp_path / "run") == [4, 6]
    assert best_checkpoint(tmp_path / "run", "steps", lowest=True) == (0.0, 4)


def test_of_equal_evaluations_the_first_is_the_best(tmp_path):
    evaluate = lambda state, key: {"return": NamedArray(jnp.zeros(3), ("coordinate",))}
    run = RunConfig(
        iterations=4, evaluate_every=1, checkpoint_every=1, keep_best="return", tensorboard=False, quiet=True
    )
    train(drift()._replace(evaluate=evaluate), run, directory=tmp_path / "run")
    assert best_checkpoint(tmp_path / "run", "return") == (0.0, 1)


def test_the_best_by_an_unknown_measurement(tmp_path):
    run = RunConfig(iterations=2, evaluate_every=1, checkpoint_every=1, keep_best="retrun", quiet=True)
    with pytest.raises(UsageError, match=r"^keep_best must be one of return, got 'retrun'$"):
        train(drift(), run, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="set evaluate_every"):
        replace(run, evaluate_every=0).validate()


# Long logs


def test_a_long_log_has_several_files(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(logging, "PART", 300)
    monkeypatch.setattr(writers, "EVENTS", 5)
    folder = tmp_path / "run"
    with_events = replace(RUN, tensorboard=True)
    train(drift(), replace(with_events, iterations=4), directory=folder)
    assert len(logging.parts(folder / "metrics.jsonl")) > 1
    train(drift(), with_events, directory=folder, resume=True)
    assert contents(folder)["rows"] == contents(undisturbed)["rows"]
    assert len(list((folder / "tensorboard" / "seed0").iterdir())) > 2
    first = logging.parts(folder / "metrics.jsonl")[0]
    first.write_bytes(b"nonsense\n" + first.read_bytes().split(b"\n", 1)[1])
    assert len(read_jsonl(folder / "metrics.jsonl")) == 11  # a damaged line costs only itself


# A notice to stop


def test_a_file_or_a_function_stops_the_run(undisturbed, tmp_path, capsys):
    notices = iter([False, True])  # it is asked once after each chunk
    with pytest.raises(SystemExit) as caught:
        train(drift(), RUN, directory=tmp_path / "run", stop=lambda: next(notices))
    assert caught.value.code == 143
    at = 2 * RUN.log_every
    assert f"stopped at iteration {at} by the function stop; go on with --resume" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        at_row(patch, 3, (tmp_path / "run" / "stop").touch)
        with pytest.raises(SystemExit):
            train(drift(), RUN, directory=tmp_path / "run", resume=True)
    assert "stopped at iteration 3 by the file" in capsys.readouterr().err
    assert checkpoint.iterations(tmp_path / "run")[-1] == 3
    (tmp_path / "run" / "stop").touch()  # one that came too late does not stop the run that goes on
    train(drift(), RUN, directory=tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == contents(undisturbed)


def test_what_takes_long_is_told(capsys, monkeypatch):
    monkeypatch.setattr(Progress, "PATIENCE", 0.05)
    with Progress(10, quiet=False) as progress, progress.doing("compiling 10 iterations", "wait"):
        time.sleep(0.3)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "still compiling 10 iterations after 0 s; wait"
    assert len(said) in (2, 3)  # after twice as long each time


def test_rows_that_were_changed_are_noticed(undisturbed, tmp_path, capsys):
    """One flipped bit may turn a number into another."""
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    train(drift(), replace(RUN, iterations=8), directory=folder, resume=True)
    assert "not as it was written" not in capsys.readouterr().err
    path = folder / "metrics.jsonl"
    first, rest = path.read_bytes().split(b"\n", 1)
    digit = max(i for i, x in enumerate(first) if x in b"2345678")
    path.write_bytes(first[:digit] + bytes([first[digit] ^ 1]) + first[digit + 1 :] + b"\n" + rest)
    assert parse_metrics(path).damaged == []
    train(drift(), replace(RUN, iterations=10), directory=folder, resume=True)
    assert "metrics.jsonl is not as it was written: some of its rows hold other numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    "row",
    [
        {"iteration": 0, "seed": 0},  # rows are written after an iteration
        {"iteration": 10**30, "seed": 0},
        {"iteration": 1, "seed": -1},
        {"iteration": 1, "seed": 2**64},
        {"iteration": 1, "seed": 0, "return": 10**400},
        {"iteration": True, "seed": 0},
    ],
)
def test_a_row_that_no_run_writes_is_left_out(row, tmp_path):
    sound = {"iteration": 1, "env_steps": 4, "seed": 2**64 - 1, "return": -(10**300)}
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in (sound, row)))
    assert (parse_metrics(path).rows, parse_metrics(path).damaged) == ([sound], [2])


def test_a_note_of_what_was_written_that_is_damaged_is_no_obstacle(undisturbed, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    (folder / "written.json").write_text('{"iteration": 1e400, "logs": {}, "evaluations": []}')
    assert train(drift(), replace(RUN, iterations=8), directory=folder, resume=True).rows


def test_a_resume_that_is_refused_changes_nothing(undisturbed, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    (folder / "stop").touch()
    before = (folder / "config.json").read_bytes()
    with pytest.raises(UsageError, match="the run is at iteration 6 already; iterations must be at least that, got 4"):
        train(drift(), replace(RUN, iterations=4), directory=folder, resume=True)
    assert (folder / "config.json").read_bytes() == before
    assert (folder / "stop").exists()
    train(drift(), replace(RUN, iterations=8), directory=folder, resume=True)
    assert json.loads((folder / "config.json").read_text())["run"]["iterations"] == 8
    assert not (folder / "stop").exists()


def test_one_flipped_bit_of_a_checkpoint_is_noticed(undisturbed, tmp_path):
    newest = undisturbed / "checkpoints" / "6"
    for file in sorted(p.relative_to(newest) for p in newest.rglob("*") if p.is_file() and p.stat().st_size):
        damaged = tmp_path / "run" / "checkpoints" / "6"
        shutil.copytree(newest, damaged)
        content = bytearray((damaged / file).read_bytes())
        content[len(content) // 2] ^= 4
        (damaged / file).write_bytes(content)
        with pytest.raises(UsageError, match="checkpoints/6 is damaged"):
            checkpoint.restore(tmp_path / "run", init_seeds(drift(), RUN))
        shutil.rmtree(tmp_path / "run")


def test_evaluations_that_are_gone_are_said_also_after_they_became_more_frequent(undisturbed, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    oftener = replace(RUN, evaluate_every=1)
    train(drift(), replace(oftener, iterations=8), directory=folder, resume=True)
    assert "there is none" not in capsys.readouterr().err
    (folder / "evaluations" / "3.npz").unlink()
    train(drift(), replace(oftener, iterations=10), directory=folder, resume=True)
    assert "evaluations of the iterations 3 are missing\n" in capsys.readouterr().err
