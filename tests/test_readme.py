"""The pages' Python runs as it stands, their links lead somewhere, and README's test commands are those of CI."""

import re
from pathlib import Path

import pytest

from jaxrl_envs.registry import ENVIRONMENTS
from jaxrl_hier.reports import statistics

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = {
    f"{page.stem}-{i}": snippet
    for page in (ROOT / "README.md", ROOT / "docs" / "python.md")
    for i, snippet in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
}


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippet_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(SNIPPETS[name], name, "exec"), {})


@pytest.mark.parametrize("command", ["pytest", "pytest -m thorough"])
def test_ci_runs_the_test_commands(command):
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert 'pip install -e ".[test]" && pytest' in readme
    assert '-e ".[test]"' in ci
    assert command in readme
    assert f"\n{command}\n" in ci


# numbers in README's own words -> whether they are true; all others are written from result files
NUMBERS = {
    "2": lambda: "navigation2d" in ENVIRONMENTS,  # 2-D
    "3.11": lambda: 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text(),
    "70": lambda: len((ROOT / "examples/reinforce.py").read_text().splitlines()) == 70,
    "95": lambda: statistics.__doc__.startswith("95 % intervals"),
}


def test_every_number_of_readme_is_written_from_a_file_or_checked():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= 8000
    own = re.sub(r"```.*?```|<!-- generated: .*?<!-- end -->|`[^`]*`", "", text, flags=re.DOTALL)
    found = set(re.findall(r"(?<!\w)\d[\d.,]*\d|(?<!\w)\d", own))
    assert sorted(found) == sorted(NUMBERS)
    assert [number for number, true in NUMBERS.items() if not true()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = page.read_text()
    links = [link.partition("#") for link in re.findall(r"\]\(([^):]+)\)", text)]
    assert [path for path, _, _ in links if path and not (page.parent / path).exists()] == []
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.M)
    }
    assert [anchor for path, _, anchor in links if not path and anchor not in headings] == []
