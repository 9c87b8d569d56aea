"""Runs that earlier versions made, in tests/old_runs, are loaded: their settings, state, rows and evaluations."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxrl_hier
from tests.old_runs.__main__ import HERE, NAMES, RUN, fingerprint, steps_of
from tests.sizes import SIZES

FOLDERS = sorted(path.parent for path in HERE.glob("*/config.json"))


def test_there_are_twenty_of_all_kinds():
    assert {folder.name for folder in FOLDERS} == set(NAMES)
    assert len(FOLDERS) == 20


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_run_of_an_earlier_version_is_loaded(folder: Path):
    run = jaxrl_hier.load(folder)
    assert (run.name, run.iteration, run.changed) == (folder.name, 2, [])
    assert len(run.rows) == 4  # two iterations of two seeds
    assert run.evaluation
    kept = json.loads((folder / "fingerprint.json").read_text())
    found = fingerprint(run)
    assert found.keys() == kept.keys()
    np.testing.assert_allclose([found[name] for name in kept], list(kept.values()), rtol=1e-12)


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path):
    """With a replay buffer of the older form, which holds the same steps afterwards, and those of another iteration."""
    folder = shutil.copytree(HERE / "her-dqn", tmp_path / "her-dqn")
    before = jaxrl_hier.load(folder)
    after = jaxrl_hier.train(
        "her-dqn", out=folder, resume=True, **SIZES["her-dqn"] | RUN | {"iterations": 3, "seeds": 2}
    )
    old, new = (steps_of(run.state.memory) for run in (before, after))
    stays = np.arange(old.steps.reward.shape[2]) < np.asarray(old.size)[..., None]  # none of them is overwritten yet
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[stays], y[stays]), old.steps, new.steps)
    assert np.sum(new.size) > np.sum(old.size)
    assert len(after.rows) == 6


PLAY = """
import sys
import numpy as np
import jaxrl_hier

def actions(folder):
    run = jaxrl_hier.load(folder)
    space = run.env.observation_space(run.env.default_params)
    policy, numbers = run.policy(seed=1, greedy=False, key=7), np.random.default_rng(0)
    observations = [numbers.uniform(0, 1, space.shape).astype(space.dtype) for _ in range(30)]
    seen = [policy.act(obs, reward=0.5, done=i % 10 == 9) for i, obs in enumerate(observations)]
    return np.asarray(seen, np.float64).ravel().tolist()

if __name__ == "__main__":
    print([actions(folder) for folder in sys.argv[1:]])
"""


def test_a_policy_acts_the_same_in_another_process():
    """One that adapts by gradient steps, and one with a hidden state; drawn actions."""
    folders = [str(HERE / name) for name in ("maml", "rl2")]
    here: dict = {}
    exec(PLAY, here)
    other = subprocess.run([sys.executable, "-c", PLAY, *folders], check=True, capture_output=True, text=True)
    assert ast.literal_eval(other.stdout.strip().splitlines()[-1]) == [here["actions"](folder) for folder in folders]
