"""A training in a process of its own, which says what it does; and a process that has imported what all of them need.

Starting Python and importing takes longer than a run of this size. So the trainings are forks of a process that has
imported everything but has not begun to use JAX, whose threads a fork would lose. Tracing and compiling take longer
still, and nothing is on the disk until they are over. So the first training of a learner writes its programs to a file,
from which the others load them.
"""

import atexit
import hashlib
import json
import os
import pickle
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import Learner

LONGEST = 900.0  # seconds after which a process hangs; a busy machine compiles for minutes


def import_packages() -> None:
    """Import what trainings need. Raises RuntimeError when that starts threads or a backend."""
    import jax.numpy as jnp
    import numpy as np

    array, jnp.array = jnp.array, np.array  # gymnax makes one array when it is imported, in Frozen Lake
    try:
        import gymnax  # noqa: F401
    finally:
        jnp.array = array
    import gymnasium  # noqa: F401
    import orbax.checkpoint  # noqa: F401
    import tensorboardX.event_file_writer  # noqa: F401

    import jaxrl_hier.api
    import jaxrl_hier.cli
    import jaxrl_hier.flat.dqn
    import jaxrl_hier.host_training  # noqa: F401

    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("the packages that trainings import start threads, so that they cannot be forked")


class Programs(NamedTuple):
    """A file of the compiled programs of a learner, and whether they are loaded from it; if not, they are compiled, and
    written where there is a file."""

    file: Path | None
    load: bool


COMPILED = Programs(None, load=False)


class Training:
    """A process that trains `learner` into `folder`, as `jaxrl-hier train` does.

    told: what it has said so far: {"stage": name, "at": seconds} when a stage begins and {"end": name, "at": …}, and
    {"reached" | "restored" | "kept": iteration, "state": digest}.
    """

    def __init__(
        self,
        learner: Learner,
        folder: Path,
        resume: bool,
        *,
        iterations: int | None = None,
        file_limit: int | None = None,
        programs: Programs = COMPILED,
        gate: int | None = None,
    ):
        """
        Args:
            iterations: in place of the learner's.
            file_limit: bytes that a file may have.
            programs: where those of the learner come from.
            gate: a descriptor of which a byte is read before the folder is opened.
        """
        self.folder, self.begun = folder, time.monotonic()
        self.told: list[dict[str, Any]] = []
        self.code: int | None = None
        self._text = {"told": b"", "stderr": b""}
        readers, writers = zip(os.pipe(), os.pipe())
        self._readers = dict(zip(("told", "stderr"), readers))
        sys.stderr.flush()
        self.process = os.fork()
        if self.process == 0:
            for reader in readers:
                os.close(reader)
            os.dup2(writers[1], 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            tell = lambda **what: os.write(writers[0], (json.dumps(what) + "\n").encode())
            if file_limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
            settings = learner.settings | ({} if iterations is None else {"iterations": iterations})
            about = {"out": str(folder), "resume": resume, "env": learner.env, **settings}
            _train_and_exit(learner.algorithm, about, tell, programs, gate)
        for writer in writers:
            os.close(writer)

    def wait(self, until: Callable[[], bool] = lambda: False, seconds: float = LONGEST) -> bool:
        """Read what it says until it has ended (False), `until` holds (True), or so many seconds have passed (True)."""
        deadline = time.monotonic() + seconds
        while self._readers:
            if until():
                return True
            left = deadline - time.monotonic()
            ready = select.select([*self._readers.values()], [], [], max(0.0, left))[0]
            if not ready:
                return True
            for name in [name for name, reader in self._readers.items() if reader in ready]:
                text = os.read(self._readers[name], 1 << 16)
                if not text:
                    os.close(self._readers.pop(name))
                self._text[name] += text
            *lines, self._text["told"] = self._text["told"].split(b"\n")
            self.told += map(json.loads, lines)
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        return False

    def end(self, number: int | None = None) -> int | None:
        """Send a signal, wait for the end, and return the exit code; None if it hung and had to be killed."""
        if number is not None:
            os.kill(self.process, number)
        if self.wait():
            os.kill(self.process, signal.SIGKILL)
            self.wait()
            self.code = None
        return self.code

    @property
    def lines(self) -> list[str]:
        """On stderr."""
        return self._text["stderr"].decode(errors="replace").splitlines()

    def count(self, stage: str) -> int:
        """How often a stage has begun."""
        return sum(message.get("stage") == stage for message in self.told)

    def durations(self) -> dict[str, float]:
        """The longest time that each stage has taken."""
        begun: dict[str, float] = {}
        longest: dict[str, float] = {}
        for message in self.told:
            if "stage" in message:
                begun[message["stage"]] = message["at"]
            elif "end" in message:
                name = message["end"]
                longest[name] = max(longest.get(name, 0.0), message["at"] - begun[name])
        return longest


def _train_and_exit(
    algorithm: str, about: dict[str, Any], tell: Callable[..., Any], programs: Programs, gate: int | None
) -> None:
    """What the process does."""
    code = 1
    try:
        import jax

        import jaxrl_hier
        from jaxrl_hier import cli

        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_enable_compilation_cache", programs.load)

        def train(argv: list[str]) -> None:
            with _telling(tell, gate) as kept, _with_programs(programs):
                jaxrl_hier.train(algorithm, **about)
                kept(Path(about["out"]))

        cli._train = train  # the command line's own words and exit codes, without its reading of flags
        cli.main(["train"])
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def _with_programs(programs: Programs) -> Iterator[None]:
    """Load the programs of a training or, without any use of JAX's cache, whose programs cannot be written, compile and
    write them. Its chunks are all of one length, since it is saved only after one."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import serialize_executable as written

    from jaxrl_hier import host_training
    from jaxrl_hier.engine import chunk, room, train

    made: dict[str, Any] = {}
    if programs.load:
        jax.jit(jnp.linalg.qr).lower(jnp.zeros((2, 2)))  # makes LAPACK known to the process, which programs call
        made |= pickle.loads(programs.file.read_bytes())

    def compiled(program: Any, part: str, *arguments: Any) -> Any:
        if programs.load:
            return written.deserialize_and_load(*made[part])
        found = room.compiled(program, part, *arguments)
        if programs.file is not None:
            made[part] = written.serialize(found)
        return found

    chunk.compiled = train.compiled = host_training.compiled = compiled
    yield
    if programs.file is not None and not programs.load:
        programs.file.write_bytes(pickle.dumps(made))


@contextmanager
def _telling(tell: Callable[..., Any], gate: int | None) -> Any:
    """Say when each stage begins and ends, and each state; yields what reads the checkpoints of a folder and tells
    them."""
    import jax

    from jaxrl_hier.engine import checkpoint
    from jaxrl_hier.engine import train as engine
    from jaxrl_hier.engine.folder import load_evaluations
    from jaxrl_hier.engine.logging import RunLog
    from jaxrl_hier.host_training import OnHost

    def around(owner: Any, method: str, stage: str) -> None:
        do = getattr(owner, method)

        def told(*arguments: Any, **named: Any) -> Any:
            tell(stage=stage, at=time.monotonic())
            result = do(*arguments, **named)
            tell(end=stage, at=time.monotonic())
            return result

        setattr(owner, method, told)

    for owner, method, stage in (
        (engine.Compiled, "compile", "compiling"),
        (OnHost, "compile", "compiling"),
        (RunLog, "write", "logging"),
        (checkpoint, "save", "saving"),
        (engine.Milestones, "_measure", "evaluating"),
    ):
        around(owner, method, stage)
    restore, reached, writing = checkpoint.restore, engine.Milestones.reached, engine.writing
    template: Any = None
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

    def told_reached(milestones: Any, state: Any, done: int) -> None:
        nonlocal template
        template = jax.tree.map(shape, state)
        tell(reached=done, state=digest(state))
        reached(milestones, state, done)

    def told_restore(run: Path, shapes: Any, iteration: int | None = None) -> Any:
        nonlocal template
        template = shapes
        state = restore(run, shapes, iteration)
        tell(restored=int(state.iteration[0]), state=digest(state))
        return state

    def gated_writing(*arguments: Any) -> Any:
        tell(stage="opening", at=time.monotonic())
        if gate is not None:
            os.read(gate, 1)
        return writing(*arguments)

    def kept(folder: Path) -> None:
        load_evaluations(folder)  # which says what is damaged
        for iteration in checkpoint.iterations(folder):
            tell(kept=iteration, state=digest(restore(folder, template, iteration)))

    engine.Milestones.reached, checkpoint.restore, engine.writing = told_reached, told_restore, gated_writing
    yield kept


def digest(state: Any) -> str:
    """A hash of all numbers of a state."""
    import jax
    import numpy as np

    found = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        plain = jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        found.update(str((plain.dtype, plain.shape)).encode() + np.asarray(plain).tobytes())
    return found.hexdigest()
