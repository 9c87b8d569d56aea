"""Deliberate small errors as data: what each one changes, and which tests must notice it.

Each `<area>.toml` in this folder holds entries like

    [[error]]
    name = "SAC's actor descends its value"         # what is wrong, in words
    file = "jaxrl_hier/flat/sac.py"
    old = "total = critics - value"                 # exact text, once in the file
    new = "total = critics + value"
    tests = ["tests/flat/test_continuous.py"]       # files or node ids that must notice
    survives = "…"                                  # why no test can; only for those known to survive

`python -m tests.planted` plants them one at a time in a copy of the checkout and counts those that are noticed.
"""

import ast
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

FOLDER = Path(__file__).parent
CHECKOUT = FOLDER.parent.parent
PACKAGES = ("jaxrl_hier", "envs", "benchmarks")  # where errors may be planted


@dataclass(frozen=True)
class Planted:
    """One error. `area` is the name of the file that it stands in, without `.toml`."""

    area: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str = ""

    def problem(self, checkout: Path = CHECKOUT) -> str | None:
        """Why the entry cannot be planted in `checkout`, or None."""
        path = checkout / self.file
        if self.file.split("/")[0] not in PACKAGES or not path.is_file():
            return f"there is no file {self.file} in {', '.join(PACKAGES)}"
        source = path.read_text()
        if source.count(self.old) != 1:
            return f"`old` must occur once in {self.file}, got {source.count(self.old)} times: {self.old!r}"
        try:
            changed = ast.dump(ast.parse(self.applied(source))) != ast.dump(ast.parse(source))
        except SyntaxError as error:
            return f"{self.file} does not compile with the error: {error}"
        if not changed:
            return f"`new` means the same as `old` in {self.file}: {self.new!r}"
        missing = [test for test in self.tests if not _exists(checkout, test)]
        if not self.tests or missing:
            return f"tests that do not exist: {', '.join(missing) or 'none are named'}"
        return None

    def applied(self, source: str) -> str:
        """`source` of the file with the error."""
        return source.replace(self.old, self.new)


def _exists(checkout: Path, test: str) -> bool:
    """Whether `test`, a file or a node id, is there."""
    path, *names = test.partition("[")[0].split("::")
    if not (checkout / path).is_file():
        return False
    source = (checkout / path).read_text()
    return all(re.search(rf"^\s*(def|class) {re.escape(name)}\b", source, re.MULTILINE) for name in names)


def load(folder: Path = FOLDER) -> list[Planted]:
    """All entries, by area in alphabetical order. Raises ValueError for an entry of another form."""
    entries = []
    for path in sorted(folder.glob("*.toml")):
        for number, error in enumerate(tomllib.loads(path.read_text())["error"], 1):
            unknown = error.keys() - {f.name for f in fields(Planted)} | error.keys() & {"area"}
            if unknown:
                raise ValueError(f"{path.name}, entry {number}: unknown keys {', '.join(sorted(unknown))}")
            try:
                entries.append(Planted(path.stem, **error | {"tests": tuple(error["tests"])}))
            except (KeyError, TypeError) as missing:
                raise ValueError(f"{path.name}, entry {number}: {missing}") from missing
    return entries
