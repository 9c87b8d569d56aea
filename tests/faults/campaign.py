"""The cases: how each kind of fault is done, and what is asked of the run afterwards."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults import HALF, LEARNERS, Case, Learner, Outcome, damage, judging
from tests.faults.judging import Known
from tests.faults.training import COMPILED, LONGEST, Programs, Training

STAGES = ("saving", "evaluating")
REPEATS = 12  # a fault that comes after the end of its process is drawn again so often


@dataclass
class Reference:
    """The undisturbed run of a learner, in `folder`, and one of `HALF` the iterations."""

    folder: Path
    half: Path
    known: Known
    half_known: Known
    programs: Path  # compiled, see `training.Programs`
    seconds: float  # of the whole process
    durations: dict[str, float]  # of stages; of compiling, where nothing is loaded

    @property
    def loaded(self) -> Programs:
        return Programs(self.programs, load=True)


class SomethingWrongError(Exception):
    """A fault has spoilt something, or a process behaved as it must not."""


def reference(learner: Learner, folder: Path) -> Reference:
    """Run it once to compile, and once, with the programs of that, to measure how long it takes."""
    folder.mkdir(parents=True)
    runs: dict[str, Training] = {}
    programs = folder / "programs.pickle"
    for name, iterations in (("compiling", None), ("half", HALF), ("whole", None)):
        runs[name] = Training(
            learner, folder / name, False, iterations=iterations, programs=Programs(programs, load=name != "compiling")
        )
        begun = time.monotonic()
        if runs[name].end() != 0:
            raise RuntimeError(f"the undisturbed run of {learner.algorithm} failed: {runs[name].lines}")
        seconds = time.monotonic() - begun
    known = {name: judging.known_of(folder / name, runs[name].told, learner.exact) for name in runs}
    if learner.exact and known["whole"] != known["compiling"]:
        raise RuntimeError(f"two undisturbed runs of {learner.algorithm} differ")
    shutil.rmtree(folder / "compiling")
    durations = runs["whole"].durations() | {"compiling": runs["compiling"].durations()["compiling"]}
    return Reference(folder / "whole", folder / "half", known["whole"], known["half"], programs, seconds, durations)


class Run:
    """A run in a folder, over several processes."""

    def __init__(self, learner: Learner, ref: Reference, folder: Path, half: bool = False):
        self.learner, self.ref, self.folder = learner, ref, folder
        self.known = ref.known if learner.exact else Known({}, {}, {}, exact=False)
        if half:
            shutil.copytree(ref.half, folder)
            if not learner.exact:
                self.known.states |= ref.half_known.states
        self.before = Known(exact=False)

    def start(self, **options: Any) -> Training:
        """The next process: from scratch, or resuming if there is something to resume."""
        resume = (self.folder / "config.json").is_file()
        if not self.learner.exact:
            self.before = Known({}, judging.rows_of(self.folder), judging.evaluations_of(self.folder), exact=False)
        return Training(self.learner, self.folder, resume, **{"programs": self.ref.loaded} | options)

    def require_sound(self, process: Training) -> None:
        """Raises SomethingWrongError if a process had a wrong state, or has left a wrong row or evaluation."""
        wrong = judging.wrong_while_running(process.told, self.known) or judging.wrong_in(self.folder, self.known)
        restored = [message["restored"] for message in process.told if "restored" in message]
        if not wrong and not self.learner.exact and restored:
            wrong = judging.changed_before(self.before, self.folder, restored[0])
        if wrong:
            raise SomethingWrongError(told(wrong, process))

    def finish(self, quiet: bool = True) -> Training:
        """Resume without a fault. Raises SomethingWrongError unless the run is completed and as undisturbed."""
        process = self.start()
        self.require_complete(process, quiet)
        return process

    def require_complete(self, process: Training, quiet: bool = True) -> None:
        code = process.end()
        if code is None:
            raise SomethingWrongError(told(f"hangs for more than {LONGEST:.0f} s", process))
        if code != 0 or (quiet and process.lines):
            raise SomethingWrongError(told(f"ends with {code}", process))
        self.require_sound(process)
        if missing := judging.missing_at_the_end(self.folder, self.ref.known, self.learner.settings["iterations"]):
            raise SomethingWrongError(told(f"is missing: {', '.join(missing)}", process))


def told(what: str, process: Training) -> str:
    """What is wrong, with what the process said."""
    return f"{what}; exit code {process.code}, stderr: {' | '.join(process.lines[-12:])[:1500] or 'nothing'}"


def carried_out(case: Case, ref: Reference, seed: int, work: Path, keep: Path | None) -> list[Outcome]:
    """The outcomes of a case's faults. Runs that failed are copied into `keep`."""
    folder = work / re.sub(r"\W", "_", case.name)
    folder.mkdir(parents=True)
    rng = random.Random(f"{seed}/{case.name}")
    does = {
        "kill -9": killed,
        "SIGTERM": stopped,
        "full disk": disk_full,
        "damaged file": damaged,
        "concurrent start": begun_twice,
    }[case.kind]
    found: list[Outcome] = []
    begun = time.monotonic()
    fault = ["nothing"]
    try:
        for outcome, why in does(case, LEARNERS[case.learner], ref, folder, rng, fault):
            why = why.replace(f"{folder}/", "")
            found.append(Outcome(case.name, fault[0], outcome, why, time.monotonic() - begun))
            begun = time.monotonic()
    except (SomethingWrongError, ValueError) as error:  # the latter where a file cannot be read
        why = str(error).replace(f"{folder}/", "")
        found.append(Outcome(case.name, fault[0], "failed", why, time.monotonic() - begun))
        if keep is not None:
            shutil.copytree(folder, keep / folder.name, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return found


Steps = Iterator[tuple[str, str]]


def killed(case: Case, learner: Learner, ref: Reference, folder: Path, rng: random.Random, fault: list[str]) -> Steps:
    """Each fifth kill comes while it saves or evaluates, the others at any time since the process began."""
    return chain(case, learner, ref, folder, rng, fault, signal.SIGKILL)


def stopped(case: Case, learner: Learner, ref: Reference, folder: Path, rng: random.Random, fault: list[str]) -> Steps:
    """Three of five come while it compiles, saves and evaluates."""
    return chain(case, learner, ref, folder, rng, fault, signal.SIGTERM)


def chain(
    case: Case,
    learner: Learner,
    ref: Reference,
    folder: Path,
    rng: random.Random,
    fault: list[str],
    number: signal.Signals,
) -> Steps:
    """One signal after another on the same run, each in a process that resumes it; a run that is completed before its
    time is compared, and another one begun. What a signal spoils shows in the next process at the latest."""
    runs = 0
    run = Run(learner, ref, folder / "0")
    happened = repeats = 0
    lifetime = ref.seconds  # of a process; of the undisturbed run it may have been much longer, on a busier machine
    while happened < case.faults:
        stage, begun = stage_of(number, happened, rng), time.monotonic()
        process = run.start(**{"programs": COMPILED} if stage == "compiling" else {})
        fault[0], came = send(process, ref, stage, lifetime, rng, number)
        if came:
            require_words(process, number)
            run.require_sound(process)
            happened += 1
            if happened < case.faults:
                yield "equal", ""
            continue
        repeats += 1
        lifetime = min(lifetime, time.monotonic() - begun)
        if repeats > REPEATS:
            raise SomethingWrongError(f"no signal came in time in {repeats} processes")
        run.require_complete(process)
        runs += 1
        run = Run(learner, ref, folder / str(runs))
    run.finish()
    yield "equal", ""


def stage_of(number: signal.Signals, happened: int, rng: random.Random) -> str:
    """During which stage the next signal is sent; "" for any time."""
    if number == signal.SIGTERM:
        return ("compiling", "saving", "evaluating", "", "")[happened % 5]
    return rng.choice(STAGES) if happened % 5 == 0 else ""


def send(
    process: Training, ref: Reference, stage: str, lifetime: float, rng: random.Random, number: signal.Signals
) -> tuple[str, bool]:
    """Send a signal during a stage, or at any time of the lifetime: when, in words, and whether it came before the
    process ended."""
    if stage:
        occurrence = rng.randint(1, 1 if stage == "compiling" else 2)
        alive = process.wait(lambda: process.count(stage) >= occurrence)
        delay = rng.random() * ref.durations.get(stage, 0.1)
        when = f"{delay:.3f} s after {stage} has begun for time {occurrence}"
    else:
        alive, delay = True, rng.random() * lifetime
        when = f"{delay:.2f} s after the start"
    alive = alive and process.wait(seconds=delay)
    if not alive:
        return when, False
    code = process.end(number)
    if code is None:
        raise SomethingWrongError(told(f"hangs after {number.name}, {when}", process))
    return f"{number.name} {when}", code in (-number, 128 + number)


def require_words(process: Training, number: signal.Signals) -> None:
    """Of what was ended by a signal: nothing on stderr, or that it stops, and where, which must be true."""
    lines = [line.removeprefix("jaxrl-hier: ") for line in process.lines]
    if process.code == -number:
        lines = [line for line in lines if not line.startswith(f"{number.name}: stopping after")]
        if lines:
            raise SomethingWrongError(told("is ended by the signal with other words", process))
        return
    if len(lines) != 2 or not lines[0].startswith("SIGTERM: stopping after") or "--resume" not in lines[1]:
        raise SomethingWrongError(told("does not say that it stops", process))
    where = re.match(r"stopped at iteration (\d+) by SIGTERM", lines[1])
    saved = judging.checkpoints_of(process.folder)
    if where and int(where[1]) not in saved:
        raise SomethingWrongError(told(f"says that iteration {where[1]} is saved, there are {saved}", process))


def disk_full(
    case: Case, learner: Learner, ref: Reference, folder: Path, rng: random.Random, fault: list[str]
) -> Steps:
    """By a limit for the size of files or, with the right to mount, a small file system; one fault after another."""
    small = case.number % 2 == 1 and may_mount(folder)
    place = folder / "disk"
    place.mkdir()
    sizes = [path.stat().st_size for path in ref.folder.rglob("*") if path.is_file()]
    with mounted(place) if small else no_mount():
        run = Run(learner, ref, place / "run")
        happened = repeats = 0
        while happened < case.faults:
            if small:
                limit = rng.randrange(16, int(1.2 * sum(sizes) / 1024) + 64) * 1024
                remount(place, max(limit, used(place) + 8192 * rng.randrange(8)))
                fault[0] = f"a file system of {limit} bytes"
                process = run.start()
            else:
                limit = int(200 * (1.1 * max(sizes) / 200) ** rng.random())
                fault[0] = f"files of at most {limit} bytes"
                process = run.start(file_limit=limit)
            code = process.end()
            if code == 0 and not process.lines:  # it was enough
                run.require_sound(process)
                repeats += 1
                if repeats > REPEATS:
                    raise SomethingWrongError("no limit was small enough")
                shutil.rmtree(place / "run")
                run = Run(learner, ref, place / "run")
                continue
            if code != 2 or len(process.lines) != 1:
                raise SomethingWrongError(told("is no refusal in one line", process))
            happened += 1
            run.require_sound(process)
            if happened < case.faults:
                yield "equal", ""
        if small:
            remount(place, 1 << 30)
        run.finish()
        yield "equal", ""


def may_mount(folder: Path) -> bool:
    probe = folder / "probe"
    probe.mkdir(exist_ok=True)
    try:
        with mounted(probe):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def mounted(place: Path) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(place)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


@contextmanager
def no_mount() -> Iterator[None]:
    yield


def remount(place: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True, capture_output=True)


def used(place: Path) -> int:
    """Bytes of a file system that are taken."""
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def damaged(case: Case, learner: Learner, ref: Reference, folder: Path, rng: random.Random, fault: list[str]) -> Steps:
    """A file of a run that has reached half of its iterations is damaged, and the run resumed."""
    run = Run(learner, ref, folder / "run", half=True)
    outside = folder / "outside.txt"
    outside.write_text(damage.MINE)
    number = case.number + {name: 7 * i for i, name in enumerate(LEARNERS)}[case.learner]
    path, fault[0] = damage.do(run.folder, rng, number, outside)
    before = judging.contents(run.folder)
    process = Training(learner, run.folder, True, programs=ref.loaded)
    code = process.end()
    if outside.read_text() != damage.MINE or len(list(folder.iterdir())) != 2:
        raise SomethingWrongError(told("something outside of the run was written", process))
    if code == 2 and len(process.lines) == 1:
        after = judging.contents(run.folder)
        if lost := [name for name in before if before[name] != after.get(name)]:
            raise SomethingWrongError(told(f"refused, but changed: {', '.join(lost)}", process))
        yield "refused", process.lines[0]
        return
    if code != 0:
        raise SomethingWrongError(told("is no refusal in one line", process))
    if any("Traceback" in line for line in process.lines):
        raise SomethingWrongError(told("writes a traceback", process))
    wrong = judging.wrong_while_running(process.told, run.known)
    restored = [message["restored"] for message in process.told if "restored" in message]
    rows, evaluations = judging.rows_of(run.folder), judging.evaluations_of(run.folder, damaged=True)
    if learner.exact:
        wrong = wrong or judging.altered(rows, evaluations, ref.known)
    else:
        wrong = wrong or judging.altered(rows, evaluations, ref.half_known, max(restored, default=0))
    missing = judging.missing_at_the_end(run.folder, ref.known, learner.settings["iterations"])
    if wrong or not all(what_was_in(path, what) for what in missing):
        raise SomethingWrongError(told(wrong or f"is missing: {', '.join(missing)}", process))
    if missing and not process.lines:
        raise SomethingWrongError(told(f"is missing without a word: {', '.join(missing)}", process))
    yield ("said", process.lines[0]) if missing else ("equal", " | ".join(process.lines))


def what_was_in(path: Path, what: str) -> bool:
    """Whether something that is missing, in words, was in the damaged file or folder."""
    if path.name == "metrics.jsonl":
        return "row" in what
    return "evaluation" in what and (path.name == "evaluations" or what.endswith(f" {path.stem}"))


def begun_twice(
    case: Case, learner: Learner, ref: Reference, folder: Path, rng: random.Random, fault: list[str]
) -> Steps:
    """Two or three processes come to the folder at the same moment, all fresh or all to resume."""
    resume, count = rng.random() < 0.5, rng.choice((2, 3))
    fault[0] = f"{count} processes {'resume' if resume else 'begin'}"
    run = Run(learner, ref, folder / "run", half=resume)
    gate, opener = os.pipe()
    processes = [Training(learner, run.folder, resume, programs=ref.loaded, gate=gate) for _ in range(count)]
    for process in processes:
        process.wait(partial(has_come, process))
    os.write(opener, b"." * count)
    codes = [process.end() for process in processes]
    os.close(gate)
    os.close(opener)
    winners = [process for process in processes if process.code == 0]
    for process in processes:
        if process.code != 0 and (process.code != 2 or len(process.lines) != 1):
            raise SomethingWrongError(told("is no refusal in one line", process))
    if len(winners) != 1:
        raise SomethingWrongError(told(f"exit codes {codes}", processes[0]))
    run.require_complete(winners[0])
    yield "equal", ""


def has_come(process: Training) -> bool:
    """Whether a process is about to open its folder."""
    return process.count("opening") > 0
