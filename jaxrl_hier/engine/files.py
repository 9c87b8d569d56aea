"""Writing files so that a kill or a power cut leaves the old file or the new one, never a part of it."""

import errno
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK = 2**24  # bytes of a file that are in memory at a time
PARTIAL = "partial-"  # begins the names of files that are being written


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to. What is there at the end takes the place of `path`; after an error, `path` is
    as it was."""
    partial = partial_of(path)
    yield partial
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def partial_of(path: Path) -> Path:
    """Where a file or folder is written before it takes its place."""
    return path.with_name(PARTIAL + path.name)


def sync(path: Path) -> None:
    """Wait until a file, or a folder with all that it holds, is on the disk.

    Raises:
        OSError: the disk has lost what was written.
    """
    inside = [Path(folder, name) for folder, _, names in os.walk(path) for name in [*names, "."]]
    for each in inside or [path]:
        if os.name == "nt" and each.is_dir():
            continue  # Windows opens no folders
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
                raise
        finally:
            os.close(descriptor)


def checksum(path: Path, length: int | None = None) -> int:
    """The CRC-32 of a file, or of its first `length` bytes."""
    found, left = 0, path.stat().st_size if length is None else length
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, BLOCK))):
            found, left = zlib.crc32(block, found), left - len(block)
    return found


def link_inside(folder: Path) -> Path | None:
    """A symbolic link somewhere in a folder that leads out of it; None if there is none."""
    home = folder.resolve()
    for where, folders, names in os.walk(folder):
        for path in (Path(where, name) for name in [*folders, *names]):
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                return path
    return None
