"""A guard against decay: a fixed subset of the figures, run again and compared with the published rows.

`python -m benchmarks guard`: about 20 minutes on two cores.
"""

import json
from pathlib import Path

from jaxrl_hier.checks import UsageError

from .catalogue import all_figures, file_of
from .figure import Scale, measure
from .results import Row

SEEDS = 5
SUBSET = ("flat_replay", "maml_navigation", "options_planning", "options_smdp_q")  # figures of minutes


def guard(scale: Scale, out: Path) -> bool:
    """Run the subset and print what got worse; whether nothing did.

    Raises:
        UsageError: `out` holds something; what was measured before must not be taken for new.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty: remove it, or choose another --out")
    compared, worse = 0, []
    for name in SUBSET:
        figure = all_figures()[name]
        rows, _ = measure(figure, scale, SEEDS if scale == "cpu" else None, out)
        if scale == "cpu":
            published = {row["label"]: Row.from_json(row) for row in json.loads(file_of(figure).read_text())["rows"]}
            pairs = [(published[row.label], row) for row in rows if row.label in published]
            compared += sum(comparable(*pair) for pair in pairs)
            worse += [
                f"{name}: {new.label}: {new.interval}, published {old.interval}"
                for old, new in pairs
                if decayed(old, new)
            ]
    print(f"{compared} rows compared with the published ones, {len(worse)} are worse")
    for line in worse:
        print(line)
    return not worse


def comparable(published: Row, new: Row) -> bool:
    """Whether both have intervals, and a rule says which direction is better."""
    return direction(new) != 0 and published.interval is not None and new.interval is not None


def direction(row: Row) -> int:
    """1 where higher is better, -1 where lower is, 0 where the row's rule does not say."""
    kind = " ".join(row.rule.split()[:-1]) or row.rule
    return {"higher": 1, "above": 1, "at least": 1, "lower": -1, "below": -1, "at most": -1}.get(kind, 0)


def decayed(published: Row, new: Row) -> bool:
    """Whether the new interval lies wholly on the worse side of the published one."""
    if not comparable(published, new):
        return False
    assert published.interval is not None
    assert new.interval is not None
    return new.interval[1] < published.interval[0] if direction(new) > 0 else new.interval[0] > published.interval[1]
