"""Damage to one file of a run folder."""

import random
import re
import shutil
from pathlib import Path

MINE = "a file of somebody's own\n"  # outside of the run, for links


def _flipped(path: Path, rng: random.Random, outside: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def _cut(path: Path, rng: random.Random, outside: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _emptied(path: Path, rng: random.Random, outside: Path) -> None:
    path.write_bytes(b"")


def _removed(path: Path, rng: random.Random, outside: Path) -> None:
    _gone(path)


def _folder(path: Path, rng: random.Random, outside: Path) -> None:
    _gone(path)
    path.mkdir()


def _link(path: Path, rng: random.Random, outside: Path) -> None:
    _gone(path)
    path.symlink_to(outside)


def _gone(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


DAMAGES = {
    "cut": _cut,
    "with a flipped bit": _flipped,
    "removed": _removed,
    "emptied": _emptied,
    "replaced by a folder": _folder,
    "replaced by a link": _link,
}
OF_FOLDERS = ("removed", "replaced by a link")


def kinds_of_files(folder: Path) -> dict[str, list[Path]]:
    """The files and folders of a run by kind: their names without numbers, and those in a checkpoint by part."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            continue
        kind = re.sub(r"/d/[0-9a-f]+", "/d/…", re.sub(r"events.*", "events", re.sub(r"\d+", "N", name)))
        found.setdefault(kind, []).append(path)
    return found


def do(folder: Path, rng: random.Random, number: int, outside: Path) -> tuple[Path, str]:
    """Damage something below `folder`: the path, and what was done, in words.

    Args:
        number: of the damage, which goes through all kinds of files.
        outside: a file outside of the run, to which a link may lead.
    """
    kinds = kinds_of_files(folder)
    kind = sorted(kinds)[number % len(kinds)]
    path = rng.choice(kinds[kind])
    how = rng.choice(OF_FOLDERS if path.is_dir() else [*DAMAGES])
    DAMAGES[how](path, rng, outside)
    return path, f"{path.relative_to(folder)} {how}"
