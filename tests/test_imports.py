"""Imports point one way: no module imports from a layer above its own, and none imports itself on a detour. And an
algorithm's `make` is short."""

import ast
from pathlib import Path

import jaxrl_hier

PACKAGE = Path(jaxrl_hier.__file__).parent

# from the bottom to the top; a folder stands for all of its modules, and what is not named is of the last layer
LAYERS = (
    ("checks", "relations", "settings"),
    ("quantities", "abstractions", "engine"),
    ("exact",),
    ("learning",),
    ("flat", "classical"),
    ("goals", "hierarchical", "meta"),
)


def modules() -> dict[str, Path]:
    name = lambda path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    return {name(path): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file imports when it is itself imported, types included."""
    tree, found = ast.parse(path.read_text()), set()
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.Lambda) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").startswith("jaxrl_hier.")
            and id(node) not in inside
        ):
            module = (node.module or "").removeprefix("jaxrl_hier.")
            found |= {f"{module}.{a.name}" if f"{module}.{a.name}" in known else module for a in node.names}
    return found


def layer(module: str) -> int:
    return next((i for i, names in enumerate(LAYERS) if module in names or module.split(".")[0] in names), len(LAYERS))


GRAPH = {name: imports(path, set(modules())) for name, path in modules().items()}


def test_no_module_imports_from_a_layer_above():
    upwards = {f"{a} imports {b}" for a, others in GRAPH.items() for b in others if layer(b) > layer(a)}
    assert not upwards


def test_algorithms_of_one_layer_do_not_import_each_other():
    folder = lambda name: name.split(".")[0]
    sideways = {
        f"{a} imports {b}"
        for a, others in GRAPH.items()
        for b in others
        if folder(a) != folder(b)
        and layer(a) == layer(b) >= LAYERS.index(("flat", "classical"))
        and layer(a) < len(LAYERS)
    }
    assert not sideways


def test_no_circles():
    left = {name: {b for b in others if b in GRAPH} for name, others in GRAPH.items()}
    while ready := [name for name, others in left.items() if not others]:
        for name in ready:
            del left[name]
        left = {name: others.difference(ready) for name, others in left.items()}
    assert not left


def test_make_only_puts_parts_together():
    long = {}
    for name, path in modules().items():
        for f in ast.parse(path.read_text()).body:
            if isinstance(f, ast.FunctionDef) and f.name == "make":
                lines = f.end_lineno - f.body[1].lineno  # without signature and docstring
                long |= {name: lines} if lines > 60 else {}
    assert not long
