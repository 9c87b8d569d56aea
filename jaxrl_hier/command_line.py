"""Parses a command line into an object, or says in one line which argument is wrong and what would be right.

tyro makes the object and the `--help`, from annotations. It reports errors in a box of several lines, so `parse` checks
the arguments first, against the same annotations and with `settings.converted`, which names the flag.
"""

import contextlib
import inspect
import io
import re
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from jaxrl_hier.checks import UsageError, unknown

NAMED = {int: "a whole number", float: "a number", str: "a string"}


def parse(target: Callable[..., Any], args: Sequence[str], prog: str) -> Any:
    """The result of `target` for these arguments.

    Args:
        target: a function, or a dataclass, fields of which may be dataclasses of settings. Its arguments are flags,
            unless they are `tyro.conf.Positional`.
        prog: the command, as shown by `--help`.

    Raises:
        UsageError: an unknown flag, a missing or wrong value, or an extra argument. SystemExit: for `--help`.
    """
    import tyro

    if not {"-h", "--help"} & {*args}:
        check(arguments_of(target), args, prog)
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(target, config=(tyro.conf.OmitArgPrefixes,), args=args, prog=prog)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(in_one_line(boxed.getvalue())) from None


class Arguments(NamedTuple):
    """The arguments of a command."""

    flags: dict[str, Any]  # flag -> annotation
    words: dict[str, Any]  # name -> annotation of positional arguments, in order
    renamed: dict[str, str]  # flags of earlier versions -> their present names


def arguments_of(target: Callable[..., Any]) -> Arguments:
    """The arguments of a function or dataclass."""
    hints = get_type_hints(target, include_extras=True)
    flags: dict[str, Any] = {}
    words: dict[str, Any] = {}
    renamed = {flag_of(old): flag_of(new) for old, new in _renamings(target).items() if isinstance(new, str)}
    for name in inspect.signature(target).parameters:
        kind: Any = hints[name]
        if hasattr(kind, "__dataclass_fields__"):
            inner = arguments_of(kind)
            flags, renamed = flags | inner.flags, renamed | inner.renamed
        elif "Positional" in str(get_args(kind)[1:]):
            words[name] = kind
        else:
            flags[flag_of(name)] = kind
    return Arguments(flags, words, renamed)


def flag_of(name: str) -> str:
    """--batch-size for batch_size."""
    return "--" + name.replace("_", "-")


def _renamings(target: Any) -> dict[str, Any]:
    from jaxrl_hier.settings import renamings

    return renamings(target) if isinstance(target, type) else {}


def check(takes: Arguments, args: Sequence[str], prog: str) -> None:
    """Raises UsageError for the first wrong argument, or for a missing one."""
    left, without_flag = list(args), list[str]()
    before = ""  # the flag before the word, for messages
    most = sum(map(how_many, takes.words.values()))
    while left:
        word = left.pop(0)
        if not word.startswith("--"):
            without_flag.append(word)
            if len(without_flag) > most:
                hint = f", see {prog} --help" if takes.words else ": settings are written --name value"
                raise UsageError(f"unexpected {word!r}{before}{hint}")
            continue
        flag, equals, value = word.partition("=")
        flag = flag_of(flag[2:])
        kind = bool if takes.flags.get(negated(flag)) is bool else takes.flags.get(flag)
        if flag in takes.renamed:
            raise UsageError(f"{flag} is now called {takes.renamed[flag]}")
        if kind is None:
            raise unknown("flag", flag, takes.flags)
        values = [value] if equals else []
        can_follow = 1 if kind is bool and not takes.words else how_many(kind)
        while left and not equals and len(values) < can_follow and not left[0].startswith("--"):
            values.append(left.pop(0))
        check_values(flag, kind, values)
        before = f" after {' '.join([flag, *values])}"
    needed = [name for name, kind in takes.words.items() if how_many(kind) == 1][len(without_flag) :]
    if needed:
        raise UsageError(f"{needed[0]} is missing, see {prog} --help")


def how_many(kind: Any) -> float:
    """The largest number of words that a value of this annotation takes."""
    kind = plain(kind)
    if get_origin(kind) is tuple:
        return float("inf") if get_args(kind)[-1] is Ellipsis else len(get_args(kind))
    return 0 if kind is bool else 1


def plain(kind: Any) -> Any:
    """`X` for `X | None` and for `Annotated[X, ...]`."""
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = get_args(kind)[0]
    return kind


def check_values(flag: str, kind: Any, words: Sequence[str]) -> None:
    """Raises UsageError unless `words` are valid values of the flag."""
    from jaxrl_hier.settings import converted

    inner = plain(kind)
    if inner is bool:
        if words:
            raise UsageError(f"{flag} takes no value, got {words[0]!r}; its opposite is {negated(flag)}")
        return
    if [*words] == ["None"] and type(None) in get_args(kind):
        return
    if get_origin(inner) is tuple:
        parts = get_args(inner)
        if parts[-1] is not Ellipsis and len(words) != len(parts):
            raise UsageError(f"{flag} needs {len(parts)} numbers, got {' '.join(words) or 'none'}")
        converted(flag, tuple(read(word, parts[0]) for word in words), kind)
    elif not words:
        raise UsageError(f"{flag} needs a value, {expected(inner)}")
    elif get_origin(inner) is Literal and words[0] not in get_args(inner):
        raise UsageError(f"{flag} must be {expected(inner)}, got {words[0]!r}")
    else:
        converted(flag, read(words[0], inner), kind)


def value_of(flag: str, kind: Any, text: str) -> Any:
    """The value of a flag that `text` says. Several numbers are separated by spaces; a flag without a value is True or
    False. Raises UsageError for any other text."""
    from jaxrl_hier.settings import converted

    inner = plain(kind)
    if inner is bool:
        if text not in ("True", "False"):
            raise UsageError(f"{flag} must be True or False, got {text!r}")
        return text == "True"
    words = text.split()
    if len(words) > 1 and get_origin(inner) is not tuple:
        raise UsageError(f"{flag} needs a value, {expected(inner)}, got {text!r}")
    check_values(flag, kind, words)
    if words == ["None"] and type(None) in get_args(kind):
        return None
    if get_origin(inner) is tuple:
        return converted(flag, tuple(read(word, get_args(inner)[0]) for word in words), kind)
    return converted(flag, read(words[0], inner), kind)


def negated(flag: str) -> str:
    """--no-x for --x, and --x for --no-x."""
    return "--" + flag[5:] if flag.startswith("--no-") else "--no-" + flag[2:]


def expected(kind: Any) -> str:
    """The values that a flag takes, in words."""
    return f"one of {', '.join(get_args(kind))}" if get_origin(kind) is Literal else NAMED[kind]


def read(word: str, kind: Any) -> Any:
    """The word as a number if it is one, otherwise as it is."""
    kind = plain(kind)
    if kind not in (int, float):
        return word
    try:
        return kind(word)
    except ValueError:
        return word


def in_one_line(box: str) -> str:
    """The first part of tyro's box, as one line."""
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    text = " ".join(lines).partition("─")[0]
    return re.sub(r"^Error parsing config: ", "", " ".join(text.split())) or "cannot parse the arguments; try --help"
