"""Whether a run fits into memory: its state by its shapes, its programs by what XLA says of them, before they run."""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.sharding import seeds_are_shared
from jaxrl_hier.engine.types import TrainState

Part = Literal["state", "iterations", "evaluation"]
NAMED: dict[Part, str] = {"state": "the initial state", "iterations": "an iteration", "evaluation": "an evaluation"}


class NoRoomError(UsageError):
    """A part of a run cannot fit the machine: its initial state, an iteration or an evaluation."""

    def __init__(self, message: str, part: Part):
        super().__init__(message)
        self.part = part


def size(tree: Any) -> int:
    """Bytes of all leaves, arrays or their shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def require_room(state: TrainState, devices: int = 1) -> None:
    """Raises NoRoomError if a state of these shapes is larger than the free memory.

    Args:
        devices: number of devices that share the run, see `engine.sharding`.
    """
    split = size(state if seeds_are_shared(state.iteration.shape[0], devices) else (state.world, state.memory))
    rest = size(state) - split
    host = jax.default_backend() == "cpu"  # where all devices share one memory
    needed = rest * devices + split if host else rest + split / devices
    free = free_bytes()
    if free is not None and needed > free:
        raise NoRoomError(f"{NAMED['state']} takes {_gib(needed)} and {_machine()} has {_gib(free)} free", "state")


def compiled(program: Any, part: Part, *arguments: Any) -> Any:
    """A jitted program, compiled for arguments that exist already.

    Raises:
        NoRoomError: its results and intermediate results are larger than the free memory.
    """
    if getattr(jax.config, "jax_disable_jit"):  # noqa: B009 - no part of its type; for debugging, nothing is compiled
        return program
    with out_of_memory(part):
        made = program.lower(*arguments).compile()
    memory, free = made.memory_analysis(), free_bytes()
    if memory is not None and free is not None:
        needed = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        if needed > free:
            beside = "" if part == "state" else " beside the state"
            raise NoRoomError(
                f"{NAMED[part]} takes {_gib(needed)}{beside} and {_machine()} has {_gib(free)} free", part
            )
    return made


@contextmanager
def out_of_memory(part: Part) -> Iterator[None]:
    """Turn an allocation that fails while something compiles or runs into a NoRoomError of one line."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        text = str(error)
        if isinstance(error, jax.errors.JaxRuntimeError) and not re.search(
            "RESOURCE_EXHAUSTED|out of memory|bad_alloc", text, re.IGNORECASE
        ):
            raise
        asked = re.search(r"allocat\w* (\d+) bytes", text)
        what = f", asking for {_gib(int(asked[1]))}" if asked else ""
        raise NoRoomError(f"{NAMED[part]} ran out of memory{what}", part) from error


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def _machine() -> str:
    return "this machine" if jax.default_backend() == "cpu" else "this device"


def free_bytes() -> int | None:
    """Free bytes on the first device, or on the machine if that is a CPU; None if unknown."""
    if jax.default_backend() != "cpu":
        stats = jax.devices()[0].memory_stats() or {}
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else None
    known = [x for x in (_available(), _left_to_group(), _left_to_process()) if x is not None]
    return min(known, default=None)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
        return 1024 * (kib["MemAvailable"] + kib.get("SwapFree", 0))
    except (OSError, ValueError, LookupError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _left_to_group() -> int | None:
    """Free bytes under a container's limit (Linux control groups, version 2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        return int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # no limit reads "max"
        return None


def _left_to_process() -> int | None:
    """Bytes that this process may still allocate under a limit on its addresses (`ulimit -v`)."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError):
        return None
    return None if limit == resource.RLIM_INFINITY else limit - used
