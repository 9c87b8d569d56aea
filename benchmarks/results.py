"""How results are written: JSON with the command, device and versions that they came from."""

import json
import os
import platform
import shlex
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_hier.statistics import bootstrap_mean

ROOT = Path(__file__).parent / "results"


@dataclass
class Row:
    """One number of a paper's figure or table beside ours.

    interval: 95 %, over seeds. verdict: "reached" when ours is better than the published (or exact) value or its
    interval overlaps the other's, "short" when not, "not comparable" when there is nothing to compare with.
    """

    label: str
    ours: float
    interval: tuple[float, float]
    seeds: int
    published: float | None = None
    published_interval: tuple[float, float] | None = None
    exact: float | None = None
    verdict: str = "not comparable"
    note: str = ""

    def judged(self, higher_is_better: bool = True) -> "Row":
        """The row with its verdict."""
        target = self.published if self.published is not None else self.exact
        if target is not None:
            low, high = self.published_interval or (target, target)
            sign = 1 if higher_is_better else -1
            better = sign * self.ours >= sign * target
            overlaps = self.interval[0] <= high and low <= self.interval[1]
            self.verdict = "reached" if better or overlaps else "short"
        return self


def estimated(label: str, values: np.ndarray, exact: float | None = None, note: str = "") -> Row:
    """The row of a mean over runs, `values` [runs]."""
    e = bootstrap_mean(values, "runs")
    return Row(label, e.mean, (e.low, e.high), len(values), exact=exact, note=note)


def ratio_of_means(ours: np.ndarray, other: np.ndarray) -> tuple[float, tuple[float, float]]:
    """And its 95 % interval, by bootstrap over the independent runs of either, [runs] each."""
    rng = np.random.default_rng(0)
    draw = lambda x: x[rng.integers(0, len(x), (10_000, len(x)))].mean(axis=1)
    low, high = np.quantile(draw(ours) / draw(other), [0.025, 0.975])
    return float(ours.mean() / other.mean()), (float(low), float(high))


def difference_of_means(ours: np.ndarray, other: np.ndarray) -> tuple[float, tuple[float, float]]:
    """And its 95 % interval, by bootstrap over the independent runs of either, [runs] each."""
    rng = np.random.default_rng(0)
    draw = lambda x: x[rng.integers(0, len(x), (10_000, len(x)))].mean(axis=1)
    low, high = np.quantile(draw(ours) - draw(other), [0.025, 0.975])
    return float(ours.mean() - other.mean()), (float(low), float(high))


def provenance() -> dict[str, Any]:
    """The command that is running, and on what; of absolute paths the last part, the rest is of this machine alone."""
    import jax

    versions = {"python": platform.python_version()}
    for name in ("jaxrl-hier", "jax", "jaxlib", "flax", "optax", "gymnax", "torch"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    module = sys.modules["__main__"].__spec__
    command = f"python -m {module.name}" if module else f"python {Path(sys.argv[0]).name}"
    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0))
    kind = f"{cores} CPU core{'s' if cores > 1 else ''}" if device.platform == "cpu" else device.device_kind
    arguments = [Path(argument).name if argument.startswith("/") else argument for argument in sys.argv[1:]]
    return {"command": shlex.join([*command.split(), *arguments]), "device": kind, "versions": versions}


def write_paper(name: str, paper: str, artifact: str, rows: list[Row], scale: str, folder: Path, **about: Any) -> Path:
    """<folder>/<name>.json of a paper's figure or table."""
    content = {"name": name, "paper": paper, "artifact": artifact, **provenance(), "scale": scale, **about}
    content["rows"] = [asdict(row) for row in rows]
    return write(folder / f"{name}.json", content)


def write(path: Path, content: dict[str, Any]) -> Path:
    """One JSON file, rounded to six digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(content), indent=1, ensure_ascii=False) + "\n")
    return path


def _rounded(x: Any) -> Any:
    if isinstance(x, float):
        return float(f"{x:.6g}")
    if isinstance(x, dict):
        return {k: _rounded(v) for k, v in x.items()}
    return [_rounded(v) for v in x] if isinstance(x, (list, tuple)) else x
