"""Training: iterations in chunks, with checkpoints, evaluations, logged rows, progress and resume.

One loop serves every algorithm and every environment. A `Trainer` carries out its iterations: `Compiled` where the
environment is compiled with the algorithm, `jaxrl_hier.host_training.OnHost` for environments of Gymnasium.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxrl_hier.checks import DivergedError, UsageError, WriteError, warn
from jaxrl_hier.engine import checkpoint, processes
from jaxrl_hier.engine.chunk import LEFT_OUT, Evaluation, init_seeds, initial, make_chunk, measurements
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.contract import require_counted
from jaxrl_hier.engine.evaluation import describe, require_measured, score, without
from jaxrl_hier.engine.folder import (
    best_checkpoint,
    evaluation_files,
    load_evaluation,
    note_resume,
    note_written,
    save_evaluation,
    writing,
)
from jaxrl_hier.engine.identity import Identity
from jaxrl_hier.engine.logging import DIVERGED, Progress, RunLog
from jaxrl_hier.engine.numerics import with_own_numerics
from jaxrl_hier.engine.room import NoRoomError, compiled, out_of_memory, require_room
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.sharding import by_seed, device_mesh, is_shared, layout, sharing
from jaxrl_hier.engine.stopping import Stopping
from jaxrl_hier.engine.types import Algorithm, Average, NamedArray, TrainState, iteration_of

__all__ = ["Compiled", "Evaluation", "RunConfig", "RunResult", "Trainer", "init_seeds", "make_chunk", "train"]


@dataclass
class RunResult:
    """What a run leaves behind. Arrays of `state` and `evaluation` have a leading axis [seeds]."""

    state: TrainState
    rows: list[dict[str, Any]]  # as in metrics.jsonl: one per logged row and seed
    evaluation: dict[str, NamedArray]  # at the last iteration
    compile_seconds: float
    seconds: float  # of training alone: no compilation, no evaluation, no checkpoints
    directory: Path | None


class Trainer(Protocol):
    """What carries out the iterations of a run. States have a leading axis [seeds]."""

    def begin(self, state: TrainState, resumed: bool) -> TrainState:
        """The state from which training starts or, with `resumed`, goes on."""

    def compile(self, state: TrainState, length: int) -> None:
        """Compile `length` iterations from such a state."""

    def run(self, state: TrainState) -> tuple[TrainState, dict[str, Average], dict[str, Any]]:
        """Carry out what was compiled last: state, metrics and `bad` as `chunk.make_chunk` returns them, the latter two
        on the host. The state that it was given may be donated."""

    def evaluate(self, state: TrainState) -> dict[str, NamedArray]:
        """Measurements, axes ("seed", …), which follow from the state alone."""

    def close(self) -> None:
        """Release what the trainer holds."""


class Compiled:
    """Iterations of an algorithm whose environment is compiled with it.

    Args:
        skip: leave out updates that are not finite, see `chunk.finite_update`.
        divided: whether the program says how its work divides among devices, see `sharding.each_device`. Where it
            traces settings, which it does not pass on as arguments, XLA alone partitions it.
    """

    def __init__(self, algorithm: Algorithm, *, skip: bool = False, divided: bool = True):
        self.algorithm, self.skip, self.divided = algorithm, skip, divided
        self.evaluate, self.checked = Evaluation(algorithm), False

    def begin(self, state: TrainState, resumed: bool) -> TrainState:
        return state

    def compile(self, state: TrainState, length: int) -> None:
        chunk = make_chunk(self.algorithm, length, skip=self.skip)
        # the state stays where it is, and every process gets the metrics
        where = jax.tree.map(lambda x: x.sharding, state), *[state.iteration.sharding] * 2
        chunk = by_seed(chunk, state)
        with sharing(state) if self.divided else nullcontext():
            # devices that run exchanges side by side may begin them in different orders, and then wait forever
            program = jit(chunk, sequential=is_shared(state), donate_argnums=0, out_shardings=where)
            self.chunk = compiled(program, "iterations", state)

    def run(self, state: TrainState) -> tuple[TrainState, dict[str, Average], dict[str, Any]]:
        with out_of_memory("iterations"):
            state, metrics, bad = self.chunk(state)
            if not self.checked:  # once, while the first chunk is being computed: a fault shows up before the end
                self.evaluate.trace(state)
                self.checked = True
            return state, *jax.device_get((metrics, bad))

    def close(self) -> None:
        pass


class Milestones:
    """The checkpoints and evaluations of a run.

    After a chunk its rows are written, then the checkpoint, then the evaluation. The run may be killed at any moment in
    between: once resumed, it writes again what is later than its checkpoint, and the evaluation of the checkpoint's own
    iteration where that is missing. Evaluations follow from the state alone, so they are what they would have been.

    Args:
        evaluate: state, leading axis [seeds] -> measurements, axes ("seed", …).
        log: whose rows must be on the disk before a checkpoint is.
        saved: the iteration of the newest checkpoint, 0 before the first.
        dropped: the seeds that have diverged, which are not measured.
        stopping: whether something asks to stop.
    """

    def __init__(
        self,
        run: RunConfig,
        directory: Path | None,
        evaluate: Callable[[TrainState], dict[str, NamedArray]],
        log: RunLog,
        progress: Progress,
        saved: int,
        dropped: set[int],
        stopping: Stopping,
    ):
        self.run, self.directory, self.evaluate, self.log, self.progress = run, directory, evaluate, log, progress
        self.saved, self.dropped, self.stopping = saved, dropped, stopping
        self._latest: tuple[int, dict[str, NamedArray]] | None = None
        self._best: tuple[float, int] | None = None  # score and iteration of the best evaluation with a checkpoint

    def saves(self, done: int) -> bool:
        """Whether there is a checkpoint after iteration `done`."""
        return self.directory is not None and (done % self.run.checkpoint_every == 0 or done == self.run.iterations)

    def measures(self, done: int) -> bool:
        """Whether there is an evaluation after iteration `done`; there always is one at the end."""
        return bool(self.run.evaluate_every) and done % self.run.evaluate_every == 0

    def resumed(self, state: TrainState, done: int) -> None:
        """Drop evaluations later than the checkpoint, as rows are; make the checkpoint's own if it is missing."""
        if self.directory is None:
            return
        files = evaluation_files(self.directory)
        for iteration, path in files.items():
            if iteration > done and processes.is_first():
                path.unlink()
        if self.run.keep_best:
            self._best = processes.from_first(best_checkpoint(self.directory, self.run.keep_best, self.run.keep_lowest))
        lost = bool(done and self.measures(done) and (done not in files or load_evaluation(files[done]) is None))
        if processes.from_first(lost):
            self._measure(state, done)

    def reached(self, state: TrainState, done: int) -> None:
        """Save and evaluate what is due after iteration `done`, whose row is written."""
        if self.saves(done):
            self._save(state, done)
        self.stop_if_asked(state, done, chunk_over=True)
        if self.measures(done):
            self._measure(state, done)

    def final(self, state: TrainState, done: int) -> dict[str, NamedArray]:
        """The evaluation of the last iteration."""
        if self._latest is None or self._latest[0] != done:
            self._measure(state, done)
        assert self._latest is not None
        return self._latest[1]

    def stop_if_asked(self, state: TrainState, done: int, chunk_over: bool = False) -> None:
        """Save and stop if something asks for it, see `Stopping.reason`."""
        if (reason := processes.from_any(self.stopping.reason(chunk_over))) is None:
            return
        if self.directory is not None and done > self.saved:
            self._save(state, done)
        where = f"at iteration {done}" if done else "before the first iteration"
        kept = "nothing is kept, since the run has no folder" if self.directory is None else "go on with --resume"
        self.stopping.stop(f"stopped {where} by {reason}; {kept}")

    def _save(self, state: TrainState, done: int) -> None:
        assert self.directory is not None
        with self.progress.doing(f"writing the checkpoint of iteration {done}"):
            self.log.sync()
            if processes.is_first():
                note_written(self.directory, done, self.log.written)
            checkpoint.save(self.directory, state, done)
            self.saved = done
            self._drop_old()

    def _drop_old(self) -> None:
        assert self.directory is not None
        newest = checkpoint.iterations(self.directory)[-self.run.keep :]
        checkpoint.drop(self.directory, newest if self._best is None else [*newest, self._best[1]])

    def _measure(self, state: TrainState, done: int) -> None:
        with self.progress.doing(f"evaluating at iteration {done}"):
            measured = without(self.dropped, self.run.seed, self.evaluate(state))
            save_evaluation(self.directory if processes.is_first() else None, measured, done)
        self._latest = done, measured
        self.progress.say(f"evaluated at iteration {done}: {describe(measured)}")
        if self.run.keep_best and self.directory is not None:
            found = score(measured, self.run.keep_best, self.run.keep_lowest)
            if self._best is None or found > self._best[0]:
                self._best = found, done
                self._save(state, done) if done != self.saved else self._drop_old()


@with_own_numerics
def train(
    algorithm: Algorithm,
    run: RunConfig,
    *,
    directory: Path | None = None,
    identity: Identity | None = None,
    resume: bool = False,
    trainer: Trainer | None = None,
    stop: Callable[[], bool] | None = None,
    starts: Any = None,
    names: Sequence[str] | None = None,
) -> RunResult:
    """Train to `run.iterations`, from scratch or from the newest checkpoint in `directory`.

    Args:
        directory: where metrics, checkpoints and evaluations go; None: nothing is written.
        identity: what the run is (algorithm, environment, tasks, settings), kept in `directory`, compared on resume.
        resume: go on with the run in `directory`.
        trainer: carries out the iterations; default `Compiled`.
        stop: called after every chunk; once it returns True, the run is saved and stops, see `engine.stopping`.
        starts: what `algorithm.init` takes, [seeds, ...]; None: the keys of the seeds.
        names: what messages call each of the seeds; None: by its number.

    Raises:
        UsageError: settings that do not fit, a folder that exists, cannot be written or is another run's; a
            `contract.ContractError` where a function of the algorithm returns what it must not.
        DivergedError: a metric or parameter became NaN or infinite; checkpoints from before are kept.
        KeyboardInterrupt, SystemExit: SIGINT, or SIGTERM or another notice came; the run is saved.
    """
    run.validate()
    trainer = trainer or Compiled(algorithm, skip=run.on_nan == "skip")
    mesh = device_mesh(run.devices)
    shapes, initial_state = initial(algorithm, run, starts)
    require_room(shapes, run.devices)
    spread = layout(shapes, mesh)
    if run.keep_best and isinstance(trainer, Compiled):
        require_measured(run.keep_best, measurements(algorithm, shapes)[0])
    folder = nullcontext(False) if directory is None else writing(directory, identity, run, resume)
    with ExitStack() as stack:
        stopping = stack.enter_context(Stopping(directory, stop))
        stack.enter_context(processes.naming_the_lost(lambda: _kept(directory)))
        resumed = stack.enter_context(processes.entered_by_first(folder))
        progress = stack.enter_context(Progress(run.iterations, run.quiet or not processes.is_first()))
        if directory is not None and resumed:
            placed = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
            with progress.doing("reading the checkpoint"):
                state = checkpoint.restore(directory, jax.tree.map(placed, shapes, spread))
        else:
            with progress.doing("making the initial state"):
                state = initial_state(spread)
        done = iteration_of(state)
        if done > run.iterations:
            raise UsageError(
                f"the run is at iteration {done} already; iterations must be at least that, got {run.iterations}"
            )
        if directory is not None and resume:  # only now, since a command that is refused changes nothing
            if processes.is_first():
                note_resume(directory, run)
            checkpoint.set_aside_later(directory, done)
        try:
            with progress.doing("starting the environments"):
                state = trainer.begin(state, resumed)
            return _iterate(trainer, algorithm.env_steps, run, state, directory, progress, stopping, names)
        except WriteError as error:
            raise WriteError(f"{error}; {_kept(directory)}") from error
        except NoRoomError as error:
            kept = f"; {_kept(directory)}" if directory and checkpoint.iterations(directory) else ""
            raise NoRoomError(f"{error}{kept}", error.part) from error
        finally:
            trainer.close()


def _iterate(
    trainer: Trainer,
    env_steps: int,
    run: RunConfig,
    state: TrainState,
    directory: Path | None,
    progress: Progress,
    stopping: Stopping,
    names: Sequence[str] | None,
) -> RunResult:
    """The loop of `train`, in a folder that is prepared.

    Args:
        env_steps: environment steps in one iteration of one seed.
        state: the initial or the restored one.
    """
    done, length = iteration_of(state), 0
    seeds = [run.seed + i for i in range(run.seeds)]
    log = RunLog(directory, seeds, run.tensorboard, done, run.wandb) if processes.is_first() else RunLog(None, seeds)
    dropped = {row["seed"] for row in log.rows if DIVERGED in row} if run.on_nan == "drop-seed" else set()
    dropped = {*processes.from_first([*dropped])}
    left_out = LeftOut(names or [f"seed {seed}" for seed in seeds])
    seconds = compile_seconds = 0.0
    milestones = Milestones(run, directory, trainer.evaluate, log, progress, done, dropped, stopping)
    try:
        milestones.resumed(state, done)
        milestones.stop_if_asked(state, done)
        while done < run.iterations:
            # shorter once, where a resumed run is not at a multiple of log_every
            needed = run.log_every - done % run.log_every
            if needed != length:
                length, begun = needed, time.perf_counter()
                with progress.doing(f"compiling {length} iterations"):
                    trainer.compile(state, length)
                compile_seconds += time.perf_counter() - begun
                progress.say(f"compiled in {time.perf_counter() - begun:.1f} s")
                progress.start_clock(done)
                milestones.stop_if_asked(state, done)
            begun = time.perf_counter()
            which = f"iterations {done + 1} to {done + length}" if length > 1 else f"iteration {done + 1}"
            with progress.doing(f"training {which}", "a run stops only after them: see log_every"):
                state, metrics, bad = trainer.run(state)
            if not seconds:  # of all chunks, the first
                require_counted(iteration_of(state), done + length)
            chunk_seconds = time.perf_counter() - begun
            seconds += chunk_seconds
            stopping.seconds = chunk_seconds
            found = [each for each in divergences(bad, run.seed, done, length) if each.seed not in dropped]
            dropped |= {each.seed for each in found}
            _require_seeds_left(found, dropped, run, directory)
            done += length
            speed = length * env_steps * run.seeds / chunk_seconds
            common = {"iteration": done, "env_steps": done * env_steps, "steps_per_second": round(speed, 1)}
            means = {k: m.mean() for k, m in metrics.items()}
            left = [i for i, seed in enumerate(seeds) if seed not in dropped]
            rows = [{"seed": seeds[i]} | _finite({k: m[i] for k, m in means.items()}) for i in left]
            rows += [{"seed": each.seed, DIVERGED: each.iteration} for each in found]
            with progress.doing("writing rows"):
                log.write([common | row for row in rows])
            progress.update(done, _finite({k: _mean_of_finite(m[left]) for k, m in means.items()}), speed)
            left_out.add(metrics, done)
            milestones.reached(state, done)
            milestones.stop_if_asked(state, done)
        left_out.say_total()
        evaluation = milestones.final(state, done)
        milestones.stop_if_asked(state, done)
    finally:
        log.close()
    return RunResult(state, log.rows, evaluation, compile_seconds, seconds, directory)


def _finite(numbers: dict[str, Any]) -> dict[str, float]:
    return {name: float(x) for name, x in numbers.items() if np.isfinite(x)}


def _mean_of_finite(x: np.ndarray) -> float:
    """NaN where there is none."""
    finite = x[np.isfinite(x)]
    return float(finite.mean()) if finite.size else np.nan


class LeftOut:
    """Counts the updates that were left out with `on_nan` "skip", and says so at the first of each seed and at the end.

    The share in a row is its metric `chunk.LEFT_OUT`.
    """

    def __init__(self, names: Sequence[str]):
        self.names, self.count = names, np.zeros(len(names), np.int64)

    def add(self, metrics: dict[str, Average], done: int) -> None:
        """Those of a chunk that ended at iteration `done`."""
        if LEFT_OUT not in metrics:
            return
        now = np.asarray(metrics[LEFT_OUT].total).astype(np.int64)
        for name in (name for name, before, n in zip(self.names, self.count, now) if n and not before):
            warn(f"{name}: an update was left out by iteration {done}, since a metric or parameter was not finite")
        self.count += now

    def say_total(self) -> None:
        for name, count in zip(self.names, self.count):
            if count:
                warn(f"{name}: {count} updates were left out in all")


class Diverged(NamedTuple):
    """What was found in a seed that diverged."""

    iteration: int  # the first
    metric: str  # that was not finite, or "params"
    seed: int

    def __str__(self) -> str:
        return f"{self.metric} is not finite at iteration {self.iteration} (seed {self.seed})"


def divergences(bad: dict[str, Any], seed: int, done: int, length: int) -> list[Diverged]:
    """The seeds that have diverged in a chunk of `length` iterations after iteration `done`, the first to do so first.

    Args:
        bad: metric -> position in the chunk of its first value that is not finite, or `length`, [seeds].
        seed: the first of them.
    """
    first = [min((int(at), name) for name, at in zip(bad, ats)) for ats in zip(*bad.values())]
    found = [Diverged(done + position + 1, name, seed + i) for i, (position, name) in enumerate(first)]
    return sorted(each for each in found if each.iteration <= done + length)


def _require_seeds_left(found: list[Diverged], dropped: set[int], run: RunConfig, directory: Path | None) -> None:
    """Raises DivergedError unless the run goes on without the seeds that were `found` to diverge."""
    if found and run.on_nan != "drop-seed":
        raise DivergedError(f"{found[0]}; {_kept(directory)}")
    if found and len(dropped) == run.seeds:
        raise DivergedError(f"every seed has diverged: {'; '.join(map(str, found))}; {_kept(directory)}")
    for each in found:
        warn(f"{each}: the run goes on without this seed")


def _kept(directory: Path | None) -> str:
    """Which checkpoint there is, in words."""
    saved = checkpoint.iterations(directory) if directory else []
    return f"the checkpoint of iteration {saved[-1]} is kept" if saved else "no checkpoint had been written"
