"""The pages of results are what their files make, and numbers, references and tables come out as they should."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import pages
from benchmarks.pages import Result, filled
from jaxrl_hier.checks import UsageError

ROOT = Path(__file__).parent.parent
WRITTEN = sorted((ROOT / "docs/results").glob("*.md"))
ROWS = [
    {"label": "a: 1 step", "ours": 1.2345, "interval": [1.1, 1.4], "seeds": 3, "verdict": "short", "published": 2.0},
    {"label": "a: 20 steps", "ours": -12345.6, "interval": None, "seeds": 1, "verdict": "reached", "exact": 0.0},
    {"label": "loss", "ours": -0.03, "interval": [-0.0521, 0.0079], "seeds": 3},
    {"label": "a: 5 steps", "ours": 0.5, "interval": [0.25, None], "seeds": 5, "verdict": "open", "rule": "above 0"},
    {"what": "b", "unit": "per second", "peer": "c", "ours": 30.0, "theirs": 20.0, "ratio": 1.5},
]
RESULTS = {name: Result(name, f"papers/{name}.json", {"rows": ROWS, "at": [{"x": 7.5}]}) for name in ("f", "g")}


def test_pages_are_what_their_files_make():
    assert pages.differences() == []


def test_a_page_that_differs_is_named_and_one_that_nothing_makes_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "pages", lambda repository: {"docs/results/a.md": "1", "README.md": "2"})
    pages.write(tmp_path)
    assert pages.differences(tmp_path) == []
    (tmp_path / "README.md").write_text("3")
    (tmp_path / "docs/results/b.md").write_text("")
    assert pages.differences(tmp_path) == ["README.md", "docs/results/b.md"]
    pages.write(tmp_path)
    assert pages.differences(tmp_path) == []


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("a: 1 step", "1.23 [1.10,\u00a01.40]"),
        ("g: a: 1 step", "1.23 [1.10,\u00a01.40]"),
        ("a: 1 step @ ours", "1.23"),
        ("a: 1 step @ interval", "[1.10,\u00a01.40]"),
        ("a: 1 step @ 3", "1.23"),
        ("a: 1 step @ published", "2"),
        ("loss @ percent", "−3.0 % [−5.2,\u00a00.8]"),
        ("a: 20 steps", "−12\u202f346"),
        ("a: 5 steps", "0.5 [0.25,\u00a0∞]"),
        ("least steps$", "−12\u202f346"),
        ("most ^a @ published", "2"),
        ("count steps?$", "3"),
        ("# short", "1"),
        ("# short 20", "0"),
        ("b; per second; c @ ratio", "1.50"),
        ("/at/0/x @ 2", "7.5"),
    ],
)
def test_references_are_replaced_by_numbers(reference, text):
    assert filled(f"it is {{{reference}}}.\n", RESULTS, "f") == f"it is {text}."


@pytest.mark.parametrize("reference", ["a: 2 steps", "a: 1 step @ colour", "h: a: 1 step", "/at/1/x"])
def test_a_reference_that_leads_nowhere_is_an_error(reference):
    with pytest.raises(UsageError, match=r"papers\.toml"):
        filled(f"{{{reference}}}", RESULTS, "f")


@pytest.mark.parametrize(
    ("x", "interval", "text"),
    [
        (-40.336, [-40.5996, -40.0724], "−40.34 [−40.60, −40.07]"),
        (93333.3, [35964.6, 150702.0], "93\u202f000 [36\u202f000, 151\u202f000]"),
        (499.4, [238.801, 499.985], "499 [239, 500]"),
        (0.0458492, [0.0458312, 0.0458671], "0.045849 [0.045831, 0.045867]"),
        (7.0, [7.0, 7.0], "7 [7, 7]"),
        (632.0, None, "632"),
        (0.000238419, None, "0.0002384"),
        (None, None, "∞"),
    ],
)
def test_numbers_have_as_many_digits_as_their_interval_allows(x, interval, text):
    assert pages.measured({"ours": x, "interval": interval}) == text.replace(", ", ",\u00a0")


def test_a_table_with_columns_is_sorted_by_their_numbers():
    text, shown = pages.pivot(r"^(?P<row>a): (?P<column>.*)$", ROWS)
    assert text.splitlines()[0] == "|  | 1 step | 5 steps | 20 steps |"
    assert "1.23 [1.10,\u00a01.40]\u00a0✗<br>*2*" in text
    assert len(shown) == 3
    text, _ = pages.pivot("20", ROWS)
    assert text.splitlines()[-1] == "| a: 20 steps | −12\u202f346 | 0 (exact) | reached | 1 seed |"
    with pytest.raises(UsageError, match="no row matches"):
        pages.pivot("x", ROWS)


def test_speeds_stand_by_numbers_of_environments_and_the_peers_last():
    speed = {"unit": "steps per second", "peer": None, "theirs": None}
    rows = [
        {"what": "taxi, 1 environment", **speed, "ours": 1234.0, "peer": "Gymnasium", "theirs": 10.0},
        {"what": "taxi, 64 environments", **speed, "ours": 5e6, "peer": "Gymnasium", "theirs": 10.0},
        {"what": "maze, 1 environment", **speed, "ours": 2.5},
    ]
    text = pages.crossed(r"^(?P<row>.+), (?P<column>\d+ environments?)$", rows)
    assert text.splitlines() == [
        "|  | 1 environment | 64 environments | Gymnasium |",
        "|---|---|---|---|",
        "| taxi | 1230 | 5\u202f000\u202f000 | 10 |",
        "| maze | 2.5 |  |  |",
    ]
    with pytest.raises(UsageError, match="does not match 'maze, 1 environment'"):
        pages.crossed("^(?P<row>taxi), (?P<column>.*)", rows)


def test_every_result_and_picture_has_one_page(tmp_path):
    listed = [{"result": [{"name": "f", "pictures": {"papers/f.png": "f"}}]}]
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers/f.png").touch()
    pages.require_complete({"f": RESULTS["f"]}, listed, tmp_path)
    with pytest.raises(UsageError, match=r"on no page.*: g"):
        pages.require_complete(RESULTS, listed, tmp_path)
    (tmp_path / "papers/h.gif").touch()
    with pytest.raises(UsageError, match=r"picture is on no page.*papers/h\.gif"):
        pages.require_complete({"f": RESULTS["f"]}, listed, tmp_path)
    with pytest.raises(UsageError, match="f twice"):
        pages.require_complete({"f": RESULTS["f"]}, listed * 2, tmp_path)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_links_and_pictures_of_the_written_pages_exist(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^):#]+)\)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert "{" not in re.sub(r"`[^`]*`", "", text)  # no reference is left


def test_the_page_to_search_needs_no_network_and_its_links_exist():
    text = (ROOT / pages.BOARD).read_text()
    assert not re.search(r"https?:|@import|<link|src=\"(?!\$)", text)
    groups = json.loads(re.search(r"const GROUPS = (\[.*\]);\n", text)[1].replace("<\\/", "</"))
    for group in groups:
        paths = [group["file"], *(path for path, _ in group["pictures"])]
        assert [path for path in paths if not (ROOT / pages.RESULTS / path).exists()] == []
    results = pages.load(ROOT / pages.RESULTS)
    assert sum(len(group["rows"]) for group in groups) == sum(len(result.rows) for result in results.values())
