"""Whether a run's state fits into memory, computed from its shapes before anything is allocated."""

import math
import os
from pathlib import Path
from typing import Any

import jax

from jaxrl_hier.checks import UsageError
from jaxrl_hier.engine.types import TrainState


class NoRoomError(UsageError):
    """A state that cannot fit the machine."""


def size(tree: Any) -> int:
    """Bytes of all leaves, arrays or their shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def require_room(state: TrainState, devices: int = 1) -> None:
    """Raises NoRoomError if a state of these shapes is larger than the free memory.

    Args:
        devices: number of devices that share the axis of environments or tasks.
    """
    split = size((state.world, state.memory))
    rest = size(state) - split
    host = jax.default_backend() == "cpu"  # where all devices share one memory
    needed = rest * devices + split if host else rest + split / devices
    free = free_bytes()
    if free is not None and needed > free:
        raise NoRoomError(
            f"the initial state takes {needed / 2**30:.1f} GiB and this {'machine' if host else 'device'} has "
            f"{free / 2**30:.1f} GiB free"
        )


def free_bytes() -> int | None:
    """Free bytes on the first device, or on the machine if that is a CPU; None if unknown."""
    if jax.default_backend() != "cpu":
        stats = jax.devices()[0].memory_stats() or {}
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else None
    known = [x for x in (_available(), _left_to_group()) if x is not None]
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
