"""The host loop: compiled chunks of iterations, vmapped seeds, checkpoints, resume, progress.

It calls `init`, `step` and `evaluate` of an `Algorithm` and knows nothing else about it.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_hier.checks import DivergedError, UsageError, require_positive
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.compilation import jit
from jaxrl_hier.engine.identity import Identity, differences, summary
from jaxrl_hier.engine.identity import load as load_identity
from jaxrl_hier.engine.identity import save as save_identity
from jaxrl_hier.engine.logging import Progress, RunLog
from jaxrl_hier.engine.numerics import with_own_numerics
from jaxrl_hier.engine.room import require_room
from jaxrl_hier.engine.sharding import device_mesh, layout
from jaxrl_hier.engine.types import Algorithm, Average, NamedArray, TrainState
from jaxrl_hier.relations import Relation, multiple, require
from jaxrl_hier.settings import BaseConfig, Seed


@dataclass(frozen=True)
class RunConfig(BaseConfig):
    """How long, how often, where to: what is the same for every algorithm."""

    iterations: int = 100
    """iterations to train in all, those before a resume included"""
    seed: Seed = 0
    """the first seed"""
    seeds: int = 1
    """independent runs in one program: seed, seed + 1, …"""
    log_every: int = 1
    """iterations per logged row and per compiled chunk; the chunk's mean is logged"""
    checkpoint_every: int = 10
    """iterations between checkpoints"""
    evaluate_every: int = 0
    """iterations between evaluations; 0: only at the end"""
    devices: int = 1
    """devices to split parallel environments or tasks over"""
    tensorboard: bool = True
    """write TensorBoard files beside metrics.jsonl"""
    wandb: bool = False
    """log the same rows to Weights & Biases, a run for each seed (extra wandb; WANDB_PROJECT, WANDB_MODE=offline)"""
    quiet: bool = False
    """no progress on the terminal"""

    def validate(self) -> None:
        require_positive(self, "iterations", "seeds", "log_every", "checkpoint_every", "devices")
        require_positive(self, "evaluate_every", "seed", or_zero=True)
        require(self, self.relations(None, None))
        if self.seed + self.seeds > 2**64:
            raise UsageError(f"seed + seeds must be at most 2⁶⁴, got {self.seed} + {self.seeds}")

    @staticmethod
    def relations(env: Any, tasks: Any) -> list[Relation]:
        return [multiple(name, "log_every") for name in ("iterations", "checkpoint_every", "evaluate_every")]


@dataclass
class RunResult:
    """What a run leaves behind. Arrays of `state` and `evaluation` have a leading axis [seeds]."""

    state: TrainState
    rows: list[dict[str, Any]]  # as in metrics.jsonl: one per logged row and seed
    evaluation: dict[str, NamedArray]  # at the last iteration
    compile_seconds: float
    seconds: float  # of training alone: no compilation, no evaluation, no checkpoints
    directory: Path | None


@with_own_numerics
def init_seeds(algorithm: Algorithm, run: RunConfig) -> TrainState:
    """The initial states of all seeds, leading axis [seeds]; seed i is `algorithm.init(key(seed + i))`, compiled."""
    return initial(algorithm, run)[1]()


def initial(algorithm: Algorithm, run: RunConfig) -> tuple[Any, Callable[[], TrainState]]:
    """The shapes of the initial states of all seeds, and what makes the states; both trace the same program once."""
    traced = isinstance(jnp.zeros(()), jax.core.Tracer)  # such as in `jax.eval_shape` of this
    program = (jax.jit if traced else jit)(lambda keys: jax.tree.map(_strong, jax.vmap(algorithm.init)(keys)))
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = program.eval_shape(jax.ShapeDtypeStruct((run.seeds,), key.dtype))
    return shapes, lambda: program(seed_keys(run))


def seed_keys(run: RunConfig) -> jax.Array:
    """The key of each seed, [seeds]: `jax.random.key`, into which the upper half of a seed beyond 32 bits is folded."""
    seeds = [run.seed + i for i in range(run.seeds)]
    lower, upper = (np.array(x, np.uint32) for x in ([s % 2**32 for s in seeds], [s >> 32 for s in seeds]))
    keys = jax.vmap(jax.random.key)(lower)
    return jnp.where(upper > 0, jax.vmap(jax.random.fold_in)(keys, upper), keys) if upper.any() else keys


def _strong(x: jax.Array) -> jax.Array:
    """Without weak type: a weakly typed leaf would make the second call of a compiled chunk recompile."""
    return x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(x, x.dtype)


def make_chunk(algorithm: Algorithm, length: int) -> Callable[[TrainState], tuple[TrainState, Any, Any]]:
    """`length` iterations of all seeds as one function, to be jitted with its state donated.

    Returns state -> (state, metrics, bad): each metric as an Average over the chunk, [seeds]; and for each metric the
    position in the chunk of its first value that is not finite, `length` when there is none. "params" is among `bad`,
    checked after the last iteration. Memory does not grow with `length`.
    """

    def step(state: TrainState) -> tuple[TrainState, dict[str, Average]]:
        state, metrics = _over_seeds(algorithm.step)(state)
        one = lambda m: m if isinstance(m, Average) else Average(m, jnp.ones_like(m, jnp.float32))
        to_float = lambda m: Average(m.total.astype(jnp.float32), m.count.astype(jnp.float32))
        return state, {name: to_float(one(m)) for name, m in metrics.items()}

    @with_own_numerics
    def chunk(state: TrainState) -> tuple[TrainState, Any, Any]:
        shapes = jax.eval_shape(step, state)[1]
        sums = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)
        bad = {name: jnp.full(m.total.shape, length, jnp.int32) for name, m in shapes.items()}

        def iterate(i: jax.Array, carry: Any) -> Any:
            state, sums, bad = carry
            state, metrics = step(state)
            sums = jax.tree.map(jnp.add, sums, metrics)
            bad = {k: jnp.where(jnp.isfinite(metrics[k].total), b, jnp.minimum(b, i)) for k, b in bad.items()}
            return state, sums, bad

        state, sums, bad = jax.lax.fori_loop(0, length, iterate, (state, sums, bad))
        return state, sums, bad | {"params": jnp.where(_finite_per_seed(state.params), length, length - 1)}

    return chunk


def _over_seeds(f: Callable[[TrainState], Any]) -> Callable[[TrainState], Any]:
    """`f` of one seed's state, for states [seeds, ...].

    A single seed is not vmapped: `lax.cond` would compute both of its branches, and with them every reset that
    `jaxrl_envs.resetting` leaves out.
    """

    def of_all(state: TrainState) -> Any:
        if state.iteration.shape[0] > 1:
            return jax.vmap(f)(state)
        return jax.tree.map(lambda x: x[None], f(jax.tree.map(lambda x: x[0], state)))

    return of_all


def _finite_per_seed(tree: Any) -> jax.Array:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x), axis=range(1, x.ndim)) for x in floats]), axis=0)


def make_evaluation(algorithm: Algorithm) -> Callable[[TrainState], dict[str, NamedArray]]:
    """`algorithm.evaluate` of every seed, compiled once: axes ("seed", …). The key follows from the state alone."""

    def one(state: TrainState) -> dict[str, NamedArray]:
        return algorithm.evaluate(state, jax.random.fold_in(state.key, state.iteration))

    compiled = jit(jax.vmap(one))

    @with_own_numerics
    def evaluate(state: TrainState) -> dict[str, NamedArray]:
        measured = jax.device_get(compiled(state))
        return {name: NamedArray(m.values, ("seed", *m.axes)) for name, m in measured.items()}

    return evaluate


class Milestones:
    """The checkpoints and evaluations of a run, the same for this loop and for that of environments on the host.

    After a chunk its rows are written, then the checkpoint, then the evaluation. The run may be killed at any moment in
    between: once resumed, it writes again what is later than its checkpoint, and the evaluation of the checkpoint's own
    iteration where that is missing. Evaluations follow from the state alone, so they are what they would have been.

    Args:
        evaluate: state, leading axis [seeds] -> measurements, axes ("seed", …).
        say: tells of an evaluation.
    """

    def __init__(
        self,
        run: RunConfig,
        directory: Path | None,
        evaluate: Callable[[TrainState], dict[str, NamedArray]],
        say: Callable[[str], None],
    ):
        self.run, self.directory, self.evaluate, self.say = run, directory, evaluate, say
        self._latest: tuple[int, dict[str, NamedArray]] | None = None

    def saves(self, done: int) -> bool:
        """Whether there is a checkpoint after iteration `done`."""
        return self.directory is not None and (done % self.run.checkpoint_every == 0 or done == self.run.iterations)

    def measures(self, done: int) -> bool:
        """Whether there is an evaluation after iteration `done`; beside these, one at the end."""
        return bool(self.run.evaluate_every) and done % self.run.evaluate_every == 0

    def resumed(self, state: TrainState, done: int) -> None:
        """Evaluations later than the checkpoint are dropped, as rows are; the checkpoint's own is made if missing."""
        if self.directory is None:
            return
        for iteration, path in evaluation_files(self.directory).items():
            if iteration > done:
                path.unlink()
        if done and self.measures(done) and done not in evaluation_files(self.directory):
            self._measure(state, done)

    def reached(self, state: TrainState, done: int) -> None:
        """Iteration `done` is over and logged."""
        if self.directory is not None and self.saves(done):
            checkpoint.save(self.directory, state, done)
        if self.measures(done):
            self._measure(state, done)

    def final(self, state: TrainState, done: int) -> dict[str, NamedArray]:
        """The evaluation of the last iteration."""
        if self._latest is None or self._latest[0] != done:
            self._measure(state, done)
        assert self._latest is not None
        return self._latest[1]

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
) -> RunResult:
    """Train to `run.iterations`, from scratch or from the newest checkpoint in `directory`.

    Args:
        directory: where metrics, checkpoints and evaluations go; None: nothing is written.
        identity: what the run is (algorithm, environment, tasks, settings), kept in `directory`, compared on resume.
        resume: go on with what `directory` holds.

    Raises:
        UsageError: settings that do not fit, a folder that exists, cannot be written or is another run's.
        DivergedError: a metric or parameter became NaN or infinite; checkpoints from before are kept.
    """
    run.validate()
    mesh = device_mesh(run.devices)
    shapes, begin = initial(algorithm, run)
    require_room(shapes, run.devices)
    spread = layout(shapes, mesh)
    has_checkpoint = directory is not None and prepare_directory(directory, identity, run, resume)
    with nothing_left_of_refused(directory, resume):
        if directory is not None and has_checkpoint:
            placed = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
            state = checkpoint.restore(directory, jax.tree.map(placed, shapes, spread))
        else:
            state = jax.device_put(begin(), spread)
        return _run(algorithm, run, state, directory, resume)


def _run(algorithm: Algorithm, run: RunConfig, state: TrainState, directory: Path | None, resume: bool) -> RunResult:
    """`train` in a folder that is prepared, from an initial or a restored state."""
    done = int(state.iteration[0])
    if done > run.iterations:
        raise UsageError(
            f"the run is at iteration {done} already; iterations must be at least that, got {run.iterations}"
        )

    seeds = [run.seed + i for i in range(run.seeds)]
    log = RunLog(directory, seeds, run.tensorboard, done, run.wandb)
    seconds = compile_seconds = 0.0
    with Progress(run.iterations, done, run.quiet) as progress:
        milestones = Milestones(run, directory, make_evaluation(algorithm), progress.say)
        length = 0
        try:
            if resume:
                milestones.resumed(state, done)
            while done < run.iterations:
                # shorter once, where a resumed run is not at a multiple of log_every
                needed = run.log_every - done % run.log_every
                if needed != length:
                    length, begun = needed, time.perf_counter()
                    chunk = jit(make_chunk(algorithm, length), donate_argnums=0).lower(state).compile()
                    compile_seconds += time.perf_counter() - begun
                    progress.say(f"compiled in {time.perf_counter() - begun:.1f} s")
                    progress.start_clock(done)
                begun = time.perf_counter()
                state, metrics, bad = chunk(state)
                metrics, bad = jax.device_get((metrics, bad))
                chunk_seconds = time.perf_counter() - begun
                seconds += chunk_seconds
                _stop_if_diverged(bad, run, done, length, directory)
                done += length
                speed = length * algorithm.env_steps * run.seeds / chunk_seconds
                common = {
                    "iteration": done,
                    "env_steps": done * algorithm.env_steps,
                    "steps_per_second": round(speed, 1),
                }
                means = {k: m.mean() for k, m in metrics.items()}
                measured = [{k: float(m[i]) for k, m in means.items() if np.isfinite(m[i])} for i in range(run.seeds)]
                log.write([common | {"seed": seed} | row for seed, row in zip(seeds, measured)])
                happened = {k: m[np.isfinite(m)] for k, m in means.items()}
                progress.update(done, {k: float(m.mean()) for k, m in happened.items() if m.size}, speed)
                milestones.reached(state, done)
        finally:
            log.close()
        evaluation = milestones.final(state, done)
    return RunResult(state, log.rows, evaluation, compile_seconds, seconds, directory)


def _stop_if_diverged(
    bad: dict[str, np.ndarray], run: RunConfig, done: int, length: int, directory: Path | None
) -> None:
    position, name, seed = min((int(b[i]), name, i) for name, b in bad.items() for i in range(run.seeds))
    if position < length:
        saved = checkpoint.iterations(directory) if directory else []
        kept = f"the checkpoint of iteration {saved[-1]} is kept" if saved else "no checkpoint had been written"
        raise DivergedError(f"{name} is not finite at iteration {done + position + 1} (seed {run.seed + seed}); {kept}")


def prepare_directory(directory: Path, identity: Identity | None, run: RunConfig, resume: bool) -> bool:
    """Make the run folder, or check that it is the run to resume. Returns whether it has a checkpoint."""
    identity = identity or Identity({})
    facts = json.loads(json.dumps(identity.facts | {"seed": run.seed, "seeds": run.seeds}))
    identity = identity._replace(facts=facts)
    config = directory / "config.json"
    if resume:
        if not config.is_file():
            raise UsageError(f"nothing to resume in {directory}: it holds no config.json of a run")
        kept = load_identity(directory, read_config(directory)["identity"])
        if different := differences(kept._replace(facts=identity.current(kept.facts)), identity):
            raise UsageError(f"{directory} is another run: {summary(different)}")
        return bool(checkpoint.iterations(directory))
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise UsageError(f"{directory} exists already; go on with it by --resume, or choose another --out")
        directory.mkdir(parents=True, exist_ok=True)
        partial = config.with_suffix(".partial")
        devices = sorted({d.device_kind for d in jax.devices()})
        about = {"identity": identity.facts, "run": dataclasses.asdict(run), "jax": jax.__version__, "devices": devices}
        save_identity(directory, identity.arrays)
        partial.write_text(json.dumps(about, indent=2) + "\n")
        partial.replace(config)
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror or error}") from error
    return False


@contextmanager
def nothing_left_of_refused(directory: Path | None, resume: bool) -> Iterator[None]:
    """Removes a folder that `prepare_directory` has just made where the run is refused before its first row."""
    try:
        yield
    except DivergedError:
        raise
    except Exception:
        if directory is not None and not resume and not (directory / "checkpoints").exists():
            rows = directory / "metrics.jsonl"
            if not rows.is_file() or not rows.stat().st_size:
                shutil.rmtree(directory, ignore_errors=True)
        raise


def read_config(directory: Path) -> dict[str, Any]:
    """config.json of a run. Raises UsageError when there is none or it is no run's."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text())
        if not isinstance(config, dict) or not isinstance(config["identity"], dict):
            raise ValueError("it has no identity")
        return config
    except OSError as error:
        raise UsageError(f"{directory} is no run folder: it holds no readable config.json") from error
    except (ValueError, KeyError) as error:
        raise UsageError(f"{path} is not the config.json of a run: {error}") from error


def save_evaluation(directory: Path | None, evaluation: dict[str, NamedArray], iteration: int) -> None:
    """Append the measurements to <run>/evaluations as <iteration>.npz; axis names are kept as `<name>:axes`."""
    if directory is None:
        return
    folder = directory / "evaluations"
    folder.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {}
    for name, m in evaluation.items():
        arrays |= {name: m.values, f"{name}:axes": np.array(m.axes)}
    partial = folder / f"{iteration}.partial.npz"
    np.savez_compressed(partial, **arrays)
    partial.replace(folder / f"{iteration}.npz")


def load_evaluations(directory: Path) -> dict[int, dict[str, NamedArray]]:
    """All saved evaluations of a run by iteration, in order."""
    found = {}
    for iteration, path in evaluation_files(directory).items():
        with np.load(path) as data:
            names = [k for k in data.files if not k.endswith(":axes")]
            found[iteration] = {k: NamedArray(data[k], tuple(map(str, data[f"{k}:axes"]))) for k in names}
    return found


def evaluation_files(directory: Path) -> dict[int, Path]:
    """The files of a run's evaluations by iteration, in order."""
    paths = (directory / "evaluations").glob("*.npz")
    return dict(sorted((int(path.stem), path) for path in paths if path.stem.isdecimal()))


def describe(evaluation: dict[str, NamedArray]) -> str:
    """The measured return, or else steps, in one line, averaged over everything but the adaptation steps."""
    name = next((name for name in ("return", "steps") if name in evaluation), None)
    if name is None:
        return ", ".join(evaluation)
    m = evaluation[name]
    other = tuple(i for i, axis in enumerate(m.axes) if axis != "adaptation_step")
    text = f"{name} " + " ".join(f"{x:.2f}" for x in np.atleast_1d(np.mean(m.values, axis=other)))
    cut = cut_share(evaluation)
    return f"{text} ({cut:.0%} of the episodes were cut)" if cut else text


def cut_share(evaluation: dict[str, NamedArray]) -> float:
    """Of the episodes of an evaluation, those that had not ended when they were cut."""
    return 1 - float(np.mean(evaluation["complete"].values)) if "complete" in evaluation else 0.0
