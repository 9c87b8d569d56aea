"""The pages' Python runs, their commands and links are right, and README's test commands are those of CI."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest

from docs import algorithm_pages, reference_pages
from jaxrl_envs.registry import ENVIRONMENTS
from jaxrl_hier import cli, registry
from jaxrl_hier.reports import statistics

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WRITTEN = {  # pages that are written when the site is built
    *(DOCS / "algorithms" / name for name in algorithm_pages.pages()),
    *(DOCS / "reference" / name for name in reference_pages.pages()),
}
PAGES = {
    str(page.relative_to(ROOT)): page.read_text()
    for page in (*ROOT.glob("*.md"), *sorted(DOCS.rglob("*.md")))
    if page not in WRITTEN
}
NOTEBOOKS = {
    str(book.relative_to(ROOT)): "\n".join(
        "".join(cell["source"]) for cell in json.loads(book.read_text())["cells"] if cell["cell_type"] == "markdown"
    )
    for book in sorted((ROOT / "examples").glob("*.ipynb"))
}
SNIPPETS = {page: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for page, text in PAGES.items()}
COMMANDS = {
    re.sub(r"^([A-Z_]+=\S+ )*", "", line).partition("  #")[0].strip(): page
    for page, text in PAGES.items()
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
}


@pytest.mark.parametrize("page", [page for page, snippets in SNIPPETS.items() if snippets])
def test_snippets_run(page, tmp_path, monkeypatch):
    """One after the other, as a reader would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "ALGORITHMS", {**registry.ALGORITHMS})  # a page may register one
    names: dict[str, object] = {}
    for snippet in SNIPPETS[page]:
        exec(compile(snippet, page, "exec"), names)


@pytest.mark.parametrize("command", [command for command in COMMANDS if "jaxrl-hier train" in command])
def test_a_training_command_is_understood(command):
    words = shlex.split(command.split("jaxrl-hier train ")[1])
    cli._parse_train(words[0], words[1:])


@pytest.mark.parametrize("command", [command for command in COMMANDS if "jaxrl-hier sweep" in command])
def test_a_sweeping_command_is_understood(command):
    words = shlex.split(command.split("jaxrl-hier sweep ")[1])
    assert cli._over(words[0], cli._parse_sweep(words[0], words[1:]).over)


def test_other_commands_are_those_that_there_are():
    known = r"jaxrl-hier (list|evaluate \S+( --(env|algorithm) \S+)*|plot( \S+)+|export \S+ --(csv|policy))"
    told = [command for command in COMMANDS if re.match("jaxrl-hier (?!train|sweep)", command)]
    assert [command for command in told if not re.fullmatch(known, command)] == []
    modules = [re.match(r"python -m ([\w.]+)", command) for command in COMMANDS]
    assert [m[1] for m in modules if m and m[1] not in ("sphinx",) and not importlib.util.find_spec(m[1])] == []


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


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS])
def test_links_and_pictures_are_there(page):
    folder = (ROOT / page).parent
    lost = []
    for target in re.findall(r"\]\(([^):]+)\)", (PAGES | NOTEBOOKS)[page]):
        path, _, anchor = target.partition("#")
        found = (folder / path).resolve() if path else ROOT / page
        if found not in WRITTEN and not (found.exists() and (not anchor or anchor in headings(found))):
            lost.append(target)
    assert lost == []


def headings(page):
    """The anchors of a page, as GitHub and the site make them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_the_choice_between_adapters_rests_on_their_results():
    rows = json.loads((ROOT / "benchmarks/results/papers/adapters.json").read_text())["rows"]
    found = {row["label"]: f"{row['ours']:.1f}".replace("-", "−") for row in rows}
    text = PAGES["docs/guides/choosing.md"]
    for name in ("RL²", "MAML", "PEARL"):
        told = re.search(rf"^\| {name} \| (.*) \|$", text, re.M)[1].split(" | ")
        asked = [(kind, steps) for kind in ("dense", "sparse") for steps in (0, 20, 200)]
        rest = [found.get(f"{kind}, {name}: return after {steps} steps on the task", "–") for kind, steps in asked]
        assert told[:6] == rest
