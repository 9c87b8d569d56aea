"""Checks of a user's settings: one clear line, before anything compiles. Traced numbers pass."""

import difflib
import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class UsageError(ValueError):
    """The request cannot work; the message says what is wrong and what would be right."""


class WriteError(UsageError):
    """A file of a run cannot be written, as on a full disk."""


class DivergedError(RuntimeError):
    """Training produced NaN or infinity; the message names the metric, the iteration and the last good checkpoint."""


class LostProcessError(RuntimeError):
    """Another process of a run on several is gone; the message names it and the last checkpoint."""


def warn(text: str) -> None:
    """Say something in one line on the terminal, as the command line says errors."""
    print(f"jaxrl-hier: {text}", file=sys.stderr, flush=True)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is written into a WriteError of one line."""
    try:
        yield
    except WriteError:
        raise
    except Exception as error:  # orbax and tensorstore pass an OSError on in types of their own
        whole = " ".join(str(error).split())
        text = getattr(error, "strerror", None) or whole[-200:] or type(error).__name__
        known = [os.strerror(int(number)) for number in re.findall(r"os_error_code='(\d+)'", whole)]  # tensorstore's
        known = known or [os.strerror(number) for number in errno.errorcode if os.strerror(number) in text]
        raise WriteError(f"cannot write {path}: {max(known, key=len, default=text)}") from error


def require_positive(config: Any, *names: str, or_zero: bool = False) -> None:
    """Each named field is a number above zero (or at least zero); None passes."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, (int, float)) and not (value > 0 or (or_zero and value == 0)):
            raise UsageError(f"{name} must be {'at least 0' if or_zero else 'positive'}, got {value}")


def require_fraction(config: Any, *names: str) -> None:
    """Each named field lies in [0, 1]."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, (int, float)) and not 0 <= value <= 1:
            raise UsageError(f"{name} must lie in [0, 1], got {value}")


def require_sizes(config: Any, *names: str) -> None:
    """Each named field holds sizes of layers, or none."""
    for name in names:
        if not all(size > 0 for size in getattr(config, name)):
            raise UsageError(f"{name} layers must have positive sizes, got {getattr(config, name)}")


def require_choice(config: Any, name: str, choices: Sequence[Any]) -> None:
    """The named field is one of `choices`."""
    value = getattr(config, name)
    if value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """UsageError for an unknown name, with the closest known ones."""
    known = list(known)
    if not isinstance(name, str):
        return UsageError(f"{kind} must be one of {', '.join(known[:9])}{', …' * (len(known) > 9)}, got {name!r}")
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    if near or len(known) <= 12:
        return UsageError(f"unknown {kind} {name!r}; nearest: {', '.join(near or known)}")
    return UsageError(f"unknown {kind} {name!r}, and nothing near it; known are {', '.join(known[:9])}, …")
