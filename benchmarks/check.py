"""Whether the published results hold: their intervals follow from the values in the files, they are no older than their
code, and the pages show what the files say.

`python -m benchmarks check`
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import pages, stale
from .results import ROOT, Row, write


def check(names: Iterable[str] = (), look_for_stale: bool = True, folder: Path = ROOT) -> bool:
    """Print what does not hold; whether everything does."""
    lines: list[str] = []
    for path in sorted(folder.glob("papers/*.json")):
        if selected(path, names):
            lines += [f"{path.stem}: {line}" for line in recomputed(json.loads(path.read_text()))[0]]
    if look_for_stale:
        for path in sorted(folder.glob("*/*.json")):
            if selected(path, names):
                lines += [f"{path.stem}: {line}" for line in stale.reasons(json.loads(path.read_text()))]
    if not names:
        lines += [f"{page} differs from its files: python -m {__package__} report" for page in pages.differences()]
    for line in lines:
        print(line)
    return not lines


def selected(path: Path, names: Iterable[str]) -> bool:
    return not names or any(name in path.stem for name in names)


def recompute(folder: Path = ROOT / "papers") -> None:
    """Rewrite the files with intervals and verdicts from their values, after a change of `reports.statistics`."""
    for path in sorted(folder.glob("*.json")):
        write(path, recomputed(json.loads(path.read_text()))[1])


def recomputed(content: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """What changes or cannot be computed again, and the file's content with the rows made again."""
    lines, rows = [], []
    for found in content["rows"]:
        row = Row.from_json(found).estimated()
        if row.rule:
            row.judged(row.rule)
        if row.interval is not None and row.values is None and row.deviation is None:
            lines.append(f"{row.label}: has an interval, and keeps no values from which it follows")
        for name in ("ours", "interval", "verdict"):
            before, after = found.get(name), getattr(row, name)
            if not same(before, after):
                lines.append(f"{row.label}: {name} {before} -> {after}")
        rows.append(row.as_json())
    return lines, content | {"rows": rows}


def same(before: object, after: object) -> bool:
    """Up to the six digits that are written."""
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        return len(before) == len(after) and all(map(same, before, after))
    if isinstance(before, (int, float)) and isinstance(after, (int, float)):
        return abs(before - after) <= 2e-5 * max(abs(before), abs(after), 1e-6)
    return before == after
