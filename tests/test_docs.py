"""The pages that are written from the code: nothing is missing on them, and docstrings are read as they were meant."""

import dataclasses
import inspect
from importlib import import_module
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

import jaxrl_envs
import jaxrl_hier
from docs import algorithm_pages, docstrings, reference_pages
from jaxrl_hier.registry import ALGORITHMS

ROOT = Path(__file__).parent.parent


def test_every_algorithm_has_a_page():
    described = [name for page in algorithm_pages.PAGES.values() for name in algorithm_pages.presets_of(page)]
    assert sorted(described) == sorted(ALGORITHMS)


@pytest.mark.parametrize("name", algorithm_pages.PAGES)
def test_a_page_has_equations_departures_every_setting_and_its_figures(name):
    page = algorithm_pages.PAGES[name]
    module = import_module(f"jaxrl_hier.{page.module}")
    told, text = inspect.getdoc(module), algorithm_pages.page_of(page)
    assert any(line.startswith("    ") for line in told.splitlines())
    assert "Departure" in told
    helped = algorithm_pages.help_of(module.Config)
    assert all(helped[field.name] for field in dataclasses.fields(module.Config))
    assert all(f"jaxrl-hier train {preset}\n" in text for preset in algorithm_pages.presets_of(page))
    assert [file for file in page.figures if not (ROOT / "benchmarks/results/papers" / file).exists()] == []


def test_every_public_name_is_in_the_reference():
    found = reference_pages.pages()
    for package in (jaxrl_hier, jaxrl_envs):
        page = found[f"{package.__name__}.md"]
        assert [name for name in package.__all__ if f":: {package.__name__}.{name}\n" not in page] == []


def test_types_of_settings_in_words():
    words = [algorithm_pages.kind(x) for x in (float | None, tuple[int, ...], tuple[float, float], Literal["a", "b"])]
    assert words == ["float or None", "ints", "2 floats", "`a`, `b`"]


def test_a_docstring_becomes_restructuredtext():
    text = """An `x` of |s|, π_θ and a_.

    a = b * c
    - no list

Steps:
- one,
  in two lines
- two

Args:
    x: [N] `y`*.
""".splitlines()
    assert docstrings.as_rst(text) == [
        "An ``x`` of \\|s\\|, π_θ and a\\_.",
        "",
        "::",
        "",
        "    a = b * c",
        "    - no list",
        "",
        "Steps:",
        "",
        "- one,",
        "  in two lines",
        "- two",
        "",
        "Args:",
        "    x: [N] ``y``\\*.",
    ]


class Explained(NamedTuple):
    """A class whose fields have comments."""

    a: int  # behind
    # above,
    # in two lines
    b: str = "#"
    c: float = 0.0

    def method(self):
        d: int = 0  # of no field
        return d


def test_fields_and_their_comments():
    assert docstrings.fields(Explained) == {"a": "behind", "b": "above, in two lines", "c": ""}
