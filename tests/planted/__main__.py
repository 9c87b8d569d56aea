"""Plant every error of `tests/planted/*.toml`, one at a time, in a copy of the checkout, and count those noticed.

    python -m tests.planted --jobs 2 --out benchmarks/results/robustness/planted.json

The tests that an entry names run in the copy, first those that a plain `pytest` runs, then the others where none of
these failed. The error is noticed when one of them fails; a test file that cannot be collected or a run past the time
limit does not count. Before that the same tests must pass in the copy without errors. Exits with 1 when a survivor has
no reason, or when less than 95 % are noticed, or less than 90 % by a plain `pytest`.
"""

import json
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from benchmarks import results
from benchmarks.results import Row
from benchmarks.throughput._timing import processor
from tests.planted import CHECKOUT, PACKAGES, Planted, load

ENOUGH, ENOUGH_PLAIN = 0.95, 0.9  # the shares that must be noticed, by all tests and by a plain `pytest`
PLAIN, OTHERS = "not thorough", "thorough"  # pytest's -m, as in pyproject.toml
COPIED = (*PACKAGES, "tests", "examples", "docs", "pyproject.toml", "README.md")


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
    fast: bool = False
    """only the tests that a plain `pytest` runs, not the others after them"""
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
    plain: bool  # noticed by a plain `pytest`
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
    share, plain = noticed / len(outcomes), sum(o.plain for o in outcomes) / len(outcomes)
    print(f"{noticed} of {len(outcomes)} noticed ({share:.1%}; {plain:.1%} by a plain pytest) in {seconds:.0f} s")
    if arguments.out is not None:
        write(arguments.out, outcomes, seconds)
    enough = (arguments.fast or share >= ENOUGH) and plain >= ENOUGH_PLAIN
    return 0 if enough and all(o.reason for o in survivors) else 1


class Copy:
    """A copy of the checkout, and a process in it that runs tests."""

    def __init__(self, root: Path):
        self.root = root
        for name in COPIED:
            source = CHECKOUT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
            else:
                shutil.copy2(source, root / name)
        must_import_from(root)
        command = [sys.executable, "-m", "tests.planted.forks"]
        self.process = subprocess.Popen(
            command, cwd=root, env=environment(root), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run_tests(self, tests: Sequence[str], marks: str, limit: float | None) -> tuple[int | None, str]:
        """pytest's exit code and the first test that failed, or why there is none; None: past the limit."""
        arguments = ["-x", "-n", "0", "-p", "no:cacheprovider", "-m", marks, *tests]
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"arguments": arguments, "limit": limit}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that runs tests ended with {self.process.wait()}")
        answer = json.loads(line)
        if answer["code"] is None:
            return None, f"ran past {limit:.0f} s"
        failed = re.search(r"^(?:FAILED|ERROR) (.*)$", answer["output"], re.MULTILINE)
        lines = answer["output"].strip().splitlines()
        return answer["code"], failed.group(1)[:200] if failed else lines[-1] if lines else "no output"

    def plant(self, entry: Planted, fast: bool, limit: float) -> tuple[bool, bool, str]:
        """Whether the error is noticed, whether by a plain `pytest`, and by which test."""
        path = self.root / entry.file
        source = path.read_text()
        path.write_text(entry.applied(source))
        try:
            code, by = self.run_tests(entry.tests, PLAIN, limit)
            if fast or code == 1:
                return code == 1, code == 1, by
            others, by_others = self.run_tests(entry.tests, OTHERS, limit)
            nothing = others == 5  # no test that an entry names is left for the second run
            return others == 1, False, by if nothing else by_others
        finally:
            path.write_text(source)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def copies(number: int) -> Iterator["queue.Queue[Copy]"]:
    """`number` copies of the checkout in a temporary folder."""
    free: queue.Queue[Copy] = queue.Queue()
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        made = []
        try:
            for i in range(number):
                root = Path(folder) / str(i)
                root.mkdir()
                made.append(Copy(root))
                free.put(made[-1])
            yield free
        finally:
            for copy in made:
                copy.close()


def plant_all(entries: list[Planted], free: "queue.Queue[Copy]", arguments: Arguments) -> list[Outcome]:
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
            code, by = in_a_copy(lambda copy: copy.run_tests(files, PLAIN if arguments.fast else "", None))
            if code != 0:
                raise SystemExit(f"the tests must pass without errors, got {by}")

        def planted(entry: Planted) -> Outcome:
            begun = time.perf_counter()
            noticed, plain, by = in_a_copy(lambda copy: copy.plant(entry, arguments.fast, arguments.limit))
            seconds = time.perf_counter() - begun
            outcome = Outcome(entry.area, entry.name, entry.file, noticed, plain, by, seconds, entry.survives)
            print(f"{outcome.seconds:5.0f} s  {describe(outcome)}", flush=True)
            return outcome

        return list(pool.map(planted, entries))


def describe(outcome: Outcome) -> str:
    told = f"noticed by {outcome.by}" if outcome.noticed else f"SURVIVED ({outcome.by})"
    told += "" if outcome.plain or not outcome.noticed else ", not by a plain pytest"
    note = ", though known to survive" if outcome.noticed and outcome.reason else ""
    return f"{outcome.area}: {outcome.name}: {told}{note}"


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
    return os.environ | {
        "PYTHONPATH": os.pathsep.join((str(copy), str(copy / "envs"))),
        "PYTHONDONTWRITEBYTECODE": "1",
        # what libraries read when they are imported, before the tests' own settings
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "MPLBACKEND": "Agg",
        "OPENBLAS_NUM_THREADS": "1",  # it would start threads, which a fork loses
    }


def write(path: Path, outcomes: list[Outcome], seconds: float) -> None:
    """The outcomes in the form of the other published results, with the counts of each area."""
    content = {
        "name": path.stem,
        "paper": "",
        "artifact": "whether the tests notice errors that are planted one at a time",
        **results.provenance(),
        "processor": processor(),
        "wall_seconds": seconds,
        "rows": [row.as_json() for row in rows(outcomes)],
        "errors": [asdict(o) | {"seconds": round(o.seconds, 1)} for o in outcomes],
    }
    results.write(path, content)


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """How many errors were planted and how many noticed, of each area and of all; the shares of all."""
    counted = lambda label, number: Row.computed(label, number, method="counted")
    found = []
    for area in [*sorted({o.area for o in outcomes}), "all"]:
        of_area = [o for o in outcomes if area in (o.area, "all")]
        found += [
            counted(f"{area}: planted", len(of_area)),
            counted(f"{area}: noticed", sum(o.noticed for o in of_area)),
            counted(f"{area}: noticed by a plain pytest", sum(o.plain for o in of_area)),
        ]
    share = lambda noticed: 100 * sum(noticed) / len(outcomes)
    return [
        *found,
        counted("noticed, %", share(o.noticed for o in outcomes)).judged(f"at least {100 * ENOUGH:g}"),
        counted("noticed by a plain pytest, %", share(o.plain for o in outcomes)).judged(
            f"at least {100 * ENOUGH_PLAIN:g}"
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
