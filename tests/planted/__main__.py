"""Plant every error of `tests/planted/*.toml`, one at a time, in a copy of the checkout, and count those noticed.

    python -m tests.planted --jobs 2 --out benchmarks/results/planted.json

The tests that an entry names run in the copy. The error is noticed when one of them fails; a test file that cannot be
collected or a run past the time limit does not count. Before that the same tests must pass in the copy without errors.
Exits with 1 when a survivor has no reason, or when less than 95 % are noticed.
"""

import json
import os
import queue
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import tyro

from tests.planted import CHECKOUT, PACKAGES, Planted, load

ENOUGH = 0.95  # the share that must be noticed
COPIED = (*PACKAGES, "tests", "pyproject.toml", "README.md")


@dataclass
class Arguments:
    """Which errors to plant, and how."""

    only: str = ""
    """a regular expression for names or files, whatever the case"""
    area: tuple[str, ...] = ()
    """areas (names of the .toml files); none: all"""
    sample: int = 0
    """how many to draw at random from those, always the same; 0: all"""
    passed: bool = False
    """the tests are known to pass without errors, and do not run first"""
    jobs: int = 1
    """errors planted side by side, each in a copy of its own"""
    check: bool = False
    """only verify that each entry applies"""
    list: bool = False
    """only print the entries"""
    limit: float = 600.0
    """seconds that the tests of one error may take"""
    out: Path | None = None
    """JSON file to write"""


@dataclass
class Outcome:
    """What became of one planted error."""

    area: str
    name: str
    file: str
    noticed: bool
    by: str  # the first test that failed, or why the run does not count
    seconds: float
    reason: str  # why it is known to survive; empty when it is not


def main(arguments: Arguments) -> int:
    wanted = lambda e: any(re.search(arguments.only, text, re.IGNORECASE) for text in (e.name, e.file))
    entries = [e for e in load() if (not arguments.area or e.area in arguments.area) and wanted(e)]
    if arguments.sample:
        entries = random.Random(0).sample(entries, min(arguments.sample, len(entries)))
    problems = [f"{e.area}: {e.name}: {problem}" for e in entries if (problem := e.problem())]
    if arguments.list:
        print("\n".join(f"{e.area}: {e.name} ({e.file})" for e in entries))
    if problems or not entries:
        print("\n".join(problems) or "no entry fits", file=sys.stderr)
        return 1
    if arguments.check or arguments.list:
        print(f"{len(entries)} errors can be planted")
        return 0

    begun = time.perf_counter()
    with copies(arguments.jobs) as free:
        outcomes = plant_all(entries, free, arguments)
    seconds = time.perf_counter() - begun
    noticed, survivors = sum(o.noticed for o in outcomes), [o for o in outcomes if not o.noticed]
    for o in survivors:
        print(f"survived: {o.area}: {o.name} ({o.file}): {o.reason or 'NO REASON GIVEN'}")
    share = noticed / len(outcomes)
    print(f"{noticed} of {len(outcomes)} noticed ({100 * share:.1f} %) in {seconds:.0f} s")
    if arguments.out is not None:
        write(arguments.out, outcomes, seconds)
    return 0 if share >= ENOUGH and all(o.reason for o in survivors) else 1


@contextmanager
def copies(number: int) -> Iterator["queue.Queue[Path]"]:
    """`number` copies of the checkout in a temporary folder."""
    free: queue.Queue[Path] = queue.Queue()
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        for i in range(number):
            copy = Path(folder) / str(i)
            copy.mkdir()
            for name in COPIED:
                source = CHECKOUT / name
                if source.is_dir():
                    shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
                else:
                    shutil.copy2(source, copy / name)
            must_import_from(copy)
            free.put(copy)
        yield free


def plant_all(entries: list[Planted], free: "queue.Queue[Path]", arguments: Arguments) -> list[Outcome]:
    """The outcome of every entry, in order. Raises SystemExit when the tests fail without any error."""
    with ThreadPoolExecutor(arguments.jobs) as pool:

        def in_a_copy(task):
            copy = free.get()
            try:
                return task(copy)
            finally:
                free.put(copy)

        files = sorted({test for e in entries for test in e.tests})
        if not arguments.passed:
            print(f"running the tests of {len(entries)} errors without any", flush=True)
            code, by = in_a_copy(lambda copy: run_tests(copy, files, None))
            if code != 0:
                raise SystemExit(f"the tests must pass without errors, got {by}")

        def planted(entry: Planted) -> Outcome:
            begun = time.perf_counter()
            code, by = in_a_copy(lambda copy: plant(copy, entry, arguments.limit))
            outcome = Outcome(
                entry.area, entry.name, entry.file, code == 1, by, time.perf_counter() - begun, entry.survives
            )
            print(f"{outcome.seconds:5.0f} s  {describe(outcome)}", flush=True)
            return outcome

        return list(pool.map(planted, entries))


def describe(outcome: Outcome) -> str:
    told = f"noticed by {outcome.by}" if outcome.noticed else f"SURVIVED ({outcome.by})"
    note = ", though known to survive" if outcome.noticed and outcome.reason else ""
    return f"{outcome.area}: {outcome.name}: {told}{note}"


def plant(copy: Path, entry: Planted, limit: float) -> tuple[int | None, str]:
    """pytest's exit code with the error in `copy`, and who noticed."""
    path = copy / entry.file
    source = path.read_text()
    path.write_text(entry.applied(source))
    try:
        return run_tests(copy, entry.tests, limit)
    finally:
        path.write_text(source)


def run_tests(copy: Path, tests: tuple[str, ...] | list[str], limit: float | None) -> tuple[int | None, str]:
    """pytest's exit code in `copy` and the first test that failed, or why there is none; None: past the limit."""
    command = [sys.executable, "-m", "pytest", "-x", "-n", "0", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return None, f"ran past {limit:.0f} s"
    failed = re.search(r"^(?:FAILED|ERROR) (.*)$", done.stdout, re.MULTILINE)
    output = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode, failed.group(1)[:200] if failed else output[-1] if output else "no output"


def must_import_from(copy: Path) -> None:
    """Raises RuntimeError when Python would import an installed checkout in place of `copy`."""
    code = "import jaxrl_hier, jaxrl_envs; print(jaxrl_hier.__file__); print(jaxrl_envs.__file__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=copy, env=environment(copy), capture_output=True, text=True)
    found = run.stdout.split()
    if len(found) != 2 or not all(Path(path).resolve().is_relative_to(copy.resolve()) for path in found):
        raise RuntimeError(f"the packages must come from {copy}, got {', '.join(found) or run.stderr}")


def environment(copy: Path) -> dict[str, str]:
    """For Python in `copy`. No bytecode is written: its age in whole seconds could hide a change."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(CHECKOUT / ".jax_cache"))
    paths = os.pathsep.join((str(copy), str(copy / "envs")))
    return os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "JAX_COMPILATION_CACHE_DIR": cache}


def write(path: Path, outcomes: list[Outcome], seconds: float) -> None:
    """The outcomes as JSON, with the command, commit and date that they come from."""
    git = lambda *command: subprocess.check_output(["git", *command], cwd=CHECKOUT, text=True).strip()
    areas = sorted({o.area for o in outcomes})
    count = lambda area: {
        "planted": sum(o.area == area for o in outcomes),
        "noticed": sum(o.noticed for o in outcomes if o.area == area),
    }
    content = {
        "name": "planted",
        "command": shlex.join(["python", "-m", "tests.planted", *sys.argv[1:]]),
        "commit": git("rev-parse", "HEAD") + (" with changes" if git("status", "--porcelain") else ""),
        "date": datetime.now(UTC).date().isoformat(),
        "wall_seconds": round(seconds),
        "planted": len(outcomes),
        "noticed": sum(o.noticed for o in outcomes),
        "percent": round(100 * sum(o.noticed for o in outcomes) / len(outcomes), 1),
        "areas": {area: count(area) for area in areas},
        "survivors": [{"name": o.name, "file": o.file, "reason": o.reason} for o in outcomes if not o.noticed],
        "rows": [asdict(o) | {"seconds": round(o.seconds, 1)} for o in outcomes],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
