"""Make the run folders beside this file again: `python -m tests.old_runs`.

They are runs of the version that made them, two iterations each. Later versions must load them (test_old_runs.py),
so make them again only where a format changes for good, and say so in CHANGELOG.
"""

import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np

import jaxrl_hier

sys.path.insert(0, str(Path(__file__).parent.parent))  # as pytest has it
from jaxrl_hier.engine.old_rings import OldRing
from jaxrl_hier.engine.replay import Ring
from tests.rings import stored
from tests.sizes import SIZES

HERE = Path(__file__).parent
RUN = {"iterations": 2, "log_every": 1, "checkpoint_every": 2, "tensorboard": False, "quiet": True}
NAMES: tuple[str, ...] = (
    *("q-learning", "sarsa", "smdp-q", "intra-option-q", "option-critic", "option-critic-tabular", "maxq", "fun"),
    *("dqn", "td3", "sac", "her-dqn", "her-ddpg", "uvfa", "hiro"),
    *("maml", "reptile", "few-shot-regression", "rl2", "pearl"),
)


def fingerprint(run: jaxrl_hier.Run) -> dict[str, float]:
    """Sum of the absolute values of each array of the state, by its path; of replay buffers, those of their steps."""
    is_key = lambda leaf: jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    numbers = lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf, np.float64)
    is_ring = lambda x: isinstance(x, Ring)
    state = jax.tree.map(lambda x: steps_of(x) if is_ring(x) else x, run.state, is_leaf=is_ring)
    paths = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): float(np.abs(numbers(leaf)).sum()) for path, leaf in paths}


def steps_of(ring: Ring) -> OldRing:
    """What a ring with leading axes [seeds, B] holds, with both observations of each step."""
    capacity = ring.row.shape[2]
    age = (ring.slot[..., None] - 1 - np.arange(capacity)) % capacity
    held = age < ring.size[..., None]
    zero_elsewhere = lambda x: np.where(held.reshape(*held.shape, *[1] * (x.ndim - 3)), x, np.zeros_like(x))
    numbers = {name: getattr(ring, name) for name in ("episode", "begin", "end", "slot", "size", "current")}
    return OldRing(steps=jax.tree.map(zero_elsewhere, jax.vmap(stored)(ring)), **numbers)


def main() -> None:
    for name in NAMES:
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        run = jaxrl_hier.train(name, out=folder, seeds=2, **SIZES[name] | RUN)
        shutil.rmtree(folder / "plots")
        for path in folder.rglob("commit_success.txt"):  # where orbax writes which folder it was; it is not read
            path.write_text("committed\n")
        (folder / "fingerprint.json").write_text(json.dumps(fingerprint(run), indent=1) + "\n")
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{name}: {size / 1000:.0f} kB in {len(list(folder.rglob('*')))} files", flush=True)


if __name__ == "__main__":
    main()
