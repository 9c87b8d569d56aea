"""Training: iterations in chunks, with checkpoints, evaluations, logged rows, progress and resume.

One loop serves every algorithm and every environment. A `Trainer` carries out its iterations: `Compiled` where the
environment is compiled with the algorithm, `jaxrl_hier.host_training.OnHost` for environments of Gymnasium.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from jaxrl_hier.checks import DivergedError, UsageError, WriteError
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.chunk import init_seeds, initial, make_chunk, make_evaluation
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.evaluation import describe
from jaxrl_hier.engine.folder import evaluation_files, load_evaluation, save_evaluation, writing
from jaxrl_hier.engine.identity import Identity
from jaxrl_hier.engine.logging import Progress, RunLog
from jaxrl_hier.engine.numerics import with_own_numerics
from jaxrl_hier.engine.room import require_room
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.sharding import device_mesh, layout
from jaxrl_hier.engine.stopping import Stopping
from jaxrl_hier.engine.types import Algorithm, Average, NamedArray, TrainState

__all__ = ["Compiled", "RunConfig", "RunResult", "Trainer", "init_seeds", "make_chunk", "make_evaluation", "train"]


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
    """Iterations of an algorithm whose environment is compiled with it."""

    def __init__(self, algorithm: Algorithm):
        self.algorithm = algorithm
        self.evaluate = make_evaluation(algorithm)

    def begin(self, state: TrainState, resumed: bool) -> TrainState:
        return state

    def compile(self, state: TrainState, length: int) -> None:
        self.chunk = jit(make_chunk(self.algorithm, length), donate_argnums=0).lower(state).compile()

    def run(self, state: TrainState) -> tuple[TrainState, dict[str, Average], dict[str, Any]]:
        state, metrics, bad = self.chunk(state)
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
        say: prints a line about an evaluation.
        saved: the iteration of the newest checkpoint, 0 before the first.
        stopping: whether a signal asks to stop.
    """

    def __init__(
        self,
        run: RunConfig,
        directory: Path | None,
        evaluate: Callable[[TrainState], dict[str, NamedArray]],
        say: Callable[[str], None],
        saved: int,
        stopping: Stopping,
    ):
        self.run, self.directory, self.evaluate, self.say = run, directory, evaluate, say
        self.saved, self.stopping = saved, stopping
        self._latest: tuple[int, dict[str, NamedArray]] | None = None

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
            if iteration > done:
                path.unlink()
        if done and self.measures(done) and (done not in files or load_evaluation(files[done]) is None):
            self._measure(state, done)

    def reached(self, state: TrainState, done: int) -> None:
        """Save and evaluate what is due after iteration `done`, whose row is written."""
        if self.saves(done):
            self._save(state, done)
        self.stop_if_asked(state, done)
        if self.measures(done):
            self._measure(state, done)

    def final(self, state: TrainState, done: int) -> dict[str, NamedArray]:
        """The evaluation of the last iteration."""
        if self._latest is None or self._latest[0] != done:
            self._measure(state, done)
        assert self._latest is not None
        return self._latest[1]

    def stop_if_asked(self, state: TrainState, done: int) -> None:
        """Save and stop if a signal has come."""
        if self.stopping.signal is None:
            return
        if self.directory is not None and done > self.saved:
            self._save(state, done)
        where = f"at iteration {done}" if done else "before the first iteration"
        kept = "nothing is kept, since the run has no folder" if self.directory is None else "go on with --resume"
        self.stopping.stop(f"stopped {where} by {self.stopping.signal.name}; {kept}")

    def _save(self, state: TrainState, done: int) -> None:
        assert self.directory is not None
        checkpoint.save(self.directory, state, done)
        self.saved = done

    def _measure(self, state: TrainState, done: int) -> None:
        measured = self.evaluate(state)
        save_evaluation(self.directory, measured, done)
        self._latest = done, measured
        self.say(f"evaluated at iteration {done}: {describe(measured)}")


@with_own_numerics
def train(
    algorithm: Algorithm,
    run: RunConfig,
    *,
    directory: Path | None = None,
    identity: Identity | None = None,
    resume: bool = False,
    trainer: Trainer | None = None,
) -> RunResult:
    """Train to `run.iterations`, from scratch or from the newest checkpoint in `directory`.

    Args:
        directory: where metrics, checkpoints and evaluations go; None: nothing is written.
        identity: what the run is (algorithm, environment, tasks, settings), kept in `directory`, compared on resume.
        resume: go on with the run in `directory`.
        trainer: carries out the iterations; default `Compiled`.

    Raises:
        UsageError: settings that do not fit, a folder that exists, cannot be written or is another run's.
        DivergedError: a metric or parameter became NaN or infinite; checkpoints from before are kept.
        KeyboardInterrupt, SystemExit: SIGINT or SIGTERM came; the run is saved, see `engine.stopping`.
    """
    run.validate()
    trainer = trainer or Compiled(algorithm)
    mesh = device_mesh(run.devices)
    shapes, initial_state = initial(algorithm, run)
    require_room(shapes, run.devices)
    spread = layout(shapes, mesh)
    folder = nullcontext(False) if directory is None else writing(directory, identity, run, resume)
    with Stopping() as stopping, folder as resumed:
        if directory is not None and resumed:
            placed = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
            state = checkpoint.restore(directory, jax.tree.map(placed, shapes, spread))
            checkpoint.set_aside_later(directory, int(state.iteration[0]))
        else:
            state = jax.device_put(initial_state(), spread)
        done = int(state.iteration[0])
        if done > run.iterations:
            raise UsageError(
                f"the run is at iteration {done} already; iterations must be at least that, got {run.iterations}"
            )
        try:
            state = trainer.begin(state, resumed)
            return _iterate(trainer, algorithm.env_steps, run, state, directory, resume, stopping)
        except WriteError as error:
            raise WriteError(f"{error}; {_kept(directory)}") from error
        finally:
            trainer.close()


def _iterate(
    trainer: Trainer,
    env_steps: int,
    run: RunConfig,
    state: TrainState,
    directory: Path | None,
    resume: bool,
    stopping: Stopping,
) -> RunResult:
    """The loop of `train`, in a folder that is prepared.

    Args:
        env_steps: environment steps in one iteration of one seed.
        state: the initial or the restored one.
    """
    done, length = int(state.iteration[0]), 0
    seeds = [run.seed + i for i in range(run.seeds)]
    log = RunLog(directory, seeds, run.tensorboard, done, run.wandb)
    seconds = compile_seconds = 0.0
    with Progress(run.iterations, done, run.quiet) as progress:
        milestones = Milestones(run, directory, trainer.evaluate, progress.say, done, stopping)
        try:
            if resume:
                milestones.resumed(state, done)
            milestones.stop_if_asked(state, done)
            while done < run.iterations:
                # shorter once, where a resumed run is not at a multiple of log_every
                needed = run.log_every - done % run.log_every
                if needed != length:
                    length, begun = needed, time.perf_counter()
                    trainer.compile(state, length)
                    compile_seconds += time.perf_counter() - begun
                    progress.say(f"compiled in {time.perf_counter() - begun:.1f} s")
                    progress.start_clock(done)
                    milestones.stop_if_asked(state, done)
                begun = time.perf_counter()
                state, metrics, bad = trainer.run(state)
                chunk_seconds = time.perf_counter() - begun
                seconds += chunk_seconds
                stopping.seconds = chunk_seconds
                _stop_if_diverged(bad, run, done, length, directory)
                done += length
                speed = length * env_steps * run.seeds / chunk_seconds
                common = {"iteration": done, "env_steps": done * env_steps, "steps_per_second": round(speed, 1)}
                means = {k: m.mean() for k, m in metrics.items()}
                measured = [{k: float(m[i]) for k, m in means.items() if np.isfinite(m[i])} for i in range(run.seeds)]
                log.write([common | {"seed": seed} | row for seed, row in zip(seeds, measured)])
                happened = {k: m[np.isfinite(m)] for k, m in means.items()}
                progress.update(done, {k: float(m.mean()) for k, m in happened.items() if m.size}, speed)
                milestones.reached(state, done)
                milestones.stop_if_asked(state, done)
        finally:
            log.close()
        evaluation = milestones.final(state, done)
        milestones.stop_if_asked(state, done)
    return RunResult(state, log.rows, evaluation, compile_seconds, seconds, directory)


def _stop_if_diverged(bad: dict[str, Any], run: RunConfig, done: int, length: int, directory: Path | None) -> None:
    position, name, seed = min((int(b[i]), name, i) for name, b in bad.items() for i in range(run.seeds))
    if position < length:
        where = f"iteration {done + position + 1} (seed {run.seed + seed})"
        raise DivergedError(f"{name} is not finite at {where}; {_kept(directory)}")


def _kept(directory: Path | None) -> str:
    """Which checkpoint there is, in words."""
    saved = checkpoint.iterations(directory) if directory else []
    return f"the checkpoint of iteration {saved[-1]} is kept" if saved else "no checkpoint had been written"
