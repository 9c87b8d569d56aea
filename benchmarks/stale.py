"""Which results are older than the code that they are about.

A result names its commit. Its code is the benchmark's module and what that imports of this repository, and so on,
environments and algorithms that it names included. A result is stale when a later commit has changed any of it, but for
comments and docstrings. Whether the change could have changed the numbers is for a reader to judge.
"""

import ast
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from .catalogue import by_module
from .results import REPOSITORY

PACKAGES = {"benchmarks": "benchmarks", "jaxrl_hier": "jaxrl_hier", "jaxrl_envs": "envs/jaxrl_envs"}
SHARED = (
    "benchmarks.results",
    "benchmarks.figure",
    "benchmarks.drawing",
    "jaxrl_hier.reports.statistics",
    "jaxrl_hier.reports.plotting",
    "jaxrl_hier.pictures",
    "jaxrl_hier.quantities",
    "jaxrl_hier.reports.records",
)  # how a result is written, not what it is
Named = Callable[[Iterable[str]], set[str]]


def reasons(content: dict[str, Any]) -> list[str]:
    """Why a result is older than its code, in a line; [] where it is not."""
    since, module = content.get("commit"), module_of(content)
    if not since or not module:
        return [f"{'no commit' if not since else 'no command'} in the file"]
    files = sources(module, REPOSITORY, by_name)
    later = changed_since(since.removesuffix("+"), files, REPOSITORY)
    newest = next(iter(later.items()), None)
    return [f"{len(later)} of its {len(files)} files are newer, such as {': '.join(newest)}"] if newest else []


def module_of(content: dict[str, Any]) -> str:
    """The module that made a result: that of its figure, or that of its command, or ""."""
    for module, figures in by_module().items():
        if content.get("name", "") in {figure.name for figure in figures}:
            return module
    words = content.get("command", "").split()
    return words[words.index("-m") + 1] if "-m" in words[:-1] else ""


def changed_since(commit: str, files: Iterable[Path], repository: Path) -> dict[str, str]:
    """Of `files` those whose code has changed since `commit`, and the last commit of each, the newest first."""
    names = [str(file.relative_to(repository)) for file in sorted(files)]
    command = ["git", "-C", str(repository), "log", "--format=%x00%h %as %s", "--name-only", f"{commit}..HEAD", "--"]
    found = subprocess.run([*command, *names], capture_output=True, text=True, check=True).stdout
    later: dict[str, str] = {}
    for entry in found.split("\0")[1:]:  # the newest commit first
        about, *changed = (line for line in entry.splitlines() if line)
        for name in changed:
            later.setdefault(name, about)
    now = {name: code((repository / name).read_text()) for name in later if name in names}
    return {name: later[name] for name in now if now[name] != code_at(commit, name, repository)}


@cache
def code_at(commit: str, name: str, repository: Path) -> str:
    """The `code` of a file at a commit, "" where there was none."""
    command = ["git", "-C", str(repository), "show", f"{commit}:{name}"]
    return code(subprocess.run(command, capture_output=True, text=True, check=False).stdout)


@cache
def code(text: str) -> str:
    """A module's program, without comments and docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = node.body[ast.get_docstring(node, clean=False) is not None :]
    return ast.unparse(tree)


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
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node, module)
            found.append(source)
            for alias in node.names:
                loaded = on_use(source, alias.name, repository)
                found.append(loaded or f"{source}.{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in packages:
            found.append(on_use(node.value.id, node.attr, repository) or f"{node.value.id}.{node.attr}")
    return found


def absolute(node: ast.ImportFrom, module: str) -> str:
    """The module from which `from … import` in `module` imports."""
    package = module.split(".")[: -node.level] if node.level else []
    return ".".join([*package, *(node.module or "").split(".")]).rstrip(".")


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


def by_name(wanted: Iterable[str]) -> set[str]:
    """Modules of the environments and algorithms that strings name, "bandit-n*" all that begin so."""
    import jaxrl_envs
    from jaxrl_hier import registry

    known, modules = jaxrl_envs.names(), set()
    for string in wanted:
        if string in registry.ALGORITHMS:
            modules.add(registry.ALGORITHMS[string].module)
        begin = string.removesuffix("*")
        meant = [name for name in known if name == string or (begin and begin != string and name.startswith(begin))]
        for name in meant:
            env = jaxrl_envs.make(name)[0]
            modules |= {kind.__module__ for kind in type(env).__mro__ if kind.__module__.startswith("jaxrl_envs")}
    return modules
