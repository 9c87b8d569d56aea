"""All figures by name, and what their published results say."""

import json
import pkgutil
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from . import papers
from .figure import Figure
from .results import ROOT


def all_figures() -> dict[str, Figure]:
    """Every module of `papers` has one FIGURE, or FIGURES; those whose names begin with "_" are shared code."""
    return {figure.name: figure for figures in by_module().values() for figure in figures}


@cache
def by_module() -> dict[str, tuple[Figure, ...]]:
    """The figures of each module."""
    found = {}
    for module in pkgutil.iter_modules(papers.__path__, f"{papers.__name__}."):
        if not module.name.rpartition(".")[2].startswith("_"):
            loaded = import_module(module.name)
            if hasattr(loaded, "FIGURE") or hasattr(loaded, "FIGURES"):
                found[module.name] = tuple(getattr(loaded, "FIGURES", None) or [loaded.FIGURE])
    return found


def file_of(figure: Figure) -> Path:
    """Of the published rows."""
    return ROOT / "papers" / f"{figure.name}.json"


@dataclass(frozen=True)
class Line:
    """A figure in the list."""

    name: str
    paper: str
    shows: str
    state: str  # "not run", "reached", "short in 2 of 11 rows", "measured" where there is nothing to compare with
    minutes: float | None
    commit: str | None


def state_of(figure: Figure) -> Line:
    path = file_of(figure)
    if not path.exists():
        return Line(figure.name, figure.paper, figure.shows, "not run", figure.minutes or None, None)
    content = json.loads(path.read_text())
    verdicts = [row["verdict"] for row in content["rows"]]
    judged = [verdict for verdict in verdicts if verdict != "not comparable"]
    short = judged.count("short")
    state = "measured" if not judged else "reached" if not short else f"short in {short} of {len(judged)} rows"
    minutes = figure.minutes or content.get("wall_seconds", 0) / 60
    return Line(figure.name, figure.paper, figure.shows, state, minutes or None, content.get("commit"))
