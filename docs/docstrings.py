"""The project's docstrings, as Sphinx reads them.

They are plain text: code in single backticks, equations and programs indented after a blank line, lists with dashes,
"Args:" sections, and fields that a comment explains. `as_rst` turns the text into reStructuredText, `fields` reads the
comments.
"""

import inspect
import io
import re
import tokenize
from typing import Any


def as_rst(lines: list[str]) -> list[str]:
    """Lines of a docstring as reStructuredText; sections such as "Args:" are left to napoleon."""
    out: list[str] = []
    block: int | None = None  # the indent of the block of code that we are in
    for line in lines:
        indent = len(line) - len(line.lstrip())
        before = out[-1] if out else ""
        if block is not None and line.strip() and indent < block:
            block = None
        if block is None and line.strip() and not before.strip() and indent > _indent_of_text(out):
            block = indent
            out += [f"{' ' * _indent_of_text(out)}::", ""]
        if block is not None or not line.strip():
            out.append(line)
            continue
        if line.lstrip().startswith("- ") and before.strip() and not _in_list(out):
            out.append("")
        out.append(inline(line))
    return out


def inline(line: str) -> str:
    """A line of text: `x` becomes ``x``, and what reStructuredText would read as markup is escaped."""
    parts = line.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner on this line
        parts = [line.replace("`", "'")]
    text = [re.sub(r"([\\*|]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
    code = [f"``{part}``" for part in parts[1::2]]
    return "".join(sum(zip(text, [*code, ""]), ()))


def _indent_of_text(out: list[str]) -> int:
    """The indent of the last line of text, behind the dash if it begins an item of a list."""
    last = next((line for line in reversed(out) if line.strip()), "")
    return len(last) - len(last.lstrip())


def _in_list(out: list[str]) -> bool:
    """Whether the paragraph that ends here is an item of a list."""
    for line in reversed(out):
        if not line.strip():
            return False
        if line.lstrip().startswith("- "):
            return True
    return False


def fields(owner: Any) -> dict[str, str]:
    """Field -> the comment behind it or right above it in the source of a class, in order."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(owner).splitlines()[1:]:
        comment = comment_of(line)
        if match := re.match(r"    (\w+): ", line):
            found[match[1]] = comment or " ".join(above)
            above = []
        elif line.strip().startswith("#"):
            above.append(comment)
        elif re.match(r"    (def|@)", line):
            break
        else:
            above = []
    return found


def comment_of(line: str) -> str:
    """The comment in a line of code."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(line.strip()).readline))
    except (tokenize.TokenError, IndentationError):
        return ""
    return next((t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT), "")
