"""Weights & Biases as a writer: the rows of metrics.jsonl, in runs that a resumed run goes on with. wandb itself is
replaced by a module that records what it is called with."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.logging import RunLog


class Recorded:
    """wandb as far as it is used."""

    def __init__(self, failure=None):
        self.begun, self.rows, self.finished, self.failure = [], {}, [], failure

    def init(self, **settings):
        if self.failure:
            raise self.failure
        self.begun.append(settings)
        rows = self.rows.setdefault(settings["id"], [])
        return SimpleNamespace(
            log=lambda row, step: rows.append((step, row)), finish=lambda: self.finished.append(settings["id"])
        )


@pytest.fixture
def wandb(monkeypatch):
    module = Recorded()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return module


def rows(iteration):
    return [{"iteration": iteration, "env_steps": 4, "seed": seed, "return": 0.5 * seed} for seed in (3, 4)]


def test_the_rows_of_each_seed(wandb, tmp_path, monkeypatch):
    identity = {"algorithm": "sac", "config": {"discount": 0.9}, "seed": 3, "seeds": 2}
    (tmp_path / "config.json").write_text(json.dumps({"identity": identity, "run": {"iterations": 9}}))
    log = RunLog(tmp_path, [3, 4], tensorboard=False, wandb=True)
    log.write(rows(1))
    log.write(rows(2))
    log.close()
    ids = json.loads((tmp_path / "wandb.json").read_text())
    assert len({ids["3"], ids["4"]}) == 2
    for seed in (3, 4):
        told = {"env_steps": 4, "return": 0.5 * seed}
        assert wandb.rows[ids[str(seed)]] == [(1, told), (2, told)]
    assert wandb.finished == [ids["3"], ids["4"]]
    first = wandb.begun[0]
    assert first["project"] == "jaxrl_hier"
    assert (first["group"], first["name"]) == (tmp_path.name, f"{tmp_path.name}-seed3")
    assert first["config"] == {
        "algorithm": "sac",
        "config": {"discount": 0.9},
        "iterations": 9,
        "seed": 3,
        "seeds": 2,
    }
    assert first["resume"] == "allow"
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    RunLog(tmp_path, [3, 4], tensorboard=False, wandb=True).close()
    assert wandb.begun[-1]["project"] == "mine"


def test_a_resumed_run_goes_on_in_the_same_one(wandb, tmp_path):
    log = RunLog(tmp_path, [3, 4], tensorboard=False, wandb=True)
    log.write(rows(1))
    log.close()
    log = RunLog(tmp_path, [3, 4], tensorboard=False, iteration=1, wandb=True)
    log.write(rows(2))
    log.close()
    assert [settings["id"] for settings in wandb.begun[:2]] == [settings["id"] for settings in wandb.begun[2:]]
    assert [step for step, _ in wandb.rows[wandb.begun[0]["id"]]] == [1, 2]


def test_what_cannot_work_is_one_line(wandb, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"^wandb needs a run folder to keep its ids: set out$"):
        RunLog(None, [0], tensorboard=False, wandb=True)
    wandb.failure = RuntimeError("api_key not configured\n(no tty)")
    with pytest.raises(UsageError, match=r"cannot start: api_key not configured; WANDB_MODE=offline needs no account$"):
        RunLog(tmp_path, [0], tensorboard=False, wandb=True)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"^wandb is not installed: pip install 'jaxrl-hier\[wandb\]'$"):
        RunLog(tmp_path, [0], tensorboard=False, wandb=True)


def test_wandb_is_imported_by_nobody_who_does_not_ask(tmp_path):
    code = (
        "import sys; from pathlib import Path; from jaxrl_hier.engine.logging import RunLog\n"
        f"RunLog(Path({str(tmp_path)!r}), [0], tensorboard=False).close()\n"
        "assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
