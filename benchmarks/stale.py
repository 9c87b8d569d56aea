"""Which results are older than the code that they are about.

    python -m benchmarks.stale              # every result file
    python -m benchmarks.stale hiro         # those with this in their name

A result names its commit. Its code is the benchmark's module and what that imports of this repository, and so on, an
environment that is made by name included. A result is stale when a later commit has changed any of it; printed are the
files and the last commit of each. Whether the change could have changed the numbers is for a reader to judge: a
docstring counts too. Exit status 1 when a result is stale.
"""

import ast
import json
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.results import REPOSITORY, ROOT

PACKAGES = {"benchmarks": "benchmarks", "jaxrl_hier": "jaxrl_hier", "jaxrl_envs": "envs/jaxrl_envs"}
SHARED = (
    "benchmarks.results",
    "jaxrl_hier.reports.statistics",
    "jaxrl_hier.reports.plotting",
    "jaxrl_hier.pictures",
    "jaxrl_hier.quantities",
    "jaxrl_hier.reports.records",
)  # how a result is written, not what it is
Named = Callable[[Iterable[str]], set[str]]


@dataclass(frozen=True)
class Arguments:
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """parts of file names; default: all"""


def main(arguments: Arguments) -> None:
    stale = 0
    for path in sorted(ROOT.glob("*/*.json")):
        if arguments.names and not any(name in path.stem for name in arguments.names):
            continue
        content = json.loads(path.read_text())
        since, module = content.get("commit"), module_of(content.get("command", ""))
        if not since or not module:
            print(f"{path.stem}: {'no commit' if not since else 'no command'} in the file")
            stale += 1
            continue
        files = sources(module, REPOSITORY, environments)
        later = changed_since(since.removesuffix("+"), files, REPOSITORY)
        stale += bool(later)
        print(
            f"{path.stem}, {since}, {content.get('date', 'no date')}: {len(later)} of {len(files)} files changed since"
        )
        for file, last in later.items():
            print(f"    {file}: {last}")
    if stale:
        raise SystemExit(1)


def module_of(command: str) -> str:
    """The module of "python -m benchmarks.papers.maxq_taxi --runs 5", or ""."""
    words = command.split()
    return words[words.index("-m") + 1] if "-m" in words[:-1] else ""


def changed_since(commit: str, files: Iterable[Path], repository: Path) -> dict[str, str]:
    """Of `files` those that a commit after `commit` has changed, and the last such commit of each."""
    names = [str(file.relative_to(repository)) for file in sorted(files)]
    command = ["git", "-C", str(repository), "log", "--format=%x00%h %as %s", "--name-only", f"{commit}..HEAD", "--"]
    found = subprocess.run([*command, *names], capture_output=True, text=True, check=True).stdout
    later: dict[str, str] = {}
    for entry in found.split("\0")[1:]:  # the newest commit first
        about, *changed = (line for line in entry.splitlines() if line)
        for name in changed:
            later.setdefault(name, about)
    return {name: later[name] for name in names if name in later}


def sources(module: str, repository: Path, named: Named = lambda strings: set()) -> set[Path]:
    """The files of `module` and of all that it imports, directly or not, of the repository's packages.

    named: strings of the benchmark's own modules -> further modules, such as those of environments made by name.
    """
    files: dict[str, Path] = {}
    to_do = [module]
    while to_do:
        name = to_do.pop()
        file = file_of(name, repository)
        if name in files or file is None or name.startswith(SHARED):
            continue
        files[name] = file
        tree = ast.parse(file.read_text())
        if not name.endswith(".registry"):  # a table of everything; `named` knows what is meant
            to_do += imported(tree, name, repository)
        if name.startswith("benchmarks."):
            to_do += named(strings(tree))
    return set(files.values())


def file_of(module: str, repository: Path) -> Path | None:
    """Of a module or package of this repository, else None."""
    package, *rest = module.split(".")
    if package not in PACKAGES:
        return None
    stem = (repository / PACKAGES[package]).joinpath(*rest)
    return next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()), None)


def imported(tree: ast.Module, module: str, repository: Path) -> list[str]:
    """What the module imports, anywhere in it: modules, and names, which may be modules or loaded on use."""
    found, packages = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
            packages |= {alias.name for alias in node.names if alias.name in PACKAGES and not alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
            for alias in node.names:
                loaded = on_use(node.module, alias.name, repository)
                found.append(loaded or f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in packages:
            found.append(on_use(node.value.id, node.attr, repository) or f"{node.value.id}.{node.attr}")
    return found


def on_use(package: str, name: str, repository: Path) -> str:
    """The module that a package's `_EXPORTS` gives for a name, or ""."""
    file = file_of(package, repository)
    if file is None or file.name != "__init__.py":
        return ""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "_EXPORTS" for t in node.targets):
            exports = ast.literal_eval(node.value)
            return f"{package}.{exports[name]}" if name in exports else ""
    return ""


def strings(tree: ast.Module) -> set[str]:
    """Literal strings; of one with fields in it what stands before the first, with a star."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)):
                found.add(text)
            case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
                found.add(f"{text}*")
    return found


def environments(wanted: Iterable[str]) -> set[str]:
    """Modules of the environments that strings name, "bandit-n*" all that begin so."""
    import jaxrl_envs

    known, modules = jaxrl_envs.names(), set()
    for string in wanted:
        begin = string.removesuffix("*")
        meant = [name for name in known if name == string or (begin and begin != string and name.startswith(begin))]
        for name in meant:
            env = jaxrl_envs.make(name)[0]
            modules |= {kind.__module__ for kind in type(env).__mro__ if kind.__module__.startswith("jaxrl_envs")}
    return modules


if __name__ == "__main__":
    main(tyro.cli(Arguments))
