"""The documentation site: `sphinx-build -W docs site`. It needs no network, neither to be built nor to be read."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "envs")]

from docs import algorithm_pages, docstrings, reference_pages  # noqa: E402
from jaxrl_hier import __version__  # noqa: E402

project, author, version = "jaxrl_hier", "the authors of jaxrl_hier", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "jaxrl_hier"
html_static_path = ["static"]
html_css_files = ["wide.css"]
toc_object_entries = False
html_copy_source = html_show_sphinx = html_show_copyright = False
myst_heading_anchors = 4
autodoc_inherit_docstrings = False  # an environment is not documented by gymnax's own methods
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Fields", "params_style")]


def write_pages(app: Any, config: Any) -> None:
    """Write the pages that are made from the code, before Sphinx looks for pages."""
    algorithm_pages.write(ROOT / "docs" / "algorithms")
    reference_pages.write(ROOT / "docs" / "reference")


def read(app: Any, what: str, name: str, owner: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring into reStructuredText, and add the fields of a class with their comments."""
    lines[:] = docstrings.as_rst(lines)
    if what == "class" and "__annotations__" in vars(owner) and owner.__module__.startswith("jaxrl_"):
        told = {field: text for field, text in docstrings.fields(owner).items() if text}
        if told and "Fields:" not in lines:
            lines += ["", "Fields:", *(f"    {field}: {docstrings.inline(text)}" for field, text in told.items())]


def source_read(app: Any, page: str, text: list[str]) -> None:
    """Make links to folders plain text: they lead somewhere on GitHub, but not in a site."""
    here = (ROOT / "docs" / page).parent
    text[0] = re.sub(r"\[([^]]*)\]\(([^):#]+)\)", lambda m: m[1] if (here / m[2]).is_dir() else m[0], text[0])


def signature(app: Any, what: str, name: str, owner: Any, options: Any, text: str, returns: str) -> Any:
    """Write a default that is made by a function as `...`, so that Sphinx can read the signature."""
    return text and text.replace("<factory>", "..."), returns


def skip(app: Any, what: str, name: str, member: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, which `read` lists, and what gymnax and flax add to a class."""
    return True if type(member).__name__ == "_tuplegetter" or name == "replace" else None


def setup(app: Any) -> None:
    app.connect("config-inited", write_pages)
    app.connect("autodoc-process-docstring", read, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", signature)
    app.connect("source-read", source_read)
    app.connect("autodoc-skip-member", skip)
