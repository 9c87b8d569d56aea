"""All intervals and verdicts again, from the values that the result files hold; nothing is run.

    python -m benchmarks.recompute            # rewrites the files, says what changed and what could not be made again
    python -m benchmarks.recompute --check    # says it and rewrites nothing; exit status 1 if something changed

For when `jaxrl_hier.reports.statistics` has changed. Rows that keep no values stay as they are; rows whose interval
cannot be recomputed are listed, with what the file says about them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.results import EXACT, ROOT, Row, write


@dataclass(frozen=True)
class Arguments:
    check: bool = False
    """rewrite nothing"""
    folder: Path = ROOT / "papers"
    """of the result files"""


def main(arguments: Arguments) -> None:
    changed = False
    for path in sorted(arguments.folder.glob("*.json")):
        lines, lost, content = recomputed(json.loads(path.read_text()))
        changed |= bool(lines)
        print(f"{path.name}: {len(lines)} of {len(content['rows'])} rows changed, {len(lost)} keep no values")
        for line in lines + lost:
            print("   ", line)
        if not arguments.check:
            write(path, content)
    if arguments.check and changed:
        raise SystemExit(1)


def recomputed(content: dict) -> tuple[list[str], list[str], dict]:
    """What changed, the rows that keep no values, and the file's content with the rows made again."""
    lines, lost, rows = [], [], []
    for found in content["rows"]:
        row = Row.from_json(found).estimated()
        if row.rule:
            row.judged(row.rule)
        if row.values is None and row.deviation is None and row.method != EXACT:
            lost.append(f"{row.label}: {row.method}")
        for name in ("ours", "interval", "verdict"):
            before, after = found.get(name), getattr(row, name)
            if not same(before, after):
                lines.append(f"{row.label}: {name} {before} -> {after}")
        rows.append(row.as_json())
    return lines, lost, content | {"rows": rows}


def same(before: object, after: object) -> bool:
    """Up to the six digits that are written."""
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        return len(before) == len(after) and all(map(same, before, after))
    if isinstance(before, (int, float)) and isinstance(after, (int, float)):
        return abs(before - after) <= 2e-5 * max(abs(before), abs(after), 1e-6)
    return before == after


if __name__ == "__main__":
    main(tyro.cli(Arguments))
