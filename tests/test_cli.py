"""The command line as a user meets it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import matplotlib.image
import numpy as np
import pytest

import jaxrl_hier
from jaxrl_hier.cli import main
from jaxrl_hier.engine import sharding

TINY = [
    *(
        "--iterations",
        "2",
        "--checkpoint-every",
        "1",
        "--evaluate-every",
        "1",
        "--meta-batch-size",
        "8",
        "--episodes-per-task",
        "4",
    ),
    *(
        "--horizon",
        "20",
        "--hidden",
        "16",
        "--eval-tasks",
        "4",
        "--eval-episodes",
        "4",
        "--eval-inner-steps",
        "2",
        "--quiet",
    ),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    main(["train", "maml", "--out", str(folder), *TINY])
    return folder


def fails(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    error = capsys.readouterr().err.strip()
    assert "Traceback" not in error
    return stop.value.code, error


def test_a_policy_is_exported(run, tmp_path, capsys):
    main(["export", str(run), "--policy", "--out", str(tmp_path / "policy")])
    written = capsys.readouterr().out.split()
    assert str(tmp_path / "policy" / "parameters.npz") in written
    assert {path.name for path in (tmp_path / "policy").iterdir()} == {line.rsplit("/")[-1] for line in written}
    code, error = fails(["export", str(run)], capsys)
    assert (code, error) == (2, "jaxrl-hier: export needs to know what to write: --csv or --policy")


def test_train_writes_everything(run):
    names = {p.name for p in run.iterdir()}
    assert names == {
        "checkpoints",
        "config.json",
        "evaluations",
        "identity.npz",
        "lock",
        "metrics.jsonl",
        "plots",
        "report.json",
        "tensorboard",
        "written.json",
    }
    for name in ("learning_curve", "adaptation_curve", "paths"):
        picture = matplotlib.image.imread(run / "plots" / f"{name}.png")
        assert picture.shape[0] > 300
        assert np.unique(picture[..., :3].reshape(-1, 3), axis=0).shape[0] > 20  # not an empty page
    report = json.loads((run / "report.json").read_text())
    assert report["compile_seconds"] >= 0
    assert report["last"][0]["iteration"] == 2


def test_evaluate_prints_ours_beside_the_published(run, capsys):
    main(["evaluate", str(run)])
    out = capsys.readouterr().out
    assert "MAML, published" in out
    assert "-3.33 ± 0.55" in out
    first = re.search(r"│\s+0 │\s+0 │\s+0 │\s+(-\d+\.\d+) │", out)
    measured = jaxrl_hier.evaluate(run)[1]["return"].values
    assert float(first.group(1)) == pytest.approx(measured[0, :, 0].mean(), abs=0.005)


def test_pictures_that_cannot_be_written_are_one_line(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("plots"))
    (copy / "plots").write_text("a file in the place of the folder")
    with pytest.raises(SystemExit) as stopped:
        main(["plot", str(copy)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"jaxrl-hier: cannot read or write {copy / 'plots'}: File exists\n"


def test_plot_draws_again(run, capsys):
    main(["plot", str(run)])
    drawn = {f"{name}.png" for name in ("learning_curve", "diagnostics", "evaluations", "adaptation_curve", "paths")}
    names = {line.rpartition("/")[2] for line in capsys.readouterr().out.split()}
    assert names == drawn | {"adaptation.gif", "episode.gif"}


def test_a_tabular_run_ends_with_its_table_and_the_pictures_of_its_algorithm(tmp_path, capsys):
    folder, length = tmp_path / "run", ["--iterations", "4000", "--log-every", "1000", "--checkpoint-every", "4000"]
    main(["train", "intra-option-q", "--options", "hallway", "--out", str(folder), *length, "--seeds", "2", "--quiet"])
    out = capsys.readouterr().out
    iteration, measured = jaxrl_hier.evaluate(folder)
    assert iteration == 4000
    mean = measured["steps"].values.mean()
    steps = re.search(r"│ steps +│ +(\S+) │ +\[.*\] │ +(\S+) │", out)
    assert float(steps.group(1)) == pytest.approx(mean, rel=1e-3)
    assert float(steps.group(2)) == pytest.approx(25.80, abs=0.011)
    start = re.search(r"│ start value +│ +\S+ │ +\[.*\] │ +(\S+) │", out)
    assert float(start.group(1)) == pytest.approx(0.0931094, rel=2e-4)  # of four digits
    lengths = measured["training_length"].values[:, 0]  # [seed, episode]
    first, last = (
        re.search(rf"│ training length, {which} 10 +│ +(\S+) │", out).group(1) for which in ("first", "last")
    )
    assert float(first) == pytest.approx(lengths[:, :10].mean(), rel=1e-3)
    assert float(last) == pytest.approx(np.mean([x[x > 0][-10:].mean() for x in lengths]), rel=1e-3)
    assert {p.name for p in (folder / "plots").iterdir()} == {
        *("diagnostics.png", "episode_length.png", "episode.gif", "walk.gif")
    }
    main(["plot", str(folder)])
    assert "walk.gif" in capsys.readouterr().out


def test_resume_of_a_finished_run_only_evaluates(run, capsys):
    before = (run / "metrics.jsonl").read_text()
    main(["train", "maml", "--out", str(run), "--resume", *TINY])
    assert (run / "metrics.jsonl").read_text() == before


def test_list_and_help(capsys):
    main(["list"])
    listing = capsys.readouterr().out
    assert "maml" in listing
    assert "navigation2d" in listing
    main([])
    assert "train ALGORITHM" in capsys.readouterr().out
    main(["--version"])
    assert capsys.readouterr().out.strip() == jaxrl_hier.__version__


def test_a_preset_is_its_module_with_other_defaults():
    from jaxrl_hier.cli import _parse_train

    config = _parse_train("promp", ["--outer-epochs", "2"]).config
    assert (config.estimator, config.outer, config.outer_epochs) == ("lvc", "ppo", 2)
    assert _parse_train("fomaml", ["--no-first-order"]).config == _parse_train("maml", []).config


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "unknown command 'trian'; nearest: train"),
        (["train"], "train needs the name of an algorithm"),
        (["train", "mmal"], "unknown algorithm 'mmal'; nearest: maml"),
        (["train", "maml", "--env", "navigation", "--out", "never"], "unknown environment 'navigation'; nearest"),
        (["train", "maml", "--meta-batch-size", "0", "--out", "never"], "meta_batch_size must be positive, got 0"),
        (["train", "maml", "--iterations", "7", "--log-every", "2"], "iterations must be a multiple of log_every"),
        (["train", "maml", "--out", "/dev/null/run"], "cannot write to /dev/null/run"),
        (["evaluate", "/nowhere"], "/nowhere is no run folder"),
        (["plot", "/nowhere"], "/nowhere is no run folder"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, error = fails(argv, capsys)
    assert code == 2
    assert len(error.splitlines()) == 1
    assert message in error
    assert not any(tmp_path.iterdir())


def test_an_existing_run_is_not_overwritten(run, capsys):
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    code, error = fails(["train", "maml", "--out", str(run), *TINY], capsys)
    assert code == 2
    assert "exists already" in error
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*")}


def test_resume_with_other_settings_names_them(run, capsys):
    argv = ["train", "maml", "--out", str(run), "--resume", *TINY, "--inner-learning-rate", "0.1"]
    code, error = fails(argv, capsys)
    assert code == 2
    assert "config.inner_learning_rate was 0.5 and is now 0.1" in error


def test_help_does_not_import_the_heavy_parts():
    """What makes --help slow is gymnax (with matplotlib) and orbax; a timing would depend on the machine."""
    for argv in (["--help"], ["train", "maml", "--help"]):
        script = (
            "import sys\nfrom jaxrl_hier.cli import main\n"
            f"try:\n    main({argv!r})\nexcept SystemExit:\n    pass\n"
            "heavy = {'gymnax', 'matplotlib', 'orbax', 'tensorboardX'} & set(sys.modules)\n"
            "assert not heavy, heavy\n"
        )
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        print(argv, f"{time.perf_counter() - begun:.2f} s")


def test_a_folder_in_the_users_home(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    jaxrl_hier.train("q-learning", out="~/a", iterations=2, recorded_episodes=2, quiet=True, tensorboard=False)
    assert {p.name for p in tmp_path.iterdir()} == {"a"}
    assert jaxrl_hier.evaluate("~/a")[0] == 2
    assert "~/a exists already" in fails(["train", "q-learning", "--out=~/a"], capsys)[1].replace(str(tmp_path), "~")
    for folder in (5, ["a"], b"a"):
        with pytest.raises(jaxrl_hier.UsageError, match="a run folder is given by its path, got"):
            jaxrl_hier.train("q-learning", out=folder)
    with pytest.raises(jaxrl_hier.UsageError, match="directory that ~nobody-of-this-name/a begins with is unknown"):
        jaxrl_hier.train("q-learning", out="~nobody-of-this-name/a")
    assert {p.name for p in tmp_path.iterdir()} == {"a"}


def test_where_programs_are_kept(tmp_path, monkeypatch):
    from pathlib import Path

    from jaxrl_hier.engine.compilation import cache_folder

    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/named")
    assert cache_folder() == "/named"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == str(tmp_path / "cache" / "jaxrl_hier")
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")  # nobody's to write to
    assert cache_folder() is None
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == str(tmp_path / ".cache" / "jaxrl_hier")

    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    assert cache_folder() is None
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/named")
    assert cache_folder() == "/named"


@pytest.mark.parametrize("command", ["train", "sweep"])
@pytest.mark.parametrize("flag", ["--devices 2", "--devices=2", "--devices 1 --devices 2"])
def test_devices_are_asked_for_before_anything_else(command, flag, monkeypatch):
    def asked(devices):
        raise SystemExit(f"{devices} devices")

    monkeypatch.setattr(sharding, "devices_of_cores", asked)
    with pytest.raises(SystemExit, match=r"^2 devices$"):
        main([command, "q-learning", *flag.split(), "--nonsense"])


@pytest.mark.thorough
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_devices_are_made_of_cores(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "jaxrl_hier.cli", "train", "q-learning", "--seeds", "2", "--devices", "2"]
    command += ["--iterations", "10", "--evaluate-every", "0", "--no-plots", "--quiet", "--out", str(out)]
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "config.json").read_text())["run"]["devices"] == 2
    command = [sys.executable, "-m", "jaxrl_hier.cli", "evaluate", str(out)]  # in a process with one device
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
