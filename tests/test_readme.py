"""The pages' Python runs as it stands, their links lead somewhere, and README's test commands are those of CI."""

import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = page.read_text()
    links = [link.partition("#") for link in re.findall(r"\]\(([^):]+)\)", text)]
    assert [path for path, _, _ in links if path and not (page.parent / path).exists()] == []
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.M)
    }
    assert [anchor for path, _, anchor in links if not path and anchor not in headings] == []
