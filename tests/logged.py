"""Run folders made by hand, for tests of what reads them."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl_hier.engine.folder import save_evaluation
from jaxrl_hier.engine.identity import save
from jaxrl_hier.engine.types import NamedArray


def logged_run(
    folder: Path,
    returns: list[list[float]],
    algorithm: str = "q-learning",
    env: str = "four-rooms",
    seed: int = 0,
    every: int = 10,
    steps: int = 4,
    measured: dict[str, tuple[Any, tuple[str, ...]]] | None = None,
    arrays: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """A folder with a row every `every` iterations of `steps` environment steps each.

    Args:
        returns: by seed, the return of each row.
        measured: of the evaluation at the last row, values and axes by name.
        arrays: what identifies its environment and tasks.
    """
    folder.mkdir(parents=True)
    identity = {"algorithm": algorithm, "env": env, "config": config, "seed": seed, "seeds": len(returns)}
    (folder / "config.json").write_text(json.dumps({"identity": identity, "run": {}}))
    identity_arrays = {name: np.asarray(x) for name, x in (arrays or {}).items()}
    save(folder, identity_arrays)
    rows = [
        {"iteration": every * k, "env_steps": every * k * steps, "seed": seed + i, "return": value}
        for k, values in enumerate(zip(*returns), 1)
        for i, value in enumerate(values)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if measured:
        evaluation = {name: NamedArray(jnp.asarray(x), axes) for name, (x, axes) in measured.items()}
        save_evaluation(folder, evaluation, every * len(returns[0]))
    return folder
