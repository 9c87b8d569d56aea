"""Several processes that train one run, each with a part of the devices, on one machine or many (jax.distributed).

All processes carry out the same programs in the same order. The first alone writes rows, evaluations and pictures; all
write their parts of a checkpoint. What only one process knows, such as a signal, is passed on to the others before they
act on it. In a run of one process every function here does nothing.
"""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxrl_hier.checks import LostProcessError, UsageError, WriteError

HEARTBEAT = 15  # seconds without a sign of life after which a process counts as lost

T = TypeVar("T")


def connect(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Join the other processes, before JAX is used for anything else.

    Args:
        coordinator: host and port of the first process, which must be free there.
        processes: their number. process: of this one, from 0.

    Without arguments, JAX finds them under SLURM, Kubernetes and Open MPI.

    Raises:
        UsageError: they cannot be found or reached.
    """
    if coordinator is not None and not re.fullmatch(r".+:\d+", coordinator):
        raise UsageError(f"coordinator must be host:port, such as 10.0.0.1:1234, got {coordinator!r}")
    jax.config.update("jax_enable_recoverability", True)  # else a process that is lost aborts the others
    try:
        jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT)
    except Exception as error:  # such as an IndexError for a coordinator without a port
        text = " ".join(str(error).split())[:200]
        raise UsageError(f"cannot join the other processes (coordinator, processes, process): {text}") from None


def leave(code: int = 0) -> None:
    """End a command of several processes, all of which call this. The first, which coordinates them, goes on and ends
    last; the others end here with the exit code, without what JAX does at exit, for which they would need the first."""
    if several():
        barrier("end")
        if not is_first():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        time.sleep(1)  # until the others, which abort without it, have ended


def several() -> bool:
    """Whether more than one process trains the run."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process writes the run's files."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until every process is here."""
    if several():
        multihost_utils.sync_global_devices(name)


def meet(*, key: str, timeout_ms: int) -> None:
    """Wait until every process is here, as orbax asks for it while a checkpoint is written.

    Its own way would wait ten minutes for a process that is lost. Here the barrier's name and time limit are ignored: a
    live process arrives, however long it writes, and a lost one is known by the heartbeats that it has missed.

    Raises:
        RuntimeError: a process is lost.
    """
    if several() and (lost := _missing()):
        raise RuntimeError(f"process {lost[0]} is lost")


def from_first(value: T) -> T:
    """`value`, which JSON can hold, as the first process has it."""
    if not several():
        return value
    text = json.dumps(value).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.array(len(text))))
    heard = multihost_utils.broadcast_one_to_all(np.frombuffer(text[:length].ljust(length), np.uint8))
    return json.loads(bytes(np.asarray(heard, np.uint8)))


def from_any(text: str | None) -> str | None:
    """`text` if this process has one, else that another process has one, else None."""
    if not several():
        return text
    having = np.flatnonzero(multihost_utils.process_allgather(np.array([text is not None])))
    return text or (f"process {having[0]}" if having.size else None)


@contextmanager
def entered_by_first(folder: Any) -> Iterator[Any]:
    """Enter a context in the first process alone. What it yields goes to all, and so does its refusal (UsageError)."""
    with ExitStack() as stack:
        found: dict[str, Any] = {}
        if is_first():
            try:
                found["yields"] = stack.enter_context(folder)
            except UsageError as error:
                found["refused"] = str(error)
                if not several():
                    raise
        found = from_first(found)
        if "refused" in found:
            raise UsageError(found["refused"])
        yield found["yields"]


@contextmanager
def naming_the_lost(kept: Callable[[], str]) -> Iterator[None]:
    """Turn an error that comes of the loss of another process into a LostProcessError.

    What fails then says little: a collective operation, or a checkpoint that all write. So after any such error we ask
    which processes are there.

    Args:
        kept: says what is kept.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        refused = isinstance(error, UsageError) and not isinstance(error, WriteError)
        if not several() or refused or not (lost := lost_processes()):
            raise
        which = f"process {lost[0]}" if len(lost) == 1 else f"processes {', '.join(map(str, lost))}"
        are = "is" if len(lost) == 1 else "are"
        raise LostProcessError(f"{which} of {jax.process_count()} {are} lost; {kept()}") from None


def lost_processes() -> list[int]:
    """Which processes are gone, once they have missed their heartbeats; [] where the answer takes longer, since live
    processes do not ask."""
    found: list[list[int]] = []

    def ask() -> None:
        try:
            found.append(_missing())
        except Exception:  # the first process, which knows, is gone
            found.append([] if is_first() else [0])

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(2 * HEARTBEAT)
    return found[0] if found else []


def _missing() -> list[int]:
    """Which processes are gone, after the heartbeats of those have been missed; all that are there must ask."""
    # JAX looks for them when the context is left, and yields what it found the last time
    with suppress(Exception), multihost_utils.live_devices(jax.devices()):
        pass
    with multihost_utils.live_devices(jax.devices()) as live:
        alive = {device.process_index for device in live}
    return sorted(set(range(jax.process_count())) - alive)
