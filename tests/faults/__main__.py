"""The campaign: its command line, its workers, its table. See `tests.faults`."""

import json
import os
import pickle
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# before jax is imported; programs of this size run for milliseconds
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent.parent / ".jax_cache"))
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # it would start threads, which a fork loses
# one device, for which the programs that are loaded from files were compiled
os.environ["XLA_FLAGS"] = re.sub(r"--xla_force_host\S*", "", os.environ.get("XLA_FLAGS", ""))
os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"

import tyro

from benchmarks import results
from tests.faults import FULL, KINDS, LEARNERS, OUTCOMES, SHORT, Case, Outcome, cases, published
from tests.faults.campaign import Reference, carried_out, reference
from tests.faults.training import import_packages


@dataclass
class Arguments:
    """Which faults, and how."""

    kinds: tuple[str, ...] = ()
    """"kill -9", "SIGTERM", "full disk", "damaged file", "concurrent start"; default: all"""
    learners: tuple[str, ...] = ()
    """tabular, on-policy, replay, recurrent, meta, hierarchical, host; default: all"""
    case: str = ""
    """a case alone, by its name"""
    short: bool = False
    """a few faults of each kind, of one learner"""
    seed: int = 0
    """of all that is drawn"""
    jobs: int = 1
    """cases side by side"""
    work: Path | None = None
    """folder for runs and outcomes; what is there is not done again. Default: a temporary one"""
    report: bool = False
    """do no more cases: only the table, and the file, of what is there in --work"""
    keep: Path | None = None
    """folder for copies of runs that failed"""
    out: Path | None = None
    """JSON file to write"""


def main(arguments: Arguments) -> int:
    counts = SHORT if arguments.short else FULL
    chosen = [
        case
        for case in cases(counts)
        if (not arguments.kinds or case.kind in arguments.kinds)
        and (not arguments.learners or case.learner in arguments.learners)
        and arguments.case in ("", case.name)
    ]
    if not chosen:
        print(f"no such case; kinds are {', '.join(KINDS)}, learners {', '.join(LEARNERS)}", file=sys.stderr)
        return 2
    random.Random(arguments.seed).shuffle(chosen)  # those that are done when it is killed are of all kinds
    work = arguments.work or Path(tempfile.mkdtemp(prefix="faults-"))  # no TemporaryDirectory: forks would remove it
    work.mkdir(parents=True, exist_ok=True)
    try:
        outcomes = campaign(chosen, arguments, work)
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)
    show(outcomes)
    return 1 if any(outcome.outcome == "failed" for outcome in outcomes) else 0


def campaign(chosen: list[Case], arguments: Arguments, work: Path) -> list[Outcome]:
    """The outcomes of the cases, those that are there in `work` included."""
    journal = work / "outcomes.jsonl"
    outcomes = [Outcome(**json.loads(line)) for line in journal.open()] if journal.exists() else []
    done = {outcome.case for outcome in outcomes}
    left = [] if arguments.report else [case for case in chosen if case.name not in done]
    if not (work / "commit").exists():  # now: what is committed later is not what runs
        (work / "commit").write_text(results.commit() or "")
    import_packages()
    if left:
        shutil.rmtree(work / "cases", ignore_errors=True)  # of a campaign that was killed
    refs = {name: made(name, work / "undisturbed" / name) for name in sorted({case.learner for case in left})}
    with journal.open("a") as file:
        for found in side_by_side(left, refs, arguments, work):
            outcomes += found
            file.write("".join(json.dumps(outcome.__dict__) + "\n" for outcome in found))
            file.flush()
            print("\n".join(in_words(outcome, arguments) for outcome in found), flush=True)
    if arguments.out is not None:
        about = results.provenance() | {"commit": (work / "commit").read_text()}
        published.write(arguments.out, about, table(outcomes), outcomes, arguments.seed)
    return outcomes


def made(name: str, folder: Path) -> Reference:
    """The undisturbed runs of a learner, made unless they are there."""
    kept = folder / "reference.pickle"
    if not kept.exists():
        shutil.rmtree(folder, ignore_errors=True)
        begun = time.perf_counter()
        found = reference(LEARNERS[name], folder)
        kept.write_bytes(pickle.dumps(found))
        print(f"undisturbed runs, {name}: {time.perf_counter() - begun:.0f} s", flush=True)
    return pickle.loads(kept.read_bytes())


def side_by_side(
    chosen: list[Case], refs: dict[str, Reference], arguments: Arguments, work: Path
) -> Iterator[list[Outcome]]:
    """The outcomes of each case, as they come, from `jobs` forks of this process. A pipe holds the numbers of the cases
    that none has taken yet; each answer is one line."""
    to_do, numbers = os.pipe()
    os.write(numbers, b"".join(number.to_bytes(2, "big") for number in range(len(chosen))))
    os.close(numbers)
    answers, answer = os.pipe()
    workers = []
    for _ in range(arguments.jobs):
        workers.append(os.fork())
        if workers[-1] == 0:
            os.close(answers)
            work_off(chosen, refs, arguments, work, to_do, answer)
    os.close(answer)
    os.close(to_do)
    with os.fdopen(answers) as lines:
        for line in lines:
            yield [Outcome(**outcome) for outcome in json.loads(line)]
    for worker in workers:
        if os.waitpid(worker, 0)[1]:
            raise RuntimeError("a process that carries out cases has failed, see above")


def work_off(
    chosen: list[Case], refs: dict[str, Reference], arguments: Arguments, work: Path, to_do: int, answer: int
) -> None:
    """What a worker does."""
    code = 1
    try:
        while number := os.read(to_do, 2):
            case = chosen[int.from_bytes(number, "big")]
            found = carried_out(case, refs[case.learner], arguments.seed, work / "cases", arguments.keep)
            os.write(answer, (json.dumps([outcome.__dict__ for outcome in found]) + "\n").encode())
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def in_words(outcome: Outcome, arguments: Arguments) -> str:
    text = f"{outcome.seconds:5.0f} s  {outcome.case}: {outcome.fault}: {outcome.outcome} {outcome.why}".rstrip()
    if outcome.outcome != "failed":
        return text[:300]
    short = " --short" if arguments.short else ""
    return f"{text}\n         python -m tests.faults{short} --seed {arguments.seed} --case {outcome.case!r}"


def table(outcomes: Iterable[Outcome]) -> dict[tuple[str, str], dict[str, int]]:
    """How many faults of a kind and learner had which outcome."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for outcome in outcomes:
        kind, learner, _ = outcome.case.split("/")
        line = found.setdefault((kind, learner), dict.fromkeys(OUTCOMES, 0))
        line[outcome.outcome] += 1
    key = lambda item: (KINDS.index(item[0][0]), [*LEARNERS].index(item[0][1]))
    return dict(sorted(found.items(), key=key))


def show(outcomes: list[Outcome]) -> None:
    found = table(outcomes)
    print(f"\n{'':<32}" + "".join(f"{name:>9}" for name in OUTCOMES))
    for (kind, learner), line in found.items():
        print(f"{f'{kind}, {learner}':<32}" + "".join(f"{line[name]:>9}" for name in OUTCOMES))
    total = {name: sum(line[name] for line in found.values()) for name in OUTCOMES}
    print(f"{f'all {sum(total.values())}':<32}" + "".join(f"{total[name]:>9}" for name in OUTCOMES))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
