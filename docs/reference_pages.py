"""The reference: what to import, from the docstrings.

`write(folder)` writes `pages()`; conf.py calls it before the site is built. Nothing of it is committed.
"""

import inspect
import pkgutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

from docs.algorithm_pages import write_changed


def modules_of(package: str) -> list[str]:
    """The public modules of a package, and of the packages in it."""
    inside = import_module(package)
    found = sorted(module.name for module in pkgutil.walk_packages(inside.__path__, f"{package}."))
    return [name for name in found if not name.rpartition(".")[2].startswith("_")]


# page -> title, modules whose functions and classes are listed
MODULES: dict[str, tuple[str, list[str]]] = {
    "engine": (
        "The engine",
        [
            "jaxrl_hier.engine.types",
            "jaxrl_hier.engine.rollout",
            "jaxrl_hier.engine.loops",
            "jaxrl_hier.engine.evaluation",
            "jaxrl_hier.engine.adapting",
            "jaxrl_hier.engine.train",
            "jaxrl_hier.engine.run_config",
            "jaxrl_hier.settings",
            "jaxrl_hier.host",
            "jaxrl_hier.registry",
            "jaxrl_hier.testing",
        ],
    ),
    "hierarchies": (
        "Options, task graphs and machines",
        [
            *modules_of("jaxrl_hier.abstractions"),
            "jaxrl_hier.hierarchical.options",
            "jaxrl_hier.hierarchical.graph_options",
            "jaxrl_hier.hierarchical.controllers",
            "jaxrl_hier.hierarchical.graphs",
            "jaxrl_hier.hierarchical.landmark_graph",
            "jaxrl_hier.hierarchical.maze_machines",
        ],
    ),
    "learning": ("What learners share", modules_of("jaxrl_hier.learning")),
    "exact": ("Exact solutions", modules_of("jaxrl_hier.exact")),
    "classical": ("Classical players", modules_of("jaxrl_hier.classical")),
}
PACKAGES = {"jaxrl_hier": "Running and loading", "jaxrl_envs": "Environments and tasks"}  # listed by their `__all__`


def pages() -> dict[str, str]:
    """File name -> Markdown."""
    found = {f"{name}.md": package_page(import_module(name), title) for name, title in PACKAGES.items()}
    found |= {f"{name}.md": modules_page(title, modules) for name, (title, modules) in MODULES.items()}
    listed = "\n".join(name.removesuffix(".md") for name in found)
    return found | {"index.md": f"# Reference\n\n```{{toctree}}\n{listed}\n```\n"}


def write(folder: Path) -> None:
    """Write `pages` into a folder."""
    write_changed(folder, pages())


def package_page(package: ModuleType, title: str) -> str:
    """Every public name of a package, under the name by which it is imported, grouped by module."""
    groups: dict[str, list[str]] = {}
    for name in package.__all__:
        groups.setdefault(getattr(package, name).__module__, []).append(name)
    parts = [f"# {title}: `{package.__name__}`"]
    for module, names in groups.items():
        parts += [f"## {first_sentence(import_module(module))}"]
        parts += [directive(package.__name__, name, getattr(package, name)) for name in names]
    return "\n\n".join(parts) + "\n"


def directive(package: str, name: str, value: object) -> str:
    """The directive that documents a name."""
    if isinstance(value, type):
        options = "" if issubclass(value, Exception) else "   :members:\n"
        return f"```{{eval-rst}}\n.. autoclass:: {package}.{name}\n{options}```"
    return f"```{{eval-rst}}\n.. autofunction:: {package}.{name}\n```"


def modules_page(title: str, modules: list[str]) -> str:
    """Functions and classes of modules."""
    parts = [f"# {title}"]
    for name in modules:
        members = f"```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n   :ignore-module-all:\n```"
        parts += [f"## `{name}`", members]
    return "\n\n".join(parts) + "\n"


def first_sentence(module: ModuleType) -> str:
    """The first line of a module's docstring up to its first stop or colon, as a heading."""
    line = (inspect.getdoc(module) or module.__name__).splitlines()[0]
    return line.split(". ")[0].split(": ")[0].rstrip(".:")
