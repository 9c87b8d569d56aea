"""Runs that are killed at any moment or whose files are damaged, and then resumed: as undisturbed."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine import checkpoint, logging
from jaxrl_hier.engine import train as engine
from jaxrl_hier.engine.folder import load_evaluations
from jaxrl_hier.engine.logging import RunLog, parse_metrics, read_jsonl
from jaxrl_hier.engine.train import RunConfig, train
from jaxrl_hier.engine.types import Agent, Algorithm, NamedArray, TrainState

RUN = RunConfig(iterations=6, log_every=1, checkpoint_every=2, evaluate_every=3, seeds=2, tensorboard=False, quiet=True)


def drift():
    """The smallest algorithm with randomness in learning and in evaluation."""

    def init(key):
        return TrainState(jnp.zeros(3), (), (), (), key, jnp.zeros((), jnp.int32))

    def step(state):
        params = state.params + jax.random.normal(jax.random.fold_in(state.key, state.iteration), (3,))
        return state.replace(params=params, iteration=state.iteration + 1), {"return": jnp.sum(params)}

    def evaluate(state, key):
        return {"return": NamedArray(state.params + jax.random.normal(key, (3,)), ("coordinate",))}

    return Algorithm(init, step, evaluate, Agent(init=lambda key: None, start=None, act=None), env_steps=1)


class Killed(BaseException):
    """Nothing after this moment happens."""


def cut(monkeypatch, moment):
    """From now on the process is killed at the `moment`-th of: writing rows (half of them are written then), saving a
    checkpoint, measuring, writing the file of an evaluation (half of it). Returns what has happened so far."""
    happened = []

    def before(what, do, half=None):
        def patched(*args, **kwargs):
            happened.append(what)
            if len(happened) == moment:
                if half:
                    half(*args)
                raise Killed
            return do(*args, **kwargs)

        return patched

    def half_of_the_rows(log, rows):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        log._file.write(text[: len(text) * 3 // 4].encode())

    def half_of_the_file(directory, evaluation, iteration):
        (directory / "evaluations").mkdir(exist_ok=True)
        (directory / "evaluations" / f"partial-{iteration}.npz").write_bytes(b"PK")

    monkeypatch.setattr(RunLog, "write", before("rows", RunLog.write, half_of_the_rows))
    monkeypatch.setattr(checkpoint, "save", before("checkpoint", checkpoint.save))
    monkeypatch.setattr(engine.Milestones, "_measure", before("measurement", engine.Milestones._measure))
    monkeypatch.setattr(engine, "save_evaluation", before("evaluation", engine.save_evaluation, half_of_the_file))
    return happened


def numbers(rows):
    return [{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows]


def contents(directory):
    """Everything that a run leaves behind, but for how long it took."""
    return {
        "rows": numbers(read_jsonl(directory / "metrics.jsonl")),
        "checkpoints": checkpoint.iterations(directory),
        "evaluations": {i: e["return"].values.tolist() for i, e in load_evaluations(directory).items()},
    }


@pytest.fixture(scope="module")
def algorithm():
    return drift()


@pytest.fixture(scope="module")
def undisturbed(algorithm, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    result = train(algorithm, RUN, directory=directory)
    return result, contents(directory)


def test_the_undisturbed_run(undisturbed):
    result, found = undisturbed
    assert list(found["evaluations"]) == [3, 6]
    assert found["checkpoints"] == [4, 6]
    np.testing.assert_array_equal(found["evaluations"][6], result.evaluation["return"].values)
    assert not np.array_equal(found["evaluations"][3], found["evaluations"][6])


def test_a_kill_at_any_moment_changes_nothing(algorithm, undisturbed, tmp_path):
    result, whole = undisturbed
    events = None
    for moment in range(1, 14):
        directory = tmp_path / str(moment)
        with pytest.MonkeyPatch.context() as patch:
            happened = cut(patch, moment)
            with pytest.raises(Killed):
                train(algorithm, RUN, directory=directory)
        events = happened
        again = train(algorithm, RUN, directory=directory, resume=True)
        assert contents(directory) == whole, f"killed at event {moment}, {happened[-1]}"
        assert np.array_equal(again.state.params, result.state.params)
        assert np.array_equal(again.evaluation["return"].values, result.evaluation["return"].values)
        assert not (directory / "metrics.jsonl.damaged").exists()  # a row that was being written is no damage
    # the last: the file of the last evaluation. Rows of 6 iterations, 3 checkpoints, 2 evaluations with their files
    assert (events.count("rows"), len(events), events[-1]) == (6, 13, "evaluation")


@pytest.mark.parametrize("second", [1, 2, 4])
def test_what_a_killed_run_writes_again_is_not_said_to_be_missing(algorithm, undisturbed, tmp_path, capsys, second):
    """It is killed at its second checkpoint, before which it has noted what there is, and again after going back."""
    for moment, resume in ((8, False), (second, True)):
        with pytest.MonkeyPatch.context() as patch:
            cut(patch, moment)
            with pytest.raises(Killed):
                train(algorithm, RUN, directory=tmp_path / "run", resume=resume)
    train(algorithm, RUN, directory=tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == undisturbed[1]
    assert capsys.readouterr().err == ""


def test_an_evaluation_that_is_missing_is_made_again_or_said_and_later_ones_are_dropped(algorithm, tmp_path, capsys):
    run = RunConfig(**{**RUN.__dict__, "evaluate_every": 2})
    train(algorithm, run, directory=tmp_path / "whole")
    train(algorithm, RunConfig(**{**run.__dict__, "iterations": 4}), directory=tmp_path / "run")
    folder = tmp_path / "run" / "evaluations"
    (folder / "4.npz").unlink()
    (folder / "5.npz").write_bytes((folder / "2.npz").read_bytes())  # of a future that was lost with its process
    train(algorithm, run, directory=tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert list(load_evaluations(tmp_path / "run")) == [2, 4, 6]
    assert capsys.readouterr().err == ""
    shutil.rmtree(folder)
    train(algorithm, run, directory=tmp_path / "run", resume=True)
    assert "run: evaluations of the iterations 2, 4 are missing\n" in capsys.readouterr().err
    assert list(load_evaluations(tmp_path / "run")) == [6]


# Damaged metrics


def damaged(lines, number, replacement):
    return b"".join(replacement if i == number else line for i, line in enumerate(lines, 1))


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:25] + b"\n",
        lambda line: b"\xff\xfe\x00garbage\x80\n",
        lambda line: b"[1, 2]\n",
        lambda line: b'"a string"\n',
        lambda line: b"17\n",
        lambda line: b'{"seed": 0, "return": 1.0}\n',
        lambda line: b'{"iteration": "three", "seed": 0}\n',
        lambda line: b'{"iteration": 3, "seed": 0, "return": "high"}\n',
        lambda line: b"[" * 100_000 + b"\n",
        lambda line: b"\x00" * 80 + b"\n",
        lambda line: line.replace(b": ", b"\xc3\x28", 1),
    ],
    ids=["cut", "bytes", "list", "string", "number", "no iteration", "iteration", "text", "deep", "zeros", "not utf-8"],
)
def test_a_damaged_line_is_said_and_kept_aside(undisturbed, tmp_path, capsys, damage):
    _, whole = undisturbed
    lines = [json.dumps(row).encode() + b"\n" for row in whole["rows"]]
    path = tmp_path / "metrics.jsonl"
    before = damaged(lines, 5, damage(lines[4]))
    path.write_bytes(before)
    assert read_jsonl(path) == whole["rows"][:4] + whole["rows"][5:]
    assert "1 of 12 lines cannot be read (line 5) and are left out" in capsys.readouterr().err
    assert path.read_bytes() == before  # reading changes nothing
    log = RunLog(tmp_path, [0, 1], tensorboard=False, iteration=4)
    log.close()
    assert log.rows == whole["rows"][:4] + whole["rows"][5:8]
    assert parse_metrics(path) == logging.MetricsFile(log.rows, 7, [])
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == before
    said = capsys.readouterr().err
    assert "1 of 12 lines cannot be read (line 5)" in said
    assert "kept as metrics.jsonl.damaged" in said
    RunLog(tmp_path, [0, 1], tensorboard=False, iteration=4).close()
    assert capsys.readouterr().err == ""


def test_two_rows_in_one_line_and_a_second_damage(undisturbed, tmp_path, capsys):
    _, whole = undisturbed
    lines = [json.dumps(row).encode() + b"\n" for row in whole["rows"]]
    path = tmp_path / "metrics.jsonl"
    first = damaged(lines, 5, lines[4][:25])  # without its end: the next row stands in the same line
    path.write_bytes(first)
    RunLog(tmp_path, [0, 1], tensorboard=False, iteration=6).close()
    assert numbers(read_jsonl(path)) == whole["rows"][:4] + whole["rows"][5:]
    second = path.read_bytes() + b"nonsense\n" + b"half a li"
    path.write_bytes(second)
    RunLog(tmp_path, [0, 1], tensorboard=False, iteration=6).close()
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == first
    assert (tmp_path / "metrics.jsonl.damaged-2").read_bytes() == second
    assert "1 of 12 lines cannot be read (line 12)" in capsys.readouterr().err


def test_rows_that_are_gone_are_said(undisturbed, tmp_path, capsys):
    _, whole = undisturbed
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in whole["rows"][:6]) + '{"iteration": 4, "se')
    RunLog(tmp_path, [0, 1], tensorboard=False, iteration=6).close()
    assert "rows of the iterations 4 to 6, before the checkpoint, are missing" in capsys.readouterr().err
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match=r"cannot read .*metrics.jsonl: Is a directory"):
        RunLog(tmp_path, [0, 1], tensorboard=False)


def test_resume_of_a_damaged_run(algorithm, undisturbed, tmp_path):
    """Only the row that cannot be read is lost, and the curve is drawn where all seeds have a row."""
    from jaxrl_hier.reports.records import by_seed

    _, whole = undisturbed
    train(algorithm, RunConfig(**{**RUN.__dict__, "iterations": 4, "evaluate_every": 0}), directory=tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(damaged(lines, 3, lines[2][:10] + b"\n"))
    result = train(algorithm, RUN, directory=tmp_path / "run", resume=True)
    assert numbers(result.rows) == whole["rows"][:2] + whole["rows"][3:]
    iterations, values = by_seed(result.rows, "return")
    assert iterations.tolist() == [1, 3, 4, 5, 6]
    assert values.shape == (2, 5)
