"""The campaign's result file, in the form of the other published results."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks import results
from benchmarks.results import Row
from benchmarks.throughput._timing import processor
from tests.faults import FULL, OUTCOMES, Outcome

MEANT = {
    "equal": "resumed, equal bit for bit",
    "refused": "refused in one line, nothing lost",
    "said": "resumed, what the damage destroyed is missing and said",
    "failed": "failed",
}


def rows(table: Mapping[tuple[str, str], Mapping[str, int]]) -> list[Row]:
    """For each kind of fault and each learner, and for all: how many faults, and how many had which outcome."""
    total = {name: sum(line[name] for line in table.values()) for name in OUTCOMES}
    found = []
    for what, line in {**{f"{kind}, {learner}": line for (kind, learner), line in table.items()}, "all": total}.items():
        found.append(Row.computed(f"{what}: faults", sum(line.values()), method=COUNTED))
        found += [Row.computed(f"{what}: {MEANT[name]}", line[name], method=COUNTED) for name in OUTCOMES]
        found[-1].judged("at most 0")
    return found


COUNTED = "counted"


def write(
    path: Path,
    provenance: Mapping[str, object],
    table: Mapping[tuple[str, str], Mapping[str, int]],
    outcomes: list[Outcome],
    seed: int,
) -> None:
    """<path>, with each fault and what came of it."""
    content = {
        "name": path.stem,
        "paper": "",
        "artifact": "what comes of runs that are killed, stopped, out of disk, damaged or begun twice",
        **provenance,
        "command": "python -m tests.faults",
        "processor": processor(),
        "seed": seed,
        "planned": sum(sum(of.values()) for of in FULL.values()),  # a campaign may be published before it is complete
        "wall_seconds": sum(outcome.seconds for outcome in outcomes),
        "rows": [row.as_json() for row in rows(table)],
        "faults": [[o.case, o.fault, o.outcome, o.why, round(o.seconds, 1)] for o in outcomes],
    }
    results.write(path, content)
